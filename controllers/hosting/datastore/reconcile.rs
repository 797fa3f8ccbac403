//! Reconciles one DataStore: validate, certificates, parts, connection, status.

use std::{sync::Arc, time::Duration};

use k8s_openapi::{
    api::{apps::v1::StatefulSet, core::v1::PersistentVolumeClaim},
    jiff::Timestamp,
};
use kamaji_api::{
    conditions::{DataStoreCondition, Reason},
    datastore::{DataStore, DataStoreSpec, Driver, ManagedEtcd, ManagedStatus},
    labels::{field_manager, kamaji, namespace, ours},
};
use kube::{Api, ResourceExt as _};

use super::{
    certificates,
    connection::access,
    desired, observe, parts,
    status::{self, Seen, SeenManaged},
    usage,
    validate::{self, Managed, Problem, Valid},
};
use crate::{
    hosting::engine::Engine,
    k8s::{
        conditions,
        error::Class,
        finalizer,
        key::RootKey,
        manifest::Manifest,
        row::Facts,
        status::{self as object_status, Guard},
    },
    runtime::driver::{Failure, Outcome, Reconciled},
    settings::DefaultDatastore,
};

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
        let made = ensure_parts(engine, store, managed, &keys.ca).await?;
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
    ca: &str,
) -> Result<SeenManaged, Failure> {
    let name = managed.name.as_str();
    let parts = desired::objects(store, managed, ca).map_err(unwritable)?;
    engine.applier.apply_all(&parts).await?;
    let claim_name = parts::claim_name(name);
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
            endpoints: parts::endpoints(managed),
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
