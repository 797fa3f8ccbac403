//! The status of a KamajiControlPlane out of what a pass found and did. Pure.
//!
//! Source: contract.md 1.3–1.5 and the table of 1.12, DESIGN 2.3 and 2.12. Every condition is set on every way out.
//! Only two things are kept from before: `controlPlaneInitialized`, which never goes back, and versions and selector
//! while the tenant does not tell.

use k8s_openapi::jiff::Timestamp;
use kamaji_api::{
    conditions::{KamajiControlPlaneCondition as Own, Reason, TenantControlPlaneCondition as Tenant},
    controlplane::{KamajiControlPlane, KamajiControlPlaneStatus},
    labels::kamaji,
    tenantcontrolplane::{TenantControlPlane, VersionPhase as Phase},
    unsupported::UnsupportedFields as _,
};
use kube::ResourceExt;

use super::{
    endpoint::{self, Choice},
    health::{self, Cause, Health},
    validate,
    versions::{self, deployment},
};
use crate::k8s::conditions::{self, Verdict};

/// What a pass found and did, as far as it got.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Progress {
    /// Why nothing may be done.
    pub paused: Option<String>,
    /// The step of the deletion.
    pub deleting: Option<Cause>,
    /// Why nothing can be made yet.
    pub waiting: Option<Cause>,
    /// Why the spec is not handed on.
    pub invalid: Option<Cause>,
    /// Why the TenantControlPlane was not applied.
    pub tenant: Option<Cause>,
    /// The endpoint in force.
    pub endpoint: Option<Choice>,
    /// `<cluster>-ca`: why it is not in place.
    pub authority: Option<Cause>,
    /// `<cluster>-kubeconfig`: why it is not in place.
    pub kubeconfig: Option<Cause>,
    /// The bootstrap provider's kubeconfig: why it is not in place.
    pub bootstrap: Option<Cause>,
}

/// The status to write.
pub fn status(
    control_plane: &KamajiControlPlane,
    tenant: Option<&TenantControlPlane>,
    progress: &Progress,
    now: Timestamp,
) -> KamajiControlPlaneStatus {
    let mut made = control_plane.status.clone().unwrap_or_default();
    made.external_managed_control_plane = Some(true);
    made.conditions
        .retain(|known| Own::ALL.iter().any(|own| own.as_str() == known.type_));
    let generation = control_plane.metadata.generation;
    if let Some(why) = &progress.paused {
        let verdict = Verdict::yes(Own::Paused.as_str(), Reason::Paused, why.clone());
        conditions::set(&mut made.conditions, verdict, generation, now);
        return made;
    }
    made.observed_generation = generation;
    counters(&mut made, control_plane, tenant);
    let facts = Facts {
        control_plane,
        tenant,
        progress,
    };
    if facts.initialized().is_ok() {
        made.initialization
            .get_or_insert_default()
            .control_plane_initialized = Some(true);
    }
    for verdict in facts.verdicts() {
        conditions::set(&mut made.conditions, verdict, generation, now);
    }
    let (ready, because) = facts.summary(&made);
    made.ready = Some(ready);
    let verdict = if ready {
        Verdict::yes(Own::Ready.as_str(), Reason::Ready, "")
    } else {
        Verdict::no(Own::Ready.as_str(), Reason::NotReady, because)
    };
    conditions::set(&mut made.conditions, verdict, generation, now);
    match control_plane.spec.unsupported_message() {
        Some(message) => {
            let verdict = Verdict::yes(
                Own::FieldNotSupported.as_str(),
                Reason::FieldNotSupported,
                message,
            );
            conditions::set(&mut made.conditions, verdict, generation, now);
        }
        None => conditions::remove(&mut made.conditions, Own::FieldNotSupported.as_str()),
    }
    made
}

/// Versions, selector and counters; zeros are written, not left out.
fn counters(
    made: &mut KamajiControlPlaneStatus,
    control_plane: &KamajiControlPlane,
    tenant: Option<&TenantControlPlane>,
) {
    let pods = tenant.and_then(deployment);
    made.versions = versions::list(control_plane, tenant);
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
    made.up_to_date_replicas = count(|pods| pods.updated_replicas);
    made.worker_endpoint = endpoint::for_workers(control_plane, tenant);
}

