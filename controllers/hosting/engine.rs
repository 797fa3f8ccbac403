//! What the controllers of the hosting engine share: one client, one index of children, one way to write, and the
//! in-memory stores of TenantControlPlanes and DataStores.
//!
//! [`super::wake`] decides which change wakes which object. Own writes wake nobody, so a controller wakes whoever waits
//! for the status that it wrote ([`Engine::wake_tenants_of`]).

use std::sync::Arc;

use k8s_openapi::api::core::v1::Secret;
use kamaji_api::{
    conditions::{DataStoreCondition, TenantControlPlaneCondition},
    datastore::DataStore,
    labels::{capi, field_manager, ours},
    tenantcontrolplane::TenantControlPlane,
};
use kube::{Client, api::PartialObjectMeta, runtime::watcher};

use super::{driver::Pool, observe, orphans, usage};
use crate::{
    k8s::{
        apply::Applier, cache::By, events::Events, index::ChildIndex, key::RootKey, row::Row, store::Store,
    },
    runtime::{queue::Queue, role::Role, watch::Watches},
    settings::Settings,
};

/// TenantControlPlanes by the DataStores of [`usage::stores_of`].
const BY_STORE: By = By("store");

/// Rows without an owner, by the tenant that their labels name.
const ORPHANS: By = By("orphans");

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
        let (tenants, settings): (Arc<Store<TenantControlPlane>>, _) =
            (Arc::default(), role.settings.clone());
        tenants.index_by(BY_STORE, move |tenant| {
            let names = usage::stores_of(tenant, settings.default_datastore.name());
            names.into_iter().map(|name| RootKey::new("", name))
        });
        index.index_by(ORPHANS, orphans::tenant_of);
        Ok(Arc::new(Self {
            applier: Applier::new(client.clone(), field_manager::HOSTING, index.clone()),
            events: Events::new(client.clone(), field_manager::HOSTING, role.instance()),
            client,
            settings: role.settings.clone(),
            index,
            tenants,
            stores: Arc::default(),
            tenant_queue: Arc::default(),
            store_queue: Arc::default(),
            pool: Pool::default(),
            cluster_id,
        }))
    }

    /// Starts one watch for each kind that the engine reads, and one for the Secrets of Clusters, among which are the CAs
    /// that users provide.
    pub fn watch(&self, role: &Role) -> Watches {
        let made =
            watcher::Config::default().labels(&format!("{}={}", ours::MANAGED_BY, field_manager::HOSTING));
        let mut watches = Watches::new(role, field_manager::HOSTING);
        watches.all_children(&self.client, &made, &self.index);
        let provided = format!(
            "{},{}!={}",
            capi::CLUSTER_NAME,
            ours::MANAGED_BY,
            field_manager::HOSTING
        );
        let provided = watcher::Config::default().labels(&provided);
        watches.children::<PartialObjectMeta<Secret>>(self.client.clone(), provided, &self.index);
        let all = watcher::Config::default;
        let (client, condition) = (self.client.clone(), DataStoreCondition::Validation.as_str());
        watches.roots::<DataStore>(client, all(), &self.stores, condition);
        let (client, condition) = (
            self.client.clone(),
            TenantControlPlaneCondition::SpecValid.as_str(),
        );
        watches.roots::<TenantControlPlane>(client, all(), &self.tenants, condition);
        watches
    }

    /// The objects of a tenant: those that it owns, and those that bear its labels and lost their owner, as after a restore
    /// from a backup.
    pub fn objects_of(&self, tenant: &TenantControlPlane) -> Vec<Arc<Row>> {
        let uid = tenant.metadata.uid.as_deref().unwrap_or_default();
        let mut rows = self.index.owned_by(uid);
        rows.extend(self.index.by(ORPHANS, &RootKey::of(tenant)));
        rows
    }

    /// Wakes the tenants of the DataStore `store`, whose readiness changed.
    pub fn wake_tenants_of(&self, store: &str) {
        for tenant in self.tenants_of(store) {
            self.tenant_queue.add(tenant);
        }
    }

    /// The tenants that use a DataStore or are about to, sorted by key.
    pub fn tenants_of(&self, store: &str) -> Vec<RootKey> {
        self.tenants.keys_by(BY_STORE, &RootKey::new("", store))
    }
}
