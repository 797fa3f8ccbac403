//! One reconcile of one control plane: observe, validate, desired, apply, publish, and the status on every way out.

use std::sync::Arc;

use k8s_openapi::jiff::Timestamp;
use kamaji_api::{
    conditions::Reason,
    labels::{capi, field_manager, go_provider, ours},
};
use kube::{Api, ResourceExt as _};

use super::{
    Context,
    apply::{apply_tenant_control_plane, apply_user_ca, is_available},
    delete,
    desired::{self, Inputs},
    endpoint, events,
    handoff::hand_off,
    kept::{self, Keeper},
    observe::{self, Observed, observe},
    pause,
    progress::Progress,
    publish::{publish, publish_endpoint},
    status,
    validate::{hosted_here, validate},
};
use crate::{
    capi::cluster::Cluster,
    k8s::{
        error::ApiError,
        finalizer,
        key::RootKey,
        problem::Problem,
        report::{self, Publisher, Step},
        root,
    },
    runtime::driver::{Outcome, Reconciled},
};

/// Reconciles `key`.
///
/// # Errors
/// What the API server answered, where the status does not report it better.
pub async fn reconcile(context: &Context, key: &RootKey) -> Reconciled {
    let Some(mut observed) = observe(context, key) else {
        context.fingerprints.forget(key);
        context.answers.forget(key);
        context.handoffs.forget(key);
        return Ok(Outcome::Done);
    };
    let now = Timestamp::now();
    let mut progress = Progress {
        paused: observed.paused.clone(),
        ..Progress::default()
    };
    progress.elsewhere = hosted_here(&observed.control_plane).err();
    if progress.elsewhere.is_none() {
        pause::hand_down(context, &mut observed).await?;
    }
    let result = if progress.paused.is_some() || progress.elsewhere.is_some() {
        Ok(Outcome::Done)
    } else if observed.control_plane.metadata.deletion_timestamp.is_some() {
        progress.deleting = match delete::delete(context, &observed).await {
            Ok(Some(problem)) => Some(problem),
            Ok(None) => {
                context.fingerprints.forget(key);
                context.answers.forget(key);
                context.handoffs.forget(key);
                return Ok(Outcome::Done);
            }
            Err(problem) => return problem.settle(),
        };
        Ok(Outcome::Done)
    } else {
        claim(context, key, &observed).await?;
        bring_up(context, &mut observed, &mut progress, now).await
    };
    if let Err(problem) = &result
        && problem.is_conflict()
    {
        return problem.clone().settle();
    }
    // A failed write outranks the failure of a status that could not be written either.
    let written = write_status(context, key, &observed, &progress, now).await;
    let outcome = result.or_else(Problem::settle)?;
    written?;
    Ok(outcome)
}

/// Adds the finalizer and the annotation that blocks `clusterctl move`, and takes over the fields of the spec that the Go
/// provider owned. A move copies objects and no data: at the target an engine would make an empty control plane.
async fn claim(context: &Context, key: &RootKey, observed: &Observed) -> Result<(), ApiError> {
    let api = Api::namespaced(context.client.clone(), &key.namespace);
    let roots = &context.control_planes;
    let blocked = observed
        .control_plane
        .annotations()
        .contains_key(capi::BLOCK_MOVE);
    let block: &[_] = if blocked { &[] } else { &[(capi::BLOCK_MOVE, "")] };
    finalizer::claim(
        &api,
        roots,
        &*observed.control_plane,
        ours::CONTROL_PLANE_FINALIZER,
        block,
    )
    .await?;
    match roots.get(key) {
        Some(written) => root::disown(&api, roots, &*written, &go_provider::FIELD_MANAGERS).await,
        None => Ok(()),
    }
}

