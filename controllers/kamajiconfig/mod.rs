//! The `KamajiConfig` controller, which is the bootstrap provider: it creates the bootstrap data of a machine, keeps its
//! token valid until it joins, and approves its certificate.
//!
//! This file only wires: the root is the KamajiConfig, and [`wake`] is the table of what wakes it. [`reconcile`] has the
//! steps, and works on a [`scope`] with the [`settings`] of its machine: [`observe`] and [`validate`], then the [`preconditions`], then [`tenants`] (connections
//! to workload clusters), [`data_secret`] with [`bootstrapdata`], and [`node_join`] with [`approval`]; [`status`] and
//! [`events`] report. A machine that joined costs nothing more: no watch, no timer, no request.
//!
//! What depends on "one config is one Machine" matches on [`owner::Owner`], where MachinePools have a variant.

pub mod approval;
pub mod bootstrapdata;
mod data_secret;
mod events;
mod names;
mod node_join;
mod observe;
pub mod owner;
mod preconditions;
pub mod preset;
pub mod rbac;
mod reconcile;
mod scope;
pub mod settings;
pub mod status;
mod target;
mod tenants;
#[cfg(test)]
mod tests;
pub mod token;
pub mod validate;
mod wake;

use std::sync::Arc;

use k8s_openapi::api::core::v1::Secret;
use kamaji_api::{
    bootstrap::KamajiConfig,
    conditions::KamajiConfigCondition,
    controlplane::KamajiControlPlane,
    labels::{capi, field_manager},
};
use kube::{Client, api::PartialObjectMeta, runtime::watcher::Config};
use tokio::sync::Semaphore;

use crate::{
    capi::{cluster::Cluster, machine::Machine},
    k8s::{apply::Applier, events::Events, index::ChildIndex, store::Store},
    runtime::{queue::Queue, role::Role, watch::Watches},
};
use tenants::Tenants;

/// Name of this controller in metrics and logs.
pub const CONTROLLER: &str = "kamajiconfig";

/// Configs of one workload cluster that are reconciled at the same time: one that does not answer must not take all places.
const PASSES: usize = 4;

/// What every reconcile needs.
pub struct Context {
    /// Client of the management cluster.
    client: Client,
    /// Name of the role, for the user agent in workload clusters.
    role: &'static str,
    configs: Arc<Store<KamajiConfig>>,
    machines: Arc<Store<Machine>>,
    clusters: Arc<Store<Cluster>>,
    control_planes: Arc<Store<KamajiControlPlane>>,
    /// Metadata of Secrets with the label of a Cluster.
    index: Arc<ChildIndex>,
    applier: Applier,
    events: Events,
    tenants: Tenants,
    queue: Arc<Queue>,
    /// Turns of [`observe::references`].
    readers: Semaphore,
}

impl Context {
    fn new(
        client: Client,
        role: &'static str,
        instance: Option<String>,
        acts_on: impl Fn(&str) -> bool + Send + Sync + 'static,
    ) -> Arc<Self> {
        let index = Arc::new(ChildIndex::default());
        let configs: Arc<Store<KamajiConfig>> = Arc::default();
        wake::index(&configs);
        let of = configs.clone();
        let queue = Arc::new(Queue::in_lanes(PASSES, move |key| wake::lane(&of, key)));
        let context = Arc::new(Self {
            applier: Applier::new(client.clone(), field_manager::BOOTSTRAP, index.clone()),
            events: Events::new(client.clone(), field_manager::BOOTSTRAP, instance),
            tenants: Tenants::new(configs.clone(), queue.clone()),
            client,
            role,
            configs,
            machines: Arc::default(),
            clusters: Arc::default(),
            control_planes: Arc::default(),
            index,
            queue,
            readers: Semaphore::new(observe::READERS),
        });
        wake::connect(&context, acts_on);
        context
    }

    /// One watch for each kind.
    fn watch(&self, role: &Role) -> Watches {
        let client = || self.client.clone();
        let mut watches = Watches::new(role, field_manager::BOOTSTRAP);
        let condition = KamajiConfigCondition::SpecValid.as_str();
        watches.roots(client(), Config::default(), &self.configs, condition);
        watches.store(client(), Config::default(), &self.machines);
        watches.store(client(), Config::default(), &self.clusters);
        watches.store(client(), Config::default(), &self.control_planes);
        watches.children::<PartialObjectMeta<Secret>>(
            client(),
            Config::default().labels(capi::CLUSTER_NAME),
            &self.index,
        );
        watches
    }
}

/// Runs the controller until the process stops.
///
/// # Errors
/// When it cannot start.
pub async fn start(role: Role) -> anyhow::Result<()> {
    let settings = role.settings.clone();
    let context = Context::new(
        role.client.clone(),
        role.name.as_str(),
        role.instance(),
        move |namespace| settings.acts_on(namespace),
    );
    role.metrics.applies(CONTROLLER, context.applier.counts());
    let shared = context.clone();
    role.metrics
        .connections(CONTROLLER, move || shared.tenants.count());
    let mut watches = context.watch(&role);
    if !role.listed(&mut watches).await? {
        return Ok(());
    }
    role.readiness.set(role.name, true);
    let shared = context.clone();
    let reconcile = move |key| {
        let context = shared.clone();
        async move { reconcile::reconcile(&context, &key).await }
    };
    let driven = role.drive(CONTROLLER, &context.queue, role.settings.concurrency, reconcile);
    watches.during(driven).await
}
