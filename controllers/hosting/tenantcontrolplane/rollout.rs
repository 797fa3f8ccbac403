//! What the conditions of a tenant say of its pods.

use kamaji_api::conditions::{Reason, TenantControlPlaneCondition as On};
use kamaji_api::tenantcontrolplane::{KubernetesResourcesStatus, TenantControlPlane, VersionPhase};

use super::observed::{Observed, Rows};
use super::phase;
use crate::k8s::conditions::{self, Verdict};

/// `RollingOut`: pods or version differ from what is asked for.
pub fn rolling(
    observed: &Observed,
    rows: Rows<'_>,
    resources: Option<&KubernetesResourcesStatus>,
) -> Verdict {
    let on = On::RollingOut.as_str();
    let version = resources.and_then(|r| r.version.as_ref());
    match (rows.deployment, version.map(|v| v.status)) {
        (Some(row), Some(phase)) if !phase::complete(row) => {
            let reason = match phase {
                VersionPhase::Upgrading => Reason::Upgrading,
                VersionPhase::Provisioning => Reason::Provisioning,
                _ => Reason::RollingOut,
            };
            let to = observed.rendered.as_deref().unwrap_or_default();
            let message = match (reason, version.and_then(|v| v.version.as_deref())) {
                (Reason::Upgrading, Some(from)) => format!("from {from} to {to}"),
                _ => String::new(),
            };
            Verdict::yes(on, reason, message)
        }
        _ => Verdict::no(on, Reason::NotRollingOut, ""),
    }
}

/// `DeploymentReady`: the pods run what is asked for.
pub fn running(tenant: &TenantControlPlane, observed: &Observed, rows: Rows<'_>) -> Verdict {
    let on = On::DeploymentReady.as_str();
    if let Some(Err(problem)) = &observed.deployment {
        return Verdict::no(on, problem.reason, problem.message.clone());
    }
    if tenant.spec.control_plane.deployment.replicas == 0 {
        return Verdict::yes(on, Reason::Sleeping, "");
    }
    match rows.deployment {
        None => Verdict::no(on, Reason::Pending, "there is no Deployment yet"),
        Some(row) if phase::complete(row) => Verdict::yes(on, Reason::DeploymentReady, ""),
        Some(row) => {
            let serving = phase::facts(row).is_some_and(|f| f.status.ready_replicas.unwrap_or(0) > 0);
            let reason = if serving {
                Reason::RollingOut
            } else {
                Reason::WaitingForPods
            };
            let known = tenant
                .status
                .as_ref()
                .map_or(&[][..], |status| &status.conditions);
            // Between two tries a container seems well.
            let told = conditions::get(known, on).filter(|c| {
                c.reason == Reason::PodsFailing.as_str()
                    && c.observed_generation == tenant.metadata.generation
            });
            match rows.trouble.or_else(|| told.map(|c| c.message.as_str())) {
                Some(trouble) => Verdict::no(on, Reason::PodsFailing, trouble),
                None => Verdict::no(on, reason, "not every pod is ready and of the current template"),
            }
        }
    }
}
