//! The status of a TenantControlPlane, from what was observed. Pure.
//!
//! The paths are those of upstream Kamaji, with conditions beside them. A step that was not reached keeps its
//! condition; the condition of a step that was never reached is `Unknown`.

mod fields;
mod konnectivity;
mod secret;

use k8s_openapi::jiff::Timestamp;
use kamaji_api::{
    conditions::{Reason, TenantControlPlaneCondition as On},
    tenantcontrolplane::{TenantControlPlane, TenantControlPlaneStatus},
};

use super::{
    observe::Rows,
    observed::{Observed, TenantApi},
    rollout,
    tunnel::found::Found,
};
use crate::k8s::{
    conditions::{self, Verdict},
    problem::Problem,
    report::{Report, Step},
};

/// The status to write. `now` is recorded where something changed.
pub fn status(
    tenant: &TenantControlPlane,
    observed: &Observed,
    rows: &Rows,
    now: Timestamp,
) -> TenantControlPlaneStatus {
    let old = tenant.status.clone().unwrap_or_default();
    let mut report = Report::new(old.conditions.clone(), tenant.metadata.generation, now);
    let is_paused = observed.paused;
    report.set(flag(On::Paused, is_paused, Reason::Paused, Reason::NotPaused));
    if is_paused {
        return TenantControlPlaneStatus {
            conditions: report.into_conditions(),
            ..old
        };
    }
    let deleting = observed.deleting.as_ref();
    report.set(match deleting {
        Some(problem) => Verdict::yes(On::Deleting.as_str(), problem.reason, problem.message.clone()),
        None => Verdict::no(On::Deleting.as_str(), Reason::NotDeleting, ""),
    });
    if deleting.is_none() {
        steps(&mut report, observed);
        report.set(rollout::running(tenant, &observed.deployment, rows));
    }
    let answered = match &observed.tenant_api {
        Some(api) => api.answered.is_done() && api.rbac.is_done(),
        None => [On::Available, On::TenantRBACReady]
            .iter()
            .all(|on| conditions::is_true(report.conditions(), on.as_str())),
    };
    let new = fields::fields(old, tenant, observed, rows, answered, now);
    let asleep = tenant.spec.control_plane.deployment.replicas == 0;
    if asleep && deleting.is_none() {
        let why =
            "spec.controlPlane.deployment.replicas is 0; set it to 1 or more to start the control plane";
        report.set(Verdict::no(On::Available.as_str(), Reason::Sleeping, why));
    }
    let resources = new.kubernetes_resources.as_ref();
    report.set(rollout::rolling(
        observed.rendered.as_deref(),
        rows,
        resources.and_then(|resources| resources.version.as_ref()),
    ));
    report.set(summary(&report, asleep, deleting));
    TenantControlPlaneStatus {
        conditions: report.into_conditions(),
        ..new
    }
}

/// Conditions of the steps.
fn steps(report: &mut Report, observed: &Observed) {
    let Observed {
        spec,
        data_store,
        filling,
        endpoint,
        addresses,
        certificates,
        tenant_api,
        tunnel,
        unsupported,
        // `DeploymentReady` depends on the Deployment's status too.
        deployment: _,
        // No steps.
        paused: _,
        deleting: _,
        placed: _,
        torn_down: _,
        key_material: _,
        rendered: _,
    } = observed;
    match filling {
        Some(message) if data_store.is_done() => report.set(Verdict::yes(
            On::DataStoreReady.as_str(),
            Reason::DataStoreFilling,
            message.as_str(),
        )),
        _ => report.step(On::DataStoreReady.as_str(), data_store, Reason::DataStoreReady),
    }
    let mut step = |on: On, step: &Step, good| report.step(on.as_str(), step, good);
    step(On::SpecValid, spec, Reason::Valid);
    step(On::EndpointReady, endpoint, Reason::EndpointReady);
    step(
        On::CertificatesAvailable,
        certificates,
        Reason::CertificatesAvailable,
    );
    step(
        On::KubeconfigsAvailable,
        certificates,
        Reason::KubeconfigsAvailable,
    );
    let of = |part: fn(&TenantApi) -> &Step| tenant_api.as_ref().map_or(&Step::NotReached, part);
    step(On::Available, of(|api| &api.answered), Reason::Available);
    step(On::TenantRBACReady, of(|api| &api.rbac), Reason::TenantRBACReady);
    step(On::AddonsReady, of(|api| &api.addons), Reason::AddonsReady);
    if let Some(verdict) = tunnel.as_ref().map(Found::verdict) {
        report.set(verdict);
    }
    report.unsupported(unsupported.clone());
    // It exists only while there are former endpoints.
    match addresses.as_ref().map(|addresses| addresses.former.clone()) {
        Some(Some(verdict)) => report.set(verdict),
        Some(None) => report.remove(On::FormerEndpointsServed.as_str()),
        None => {}
    }
}

fn flag(on: On, holds: bool, yes: Reason, no: Reason) -> Verdict {
    if holds {
        Verdict::yes(on.as_str(), yes, "")
    } else {
        Verdict::no(on.as_str(), no, "")
    }
}

/// `Ready`: every other condition is as it should be. A rollout whose pods serve does not count.
fn summary(report: &Report, asleep: bool, deleting: Option<&Problem>) -> Verdict {
    let on = On::Ready.as_str();
    if deleting.is_some() {
        return Verdict::no(on, Reason::Deleting, "");
    }
    let parts = [
        On::SpecValid,
        On::DataStoreReady,
        On::EndpointReady,
        On::CertificatesAvailable,
        On::KubeconfigsAvailable,
        On::DeploymentReady,
        On::Available,
        On::TenantRBACReady,
        On::AddonsReady,
    ];
    let bad = parts
        .iter()
        .filter_map(|on| report.get(on.as_str()))
        .find(|c| c.status != "True" && c.reason != Reason::RollingOut.as_str());
    match bad {
        None => Verdict::yes(on, Reason::Ready, ""),
        Some(_) if asleep => Verdict::no(on, Reason::Sleeping, "the control plane has 0 replicas"),
        Some(c) if c.message.is_empty() => {
            Verdict::no(on, c.reason.clone(), format!("waiting for {}", c.type_))
        }
        Some(c) => Verdict::no(on, c.reason.clone(), format!("{}: {}", c.type_, c.message)),
    }
}
