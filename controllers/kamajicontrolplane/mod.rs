//! The `KamajiControlPlane` controller: a control plane of Cluster API, run as a TenantControlPlane.
//!
//! It meets the hosting engine only through the TenantControlPlane of the same name and the Secrets that the engine
//! creates beside it, so that upstream Kamaji can be the engine instead of ours. The steps of a reconcile, in
//! [`reconcile`]:
//!
//! pause → deletion → finalizer → [`observe`] → [`validate`] → [`desired`] → [`apply`] → [`publish`] → [`handoff`] →
//! [`status`]
//!
//! This file wires the controller: what is watched, and the loop. [`wake`] has who wakes whom. Nothing is polled.

mod apply;
mod conditions;
mod copies;
mod delete;
mod desired;
mod endpoint;
mod events;
#[cfg(test)]
mod example;
mod field_paths;
pub mod handoff;
mod kept;
mod network;
mod observe;
mod pause;
mod progress;
mod publish;
pub mod rbac;
mod reach;
mod reconcile;
mod secrets;
mod status;
mod tenant;
#[cfg(test)]
mod tests;
mod user_ca;
mod validate;
mod versions;
mod wake;

use std::{path::Path, sync::Arc};

use anyhow::Context as _;
use futures::future::FutureExt as _;
use k8s_openapi::api::core::v1::Secret;
use kamaji_api::{
    conditions::KamajiControlPlaneCondition,
    controlplane::KamajiControlPlane,
    labels::{capi, field_manager},
    quirks::Quirks,
    tenantcontrolplane::TenantControlPlane,
};
use kube::{Client, api::PartialObjectMeta, runtime::watcher::Config};

use crate::{
    capi::{cluster::Cluster, machine::Machine, machine_pool::MachinePool, quirks},
    k8s::{apply::Applier, events::Events, index::ChildIndex, store::Store},
    runtime::{queue::Queue, role::Role, watch::Watches},
    settings::Hosting,
};
use handoff::Infrastructure;

/// Name of this controller in metrics and logs.
pub const CONTROLLER: &str = "kamajicontrolplane";

/// What every reconcile needs.
pub struct Context {
    /// Client of the management cluster.
    client: Client,
    /// All KamajiControlPlanes.
    control_planes: Arc<Store<KamajiControlPlane>>,
    /// All Clusters.
    clusters: Arc<Store<Cluster>>,
    /// All TenantControlPlanes.
    tenants: Arc<Store<TenantControlPlane>>,
    /// TenantControlPlanes, and what has the label of a Cluster: Secrets, Machines, MachinePools.
    index: Arc<ChildIndex>,
    /// The engine's Secrets that are copied. They have an index of their own, since they wake by their owner.
    engine: Arc<ChildIndex>,
    /// Writes to the management cluster.
    applier: Applier,
    /// Events.
    events: Events,
    /// Control planes that are due.
    queue: Arc<Queue>,
    /// Fingerprints of the CA certificates that were read.
    fingerprints: observe::Fingerprints,
    /// Whose engine hosts the control planes.
    hosting: Hosting,
    /// Asks who answers at an endpoint.
    ask: reach::Ask,
    /// Who answered.
    answers: reach::Answers,
    /// The way to infrastructure objects.
    infrastructure: Infrastructure,
    /// What infrastructure objects were asked.
    handoffs: handoff::Memory,
}

impl Context {
    /// An empty context whose watched objects wake the control planes they belong to, in the namespaces that `acts_on`
    /// accepts.
    fn new(
        client: Client,
        instance: Option<String>,
        hosting: Hosting,
        ask: reach::Ask,
        infrastructure: Infrastructure,
        acts_on: impl Fn(&str) -> bool + Send + Sync + 'static,
    ) -> Arc<Self> {
        let index = Arc::new(ChildIndex::default());
        let context = Arc::new(Self {
            applier: Applier::new(client.clone(), field_manager::CONTROL_PLANE, index.clone()),
            events: Events::new(client.clone(), field_manager::CONTROL_PLANE, instance),
            client,
            control_planes: Arc::default(),
            clusters: Arc::default(),
            tenants: Arc::default(),
            index,
            engine: Arc::default(),
            queue: Arc::default(),
            fingerprints: observe::Fingerprints::default(),
            hosting,
            ask,
            answers: reach::Answers::default(),
            infrastructure,
            handoffs: handoff::Memory::default(),
        });
        wake::connect(&context, acts_on);
        context
    }

    /// One watch for each kind and selector.
    fn watch(&self, role: &Role) -> Watches {
        let client = || self.client.clone();
        let of_clusters = || Config::default().labels(capi::CLUSTER_NAME);
        let mut watches = Watches::new(role, field_manager::CONTROL_PLANE);
        let condition = KamajiControlPlaneCondition::SpecValid.as_str();
        watches.roots(client(), Config::default(), &self.control_planes, condition);
        watches.store(client(), Config::default(), &self.clusters);
        watches.store(client(), Config::default(), &self.tenants);
        watches.children::<PartialObjectMeta<Secret>>(client(), of_clusters(), &self.index);
        watches.children::<PartialObjectMeta<Machine>>(client(), of_clusters(), &self.index);
        watches.children::<PartialObjectMeta<MachinePool>>(client(), of_clusters(), &self.index);
        watches.children::<PartialObjectMeta<Secret>>(
            client(),
            Config::default().labels(&secrets::sources()),
            &self.engine,
        );
        watches
    }
}

/// What is known about infrastructure kinds, with that of a file over it.
fn known_quirks(file: Option<&Path>) -> anyhow::Result<Quirks> {
    let Some(file) = file else {
        return quirks::embedded();
    };
    let of_file = || format!("--infrastructure-quirks={}", file.display());
    let text = std::fs::read_to_string(file).with_context(of_file)?;
    quirks::with(&text).with_context(of_file)
}

/// Runs the controller until the process stops.
///
/// # Errors
/// When it cannot start.
pub async fn start(role: Role) -> anyhow::Result<()> {
    let settings = role.settings.clone();
    let hosting = settings.hosting;
    let ask: reach::Ask =
        Arc::new(|server, ca| async move { crate::tenant::who_answers::ask(&server, &ca).await }.boxed());
    let quirks = known_quirks(settings.infrastructure_quirks.as_deref())?;
    let infrastructure = Infrastructure::new(role.client.clone(), quirks, settings.skip_infrastructure);
    let context = Context::new(
        role.client.clone(),
        role.instance(),
        hosting,
        ask,
        infrastructure,
        move |namespace| settings.acts_on(namespace),
    );
    role.metrics.applies(CONTROLLER, context.applier.counts());
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
