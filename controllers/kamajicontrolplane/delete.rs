//! Deletion: first the workers, because they are drained through the API server that is hosted here; then the
//! TenantControlPlane, until it is gone with its data; then the finalizers. A missing object never blocks a deletion.

use k8s_openapi::api::core::v1::Secret;
use kamaji_api::{
    conditions::{Reason, TenantControlPlaneCondition as Tenant},
    controlplane::KamajiControlPlane,
    labels::{capi, field_manager, go_provider, ours},
};
use kube::{Api, ResourceExt};

use super::{
    Context,
    observe::{Observed, workers},
    secrets::{self, Part},
    tenant,
};
use crate::k8s::{error::ApiError, finalizer, problem::Problem};

/// Finalizers that are removed at the end: ours, and the Go provider's on control planes taken over from it.
const FINALIZERS: [&str; 2] = [ours::CONTROL_PLANE_FINALIZER, go_provider::FINALIZER];

/// Takes the next step of a deletion. Returns what it waits for; `None` when nothing is left to do.
///
/// # Errors
/// What the API server answered.
pub async fn delete(context: &Context, observed: &Observed) -> Result<Option<Problem>, Problem> {
    let control_plane = &*observed.control_plane;
    if !FINALIZERS.iter().any(|ours| finalizer::has(control_plane, ours)) {
        return Ok(None);
    }
    if let Some(problem) = waiting_for(context, observed).await? {
        return Ok(Some(problem));
    }
    if !is_moved(control_plane) {
        delete_ca_copy(context, control_plane).await?;
    }
    let api = Api::namespaced(
        context.client.clone(),
        &control_plane.namespace().unwrap_or_default(),
    );
    finalizer::remove(&api, &context.control_planes, control_plane, &FINALIZERS).await?;
    Ok(None)
}

/// What the deletion waits for, after the request that starts it; `None` when nothing is left.
async fn waiting_for(context: &Context, observed: &Observed) -> Result<Option<Problem>, ApiError> {
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
    if is_moved(control_plane) {
        // Without the owner reference nothing is garbage-collected with this object.
        context.applier.release(row).await?;
        return Ok(None);
    }
    if !row.deleting && context.applier.delete(row).await? {
        return Ok(None);
    }
    let problem = observed
        .tenant
        .as_ref()
        .and_then(|tenant| tenant::unhealthy(tenant, Tenant::Deleting))
        .unwrap_or_else(|| {
            Problem::on_change(
                Reason::WaitingForTenantControlPlaneDeletion,
                format!("TenantControlPlane {} still exists", row.key.name),
            )
        });
    Ok(Some(problem))
}

/// Deletes the copy of a user's CA, which has no owner reference.
async fn delete_ca_copy(context: &Context, control_plane: &KamajiControlPlane) -> Result<(), ApiError> {
    let namespace = control_plane.namespace().unwrap_or_default();
    let name = Part::Ca.source(&control_plane.name_any());
    let Some(row) = context.index.find::<Secret>(&namespace, &name) else {
        return Ok(());
    };
    let managed_here = row
        .labels
        .get(ours::MANAGED_BY)
        .is_some_and(|by| by == field_manager::CONTROL_PLANE);
    if managed_here && row.owner.is_none() && !row.deleting {
        context.applier.delete(&row).await?;
    }
    Ok(())
}

/// `clusterctl move` deletes the object because it was created in another cluster, with the same data and keys.
fn is_moved(control_plane: &KamajiControlPlane) -> bool {
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
        format!("the API server keeps serving until these are gone: {shown}{tail}"),
    )
}
