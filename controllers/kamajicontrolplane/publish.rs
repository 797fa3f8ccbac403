//! Publishes what Cluster API waits for: first the Secrets of the contract, then the endpoint. Cluster API requires this
//! order: whoever observes the endpoint finds the kubeconfig.

use kamaji_api::{
    conditions::Reason,
    controlplane::KamajiControlPlane,
    labels::{field_manager, ours},
};
use kube::{Api, Resource, ResourceExt};
use serde_json::json;

use super::{
    Context,
    apply::label,
    copies::{self, ObservedSecret, Write},
    kept::Kept,
    observe::{self, Observed, ObservedSecrets},
    progress::Progress,
    secrets::{Action, Part},
    user_ca::UserCa,
};
use crate::{
    k8s::{
        error::Class,
        manifest::Manifest,
        problem::{Problem, Retry},
        root,
    },
    runtime::driver::Outcome,
};

/// Publishes as far as it goes, and reports each Secret in `progress`. `ca_is_copied`: the engine was given a user's CA
/// in this reconcile.
///
/// # Errors
/// The first failed request, after everything else was tried.
pub async fn publish(
    context: &Context,
    observed: &Observed,
    secrets: &ObservedSecrets,
    cluster: &str,
    ca_is_copied: bool,
    progress: &mut Progress,
) -> Result<Outcome, Problem> {
    let mut failed = None;
    let mut outcome = Outcome::Done;
    for secret in &secrets.contract {
        let mut result = if secret.part == Part::Ca && ca_is_copied {
            Ok(())
        } else {
            publish_secret(context, observed, &secrets.user_ca, secret, cluster, progress).await
        };
        if let Err(problem) = &mut result {
            match problem.retry {
                Retry::OnChange => {}
                Retry::Unwatched => outcome = Outcome::Waiting,
                Retry::Backoff(_) => {
                    problem.reason = Reason::InternalError;
                    failed.get_or_insert_with(|| problem.clone());
                }
            }
        }
        match secret.part {
            Part::Ca => progress.ca = result.into(),
            Part::Kubeconfig => progress.kubeconfig = result.into(),
            Part::Bootstrap => progress.bootstrap = result.into(),
        }
    }
    if let Some(problem) = failed {
        return Err(problem);
    }
    if progress.ca.is_done() && progress.kubeconfig.is_done() {
        publish_endpoint(context, observed, progress).await?;
    }
    Ok(outcome)
}

/// Writes `spec.controlPlaneEndpoint`, the one field of the spec that this controller writes.
pub async fn publish_endpoint(
    context: &Context,
    observed: &Observed,
    progress: &Progress,
) -> Result<(), Problem> {
    let control_plane = &*observed.control_plane;
    let Some(choice) = progress.endpoint.as_ref().filter(|choice| choice.write) else {
        return Ok(());
    };
    let now = || Kept::of(observed.tenant.as_deref()?);
    let has_moved = control_plane.spec.control_plane_endpoint.as_ref() != Some(&choice.endpoint);
    let kept = Kept::recorded(control_plane).filter(|_| !has_moved).or_else(now);
    let service = kept.map(|kept| kept.text());
    let origin = (ours::ENDPOINT_ORIGIN, choice.origin.as_str());
    let service = service.as_deref().map(|text| (ours::PUBLISHED_SERVICE, text));
    let annotations: Vec<_> = [origin].into_iter().chain(service).collect();
    let namespace = control_plane.namespace().unwrap_or_default();
    root::apply_spec(
        &Api::namespaced(context.client.clone(), &namespace),
        &context.control_planes,
        control_plane,
        &annotations,
        json!({ "controlPlaneEndpoint": choice.endpoint }),
        field_manager::CONTROL_PLANE,
    )
    .await?;
    Ok(())
}

/// Publishes one Secret of the contract.
async fn publish_secret(
    context: &Context,
    observed: &Observed,
    user_ca: &UserCa,
    secret: &ObservedSecret,
    cluster: &str,
    progress: &Progress,
) -> Result<(), Problem> {
    let control_plane = &*observed.control_plane;
    if let (Part::Ca, Action::Foreign, UserCa::InUse(result)) = (secret.part, &secret.action, user_ca) {
        return result.clone();
    }
    let endpoint = progress.endpoint.as_ref().map(|choice| &choice.endpoint);
    match copies::desired(control_plane, cluster, endpoint, context.hosting, secret)? {
        Write::Nothing => Ok(()),
        Write::Label(row) => Ok(label(context, &row, cluster).await?),
        Write::Copy { secret, new } => {
            let manifest = Manifest::of(&*secret)?;
            write_copy(context, control_plane, &manifest, new).await
        }
    }
}

/// Writes a copy. A Secret that exists and is not ours is kept: somebody else created it.
async fn write_copy(
    context: &Context,
    control_plane: &KamajiControlPlane,
    manifest: &Manifest,
    new: bool,
) -> Result<(), Problem> {
    let written = if new {
        context.applier.create(manifest).await
    } else {
        context.applier.apply(manifest).await
    };
    match written {
        Ok(_) => Ok(()),
        Err(error) if new && error.is_already_exists() => existing(context, control_plane, manifest).await,
        // An old copy of a type that cannot be changed is replaced. No other refusal deletes anything: webhooks and
        // policies refuse too, and Cluster API would lose the Secret because of their rules.
        Err(error) if !new && error.is_immutable("type") => {
            let Some(row) = context.index.get(&manifest.key) else {
                return Err(error.into());
            };
            context.applier.delete(&row).await?;
            context.applier.create(manifest).await?;
            Ok(())
        }
        Err(error) if error.class() == Class::Invalid => {
            Err(Problem::unwatched(Reason::InternalError, error.to_string()))
        }
        Err(error) => Err(error.into()),
    }
}

/// A Secret of that name exists and is not in the index: it lacks the label of the Cluster.
async fn existing(
    context: &Context,
    control_plane: &KamajiControlPlane,
    manifest: &Manifest,
) -> Result<(), Problem> {
    let Some(known) = observe::secret(context, &manifest.key.namespace, &manifest.key.name).await? else {
        return Err(Problem::backoff(
            Class::Conflict,
            Reason::InternalError,
            "a Secret of that name was deleted at the same time",
        ));
    };
    let ours = known
        .owner_references()
        .iter()
        .any(|owner| owner.kind == KamajiControlPlane::kind(&()) && owner.name == control_plane.name_any());
    if ours {
        context.applier.apply(manifest).await?;
    }
    Ok(())
}
