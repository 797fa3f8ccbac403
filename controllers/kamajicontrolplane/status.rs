//! The status of a KamajiControlPlane, from its TenantControlPlane and from what the reconcile found. Pure.
//!
//! It is written on every way out of a reconcile, with every condition. Three things are kept from the status before:
//! `initialization.controlPlaneInitialized`, which Cluster API requires never to go back; versions and selector while
//! the TenantControlPlane reports none; and conditions about steps that the reconcile did not reach.

use k8s_openapi::jiff::Timestamp;
use kamaji_api::{
    conditions::{KamajiControlPlaneCondition as Own, Reason},
    controlplane::{KamajiControlPlane, KamajiControlPlaneStatus},
    labels::kamaji,
    tenantcontrolplane::{DeploymentStatus, TenantControlPlane},
};
use kube::ResourceExt;

use super::{
    conditions::{self, Inputs},
    endpoint,
    progress::Progress,
    tenant::deployment,
    versions,
};
use crate::k8s::{conditions::Verdict, report::Report};

/// The status to write.
pub fn status(
    control_plane: &KamajiControlPlane,
    tenant: Option<&TenantControlPlane>,
    progress: &Progress,
    now: Timestamp,
) -> KamajiControlPlaneStatus {
    let mut status = control_plane.status.clone().unwrap_or_default();
    status.external_managed_control_plane = Some(true);
    let mut known = std::mem::take(&mut status.conditions);
    known.retain(|known| Own::ALL.iter().any(|own| own.as_str() == known.type_));
    let generation = control_plane.metadata.generation;
    let mut report = Report::new(known, generation, now);
    if let Some(why) = &progress.paused {
        report.set(Verdict::yes(Own::Paused.as_str(), Reason::Paused, why.clone()));
        status.conditions = report.into_conditions();
        return status;
    }
    if let Some(problem) = &progress.elsewhere {
        conditions::report_elsewhere(problem, &mut report);
        status.conditions = report.into_conditions();
        return status;
    }
    if progress.spec.is_done() && progress.tenant.is_done() {
        status.observed_generation = generation;
    }
    let inputs = Inputs {
        control_plane,
        tenant,
        progress,
    };
    counters(&mut status, inputs);
    if conditions::initialized(inputs).is_ok() {
        status
            .initialization
            .get_or_insert_default()
            .control_plane_initialized = Some(true);
    }
    conditions::report(inputs, &mut report);
    let ready = report
        .get(Own::Ready.as_str())
        .is_some_and(|ready| ready.status == "True");
    status.ready = Some(ready);
    status.conditions = report.into_conditions();
    status
}

