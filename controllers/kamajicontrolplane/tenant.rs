//! Reads a TenantControlPlane: phase, pods, version, health. Pure.
//!
//! Our hosting engine reports health as conditions. Upstream Kamaji reports none, so its phase and its counters are
//! read instead; the table is in `docs/src/reference/hosting.md`.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kamaji_api::{
    conditions::{
        KamajiControlPlaneCondition as Own, Reason, TenantControlPlaneCondition as Tenant, is_negative,
    },
    controlplane::KamajiControlPlane,
    tenantcontrolplane::{DeploymentStatus, TenantControlPlane, VersionPhase},
};

use super::field_paths;
use crate::k8s::{
    conditions::{self, Verdict},
    problem::Problem,
};

/// Whether the tenant's API server answers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Health {
    /// It answered an authenticated request.
    Up,
    /// `replicas` is 0.
    Asleep,
    /// It does not answer; why.
    Down(Problem),
}

/// Conditions that explain why the API server does not answer, in the order in which one causes the next.
const CAUSES: [Tenant; 8] = [
    Tenant::Deleting,
    Tenant::SpecValid,
    Tenant::DataStoreReady,
    Tenant::CertificatesAvailable,
    Tenant::EndpointReady,
    Tenant::KubeconfigsAvailable,
    Tenant::DeploymentReady,
    Tenant::Available,
];

/// Whether the API server answers, and the first cause if it does not.
pub fn health(tenant: &TenantControlPlane) -> Health {
    if phase(tenant) == VersionPhase::Sleeping || tenant.spec.control_plane.deployment.replicas == 0 {
        return Health::Asleep;
    }
    if reported(tenant).is_empty() {
        return health_by_phase(tenant);
    }
    if conditions::is_true(reported(tenant), Tenant::Available.as_str()) {
        return Health::Up;
    }
    let cause = CAUSES.iter().find_map(|condition| unhealthy(tenant, *condition));
    Health::Down(cause.unwrap_or_else(|| {
        Problem::on_change(
            Reason::WaitingForTenantControlPlane,
            "TenantControlPlane: its API server has not answered a request yet",
        )
    }))
}

fn health_by_phase(tenant: &TenantControlPlane) -> Health {
    let phase = phase(tenant);
    let ready = deployment(tenant)
        .and_then(|pods| pods.ready_replicas)
        .unwrap_or(0);
    let serving = ready > 0
        && !matches!(
            phase,
            VersionPhase::Provisioning | VersionPhase::NotReady | VersionPhase::Sleeping
        );
    if serving {
        Health::Up
    } else {
        Health::Down(Problem::on_change(
            Reason::WaitingForTenantControlPlane,
            format!(
                "TenantControlPlane: status is {}, {ready} pods are ready",
                phase.as_str()
            ),
        ))
    }
}

/// The RBAC rules of nodes and admins in the workload cluster were applied and read back. Only our engine reports it.
///
/// # Errors
/// Why they are not in place.
pub fn rbac_in_place(tenant: &TenantControlPlane) -> Result<(), Problem> {
    holds(tenant, Tenant::TenantRBACReady)
}

/// The condition is `True`. A TenantControlPlane without any condition, as upstream Kamaji has it, passes.
///
/// # Errors
/// Why the condition is not `True`.
pub fn holds(tenant: &TenantControlPlane, condition: Tenant) -> Result<(), Problem> {
    if reported(tenant).is_empty() {
        return Ok(());
    }
    match conditions::get(reported(tenant), condition.as_str()) {
        Some(known) if known.status == "True" => Ok(()),
        Some(known) => Err(mirrored(known)),
        None => Err(Problem::on_change(
            Reason::WaitingForTenantControlPlane,
            format!("TenantControlPlane: {condition} is not reported yet"),
        )),
    }
}

/// The condition, where it is reported and unhealthy: not `True`, or `True` for one of negative polarity.
pub fn unhealthy(tenant: &TenantControlPlane, condition: Tenant) -> Option<Problem> {
    let known = conditions::get(reported(tenant), condition.as_str())?;
    let is_true = known.status == "True";
    (is_true == is_negative(condition.as_str())).then(|| mirrored(known))
}

/// Whether the API server reaches the nodes, where the engine tried it.
pub fn tunnel(tenant: &TenantControlPlane) -> Option<Verdict> {
    passed_on(tenant, Tenant::TunnelReady, Own::TunnelReady)
}

/// What the engine reports about nodes of former endpoints; `None` where there is none.
pub fn former_endpoints(tenant: &TenantControlPlane) -> Option<Verdict> {
    passed_on(tenant, Tenant::FormerEndpointsServed, Own::FormerEndpointsServed)
}

/// A condition of the TenantControlPlane as one of the control plane.
fn passed_on(tenant: &TenantControlPlane, condition: Tenant, own: Own) -> Option<Verdict> {
    let known = conditions::get(reported(tenant), condition.as_str())?;
    let verdict = Verdict::repeated(own.as_str(), known);
    let message = field_paths::translate(&verdict.message).unwrap_or_else(|| verdict.message.clone());
    Some(Verdict { message, ..verdict })
}

