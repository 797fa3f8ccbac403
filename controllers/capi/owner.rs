//! The owner of an object: the reference with a kind and a group, wherever it is in the list and whatever its
//! `controller` field. The control plane of a Cluster with a topology has a Secret as its first owner, and Cluster API
//! core sets `controller` only for topologies.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use kamaji_api::labels::capi;
use kube::{Resource, ResourceExt};

/// The owner of `kind` in Cluster API's group, in any of its versions.
pub fn of_kind<'a>(object: &'a impl Resource, kind: &str) -> Option<&'a OwnerReference> {
    object
        .owner_references()
        .iter()
        .find(|owner| owner.kind == kind && group(&owner.api_version) == capi::GROUP)
}

/// Name of the owning Cluster.
pub fn cluster(object: &impl Resource) -> Option<&str> {
    of_kind(object, "Cluster").map(|owner| owner.name.as_str())
}

/// Name of the Cluster in the label `cluster.x-k8s.io/cluster-name`.
pub fn cluster_label(object: &impl Resource) -> Option<&str> {
    object.labels().get(capi::CLUSTER_NAME).map(String::as_str)
}

fn group(api_version: &str) -> &str {
    api_version.split_once('/').map_or("", |(group, _)| group)
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::core::v1::ConfigMap;

    use super::*;

    fn owned_by(owners: &[(&str, &str, &str)]) -> ConfigMap {
        let mut object = ConfigMap::default();
        object.metadata.owner_references = Some(
            owners
                .iter()
                .map(|(api_version, kind, name)| OwnerReference {
                    api_version: (*api_version).to_owned(),
                    kind: (*kind).to_owned(),
                    name: (*name).to_owned(),
                    controller: Some(false),
                    ..OwnerReference::default()
                })
                .collect(),
        );
        object
    }

    #[test]
    fn contract_04_the_cluster_is_found_after_another_owner_and_without_controller() {
        let object = owned_by(&[
            ("v1", "Secret", "c-shim"),
            ("cluster.x-k8s.io/v1beta2", "Cluster", "c"),
        ]);
        assert_eq!(cluster(&object), Some("c"));
    }

    #[test]
    fn an_older_version_of_the_group_counts_and_another_group_does_not() {
        assert_eq!(
            cluster(&owned_by(&[("cluster.x-k8s.io/v1beta1", "Cluster", "c")])),
            Some("c")
        );
        assert_eq!(cluster(&owned_by(&[("other.io/v1beta2", "Cluster", "c")])), None);
        assert_eq!(cluster(&owned_by(&[("v1", "Cluster", "c")])), None);
    }
}
