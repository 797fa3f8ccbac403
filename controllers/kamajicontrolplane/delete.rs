//! Deletion (contract.md 1.9): workers first, since they are drained through the API that is hosted here; then the
//! TenantControlPlane, until it is gone with its data; then the finalizers. Missing objects never hold anything up.

use k8s_openapi::jiff::Timestamp;
use kamaji_api::{
    conditions::{Reason, TenantControlPlaneCondition as Tenant},
    controlplane::KamajiControlPlane,
    labels::{capi, go_provider, ours},
};
use kube::{Api, ResourceExt};

use super::{
    Context, authority, health,
    observe::{Observed, workers},
    progress::Progress,
    reconcile, secrets,
};
use crate::{
    k8s::{finalizer, problem::Problem},
    runtime::driver::{Outcome, Reconciled},
};

/// Finalizers that go at the end: ours, and the Go provider's on control planes taken over from it.
const FINALIZERS: [&str; 2] = [ours::CONTROL_PLANE_FINALIZER, go_provider::FINALIZER];

/// One pass over a control plane that is being deleted.
pub async fn reconcile(context: &Context, observed: &Observed, now: Timestamp) -> Reconciled {
    let control_plane = &*observed.control_plane;
    if !FINALIZERS.iter().any(|ours| finalizer::has(control_plane, ours)) {
        return Ok(Outcome::Done);
    }
    let waiting = match waiting_for(context, observed).await {
        Ok(waiting) => waiting,
        Err(problem) => return problem.settle(),
    };
    if let Some(cause) = waiting {
        let progress = Progress {
            deleting: Some(cause),
            ..Progress::default()
        };
        reconcile::write_status(context, observed, &progress, now).await?;
        return Ok(Outcome::Done);
    }
    if !moves(control_plane) {
        authority::forget(context, control_plane).await?;
    }
    let api = Api::namespaced(
        context.client.clone(),
        &control_plane.namespace().unwrap_or_default(),
    );
    finalizer::remove(&api, &context.control_planes, control_plane, &FINALIZERS).await?;
    Ok(Outcome::Done)
}

/// What the deletion waits for, and the request that starts it; `None` when nothing is left.
async fn waiting_for(context: &Context, observed: &Observed) -> Result<Option<Problem>, Problem> {
    let control_plane = &*observed.control_plane;
    let namespace = control_plane.namespace().unwrap_or_default();
    let cluster = observed
        .cluster_name
        .as_deref()
        .or_else(|| control_plane.labels().get(capi::CLUSTER_NAME).map(String::as_str));
    let workers = cluster
        .map(|cluster| workers(context, &namespace, cluster))
        .unwrap_or_default();
    if !workers.is_empty() {
        return Ok(Some(waiting_for_workers(&workers)));
    }
    let Some(row) = observed
        .tenant_row
        .as_ref()
        .filter(|row| secrets::is_ours(control_plane, row))
    else {
        return Ok(None);
    };
    if moves(control_plane) {
        // Nothing below may be collected with this object.
        context.applier.release(row).await?;
        return Ok(None);
    }
    if !row.deleting && context.applier.delete(row).await? {
        return Ok(None);
    }
    let cause = observed
        .tenant
        .as_ref()
        .and_then(|tenant| health::against(tenant, Tenant::Deleting))
        .unwrap_or_else(|| {
            Problem::on_change(
                Reason::WaitingForTenantControlPlaneDeletion,
                format!("TenantControlPlane {} still exists", row.key.name),
            )
        });
    Ok(Some(cause))
}

/// The control plane goes on elsewhere with the same data and keys.
fn moves(control_plane: &KamajiControlPlane) -> bool {
    control_plane.annotations().contains_key(capi::DELETE_FOR_MOVE)
}

fn waiting_for_workers(workers: &[String]) -> Problem {
    const SHOWN: usize = 3;
    let shown = workers.iter().take(SHOWN).cloned().collect::<Vec<_>>().join(", ");
    let more = workers.len().saturating_sub(SHOWN);
    let tail = if more == 0 {
        String::new()
    } else {
        format!(" and {more} more")
    };
    Problem::on_change(
        Reason::WaitingForWorkersDeletion,
        format!("the API serves until these are gone: {shown}{tail}"),
    )
}
