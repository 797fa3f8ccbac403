//! `status.versions`: which versions run, on how many pods. Pure.
//!
//! Source: contract.md 1.3, 1.4 and the table of 1.12. Core reads upgrades out of this list and nothing else: it is
//! never cleared, it is in ascending order, and each entry is spelled as in the spec it came from, since core compares
//! build metadata too. While a version is replaced the old one stays until the engine has rolled the new one out in
//! full, which is when its last pod is gone. Asleep no pod runs anything: the last version that did stays.

use kamaji_api::{
    controlplane::{KamajiControlPlane, VersionReplicas},
    tenantcontrolplane::{DeploymentStatus, TenantControlPlane, VersionPhase},
};

use super::{desired, health, validate::parse_version};

/// The version that was last rolled out in full, as the TenantControlPlane spells it. Kamaji's engine copies a version
/// that a sleeping tenant is only asked for; then, and until pods of it are ready, what is remembered here counts.
pub fn running(control_plane: &KamajiControlPlane, tenant: &TenantControlPlane) -> Option<String> {
    let told = tenant
        .status
        .as_ref()?
        .kubernetes_resources
        .as_ref()?
        .version
        .as_ref()?
        .version
        .as_deref()
        .filter(|version| !version.is_empty())?;
    let rolled_out = matches!(
        health::phase(tenant),
        VersionPhase::Ready
            | VersionPhase::WriteLimited
            | VersionPhase::Migrating
            | VersionPhase::CertificateAuthorityRotating
    );
    let known = || control_plane.status.as_ref()?.version.as_deref();
    let known = if rolled_out { None } else { known() };
    Some(desired::version(known.unwrap_or(told)))
}

/// The list for the status. `behind`: the engine has not taken up what was last applied.
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
    let running = |tenant| Some((tenant, running(control_plane, tenant)?));
    let Some((tenant, installed)) = tenant.and_then(running) else {
        return known;
    };
    let pods = deployment(tenant);
    let total = pods.and_then(|pods| pods.replicas).unwrap_or(0);
    let updated = pods.and_then(|pods| pods.updated_replicas).unwrap_or(0);
    let asked = control_plane.spec.version.as_str();
    if installed == desired::version(asked) {
        return vec![entry(asked, total)];
    }
    let old = spelled(&installed, &known);
    // Only an engine that has taken the new version up rolls it out; before that the updated pods are old ones.
    let taken_up = !behind
        && tenant.spec.kubernetes.version == desired::version(asked)
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
                texts(&list(&control_plane, Some(&tenant), false)),
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
            texts(&list(&control_plane, Some(&behind), false)),
            [("v1.35.4".to_owned(), Some(2))],
            "the engine has not seen the new version"
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
            "the pods are those of what was asked for before"
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
        let asleep = with_pods(example::running("v1.36.3"), 0, 0);
        let seen = list(&control_plane, Some(&asleep), false);
        assert_eq!(texts(&seen), [("v1.36.3".to_owned(), None)]);
        control_plane.status.get_or_insert_default().versions = seen.clone();
        assert_eq!(list(&control_plane, None, false), seen);
    }

    #[test]
    fn a_version_that_a_sleeping_tenant_is_only_asked_for_does_not_run() {
        let mut control_plane = example::control_plane();
        control_plane.spec.replicas = 0;
        control_plane.spec.version = "v1.37.0".into();
        control_plane.status.get_or_insert_default().version = Some("1.36.3".into());
        let mut tenant = example::running("v1.37.0");
        let set = |tenant: &mut TenantControlPlane, phase| {
            let resources = tenant
                .status
                .as_mut()
                .and_then(|s| s.kubernetes_resources.as_mut());
            resources.and_then(|r| r.version.as_mut()).unwrap().status = phase;
        };
        for phase in [
            VersionPhase::Sleeping,
            VersionPhase::NotReady,
            VersionPhase::Upgrading,
        ] {
            set(&mut tenant, phase);
            assert_eq!(
                running(&control_plane, &tenant).as_deref(),
                Some("v1.36.3"),
                "{phase:?}"
            );
        }
        set(&mut tenant, VersionPhase::Ready);
        assert_eq!(running(&control_plane, &tenant).as_deref(), Some("v1.37.0"));
        control_plane.status = None;
        set(&mut tenant, VersionPhase::Sleeping);
        assert_eq!(
            running(&control_plane, &tenant).as_deref(),
            Some("v1.37.0"),
            "moved or restored asleep: nobody knows better"
        );
    }

    #[test]
    fn nothing_is_reported_before_the_first_rollout_ended() {
        assert!(list(&example::control_plane(), Some(&example::tenant()), false).is_empty());
    }
}