/// What a condition of the TenantControlPlane reports, with its field paths rewritten to those the user sets.
fn mirrored(condition: &Condition) -> Problem {
    let message = if condition.message.is_empty() {
        format!("{} is {}", condition.type_, condition.status)
    } else {
        condition.message.clone()
    };
    let message =
        field_paths::translate(&message).unwrap_or_else(|| format!("TenantControlPlane: {message}"));
    Problem::mirrored(&condition.reason, message)
}

/// Kamaji's phase, `status.kubernetesResources.version.status`.
pub fn phase(tenant: &TenantControlPlane) -> VersionPhase {
    tenant
        .status
        .as_ref()
        .and_then(|status| Some(status.kubernetes_resources.as_ref()?.version.as_ref()?.status))
        .unwrap_or_default()
}

/// The Deployment of the control plane pods.
pub fn deployment(tenant: &TenantControlPlane) -> Option<&DeploymentStatus> {
    tenant
        .status
        .as_ref()?
        .kubernetes_resources
        .as_ref()?
        .deployment
        .as_ref()
}

/// The version that was last rolled out in full, in Kamaji's spelling. Kamaji reports a version as soon as a sleeping
/// tenant is asked for it. Until pods of it are ready, `status.version` of the KamajiControlPlane counts.
pub fn running_version(control_plane: &KamajiControlPlane, tenant: &TenantControlPlane) -> Option<String> {
    let reported = tenant
        .status
        .as_ref()?
        .kubernetes_resources
        .as_ref()?
        .version
        .as_ref()?
        .version
        .as_deref()
        .filter(|version| !version.is_empty())?;
    let rolled_out = match phase(tenant) {
        VersionPhase::Ready
        | VersionPhase::WriteLimited
        | VersionPhase::Migrating
        | VersionPhase::CertificateAuthorityRotating => true,
        VersionPhase::Unknown
        | VersionPhase::Provisioning
        | VersionPhase::Upgrading
        | VersionPhase::NotReady
        | VersionPhase::Sleeping => false,
    };
    let known = || control_plane.status.as_ref()?.version.as_deref();
    let known = if rolled_out { None } else { known() };
    Some(version_text(known.unwrap_or(reported)))
}

/// Kamaji's spelling of a version: with a leading `v`.
pub fn version_text(text: &str) -> String {
    if text.starts_with('v') {
        text.to_owned()
    } else {
        format!("v{text}")
    }
}

fn reported(tenant: &TenantControlPlane) -> &[Condition] {
    tenant
        .status
        .as_ref()
        .map(|status| status.conditions.as_slice())
        .unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kamajicontrolplane::example;

    #[test]
    fn the_first_cause_in_order_is_named() {
        let mut tenant = example::running("v1.36.3");
        example::report(
            &mut tenant,
            Tenant::Available,
            "False",
            "NotAvailable",
            "no answer",
        );
        example::report(
            &mut tenant,
            Tenant::DataStoreReady,
            "False",
            "DataStoreNotFound",
            "DataStore \"nope\" does not exist",
        );
        assert_eq!(
            health(&tenant),
            Health::Down(Problem::on_change(
                Reason::DataStoreNotFound,
                "TenantControlPlane: DataStore \"nope\" does not exist",
            ))
        );
    }

    #[test]
    fn an_upstream_kamaji_without_conditions_is_judged_by_phase_and_pods() {
        let mut tenant = example::running("v1.36.3");
        let set = |tenant: &mut TenantControlPlane, phase| {
            let status = tenant.status.get_or_insert_default();
            status.conditions.clear();
            if let Some(version) = status
                .kubernetes_resources
                .as_mut()
                .and_then(|r| r.version.as_mut())
            {
                version.status = phase;
            }
        };
        for (phase, up) in [
            (VersionPhase::Ready, true),
            (VersionPhase::Upgrading, true),
            (VersionPhase::WriteLimited, true),
            (VersionPhase::NotReady, false),
            (VersionPhase::Provisioning, false),
        ] {
            set(&mut tenant, phase);
            assert_eq!(health(&tenant) == Health::Up, up, "{phase:?}");
        }
        assert_eq!(rbac_in_place(&tenant), Ok(()));
        set(&mut tenant, VersionPhase::Sleeping);
        assert_eq!(health(&tenant), Health::Asleep);
    }

    #[test]
    fn rbac_counts_only_when_it_was_read_back() {
        let mut tenant = example::running("v1.36.3");
        assert_eq!(rbac_in_place(&tenant), Ok(()));
        example::report(
            &mut tenant,
            Tenant::TenantRBACReady,
            "False",
            "TenantRBACFailed",
            "no",
        );
        assert!(rbac_in_place(&tenant).is_err());
    }

    #[test]
    fn a_version_that_a_sleeping_tenant_is_only_asked_for_is_not_running() {
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
                running_version(&control_plane, &tenant).as_deref(),
                Some("v1.36.3"),
                "{phase:?}"
            );
        }
        set(&mut tenant, VersionPhase::Ready);
        assert_eq!(
            running_version(&control_plane, &tenant).as_deref(),
            Some("v1.37.0")
        );
        control_plane.status = None;
        set(&mut tenant, VersionPhase::Sleeping);
        assert_eq!(
            running_version(&control_plane, &tenant).as_deref(),
            Some("v1.37.0"),
            "moved or restored while asleep: the reported version is all there is"
        );
    }
}
