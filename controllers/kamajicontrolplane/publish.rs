//! What others wait for: the Secrets of the contract, then the endpoint (contract.md 0, rule 6).

use kamaji_api::{
    conditions::Reason,
    controlplane::{Endpoint, KamajiControlPlane},
    labels::{field_manager, ours},
};
use kube::{Api, Resource, ResourceExt};
use serde_json::json;

use super::{
    Context, authority,
    observe::{self, Observed},
    progress::Progress,
    secrets::{self, Known, Part, Step},
};
use crate::{
    capi::cluster::Cluster,
    k8s::{
        apply,
        error::Class,
        manifest::Manifest,
        problem::{Problem, Retry},
    },
    runtime::driver::Outcome,
    settings::Hosting,
};

/// Publishes as far as it goes.
pub async fn publish(
    context: &Context,
    observed: &Observed,
    cluster: &Cluster,
    progress: &mut Progress,
) -> Result<Outcome, Problem> {
    let mut failed = None;
    let mut outcome = Outcome::Done;
    for part in Part::ALL {
        let endpoint = progress.endpoint.as_ref().map(|choice| &choice.endpoint);
        let mut result = secret(context, observed, cluster, part, endpoint).await;
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
        match part {
            Part::Authority => progress.authority = result.into(),
            Part::Kubeconfig => progress.kubeconfig = result.into(),
            Part::Bootstrap => progress.bootstrap = result.into(),
        }
    }
    if let Some(problem) = failed {
        return Err(problem);
    }
    let ready = progress.authority.is_done() && progress.kubeconfig.is_done();
    if let Some(choice) = progress.endpoint.as_ref().filter(|choice| choice.write && ready) {
        let control_plane = &*observed.control_plane;
        let api = Api::namespaced(
            context.client.clone(),
            &control_plane.namespace().unwrap_or_default(),
        );
        // The one field of the spec that this controller writes.
        apply::root_spec(
            &api,
            &context.control_planes,
            control_plane,
            &[(ours::ENDPOINT_ORIGIN, choice.origin.as_str())],
            json!({ "controlPlaneEndpoint": choice.endpoint }),
            field_manager::CONTROL_PLANE,
        )
        .await?;
    }
    Ok(outcome)
}

/// Brings one Secret of the contract about.
async fn secret(
    context: &Context,
    observed: &Observed,
    cluster: &Cluster,
    part: Part,
    endpoint: Option<&Endpoint>,
) -> Result<(), Problem> {
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
    let inputs = secrets::inputs(part, &name, endpoint, key);
    let (source, new) = match secrets::step(control_plane, known, &inputs) {
        Step::Keep => return Ok(()),
        Step::Theirs => {
            return match &rows.target {
                Some(theirs) if part == Part::Authority => {
                    authority::compare(context, control_plane, theirs, rows.source.as_deref()).await
                }
                _ => Ok(()),
            };
        }
        Step::WaitForSource => return without_source(context, observed, &name, part).await,
        Step::Label => {
            if let Some(row) = &rows.source {
                authority::label(context, row, &name).await?;
            }
            return Ok(());
        }
        Step::Copy { source, new } => (source, new),
    };
    let namespace = control_plane.namespace().unwrap_or_default();
    let from = part.source(&control_plane.name_any());
    if part != Part::Authority && endpoint.is_none() {
        let why = format!(
            "Secret {} names the endpoint, and the TenantControlPlane has no address yet",
            part.name(&name)
        );
        return Err(Problem::on_change(Reason::WaitingForEndpoint, why));
    }
    let Some(from) = observe::secret(context, &namespace, &from).await? else {
        return Err(waiting(part, control_plane));
    };
    let data = match (part, endpoint) {
        (Part::Kubeconfig, Some(endpoint)) => secrets::admin_data(&from, key, &name, endpoint),
        (Part::Bootstrap, Some(endpoint)) => secrets::bootstrap_data(&from, &name, endpoint),
        _ => secrets::authority_data(&from),
    };
    let data = match data {
        Ok(data) => data,
        Err(error) => return Err(secrets::refusal(control_plane, part, &error)),
    };
    let made = Manifest::of(&secrets::copy(control_plane, &name, part, source, data))?;
    place(context, control_plane, &made, new).await
}

/// There is nothing to copy, as far as the indexes tell.
async fn without_source(
    context: &Context,
    observed: &Observed,
    cluster: &str,
    part: Part,
) -> Result<(), Problem> {
    let control_plane = &*observed.control_plane;
    // Kamaji's engine has no such kubeconfig: its nodes join with kubeadm.
    if part == Part::Bootstrap && context.hosting == Hosting::External {
        return Ok(());
    }
    // The engine uses an authority that it did not make: a user's, under the Cluster's name and without its label.
    if secrets::is_in_use(part, observed.tenant.as_deref())
        && let Some(row) = observe::unlabelled(context, control_plane, &part.name(cluster)).await?
    {
        authority::label(context, &row, cluster).await?;
        return Ok(());
    }
    Err(waiting(part, control_plane))
}

/// Writes a copy. What exists without being ours is left alone: it is somebody's own.
async fn place(
    context: &Context,
    control_plane: &KamajiControlPlane,
    made: &Manifest,
    new: bool,
) -> Result<(), Problem> {
    let written = if new {
        context.applier.create(made).await
    } else {
        context.applier.apply(made).await
    };
    match written {
        Ok(_) => Ok(()),
        Err(error) if new && error.is_already_exists() => taken(context, control_plane, made).await,
        // An old one of ours, of a type that cannot be changed. Any other refusal deletes nothing: the API server is
        // asked by webhooks and policies too, and core would lose the Secret over a rule of theirs.
        Err(error) if !new && error.is_immutable("type") => {
            let Some(row) = context.index.get(&made.key) else {
                return Err(error.into());
            };
            context.applier.delete(&row).await?;
            context.applier.create(made).await?;
            Ok(())
        }
        Err(error) if error.class() == Class::Invalid => {
            Err(Problem::unwatched(Reason::InternalError, error.to_string()))
        }
        Err(error) => Err(error.into()),
    }
}

/// A Secret of that name exists and the index does not know it: it carries no label of the Cluster.
async fn taken(
    context: &Context,
    control_plane: &KamajiControlPlane,
    made: &Manifest,
) -> Result<(), Problem> {
    let Some(known) = observe::secret(context, &made.key.namespace, &made.key.name).await? else {
        return Err(Problem::backoff(
            Class::Conflict,
            Reason::InternalError,
            "a Secret came and went",
        ));
    };
    let ours = known
        .owner_references()
        .iter()
        .any(|owner| owner.kind == KamajiControlPlane::kind(&()) && owner.name == control_plane.name_any());
    if ours {
        context.applier.apply(made).await?;
    }
    Ok(())
}

fn waiting(part: Part, control_plane: &KamajiControlPlane) -> Problem {
    let reason = match part {
        Part::Authority => Reason::WaitingForCertificates,
        Part::Kubeconfig | Part::Bootstrap => Reason::WaitingForKubeconfig,
    };
    Problem::on_change(
        reason,
        format!(
            "the TenantControlPlane has not made Secret {} yet",
            part.source(&control_plane.name_any())
        ),
    )
}
