//! Opens the shared admin connection to a DataStore, and drops it after a failure.

use std::sync::Arc;

use kamaji_api::{conditions::Reason, datastore::DataStore};
use kube::ResourceExt as _;

use super::{
    driver::{self, Access},
    observe,
    validate::{self, Problem, Valid},
};
use crate::{
    hosting::engine::Engine,
    k8s::{
        error::{ApiError, Class},
        key::RootKey,
    },
    runtime::driver::Failure,
};

impl From<Problem> for Failure {
    fn from(problem: Problem) -> Self {
        Self::new(problem.class, problem)
    }
}

/// Opens a DataStore, or returns what is open already.
pub async fn access(engine: &Engine, store: &DataStore) -> Result<Arc<Access>, Problem> {
    if let Some(open) = engine.pool.get(store) {
        return Ok(open);
    }
    let valid = validate::validate(store)?;
    let credentials = observe::credentials(&engine.client, &valid).await?;
    let access = engine.pool.open(&credentials).await?;
    match valid {
        Valid::Managed(_) => access.admin.ensure_auth().await?,
        Valid::External(_) if access.admin.auth_enabled().await? => {}
        Valid::External(_) => {
            return Err(Problem {
                reason: Reason::DataStoreAuthenticationDisabled,
                message: "this etcd does not check who asks, so tenants could read each other: create the user and \
                          role root and run etcdctl auth enable"
                    .to_owned(),
                class: Class::Foreign,
            });
        }
    }
    let (access, moved) = engine.pool.put(store, access);
    if moved {
        engine.wake_tenants_of(&store.name_any());
    }
    Ok(access)
}

/// Drops the cached connection after a failure and requeues the DataStore: the next [`access`] connects again, and the
/// DataStore's status reports what is wrong.
pub fn invalidate(engine: &Engine, store: &str) {
    engine.pool.forget(store);
    engine.store_queue.add(RootKey::new("", store));
}

impl From<ApiError> for Problem {
    fn from(error: ApiError) -> Self {
        Self {
            reason: match error.class() {
                Class::Denied => Reason::Forbidden,
                _ => Reason::InternalError,
            },
            message: error.to_string(),
            class: error.class(),
        }
    }
}

impl From<driver::Error> for Problem {
    fn from(error: driver::Error) -> Self {
        Self {
            reason: error.reason(),
            message: error.to_string(),
            class: error.class(),
        }
    }
}
