//! What is true of a control plane, condition by condition, out of its TenantControlPlane and what a pass found. Pure.
//!
//! Source: contract.md 1.5 and the table of 1.12, DESIGN 2.3.

use kamaji_api::{
    conditions::{KamajiControlPlaneCondition as Own, Reason, TenantControlPlaneCondition as Tenant},
    controlplane::{KamajiControlPlane, KamajiControlPlaneStatus},
    tenantcontrolplane::{TenantControlPlane, VersionPhase as Phase},
};

use super::{
    endpoint,
    health::{self, Cause, Health},
    progress::{Doubt, Progress},
    versions::{self, deployment},
};
use crate::k8s::conditions::{self, Verdict};

/// What the verdicts are made from.
#[derive(Clone, Copy)]
pub struct Facts<'a> {
    /// The control plane.
    pub control_plane: &'a KamajiControlPlane,
    /// Its TenantControlPlane.
    pub tenant: Option<&'a TenantControlPlane>,
    /// What the pass found.
    pub progress: &'a Progress,
}

/// A condition as the facts have it.
pub enum Said {
    /// So it is.
    Is(Verdict),
    /// Nobody looked: what was said before stands.
    Unknown(Own),
}

/// A condition of positive polarity.
fn positive(condition: Own, holds: Result<(), Doubt>, reason: Reason) -> Said {
    match holds {
        Ok(()) => Said::Is(Verdict::yes(condition.as_str(), reason, "")),
        Err(Doubt::Because(cause)) => Said::Is(Verdict::no(condition.as_str(), cause.reason, cause.message)),
        Err(Doubt::Unknown) => Said::Unknown(condition),
    }
}

/// A condition of negative polarity.
fn negative(condition: Own, holds: Option<Cause>, otherwise: Reason) -> Said {
    Said::Is(match holds {
        Some(cause) => Verdict::yes(condition.as_str(), cause.reason, cause.message),
        None => Verdict::no(condition.as_str(), otherwise, ""),
    })
}

