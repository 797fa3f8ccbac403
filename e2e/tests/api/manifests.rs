//! Objects that the API tests write: minimal ones, and the changes that tables make to them. Data only.

#![expect(
    clippy::needless_pass_by_value,
    reason = "every caller makes the value on the spot"
)]

use serde_json::{Value, json};

/// `base` with `over` merged into it; null removes.
pub fn merged(mut base: Value, over: Value) -> Value {
    match (&mut base, over) {
        (Value::Object(base), Value::Object(over)) => {
            for (key, value) in over {
                if value.is_null() {
                    base.remove(&key);
                } else {
                    let inner = base.remove(&key).unwrap_or_default();
                    base.insert(key, merged(inner, value));
                }
            }
        }
        (base, over) => *base = over,
    }
    base
}

/// The least that an object of a kind can be.
pub fn minimal(kind: &str, name: &str) -> Value {
    let (group, spec) = match kind {
        "TenantControlPlane" => (
            "kamaji.clastix.io/v1alpha1",
            json!({
                "controlPlane": {"service": {"serviceType": "ClusterIP"}},
                "kubernetes": {"version": "v1.36.3", "kubelet": {}},
            }),
        ),
        "DataStore" => ("kamaji.clastix.io/v1alpha1", etcd()),
        "KamajiControlPlane" => (
            "controlplane.cluster.x-k8s.io/v1alpha2",
            json!({"version": "v1.36.3"}),
        ),
        "KamajiControlPlaneTemplate" => (
            "controlplane.cluster.x-k8s.io/v1alpha2",
            json!({"template": {"spec": {}}}),
        ),
        "KamajiConfigTemplate" => (
            "bootstrap.cluster.x-k8s.io/v1alpha1",
            json!({"template": {"spec": {}}}),
        ),
        _ => ("bootstrap.cluster.x-k8s.io/v1alpha1", json!({})),
    };
    json!({"apiVersion": group, "kind": kind, "metadata": {"name": name}, "spec": spec})
}

/// A key of a Secret.
pub fn secret(key: &str) -> Value {
    json!({"secretReference": {"name": "etcd-certs", "namespace": "etcd", "keyPath": key}})
}

/// Spec of an etcd outside.
pub fn etcd() -> Value {
    json!({
        "driver": "etcd",
        "endpoints": ["etcd-0.etcd.svc:2379"],
        "tlsConfig": {
            "certificateAuthority": {"certificate": secret("ca.crt"), "privateKey": secret("ca.key")},
            "clientCertificate": {"certificate": secret("tls.crt"), "privateKey": secret("tls.key")},
        },
    })
}

/// A TenantControlPlane with something wrong.
pub fn tcp(over: Value) -> Value {
    merged(minimal("TenantControlPlane", "bad"), json!({"spec": over}))
}

/// A KamajiControlPlane with something wrong.
pub fn kcp(over: Value) -> Value {
    merged(minimal("KamajiControlPlane", "bad"), json!({"spec": over}))
}

/// A DataStore with something wrong.
pub fn store(over: Value) -> Value {
    merged(minimal("DataStore", "bad"), json!({"spec": over}))
}

/// A KamajiConfig with something wrong.
pub fn config(over: Value) -> Value {
    merged(minimal("KamajiConfig", "bad"), json!({"spec": over}))
}

/// A KamajiConfig with one file.
pub fn file(over: Value) -> Value {
    config(json!({"files": [merged(json!({"path": "/etc/motd", "content": "hello"}), over)]}))
}

/// A KamajiConfig with this registration.
pub fn node(over: Value) -> Value {
    config(json!({"nodeRegistration": over}))
}
