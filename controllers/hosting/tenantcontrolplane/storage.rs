//! Schema and user of a tenant in a DataStore: which DataStore it uses, and creating, checking and deleting them there.
//!
//! The names are recorded on the TenantControlPlane before anything is created in the datastore, so that a crash leaves
//! nothing behind that nobody knows. `status.storage.setup` records by digest what was created, so that a tenant
//! without changes costs the datastore no request.

use std::sync::Arc;

use k8s_openapi::{api::core::v1::Secret, jiff::Timestamp};
use kamaji_api::{
    conditions::{Reason, TenantControlPlaneCondition as On},
    datastore::DataStore,
    labels::{field_manager, ours},
    tenantcontrolplane::TenantControlPlane,
};
use kube::ResourceExt;
use serde_json::json;

use super::{
    names::{Names, is_set_up, set},
    scope::Scope,
};
use crate::{
    hosting::{
        datastore::{self, parts, status::usable, validate, version},
        driver::{self, Access, Deleted, Owner, TenantSchema},
        engine::Engine,
    },
    k8s::{
        digest,
        key::RootKey,
        meta::controller_of,
        problem::{Problem, Retry},
        report::Step,
    },
    pki::spec,
    settings::DefaultDatastore,
};

/// Schema and user of a tenant in a DataStore.
#[derive(Clone, Debug)]
pub struct Placed {
    /// Name of the DataStore.
    pub store: String,
    /// Schema and user.
    pub names: Names,
    /// `host:port` of each member.
    pub endpoints: Vec<String>,
    /// Digest of what they are created for; see [`setup_digest`].
    pub digest: String,
    /// The open datastore, if it is open.
    pub access: Option<Arc<Access>>,
}

/// The DataStore of `tenant`, whatever its state.
///
/// # Errors
/// `MigrationNotSupported`, `DataStoreNotSelected` or `DataStoreNotFound`, each with the field to change.
pub fn select(engine: &Engine, tenant: &TenantControlPlane) -> Result<Arc<DataStore>, Problem> {
    find(engine, &choose(tenant, &engine.settings.default_datastore)?)
}

/// Name of the DataStore: that of the spec, of the status, or the default, in this order.
///
/// # Errors
/// The spec names another DataStore than the one that holds the data, or nothing names one.
pub fn choose(tenant: &TenantControlPlane, default: &DefaultDatastore) -> Result<String, Problem> {
    let desired = set(tenant.spec.data_store.as_ref()).map(str::to_owned);
    match (desired, used(tenant)) {
        (Some(desired), Some(used)) if desired != used => Err(Problem::on_change(
            Reason::MigrationNotSupported,
            format!(
                "spec.dataStore: the data is in DataStore {used}; moving it to {desired} is not supported yet; set it \
                 back to {used}"
            ),
        )),
        (Some(name), _) | (None, Some(name)) => Ok(name),
        (None, None) => default.name().map(str::to_owned).ok_or_else(|| {
            Problem::on_change(
                Reason::DataStoreNotSelected,
                "spec.dataStore is required, since there is no default; name a DataStore or run with \
                 --default-datastore",
            )
        }),
    }
}

/// Name of the DataStore that holds the data, as the status records it.
pub fn used(tenant: &TenantControlPlane) -> Option<String> {
    let storage = tenant.status.as_ref()?.storage.as_ref()?;
    set(storage.data_store_name.as_ref()).map(str::to_owned)
}

/// The DataStore of this name, whatever its state.
///
/// # Errors
/// `DataStoreNotFound`.
pub fn find(engine: &Engine, name: &str) -> Result<Arc<DataStore>, Problem> {
    engine.stores.get(&RootKey::new("", name)).ok_or_else(|| {
        Problem::on_change(
            Reason::DataStoreNotFound,
            format!("DataStore {name} does not exist; create it, or name another in spec.dataStore"),
        )
    })
}

/// Endpoints of a DataStore.
fn endpoints(store: &DataStore) -> Result<Vec<String>, Problem> {
    Ok(match validate::validate(store)? {
        validate::Valid::External(external) => external.endpoints,
        validate::Valid::Managed(managed) => parts::endpoints(&managed),
    })
}

