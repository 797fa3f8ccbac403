//! The conditions of a KamajiControlPlane, one function each, from its TenantControlPlane and from what the reconcile
//! found. Pure. What each condition and reason means for a user: `docs/src/reference/conditions.md`.

use kamaji_api::{
    conditions::{KamajiControlPlaneCondition as Own, Reason, TenantControlPlaneCondition as Tenant},
    controlplane::KamajiControlPlane,
    tenantcontrolplane::{TenantControlPlane, VersionPhase as Phase},
    unsupported::UnsupportedFields as _,
};

use super::{
    endpoint,
    progress::Progress,
    reach::{self, Reach},
    tenant::{self, Health, deployment, running_version, version_text},
};
use crate::k8s::{
    conditions::Verdict,
    problem::Problem,
    report::{Known, Report, Step},
};

/// What the conditions are computed from.
#[derive(Clone, Copy)]
pub struct Inputs<'a> {
    /// The control plane.
    pub control_plane: &'a KamajiControlPlane,
    /// Its TenantControlPlane.
    pub tenant: Option<&'a TenantControlPlane>,
    /// What the reconcile found.
    pub progress: &'a Progress,
}

/// Computes every condition of a control plane that is not paused; `Ready` last, since it sums up the others.
pub fn report(inputs: Inputs<'_>, report: &mut Report) {
    for condition in Own::ALL {
        set(inputs, *condition, report);
    }
    let verdict = match ready(inputs, report) {
        Ok(()) => Verdict::yes(Own::Ready.as_str(), Reason::Ready, ""),
        Err(message) => Verdict::no(Own::Ready.as_str(), Reason::NotReady, message),
    };
    report.set(verdict);
}

fn set(inputs: Inputs<'_>, condition: Own, report: &mut Report) {
    let type_ = condition.as_str();
    let mut positive = |known: Known, good| report.step(type_, &known.into(), good);
    match condition {
        Own::SpecValid => positive(spec_valid(inputs), Reason::Valid),
        Own::Available => positive(available(inputs), Reason::Available),
        Own::CertificatesAvailable => {
            positive(certificates_available(inputs), Reason::CertificatesAvailable);
        }
        Own::TenantControlPlaneCreated => positive(tenant_control_plane_created(inputs), Reason::Created),
        Own::TenantControlPlaneAddressReady => {
            positive(tenant_control_plane_address_ready(inputs), Reason::EndpointReady);
        }
        Own::ControlPlaneEndpointPatched => {
            let known = control_plane_endpoint_patched(inputs);
            let endpoint = inputs.progress.endpoint.as_ref();
            match endpoint.and_then(|choice| choice.moved.clone()) {
                Some(moved) if known.is_ok() => {
                    report.set(Verdict::yes(type_, Reason::EndpointMoved, moved));
                }
                _ => positive(known, Reason::Patched),
            }
        }
        Own::KamajiControlPlaneIsInitialized => {
            positive(kamaji_control_plane_is_initialized(inputs), Reason::Initialized);
        }
        Own::KamajiControlPlaneIsReady => positive(kamaji_control_plane_is_ready(inputs), Reason::Ready),
        Own::KubeadmResourcesCreated => positive(kubeadm_resources_created(inputs), Reason::Created),
        // A paused control plane never comes here.
        Own::Paused => report.set(negative(condition, None, Reason::NotPaused)),
        Own::Deleting => report.set(negative(condition, deleting(inputs), Reason::NotDeleting)),
        Own::RollingOut => report.set(negative(condition, rolling_out(inputs), Reason::NotRollingOut)),
        Own::ScalingUp => report.set(negative(condition, scaling_up(inputs), Reason::NotScalingUp)),
        Own::ScalingDown => report.set(negative(condition, scaling_down(inputs), Reason::NotScalingDown)),
        Own::EndpointReachable => match inputs.progress.reach.verdict() {
            Some(verdict) => report.set(verdict),
            None if inputs.progress.reach == Reach::OwnService => report.remove(type_),
            None => {}
        },
        Own::TunnelReady => passed_on(inputs, tenant::tunnel, type_, report),
        Own::FormerEndpointsServed => passed_on(inputs, tenant::former_endpoints, type_, report),
        Own::InfrastructureClusterPatched => match inputs.progress.handoff.verdict() {
            Some(verdict) => report.set(verdict),
            None => report.step(type_, &Step::NotReached, Reason::Patched),
        },
        Own::FoundExternalReferenceClient => report.set(found_external_reference_client()),
        Own::FieldNotSupported => report.unsupported(inputs.control_plane.spec.unsupported_message()),
        Own::Ready => {}
    }
}

