//! The `KamajiConfig` controller: what a machine is told on its first boot, the token it joins with, and the approval
//! of its certificate (bootstrap.md, contract.md 3).
//!
//! The KamajiConfig is the root; Machines, Clusters and KamajiControlPlanes are read beside it. One pass stands in
//! [`reconcile`], its two halves in [`data_secret`] and [`node_join`], the approval of certificates in [`approval`],
//! the watches of tenants in [`tenants`]. A machine that joined costs nothing any more: no watch, no timer, no request.
//!
//! What is pure: [`bootstrapdata`], [`validate`], [`preconditions`], [`stop`], [`approval::csr`],
//! [`approval::requests`], [`token`], [`tenants::rbac`], [`tenants::report`], [`status`].

pub mod approval;
pub mod bootstrapdata;
mod data_secret;
mod node_join;
mod observe;
pub mod preconditions;
mod reconcile;
pub mod status;
mod stop;
mod tenants;
#[cfg(test)]
mod tests;
pub mod token;
pub mod validate;

use std::sync::Arc;

use k8s_openapi::api::core::v1::Secret;
use kamaji_api::{
    bootstrap::KamajiConfig,
    controlplane::KamajiControlPlane,
    labels::{capi, field_manager, ours},
};
use kube::{Api, Client, ResourceExt as _, api::PartialObjectMeta, runtime::watcher::Config};

use crate::{
    capi::{cluster::Cluster, machine::Machine, owner},
    k8s::{apply::Applier, events::Events, index::ChildIndex, key::RootKey, store::Store},
    runtime::{queue::Queue, role::Role, watch::Watches},
};
use tenants::Tenants;

/// Name of this controller in metrics and logs.
pub const CONTROLLER: &str = "kamajiconfig";

/// What every pass needs.
pub struct Context {
    /// Client of the management cluster.
    client: Client,
    /// Name of the role, for the user agent in tenants.
    role: &'static str,
    configs: Arc<Store<KamajiConfig>>,
    machines: Arc<Store<Machine>>,
    clusters: Arc<Store<Cluster>>,
    control_planes: Arc<Store<KamajiControlPlane>>,
    /// Metadata of Secrets with a Cluster's label.
    index: Arc<ChildIndex>,
    applier: Applier,
    events: Events,
    tenants: Tenants,
    queue: Arc<Queue>,
}

