//! What is true of a control plane, condition by condition, out of its TenantControlPlane and what a pass found. Pure.
//!
//! Source: contract.md 1.5 and the table of 1.12, DESIGN 2.3.

use kamaji_api::{
    conditions::{KamajiControlPlaneCondition as Own, Reason, TenantControlPlaneCondition as Tenant},
    controlplane::KamajiControlPlane,
    tenantcontrolplane::{TenantControlPlane, VersionPhase as Phase},
};

use super::{
    endpoint,
    health::{self, Health},
    progress::Progress,
    versions::{self, deployment},
};
use crate::k8s::{
    conditions::Verdict,
    problem::Problem,
    report::{Known, Report},
};

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

impl Facts<'_> {
    /// Reports every condition but the summary.
    pub fn conditions(self, report: &mut Report) {
        for (condition, known, good) in [
            (Own::SpecValid, self.spec_valid(), Reason::Valid),
            (Own::Available, self.available(), Reason::Available),
            (
                Own::CertificatesAvailable,
                self.certificates(),
                Reason::CertificatesAvailable,
            ),
            (Own::TenantControlPlaneCreated, self.created(), Reason::Created),
            (
                Own::TenantControlPlaneAddressReady,
                self.address(),
                Reason::EndpointReady,
            ),
            (
                Own::ControlPlaneEndpointPatched,
                self.published(),
                Reason::Patched,
            ),
            (
                Own::KamajiControlPlaneIsInitialized,
                self.latched(),
                Reason::Initialized,
            ),
            (Own::KamajiControlPlaneIsReady, self.tenant_ready(), Reason::Ready),
            (Own::KubeadmResourcesCreated, self.secrets(), Reason::Created),
        ] {
            report.step(condition.as_str(), &known.into(), good);
        }
        for (condition, found, otherwise) in [
            (Own::Paused, None, Reason::NotPaused),
            (Own::Deleting, self.progress.deleting.clone(), Reason::NotDeleting),
            (Own::RollingOut, self.rolling_out(), Reason::NotRollingOut),
            (Own::ScalingUp, self.scaling_up(), Reason::NotScalingUp),
            (Own::ScalingDown, self.scaling_down(), Reason::NotScalingDown),
        ] {
            report.set(match found {
                Some(problem) => Verdict::yes(condition.as_str(), problem.reason, problem.message),
                None => Verdict::no(condition.as_str(), otherwise, ""),
            });
        }
        report.set(Verdict::yes(
            Own::InfrastructureClusterPatched.as_str(),
            Reason::NotApplicable,
            "the infrastructure cluster takes the endpoint from the Cluster",
        ));
        report.set(self.external_reference());
    }

    /// The tenant, or why there is none.
    fn tenant(&self) -> Result<&TenantControlPlane, Problem> {
        let p = self.progress;
        let none = || {
            p.waiting
                .as_ref()
                .or_else(|| p.spec.problem())
                .or_else(|| p.tenant.problem())
                .or_else(|| p.authority.problem())
                .cloned()
                .unwrap_or_else(|| {
                    Problem::on_change(
                        Reason::WaitingForTenantControlPlane,
                        "the TenantControlPlane is not seen yet",
                    )
                })
        };
        self.tenant.ok_or_else(none)
    }

    fn asleep() -> Problem {
        Problem::on_change(
            Reason::Sleeping,
            "spec.replicas is 0; set it to 1 or more to wake the control plane",
        )
    }

    fn spec_valid(self) -> Known {
        if let Some(cause) = self.progress.spec.problem() {
            return Err(Some(cause.clone()));
        }
        if let Some(cause) = self.refused() {
            return Err(Some(cause));
        }
        self.progress.spec.known()
    }

    /// The engine says that the spec cannot be brought about.
    fn refused(self) -> Option<Problem> {
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

    fn available(self) -> Known {
        match health::of(self.tenant()?) {
            Health::Up => Ok(()),
            Health::Asleep => Err(Some(Self::asleep())),
            Health::Down(cause) => Err(Some(cause)),
        }
    }

    fn tenant_ready(self) -> Known {
        self.available()?;
        Ok(health::holds(self.tenant()?, Tenant::Ready)?)
    }

    fn rolling_out(self) -> Option<Problem> {
        let tenant = self.tenant?;
        let installed = versions::running(self.control_plane, tenant)?;
        // A spec that is refused is not being rolled out.
        let refused = self.progress.spec.problem().is_some() || self.refused().is_some();
        if self.control_plane.spec.replicas == 0 {
            return None;
        }
        if self.behind() && !refused {
            return Some(Problem::on_change(
                Reason::RollingOut,
                "waiting for the engine to take up the TenantControlPlane's new spec",
            ));
        }
        let asked = super::desired::version(&self.control_plane.spec.version);
        if installed != asked {
            return (!refused)
                .then(|| Problem::on_change(Reason::RollingOut, format!("from {installed} to {asked}")));
        }
        if let Some(cause) = health::against(tenant, Tenant::RollingOut) {
            return Some(cause);
        }
        matches!(
            health::phase(tenant),
            Phase::Upgrading | Phase::CertificateAuthorityRotating | Phase::Migrating
        )
        .then(|| {
            Problem::on_change(
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

    fn scaling_up(self) -> Option<Problem> {
        let (desired, pods, _) = self.pods();
        (pods < desired)
            .then(|| Problem::on_change(Reason::ScalingUp, format!("{pods} of {desired} replicas")))
    }

    /// More pods than asked for, the surplus of a rollout aside.
    fn scaling_down(self) -> Option<Problem> {
        let (desired, pods, updated) = self.pods();
        (pods > desired && updated == pods).then(|| {
            Problem::on_change(
                Reason::ScalingDown,
                format!("{pods} replicas, {desired} asked for"),
            )
        })
    }

    fn certificates(self) -> Known {
        if let Some(cause) = self.progress.authority.problem() {
            return Err(Some(cause.clone()));
        }
        health::holds(self.tenant()?, Tenant::CertificatesAvailable)?;
        self.secrets()
    }

    /// The Secrets of the contract are in place.
    fn secrets(self) -> Known {
        self.tenant()?;
        let p = self.progress;
        let all = [&p.authority, &p.kubeconfig, &p.bootstrap];
        if let Some(cause) = all.iter().find_map(|finding| finding.problem()) {
            return Err(Some(cause.clone()));
        }
        all.iter().try_for_each(|finding| finding.known())
    }

    fn created(self) -> Known {
        let p = self.progress;
        if let Some(cause) = p.waiting.as_ref().or_else(|| p.tenant.problem()) {
            return Err(Some(cause.clone()));
        }
        self.tenant()?;
        Ok(())
    }

    fn address(self) -> Known {
        let tenant = self.tenant()?;
        if let Some(cause) = health::against(tenant, Tenant::EndpointReady) {
            return Err(Some(cause));
        }
        if endpoint::reported(tenant).is_none() {
            let why = "the TenantControlPlane has no address yet";
            return Err(Problem::on_change(Reason::WaitingForTenantControlPlane, why).into());
        }
        Ok(())
    }

    fn published(self) -> Known {
        let choice = self.progress.endpoint.as_ref();
        if let Some(drift) = choice.and_then(|choice| choice.drift.clone()) {
            return Err(Problem::on_change(Reason::EndpointChanged, drift).into());
        }
        if self.has_endpoint() {
            // Whether it fits is known only after a look at what it should be.
            return choice.map(|_| ()).ok_or(None);
        }
        self.address()?;
        if let Err(Some(cause)) = self.secrets() {
            return Err(Some(cause));
        }
        let why = "spec.controlPlaneEndpoint is not written yet";
        Err(Problem::on_change(Reason::WaitingForEndpoint, why).into())
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
    pub fn initialized(self) -> Known {
        self.available()?;
        health::rights_in_place(self.tenant()?)?;
        self.progress.authority.known()?;
        self.progress.kubeconfig.known()?;
        if self.has_endpoint() {
            Ok(())
        } else {
            self.published()
        }
    }

    /// Initialized now or before.
    fn latched(self) -> Known {
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
    pub fn summary(self, report: &Report) -> (bool, String) {
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
            .filter_map(|own| report.get(own.as_str()))
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