/// A condition that the engine reports where it has something to say. Without a TenantControlPlane it stays as it was.
fn passed_on(
    inputs: Inputs<'_>,
    known: fn(&TenantControlPlane) -> Option<Verdict>,
    type_: &str,
    report: &mut Report,
) {
    let Some(tenant) = inputs.tenant else { return };
    match known(tenant) {
        Some(verdict) => report.set(verdict),
        None => report.remove(type_),
    }
}

/// A condition of negative polarity: `True` with the problem, or `False` with the reason `otherwise`.
fn negative(condition: Own, problem: Option<Problem>, otherwise: Reason) -> Verdict {
    match problem {
        Some(problem) => Verdict::yes(condition.as_str(), problem.reason, problem.message),
        None => Verdict::no(condition.as_str(), otherwise, ""),
    }
}

fn spec_valid(inputs: Inputs<'_>) -> Known {
    if let Some(problem) = inputs.progress.spec.problem() {
        return Err(Some(problem.clone()));
    }
    if let Some(problem) = inputs.refused_by_engine() {
        return Err(Some(problem));
    }
    inputs.progress.spec.known()
}

fn available(inputs: Inputs<'_>) -> Known {
    match tenant::health(inputs.tenant()?) {
        Health::Up => Ok(()),
        Health::Asleep => Err(Some(Problem::on_change(
            Reason::Sleeping,
            "spec.replicas is 0; set it to 1 or more to wake the control plane",
        ))),
        Health::Down(problem) => Err(Some(problem)),
    }
}

fn kamaji_control_plane_is_ready(inputs: Inputs<'_>) -> Known {
    available(inputs)?;
    Ok(tenant::holds(inputs.tenant()?, Tenant::Ready)?)
}

fn deleting(inputs: Inputs<'_>) -> Option<Problem> {
    inputs.progress.deleting.clone()
}

fn rolling_out(inputs: Inputs<'_>) -> Option<Problem> {
    let tenant = inputs.tenant?;
    let installed = running_version(inputs.control_plane, tenant)?;
    // A spec that is refused is not rolled out.
    let refused = inputs.progress.spec.problem().is_some() || inputs.refused_by_engine().is_some();
    if inputs.control_plane.spec.replicas == 0 {
        return None;
    }
    let rolling_out = |message: String| Some(Problem::on_change(Reason::RollingOut, message));
    if inputs.engine_is_behind() && !refused {
        return rolling_out(
            "waiting for the hosting engine to observe the new spec of the TenantControlPlane".to_owned(),
        );
    }
    let desired = version_text(&inputs.control_plane.spec.version);
    if installed != desired {
        return if refused {
            None
        } else {
            rolling_out(format!("from {installed} to {desired}"))
        };
    }
    if let Some(problem) = tenant::unhealthy(tenant, Tenant::RollingOut) {
        return Some(problem);
    }
    match tenant::phase(tenant) {
        phase @ (Phase::Upgrading | Phase::CertificateAuthorityRotating | Phase::Migrating) => {
            rolling_out(format!("TenantControlPlane: status is {}", phase.as_str()))
        }
        Phase::Unknown
        | Phase::Provisioning
        | Phase::Ready
        | Phase::NotReady
        | Phase::Sleeping
        | Phase::WriteLimited => None,
    }
}

fn scaling_up(inputs: Inputs<'_>) -> Option<Problem> {
    let Pods { desired, current, .. } = inputs.pods();
    (current < desired)
        .then(|| Problem::on_change(Reason::ScalingUp, format!("{current} of {desired} replicas")))
}

