//! DataStores: where tenants keep their state (DESIGN 2.8, 7; hosting specification 1.5, 3).
//!
//! Owns the DataStore objects, the etcd of `spec.managed`, the names of schemas and users ([`names`]) and the way
//! into a datastore ([`driver`]).
//!
//! A tenant asks [`status::usable`] whether it may be placed, opens the datastore with [`access`] and calls
//! [`driver::etcd::EtcdAdmin::ensure_tenant`] or [`driver::etcd::EtcdAdmin::delete_tenant`]; what it presents there
//! is a certificate of [`crate::pki::spec::datastore`], signed by [`driver::Access::authority`]. A datastore that
//! failed is handed back with [`doubt`].
//!
//! Deletion is held by a finalizer while a tenant uses the DataStore. What the engine made for a managed one,
//! volume included, belongs to it and goes with it.

use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::apps::v1::StatefulSet;
use k8s_openapi::api::core::v1::PersistentVolumeClaim;
use k8s_openapi::jiff::Timestamp;
use kamaji_api::conditions::{DataStoreCondition, Reason};
use kamaji_api::datastore::{DataStore, DataStoreSpec, Driver, ManagedEtcd, ManagedStatus};
use kamaji_api::labels::{field_manager, kamaji, namespace, ours};
use kube::{Api, ResourceExt as _};

mod certificates;
pub mod desired;
pub mod driver;
mod member;
pub mod names;
pub mod observe;
mod quantity;
pub mod status;
#[cfg(test)]
mod tests;
pub mod usage;
pub mod validate;

use self::driver::Access;
use self::status::{Seen, SeenManaged};
use self::validate::{Managed, Problem, Valid};
use super::engine::Engine;
use crate::k8s::conditions;
use crate::k8s::error::{ApiError, Class};
use crate::k8s::finalizer;
use crate::k8s::key::RootKey;
use crate::k8s::manifest::Manifest;
use crate::k8s::row::Facts;
use crate::k8s::status::{self as object_status, Guard};
use crate::runtime::driver::{Failure, Outcome, Reconciled};
use crate::settings::DefaultDatastore;

/// Name of this controller in metrics and logs.
pub const CONTROLLER: &str = "datastore";
/// DataStores that are reconciled at once.
pub const CONCURRENCY: usize = 4;

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

