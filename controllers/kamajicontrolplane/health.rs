//! How the TenantControlPlane is, as the control plane's conditions need it. Pure.
//!
//! Our engine says so by conditions. An upstream Kamaji has none; there its phase and its counters speak
//! (contract.md 1.12).

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kamaji_api::{
    conditions::{Reason, TenantControlPlaneCondition as Tenant},
    tenantcontrolplane::{TenantControlPlane, VersionPhase},
};

use super::{fields, versions::deployment};
use crate::k8s::{conditions, problem::Problem};

/// Whether the API answers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Health {
    /// An authenticated request was answered.
    Up,
    /// Replicas are zero on purpose.
    Asleep,
    /// It does not; why.
    Down(Problem),
}

/// What a condition of the TenantControlPlane reports, with its fields named where the user sets them.
fn mirrored(condition: &Condition) -> Problem {
    let reported = if condition.message.is_empty() {
        format!("{} is {}", condition.type_, condition.status)
    } else {
        condition.message.clone()
    };
    let message = fields::told(&reported).unwrap_or_else(|| format!("TenantControlPlane: {reported}"));
    Problem::mirrored(&condition.reason, message)
}

/// Conditions that explain why the API does not answer, the deepest cause first.
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

/// Whether the API answers, and the first cause if it does not.
pub fn of(tenant: &TenantControlPlane) -> Health {
    if phase(tenant) == VersionPhase::Sleeping || tenant.spec.control_plane.deployment.replicas == 0 {
        return Health::Asleep;
    }
    if list(tenant).is_empty() {
        return of_phase(tenant);
    }
    if conditions::is_true(list(tenant), Tenant::Available.as_str()) {
        return Health::Up;
    }
    Health::Down(cause(tenant, &CAUSES).unwrap_or_else(|| {
        Problem::on_change(
            Reason::WaitingForTenantControlPlane,
            "TenantControlPlane: no request was answered yet",
        )
    }))
}

fn of_phase(tenant: &TenantControlPlane) -> Health {
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

/// Rights inside the tenant were read back: «initialized means it» (DESIGN 2.3). Known of our own engine only.
pub fn rights_in_place(tenant: &TenantControlPlane) -> Result<(), Problem> {
    if list(tenant).is_empty() {
        return Ok(());
    }
    holds(tenant, Tenant::TenantRBACReady)
}

/// The condition is True, or why not. Without conditions nothing speaks against it.
pub fn holds(tenant: &TenantControlPlane, condition: Tenant) -> Result<(), Problem> {
    if list(tenant).is_empty() {
        return Ok(());
    }
    match conditions::get(list(tenant), condition.as_str()) {
        Some(known) if known.status == "True" => Ok(()),
        Some(known) => Err(mirrored(known)),
        None => Err(Problem::on_change(
            Reason::WaitingForTenantControlPlane,
            format!("TenantControlPlane: {condition} is not known yet"),
        )),
    }
}

/// The condition, where it speaks against the tenant: False, or True for one of negative polarity.
pub fn against(tenant: &TenantControlPlane, condition: Tenant) -> Option<Problem> {
    cause(tenant, &[condition])
}

fn cause(tenant: &TenantControlPlane, among: &[Tenant]) -> Option<Problem> {
    among.iter().find_map(|condition| {
        let known = conditions::get(list(tenant), condition.as_str())?;
        let bad = if kamaji_api::conditions::is_negative(condition.as_str()) {
            known.status == "True"
        } else {
            known.status != "True"
        };
        bad.then(|| mirrored(known))
    })
}

/// Kamaji's phase.
pub fn phase(tenant: &TenantControlPlane) -> VersionPhase {
    tenant
        .status
        .as_ref()
        .and_then(|status| Some(status.kubernetes_resources.as_ref()?.version.as_ref()?.status))
        .unwrap_or_default()
}

fn list(tenant: &TenantControlPlane) -> &[Condition] {
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
    fn the_deepest_cause_is_named() {
        let mut tenant = example::running("v1.36.3");
        example::say(
            &mut tenant,
            Tenant::Available,
            "False",
            "NotAvailable",
            "no answer",
        );
        example::say(
            &mut tenant,
            Tenant::DataStoreReady,
            "False",
            "DataStoreNotFound",
            "DataStore \"nope\" does not exist",
        );
        assert_eq!(
            of(&tenant),
            Health::Down(Problem::on_change(
                Reason::DataStoreNotFound,
                "TenantControlPlane: DataStore \"nope\" does not exist",
            ))
        );
    }

    #[test]
    fn an_upstream_kamaji_without_conditions_is_read_by_phase_and_pods() {
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
            assert_eq!(of(&tenant) == Health::Up, up, "{phase:?}");
        }
        assert_eq!(rights_in_place(&tenant), Ok(()));
        set(&mut tenant, VersionPhase::Sleeping);
        assert_eq!(of(&tenant), Health::Asleep);
    }

    #[test]
    fn rights_count_only_when_read_back() {
        let mut tenant = example::running("v1.36.3");
        assert_eq!(rights_in_place(&tenant), Ok(()));
        example::say(
            &mut tenant,
            Tenant::TenantRBACReady,
            "False",
            "TenantRBACFailed",
            "no",
        );
        assert!(rights_in_place(&tenant).is_err());
    }
}
