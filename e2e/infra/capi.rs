//! The fields of Cluster API's objects that the provider reads.

use kube::{
    Resource, ResourceExt as _,
    api::{ApiResource, DynamicObject, GroupVersionKind},
};
use serde_json::Value;

use super::names::{CLUSTER_NAME_LABEL, PAUSED_ANNOTATION};

/// Cluster API's group.
pub const GROUP: &str = "cluster.x-k8s.io";

/// Type of Clusters.
pub fn clusters() -> ApiResource {
    ApiResource::from_gvk_with_plural(&GroupVersionKind::gvk(GROUP, "v1beta2", "Cluster"), "clusters")
}

/// Type of Machines.
pub fn machines() -> ApiResource {
    ApiResource::from_gvk_with_plural(&GroupVersionKind::gvk(GROUP, "v1beta2", "Machine"), "machines")
}

/// Type of MachinePools.
pub fn machine_pools() -> ApiResource {
    ApiResource::from_gvk_with_plural(
        &GroupVersionKind::gvk(GROUP, "v1beta2", "MachinePool"),
        "machinepools",
    )
}

/// Name of the owner of `kind` in Cluster API's group, at any position of the references.
pub fn owner<'a>(object: &'a impl Resource, kind: &str) -> Option<&'a str> {
    object
        .meta()
        .owner_references
        .iter()
        .flatten()
        .find(|owner| owner.kind == kind && owner.api_version.split('/').next() == Some(GROUP))
        .map(|owner| owner.name.as_str())
}

/// Name of the cluster that the object belongs to.
pub fn cluster_name(object: &impl Resource) -> Option<&str> {
    object
        .meta()
        .labels
        .as_ref()?
        .get(CLUSTER_NAME_LABEL)
        .map(String::as_str)
}

/// Whether the Cluster or the object itself is paused.
pub fn paused(cluster: &DynamicObject, object: &impl Resource) -> bool {
    cluster.data["spec"]["paused"] == true || object.annotations().contains_key(PAUSED_ANNOTATION)
}

/// Whether Cluster API reports the infrastructure of the cluster as provisioned.
pub fn infrastructure_provisioned(cluster: &DynamicObject) -> bool {
    cluster.data["status"]["initialization"]["infrastructureProvisioned"] == true
}

/// The first pod CIDR block of the Cluster.
pub fn pod_cidr(cluster: &DynamicObject) -> Option<&str> {
    cluster.data["spec"]["clusterNetwork"]["pods"]["cidrBlocks"][0].as_str()
}

/// Name of the cluster's infrastructure object, if it is a `LocalCluster`.
pub fn local_cluster(cluster: &DynamicObject) -> Option<&str> {
    reference(&cluster.data["spec"]["infrastructureRef"], "LocalCluster")
}

/// Name of the Machine's infrastructure object, if it is a `LocalMachine`.
pub fn local_machine(machine: &DynamicObject) -> Option<&str> {
    reference(&machine.data["spec"]["infrastructureRef"], "LocalMachine")
}

/// Name of the MachinePool's infrastructure object, if it is a `LocalMachinePool`.
pub fn local_machine_pool(pool: &DynamicObject) -> Option<&str> {
    reference(
        &pool.data["spec"]["template"]["spec"]["infrastructureRef"],
        "LocalMachinePool",
    )
}

/// Name of the Machine's bootstrap Secret. That of a MachinePool's Machine is empty.
pub fn data_secret(machine: &DynamicObject) -> Option<&str> {
    not_empty(&machine.data["spec"]["bootstrap"]["dataSecretName"])
}

/// Version of Kubernetes of a Machine.
pub fn version(machine: &DynamicObject) -> Option<&str> {
    not_empty(&machine.data["spec"]["version"])
}

/// Name of the MachinePool's bootstrap Secret.
pub fn pool_data_secret(pool: &DynamicObject) -> Option<&str> {
    not_empty(&pool.data["spec"]["template"]["spec"]["bootstrap"]["dataSecretName"])
}

/// Version of Kubernetes of a MachinePool.
pub fn pool_version(pool: &DynamicObject) -> Option<&str> {
    not_empty(&pool.data["spec"]["template"]["spec"]["version"])
}

/// How many machines a MachinePool is to have.
pub fn pool_replicas(pool: &DynamicObject) -> usize {
    let replicas = pool.data["spec"]["replicas"].as_u64().unwrap_or(1);
    usize::try_from(replicas).unwrap_or(usize::MAX)
}

fn not_empty(value: &Value) -> Option<&str> {
    value.as_str().filter(|text| !text.is_empty())
}

fn reference<'a>(reference: &'a Value, kind: &str) -> Option<&'a str> {
    if reference["kind"] == kind && reference["apiGroup"] == super::api::GROUP {
        reference["name"].as_str()
    } else {
        None
    }
}
