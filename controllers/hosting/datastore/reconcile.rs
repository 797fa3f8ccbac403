//! Reconciles one DataStore: validate → certificates → objects → members → connection → status.

use std::{sync::Arc, time::Duration};

use k8s_openapi::jiff::Timestamp;
use kamaji_api::{
    datastore::{DataStore, DataStoreSpec, Driver, ManagedEtcd, ManagedStatus},
    labels::{field_manager, kamaji, namespace, ours},
};
use kube::{Api, ResourceExt as _};

use super::{
    certificates,
    connection::{self, access},
    deletion, desired, events,
    identity::{self, Identity},
    observe, parts,
    status::{self, Progress},
    validate::{self, Managed, Valid},
    version,
};
use crate::{
    hosting::{driver::Health, engine::Engine, usage},
    k8s::{
        error::ApiError,
        finalizer,
        key::RootKey,
        manifest::Manifest,
        problem::Problem,
        report::{self, Publisher, Step},
    },
    runtime::driver::{Outcome, Reconciled},
    settings::DefaultDatastore,
};

/// Shortest time between two looks at a datastore without trouble. They send nothing to the management cluster.
const LOOK: Duration = Duration::from_mins(10);

/// Reconciles the DataStore `key`.
///
/// # Errors
/// When the management cluster refuses a request, or does not answer.
pub async fn reconcile(engine: Arc<Engine>, key: RootKey) -> Reconciled {
    if engine.stores.is_undecodable(&key) {
        return Ok(Outcome::Done);
    }
    let Some(store) = engine.stores.get(&key) else {
        engine.pool.forget(&key.name);
        return create_default(&engine, &key.name).await.or_else(Problem::settle);
    };
    let api: Api<DataStore> = Api::all(engine.client.clone());
    let deleting = store.metadata.deletion_timestamp.is_some();
    let store = if deleting || finalizer::has(&*store, kamaji::DATASTORE_FINALIZER) {
        store
    } else {
        // Before anything else, and paused or not: from now on no deletion outruns a tenant.
        finalizer::add(&api, &engine.stores, &*store, kamaji::DATASTORE_FINALIZER).await?;
        engine.wake_tenants_of(&key.name);
        let Some(store) = engine.stores.get(&key) else {
            return Ok(Outcome::Done);
        };
        store
    };
    let mut progress = Progress {
        users: users(&engine, &key.name),
        paused: store.annotations().contains_key(kamaji::PAUSED),
        unsupported: validate::unsupported(&store),
        ..Progress::default()
    };
    if progress.paused {
        publish(&engine, &api, &key, &progress).await?;
        return Ok(Outcome::Done);
    }
    if deleting && progress.users.is_empty() {
        // A tenant that does not decode may use any DataStore.
        if !engine.tenants.undecodable().is_empty() {
            return Ok(Outcome::Waiting);
        }
        engine.pool.forget(&key.name);
        if store.spec.managed.is_some() {
            match deletion::own_claim(&engine, &store, Timestamp::now()).await {
                Ok(None) => {}
                // The claim is watched.
                Ok(Some(wait)) => return Ok(Outcome::After(wait)),
                Err(problem) => return problem.settle(),
            }
        }
        finalizer::remove(&api, &engine.stores, &*store, &[kamaji::DATASTORE_FINALIZER]).await?;
        return Ok(Outcome::Done);
    }
    let result = advance(&engine, &store, &mut progress, Timestamp::now()).await;
    if let Err(problem) = &result {
        // The management cluster does not answer, or an object changed: the status of the DataStore is unknown.
        if problem.is_transient() {
            return result.or_else(Problem::settle);
        }
        progress.spec = problem.clone().into();
    }
    publish(&engine, &api, &key, &progress).await?;
    result.or_else(Problem::settle)
}