/// More pods than desired, except for the surplus of a rollout.
fn scaling_down(inputs: Inputs<'_>) -> Option<Problem> {
    let Pods {
        desired,
        current,
        updated,
    } = inputs.pods();
    (current > desired && updated == current).then(|| {
        Problem::on_change(
            Reason::ScalingDown,
            format!("{current} replicas, {desired} desired"),
        )
    })
}

fn certificates_available(inputs: Inputs<'_>) -> Known {
    if let Some(problem) = inputs.progress.ca.problem() {
        return Err(Some(problem.clone()));
    }
    tenant::holds(inputs.tenant()?, Tenant::CertificatesAvailable)?;
    kubeadm_resources_created(inputs)
}

/// The Secrets of the Cluster API contract are in place.
fn kubeadm_resources_created(inputs: Inputs<'_>) -> Known {
    inputs.tenant()?;
    let Progress {
        ca,
        kubeconfig,
        bootstrap,
        ..
    } = inputs.progress;
    let all = [ca, kubeconfig, bootstrap];
    if let Some(problem) = all.iter().find_map(|step| step.problem()) {
        return Err(Some(problem.clone()));
    }
    all.iter().try_for_each(|step| step.known())
}

fn tenant_control_plane_created(inputs: Inputs<'_>) -> Known {
    let progress = inputs.progress;
    if let Some(problem) = progress.waiting.as_ref().or_else(|| progress.tenant.problem()) {
        return Err(Some(problem.clone()));
    }
    inputs.tenant()?;
    Ok(())
}

fn tenant_control_plane_address_ready(inputs: Inputs<'_>) -> Known {
    let tenant = inputs.tenant()?;
    if let Some(problem) = tenant::unhealthy(tenant, Tenant::EndpointReady) {
        return Err(Some(problem));
    }
    if endpoint::reported(tenant).is_none() {
        return Err(Some(Problem::on_change(
            Reason::WaitingForTenantControlPlane,
            "the TenantControlPlane has no address yet",
        )));
    }
    Ok(())
}

fn control_plane_endpoint_patched(inputs: Inputs<'_>) -> Known {
    let choice = inputs.progress.endpoint.as_ref();
    if let Some(drift) = choice.and_then(|choice| choice.drift.clone()) {
        return Err(Some(Problem::on_change(Reason::EndpointChanged, drift)));
    }
    if inputs.has_endpoint() {
        // Without a choice it is not known whether the endpoint still fits.
        return choice.map(|_| ()).ok_or(None);
    }
    tenant_control_plane_address_ready(inputs)?;
    if let Err(Some(problem)) = kubeadm_resources_created(inputs) {
        return Err(Some(problem));
    }
    Err(Some(Problem::on_change(
        Reason::WaitingForEndpoint,
        "spec.controlPlaneEndpoint is not written yet",
    )))
}

/// Initialized now or before: Cluster API requires that it never goes back.
fn kamaji_control_plane_is_initialized(inputs: Inputs<'_>) -> Known {
    let before = inputs
        .control_plane
        .status
        .as_ref()
        .and_then(|status| status.initialization.as_ref()?.control_plane_initialized);
    if before == Some(true) {
        return Ok(());
    }
    initialized(inputs)
}

/// Everything that a worker needs was observed in this reconcile: the API server answers, its RBAC rules were read
/// back, CA and kubeconfig are published, and the endpoint is written.
pub fn initialized(inputs: Inputs<'_>) -> Known {
    available(inputs)?;
    tenant::rbac_in_place(inputs.tenant()?)?;
    inputs.progress.ca.known()?;
    inputs.progress.kubeconfig.known()?;
    let Progress { endpoint, reach, .. } = inputs.progress;
    reach::fits(inputs.control_plane, inputs.tenant, endpoint.as_ref(), reach)?;
    if inputs.has_endpoint() {
        Ok(())
    } else {
        control_plane_endpoint_patched(inputs)
    }
}

