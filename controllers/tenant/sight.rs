//! What is read of a Node; nothing else of it takes memory. The admin of a tenant decides what its Nodes have: decoded as a
//! whole, a list of empty strings takes ten times as much as its text.

use std::borrow::Cow;

use k8s_openapi::{
    api::core::v1::{Node, NodeCondition, NodeSpec, NodeStatus, NodeSystemInfo},
    apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time},
};
use kube::Resource;
use serde::Deserialize;

use crate::k8s::conditions::cut;

/// Label of the zone of a Node.
pub const ZONE: &str = "topology.kubernetes.io/zone";

/// Characters of a string of a Node that are kept. The tenant sets it, and Cluster API allows as many in a Machine.
const MAX_STRING: usize = 512;

/// A Node with name, UID, version, times, zone, provider ID, cordon, version of its kubelet and the
/// condition `Ready` alone.
#[derive(Clone, Debug, Deserialize)]
#[serde(from = "Read")]
pub struct Sight(pub Node);

#[derive(Deserialize)]
struct Read {
    #[serde(default)]
    metadata: Metadata,
    #[serde(default)]
    spec: Spec,
    #[serde(default)]
    status: Status,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Metadata {
    name: Option<String>,
    uid: Option<String>,
    resource_version: Option<String>,
    creation_timestamp: Option<Time>,
    deletion_timestamp: Option<Time>,
    labels: Option<Labels>,
}

#[derive(Deserialize)]
struct Labels {
    #[serde(rename = "topology.kubernetes.io/zone")]
    zone: Option<String>,
}

#[derive(Default, Deserialize)]
struct Spec {
    #[serde(rename = "providerID")]
    provider_id: Option<String>,
    unschedulable: Option<bool>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Status {
    node_info: Option<Info>,
    conditions: Option<Vec<Condition>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Info {
    #[serde(default)]
    kubelet_version: String,
}

#[derive(Deserialize)]
struct Condition {
    #[serde(default, rename = "type")]
    type_: String,
    #[serde(default)]
    status: String,
}

impl From<Read> for Sight {
    fn from(read: Read) -> Self {
        let Read {
            metadata,
            spec,
            status,
        } = read;
        let zone = metadata.labels.and_then(|labels| labels.zone);
        let ready = status
            .conditions
            .into_iter()
            .flatten()
            .find(|condition| condition.type_ == "Ready");
        let condition = |condition: Condition| NodeCondition {
            type_: condition.type_,
            status: bounded(condition.status),
            ..NodeCondition::default()
        };
        let info = |info: Info| NodeSystemInfo {
            kubelet_version: bounded(info.kubelet_version),
            ..NodeSystemInfo::default()
        };
        Self(Node {
            metadata: ObjectMeta {
                name: metadata.name,
                uid: metadata.uid,
                resource_version: metadata.resource_version,
                creation_timestamp: metadata.creation_timestamp,
                deletion_timestamp: metadata.deletion_timestamp,
                labels: zone.map(|zone| [(ZONE.to_owned(), zone)].into()),
                ..ObjectMeta::default()
            },
            spec: Some(NodeSpec {
                provider_id: spec.provider_id.map(bounded),
                unschedulable: spec.unschedulable,
                ..NodeSpec::default()
            }),
            status: Some(NodeStatus {
                node_info: status.node_info.map(info),
                conditions: ready.map(|ready| vec![condition(ready)]),
                ..NodeStatus::default()
            }),
        })
    }
}

fn bounded(text: String) -> String {
    cut(text, MAX_STRING)
}

impl Resource for Sight {
    type DynamicType = <Node as Resource>::DynamicType;
    type Scope = <Node as Resource>::Scope;

    fn kind(dt: &Self::DynamicType) -> Cow<'_, str> {
        Node::kind(dt)
    }

    fn group(dt: &Self::DynamicType) -> Cow<'_, str> {
        Node::group(dt)
    }

    fn version(dt: &Self::DynamicType) -> Cow<'_, str> {
        Node::version(dt)
    }

    fn plural(dt: &Self::DynamicType) -> Cow<'_, str> {
        Node::plural(dt)
    }

    fn meta(&self) -> &ObjectMeta {
        &self.0.metadata
    }

    fn meta_mut(&mut self) -> &mut ObjectMeta {
        &mut self.0.metadata
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn seen(node: Value) -> Value {
        let Sight(node) = serde_json::from_value(node).unwrap();
        serde_json::to_value(node).unwrap()
    }

    #[test]
    fn what_is_used_of_a_node_is_kept_and_nothing_else() {
        let node = json!({
            "apiVersion": "v1", "kind": "Node",
            "metadata": {
                "name": "n", "uid": "u", "resourceVersion": "7", "creationTimestamp": "2026-01-01T00:00:00Z",
                "labels": {ZONE: "z", "a": "b"}, "annotations": {"c": "d"}, "managedFields": [{"fieldsV1": {"f:spec": {}}}],
            },
            "spec": {"providerID": "test:///n", "taints": [{"key": "k", "effect": "NoSchedule"}]},
            "status": {
                "nodeInfo": {"kubeletVersion": "v1.36.3", "bootID": "b"}, "volumesInUse": ["", ""],
                "conditions": [{"type": "DiskPressure", "status": "False"}, {"type": "Ready", "status": "True", "reason": "r"}],
            },
        });
        let seen = seen(node);
        for (path, value) in [
            ("/metadata/name", json!("n")),
            ("/metadata/uid", json!("u")),
            ("/metadata/resourceVersion", json!("7")),
            ("/metadata/creationTimestamp", json!("2026-01-01T00:00:00Z")),
            ("/metadata/labels", json!({ZONE: "z"})),
            ("/spec/providerID", json!("test:///n")),
            ("/status/nodeInfo/kubeletVersion", json!("v1.36.3")),
            ("/status/conditions", json!([{"type": "Ready", "status": "True"}])),
        ] {
            assert_eq!(seen.pointer(path), Some(&value), "{path}");
        }
        let text = seen.to_string();
        for other in [
            "managedFields",
            "annotations",
            "taints",
            "volumesInUse",
            "DiskPressure",
        ] {
            assert!(!text.contains(other), "{text}");
        }
    }

    #[test]
    fn what_is_kept_of_a_node_is_bounded_whatever_the_tenant_writes() {
        let kept = |length: usize| {
            let text = "x".repeat(length);
            let seen = seen(json!({
                "metadata": {"name": "n"}, "spec": {"providerID": text},
                "status": {"nodeInfo": {"kubeletVersion": text}, "conditions": [{"type": "Ready", "status": text}]},
            }));
            [
                "/spec/providerID",
                "/status/nodeInfo/kubeletVersion",
                "/status/conditions/0/status",
            ]
            .map(|path| seen.pointer(path).unwrap().as_str().unwrap().chars().count())
        };
        assert_eq!(kept(512), [512; 3], "as long as that of a Machine");
        assert_eq!(kept(500_000), [512; 3]);
    }

    #[test]
    fn a_node_with_little_or_null_is_read() {
        for node in [
            json!({"metadata": {"name": "n"}}),
            json!({
                "metadata": {"name": "n", "labels": null, "creationTimestamp": null}, "spec": {},
                "status": {"nodeInfo": {"kubeletVersion": ""}, "conditions": null},
            }),
        ] {
            assert_eq!(seen(node).pointer("/metadata/name"), Some(&json!("n")));
        }
    }
}