/// What the verdicts are made from.
#[derive(Clone, Copy)]
struct Facts<'a> {
    control_plane: &'a KamajiControlPlane,
    tenant: Option<&'a TenantControlPlane>,
    progress: &'a Progress,
}

/// A condition of positive polarity.
fn verdict(condition: Own, holds: Result<(), Cause>, reason: Reason) -> Verdict {
    match holds {
        Ok(()) => Verdict::yes(condition.as_str(), reason, ""),
        Err(cause) => Verdict::no(condition.as_str(), cause.reason, cause.message),
    }
}

/// A condition of negative polarity.
fn negative(condition: Own, holds: Option<Cause>, otherwise: Reason) -> Verdict {
    match holds {
        Some(cause) => Verdict::yes(condition.as_str(), cause.reason, cause.message),
        None => Verdict::no(condition.as_str(), otherwise, ""),
    }
}

impl Facts<'_> {
    fn verdicts(self) -> Vec<Verdict> {
        let p = self.progress;
        vec![
            negative(Own::Paused, None, Reason::NotPaused),
            negative(Own::Deleting, p.deleting.clone(), Reason::NotDeleting),
            verdict(Own::SpecValid, self.spec_valid(), Reason::Valid),
            verdict(Own::Available, self.available(), Reason::Available),
            negative(Own::RollingOut, self.rolling_out(), Reason::NotRollingOut),
            negative(Own::ScalingUp, self.scaling_up(), Reason::NotScalingUp),
            negative(Own::ScalingDown, self.scaling_down(), Reason::NotScalingDown),
            verdict(
                Own::CertificatesAvailable,
                self.certificates(),
                Reason::CertificatesAvailable,
            ),
            verdict(Own::TenantControlPlaneCreated, self.created(), Reason::Created),
            verdict(
                Own::TenantControlPlaneAddressReady,
                self.address(),
                Reason::EndpointReady,
            ),
            verdict(
                Own::ControlPlaneEndpointPatched,
                self.published(),
                Reason::Patched,
            ),
            Verdict::yes(
                Own::InfrastructureClusterPatched.as_str(),
                Reason::NotApplicable,
                "the infrastructure cluster takes the endpoint from the Cluster",
            ),
            verdict(
                Own::KamajiControlPlaneIsInitialized,
                self.latched(),
                Reason::Initialized,
            ),
            verdict(Own::KamajiControlPlaneIsReady, self.tenant_ready(), Reason::Ready),
            verdict(Own::KubeadmResourcesCreated, self.secrets(), Reason::Created),
            self.external_reference(),
        ]
    }

    /// The tenant, or why there is none.
    fn tenant(&self) -> Result<&TenantControlPlane, Cause> {
        let p = self.progress;
        let none = || {
            p.waiting
                .clone()
                .or_else(|| p.invalid.clone())
                .or_else(|| p.tenant.clone())
                .or_else(|| p.authority.clone())
                .unwrap_or_else(|| {
                    Cause::new(
                        Reason::WaitingForTenantControlPlane,
                        "the TenantControlPlane is not seen yet",
                    )
                })
        };
        self.tenant.ok_or_else(none)
    }

    fn asleep() -> Cause {
        Cause::new(
            Reason::Sleeping,
            "spec.replicas is 0; set it to 1 or more to wake the control plane",
        )
    }

    fn spec_valid(self) -> Result<(), Cause> {
        if let Some(invalid) = &self.progress.invalid {
            return Err(invalid.clone());
        }
        let tenant = self
            .tenant
            .and_then(|tenant| health::against(tenant, Tenant::SpecValid));
        tenant.map_or(Ok(()), Err)
    }

    fn available(self) -> Result<(), Cause> {
        match health::of(self.tenant()?) {
            Health::Up => Ok(()),
            Health::Asleep => Err(Self::asleep()),
            Health::Down(cause) => Err(cause),
        }
    }

    fn tenant_ready(self) -> Result<(), Cause> {
        self.available()?;
        let tenant = self.tenant()?;
        health::holds(tenant, Tenant::Ready)
    }

    fn rolling_out(self) -> Option<Cause> {
        let tenant = self.tenant?;
        let installed = validate::running(tenant)?;
        if self.control_plane.spec.replicas == 0 {
            return None;
        }
        let asked = super::desired::version(&self.control_plane.spec.version);
        if installed != asked {
            // A version that is refused is not being rolled out.
            return self
                .progress
                .invalid
                .is_none()
                .then(|| Cause::new(Reason::RollingOut, format!("from {installed} to {asked}")));
        }
        if let Some(cause) = health::against(tenant, Tenant::RollingOut) {
            return Some(cause);
        }
        matches!(
            health::phase(tenant),
            Phase::Upgrading | Phase::CertificateAuthorityRotating | Phase::Migrating
        )
        .then(|| {
            Cause::new(
                Reason::RollingOut,
                format!("TenantControlPlane: status is {}", health::phase(tenant).as_str()),
            )
        })
    }

    fn pods(self) -> (i32, i32, i32) {
        let pods = self.tenant.and_then(deployment);
        (
            self.control_plane.spec.replicas,
            pods.and_then(|pods| pods.replicas).unwrap_or(0),
            pods.and_then(|pods| pods.updated_replicas).unwrap_or(0),
        )
    }

    fn scaling_up(self) -> Option<Cause> {
        let (desired, pods, _) = self.pods();
        (pods < desired).then(|| Cause::new(Reason::ScalingUp, format!("{pods} of {desired} replicas")))
    }

    /// More pods than asked for, the surplus of a rollout aside.
    fn scaling_down(self) -> Option<Cause> {
        let (desired, pods, updated) = self.pods();
        (pods > desired && updated == pods).then(|| {
            Cause::new(
                Reason::ScalingDown,
                format!("{pods} replicas, {desired} asked for"),
            )
        })
    }

    fn certificates(self) -> Result<(), Cause> {
        if let Some(cause) = &self.progress.authority {
            return Err(cause.clone());
        }
        health::holds(self.tenant()?, Tenant::CertificatesAvailable)?;
        self.secrets()
    }

    /// The Secrets of the contract are in place.
    fn secrets(self) -> Result<(), Cause> {
        self.tenant()?;
        let p = self.progress;
        [&p.authority, &p.kubeconfig, &p.bootstrap]
            .into_iter()
            .flatten()
            .next()
            .map_or(Ok(()), |cause| Err(cause.clone()))
    }

    fn created(self) -> Result<(), Cause> {
        if let Some(cause) = &self.progress.tenant {
            return Err(cause.clone());
        }
        self.tenant().map(|_| ())
    }

    fn address(self) -> Result<(), Cause> {
        let tenant = self.tenant()?;
        if let Some(cause) = health::against(tenant, Tenant::EndpointReady) {
            return Err(cause);
        }
        if endpoint::reported(tenant).is_none() {
            return Err(Cause::new(
                Reason::WaitingForTenantControlPlane,
                "the TenantControlPlane has no address yet",
            ));
        }
        Ok(())
    }

    fn published(self) -> Result<(), Cause> {
        let drift = self
            .progress
            .endpoint
            .as_ref()
            .and_then(|choice| choice.drift.clone());
        if let Some(drift) = drift {
            return Err(Cause::new(Reason::EndpointChanged, drift));
        }
        if self.has_endpoint() {
            return Ok(());
        }
        self.address()?;
        self.secrets()?;
        Err(Cause::new(
            Reason::WaitingForEndpoint,
            "spec.controlPlaneEndpoint is not written yet",
        ))
    }

    fn has_endpoint(self) -> bool {
        self.control_plane
            .spec
            .control_plane_endpoint
            .as_ref()
            .is_some_and(kamaji_api::controlplane::Endpoint::is_valid)
    }

    /// «Initialized means it» (DESIGN 2.3): the API answered, rights were read back, kubeconfig and endpoint are there.
    fn initialized(self) -> Result<(), Cause> {
        self.available()?;
        health::rights_in_place(self.tenant()?)?;
        let p = self.progress;
        if let Some(cause) = p.authority.as_ref().or(p.kubeconfig.as_ref()) {
            return Err(cause.clone());
        }
        if self.has_endpoint() {
            Ok(())
        } else {
            self.published()
        }
    }

    /// Initialized now or before.
    fn latched(self) -> Result<(), Cause> {
        let before = self
            .control_plane
            .status
            .as_ref()
            .and_then(|status| status.initialization.as_ref()?.control_plane_initialized);
        if before == Some(true) {
            return Ok(());
        }
        self.initialized()
    }

    fn external_reference(self) -> Verdict {
        let condition = Own::FoundExternalReferenceClient.as_str();
        if self
            .control_plane
            .spec
            .deployment
            .external_cluster_reference
            .is_some()
        {
            Verdict::no(
                condition,
                Reason::FieldNotSupported,
                "spec.deployment.externalClusterReference is not supported yet; the pods run in this cluster",
            )
        } else {
            Verdict::yes(condition, Reason::NotApplicable, "the pods run in this cluster")
        }
    }

    /// Ready, or the first condition that speaks against it.
    fn summary(self, made: &KamajiControlPlaneStatus) -> (bool, String) {
        if self.progress.deleting.is_some() {
            return (false, "the control plane is being deleted".to_owned());
        }
        let needed = [
            Own::SpecValid,
            Own::TenantControlPlaneCreated,
            Own::Available,
            Own::CertificatesAvailable,
            Own::ControlPlaneEndpointPatched,
            Own::KamajiControlPlaneIsInitialized,
            Own::KamajiControlPlaneIsReady,
        ];
        let failing = needed
            .iter()
            .filter_map(|own| conditions::get(&made.conditions, own.as_str()))
            .find(|condition| condition.status != "True");
        match failing {
            None => (true, String::new()),
            Some(condition) => (
                false,
                format!(
                    "{} is {}: {}",
                    condition.type_, condition.status, condition.message
                ),
            ),
        }
    }
}

