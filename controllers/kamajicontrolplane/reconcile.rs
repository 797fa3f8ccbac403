//! One pass over one control plane. Reads through [`super::observe`], decides through the pure files, writes through
//! the apply path, and writes the status on every way out.

use std::sync::Arc;

use k8s_openapi::jiff::Timestamp;
use kamaji_api::{
    conditions::Reason,
    labels::{field_manager, go_provider, ours},
};
use kube::Api;

use super::{
    Context, authority, delete,
    desired::{self, Wanted},
    endpoint, events,
    observe::{Observed, observe},
    progress::Progress,
    publish, secrets, status, validate,
};
use crate::{
    capi::cluster::Cluster,
    k8s::{
        apply,
        error::{ApiError, Class},
        finalizer,
        key::RootKey,
        manifest::Manifest,
        problem::{Problem, Retry},
        report::{self, Publisher, Step},
    },
    runtime::driver::{Outcome, Reconciled},
};

/// One pass over `key`.
///
/// # Errors
/// What the API server answered, where the condition does not say it better.
pub async fn reconcile(context: &Context, key: &RootKey) -> Reconciled {
    let Some(mut observed) = observe(context, key) else {
        return Ok(Outcome::Done);
    };
    let now = Timestamp::now();
    if observed.paused.is_some() {
        let progress = Progress {
            paused: observed.paused.clone(),
            ..Progress::default()
        };
        write_status(context, &observed, &progress, now).await?;
        return Ok(Outcome::Done);
    }
    if observed.control_plane.metadata.deletion_timestamp.is_some() {
        return delete::reconcile(context, &observed, now).await;
    }
    let api = Api::namespaced(context.client.clone(), &key.namespace);
    finalizer::add(
        &api,
        &context.control_planes,
        &observed.control_plane,
        ours::CONTROL_PLANE_FINALIZER,
    )
    .await?;
    if let Some(written) = context.control_planes.get(key) {
        let managers = &go_provider::FIELD_MANAGERS;
        apply::disown(&api, &context.control_planes, &*written, managers).await?;
    }
    let mut progress = Progress::default();
    let result = advance(context, &mut observed, &mut progress, now).await;
    if let Err(problem) = &result
        && problem.is_conflict()
    {
        return problem.clone().settle();
    }
    // A failed write outranks the failure of a status that could not be written either.
    let written = write_status(context, &observed, &progress, now).await;
    let outcome = result.or_else(Problem::settle)?;
    written?;
    Ok(outcome)
}

/// Writes the status, computed from the newest version of the control plane, and emits its Events.
///
/// # Errors
/// What the API server answered.
pub async fn write_status(
    context: &Context,
    observed: &Observed,
    progress: &Progress,
    now: Timestamp,
) -> Result<(), ApiError> {
    let key = RootKey::of(&*observed.control_plane);
    let publisher = Publisher {
        api: &Api::namespaced(context.client.clone(), &key.namespace),
        roots: &context.control_planes,
        events: &context.events,
        field_manager: field_manager::CONTROL_PLANE,
    };
    report::publish(publisher, &key, &events::RULES, |control_plane| {
        status::status(control_plane, observed.tenant.as_deref(), progress, now)
    })
    .await?;
    Ok(())
}

/// From the owner to the published endpoint, as far as it goes.
async fn advance(
    context: &Context,
    observed: &mut Observed,
    progress: &mut Progress,
    now: Timestamp,
) -> Result<Outcome, Problem> {
    let control_plane = observed.control_plane.clone();
    let Some(cluster_name) = observed.cluster_name.clone() else {
        progress.waiting = Some(Problem::on_change(
            Reason::WaitingForOwner,
            "no Cluster owns this object yet; a Cluster's spec.controlPlaneRef makes it the owner",
        ));
        return Ok(Outcome::Done);
    };
    let Some(cluster) = observed.cluster.clone() else {
        progress.waiting = Some(Problem::on_change(
            Reason::WaitingForCluster,
            format!("Cluster {cluster_name} does not exist"),
        ));
        return Ok(Outcome::Done);
    };
    progress.endpoint = endpoint::choose(&control_plane, &cluster, observed.tenant.as_deref());
    progress.spec = Step::of(&validate::validate(&control_plane, observed.tenant.as_deref()));
    if progress.spec.is_done() {
        if !authority::seed(context, observed, &cluster_name, progress).await? {
            // The user's Secret carries no label, so no watch tells of its repair.
            return Ok(Outcome::Waiting);
        }
        if !hand_on(context, observed, &cluster, progress, now).await? {
            return Ok(Outcome::Done);
        }
    }
    let outcome = publish::publish(context, observed, &cluster, progress).await?;
    let restart = desired::rollout_after(&control_plane).filter(|after| *after > now);
    let wait = restart.and_then(|after| std::time::Duration::try_from(after.duration_since(now)).ok());
    Ok(wait.map_or(outcome, |wait| outcome.or_after(wait)))
}

/// Applies the TenantControlPlane. `false` when there is none to go on with.
async fn hand_on(
    context: &Context,
    observed: &mut Observed,
    cluster: &Cluster,
    progress: &mut Progress,
    now: Timestamp,
) -> Result<bool, Problem> {
    let control_plane = observed.control_plane.clone();
    if let Some(row) = &observed.tenant_row {
        if !secrets::is_ours(&control_plane, row) {
            progress.tenant = Step::Failed(Problem::on_change(
                Reason::OwnedByAnother,
                format!(
                    "TenantControlPlane {} exists and is not owned by this object; delete it or rename this one",
                    row.key.name
                ),
            ));
            observed.tenant = None;
            return Ok(false);
        }
        if row.deleting {
            progress.tenant = Step::Failed(Problem::on_change(
                Reason::Deleting,
                "the TenantControlPlane is being deleted; it is made again when it is gone",
            ));
            return Ok(false);
        }
    }
    let made = desired::tenant(Wanted {
        control_plane: &control_plane,
        cluster,
        endpoint: progress.endpoint.as_ref(),
        tenant: observed.tenant.as_deref(),
        now,
    });
    let wanted = Manifest::of(&made)?;
    match context
        .applier
        .apply_over(&wanted, observed.tenant.as_deref())
        .await
    {
        Ok(applied) => {
            progress.tenant = Step::Done;
            progress.generation = applied.row.generation;
            // A new one is as it was applied until its first event comes: the status need not be written twice.
            observed.tenant.get_or_insert_with(|| Arc::new(made));
            Ok(true)
        }
        Err(error) => {
            let reason = match error.class() {
                Class::Invalid => Reason::InvalidSpec,
                Class::Denied => Reason::Forbidden,
                Class::Transient | Class::Conflict | Class::Foreign => Reason::InternalError,
            };
            let problem = Problem::from(error).because(reason);
            if problem.retry != Retry::Backoff(Class::Invalid) {
                progress.tenant = Step::Failed(problem.clone());
                return Err(problem);
            }
            // Nothing but a change of an object helps, and each of them is watched. What exists goes on.
            progress.spec = Step::Failed(problem);
            Ok(observed.tenant_row.is_some())
        }
    }
}
