//! The `KamajiControlPlane` controller: a control plane of Cluster API, run as a TenantControlPlane.
//!
//! It meets the hosting engine only through the TenantControlPlane of the same name and the Secrets the engine makes
//! beside it (DESIGN 1), so an upstream Kamaji can stand in for ours. One pass, in [`reconcile`]:
//!
//! pause → finalizer → [`observe`] → [`validate`] → [`authority`] → [`desired`] → apply → [`publish`] → [`status`]
//!
//! Wiring stands here: what is watched and who is woken. Nothing is polled.

mod authority;
mod delete;
mod desired;
mod endpoint;
mod events;
#[cfg(test)]
mod example;
mod facts;
mod fields;
mod health;
mod network;
mod observe;
mod progress;
mod publish;
mod reconcile;
mod secrets;
mod status;
#[cfg(test)]
mod tests;
mod validate;
mod versions;

use std::sync::Arc;

use k8s_openapi::api::core::v1::Secret;
use kamaji_api::{
    controlplane::KamajiControlPlane,
    labels::{capi, field_manager, ours},
    tenantcontrolplane::TenantControlPlane,
};
use kube::{
    Api, Client, ResourceExt,
    api::PartialObjectMeta,
    runtime::watcher::{Config, Event},
};

use crate::{
    capi::{
        cluster::Cluster,
        machine::{Machine, MachinePool},
        owner,
    },
    k8s::{apply::Applier, events::Events, index::ChildIndex, key::RootKey, row::Row, store::Store},
    runtime::{queue::Queue, role::Role, watch::Watches},
    settings::Hosting,
};

/// Name of this controller in metrics and logs.
pub const CONTROLLER: &str = "kamajicontrolplane";

/// What every pass needs.
pub struct Context {
    /// Client of the management cluster.
    client: Client,
    /// All KamajiControlPlanes.
    control_planes: Arc<Store<KamajiControlPlane>>,
    /// All Clusters.
    clusters: Arc<Store<Cluster>>,
    /// All TenantControlPlanes.
    tenants: Arc<Store<TenantControlPlane>>,
    /// What we make and what carries a Cluster's label: Secrets, Machines, MachinePools, TenantControlPlanes.
    index: Arc<ChildIndex>,
    /// The engine's Secrets that are copied. Apart from `index`, since an index has one watch a kind.
    engine: Arc<ChildIndex>,
    /// Writes to the management cluster.
    applier: Applier,
    /// Events for people.
    events: Events,
    /// Control planes that are due.
    queue: Arc<Queue>,
    /// Authorities of users that were read.
    fingerprints: authority::Fingerprints,
    /// Whose engine hosts the control planes.
    hosting: Hosting,
}

