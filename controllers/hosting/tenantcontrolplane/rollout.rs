//! Conditions about the pods of a tenant. Pure.

use kamaji_api::{
    conditions::{Reason, TenantControlPlaneCondition as On},
    tenantcontrolplane::{TenantControlPlane, VersionPhase, VersionStatus},
};

use super::{observe::Rows, phase};
use crate::k8s::{
    conditions::{self, Verdict},
    report::Step,
};

/// `RollingOut`: pods or version differ from the desired ones.
pub fn rolling(rendered: Option<&str>, rows: &Rows, version: Option<&VersionStatus>) -> Verdict {
    let on = On::RollingOut.as_str();
    match (rows.deployment.as_deref(), version.map(|v| v.status)) {
        (Some(row), Some(phase)) if !phase::complete(row) => {
            let reason = match phase {
                VersionPhase::Upgrading => Reason::Upgrading,
                VersionPhase::Provisioning => Reason::Provisioning,
                _ => Reason::RollingOut,
            };
            let to = rendered.unwrap_or_default();
            let message = match (reason, version.and_then(|v| v.version.as_deref())) {
                (Reason::Upgrading, Some(from)) => format!("from {from} to {to}"),
                _ => String::new(),
            };
            Verdict::yes(on, reason, message)
        }
        _ => Verdict::no(on, Reason::NotRollingOut, ""),
    }
}

/// `DeploymentReady`: the pods run the desired version and settings.
pub fn running(tenant: &TenantControlPlane, deployment: &Step, rows: &Rows) -> Verdict {
    let on = On::DeploymentReady.as_str();
    if let Some(problem) = deployment.problem() {
        return Verdict::no(on, problem.reason, problem.message.clone());
    }
    if tenant.spec.control_plane.deployment.replicas == 0 {
        return Verdict::yes(on, Reason::Sleeping, "");
    }
    match rows.deployment.as_deref() {
        None => Verdict::no(on, Reason::Pending, "there is no Deployment yet"),
        Some(row) if phase::complete(row) => Verdict::yes(on, Reason::DeploymentReady, ""),
        Some(row) => {
            let reason = if phase::is_serving(row) {
                Reason::RollingOut
            } else {
                Reason::WaitingForPods
            };
            let known = tenant
                .status
                .as_ref()
                .map_or(&[][..], |status| &status.conditions);
            // Between two restarts a failing container looks healthy: the failure stays reported.
            let reported = conditions::get(known, on).filter(|c| {
                c.reason == Reason::PodsFailing.as_str()
                    && c.observed_generation == tenant.metadata.generation
            });
            match rows
                .trouble
                .as_deref()
                .or_else(|| reported.map(|c| c.message.as_str()))
            {
                Some(trouble) => Verdict::no(on, Reason::PodsFailing, trouble),
                None => Verdict::no(on, reason, "not every pod is ready and of the current template"),
            }
        }
    }
}