/// Digest of what schema and user are created for; when it changes, they are created again. The generation of the
/// DataStore is no part of it: it grows with the deletion, which waits for the tenants, and with the resources of a
/// managed one.
fn setup_digest(store: &DataStore, names: &Names) -> String {
    digest::of(&json!({
        "store": store.metadata.uid,
        "endpoints": store.spec.endpoints,
        "tls": store.spec.tls_config,
        "schema": names.schema,
        "user": names.user,
    }))
}

/// Schema and user `names` in `store`. Nothing is asked of the datastore.
///
/// # Errors
/// The spec of the DataStore is invalid.
pub fn placed(store: &DataStore, names: &Names) -> Result<Placed, Problem> {
    Ok(Placed {
        store: store.name_any(),
        names: names.clone(),
        endpoints: endpoints(store)?,
        digest: setup_digest(store, names),
        access: None,
    })
}

/// The status records that schema and user exist in this DataStore as it is now.
pub fn is_made(tenant: &TenantControlPlane, placed: &Placed) -> bool {
    recorded_setup(tenant) == Some(placed.digest.as_str())
}

/// The digest in `status.storage.setup`.
pub fn recorded_setup(tenant: &TenantControlPlane) -> Option<&str> {
    let storage = tenant.status.as_ref()?.storage.as_ref()?;
    storage.setup.as_ref()?.checksum.as_deref()
}

/// Creates schema and user, unless the status records them.
///
/// # Errors
/// The DataStore is not ready for a tenant, or what it answered.
pub async fn prepare(scope: &Scope<'_>, store: &DataStore) -> Result<Placed, Problem> {
    let (engine, tenant) = (&scope.context.engine, scope.tenant);
    let names = &scope.valid.names;
    let mut placed = placed(store, names)?;
    if is_made(tenant, &placed) {
        placed.access = engine.pool.get(store);
        return Ok(placed);
    }
    match usable(store) {
        // The deletion of the DataStore waits for this tenant.
        Err(problem) if problem.reason == Reason::DataStoreDeleting && is_set_up(tenant) => {}
        // Its controller wakes the tenant when that changes.
        result => result?,
    }
    placed.access = Some(set_up(engine, tenant, store, names, scope.now).await?);
    Ok(placed)
}

/// Reports a DataStore that is not ready now, or is ready again without the data of this tenant. Schema and user exist or
/// existed, so the rollout goes on.
///
/// # Errors
/// The reason that the DataStore itself reports, or what the datastore answered.
pub async fn check_health(scope: &Scope<'_>, store: &DataStore, placed: &Placed) -> Result<(), Problem> {
    let (engine, tenant) = (&scope.context.engine, scope.tenant);
    if store.metadata.deletion_timestamp.is_none() {
        usable(store)?;
    }
    if !(is_made(tenant, placed) && scope.misses_data()) {
        return Ok(());
    }
    set_up(engine, tenant, store, &placed.names, scope.now)
        .await
        .map(drop)
}

/// Creates schema and user where they are missing, and tries whether the datastore serves them.
///
/// # Errors
/// What the datastore answered. For a tenant that was never set up also a version that does not keep tenants apart.
pub async fn set_up(
    engine: &Engine,
    tenant: &TenantControlPlane,
    store: &DataStore,
    names: &Names,
    now: Timestamp,
) -> Result<Arc<Access>, Problem> {
    let access = datastore::access(engine, store).await?;
    if !is_set_up(tenant) {
        version::admits(store, &access.admin.health().version)?;
    }
    let schema = TenantSchema {
        expected: is_set_up(tenant) || has_keys(engine, tenant),
        ..schema_of(engine, tenant, names)
    };
    if let Err(error) = access.admin.ensure_tenant(&schema, now).await {
        return Err(failed(engine, tenant, store, &error));
    }
    let before = access.admin.health();
    if let Err(error) = access.try_as_tenant(&names.user, now).await {
        return Err(failed(engine, tenant, store, &error));
    }
    if access.admin.health() != before || access.admin.has_news() {
        engine.store_queue.add(RootKey::new("", store.name_any()));
    }
    Ok(access)
}

/// Deletes schema, user and all data of the tenant.
///
/// # Errors
/// What the datastore answered.
pub async fn tear_down(
    engine: &Engine,
    tenant: &TenantControlPlane,
    store: &DataStore,
    names: &Names,
) -> Result<Deleted, Problem> {
    let access = datastore::access(engine, store).await?;
    match access
        .admin
        .delete_tenant(&schema_of(engine, tenant, names))
        .await
    {
        Ok(deleted) => {
            if access.admin.has_news() {
                engine.store_queue.add(RootKey::new("", store.name_any()));
            }
            Ok(deleted)
        }
        Err(error) => Err(failed(engine, tenant, store, &error)),
    }
}

