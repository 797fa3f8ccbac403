//! What the convergence models of the engine's controllers share: an engine on an API server in memory, its watches,
//! and one turn of a queue. Tests only.

pub(in crate::hosting) mod tenant;

use std::sync::Arc;

use kamaji_api::labels::{field_manager, ours};

use super::engine::Engine;
use crate::k8s::key::RootKey;
use crate::runtime::{driver::Reconciled, queue::Queue, role::Role};
use crate::settings::{DefaultDatastore, Hosting, RoleName, Settings};
use crate::testing::{Change, FakeApi};

/// An engine of a new process: nothing is known yet.
pub async fn engine(api: &FakeApi, default_datastore: DefaultDatastore) -> Arc<Engine> {
    let role = Role {
        name: RoleName::Hosting,
        client: api.client(),
        settings: Arc::new(Settings {
            namespaces: std::collections::BTreeSet::new(),
            hosting: Hosting::Embedded,
            default_datastore,
            own_namespace: "system".to_owned(),
            pod_name: None,
            concurrency: 1,
        }),
        metrics: crate::runtime::metrics::Metrics::default(),
        readiness: crate::runtime::http::Readiness::default(),
        stop: tokio_util::sync::CancellationToken::new(),
    };
    Engine::new(&role).await.unwrap()
}

/// Lists everything, as watches do at the start.
pub fn list(engine: &Engine, api: &FakeApi) {
    api.changes();
    for object in api.objects() {
        fold(engine, &Change::listed(object));
    }
}

/// Folds a change as the watch of its kind does.
pub fn fold(engine: &Engine, change: &Change) {
    // What lost the label left the watch.
    let ours = change.label(ours::MANAGED_BY) == field_manager::HOSTING;
    let index = &engine.index;
    match change.kind() {
        "TenantControlPlane" => engine.tenants.fold(change.event()),
        "DataStore" => engine.stores.fold(change.event()),
        _ => change.fold_any_child(index, ours),
    }
}

/// Reconciles what is due, and lets what failed be due again; `true` when anything was.
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

/// Those of `requests` that write.
pub fn writes(requests: &[String]) -> Vec<&String> {
    requests.iter().filter(|r| !r.starts_with("GET")).collect()
}
