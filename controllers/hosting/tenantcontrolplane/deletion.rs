//! Deletion of a tenant: its pods, then its data, then its objects, then the finalizer.
//!
//! The Deployment is deleted in the foreground instead of being scaled to 0: it is gone only after its pods, and its
//! own delete event ends the wait, so that pods need not be polled.

use k8s_openapi::{api::apps::v1::Deployment, jiff::Timestamp};
use kamaji_api::{
    conditions::Reason,
    labels::{capi, kamaji, ours},
    tenantcontrolplane::TenantControlPlane,
};
use kube::{Api, ResourceExt};

use super::{
    context::Context,
    names::{is_recorded, is_set_up, names_of},
    observed::Observed,
    storage,
};
use crate::k8s::{
    apply::Deletion,
    error::Class,
    finalizer,
    key::RootKey,
    problem::{Problem, Retry},
};

/// Deletes what belongs to `tenant`, as far as it goes.
///
/// # Errors
/// What the deletion waits for.
pub async fn delete(
    context: &Context,
    tenant: &TenantControlPlane,
    observed: &mut Observed,
    now: Timestamp,
) -> Result<(), Problem> {
    if !finalizer::has(tenant, kamaji::FINALIZER) && !finalizer::has(tenant, kamaji::SOOT_FINALIZER) {
        return Ok(());
    }
    // After a move the target cluster owns data and objects.
    if !tenant.annotations().contains_key(capi::DELETE_FOR_MOVE) {
        stop_pods(context, tenant).await?;
        delete_data(context, tenant, observed, now).await?;
        delete_objects(context, tenant).await?;
    }
    let namespace = tenant.namespace().unwrap_or_default();
    let api: Api<TenantControlPlane> = Api::namespaced(context.engine.client.clone(), &namespace);
    let finalizers = [kamaji::FINALIZER, kamaji::SOOT_FINALIZER];
    Ok(finalizer::remove(&api, &context.engine.tenants, tenant, &finalizers).await?)
}

/// Deletes the Deployment, and ends once its pods are gone.
///
/// # Errors
/// Pods still run.
pub async fn stop_pods(context: &Context, tenant: &TenantControlPlane) -> Result<(), Problem> {
    let rows = context.engine.objects_of(tenant);
    let Some(row) = rows.iter().find(|row| row.is::<Deployment>()) else {
        return Ok(());
    };
    let applier = &context.engine.applier;
    if !row.deleting && applier.delete_as(row, Deletion::Foreground).await? {
        return Ok(());
    }
    Err(Problem::on_change(
        Reason::WaitingForPodsDeletion,
        format!("pods of Deployment {} still run", row.key.name),
    ))
}

async fn delete_data(
    context: &Context,
    tenant: &TenantControlPlane,
    observed: &mut Observed,
    now: Timestamp,
) -> Result<(), Problem> {
    if !is_recorded(tenant) || tenant.annotations().contains_key(ours::ABANDON_DATA) {
        return Ok(());
    }
    let engine = &context.engine;
    let names = names_of(tenant, 0);
    // The DataStore that holds the data, whatever the spec names now.
    let chosen = || storage::choose(tenant, &engine.settings.default_datastore).ok();
    let Some(name) = storage::used(tenant).or_else(chosen) else {
        return Ok(());
    };
    let waiting = |problem: Problem| Problem {
        reason: match problem.reason {
            Reason::DataStoreUnreachable | Reason::DataStoreNotFound | Reason::SecretNotFound => {
                Reason::WaitingForDataStore
            }
            other => other,
        },
        message: format!(
            "the data of schema {} cannot be deleted: {problem}; to leave it behind, annotate the TenantControlPlane \
             with {}",
            names.schema,
            ours::ABANDON_DATA
        ),
        retry: match problem.retry {
            Retry::OnChange | Retry::Unwatched => Retry::Backoff(Class::Foreign),
            retry @ Retry::Backoff(_) => retry,
        },
    };
    let store = match storage::find(engine, &name) {
        Ok(store) => store,
        // Nothing was created in it: the names were generated while the tenant waited for the DataStore.
        Err(_) if storage::used(tenant).is_none() => return Ok(()),
        Err(problem) => return Err(waiting(problem)),
    };
    // The DataStore was changed since the set-up, and may lead to another datastore. The data is looked for first, and
    // what was found is recorded in the status before it is deleted, so that a later reconcile knows that it is gone.
    let mut placed = storage::placed(&store, &names).map_err(waiting)?;
    if is_set_up(tenant) && !storage::is_made(tenant, &placed) {
        let found = storage::set_up(engine, tenant, &store, &names, now).await;
        placed.access = Some(found.map_err(waiting)?);
        observed.placed = Some(placed);
        let message = format!(
            "the data of schema {} was found and will be deleted",
            names.schema
        );
        return Err(Problem::backoff(Class::Transient, Reason::Deleting, message));
    }
    match storage::tear_down(engine, tenant, &store, &names).await {
        Ok(deleted) => {
            observed.torn_down = true;
            let (tenant, schema) = (RootKey::of(tenant), &names.schema);
            tracing::info!(%tenant, schema, keys = deleted.keys, "deleted the data of a tenant");
            Ok(())
        }
        // Schema and user belong to somebody else, so nothing was ever created for this tenant.
        Err(problem) if is_foreign(&problem) && storage::recorded_setup(tenant).is_none() => Ok(()),
        Err(problem) => Err(waiting(problem)),
    }
}

/// Deletes every object that the tenant owns. It does not own a CA that the user provides.
async fn delete_objects(context: &Context, tenant: &TenantControlPlane) -> Result<(), Problem> {
    let mut left = Vec::new();
    for row in context.engine.objects_of(tenant) {
        if row.deleting || !context.engine.applier.delete(&row).await? {
            left.push(row.key.to_string());
        }
    }
    if left.is_empty() {
        return Ok(());
    }
    Err(Problem::on_change(
        Reason::WaitingForObjectsDeletion,
        format!("these objects still exist: {}", left.join(", ")),
    ))
}

fn is_foreign(problem: &Problem) -> bool {
    matches!(
        problem.reason,
        Reason::SchemaOwnedByAnother | Reason::UserOwnedByAnother
    )
}
