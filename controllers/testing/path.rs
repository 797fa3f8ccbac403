//! Paths of objects in the namespace `demo`, which the convergence tests use.

use crate::k8s::key::RootKey;

/// A Secret.
pub fn secret(name: &str) -> String {
    format!("/api/v1/namespaces/demo/secrets/{name}")
}

/// A Cluster.
pub fn cluster(name: &str) -> String {
    format!("/apis/cluster.x-k8s.io/v1beta2/namespaces/demo/clusters/{name}")
}

/// A Machine.
pub fn machine(name: &str) -> String {
    format!("/apis/cluster.x-k8s.io/v1beta2/namespaces/demo/machines/{name}")
}

/// A MachinePool.
pub fn machine_pool(name: &str) -> String {
    format!("/apis/cluster.x-k8s.io/v1beta2/namespaces/demo/machinepools/{name}")
}

/// A CustomResourceDefinition.
pub fn definition(name: &str) -> String {
    format!("/apis/apiextensions.k8s.io/v1/customresourcedefinitions/{name}")
}

/// The key of an object in that namespace.
pub fn key(name: &str) -> RootKey {
    RootKey::new("demo", name)
}
