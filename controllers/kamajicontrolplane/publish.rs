//! What others wait for: the Secrets of the contract, then the endpoint (contract.md 0, rule 6).

use k8s_openapi::api::core::v1::Secret;
use kamaji_api::{
    conditions::Reason,
    controlplane::{Endpoint, KamajiControlPlane},
    labels::{field_manager, ours},
};
use kube::{Api, Resource, ResourceExt};
use serde_json::json;

use super::{
    Context, authority,
    health::Cause,
    observe::{self, Observed},
    progress::{Finding, Progress},
    reconcile::manifest,
    secrets::{self, Known, Part, Step},
};
use crate::{
    args::Hosting,
    capi::cluster::Cluster,
    k8s::{apply, error::Class, manifest::Manifest},
    runtime::driver::{Failure, Outcome, Reconciled},
};

/// Publishes as far as it goes.
pub async fn publish(
    context: &Context,
    observed: &Observed,
    cluster: &Cluster,
    progress: &mut Progress,
) -> Reconciled {
    let mut failed = None;
    let mut outcome = Outcome::Done;
    for part in Part::ALL {
        let endpoint = progress.endpoint.as_ref().map(|choice| &choice.endpoint);
        let finding = match secret(context, observed, cluster, part, endpoint).await {
            Ok(Placed::Is(finding)) => finding,
            Ok(Placed::Refused(cause)) => {
                outcome = Outcome::Waiting;
                Finding::Missing(cause)
            }
            Err(error) => {
                let cause = Cause::new(Reason::InternalError, error.to_string());
                failed.get_or_insert(error);
                Finding::Missing(cause)
            }
        };
        match part {
            Part::Authority => progress.authority = finding,
            Part::Kubeconfig => progress.kubeconfig = finding,
            Part::Bootstrap => progress.bootstrap = finding,
        }
    }
    if let Some(error) = failed {
        return Err(error);
    }
    let ready = progress.authority == Finding::InPlace && progress.kubeconfig == Finding::InPlace;
    if let Some(choice) = progress.endpoint.as_ref().filter(|choice| choice.write && ready) {
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
            &[(ours::ENDPOINT_ORIGIN, choice.origin.as_str())],
            json!({ "controlPlaneEndpoint": choice.endpoint }),
            field_manager::CONTROL_PLANE,
        )
        .await?;
    }
    Ok(outcome)
}

/// How it went with one Secret.
enum Placed {
    /// As far as it is known; what is missing is watched.
    Is(Finding),
    /// The API server refuses it, and nothing tells when it will not any more.
    Refused(Cause),
}

impl From<Finding> for Placed {
    fn from(finding: Finding) -> Self {
        Self::Is(finding)
    }
}

/// Brings one Secret of the contract about.
async fn secret(
    context: &Context,
    observed: &Observed,
    cluster: &Cluster,
    part: Part,
    endpoint: Option<&Endpoint>,
) -> Result<Placed, Failure> {
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
        Step::Keep => return Ok(Finding::InPlace.into()),
        Step::Theirs => {
            let found = match &rows.target {
                Some(theirs) if part == Part::Authority => {
                    authority::compare(context, control_plane, theirs, rows.source.as_deref()).await?
                }
                _ => Finding::InPlace,
            };
            return Ok(found.into());
        }
        Step::WaitForSource => return Ok(without_source(context, observed, &name, part).await?.into()),
        Step::Label => {
            if let Some(row) = &rows.source {
                authority::label(context, row, &name).await?;
            }
            return Ok(Finding::InPlace.into());
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
        return Ok(Finding::Missing(Cause::new(Reason::WaitingForEndpoint, why)).into());
    }
    let Some(from) = observe::secret(context, &namespace, &from).await? else {
        return Ok(Finding::Missing(waiting(part, control_plane)).into());
    };
    let data = match (part, endpoint) {
        (Part::Kubeconfig, Some(endpoint)) => secrets::admin_data(&from, key, &name, endpoint),
        (Part::Bootstrap, Some(endpoint)) => secrets::bootstrap_data(&from, &name, endpoint),
        _ => secrets::authority_data(&from),
    };
    let data = match data {
        Ok(data) => data,
        Err(error) => return Ok(Finding::Missing(secrets::refusal(control_plane, part, &error)).into()),
    };
    let made = manifest("Secret", &secrets::copy(control_plane, &name, part, source, data))?;
    place(context, control_plane, &made, new).await
}

/// There is nothing to copy, as far as the indexes tell.
async fn without_source(
    context: &Context,
    observed: &Observed,
    cluster: &str,
    part: Part,
) -> Result<Finding, Failure> {
    let control_plane = &*observed.control_plane;
    // Kamaji's engine has no such kubeconfig: its nodes join with kubeadm.
    if part == Part::Bootstrap && context.hosting == Hosting::External {
        return Ok(Finding::InPlace);
    }
    // The engine uses an authority that it did not make: a user's, under the Cluster's name and without its label.
    if secrets::is_in_use(part, observed.tenant.as_deref())
        && let Some(row) = observe::unlabelled(context, control_plane, &part.name(cluster)).await?
    {
        authority::label(context, &row, cluster).await?;
        return Ok(Finding::InPlace);
    }
    Ok(Finding::Missing(waiting(part, control_plane)))
}

/// Writes a copy. What exists without being ours is left alone: it is somebody's own.
async fn place(
    context: &Context,
    control_plane: &KamajiControlPlane,
    made: &Manifest,
    new: bool,
) -> Result<Placed, Failure> {
    let written = if new {
        context.applier.create(made).await
    } else {
        context.applier.apply(made).await
    };
    match written {
        Ok(_) => Ok(Finding::InPlace.into()),
        Err(error) if new && error.is_already_exists() => taken(context, control_plane, made).await,
        // An old one of ours, of a type that cannot be changed. Any other refusal deletes nothing: the API server is
        // asked by webhooks and policies too, and core would lose the Secret over a rule of theirs.
        Err(error) if !new && error.is_immutable("type") => {
            let Some(row) = context.index.get(&made.key) else {
                return Err(error.into());
            };
            context.applier.delete::<Secret>(&row).await?;
            context.applier.create(made).await?;
            Ok(Finding::InPlace.into())
        }
        Err(error) if error.class() == Class::Invalid => Ok(Placed::Refused(Cause::new(
            Reason::InternalError,
            error.to_string(),
        ))),
        Err(error) => Err(error.into()),
    }
}

/// A Secret of that name exists and the index does not know it: it carries no label of the Cluster.
async fn taken(
    context: &Context,
    control_plane: &KamajiControlPlane,
    made: &Manifest,
) -> Result<Placed, Failure> {
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
    Ok(Finding::InPlace.into())
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