/// Validates the DataStore, applies what is missing and connects. `progress` records how far it came.
async fn advance(
    engine: &Engine,
    store: &DataStore,
    progress: &mut Progress,
    now: Timestamp,
) -> Result<Outcome, Problem> {
    let valid = validate::validate(store).and_then(|valid| match &valid {
        Valid::Managed(managed) => version::runnable(store, managed).map(|()| valid),
        Valid::External(_) => Ok(valid),
    });
    progress.spec = Step::of(&valid);
    let Ok(valid) = valid else {
        engine.pool.forget(&store.name_any());
        return Ok(Outcome::Done);
    };
    let (mut renew_at, mut claim) = (None, None);
    if let Valid::Managed(managed) = &valid {
        let keys = certificates::ensure(engine, store, managed, now).await;
        progress.certificates = Step::of(&keys);
        let keys = match keys {
            Ok(keys) => keys,
            // Running members keep their certificates. A Secret without our label is not watched.
            Err(problem) => return wait(problem),
        };
        renew_at = keys.renew_at;
        apply(engine, store, managed, &keys.ca, progress).await?;
        if !progress.members.is_done() {
            // Claims and members are watched.
            engine.pool.forget(&managed.name);
            return Ok(Outcome::Done);
        }
        claim = observe::members(engine, managed).claim.map(|claim| claim.uid);
        if identity::is_other_claim(store, claim.as_deref()) {
            // What serves now has to show its id.
            engine.pool.forget(&managed.name);
        }
    }
    match opened(engine, store, now).await {
        Ok((health, id)) => {
            if let Some(id) = id {
                let identity = Identity { store: id, claim };
                record(engine, store, &valid, &identity).await?;
                progress.identity = Some(identity);
            }
            progress.connection = Step::Done;
            let settled = is_settled(store, &health) && progress.identity.is_some();
            progress.health = Some(health);
            if settled {
                Ok(next_look(renew_at, now))
            } else {
                // Nothing reports an upgrade, a member that is back, or room for data.
                Ok(Outcome::Waiting)
            }
        }
        Err(problem) => {
            let step = if status::is_about_credentials(&problem) {
                &mut progress.spec
            } else {
                &mut progress.connection
            };
            *step = problem.clone().into();
            wait(problem)
        }
    }
}

/// Everything that the datastore tells about itself is as it should be.
fn is_settled(store: &DataStore, health: &Health) -> bool {
    version::is_settled(store, health) && health.silent.is_empty() && !health.space.full
}

/// Records which datastore it is, before the DataStore is ever ready. From then on an empty member does not start.
async fn record(
    engine: &Engine,
    store: &DataStore,
    valid: &Valid,
    identity: &Identity,
) -> Result<(), Problem> {
    let api: Api<DataStore> = Api::all(engine.client.clone());
    let (finalizer, annotations) = (kamaji::DATASTORE_FINALIZER, identity.annotations(store));
    finalizer::claim_anew(&api, &engine.stores, store, finalizer, &annotations).await?;
    if let Valid::Managed(managed) = valid
        && let Some(recorded) = engine.stores.get(&RootKey::of(store))
    {
        engine.applier.apply(&desired::start(&recorded, managed)?).await?;
    }
    Ok(())
}

/// Opens the DataStore, and returns what it tells about itself, and its id if it has one: asked again where something was
/// not as it should be.
async fn opened(
    engine: &Engine,
    store: &DataStore,
    now: Timestamp,
) -> Result<(Health, Option<String>), Problem> {
    let name = store.name_any();
    let mut access = access(engine, store).await?;
    let health = access.admin.health();
    if !is_settled(store, &health) || access.admin.has_news() || access.id.is_none() {
        let looked = access.admin.look().await;
        let found = match looked {
            Ok(()) => access.admin.identity().await,
            Err(error) => Err(error),
        };
        let found = found.map_err(|error| {
            engine.pool.forget(&name);
            connection::problem(&error)
        })?;
        // It came back as another one, or empty; or it has to get an id.
        if found.is_none() || found != access.id {
            engine.pool.forget(&name);
            access = connection::access(engine, store).await?;
        }
    }
    // Before the first tenant nobody has a certificate to ask with; its controller asks then.
    let tenants = engine.tenants_of(&name).into_iter();
    let mut users = tenants.filter_map(|key| usage::user_in(&*engine.tenants.get(&key)?, &name));
    if let Some(user) = users.next()
        && let Err(error) = access.try_as_tenant(&user, now).await
    {
        // The user is that of one tenant, whose own controller reports what is wrong with it.
        tracing::debug!(datastore = name, user, %error, "the status was not asked for as a tenant");
    }
    Ok((access.admin.health(), access.id.clone()))
}

