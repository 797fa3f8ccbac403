//! `status.versions`: which versions run, on how many pods. Pure.
//!
//! Source: contract.md 1.3, 1.4 and the table of 1.12. Core reads upgrades out of this list and nothing else: it is
//! never cleared, it is in ascending order, and each entry is spelled as in the spec it came from, since core compares
//! build metadata too. While a version is replaced the old one stays until the engine has rolled the new one out in
//! full, which is when its last pod is gone.

use kamaji_api::{
    controlplane::{KamajiControlPlane, VersionReplicas},
    tenantcontrolplane::{DeploymentStatus, TenantControlPlane, VersionPhase},
};

use super::{
    desired, health,
    validate::{parse_version, running},
};

/// The list for the status.
pub fn list(control_plane: &KamajiControlPlane, tenant: Option<&TenantControlPlane>) -> Vec<VersionReplicas> {
    let known = control_plane
        .status
        .as_ref()
        .map(|status| status.versions.clone())
        .unwrap_or_default();
    let Some((tenant, installed)) = tenant.and_then(|tenant| Some((tenant, running(tenant)?))) else {
        return known;
    };
    let pods = deployment(tenant);
    let total = pods.and_then(|pods| pods.replicas).unwrap_or(0);
    let updated = pods.and_then(|pods| pods.updated_replicas).unwrap_or(0);
    let asked = control_plane.spec.version.as_str();
    if installed == desired::version(asked) {
        return vec![entry(asked, total)];
    }
    let old = spelled(installed, &known);
    // Only an engine that has taken the new version up rolls it out; before that the updated pods are old ones.
    let taken_up = tenant.spec.kubernetes.version == desired::version(asked)
        && health::phase(tenant) != VersionPhase::Ready;
    if !taken_up || updated == 0 || control_plane.spec.replicas == 0 {
        return vec![entry(&old, total)];
    }
    let mut list = vec![entry(&old, total - updated), entry(asked, updated)];
    list.sort_by_key(|entry| parse_version(&entry.version));
    list
}

/// The Deployment as the TenantControlPlane shows it.
pub fn deployment(tenant: &TenantControlPlane) -> Option<&DeploymentStatus> {
    tenant
        .status
        .as_ref()?
        .kubernetes_resources
        .as_ref()?
        .deployment
        .as_ref()
}

/// How `installed` was spelled when it was asked for; the engine's spelling where nobody remembers.
fn spelled(installed: &str, known: &[VersionReplicas]) -> String {
    known
        .iter()
        .map(|entry| entry.version.as_str())
        .find(|version| desired::version(version) == installed)
        .unwrap_or(installed)
        .to_owned()
}

/// Core wants at least one replica in an entry, or none named.
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
    fn contract_18_the_string_asked_for_is_reported_verbatim() {
        for asked in ["v1.34.1+x.1", "1.34.1"] {
            let mut control_plane = example::control_plane();
            control_plane.spec.version = asked.into();
            let tenant = example::running(&desired::version(asked));
            assert_eq!(
                texts(&list(&control_plane, Some(&tenant))),
                [(asked.to_owned(), Some(2))]
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
            texts(&list(&control_plane, Some(&behind))),
            [("v1.35.4".to_owned(), Some(2))],
            "the engine has not seen the new version"
        );
        assert_eq!(
            texts(&list(&control_plane, Some(&old))),
            [("v1.35.4".to_owned(), Some(2))],
            "the engine has not begun: its pods are all old"
        );
        assert_eq!(
            texts(&list(&control_plane, Some(&with_pods(old.clone(), 3, 1)))),
            [("v1.35.4".to_owned(), Some(2)), ("v1.36.3".to_owned(), Some(1))]
        );
        assert_eq!(
            texts(&list(&control_plane, Some(&with_pods(old, 2, 2)))),
            [("v1.35.4".to_owned(), None), ("v1.36.3".to_owned(), Some(2))],
            "the engine has not finished"
        );
        let done = example::running("v1.36.3");
        assert_eq!(
            texts(&list(&control_plane, Some(&done))),
            [("v1.36.3".to_owned(), Some(2))]
        );
    }

    #[test]
    fn contract_16_versions_stay_while_asleep_and_while_the_tenant_is_unknown() {
        let mut control_plane = example::control_plane();
        control_plane.spec.replicas = 0;
        let asleep = with_pods(example::running("v1.36.3"), 0, 0);
        let seen = list(&control_plane, Some(&asleep));
        assert_eq!(texts(&seen), [("v1.36.3".to_owned(), None)]);
        control_plane.status.get_or_insert_default().versions = seen.clone();
        assert_eq!(list(&control_plane, None), seen);
    }

    #[test]
    fn nothing_is_reported_before_the_first_rollout_ended() {
        assert!(list(&example::control_plane(), Some(&example::tenant())).is_empty());
    }
}