/// Asks the datastore again for schema and user of a tenant whose pods are no longer ready: it may not answer, or may
/// have lost them. While all is well, it is not asked; after the first failure, it is asked until it is well again.
///
/// # Errors
/// The problem, for the retry. What concerns the datastore is recorded in `data_store` too.
pub async fn recheck(scope: &Scope<'_>, placed: &Placed, data_store: &mut Step) -> Result<(), Problem> {
    let (engine, tenant) = (&scope.context.engine, scope.tenant);
    let served = scope.reports(On::Available);
    let suspect = served || !scope.reports(On::DataStoreReady);
    let ask = data_store.is_done() && suspect && is_made(tenant, placed);
    let store = find(engine, &placed.store);
    let (true, Ok(store)) = (ask, store) else {
        // The DataStore's own controller follows a datastore that is known to be down.
        if served {
            datastore::invalidate(engine, &placed.store);
        }
        return Ok(());
    };
    let Err(problem) = set_up(engine, tenant, &store, &placed.names, scope.now).await else {
        // Everything is there, and the pods fail: it may be out of space.
        if let Some(access) = engine.pool.get(&store) {
            access.admin.doubt();
            engine.store_queue.add(RootKey::new("", placed.store.clone()));
        }
        return Ok(());
    };
    // A failed request to the management cluster says nothing about the datastore.
    if !problem.is_transient() {
        *data_store = problem.clone().into();
    }
    if problem.reason == Reason::DataMissing {
        // The datastore may have started empty, without authentication.
        datastore::invalidate(engine, &placed.store);
    }
    Err(problem)
}

fn failed(engine: &Engine, tenant: &TenantControlPlane, store: &DataStore, error: &driver::Error) -> Problem {
    if matches!(
        error,
        driver::Error::Unreachable { .. } | driver::Error::Full { .. }
    ) {
        datastore::invalidate(engine, &store.name_any());
    }
    reported(tenant, &store.name_any(), error)
}

/// The error of a datastore, with the field or annotation that caused it and how to correct it.
fn reported(tenant: &TenantControlPlane, store: &str, error: &driver::Error) -> Problem {
    use driver::Error;
    let (key, field, desired, name) = match error {
        Error::ForeignSchema { schema, owner: _ } => (
            ours::SCHEMA,
            "spec.dataStoreSchema",
            &tenant.spec.data_store_schema,
            schema,
        ),
        Error::ForeignUser { user, owner: _ } => (
            ours::USER,
            "spec.dataStoreUsername",
            &tenant.spec.data_store_username,
            user,
        ),
        Error::DataMissing { schema: _ } => {
            let find = format!(
                "set spec.endpoints of DataStore {store} to the datastore that holds it, or restore its backup there"
            );
            let message = if is_set_up(tenant) {
                format!("status.storage.setup: {error}, but the data of this cluster should be there; {find}")
            } else {
                let keys = key_names(tenant).join(", ");
                format!(
                    "the keys of this cluster exist ({keys}), and its data does not: {error}; {find}; for an empty \
                     cluster with new keys, delete these Secrets"
                )
            };
            return Problem::backoff(error.class(), error.reason(), message);
        }
        Error::Name(refusal) => {
            let message = format!(
                "{refusal}; the name comes from the annotations {} and {}: remove them, or set them back",
                ours::SCHEMA,
                ours::USER
            );
            return Problem::on_change(error.reason(), message);
        }
        // Nothing failed.
        Error::Busy { .. } => return Problem::unwatched(error.reason(), error.to_string()),
        Error::Unreachable { .. }
        | Error::Full { .. }
        | Error::Denied { .. }
        | Error::Credentials(_)
        | Error::Refused { .. } => {
            return Problem::new(Retry::from(error.class()), error.reason(), error.to_string());
        }
    };
    let message = if is_set_up(tenant) {
        format!(
            "status.storage.setup: {error}, but this cluster's data is stored under it. Delete the duplicate object, \
             with annotation {} set so that the data is kept",
            ours::ABANDON_DATA
        )
    } else if set(desired.as_ref()) == Some(name) {
        format!(
            "{field}: {error}; create the TenantControlPlane again with another name, or without the field, which \
             generates one"
        )
    } else {
        format!(
            "annotation {key}: {error}; if this object was copied from another, remove its annotations {} and {}, which \
             generates new names",
            ours::SCHEMA,
            ours::USER
        )
    };
    Problem::on_change(error.reason(), message)
}