/// Tries again with backoff; a problem that says nothing about the DataStore is a failure.
fn wait(problem: Problem) -> Result<Outcome, Problem> {
    if problem.is_transient() {
        Err(problem)
    } else {
        Ok(Outcome::Waiting)
    }
}

/// Applies start, Service, NetworkPolicy and StatefulSet, sets the owner of the claim, and observes the members.
async fn apply(
    engine: &Engine,
    store: &DataStore,
    managed: &Managed,
    ca: &str,
    progress: &mut Progress,
) -> Result<(), Problem> {
    engine
        .applier
        .apply_all(&desired::objects(store, managed, ca)?)
        .await?;
    let members = observe::members(engine, managed);
    if members.claim.as_ref().is_some_and(|claim| claim.adoptable) {
        let claim = desired::adopted_claim(store, &parts::claim_name(&managed.name))?;
        engine.applier.apply(&claim).await?;
    }
    let classes = if members.is_claim_pending() {
        observe::storage_classes(&engine.client).await?
    } else {
        Vec::new()
    };
    let ready = status::members(managed, &members, &classes);
    let claim = members.claim.as_ref().map(|claim| claim.uid.as_str());
    progress.members = ready
        .map_err(|problem| identity::lost_volume(store, claim).unwrap_or(problem))
        .into();
    progress.managed = Some(ManagedStatus {
        namespace: Some(namespace::DATASTORES.to_owned()),
        endpoints: parts::endpoints(managed),
        ready_replicas: Some(members.ready),
        version: Some(managed.version.clone()),
        claim_uid: None,
    });
    Ok(())
}

/// Creates the DataStore `default`, if `--default-datastore` is `managed`.
async fn create_default(engine: &Engine, name: &str) -> Result<Outcome, Problem> {
    if name != ours::DEFAULT_DATASTORE || engine.settings.default_datastore != DefaultDatastore::Managed {
        return Ok(Outcome::Done);
    }
    let spec = DataStoreSpec {
        driver: Some(Driver::Etcd),
        managed: Some(ManagedEtcd::default()),
        ..DataStoreSpec::default()
    };
    let manifest = Manifest::of(&DataStore::new(name, spec))?;
    match engine.applier.create(&manifest).await {
        Ok(_) => tracing::info!(datastore = name, "created the default DataStore"),
        Err(error) if error.is_already_exists() => {}
        Err(error) => return Err(error.into()),
    }
    Ok(Outcome::Done)
}

/// Writes the status if it changed, emits Events, and reconciles the tenants that depend on the change.
async fn publish(
    engine: &Engine,
    api: &Api<DataStore>,
    key: &RootKey,
    progress: &Progress,
) -> Result<(), ApiError> {
    let publisher = Publisher {
        api,
        roots: &engine.stores,
        events: &engine.events,
        field_manager: field_manager::HOSTING,
    };
    let rules = events::rules(status::is_starting(progress));
    let written = report::publish(publisher, key, rules, |store| {
        status::status(store, progress, Timestamp::now())
    })
    .await?;
    if let Some(written) = written
        && status::concerns_tenants(written.object.status.as_ref(), &written.status)
    {
        engine.wake_tenants_of(&key.name);
    }
    Ok(())
}

/// `namespace/name` of the tenants of a DataStore, sorted.
fn users(engine: &Engine, name: &str) -> Vec<String> {
    let tenants = engine.tenants_of(name).into_iter();
    let mut users: Vec<_> = tenants.map(|key| key.to_string()).collect();
    users.sort_unstable();
    users
}

/// When a datastore without trouble is asked again how full it is, or its certificates are renewed. Datastores are not all
/// asked at once.
fn next_look(renew_at: Option<Timestamp>, now: Timestamp) -> Outcome {
    let look = LOOK.mul_f64(1.0 + 0.5 * rand::random::<f64>());
    let renew = renew_at.map(|at| {
        let seconds = at.as_second().saturating_sub(now.as_second());
        Duration::from_secs(u64::try_from(seconds).unwrap_or_default())
    });
    Outcome::After(renew.map_or(look, |renew| renew.min(look)))
}