/// Hands a DataStore back that failed: the next one to ask connects anew, and its status says what is wrong.
pub fn doubt(engine: &Engine, store: &str) {
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

/// Asks for everything that has to be there from the start.
pub fn prime(engine: &Engine) {
    if engine.settings.default_datastore == DefaultDatastore::Managed {
        engine.store_queue.add(RootKey::new("", ours::DEFAULT_DATASTORE));
    }
}

/// Brings one DataStore nearer to its spec.
pub async fn reconcile(engine: Arc<Engine>, key: RootKey) -> Reconciled {
    let Some(store) = engine.stores.get(&key) else {
        engine.pool.forget(&key.name);
        return make_default(&engine, &key.name).await;
    };
    let api: Api<DataStore> = Api::all(engine.client.clone());
    let mut seen = Seen {
        users: users(&engine, &key.name),
        paused: store.annotations().contains_key(kamaji::PAUSED),
        unsupported: validate::unsupported(&store),
        ..Seen::default()
    };
    if seen.paused {
        write(&engine, &api, &store, &seen).await?;
        return Ok(Outcome::Done);
    }
    if store.metadata.deletion_timestamp.is_some() && seen.users.is_empty() {
        engine.pool.forget(&key.name);
        finalizer::remove(&api, &engine.stores, &*store, &[kamaji::DATASTORE_FINALIZER]).await?;
        return Ok(Outcome::Done);
    }
    if !seen.users.is_empty() && store.metadata.deletion_timestamp.is_none() {
        finalizer::add(&api, &engine.stores, &*store, kamaji::DATASTORE_FINALIZER).await?;
    }
    let looked = look(&engine, &store, &mut seen).await;
    if let Err(failure) = &looked {
        // A management API that hiccups says nothing about the datastore.
        if matches!(failure.class, Class::Transient | Class::Conflict) {
            return looked;
        }
        seen.valid = Some(Err(Problem {
            reason: if failure.class == Class::Denied {
                Reason::Forbidden
            } else {
                Reason::InternalError
            },
            message: failure.to_string(),
            class: failure.class,
        }));
    }
    write(&engine, &api, &store, &seen).await?;
    looked
}

/// Looks at everything and makes what is missing; fills `seen` as far as it came.
async fn look(engine: &Engine, store: &DataStore, seen: &mut Seen) -> Reconciled {
    let valid = match validate::validate(store) {
        Ok(valid) => valid,
        Err(problem) => {
            engine.pool.forget(&store.name_any());
            seen.valid = Some(Err(problem));
            return Ok(Outcome::Done);
        }
    };
    let mut renew_at = None;
    if let Valid::Managed(managed) = &valid {
        seen.valid = Some(Ok(()));
        let keys = match certificates::ensure(engine, store, managed, Timestamp::now()).await {
            Ok(keys) => keys,
            Err(problem) if matches!(problem.class, Class::Transient | Class::Conflict) => {
                return Err(problem.into());
            }
            Err(problem) => {
                // Members that run go on with what they have. A Secret without our label is not watched.
                seen.certificates = Some(Err(problem));
                return Ok(Outcome::Waiting);
            }
        };
        seen.certificates = Some(Ok(()));
        renew_at = keys.renew_at;
        let made = ensure_parts(engine, store, managed, &keys.authority).await?;
        let ready = made.members.is_ok();
        seen.managed = Some(made);
        if !ready {
            // Claims and members are watched.
            engine.pool.forget(&managed.name);
            return Ok(Outcome::Done);
        }
    }
    match access(engine, store).await {
        Ok(_) => {
            seen.valid = Some(Ok(()));
            seen.reached = Some(Ok(()));
            Ok(renew_at.map_or(Outcome::Done, until))
        }
        Err(problem) if matches!(problem.class, Class::Transient | Class::Conflict) => Err(problem.into()),
        Err(problem) => {
            if is_about_credentials(problem.reason) {
                seen.valid = Some(Err(problem));
            } else {
                seen.valid = Some(Ok(()));
                seen.reached = Some(Err(problem));
            }
            Ok(Outcome::Waiting)
        }
    }
}

fn is_about_credentials(reason: Reason) -> bool {
    matches!(
        reason,
        Reason::SecretNotFound | Reason::CredentialsInvalid | Reason::Forbidden | Reason::InternalError
    )
}

/// Applies Service, policy and StatefulSet, and adopts the claim.
async fn ensure_parts(
    engine: &Engine,
    store: &DataStore,
    managed: &Managed,
    authority: &str,
) -> Result<SeenManaged, Failure> {
    let name = managed.name.as_str();
    let parts = desired::parts(store, managed, authority).map_err(unwritable)?;
    engine.applier.apply_all(&parts).await?;
    let claim_name = desired::claim_name(name);
    let claim = engine
        .index
        .find::<PersistentVolumeClaim>(namespace::DATASTORES, &claim_name);
    if claim
        .as_ref()
        .is_some_and(|claim| claim.owner.is_none() && !claim.deleting)
    {
        let adopted = desired::adopted_claim(store, &claim_name).map_err(unwritable)?;
        engine.applier.apply(&adopted).await?;
    }
    let set = engine.index.find::<StatefulSet>(namespace::DATASTORES, name);
    let ready = match set.as_ref().map(|row| &row.facts) {
        Some(Facts::StatefulSet {
            ready,
            observed: true,
        }) => *ready,
        _ => 0,
    };
    let trouble = || {
        let index = &engine.index;
        index.pod_trouble(namespace::DATASTORES, ours::DATASTORE, name)
    };
    let members = match claim.as_ref().map(|claim| &claim.facts) {
        Some(Facts::Claim { phase, class }) if phase != "Bound" => {
            let classes = observe::storage_classes(&engine.client).await?;
            Err(status::storage_problem(
                &format!("{}/{claim_name}", namespace::DATASTORES),
                &managed.spec.storage.size.0,
                class.as_deref(),
                &classes,
                trouble().as_deref(),
            ))
        }
        _ if ready >= managed.spec.replicas => Ok(()),
        _ => Err(Problem {
            reason: Reason::WaitingForMembers,
            message: format!(
                "{ready} of {} pods of StatefulSet {}/{name} are ready{}",
                managed.spec.replicas,
                namespace::DATASTORES,
                trouble().map_or_else(String::new, |trouble| format!(": {trouble}"))
            ),
            class: Class::Transient,
        }),
    };
    Ok(SeenManaged {
        status: ManagedStatus {
            namespace: Some(namespace::DATASTORES.to_owned()),
            endpoints: desired::endpoints(managed),
            ready_replicas: Some(ready),
            version: Some(managed.version.clone()),
        },
        members,
    })
}

/// Creates the DataStore `default`, where the flags ask for it.
async fn make_default(engine: &Engine, name: &str) -> Reconciled {
    if name != ours::DEFAULT_DATASTORE || engine.settings.default_datastore != DefaultDatastore::Managed {
        return Ok(Outcome::Done);
    }
    let spec = DataStoreSpec {
        driver: Some(Driver::Etcd),
        managed: Some(ManagedEtcd::default()),
        ..DataStoreSpec::default()
    };
    let manifest = Manifest::of(&DataStore::new(name, spec)).map_err(unwritable)?;
    match engine.applier.create(&manifest).await {
        Ok(_) => tracing::info!(datastore = name, "made the default DataStore"),
        Err(error) if error.is_already_exists() => {}
        Err(error) => return Err(error.into()),
    }
    Ok(Outcome::Done)
}

/// Writes the status where it differs, tells of a change for the worse, and wakes who waits.
async fn write(engine: &Engine, api: &Api<DataStore>, store: &DataStore, seen: &Seen) -> Result<(), Failure> {
    let old = store.status.as_ref();
    let new = status::status(store, seen, Timestamp::now());
    let sent = object_status::apply(
        api,
        &engine.stores,
        store,
        &new,
        field_manager::HOSTING,
        Guard::None,
    )
    .await?;
    if !sent {
        return Ok(());
    }
    let was_ready = old.is_some_and(|old| old.ready);
    if status::concerns_tenants(old, &new) {
        engine.wake_tenants_of(&store.name_any());
    }
    let ready = DataStoreCondition::Ready.as_str();
    let reason = |list| conditions::get(list, ready).map(|condition| condition.reason.clone());
    let before = old.and_then(|old| reason(&old.conditions));
    if let Some(now) = conditions::get(&new.conditions, ready)
        && now.status == "False"
        && before.as_ref() != Some(&now.reason)
        && (was_ready || !status::is_starting(seen))
    {
        engine.events.warn(store, &now.reason, &now.message).await;
    }
    Ok(())
}

fn users(engine: &Engine, name: &str) -> Vec<String> {
    let tenants = engine.tenants.all();
    usage::users_of(
        name,
        tenants.iter().map(|tenant| &**tenant),
        engine.settings.default_datastore.name(),
    )
}

/// Runs again at a computed time.
fn until(at: Timestamp) -> Outcome {
    let seconds = at.as_second().saturating_sub(Timestamp::now().as_second());
    Outcome::After(Duration::from_secs(u64::try_from(seconds).unwrap_or_default()))
}

fn unwritable(error: serde_json::Error) -> Failure {
    Failure::new(Class::Invalid, error)
}
