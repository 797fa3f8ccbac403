//! One pass over one control plane. Reads through [`super::observe`], decides through the pure files, writes through
//! the apply path, and writes the status on every way out.

use std::sync::Arc;

use k8s_openapi::jiff::Timestamp;
use kamaji_api::{
    conditions::Reason,
    labels::{field_manager, go_provider, ours},
};
use kube::{Api, Resource};

use super::{
    Context, TENANT, authority, delete,
    desired::{self, Wanted},
    endpoint,
    health::Cause,
    news,
    observe::{Observed, observe},
    progress::{Finding, Progress},
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
        status as object_status,
    },
    runtime::driver::{Failure, Outcome, Reconciled},
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
    if let Err(failure) = &result
        && failure.class == Class::Conflict
    {
        return result;
    }
    // A failed write outranks the failure of a status that could not be written either.
    let written = write_status(context, &observed, &progress, now).await;
    let outcome = result?;
    written?;
    Ok(outcome)
}

/// Writes the status and publishes what is new about it.
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
    // The pass may have written the root: its newest version counts.
    let control_plane = context
        .control_planes
        .get(&key)
        .unwrap_or_else(|| observed.control_plane.clone());
    let old = control_plane.status.as_ref();
    let new = status::status(&control_plane, observed.tenant.as_deref(), progress, now);
    let api = Api::namespaced(context.client.clone(), &key.namespace);
    let sent = object_status::apply(
        &api,
        &context.control_planes,
        &*control_plane,
        old,
        &new,
        field_manager::CONTROL_PLANE,
    )
    .await?;
    if sent {
        for news in news::news(old, &new) {
            if news.warning {
                context
                    .events
                    .warn(&*control_plane, &news.reason, &news.note)
                    .await;
            } else {
                context
                    .events
                    .note(&*control_plane, &news.reason, &news.note)
                    .await;
            }
        }
    }
    Ok(())
}

/// From the owner to the published endpoint, as far as it goes.
async fn advance(
    context: &Context,
    observed: &mut Observed,
    progress: &mut Progress,
    now: Timestamp,
) -> Reconciled {
    let control_plane = observed.control_plane.clone();
    let Some(cluster_name) = observed.cluster_name.clone() else {
        progress.waiting = Some(Cause::new(
            Reason::WaitingForOwner,
            "no Cluster owns this object yet; a Cluster's spec.controlPlaneRef makes it the owner",
        ));
        return Ok(Outcome::Done);
    };
    let Some(cluster) = observed.cluster.clone() else {
        progress.waiting = Some(Cause::new(
            Reason::WaitingForCluster,
            format!("Cluster {cluster_name} does not exist"),
        ));
        return Ok(Outcome::Done);
    };
    progress.endpoint = endpoint::choose(&control_plane, &cluster, observed.tenant.as_deref());
    if let Err(invalid) = validate::validate(&control_plane, observed.tenant.as_deref()) {
        progress.spec = Finding::Missing(Cause::new(invalid.reason, invalid.message));
    } else {
        progress.spec = Finding::InPlace;
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
    Ok(match (outcome, wait) {
        (Outcome::Done, Some(wait)) => Outcome::After(wait),
        (outcome, _) => outcome,
    })
}

/// Applies the TenantControlPlane. `false` when there is none to go on with.
async fn hand_on(
    context: &Context,
    observed: &mut Observed,
    cluster: &Cluster,
    progress: &mut Progress,
    now: Timestamp,
) -> Result<bool, Failure> {
    let control_plane = observed.control_plane.clone();
    if let Some(row) = &observed.tenant_row {
        if !secrets::is_ours(&control_plane, row) {
            progress.tenant = Finding::Missing(Cause::new(
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
            progress.tenant = Finding::Missing(Cause::new(
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
    let wanted = manifest(TENANT, &made)?;
    match context
        .applier
        .apply_over(&wanted, observed.tenant.as_deref())
        .await
    {
        Ok(applied) => {
            progress.tenant = Finding::InPlace;
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
            let cause = Cause::new(reason, error.to_string());
            if error.class() != Class::Invalid {
                progress.tenant = Finding::Missing(cause);
                return Err(error.into());
            }
            // Nothing but a change of an object helps, and each of them is watched. What exists goes on.
            progress.spec = Finding::Missing(cause);
            Ok(observed.tenant_row.is_some())
        }
    }
}

/// An object to apply.
pub fn manifest<K>(kind: &'static str, object: &K) -> Result<Manifest, Failure>
where
    K: Resource<DynamicType = ()> + serde::Serialize,
{
    Manifest::new(kind, object).map_err(|error| Failure::new(Class::Invalid, error))
}