impl Facts<'_> {
    /// Every condition but the summary.
    pub fn conditions(self) -> Vec<Said> {
        let p = self.progress;
        vec![
            negative(Own::Paused, None, Reason::NotPaused),
            negative(Own::Deleting, p.deleting.clone(), Reason::NotDeleting),
            positive(Own::SpecValid, self.spec_valid(), Reason::Valid),
            positive(Own::Available, self.available(), Reason::Available),
            negative(Own::RollingOut, self.rolling_out(), Reason::NotRollingOut),
            negative(Own::ScalingUp, self.scaling_up(), Reason::NotScalingUp),
            negative(Own::ScalingDown, self.scaling_down(), Reason::NotScalingDown),
            positive(
                Own::CertificatesAvailable,
                self.certificates(),
                Reason::CertificatesAvailable,
            ),
            positive(Own::TenantControlPlaneCreated, self.created(), Reason::Created),
            positive(
                Own::TenantControlPlaneAddressReady,
                self.address(),
                Reason::EndpointReady,
            ),
            positive(
                Own::ControlPlaneEndpointPatched,
                self.published(),
                Reason::Patched,
            ),
            Said::Is(Verdict::yes(
                Own::InfrastructureClusterPatched.as_str(),
                Reason::NotApplicable,
                "the infrastructure cluster takes the endpoint from the Cluster",
            )),
            positive(
                Own::KamajiControlPlaneIsInitialized,
                self.latched(),
                Reason::Initialized,
            ),
            positive(Own::KamajiControlPlaneIsReady, self.tenant_ready(), Reason::Ready),
            positive(Own::KubeadmResourcesCreated, self.secrets(), Reason::Created),
            Said::Is(self.external_reference()),
        ]
    }

    /// The tenant, or why there is none.
    fn tenant(&self) -> Result<&TenantControlPlane, Cause> {
        let p = self.progress;
        let none = || {
            p.waiting
                .as_ref()
                .or_else(|| p.spec.cause())
                .or_else(|| p.tenant.cause())
                .or_else(|| p.authority.cause())
                .cloned()
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

    fn spec_valid(self) -> Result<(), Doubt> {
        if let Some(cause) = self.progress.spec.cause() {
            return Err(cause.clone().into());
        }
        if let Some(cause) = self.refused() {
            return Err(cause.into());
        }
        self.progress.spec.holds()
    }

    /// The engine says that the spec cannot be brought about.
    fn refused(self) -> Option<Cause> {
        health::against(self.tenant?, Tenant::SpecValid)
    }

    /// The engine has not looked at what was last applied: what it reports is of the spec before. Kamaji's engine and
    /// ours both say which generation they brought about.
    pub fn behind(self) -> bool {
        let Some(tenant) = self.tenant else { return false };
        let asked = self.progress.generation.max(tenant.metadata.generation);
        let seen = tenant
            .status
            .as_ref()
            .and_then(|status| status.observed_generation);
        let leaving = self.progress.deleting.is_some() || tenant.metadata.deletion_timestamp.is_some();
        !leaving && seen.is_some() && asked > seen
    }

    fn available(self) -> Result<(), Doubt> {
        match health::of(self.tenant()?) {
            Health::Up => Ok(()),
            Health::Asleep => Err(Self::asleep().into()),
            Health::Down(cause) => Err(cause.into()),
        }
    }

    fn tenant_ready(self) -> Result<(), Doubt> {
        self.available()?;
        Ok(health::holds(self.tenant()?, Tenant::Ready)?)
    }

    fn rolling_out(self) -> Option<Cause> {
        let tenant = self.tenant?;
        let installed = versions::running(self.control_plane, tenant)?;
        // A spec that is refused is not being rolled out.
        let refused = self.progress.spec.cause().is_some() || self.refused().is_some();
        if self.control_plane.spec.replicas == 0 {
            return None;
        }
        if self.behind() && !refused {
            return Some(Cause::new(
                Reason::RollingOut,
                "waiting for the engine to take up the TenantControlPlane's new spec",
            ));
        }
        let asked = super::desired::version(&self.control_plane.spec.version);
        if installed != asked {
            return (!refused)
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

    fn certificates(self) -> Result<(), Doubt> {
        if let Some(cause) = self.progress.authority.cause() {
            return Err(cause.clone().into());
        }
        health::holds(self.tenant()?, Tenant::CertificatesAvailable)?;
        self.secrets()
    }

    /// The Secrets of the contract are in place.
    fn secrets(self) -> Result<(), Doubt> {
        self.tenant()?;
        let p = self.progress;
        let all = [&p.authority, &p.kubeconfig, &p.bootstrap];
        if let Some(cause) = all.iter().find_map(|finding| finding.cause()) {
            return Err(cause.clone().into());
        }
        all.iter().try_for_each(|finding| finding.holds())
    }

    fn created(self) -> Result<(), Doubt> {
        let p = self.progress;
        if let Some(cause) = p.waiting.as_ref().or_else(|| p.tenant.cause()) {
            return Err(cause.clone().into());
        }
        self.tenant()?;
        Ok(())
    }

    fn address(self) -> Result<(), Doubt> {
        let tenant = self.tenant()?;
        if let Some(cause) = health::against(tenant, Tenant::EndpointReady) {
            return Err(cause.into());
        }
        if endpoint::reported(tenant).is_none() {
            let why = "the TenantControlPlane has no address yet";
            return Err(Cause::new(Reason::WaitingForTenantControlPlane, why).into());
        }
        Ok(())
    }

    fn published(self) -> Result<(), Doubt> {
        let choice = self.progress.endpoint.as_ref();
        if let Some(drift) = choice.and_then(|choice| choice.drift.clone()) {
            return Err(Cause::new(Reason::EndpointChanged, drift).into());
        }
        if self.has_endpoint() {
            // Whether it fits is known only after a look at what it should be.
            return choice.map(|_| ()).ok_or(Doubt::Unknown);
        }
        self.address()?;
        if let Err(Doubt::Because(cause)) = self.secrets() {
            return Err(cause.into());
        }
        let why = "spec.controlPlaneEndpoint is not written yet";
        Err(Cause::new(Reason::WaitingForEndpoint, why).into())
    }

    fn has_endpoint(self) -> bool {
        self.control_plane
            .spec
            .control_plane_endpoint
            .as_ref()
            .is_some_and(kamaji_api::controlplane::Endpoint::is_valid)
    }

    /// «Initialized means it» (DESIGN 2.3): the API answered, rights were read back, kubeconfig and endpoint are there,
    /// all of it seen in this pass.
    pub fn initialized(self) -> Result<(), Doubt> {
        self.available()?;
        health::rights_in_place(self.tenant()?)?;
        self.progress.authority.holds()?;
        self.progress.kubeconfig.holds()?;
        if self.has_endpoint() {
            Ok(())
        } else {
            self.published()
        }
    }

    /// Initialized now or before.
    fn latched(self) -> Result<(), Doubt> {
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
    pub fn summary(self, made: &KamajiControlPlaneStatus) -> (bool, String) {
        if self.progress.deleting.is_some() {
            return (false, "the control plane is being deleted".to_owned());
        }
        if let Some(cause) = &self.progress.waiting {
            return (false, format!("{}: {}", cause.reason, cause.message));
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
