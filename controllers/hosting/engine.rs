//! What the engine's controllers share: one client, one index of children, one way to write, both kinds of roots.
//!
//! Wiring only. Own writes wake nobody, so a controller whose status another one waits for says so itself
//! ([`Engine::wake_tenants_of`]).

use std::sync::Arc;

use k8s_openapi::api::core::v1::Namespace;
use kamaji_api::datastore::DataStore;
use kamaji_api::labels::{field_manager, kamaji, ours};
use kamaji_api::tenantcontrolplane::TenantControlPlane;
use kube::runtime::watcher;
use kube::{Api, Client};

use super::datastore::driver::Pool;
use super::datastore::usage;
use crate::k8s::{apply::Applier, events::Events, index::ChildIndex, key::RootKey, row::Facts, store::Store};
use crate::runtime::{queue::Queue, role::Role, watch::Watches};
use crate::settings::Settings;

/// The engine while it leads.
pub struct Engine {
    /// Client of the management cluster.
    pub client: Client,
    /// Flags.
    pub settings: Arc<Settings>,
    /// Rows of everything the engine made.
    pub index: Arc<ChildIndex>,
    /// Writes to the management cluster.
    pub applier: Applier,
    /// Events for people.
    pub events: Events,
    /// All TenantControlPlanes.
    pub tenants: Arc<Store<TenantControlPlane>>,
    /// All DataStores.
    pub stores: Arc<Store<DataStore>>,
    /// TenantControlPlanes that are due.
    pub tenant_queue: Arc<Queue>,
    /// DataStores that are due.
    pub store_queue: Arc<Queue>,
    /// Connections to datastores.
    pub pool: Pool,
    /// Id of the management cluster: the UID of its namespace `kube-system`. It stands in ownership marks.
    pub cluster_id: String,
}

impl Engine {
    /// Builds the engine and says who wakes whom. Nothing is watched yet.
    pub async fn new(role: &Role) -> anyhow::Result<Arc<Self>> {
        let client = role.client.clone();
        let namespaces: Api<Namespace> = Api::all(client.clone());
        let cluster_id = namespaces
            .get("kube-system")
            .await?
            .metadata
            .uid
            .unwrap_or_default();
        let index = Arc::new(ChildIndex::default());
        let engine = Arc::new(Self {
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
        });
        engine.connect();
        Ok(engine)
    }

    /// Routes of wake-ups.
    fn connect(&self) {
        let queue = self.store_queue.clone();
        self.index.route(move |row| {
            // The owner outlives an edit of labels; a claim has no owner before it was adopted.
            let owner = row.owner.as_ref().filter(|owner| owner.is::<DataStore>());
            let name = owner
                .map(|owner| &owner.name)
                .or_else(|| row.labels.get(ours::DATASTORE));
            if let Some(name) = name {
                queue.add(RootKey::new("", name.as_str()));
            }
        });
        let queue = self.store_queue.clone();
        self.stores.wake_on_intent(move |key| queue.add(key));
        let queue = self.store_queue.clone();
        self.stores.route(move |old, new| {
            if let (Some(gone), None) = (old, new) {
                queue.add(RootKey::of(gone));
            }
        });
        let (queue, settings) = (self.store_queue.clone(), self.settings.clone());
        self.tenants.route(move |old, new| {
            let default = settings.default_datastore.name();
            let names = |tenant: Option<&TenantControlPlane>| {
                tenant
                    .map(|tenant| usage::stores_of(tenant, default))
                    .unwrap_or_default()
            };
            let (before, after) = (names(old), names(new));
            for name in before.symmetric_difference(&after) {
                queue.add(RootKey::new("", name.as_str()));
            }
        });
        let queue = self.tenant_queue.clone();
        self.index
            .wake_owner::<TenantControlPlane>(move |key| queue.add(key));
        let queue = self.tenant_queue.clone();
        self.index.route(move |row| {
            // Its Deployment tells everything else.
            if let (Facts::Pod { trouble: Some(_) }, Some(name)) = (&row.facts, row.labels.get(kamaji::NAME))
            {
                queue.add(RootKey::new(row.key.namespace.clone(), name.as_str()));
            }
        });
        let (queue, settings) = (self.tenant_queue.clone(), self.settings.clone());
        self.tenants.wake_on_intent(move |key| {
            if settings.acts_on(&key.namespace) {
                queue.add(key);
            }
        });
        let queue = self.tenant_queue.clone();
        self.tenants.route(move |old, new| {
            if let (Some(gone), None) = (old, new) {
                queue.add(RootKey::of(gone));
            }
        });
    }

    /// Watches everything the engine reads, one watch a kind.
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

    /// Wakes the tenants of a DataStore: it became ready, or ceased to be.
    pub fn wake_tenants_of(&self, store: &str) {
        let default = self.settings.default_datastore.name();
        for tenant in self.tenants.all() {
            if usage::stores_of(&tenant, default).contains(store) {
                self.tenant_queue.add(RootKey::of(&*tenant));
            }
        }
    }
}
