//! Opens the shared admin connection to a DataStore, and drops it after a failure.

use std::sync::Arc;

use kamaji_api::{conditions::Reason, datastore::DataStore};
use kube::ResourceExt as _;

use super::{
    identity, observe,
    validate::{self, Valid},
};
use crate::{
    hosting::{
        driver::{self, Access},
        engine::Engine,
    },
    k8s::{error::Class, key::RootKey, problem::Problem},
};

/// Returns the shared connection to a DataStore, opening it if necessary. All that need it at the same time wait for one
/// attempt and share its end.
///
/// # Errors
/// When spec or credentials cannot be used, the datastore does not answer, an external etcd has authentication off, or it is
/// not the datastore with the data.
pub async fn access(engine: &Engine, store: &DataStore) -> Result<Arc<Access>, Problem> {
    if let Some(open) = engine.pool.get(store) {
        return Ok(open);
    }
    let attempts = engine.pool.attempts(store);
    // On the heap: everything that opens a DataStore would carry its connection.
    let attempt = Box::pin(open(engine, store));
    attempts.share(|| engine.pool.get(store), attempt).await
}

async fn open(engine: &Engine, store: &DataStore) -> Result<Arc<Access>, Problem> {
    let valid = validate::validate(store)?;
    let credentials = observe::credentials(&engine.client, &valid).await?;
    let access = engine.pool.open(&credentials).await;
    let access = access.map_err(|error| problem(&error))?;
    // First: an etcd that lost its data lost its users too, and has authentication off.
    let found = access.admin.identity().await;
    let found = found.map_err(|error| problem(&error))?;
    let known = identity::check(store, found.as_deref())?;
    let authenticated = match valid {
        Valid::Managed(_) => access.admin.ensure_auth().await.map(|()| true),
        Valid::External(_) => access.admin.auth_enabled().await,
    };
    if !authenticated.map_err(|error| problem(&error))? {
        return Err(Problem::backoff(
            Class::Foreign,
            Reason::DataStoreAuthenticationDisabled,
            "spec.endpoints: authentication is disabled in this etcd, so tenants could read each other's data; create the \
             user root with the role root and run `etcdctl auth enable`",
        ));
    }
    let id = match known {
        Some(id) => Some(id),
        None => identify(&access).await?,
    };
    let access = Access { id, ..access };
    let (access, moved) = engine.pool.put(store, access);
    if moved {
        engine.wake_tenants_of(&store.name_any());
    }
    Ok(access)
}

/// Gives the datastore an id. One that takes no writes stays without: an earlier version gave it none, and what needs no
/// room in it goes on.
async fn identify(access: &Access) -> Result<Option<String>, Problem> {
    let id = format!("{:016x}", rand::random::<u64>());
    match access.admin.identify(&id).await {
        Ok(id) => Ok(Some(id)),
        Err(driver::Error::Full { .. }) => Ok(None),
        Err(error) => Err(problem(&error)),
    }
}

/// Drops the cached connection after a failure and requeues the DataStore: the next [`access`] connects again, and the
/// DataStore's status reports what is wrong.
pub fn invalidate(engine: &Engine, store: &str) {
    engine.pool.forget(store);
    engine.store_queue.add(RootKey::new("", store));
}

/// How a failed request of the admin is reported.
pub fn problem(error: &driver::Error) -> Problem {
    Problem::new(error.class().into(), error.reason(), error.to_string())
}