fn found_external_reference_client() -> Verdict {
    let condition = Own::FoundExternalReferenceClient.as_str();
    Verdict::yes(condition, Reason::NotApplicable, "the pods run in this cluster")
}

/// Reports a control plane whose pods another management cluster runs: what is refused, and nothing about the rest.
pub fn report_elsewhere(problem: &Problem, report: &mut Report) {
    for condition in [Own::SpecValid, Own::FoundExternalReferenceClient, Own::Ready] {
        let message = problem.message.clone();
        report.set(Verdict::no(condition.as_str(), problem.reason.as_str(), message));
    }
}

/// `Ready`, or the message with the first condition that is not `True`.
fn ready(inputs: Inputs<'_>, report: &Report) -> Result<(), String> {
    const NEEDED: [Own; 7] = [
        Own::SpecValid,
        Own::TenantControlPlaneCreated,
        Own::Available,
        Own::CertificatesAvailable,
        Own::ControlPlaneEndpointPatched,
        Own::KamajiControlPlaneIsInitialized,
        Own::KamajiControlPlaneIsReady,
    ];
    if inputs.progress.deleting.is_some() {
        return Err("the control plane is being deleted".to_owned());
    }
    if let Some(problem) = &inputs.progress.waiting {
        return Err(format!("{}: {}", problem.reason, problem.message));
    }
    // Nobody may answer the management cluster at an endpoint that machines reach.
    let elsewhere = report.get(Own::EndpointReachable.as_str());
    let elsewhere = elsewhere.filter(|condition| condition.status == "False");
    let needed = NEEDED.iter().filter_map(|own| report.get(own.as_str()));
    needed
        .filter(|condition| condition.status != "True")
        .chain(elsewhere)
        .next()
        .map_or(Ok(()), |condition| {
            Err(format!(
                "{} is {}: {}",
                condition.type_, condition.status, condition.message
            ))
        })
}

/// Pods of the control plane, in numbers.
struct Pods {
    /// `spec.replicas`.
    desired: i32,
    /// All pods.
    current: i32,
    /// Pods of the newest template.
    updated: i32,
}

impl Inputs<'_> {
    /// The TenantControlPlane.
    ///
    /// # Errors
    /// Why there is none.
    fn tenant(&self) -> Result<&TenantControlPlane, Problem> {
        let progress = self.progress;
        self.tenant.ok_or_else(|| {
            progress
                .waiting
                .as_ref()
                .or_else(|| progress.spec.problem())
                .or_else(|| progress.tenant.problem())
                .or_else(|| progress.ca.problem())
                .cloned()
                .unwrap_or_else(|| {
                    Problem::on_change(
                        Reason::WaitingForTenantControlPlane,
                        "the TenantControlPlane is not observed yet",
                    )
                })
        })
    }

    /// The engine reports that the spec of the TenantControlPlane is invalid.
    fn refused_by_engine(self) -> Option<Problem> {
        tenant::unhealthy(self.tenant?, Tenant::SpecValid)
    }

    /// The engine has not observed what was last applied: what it reports is about the spec before. Our engine and
    /// upstream Kamaji both report `status.observedGeneration`; without it the engine counts as up to date.
    pub fn engine_is_behind(self) -> bool {
        let Some(tenant) = self.tenant else { return false };
        let desired = self.progress.generation.max(tenant.metadata.generation);
        let observed = tenant
            .status
            .as_ref()
            .and_then(|status| status.observed_generation);
        let deleting = self.progress.deleting.is_some() || tenant.metadata.deletion_timestamp.is_some();
        !deleting && observed.is_some() && desired > observed
    }

    fn pods(self) -> Pods {
        let pods = self.tenant.and_then(deployment);
        Pods {
            desired: self.control_plane.spec.replicas,
            current: pods.and_then(|pods| pods.replicas).unwrap_or(0),
            updated: pods.and_then(|pods| pods.updated_replicas).unwrap_or(0),
        }
    }

    fn has_endpoint(self) -> bool {
        self.control_plane
            .spec
            .control_plane_endpoint
            .as_ref()
            .is_some_and(kamaji_api::controlplane::Endpoint::is_valid)
    }
}