/// Secrets with keys that are made once, after schema and user.
fn key_names(tenant: &TenantControlPlane) -> [String; 2] {
    let name = tenant.name_any();
    [
        spec::front_proxy_ca_name(&name),
        spec::service_account_name(&name),
    ]
}

/// The engine made keys for this tenant, so it made schema and user before. A backup, or a copy of the objects in another
/// management cluster, has the keys and no status.
fn has_keys(engine: &Engine, tenant: &TenantControlPlane) -> bool {
    let namespace = tenant.namespace().unwrap_or_default();
    key_names(tenant).iter().any(|name| {
        let row = engine.index.find::<Secret>(&namespace, name);
        row.is_some_and(|row| {
            // A user's Secret of that name is none.
            let made = row.labels.get(ours::MANAGED_BY).map(String::as_str) == Some(field_manager::HOSTING);
            // What is adopted as an orphan counts: a restore may leave the UID of an earlier object of this name.
            let owner = controller_of(tenant);
            made && (row.owner.as_ref().is_some_and(|known| known.uid == owner.uid)
                || row.is_orphan_of(&owner))
        })
    })
}

fn schema_of(engine: &Engine, tenant: &TenantControlPlane, names: &Names) -> TenantSchema {
    TenantSchema {
        schema: names.schema.clone(),
        user: names.user.clone(),
        owner: Owner {
            cluster: engine.cluster_id.clone(),
            namespace: tenant.namespace().unwrap_or_default(),
            name: tenant.name_any(),
        },
        adopt: names.adopted,
        expected: is_set_up(tenant),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hosting::testing::tenant::{self as example, note, set_up};

    #[test]
    fn a_name_of_another_owner_is_reported_by_the_field_that_set_it() {
        let foreign = || driver::Error::ForeignSchema {
            schema: "theirs".to_owned(),
            owner: None,
        };
        let mut copied = example::tenant();
        note(&mut copied, "theirs", "theirs");
        let mut named = copied.clone();
        named.spec.data_store_schema = Some("theirs".to_owned());
        let mut running = copied.clone();
        set_up(&mut running, "default");
        for (tenant, start, fix) in [
            (
                &copied,
                "annotation capi-kamaji.io/datastore-schema: ",
                "remove its annotations",
            ),
            (&named, "spec.dataStoreSchema: ", "another name"),
            (&running, "status.storage.setup: ", "capi-kamaji.io/abandon-data"),
        ] {
            let problem = reported(tenant, "default", &foreign());
            assert_eq!(problem.reason, Reason::SchemaOwnedByAnother);
            assert!(
                problem.message.starts_with(start) && problem.message.contains(fix),
                "{}",
                problem.message
            );
            assert!(problem.message.contains("\"theirs\" belongs to somebody"));
        }
        let missing = driver::Error::DataMissing {
            schema: "old".to_owned(),
        };
        assert_eq!(
            reported(&running, "bronze", &missing).message,
            "status.storage.setup: the datastore holds no data of schema \"old\" that is marked as this tenant's, but the \
             data of this cluster should be there; set spec.endpoints of DataStore bronze to the datastore that holds it, \
             or restore its backup there"
        );
    }

    #[test]
    fn the_choice_of_a_datastore_and_its_refusals() {
        let mut tenant = example::tenant();
        let none = DefaultDatastore::None;
        assert_eq!(choose(&tenant, &none).unwrap(), "default");
        set_up(&mut tenant, "bronze");
        assert_eq!(
            choose(&tenant, &none).unwrap_err().reason,
            Reason::MigrationNotSupported
        );
        tenant.spec.data_store = None;
        assert_eq!(choose(&tenant, &none).unwrap(), "bronze");
        tenant.status = None;
        assert_eq!(
            choose(&tenant, &none).unwrap_err().reason,
            Reason::DataStoreNotSelected
        );
        assert_eq!(choose(&tenant, &DefaultDatastore::Managed).unwrap(), "default");
    }
}