/// From the owner to the published endpoint, as far as it goes; every step is reported in `progress`.
async fn bring_up(
    context: &Context,
    observed: &mut Observed,
    progress: &mut Progress,
    now: Timestamp,
) -> Result<Outcome, Problem> {
    let control_plane = observed.control_plane.clone();
    let (name, cluster) = owning_cluster(observed).inspect_err(|problem| {
        progress.waiting = Some(problem.clone());
    })?;
    let keeper = Keeper::of(&control_plane, observed.tenant.as_deref(), context.hosting);
    progress.endpoint = endpoint::choose(&control_plane, &cluster, observed.tenant.as_deref())
        .map(|choice| kept::with_refused(choice, &control_plane, &cluster, &keeper));
    progress.spec = Step::of(&validate(&control_plane, observed.tenant.as_deref()));
    if progress.spec.is_done()
        && let Err(problem) = is_available(observed)
    {
        if problem.reason == Reason::OwnedByAnother {
            observed.tenant = None;
        }
        progress.tenant = Step::Failed(problem.clone());
        return Err(problem);
    }
    let endpoint = progress.endpoint.clone();
    let address = endpoint.as_ref().map(|choice| &choice.endpoint);
    let secrets = observe::secrets(context, observed, &name, address).await;
    let mut ca_is_copied = false;
    if observed.tenant.is_none() && control_plane.spec.control_plane_endpoint.is_some() {
        // Before there is a tenant, only a user can have set it. Later its address would tell nothing about that.
        publish_endpoint(context, observed, progress).await?;
        if let Some(choice) = &mut progress.endpoint {
            choice.write = false;
        }
    }
    if progress.spec.is_done() {
        ca_is_copied = apply_user_ca(context, &secrets.user_ca, &name)
            .await
            .inspect_err(|problem| {
                if !problem.is_failure() {
                    progress.ca = Step::Failed(problem.clone());
                }
            })?;
        let desired = desired::tenant(Inputs {
            control_plane: &control_plane,
            cluster: &cluster,
            endpoint: endpoint.as_ref(),
            keeper: &keeper,
            tenant: observed.tenant.as_deref(),
            now,
        });
        let applied = apply_tenant_control_plane(context, observed, desired, progress).await?;
        // A new one is as it was applied until its first event comes, which saves a second write of the status.
        observed.tenant = observed.tenant.take().or_else(|| applied.map(Arc::new));
    }
    let outcome = publish(context, observed, &secrets, &name, ca_is_copied, progress).await?;
    // Boxed: it is due once in the life of a control plane, and larger than all the rest.
    progress.handoff = Box::pin(hand_off(context, observed, &cluster)).await;
    if let Some(refused) = progress.spec.problem() {
        return Err(refused.clone());
    }
    progress.reach = observe::reach(context, observed, &name, progress.endpoint.as_ref()).await?;
    let restart = desired::rollout_after(&control_plane).filter(|after| *after > now);
    let restart = restart.and_then(|after| std::time::Duration::try_from(after.duration_since(now)).ok());
    let again = [progress.reach.again(), progress.handoff.again()];
    let wait = restart.into_iter().chain(again.into_iter().flatten()).min();
    Ok(wait.map_or(outcome, |wait| outcome.or_after(wait)))
}

/// Name and object of the owning Cluster.
fn owning_cluster(observed: &Observed) -> Result<(String, Arc<Cluster>), Problem> {
    let name = observed.cluster_name.clone().ok_or_else(|| {
        Problem::on_change(
            Reason::WaitingForOwner,
            "no Cluster owns this object yet; a Cluster's spec.controlPlaneRef makes it the owner",
        )
    })?;
    match observed.cluster.clone() {
        Some(cluster) => Ok((name, cluster)),
        None => Err(Problem::on_change(
            Reason::WaitingForCluster,
            format!("Cluster {name} does not exist"),
        )),
    }
}

/// Writes the status, computed from the newest version of the control plane, and emits its Events.
async fn write_status(
    context: &Context,
    key: &RootKey,
    observed: &Observed,
    progress: &Progress,
    now: Timestamp,
) -> Result<(), ApiError> {
    let publisher = Publisher {
        api: &Api::namespaced(context.client.clone(), &key.namespace),
        roots: &context.control_planes,
        events: &context.events,
        field_manager: field_manager::CONTROL_PLANE,
    };
    report::publish(publisher, key, &events::RULES, |control_plane| {
        status::status(control_plane, observed.tenant.as_deref(), progress, now)
    })
    .await?;
    Ok(())
}
