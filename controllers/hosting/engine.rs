//! What the controllers of the hosting engine share: one client, one index of children, one way to write, and the
//! in-memory stores of TenantControlPlanes and DataStores.
//!
//! [`super::wake`] decides which change wakes which object. Own writes wake nobody, so a controller wakes whoever waits
//! for the status that it wrote ([`Engine::wake_tenants_of`]).

use std::sync::Arc;

use kamaji_api::{
    datastore::DataStore,
    labels::{field_manager, ours},
    tenantcontrolplane::TenantControlPlane,
};
use kube::{Api, Client, runtime::watcher};

use super::{driver::Pool, observe, usage};
use crate::{
    k8s::{apply::Applier, events::Events, index::ChildIndex, key::RootKey, store::Store},
    runtime::{queue::Queue, role::Role, watch::Watches},
    settings::Settings,
};

/// The engine, while its process leads.
pub struct Engine {
    /// Client of the management cluster.
    pub client: Client,
    /// Settings of the process.
    pub settings: Arc<Settings>,
    /// Rows of the objects that the engine made.
    pub index: Arc<ChildIndex>,
    /// Writes to the management cluster.
    pub applier: Applier,
    /// Emits Events.
    pub events: Events,
    /// All TenantControlPlanes.
    pub tenants: Arc<Store<TenantControlPlane>>,
    /// All DataStores.
    pub stores: Arc<Store<DataStore>>,
    /// TenantControlPlanes to reconcile.
    pub tenant_queue: Arc<Queue>,
    /// DataStores to reconcile.
    pub store_queue: Arc<Queue>,
    /// Connections to datastores.
    pub pool: Pool,
    /// ID of the management cluster: the UID of its namespace `kube-system`. It is part of the ownership marks in
    /// datastores.
    pub cluster_id: String,
}

impl Engine {
    /// Builds the engine. Nothing is watched yet, and nobody is woken before [`super::wake::connect`].
    ///
    /// # Errors
    /// The namespace `kube-system` cannot be read.
    pub async fn new(role: &Role) -> anyhow::Result<Arc<Self>> {
        let client = role.client.clone();
        let cluster_id = observe::cluster_id(&client).await?;
        let index = Arc::new(ChildIndex::default());
        Ok(Arc::new(Self {
            applier: Applier::new(client.clone(), field_manager::HOSTING, index.clone()),
            events: Events::new(client.clone(), field_manager::HOSTING, role.instance()),
            client,
            settings: role.settings.clone(),
            index,
            tenants: Arc::default(),
            stores: Arc::default(),
            tenant_queue: Arc::default(),
            store_queue: Arc::default(),
            pool: Pool::default(),
            cluster_id,
        }))
    }

    /// Starts one watch for each kind that the engine reads.
    pub fn watch(&self) -> Watches {
        let made =
            watcher::Config::default().labels(&format!("{}={}", ours::MANAGED_BY, field_manager::HOSTING));
        let mut watches = Watches::default();
        let client = || self.client.clone();
        watches.all_children(&self.client, &made, &self.index);
        watches.store::<DataStore>(Api::all(client()), watcher::Config::default(), &self.stores);
        watches.store::<TenantControlPlane>(Api::all(client()), watcher::Config::default(), &self.tenants);
        watches
    }

    /// Wakes the tenants of the DataStore `store`, whose readiness changed.
    pub fn wake_tenants_of(&self, store: &str) {
        let default = self.settings.default_datastore.name();
        for tenant in self.tenants.all() {
            if usage::stores_of(&tenant, default).contains(store) {
                self.tenant_queue.add(RootKey::of(&*tenant));
            }
        }
    }
}
