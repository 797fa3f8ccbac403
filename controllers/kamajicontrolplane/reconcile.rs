//! One pass over one control plane. Reads through [`super::observe`], decides through the pure files, writes through
//! the apply path, and writes the status on every way out.

use std::sync::Arc;

use k8s_openapi::{api::core::v1::Secret, jiff::Timestamp};
use kamaji_api::{
    conditions::Reason,
    controlplane::{Endpoint, KamajiControlPlane},
    labels::{field_manager, ours},
};
use kube::{Api, Resource, ResourceExt};
use serde_json::json;

use super::{
    Context, TENANT, delete,
    desired::{self, Wanted},
    endpoint,
    health::Cause,
    observe::{self, Observed, observe},
    secrets::{self, Known, Part, Step},
    status::{self, Progress},
    validate,
};
use crate::{
    capi::cluster::Cluster,
    k8s::{
        apply,
        error::{ApiError, Class},
        finalizer,
        key::RootKey,
        manifest::Manifest,
        row::Row,
        status as object_status,
    },
    pki::material,
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
        for news in status::news(old, &new) {
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
        progress.invalid = Some(Cause::new(invalid.reason, invalid.message));
    } else if !seed(context, observed, &cluster_name, progress).await?
        || !hand_on(context, observed, &cluster, progress, now).await?
    {
        return Ok(Outcome::Done);
    }
    publish(context, observed, &cluster, progress).await?;
    let restart = desired::rollout_after(&control_plane).filter(|after| *after > now);
    let wait = restart.and_then(|after| std::time::Duration::try_from(after.duration_since(now)).ok());
    Ok(wait.map_or(Outcome::Done, Outcome::After))
}

/// Hands a user's `<cluster>-ca` to the engine, before the tenant is made, where the engine looks for another name.
/// `false` when the tenant must not be made yet.
async fn seed(
    context: &Context,
    observed: &Observed,
    cluster: &str,
    progress: &mut Progress,
) -> Result<bool, Failure> {
    let control_plane = &*observed.control_plane;
    let rows = observe::rows(context, control_plane, cluster, Part::Authority);
    if rows.same || observed.tenant_row.is_some() || rows.source.is_some() {
        return Ok(true);
    }
    if rows
        .target
        .as_ref()
        .is_some_and(|row| secrets::is_ours(control_plane, row))
    {
        return Ok(true);
    }
    let namespace = control_plane.namespace().unwrap_or_default();
    // A Secret without the Cluster's label is not in the index: this is the one question that has to be asked.
    let Some(given) = observe::secret(context, &namespace, &Part::Authority.name(cluster)).await? else {
        return Ok(true);
    };
    let made = match secrets::seed(control_plane, cluster, &given) {
        Ok(made) => made,
        Err(error) => {
            progress.authority = Some(unfit(&error));
            return Ok(false);
        }
    };
    match context.applier.create(&manifest("Secret", &made)?).await {
        Ok(_) => Ok(true),
        Err(error) if error.is_already_exists() => Ok(true),
        Err(error) => Err(error.into()),
    }
}

