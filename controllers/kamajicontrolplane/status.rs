//! The status of a KamajiControlPlane out of what a pass found and did. Pure.
//!
//! Source: contract.md 1.3–1.5 and DESIGN 2.12. Every condition is there on every way out. Kept from before are
//! `controlPlaneInitialized`, which never goes back, versions and selector while the tenant does not tell, and
//! conditions that the pass did not look at: not looking is neither good nor bad news.

use k8s_openapi::jiff::Timestamp;
use kamaji_api::{
    conditions::{KamajiControlPlaneCondition as Own, Reason},
    controlplane::{KamajiControlPlane, KamajiControlPlaneStatus},
    labels::kamaji,
    tenantcontrolplane::TenantControlPlane,
    unsupported::UnsupportedFields as _,
};
use kube::ResourceExt;

use super::{
    endpoint,
    facts::Facts,
    progress::Progress,
    versions::{self, deployment},
};
use crate::k8s::{conditions::Verdict, report::Report};

/// The status to write.
pub fn status(
    control_plane: &KamajiControlPlane,
    tenant: Option<&TenantControlPlane>,
    progress: &Progress,
    now: Timestamp,
) -> KamajiControlPlaneStatus {
    let mut made = control_plane.status.clone().unwrap_or_default();
    made.external_managed_control_plane = Some(true);
    let mut known = std::mem::take(&mut made.conditions);
    known.retain(|known| Own::ALL.iter().any(|own| own.as_str() == known.type_));
    let generation = control_plane.metadata.generation;
    let mut report = Report::new(known, generation, now);
    if let Some(why) = &progress.paused {
        report.set(Verdict::yes(Own::Paused.as_str(), Reason::Paused, why.clone()));
        made.conditions = report.into_conditions();
        return made;
    }
    if progress.spec.is_done() && progress.tenant.is_done() {
        made.observed_generation = generation;
    }
    let facts = Facts {
        control_plane,
        tenant,
        progress,
    };
    counters(&mut made, facts);
    if facts.initialized().is_ok() {
        made.initialization
            .get_or_insert_default()
            .control_plane_initialized = Some(true);
    }
    facts.conditions(&mut report);
    let (ready, because) = facts.summary(&report);
    made.ready = Some(ready);
    report.set(if ready {
        Verdict::yes(Own::Ready.as_str(), Reason::Ready, "")
    } else {
        Verdict::no(Own::Ready.as_str(), Reason::NotReady, because)
    });
    report.unsupported(control_plane.spec.unsupported_message());
    made.conditions = report.into_conditions();
    made
}

