//! Applies what has to exist before the Secrets of the contract: the copy of a user's CA, then the TenantControlPlane.

use kamaji_api::{conditions::Reason, tenantcontrolplane::TenantControlPlane};

use super::{
    Context,
    observe::{self, Observed},
    progress::Progress,
    secrets,
    user_ca::UserCa,
};
use crate::k8s::{
    error::{ApiError, Class},
    manifest::Manifest,
    problem::{Problem, Retry},
    report::Step,
    row::Row,
};

/// Creates the copy of a user's CA, where the engine needs one. Returns whether it was created.
///
/// # Errors
/// Why no TenantControlPlane may be applied: without the copy the engine would generate another CA.
pub async fn apply_user_ca(context: &Context, user_ca: &UserCa, cluster: &str) -> Result<bool, Problem> {
    let (copy, unlabelled) = match user_ca {
        UserCa::None | UserCa::InUse(_) => return Ok(false),
        UserCa::Unknown(problem) | UserCa::Unusable(problem) => return Err(problem.clone()),
        UserCa::Copy { copy, unlabelled } => (copy, unlabelled),
    };
    let copy = Manifest::of(&**copy)?;
    let created = match context.applier.create(&copy).await {
        Ok(_) => true,
        // A user created it too, without a label by which it would be observed.
        Err(error) if error.is_already_exists() => {
            let found = observe::unlabelled(context, &copy.key.namespace, &copy.key.name).await?;
            if let Some(row) = found {
                label(context, &row, cluster).await?;
            }
            false
        }
        Err(error) => return Err(error.into()),
    };
    if let Some(row) = unlabelled {
        label(context, row, cluster).await?;
    }
    Ok(created)
}

/// Labels a Secret with its Cluster, so that Cluster API and the watch of this controller find it.
pub async fn label(context: &Context, row: &Row, cluster: &str) -> Result<(), ApiError> {
    context.applier.label(row, &secrets::cluster_label(cluster)).await
}

/// Why no TenantControlPlane can be applied now: one of that name belongs to somebody else, or is being deleted.
///
/// # Errors
/// That, and the change that ends it is watched.
pub fn is_available(observed: &Observed) -> Result<(), Problem> {
    match &observed.tenant_row {
        Some(row) if !secrets::is_ours(&observed.control_plane, row) => Err(foreign(row)),
        Some(row) if row.deleting => Err(Problem::on_change(
            Reason::Deleting,
            "the TenantControlPlane is being deleted; it is created again when it is gone",
        )),
        Some(_) | None => Ok(()),
    }
}

fn foreign(row: &Row) -> Problem {
    let (name, owner) = (&row.key.name, row.owner.as_ref());
    let whose = owner.map_or_else(
        || "nobody that is known".to_owned(),
        |owner| format!("{} {}", owner.kind, owner.name),
    );
    Problem::on_change(
        Reason::OwnedByAnother,
        format!(
            "TenantControlPlane {name} exists and belongs to {whose}; rename this object. To delete that \
             TenantControlPlane deletes the data of its cluster"
        ),
    )
}

/// Applies the TenantControlPlane and reports it in `progress`. Returns what was applied. `None`: the API server, or a
/// policy, refuses to change the TenantControlPlane, the spec is reported as invalid, and what exists goes on.
///
/// # Errors
/// When there is no TenantControlPlane to go on with.
pub async fn apply_tenant_control_plane(
    context: &Context,
    observed: &Observed,
    desired: TenantControlPlane,
    progress: &mut Progress,
) -> Result<Option<TenantControlPlane>, Problem> {
    let manifest = Manifest::of(&desired)?;
    let error = match context
        .applier
        .apply_over(&manifest, observed.tenant.as_deref())
        .await
    {
        Ok(applied) => {
            progress.tenant = Step::Done;
            progress.generation = applied.row.generation;
            return Ok(Some(desired));
        }
        Err(error) => error,
    };
    let reason = match error.class() {
        Class::Invalid => Reason::InvalidSpec,
        Class::Denied => Reason::Forbidden,
        Class::Transient | Class::Conflict | Class::Foreign => Reason::InternalError,
    };
    let class = error.class();
    // A policy may have refused it, and nothing reports that a policy changed.
    let retry = match Retry::from(class) {
        Retry::OnChange => Retry::Unwatched,
        retry => retry,
    };
    let problem = Problem::new(retry, reason, error.to_string());
    if class != Class::Invalid {
        progress.tenant = Step::Failed(problem.clone());
        return Err(problem);
    }
    progress.spec = Step::Failed(problem.clone());
    if observed.tenant_row.is_some() {
        Ok(None)
    } else {
        Err(problem)
    }
}