impl Context {
    fn new(
        client: Client,
        role: &'static str,
        instance: Option<String>,
        acts_on: impl Fn(&str) -> bool + Send + Sync + 'static,
    ) -> Arc<Self> {
        let index = Arc::new(ChildIndex::default());
        let queue: Arc<Queue> = Arc::default();
        let configs: Arc<Store<KamajiConfig>> = Arc::default();
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
        });
        context.connect(acts_on);
        context
    }

    /// Who wakes whom.
    fn connect(&self, acts_on: impl Fn(&str) -> bool + Send + Sync + 'static) {
        let queue = self.queue.clone();
        let wake = Arc::new(move |key: RootKey| {
            if acts_on(&key.namespace) {
                queue.add(key);
            }
        });

        let woken = wake.clone();
        self.configs.wake_on_intent(move |key| woken(key));
        let woken = wake.clone();
        self.configs.route(move |old, new| {
            if let (Some(old), None) = (old, new) {
                woken(RootKey::of(old));
            }
        });

        // A Machine matters by what it says about its node and its end.
        let woken = wake.clone();
        self.machines.route(move |old, new| {
            if facts(old) != facts(new)
                && let Some(machine) = new.or(old)
                && let Some(reference) = &machine.spec.bootstrap.config_ref
                && reference.kind == "KamajiConfig"
            {
                woken(RootKey::new(
                    machine.namespace().unwrap_or_default(),
                    reference.name.clone(),
                ));
            }
        });

        let (woken, configs) = (wake.clone(), self.configs.clone());
        self.clusters.route(move |old, new| {
            let facts = |cluster: Option<&Cluster>| {
                cluster.map(|c| {
                    (
                        c.spec.paused,
                        c.infrastructure_provisioned(),
                        c.control_plane_initialized(),
                        c.endpoint().cloned(),
                    )
                })
            };
            if facts(old) != facts(new)
                && let Some(cluster) = new.or(old)
            {
                let namespace = cluster.namespace().unwrap_or_default();
                for key in of_cluster(&configs, &namespace, &cluster.name_any(), |_| true) {
                    woken(key);
                }
            }
        });

        // A control plane matters to configs that wait for its version.
        let (woken, configs) = (wake.clone(), self.configs.clone());
        self.control_planes.route(move |old, new| {
            let version = |known: Option<&KamajiControlPlane>| {
                known
                    .and_then(|known| known.status.as_ref())
                    .map(|s| (s.version.clone(), s.worker_endpoint.clone()))
            };
            if version(old) != version(new)
                && let Some(known) = new
                && let Some(cluster) = owner::cluster(known).or_else(|| owner::cluster_label(known))
            {
                let namespace = known.namespace().unwrap_or_default();
                for key in of_cluster(&configs, &namespace, cluster, unannounced) {
                    woken(key);
                }
            }
        });

        let woken = wake.clone();
        self.index.wake_owner::<KamajiConfig>(move |key| woken(key));
        let configs = self.configs.clone();
        self.index.route(move |row| {
            let Some(cluster) = row.labels.get(capi::CLUSTER_NAME) else {
                return;
            };
            let suffix = row.key.name.strip_prefix(cluster.as_str()).unwrap_or_default();
            let settled = |config: &KamajiConfig| {
                config
                    .status
                    .as_ref()
                    .is_some_and(|status| status.token.is_none())
            };
            if [capi::CA_SUFFIX, ours::BOOTSTRAP_KUBECONFIG_SUFFIX].contains(&suffix) {
                let waits = |config: &KamajiConfig| unannounced(config) || !settled(config);
                for key in of_cluster(&configs, &row.key.namespace, cluster, waits) {
                    wake(key);
                }
            }
        });
    }

    /// One watch a kind.
    fn watch(&self) -> Watches {
        let client = || self.client.clone();
        let mut watches = Watches::default();
        watches.store(Api::all(client()), Config::default(), &self.configs);
        watches.store(Api::all(client()), Config::default(), &self.machines);
        watches.store(Api::all(client()), Config::default(), &self.clusters);
        watches.store(Api::all(client()), Config::default(), &self.control_planes);
        watches.children(
            Api::<PartialObjectMeta<Secret>>::all(client()),
            Config::default().labels(capi::CLUSTER_NAME),
            &self.index,
        );
        watches
    }
}

/// What a config acts on of its Machine.
fn facts(machine: Option<&Machine>) -> impl PartialEq {
    machine.map(|machine| {
        let status = machine.status.clone().unwrap_or_default();
        (
            (machine.spec.version.clone(), machine.spec.provider_id.clone()),
            machine.metadata.deletion_timestamp.is_some(),
            machine.metadata.labels.clone(),
            (status.node_ref, status.addresses),
        )
    })
}

/// The data of this config was not announced yet.
fn unannounced(config: &KamajiConfig) -> bool {
    config
        .status
        .as_ref()
        .is_none_or(|status| status.data_secret_name.is_none())
}

/// Configs of a Cluster that `keep` accepts. A scan: Clusters and their Secrets change seldom.
fn of_cluster(
    configs: &Store<KamajiConfig>,
    namespace: &str,
    cluster: &str,
    keep: impl Fn(&KamajiConfig) -> bool,
) -> Vec<RootKey> {
    configs
        .all()
        .iter()
        .filter(|config| config.namespace().as_deref() == Some(namespace))
        .filter(|config| owner::cluster_label(&***config) == Some(cluster))
        .filter(|config| keep(config))
        .map(|config| RootKey::of(&**config))
        .collect()
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
    let mut watches = context.watch();
    if !role.listed(&mut watches).await {
        return Ok(());
    }
    role.readiness.set(role.name, true);
    let pass = context.clone();
    let reconcile = move |key| {
        let context = pass.clone();
        async move { reconcile::reconcile(&context, &key).await }
    };
    role.drive(CONTROLLER, &context.queue, role.settings.concurrency, reconcile)
        .await;
    Ok(())
}