/// Versions, selector and counters; zeros are written, not left out.
fn counters(made: &mut KamajiControlPlaneStatus, facts: Facts<'_>) {
    let Facts {
        control_plane,
        tenant,
        ..
    } = facts;
    let behind = facts.behind();
    let pods = tenant.and_then(deployment);
    made.versions = versions::list(control_plane, tenant, behind);
    made.version = made.versions.first().map(|entry| entry.version.clone());
    made.selector = pods
        .map(|pods| pods.selector.clone())
        .filter(|selector| !selector.is_empty())
        .or_else(|| made.selector.take())
        .or_else(|| Some(format!("{}={}", kamaji::NAME, control_plane.name_any())));
    let count = |pick: fn(&kamaji_api::tenantcontrolplane::DeploymentStatus) -> Option<i32>| {
        Some(pods.and_then(pick).unwrap_or(0))
    };
    made.replicas = count(|pods| pods.replicas);
    made.ready_replicas = count(|pods| pods.ready_replicas);
    made.available_replicas = count(|pods| pods.available_replicas);
    // Pods that were up to date with the spec before are not with this one.
    made.up_to_date_replicas = count(|pods| pods.updated_replicas)
        .filter(|_| !behind)
        .or(Some(0));
    made.worker_endpoint = endpoint::for_workers(control_plane, tenant);
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use kamaji_api::{
        conditions::TenantControlPlaneCondition as Tenant, tenantcontrolplane::VersionPhase as Phase,
    };

    use super::*;
    use crate::{
        k8s::{
            conditions,
            problem::Problem,
            report::{HasConditions as _, Step, transitions},
        },
        kamajicontrolplane::{
            endpoint::{Choice, Origin},
            events, example,
        },
    };

    /// A pass in which everything was found in place.
    fn all_well() -> Progress {
        Progress {
            spec: Step::Done,
            tenant: Step::Done,
            endpoint: endpoint::parse("192.0.2.1:6443").map(|endpoint| Choice {
                endpoint,
                origin: Origin::Published,
                write: false,
                drift: None,
            }),
            authority: Step::Done,
            kubeconfig: Step::Done,
            bootstrap: Step::Done,
            ..Progress::default()
        }
    }

    fn published(mut control_plane: KamajiControlPlane) -> KamajiControlPlane {
        control_plane.spec.control_plane_endpoint = endpoint::parse("192.0.2.1:6443");
        control_plane
    }

    fn said(status: &KamajiControlPlaneStatus, condition: Own) -> (String, String) {
        let found = conditions::get(&status.conditions, condition.as_str()).unwrap();
        (found.status.clone(), found.reason.clone())
    }

    fn is(status: &str, reason: &str) -> (String, String) {
        (status.into(), reason.into())
    }

    fn of(tenant: &TenantControlPlane) -> KamajiControlPlaneStatus {
        status(
            &published(example::control_plane()),
            Some(tenant),
            &all_well(),
            example::now(),
        )
    }

    fn initialized(status: &KamajiControlPlaneStatus) -> bool {
        status.initialization.is_some()
    }

    #[test]
    fn the_status_of_a_healthy_control_plane() {
        insta::assert_yaml_snapshot!(of(&example::running("v1.36.3")));
    }

    /// The table of contract.md 1.12.
    #[rstest]
    #[case(Phase::Provisioning, "NotReady", ("False", "False"))]
    #[case(Phase::Ready, "Available", ("True", "False"))]
    #[case(Phase::Upgrading, "Available", ("True", "True"))]
    #[case(Phase::CertificateAuthorityRotating, "Available", ("True", "True"))]
    #[case(Phase::Migrating, "Available", ("True", "True"))]
    #[case(Phase::WriteLimited, "Available", ("True", "False"))]
    #[case(Phase::Sleeping, "Sleeping", ("False", "False"))]
    fn each_phase_of_the_engine_has_its_conditions(
        #[case] phase: Phase,
        #[case] reason: &str,
        #[case] (available, rolling): (&str, &str),
    ) {
        let mut tenant = example::running("v1.36.3");
        let resources = tenant
            .status
            .as_mut()
            .and_then(|s| s.kubernetes_resources.as_mut());
        resources.and_then(|r| r.version.as_mut()).unwrap().status = phase;
        if available == "False" {
            example::say(&mut tenant, Tenant::Available, "False", reason, "");
        }
        let made = of(&tenant);
        assert_eq!(said(&made, Own::Available), is(available, reason));
        assert_eq!(said(&made, Own::RollingOut).0, rolling);
    }

    #[rstest]
    #[case(Tenant::Available, "APIServerUnreachable")]
    #[case(Tenant::TenantRBACReady, "TenantRBACFailed")]
    fn initialized_means_it(#[case] missing: Tenant, #[case] reason: &str) {
        let mut tenant = example::running("v1.36.3");
        assert!(initialized(&of(&tenant)));
        example::say(&mut tenant, missing, "False", reason, "not yet");
        let made = of(&tenant);
        assert!(!initialized(&made));
        assert_eq!(
            said(&made, Own::KamajiControlPlaneIsInitialized),
            is("False", reason)
        );
    }

    #[test]
    fn initialized_needs_the_kubeconfig_and_the_endpoint_and_never_goes_back() {
        let tenant = example::running("v1.36.3");
        let unpublished = status(
            &example::control_plane(),
            Some(&tenant),
            &all_well(),
            example::now(),
        );
        assert!(!initialized(&unpublished));
        let without = Progress {
            kubeconfig: Step::Failed(Problem::on_change(Reason::WaitingForKubeconfig, "no")),
            ..all_well()
        };
        let mut control_plane = published(example::control_plane());
        assert!(!initialized(&status(
            &control_plane,
            Some(&tenant),
            &without,
            example::now()
        )));
        control_plane.status = Some(of(&tenant));
        let later = status(&control_plane, None, &without, example::now());
        assert!(initialized(&later));
        assert_eq!(later.versions.len(), 1, "contract rule 3: never cleared");
    }

    #[rstest]
    #[case(Tenant::DataStoreReady, "DataStoreNotFound")]
    #[case(Tenant::DataStoreReady, "DataStoreUnreachable")]
    #[case(Tenant::SpecValid, "ReservedName")]
    #[case(Tenant::EndpointReady, "PortNotAllocatable")]
    #[case(Tenant::EndpointReady, "WaitingForLoadBalancer")]
    #[case(Tenant::CertificatesAvailable, "CertificateAuthorityKeyMismatch")]
    fn what_the_engine_refuses_is_told_with_its_words(#[case] condition: Tenant, #[case] reason: &str) {
        let mut tenant = example::tenant();
        tenant.status = example::running("v1.36.3").status;
        example::say(&mut tenant, Tenant::Available, "False", "NotAvailable", "");
        example::say(&mut tenant, condition, "False", reason, "field and fix");
        let made = of(&tenant);
        assert_eq!(said(&made, Own::Available), is("False", reason));
        let mirrored = match condition {
            Tenant::SpecValid => Some(Own::SpecValid),
            Tenant::EndpointReady => Some(Own::TenantControlPlaneAddressReady),
            Tenant::CertificatesAvailable => Some(Own::CertificatesAvailable),
            _ => None,
        };
        if let Some(own) = mirrored {
            assert_eq!(said(&made, own), is("False", reason));
        }
        let ready = conditions::get(&made.conditions, "Ready").unwrap();
        assert!(ready.message.contains("field and fix"), "{}", ready.message);
    }

    #[test]
    fn a_field_without_effect_is_named_and_cleared() {
        let mut control_plane = published(example::control_plane());
        control_plane.spec.addons.konnectivity = Some(kamaji_api::addons::Konnectivity::default());
        let tenant = example::running("v1.36.3");
        let made = status(&control_plane, Some(&tenant), &all_well(), example::now());
        let found = conditions::get(&made.conditions, "FieldNotSupported").unwrap();
        assert!(found.message.contains("spec.addons.konnectivity"));
        let events = |old: &KamajiControlPlaneStatus, new: &KamajiControlPlaneStatus| -> Vec<String> {
            transitions(old.conditions(), new.conditions(), &events::RULES)
                .into_iter()
                .map(|event| event.reason)
                .collect()
        };
        let none = KamajiControlPlaneStatus::default();
        assert_eq!(events(&none, &made), ["FieldNotSupported", "Initialized"]);
        control_plane.spec.addons.konnectivity = None;
        control_plane.status = Some(made.clone());
        let cleared = status(&control_plane, Some(&tenant), &all_well(), example::now());
        assert!(conditions::get(&cleared.conditions, "FieldNotSupported").is_none());
        assert!(events(&made, &cleared).is_empty());
    }

    #[test]
    fn the_surplus_of_a_rollout_is_not_scaling_down() {
        let mut tenant = example::running("v1.36.3");
        let resources = tenant
            .status
            .as_mut()
            .and_then(|s| s.kubernetes_resources.as_mut());
        let pods = resources.and_then(|r| r.deployment.as_mut()).unwrap();
        (pods.replicas, pods.updated_replicas) = (Some(3), Some(1));
        assert_eq!(said(&of(&tenant), Own::ScalingDown).0, "False");
    }

    #[test]
    fn paused_touches_nothing_else() {
        let mut control_plane = published(example::control_plane());
        let before = of(&example::running("v1.36.3"));
        control_plane.status = Some(before.clone());
        let progress = Progress {
            paused: Some("Cluster.spec.paused is true".into()),
            ..Progress::default()
        };
        let mut made = status(&control_plane, None, &progress, example::now());
        assert_eq!(said(&made, Own::Paused), is("True", "Paused"));
        made.conditions.retain(|c| c.type_ != "Paused");
        let mut rest = before;
        rest.conditions.retain(|c| c.type_ != "Paused");
        assert_eq!(made, rest);
    }

    #[test]
    fn what_was_not_looked_at_is_neither_in_place_nor_missing() {
        let tenant = example::running("v1.36.3");
        let mut control_plane = published(example::control_plane());
        let nothing = Progress::default();
        let first = status(&control_plane, Some(&tenant), &nothing, example::now());
        assert!(!initialized(&first), "nobody saw the kubeconfig");
        for own in [
            Own::SpecValid,
            Own::CertificatesAvailable,
            Own::KubeadmResourcesCreated,
            Own::KamajiControlPlaneIsInitialized,
            Own::ControlPlaneEndpointPatched,
        ] {
            assert_eq!(said(&first, own), is("Unknown", "Pending"), "{own}");
        }
        assert_eq!((first.ready, first.observed_generation), (Some(false), None));

        let well = of(&tenant);
        control_plane.status = Some(well.clone());
        let later = status(&control_plane, Some(&tenant), &nothing, example::now());
        assert_eq!(later, well, "what was said before stands");
    }

    #[rstest]
    #[case(Reason::WaitingForOwner)]
    #[case(Reason::WaitingForCluster)]
    fn nothing_is_ready_without_owner_or_cluster(#[case] reason: Reason) {
        let tenant = example::running("v1.36.3");
        let mut control_plane = published(example::control_plane());
        control_plane.status = Some(of(&tenant));
        let waiting = Progress {
            waiting: Some(Problem::on_change(reason, "it is not there")),
            ..Progress::default()
        };
        let made = status(&control_plane, Some(&tenant), &waiting, example::now());
        assert_eq!(made.ready, Some(false));
        assert_eq!(
            said(&made, Own::TenantControlPlaneCreated),
            is("False", reason.as_str())
        );
        assert_eq!(said(&made, Own::Available), is("True", "Available"), "pods go on");
        let ready = conditions::get(&made.conditions, "Ready").unwrap();
        assert!(ready.message.starts_with(reason.as_str()), "{}", ready.message);
    }

    #[test]
    fn the_engine_is_waited_for_until_it_has_seen_the_spec() {
        let mut tenant = example::running("v1.36.3");
        let control_plane = published(example::control_plane());
        let progress = Progress {
            generation: Some(2),
            ..all_well()
        };
        let made = status(&control_plane, Some(&tenant), &progress, example::now());
        assert_eq!(said(&made, Own::RollingOut), is("True", "RollingOut"));
        assert_eq!((made.replicas, made.up_to_date_replicas), (Some(2), Some(0)));
        tenant.status.as_mut().unwrap().observed_generation = Some(2);
        let made = status(&control_plane, Some(&tenant), &progress, example::now());
        assert_eq!(said(&made, Own::RollingOut).0, "False");
        assert_eq!(made.up_to_date_replicas, Some(2));
        // An engine that refuses it rolls nothing out, and one that never told is not waited for.
        tenant.status.as_mut().unwrap().observed_generation = Some(1);
        example::say(&mut tenant, Tenant::SpecValid, "False", "InvalidSpec", "no");
        let made = status(&control_plane, Some(&tenant), &progress, example::now());
        assert_eq!(said(&made, Own::RollingOut).0, "False");
        assert_eq!(made.up_to_date_replicas, Some(0));
        let mut silent = example::running("v1.36.3");
        silent.status.as_mut().unwrap().observed_generation = None;
        let made = status(&control_plane, Some(&silent), &progress, example::now());
        assert_eq!(said(&made, Own::RollingOut).0, "False");
    }

    #[test]
    fn a_refused_spec_leaves_the_observed_generation_behind() {
        let mut control_plane = published(example::control_plane());
        let tenant = example::running("v1.36.3");
        control_plane.status = Some(of(&tenant));
        control_plane.metadata.generation = Some(2);
        let refused = Progress {
            spec: Step::Failed(Problem::on_change(Reason::InvalidVersion, "no")),
            tenant: Step::NotReached,
            ..all_well()
        };
        let made = status(&control_plane, Some(&tenant), &refused, example::now());
        assert_eq!(made.observed_generation, Some(1));
        let found = conditions::get(&made.conditions, "SpecValid").unwrap();
        assert_eq!(
            found.observed_generation,
            Some(2),
            "the refusal speaks of the new one"
        );
    }
}