/// Versions, selector and counters. A counter of 0 is written, because kubectl shows a missing one as unknown.
fn counters(status: &mut KamajiControlPlaneStatus, inputs: Inputs<'_>) {
    let Inputs {
        control_plane,
        tenant,
        progress,
    } = inputs;
    let behind = inputs.engine_is_behind();
    let pods = tenant.and_then(deployment);
    status.versions = versions::list(control_plane, tenant, behind);
    status.version = status.versions.first().map(|entry| entry.version.clone());
    status.selector = pods
        .map(|pods| pods.selector.clone())
        .filter(|selector| !selector.is_empty())
        .or_else(|| status.selector.take())
        .or_else(|| Some(format!("{}={}", kamaji::NAME, control_plane.name_any())));
    let count = |pick: fn(&DeploymentStatus) -> Option<i32>| Some(pods.and_then(pick).unwrap_or(0));
    status.replicas = count(|pods| pods.replicas);
    status.ready_replicas = count(|pods| pods.ready_replicas);
    status.available_replicas = count(|pods| pods.available_replicas);
    // Pods that were up to date with the spec before are not up to date with this one.
    status.up_to_date_replicas = count(|pods| pods.updated_replicas)
        .filter(|_| !behind)
        .or(Some(0));
    status.worker_endpoint = endpoint::for_workers(control_plane, tenant, progress.endpoint.as_ref());
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
            handoff::Handoff,
        },
    };

    /// A reconcile that found everything in place.
    fn all_done() -> Progress {
        Progress {
            spec: Step::Done,
            tenant: Step::Done,
            endpoint: endpoint::parse("192.0.2.1:6443").map(|endpoint| Choice {
                endpoint,
                origin: Origin::Published,
                write: false,
                drift: None,
                moved: None,
            }),
            ca: Step::Done,
            kubeconfig: Step::Done,
            bootstrap: Step::Done,
            handoff: Handoff::Settled(
                Reason::NotApplicable,
                "the Cluster has no infrastructureRef".into(),
            ),
            ..Progress::default()
        }
    }

    fn published(mut control_plane: KamajiControlPlane) -> KamajiControlPlane {
        control_plane.spec.control_plane_endpoint = endpoint::parse("192.0.2.1:6443");
        control_plane
    }

    fn reported(status: &KamajiControlPlaneStatus, condition: Own) -> (String, String) {
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
            &all_done(),
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

    #[rstest]
    #[case(Phase::Provisioning, "NotReady", ("False", "False"))]
    #[case(Phase::Ready, "Available", ("True", "False"))]
    #[case(Phase::Upgrading, "Available", ("True", "True"))]
    #[case(Phase::CertificateAuthorityRotating, "Available", ("True", "True"))]
    #[case(Phase::Migrating, "Available", ("True", "True"))]
    #[case(Phase::WriteLimited, "Available", ("True", "False"))]
    #[case(Phase::Sleeping, "Sleeping", ("False", "False"))]
    fn each_phase_of_the_tenant_has_its_conditions(
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
            example::report(&mut tenant, Tenant::Available, "False", reason, "");
        }
        let new = of(&tenant);
        assert_eq!(reported(&new, Own::Available), is(available, reason));
        assert_eq!(reported(&new, Own::RollingOut).0, rolling);
    }

    #[rstest]
    #[case(Tenant::Available, "APIServerUnreachable")]
    #[case(Tenant::TenantRBACReady, "TenantRBACFailed")]
    fn initialized_needs_an_answering_api_server_and_rbac(#[case] missing: Tenant, #[case] reason: &str) {
        let mut tenant = example::running("v1.36.3");
        assert!(initialized(&of(&tenant)));
        example::report(&mut tenant, missing, "False", reason, "not yet");
        let new = of(&tenant);
        assert!(!initialized(&new));
        assert_eq!(
            reported(&new, Own::KamajiControlPlaneIsInitialized),
            is("False", reason)
        );
    }

    #[test]
    fn initialized_needs_the_kubeconfig_and_the_endpoint_and_never_goes_back() {
        let tenant = example::running("v1.36.3");
        let unpublished = status(
            &example::control_plane(),
            Some(&tenant),
            &all_done(),
            example::now(),
        );
        assert!(!initialized(&unpublished));
        let without = Progress {
            kubeconfig: Step::Failed(Problem::on_change(Reason::WaitingForKubeconfig, "no")),
            ..all_done()
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
        assert_eq!(later.versions.len(), 1, "the list never becomes empty again");
    }

    #[rstest]
    #[case(Tenant::DataStoreReady, "DataStoreNotFound")]
    #[case(Tenant::DataStoreReady, "DataStoreUnreachable")]
    #[case(Tenant::SpecValid, "ReservedName")]
    #[case(Tenant::EndpointReady, "PortNotAllocatable")]
    #[case(Tenant::EndpointReady, "WaitingForLoadBalancer")]
    #[case(Tenant::CertificatesAvailable, "CertificateAuthorityKeyMismatch")]
    fn what_the_engine_refuses_is_reported_with_its_reason(#[case] condition: Tenant, #[case] reason: &str) {
        let mut tenant = example::tenant();
        tenant.status = example::running("v1.36.3").status;
        example::report(&mut tenant, Tenant::Available, "False", "NotAvailable", "");
        example::report(&mut tenant, condition, "False", reason, "field and fix");
        let new = of(&tenant);
        assert_eq!(reported(&new, Own::Available), is("False", reason));
        let mirrored = match condition {
            Tenant::SpecValid => Some(Own::SpecValid),
            Tenant::EndpointReady => Some(Own::TenantControlPlaneAddressReady),
            Tenant::CertificatesAvailable => Some(Own::CertificatesAvailable),
            _ => None,
        };
        if let Some(own) = mirrored {
            assert_eq!(reported(&new, own), is("False", reason));
        }
        let ready = conditions::get(&new.conditions, "Ready").unwrap();
        assert!(ready.message.contains("field and fix"), "{}", ready.message);
    }

    #[test]
    fn a_field_without_effect_is_reported_until_it_is_removed() {
        let mut control_plane = published(example::control_plane());
        control_plane.spec.kubelet.cgroupfs = Some(kamaji_api::kubelet::CgroupDriver::Cgroupfs);
        let tenant = example::running("v1.36.3");
        let new = status(&control_plane, Some(&tenant), &all_done(), example::now());
        let found = conditions::get(&new.conditions, "FieldNotSupported").unwrap();
        assert!(found.message.contains("spec.kubelet.cgroupfs=cgroupfs"));
        let events = |old: &KamajiControlPlaneStatus, new: &KamajiControlPlaneStatus| -> Vec<String> {
            transitions(old.conditions(), new.conditions(), &events::RULES)
                .into_iter()
                .map(|event| event.reason)
                .collect()
        };
        let none = KamajiControlPlaneStatus::default();
        assert_eq!(events(&none, &new), ["FieldNotSupported", "Initialized"]);
        control_plane.spec.kubelet.cgroupfs = None;
        control_plane.status = Some(new.clone());
        let cleared = status(&control_plane, Some(&tenant), &all_done(), example::now());
        assert!(conditions::get(&cleared.conditions, "FieldNotSupported").is_none());
        assert!(events(&new, &cleared).is_empty());
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
        assert_eq!(reported(&of(&tenant), Own::ScalingDown).0, "False");
    }

    #[test]
    fn a_paused_control_plane_reports_paused_and_nothing_else() {
        let mut control_plane = published(example::control_plane());
        let before = of(&example::running("v1.36.3"));
        control_plane.status = Some(before.clone());
        let progress = Progress {
            paused: Some("Cluster.spec.paused is true".into()),
            ..Progress::default()
        };
        let mut new = status(&control_plane, None, &progress, example::now());
        assert_eq!(reported(&new, Own::Paused), is("True", "Paused"));
        new.conditions.retain(|c| c.type_ != "Paused");
        let mut rest = before;
        rest.conditions.retain(|c| c.type_ != "Paused");
        assert_eq!(new, rest);
    }

    #[test]
    fn a_step_that_was_not_reached_keeps_its_condition() {
        let tenant = example::running("v1.36.3");
        let mut control_plane = published(example::control_plane());
        let nothing = Progress::default();
        let first = status(&control_plane, Some(&tenant), &nothing, example::now());
        assert!(!initialized(&first), "the kubeconfig was not observed");
        for own in [
            Own::SpecValid,
            Own::CertificatesAvailable,
            Own::KubeadmResourcesCreated,
            Own::KamajiControlPlaneIsInitialized,
            Own::ControlPlaneEndpointPatched,
        ] {
            assert_eq!(reported(&first, own), is("Unknown", "Pending"), "{own}");
        }
        assert_eq!((first.ready, first.observed_generation), (Some(false), None));

        let before = of(&tenant);
        control_plane.status = Some(before.clone());
        let later = status(&control_plane, Some(&tenant), &nothing, example::now());
        assert_eq!(later, before, "what was reported before is kept");
    }

    #[rstest]
    #[case(Reason::WaitingForOwner)]
    #[case(Reason::WaitingForCluster)]
    fn a_control_plane_without_owner_or_cluster_is_not_ready(#[case] reason: Reason) {
        let tenant = example::running("v1.36.3");
        let mut control_plane = published(example::control_plane());
        control_plane.status = Some(of(&tenant));
        let waiting = Progress {
            waiting: Some(Problem::on_change(reason, "it is not there")),
            ..Progress::default()
        };
        let new = status(&control_plane, Some(&tenant), &waiting, example::now());
        assert_eq!(new.ready, Some(false));
        assert_eq!(
            reported(&new, Own::TenantControlPlaneCreated),
            is("False", reason.as_str())
        );
        assert_eq!(
            reported(&new, Own::Available),
            is("True", "Available"),
            "the pods keep running"
        );
        let ready = conditions::get(&new.conditions, "Ready").unwrap();
        assert!(ready.message.starts_with(reason.as_str()), "{}", ready.message);
    }

    #[test]
    fn a_spec_that_the_engine_has_not_observed_is_rolling_out() {
        let mut tenant = example::running("v1.36.3");
        let control_plane = published(example::control_plane());
        let progress = Progress {
            generation: Some(2),
            ..all_done()
        };
        let new = status(&control_plane, Some(&tenant), &progress, example::now());
        assert_eq!(reported(&new, Own::RollingOut), is("True", "RollingOut"));
        assert_eq!((new.replicas, new.up_to_date_replicas), (Some(2), Some(0)));
        tenant.status.as_mut().unwrap().observed_generation = Some(2);
        let new = status(&control_plane, Some(&tenant), &progress, example::now());
        assert_eq!(reported(&new, Own::RollingOut).0, "False");
        assert_eq!(new.up_to_date_replicas, Some(2));
        // An engine that refuses the spec rolls nothing out, and one that reports no generation counts as up to date.
        tenant.status.as_mut().unwrap().observed_generation = Some(1);
        example::report(&mut tenant, Tenant::SpecValid, "False", "InvalidSpec", "no");
        let new = status(&control_plane, Some(&tenant), &progress, example::now());
        assert_eq!(reported(&new, Own::RollingOut).0, "False");
        assert_eq!(new.up_to_date_replicas, Some(0));
        let mut without = example::running("v1.36.3");
        without.status.as_mut().unwrap().observed_generation = None;
        let new = status(&control_plane, Some(&without), &progress, example::now());
        assert_eq!(reported(&new, Own::RollingOut).0, "False");
    }

    #[test]
    fn an_invalid_spec_does_not_move_the_observed_generation() {
        let mut control_plane = published(example::control_plane());
        let tenant = example::running("v1.36.3");
        control_plane.status = Some(of(&tenant));
        control_plane.metadata.generation = Some(2);
        let refused = Progress {
            spec: Step::Failed(Problem::on_change(Reason::InvalidVersion, "no")),
            tenant: Step::NotReached,
            ..all_done()
        };
        let new = status(&control_plane, Some(&tenant), &refused, example::now());
        assert_eq!(new.observed_generation, Some(1));
        let found = conditions::get(&new.conditions, "SpecValid").unwrap();
        assert_eq!(
            found.observed_generation,
            Some(2),
            "the condition is about the new generation"
        );
    }

    #[test]
    fn what_the_engine_reports_of_the_tunnel_is_passed_on_and_kept_while_there_is_no_tenant() {
        let mut tenant = example::running("v1.36.3");
        example::report(
            &mut tenant,
            Tenant::TunnelReady,
            "False",
            "NodesNotReachable",
            "why",
        );
        let mut control_plane = published(example::control_plane());
        control_plane.status = Some(of(&tenant));
        let with = |tenant: Option<&TenantControlPlane>| {
            let new = status(&control_plane, tenant, &all_done(), example::now());
            conditions::get(&new.conditions, Own::TunnelReady.as_str()).cloned()
        };
        let known = with(Some(&tenant)).unwrap();
        assert_eq!((known.status.as_str(), known.message.as_str()), ("False", "why"));
        assert_eq!(with(None), Some(known), "since when is not forgotten");
        assert_eq!(with(Some(&example::running("v1.36.3"))), None);
    }
}
