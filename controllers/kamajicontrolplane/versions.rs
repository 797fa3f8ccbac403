//! `status.versions`: which versions run, on how many pods. Pure.
//!
//! Cluster API reads the state of an upgrade from this list alone (`docs/src/reference/cluster-api-contract.md`). It
//! never becomes empty again. It is in ascending order. Each entry is spelled as in the spec it came from, because
//! Cluster API compares build metadata too. During an upgrade the old version stays until the engine has rolled out
//! the new one in full, which is when its last pod is gone. While the control plane sleeps no pod runs: the last
//! version that ran stays.

use kamaji_api::{
    controlplane::{KamajiControlPlane, VersionReplicas},
    tenantcontrolplane::{TenantControlPlane, VersionPhase},
};

use super::tenant::{deployment, phase, running_version, version_text};
use crate::k8s::version;

/// `status.versions`. `behind`: the engine has not observed what was last applied.
pub fn list(
    control_plane: &KamajiControlPlane,
    tenant: Option<&TenantControlPlane>,
    behind: bool,
) -> Vec<VersionReplicas> {
    let known = control_plane
        .status
        .as_ref()
        .map(|status| status.versions.clone())
        .unwrap_or_default();
    let running = |tenant| Some((tenant, running_version(control_plane, tenant)?));
    let Some((tenant, installed)) = tenant.and_then(running) else {
        return known;
    };
    let pods = deployment(tenant);
    let total = pods.and_then(|pods| pods.replicas).unwrap_or(0);
    let updated = pods.and_then(|pods| pods.updated_replicas).unwrap_or(0);
    let desired = control_plane.spec.version.as_str();
    if installed == version_text(desired) {
        return vec![entry(desired, total)];
    }
    let old = spelled(&installed, &known);
    // Before the engine has observed the new version, the updated pods are those of the old one.
    let rolling_out = !behind
        && tenant.spec.kubernetes.version == version_text(desired)
        && phase(tenant) != VersionPhase::Ready;
    if !rolling_out || updated == 0 || control_plane.spec.replicas == 0 {
        return vec![entry(&old, total)];
    }
    let mut list = vec![entry(&old, total - updated), entry(desired, updated)];
    list.sort_by_key(|entry| version::parse(&entry.version));
    list
}

/// How `installed` was spelled in the spec; the engine's spelling where the status does not have it.
fn spelled(installed: &str, known: &[VersionReplicas]) -> String {
    known
        .iter()
        .map(|entry| entry.version.as_str())
        .find(|version| version_text(version) == installed)
        .unwrap_or(installed)
        .to_owned()
}

/// Cluster API's schema refuses 0 replicas in an entry; the count is left out instead.
fn entry(version: &str, replicas: i32) -> VersionReplicas {
    VersionReplicas {
        version: version.to_owned(),
        replicas: Some(replicas).filter(|replicas| *replicas > 0),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kamajicontrolplane::example;

    fn texts(list: &[VersionReplicas]) -> Vec<(String, Option<i32>)> {
        list.iter().map(|v| (v.version.clone(), v.replicas)).collect()
    }

    fn with_pods(mut tenant: TenantControlPlane, total: i32, updated: i32) -> TenantControlPlane {
        let resources = tenant
            .status
            .as_mut()
            .and_then(|s| s.kubernetes_resources.as_mut())
            .unwrap();
        resources.version.as_mut().unwrap().status = VersionPhase::Upgrading;
        let pods = resources.deployment.as_mut().unwrap();
        pods.replicas = Some(total);
        pods.updated_replicas = Some(updated);
        tenant
    }

    #[test]
    fn contract_18_the_version_of_the_spec_is_reported_verbatim() {
        for desired in ["v1.34.1+x.1", "1.34.1"] {
            let mut control_plane = example::control_plane();
            control_plane.spec.version = desired.into();
            let tenant = example::running(&version_text(desired));
            assert_eq!(
                texts(&list(&control_plane, Some(&tenant), false)),
                [(desired.to_owned(), Some(2))]
            );
        }
    }

    #[test]
    fn contract_17_old_and_new_in_ascending_order_and_old_leaves_with_its_last_pod() {
        let mut control_plane = example::control_plane();
        control_plane.spec.version = "v1.36.3".into();
        let old = example::running("v1.35.4");
        let mut behind = old.clone();
        behind.spec.kubernetes.version = "v1.35.4".into();
        assert_eq!(
            texts(&list(&control_plane, Some(&behind), false)),
            [("v1.35.4".to_owned(), Some(2))],
            "the engine has not observed the new version"
        );
        assert_eq!(
            texts(&list(&control_plane, Some(&old), false)),
            [("v1.35.4".to_owned(), Some(2))],
            "the engine has not begun: its pods are all old"
        );
        assert_eq!(
            texts(&list(&control_plane, Some(&with_pods(old.clone(), 3, 1)), false)),
            [("v1.35.4".to_owned(), Some(2)), ("v1.36.3".to_owned(), Some(1))]
        );
        assert_eq!(
            texts(&list(&control_plane, Some(&with_pods(old.clone(), 3, 1)), true)),
            [("v1.35.4".to_owned(), Some(3))],
            "the pods are those of the spec before"
        );
        assert_eq!(
            texts(&list(&control_plane, Some(&with_pods(old, 2, 2)), false)),
            [("v1.35.4".to_owned(), None), ("v1.36.3".to_owned(), Some(2))],
            "the engine has not finished"
        );
        let done = example::running("v1.36.3");
        assert_eq!(
            texts(&list(&control_plane, Some(&done), false)),
            [("v1.36.3".to_owned(), Some(2))]
        );
    }

    #[test]
    fn contract_16_versions_stay_while_asleep_and_while_the_tenant_is_unknown() {
        let mut control_plane = example::control_plane();
        control_plane.spec.replicas = 0;
        let tenant = with_pods(example::running("v1.36.3"), 0, 0);
        let asleep = list(&control_plane, Some(&tenant), false);
        assert_eq!(texts(&asleep), [("v1.36.3".to_owned(), None)]);
        control_plane.status.get_or_insert_default().versions = asleep.clone();
        assert_eq!(list(&control_plane, None, false), asleep);
    }

    #[test]
    fn nothing_is_reported_before_the_first_rollout_ended() {
        assert!(list(&example::control_plane(), Some(&example::tenant()), false).is_empty());
    }
}
