//! Changes of objects that the API server rejects, and their messages.

#![expect(clippy::too_many_lines, reason = "tables are read as one")]

use serde_json::{Value, json};

use super::manifests::{kcp, merged, store, tcp};

/// A row of [`refused_on_change`]: description, the object before and after, part of the message.
pub type Change = (&'static str, Value, Value, &'static str);

/// Objects that are refused when they change.
pub fn refused_on_change() -> Vec<Change> {
    let balanced = |over: Value| {
        tcp(merged(
            json!({"controlPlane": {"service": {"serviceType": "LoadBalancer"}}}),
            over,
        ))
    };
    let managed = |over: Value| {
        json!({
            "apiVersion": "kamaji.clastix.io/v1alpha1", "kind": "DataStore", "metadata": {"name": "x"},
            "spec": {"managed": over},
        })
    };
    vec![
        (
            "unset DataStore",
            tcp(json!({"dataStore": "a"})),
            tcp(json!({})),
            "dataStore cannot be unset once it is set; name a DataStore",
        ),
        (
            "unset schema",
            tcp(json!({"dataStoreSchema": "a"})),
            tcp(json!({})),
            "dataStoreSchema cannot be unset once it is set",
        ),
        (
            "unset user",
            tcp(json!({"dataStoreUsername": "a"})),
            tcp(json!({})),
            "dataStoreUsername cannot be unset once it is set",
        ),
        (
            "another schema",
            tcp(json!({"dataStoreSchema": "a"})),
            tcp(json!({"dataStoreSchema": "b"})),
            "dataStoreSchema cannot be changed",
        ),
        (
            "another user",
            tcp(json!({"dataStoreUsername": "a"})),
            tcp(json!({"dataStoreUsername": "b"})),
            "dataStoreUsername cannot be changed",
        ),
        (
            "another domain",
            tcp(json!({})),
            tcp(json!({"networkProfile": {"clusterDomain": "other.local"}})),
            "clusterDomain cannot be changed",
        ),
        (
            "another class",
            balanced(json!({"networkProfile": {"loadBalancerClass": "a"}})),
            balanced(json!({"networkProfile": {"loadBalancerClass": "b"}})),
            "loadBalancerClass cannot be changed",
        ),
        (
            "a class later",
            balanced(json!({})),
            balanced(json!({"networkProfile": {"loadBalancerClass": "b"}})),
            "networkProfile.loadBalancerClass cannot be set or unset while the Service is a LoadBalancer",
        ),
        (
            "no class later",
            balanced(json!({"networkProfile": {"loadBalancerClass": "b"}})),
            balanced(json!({})),
            "networkProfile.loadBalancerClass cannot be set or unset while the Service is a LoadBalancer",
        ),
        (
            "another user of a control plane",
            kcp(json!({"dataStoreUsername": "a"})),
            kcp(json!({"dataStoreUsername": "b"})),
            "dataStoreUsername cannot be changed",
        ),
        (
            "a class later, of a control plane",
            kcp(json!({"network": {"loadBalancerConfig": {}}})),
            kcp(json!({"network": {"loadBalancerConfig": {"loadBalancerClass": "a"}}})),
            "loadBalancerClass cannot be set or unset later",
        ),
        (
            "another class, of a control plane",
            kcp(json!({"network": {"loadBalancerConfig": {"loadBalancerClass": "a"}}})),
            kcp(json!({"network": {"loadBalancerConfig": {"loadBalancerClass": "b"}}})),
            "loadBalancerClass cannot be changed",
        ),
        (
            "another driver",
            store(json!({})),
            store(json!({"driver": "NATS"})),
            "driver cannot be changed; create another DataStore",
        ),
        (
            "managed later",
            store(json!({})),
            managed(json!({})),
            "managed cannot be added to or removed from",
        ),
        (
            "not managed any more",
            managed(json!({})),
            store(json!({})),
            "managed cannot be added to or removed from",
        ),
        (
            "more members",
            managed(json!({})),
            managed(json!({"replicas": 3})),
            "managed.replicas cannot be changed; create another DataStore",
        ),
        (
            "more storage",
            managed(json!({})),
            managed(json!({"storage": {"size": "16Gi"}})),
            "managed.storage cannot be changed; create another DataStore",
        ),
    ]
}