impl Context {
    /// Everything empty, and who wakes whom.
    fn new(
        client: Client,
        instance: Option<String>,
        hosting: Hosting,
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
            fingerprints: authority::Fingerprints::default(),
            hosting,
        });
        context.connect(acts_on);
        context
    }

    /// Routes of wake-ups.
    fn connect(&self, acts_on: impl Fn(&str) -> bool + Send + Sync + 'static) {
        let queue = self.queue.clone();
        let wake = Arc::new(move |key: RootKey| {
            if acts_on(&key.namespace) {
                queue.add(key);
            }
        });

        let woken = wake.clone();
        self.control_planes.wake_on_intent(move |key| woken(key));

        // A Cluster matters by its spec and metadata; core's status writes do not.
        let (woken, control_planes) = (wake.clone(), self.control_planes.clone());
        self.clusters.route(move |old, new| {
            let intent = |cluster: Option<&Cluster>| {
                cluster.map(|c| {
                    (
                        c.spec.clone(),
                        c.metadata.uid.clone(),
                        c.metadata.annotations.clone(),
                    )
                })
            };
            if intent(old) != intent(new)
                && let Some(cluster) = new.or(old)
            {
                for key in control_planes_of(cluster, &control_planes) {
                    woken(key);
                }
            }
        });

        // One watch of TenantControlPlanes feeds the whole objects and the rows of the apply path.
        let (woken, index, watch) = (wake.clone(), self.index.clone(), self.index.watch());
        self.tenants.route(move |old, new| {
            let event = match (old, new) {
                (_, Some(tenant)) => Event::Apply(tenant_row(tenant)),
                (Some(tenant), None) => Event::Delete(tenant_row(tenant)),
                (None, None) => return,
            };
            index.fold(watch, event);
            if let Some(tenant) = new.or(old) {
                woken(RootKey::of(tenant));
            }
        });

        // The engine's Secrets belong to the TenantControlPlane, which has the control plane's name.
        let woken = wake.clone();
        self.engine
            .wake_owner::<TenantControlPlane>(move |key| woken(key));

        let (clusters, control_planes) = (self.clusters.clone(), self.control_planes.clone());
        self.index.route(move |row| {
            if row.is::<TenantControlPlane>() {
                return;
            }
            let Some(name) = row.labels.get(capi::CLUSTER_NAME) else {
                return;
            };
            let secret = row.is::<Secret>();
            let of_contract = secret
                && secrets::Part::ALL
                    .iter()
                    .any(|part| part.name(name) == row.key.name);
            let ours = row.labels.get(ours::MANAGED_BY).map(String::as_str);
            // `<tcp>-ca` made of a user's `<cluster>-ca`.
            let seeded = secret && !of_contract && ours == Some(field_manager::CONTROL_PLANE);
            if secret && !of_contract && !seeded {
                return;
            }
            let namespace = row.key.namespace.as_str();
            let keys = match clusters.get(&RootKey::new(namespace, name.clone())) {
                Some(cluster) => control_planes_of(&cluster, &control_planes),
                // Its Cluster can be gone before a control plane that is deleted.
                None => control_planes_named(namespace, name, &control_planes),
            };
            for key in keys {
                // Machines matter to a control plane that waits for their end.
                let deleting = || {
                    control_planes
                        .get(&key)
                        .is_some_and(|known| known.metadata.deletion_timestamp.is_some())
                };
                let its_own = || seeded && secrets::Part::Authority.source(&key.name) == row.key.name;
                if of_contract || its_own() || (!secret && deleting()) {
                    wake(key);
                }
            }
        });
    }

    /// One watch a kind.
    fn watch(&self) -> Watches {
        let client = || self.client.clone();
        let of_clusters = || Config::default().labels(capi::CLUSTER_NAME);
        let mut watches = Watches::default();
        watches.store(Api::all(client()), Config::default(), &self.control_planes);
        watches.store(Api::all(client()), Config::default(), &self.clusters);
        watches.store(Api::all(client()), Config::default(), &self.tenants);
        watches.children(
            Api::<PartialObjectMeta<Secret>>::all(client()),
            of_clusters(),
            &self.index,
        );
        watches.children(
            Api::<PartialObjectMeta<Machine>>::all(client()),
            of_clusters(),
            &self.index,
        );
        watches.children(
            Api::<PartialObjectMeta<MachinePool>>::all(client()),
            of_clusters(),
            &self.index,
        );
        watches.children(
            Api::<PartialObjectMeta<Secret>>::all(client()),
            Config::default().labels(&secrets::sources()),
            &self.engine,
        );
        watches
    }
}

/// The control plane that a Cluster refers to; without a reference, those that name it.
fn control_planes_of(cluster: &Cluster, control_planes: &Store<KamajiControlPlane>) -> Vec<RootKey> {
    let namespace = cluster.namespace().unwrap_or_default();
    match &cluster.spec.control_plane_ref {
        Some(reference) => vec![RootKey::new(namespace, reference.name.clone())],
        None => control_planes_named(&namespace, &cluster.name_any(), control_planes),
    }
}

/// Control planes whose owner or label names a Cluster. A scan: for what is rare.
fn control_planes_named(
    namespace: &str,
    cluster: &str,
    control_planes: &Store<KamajiControlPlane>,
) -> Vec<RootKey> {
    control_planes
        .all()
        .iter()
        .filter(|known| {
            known.metadata.namespace.as_deref() == Some(namespace)
                && (owner::cluster(&***known) == Some(cluster)
                    || owner::cluster_label(&***known) == Some(cluster))
        })
        .map(|known| RootKey::of(&**known))
        .collect()
}

fn tenant_row(tenant: &TenantControlPlane) -> Row {
    Row::of::<TenantControlPlane>(&tenant.metadata)
}

/// Runs the controller until the process stops.
///
/// # Errors
/// When it cannot start.
pub async fn start(role: Role) -> anyhow::Result<()> {
    let settings = role.settings.clone();
    let hosting = settings.hosting;
    let context = Context::new(role.client.clone(), role.instance(), hosting, move |namespace| {
        settings.acts_on(namespace)
    });
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
