//! What the convergence tests of the engine's controllers share: an engine on an in-memory API server, its watches,
//! and one turn of a queue. Tests only.

pub(in crate::hosting) mod tenant;

use std::{collections::BTreeSet, sync::Arc};

use kamaji_api::labels::{capi, field_manager, ours};
use tokio_util::sync::CancellationToken;

use super::{engine::Engine, wake};
use crate::{
    k8s::key::RootKey,
    runtime::{driver::Reconciled, http::Readiness, metrics::Metrics, queue::Queue, role::Role},
    settings::{DefaultDatastore, Hosting, PodOverrides, RoleName, Settings},
    testing::{Change, FakeApi},
};

/// The engine of a new process, with an empty index.
pub async fn engine(api: &FakeApi, default_datastore: DefaultDatastore) -> Arc<Engine> {
    let role = Role {
        name: RoleName::Hosting,
        client: api.client(),
        settings: Arc::new(Settings {
            namespaces: BTreeSet::new(),
            hosting: Hosting::Embedded,
            default_datastore,
            own_namespace: "system".to_owned(),
            pod_name: None,
            concurrency: 1,
            pod_overrides: PodOverrides::default(),
            external_ips: Vec::new(),
            skip_infrastructure: false,
            infrastructure_quirks: None,
        }),
        metrics: Metrics::default(),
        readiness: Readiness::default(),
        stop: CancellationToken::new(),
    };
    let engine = Engine::new(&role).await.unwrap();
    wake::connect(&engine);
    engine
}

/// Lists everything, as the watches do when a process starts.
pub fn list(engine: &Engine, api: &FakeApi) {
    api.changes();
    for object in api.objects() {
        fold(engine, &Change::listed(object));
    }
}

/// Folds a change into the index or a store, as the watch of its kind does.
pub fn fold(engine: &Engine, change: &Change) {
    // An object that loses the label leaves the watch.
    let ours = change.label(ours::MANAGED_BY) == field_manager::HOSTING;
    let of_a_cluster = change.kind() == "Secret" && !change.label(capi::CLUSTER_NAME).is_null();
    let index = &engine.index;
    match change.kind() {
        "TenantControlPlane" => engine.tenants.fold(change.event()),
        "DataStore" => engine.stores.fold(change.event()),
        _ => change.fold_any_child(index, ours || of_a_cluster),
    }
}

/// Reconciles what is queued, and queues again what failed; `true` when anything was queued.
pub async fn turn(queue: &Queue, reconcile: impl AsyncFn(RootKey) -> Reconciled) -> bool {
    let mut worked = false;
    let mut again = Vec::new();
    while !queue.is_empty() {
        let key = queue.next().await;
        worked = true;
        if reconcile(key.clone()).await.is_err() {
            again.push(key.clone());
        }
        queue.done(key, None);
    }
    for key in again {
        queue.add(key);
    }
    worked
}

/// The requests that write.
pub fn writes(requests: &[String]) -> Vec<&String> {
    requests.iter().filter(|r| !r.starts_with("GET")).collect()
}
