//! Whether an object is paused: by `Cluster.spec.paused`, or by its annotation, whatever the value. A paused object is
//! not deleted either. Source: <https://cluster-api.sigs.k8s.io/developer/providers/contracts/overview>.

use kamaji_api::labels::capi;
use kube::{Resource, ResourceExt};

use super::cluster::Cluster;

/// Message of the `Paused` condition of `object`; `None` if it is not paused.
pub fn because(object: &impl Resource, cluster: Option<&Cluster>) -> Option<String> {
    if cluster.is_some_and(|cluster| cluster.spec.paused == Some(true)) {
        return Some("Cluster.spec.paused is true".to_owned());
    }
    object
        .annotations()
        .contains_key(capi::PAUSED)
        .then(|| format!("annotation {} is set", capi::PAUSED))
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::core::v1::ConfigMap;

    use super::*;

    #[test]
    fn the_cluster_and_the_annotation_pause_an_object_whatever_its_value() {
        let mut cluster = Cluster::default();
        let mut object = ConfigMap::default();
        assert_eq!(because(&object, Some(&cluster)), None);
        cluster.spec.paused = Some(true);
        assert!(because(&object, Some(&cluster)).is_some());
        object
            .metadata
            .annotations
            .get_or_insert_default()
            .insert(capi::PAUSED.into(), "false".into());
        assert_eq!(
            because(&object, None).as_deref(),
            Some("annotation cluster.x-k8s.io/paused is set")
        );
    }
}