/// Why a given authority cannot be used.
fn unfit(error: &material::Error) -> Cause {
    let reason = match error {
        material::Error::KeyMismatch { .. } => Reason::CertificateAuthorityKeyMismatch,
        _ => Reason::CertificateAuthorityInvalid,
    };
    Cause::new(reason, error.to_string())
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
            progress.tenant = Some(Cause::new(
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
            progress.tenant = Some(Cause::new(
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
        Ok(_) => {
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
                progress.tenant = Some(cause);
                return Err(error.into());
            }
            // Nothing but a change of an object helps, and each of them is watched. What exists goes on.
            progress.invalid = Some(cause);
            Ok(observed.tenant_row.is_some())
        }
    }
}

/// Secrets of the contract, then the endpoint (contract.md 0, rule 6).
async fn publish(
    context: &Context,
    observed: &mut Observed,
    cluster: &Cluster,
    progress: &mut Progress,
) -> Result<(), Failure> {
    let mut failed = None;
    for part in Part::ALL {
        let state = secret(
            context,
            observed,
            cluster,
            part,
            progress.endpoint.as_ref().map(|c| &c.endpoint),
        )
        .await;
        let cause = match state {
            Ok(cause) => cause,
            Err(error) => {
                let cause = Cause::new(Reason::InternalError, error.to_string());
                failed.get_or_insert(error);
                Some(cause)
            }
        };
        match part {
            Part::Authority => progress.authority = cause,
            Part::Kubeconfig => progress.kubeconfig = cause,
            Part::Bootstrap => progress.bootstrap = cause,
        }
    }
    if let Some(error) = failed {
        return Err(error);
    }
    let Some(choice) = progress.endpoint.as_ref().filter(|choice| choice.write) else {
        return Ok(());
    };
    if progress.authority.is_none() && progress.kubeconfig.is_none() {
        let control_plane = &*observed.control_plane;
        let api = Api::namespaced(
            context.client.clone(),
            &control_plane.namespace().unwrap_or_default(),
        );
        // The one path of the spec that is ours (contract.md 0, rule 8).
        apply::root_spec(
            &api,
            &context.control_planes,
            control_plane,
            json!({ "controlPlaneEndpoint": choice.endpoint }),
            field_manager::CONTROL_PLANE,
        )
        .await?;
    }
    Ok(())
}

/// Brings one Secret of the contract about. Returns why it is not in place.
async fn secret(
    context: &Context,
    observed: &Observed,
    cluster: &Cluster,
    part: Part,
    endpoint: Option<&Endpoint>,
) -> Result<Option<Cause>, Failure> {
    let control_plane = &*observed.control_plane;
    let name = cluster.name_any();
    let rows = observe::rows(context, control_plane, &name, part);
    let key = secrets::admin_key(control_plane);
    let known = Known {
        source: rows.source.as_deref(),
        target: rows.target.as_deref(),
        same: rows.same,
        untouched: rows.untouched,
    };
    let (source, new) =
        match secrets::step(control_plane, known, &secrets::inputs(part, &name, endpoint, key)) {
            Step::Keep | Step::Theirs => return Ok(None),
            Step::WaitForSource => {
                let unlabelled = rows.same && secrets::is_in_use(part, observed.tenant.as_deref());
                let row = if unlabelled {
                    observe::unlabelled(context, control_plane, &part.name(&name)).await?
                } else {
                    None
                };
                let Some(row) = row else {
                    return Ok(Some(waiting(part, control_plane)));
                };
                label(context, &row, &name).await?;
                return Ok(None);
            }
            Step::Label => {
                if let Some(row) = &rows.source {
                    label(context, row, &name).await?;
                }
                return Ok(None);
            }
            Step::Copy { source, new } => (source, new),
        };
    let namespace = control_plane.namespace().unwrap_or_default();
    let from = part.source(&control_plane.name_any());
    let data = match (part, endpoint) {
        (Part::Kubeconfig | Part::Bootstrap, None) => return Ok(Some(waiting(part, control_plane))),
        (_, endpoint) => {
            let Some(from) = observe::secret(context, &namespace, &from).await? else {
                return Ok(Some(waiting(part, control_plane)));
            };
            match (part, endpoint) {
                (Part::Kubeconfig, Some(endpoint)) => secrets::admin_data(&from, key, &name, endpoint),
                (Part::Bootstrap, Some(endpoint)) => secrets::bootstrap_data(&from, &name, endpoint),
                _ => secrets::authority_data(&from),
            }
        }
    };
    let data = match data {
        Ok(data) => data,
        Err(error) => return Ok(Some(Cause::new(Reason::WaitingForKubeconfig, error.to_string()))),
    };
    let made = manifest("Secret", &secrets::copy(control_plane, &name, part, source, data))?;
    place(context, control_plane, &made, new).await
}

/// Makes a Secret visible to core.
async fn label(context: &Context, row: &Row, cluster: &str) -> Result<(), ApiError> {
    context
        .applier
        .label::<Secret>(row, &secrets::cluster_label(cluster))
        .await
}

/// Writes a copy. What exists without being ours is left alone: it is somebody's own.
async fn place(
    context: &Context,
    control_plane: &KamajiControlPlane,
    made: &Manifest,
    new: bool,
) -> Result<Option<Cause>, Failure> {
    let written = if new {
        context.applier.create(made).await
    } else {
        context.applier.apply(made).await
    };
    match written {
        Ok(_) => Ok(None),
        Err(error) if new && error.is_already_exists() => taken(context, control_plane, made).await,
        // Its type or its owner cannot be changed: it is an old one of ours.
        Err(error) if !new && error.class() == Class::Invalid => {
            let Some(row) = context.index.get(&made.key) else {
                return Err(error.into());
            };
            context.applier.delete::<Secret>(&row).await?;
            context.applier.create(made).await?;
            Ok(None)
        }
        Err(error) => Err(error.into()),
    }
}

/// A Secret of that name exists and the index does not know it: it carries no label of the Cluster.
async fn taken(
    context: &Context,
    control_plane: &KamajiControlPlane,
    made: &Manifest,
) -> Result<Option<Cause>, Failure> {
    let Some(known) = observe::secret(context, &made.key.namespace, &made.key.name).await? else {
        return Err(Failure::new(Class::Conflict, "a Secret came and went"));
    };
    let ours = known
        .owner_references()
        .iter()
        .any(|owner| owner.kind == KamajiControlPlane::kind(&()) && owner.name == control_plane.name_any());
    if ours {
        context.applier.apply(made).await?;
    }
    Ok(None)
}

fn waiting(part: Part, control_plane: &KamajiControlPlane) -> Cause {
    let reason = match part {
        Part::Authority => Reason::WaitingForCertificates,
        Part::Kubeconfig | Part::Bootstrap => Reason::WaitingForKubeconfig,
    };
    Cause::new(
        reason,
        format!(
            "the TenantControlPlane has not made Secret {} yet",
            part.source(&control_plane.name_any())
        ),
    )
}

fn manifest<K>(kind: &'static str, object: &K) -> Result<Manifest, Failure>
where
    K: Resource<DynamicType = ()> + serde::Serialize,
{
    Manifest::new(kind, object).map_err(|error| Failure::new(Class::Invalid, error))
}