/// News for people: what became true or wrong with this status (DESIGN 2.12).
pub struct News {
    /// A warning, or a piece of good news.
    pub warning: bool,
    /// Reason of the condition.
    pub reason: String,
    /// Its message.
    pub note: String,
}

/// Conditions whose trouble is worth an event: it needs somebody to act.
const TELLING: [Own; 5] = [
    Own::SpecValid,
    Own::TenantControlPlaneCreated,
    Own::CertificatesAvailable,
    Own::ControlPlaneEndpointPatched,
    Own::FieldNotSupported,
];

/// What changed between two statuses. Waiting for something that comes by itself is no news.
pub fn news(old: Option<&KamajiControlPlaneStatus>, new: &KamajiControlPlaneStatus) -> Vec<News> {
    let before = old.map(|status| status.conditions.as_slice()).unwrap_or_default();
    let mut list: Vec<_> = new
        .conditions
        .iter()
        .filter(|condition| {
            TELLING.iter().any(|own| own.as_str() == condition.type_)
                && (condition.status == "True") == kamaji_api::conditions::is_negative(&condition.type_)
                && !condition.reason.starts_with("WaitingFor")
                && condition.reason != Reason::Pending.as_str()
                && conditions::get(before, &condition.type_)
                    .is_none_or(|known| known.reason != condition.reason)
        })
        .map(|condition| News {
            warning: true,
            reason: condition.reason.clone(),
            note: condition.message.clone(),
        })
        .collect();
    let initialized = |status: &KamajiControlPlaneStatus| {
        status
            .initialization
            .as_ref()
            .is_some_and(|known| known.control_plane_initialized == Some(true))
    };
    if initialized(new) && !old.is_some_and(initialized) {
        list.push(News {
            warning: false,
            reason: Reason::Initialized.into(),
            note: "the API answers, kubeconfig and endpoint are published".to_owned(),
        });
    }
    list
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;
    use crate::kamajicontrolplane::example;

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
            &Progress::default(),
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
    fn contract_112_each_phase_of_the_engine_has_its_conditions(
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
            &Progress::default(),
            example::now(),
        );
        assert!(!initialized(&unpublished));
        let without = Progress {
            kubeconfig: Some(Cause::new(Reason::WaitingForKubeconfig, "no")),
            ..Progress::default()
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
        let made = status(
            &control_plane,
            Some(&tenant),
            &Progress::default(),
            example::now(),
        );
        let found = conditions::get(&made.conditions, "FieldNotSupported").unwrap();
        assert!(found.message.contains("spec.addons.konnectivity"));
        let told: Vec<_> = news(None, &made).into_iter().map(|news| news.reason).collect();
        assert_eq!(told, ["FieldNotSupported", "Initialized"]);
        control_plane.spec.addons.konnectivity = None;
        control_plane.status = Some(made.clone());
        let cleared = status(
            &control_plane,
            Some(&tenant),
            &Progress::default(),
            example::now(),
        );
        assert!(conditions::get(&cleared.conditions, "FieldNotSupported").is_none());
        assert!(news(Some(&made), &cleared).is_empty());
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
}
