//! Connections to workload clusters with machines that have not joined yet, and what their watches observed. A workload
//! cluster ("tenant") is opened for the first config that waits for its machine, and closed after the last.
//!
//! The watches decide nothing about a config: they keep what its reconcile needs, and wake it. The status of a config is
//! written in its own reconcile only, so that writes never race.

mod conduct;
mod left_out;
pub mod open;
pub mod rbac;
pub mod report;
pub mod requests;
mod tokens;
mod trouble;
mod unread;
mod watch;

use std::{
    collections::{BTreeSet, HashMap},
    sync::Arc,
};

use k8s_openapi::{
    api::{certificates::v1::CertificateSigningRequest, core::v1::Node},
    jiff::Timestamp,
};
use kamaji_api::bootstrap::{KamajiConfig, NodeReport, PoolNode};
use parking_lot::Mutex;
use tokio::{
    sync::OnceCell,
    task::{AbortHandle, JoinSet},
    time::Instant,
};

use crate::{
    k8s::{key::RootKey, store::Store},
    kamajiconfig::scope::Scope,
    runtime::queue::Queue,
    tenant::nodes::Session,
};
use conduct::Conduct;
use left_out::Listing;
use requests::Requests;
pub use tokens::Mark;

/// What a reconcile uses of a Node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeFacts {
    /// When it was created.
    pub created: Option<Timestamp>,
    /// Its provider ID, empty while it has none.
    pub provider_id: String,
    /// Version of its kubelet.
    pub kubelet_version: String,
}

impl NodeFacts {
    /// Reads them from `node`, whose strings are bounded.
    pub fn of(node: &Node) -> Self {
        let info = node.status.as_ref().and_then(|status| status.node_info.as_ref());
        Self {
            created: node.metadata.creation_timestamp.as_ref().map(|time| time.0),
            provider_id: node
                .spec
                .as_ref()
                .and_then(|spec| spec.provider_id.clone())
                .unwrap_or_default(),
            kubelet_version: info.map(|info| info.kubelet_version.clone()).unwrap_or_default(),
        }
    }
}

/// What the watches observed.
#[derive(Default)]
struct View {
    /// Nodes by name; `None` until they were listed.
    nodes: Option<HashMap<String, NodeFacts>>,
    /// This provider's tokens by ID; `None` until they were listed.
    tokens: Option<HashMap<String, Mark>>,
    /// Certificate requests without a decision.
    requests: Requests,
    /// Requests that are too large to be looked at, by the ID of a token that a config waits for.
    unread_requests: HashMap<String, String>,
    /// What is not seen, since an object of the kind is too large.
    unread: BTreeSet<&'static str>,
    /// Last report by token ID.
    reports: HashMap<String, NodeReport>,
    /// Configs by the ID of their token.
    ids: HashMap<String, Waiter>,
    /// Configs by the name of the Node that they wait for.
    names: HashMap<String, RootKey>,
    /// When requests were listed again for those that had been left out, and whether that is planned.
    listing: Listing,
}

impl View {
    /// No config waits for this token any more.
    fn forget(&mut self, id: &str) {
        self.ids.remove(id);
        self.requests.remove_all(id);
        self.unread_requests.remove(id);
        self.reports.remove(id);
    }
}

/// A config that waits for its machine.
#[derive(Clone)]
struct Waiter {
    key: RootKey,
    /// Machines that share its token.
    sharers: usize,
    /// Its token is abused: what it sends is not looked at any more.
    ignored: bool,
}

/// How configs were treated from inside their workload clusters. It survives a replaced kubeconfig.
type Conducts = Arc<Mutex<HashMap<RootKey, Conduct>>>;

/// One workload cluster.
pub struct Tenant {
    /// The connections.
    pub session: Session,
    /// Held while a node name is claimed, so that two configs cannot claim the same one. It survives a replaced kubeconfig.
    /// Nobody asks the tenant anything while he holds it.
    pub claims: Arc<tokio::sync::Mutex<()>>,
    /// Its Cluster.
    cluster: RootKey,
    /// UID of its Cluster. After `clusterctl move` the same workload cluster has a Cluster with another UID.
    uid: String,
    configs: Arc<Store<KamajiConfig>>,
    /// Resource version of the Secret with the kubeconfig of the connections.
    version: String,
    view: Mutex<View>,
    /// The RBAC objects were applied.
    granted: OnceCell<()>,
    /// When it was last reviewed whether requests are approved automatically, and why they are.
    review: Mutex<Option<(Instant, Option<String>)>>,
    waiting: Mutex<BTreeSet<RootKey>>,
    conducts: Conducts,
    tasks: Mutex<JoinSet<()>>,
    /// The watch of certificate requests.
    requests_watch: Mutex<Option<AbortHandle>>,
    queue: Arc<Queue>,
}

/// The open workload clusters, by Cluster.
pub struct Tenants {
    open: Mutex<HashMap<RootKey, Arc<Tenant>>>,
    conducts: Conducts,
    configs: Arc<Store<KamajiConfig>>,
    queue: Arc<Queue>,
}

impl Tenants {
    /// Nothing is open yet. `configs` are woken through `queue`.
    pub fn new(configs: Arc<Store<KamajiConfig>>, queue: Arc<Queue>) -> Self {
        Self {
            open: Mutex::default(),
            conducts: Conducts::default(),
            configs,
            queue,
        }
    }

    /// The workload cluster of `cluster`, if it is open with this version of its kubeconfig.
    pub fn get(&self, cluster: &RootKey, version: &str) -> Option<Arc<Tenant>> {
        self.open
            .lock()
            .get(cluster)
            .filter(|tenant| tenant.version == version)
            .cloned()
    }

    /// The workload cluster of `cluster`, if it is open.
    pub fn any(&self, cluster: &RootKey) -> Option<Arc<Tenant>> {
        self.open.lock().get(cluster).cloned()
    }

    /// How many workload clusters are open.
    pub fn count(&self) -> usize {
        self.open.lock().len()
    }

    /// Opens the workload cluster of `cluster`, which has the UID `uid`, and starts its watches. Configs that waited before
    /// go on waiting.
    pub fn open(&self, cluster: &RootKey, uid: &str, version: &str, session: Session) -> Arc<Tenant> {
        let mut open = self.open.lock();
        if let Some(tenant) = open.get(cluster).filter(|tenant| tenant.version == version) {
            return tenant.clone();
        }
        let before = open.remove(cluster);
        let tenant = Arc::new(Tenant {
            session,
            claims: before
                .as_ref()
                .map(|before| before.claims.clone())
                .unwrap_or_default(),
            cluster: cluster.clone(),
            uid: uid.to_owned(),
            configs: self.configs.clone(),
            version: version.to_owned(),
            view: Mutex::default(),
            granted: OnceCell::new(),
            review: Mutex::default(),
            waiting: Mutex::default(),
            conducts: self.conducts.clone(),
            tasks: Mutex::default(),
            requests_watch: Mutex::default(),
            queue: self.queue.clone(),
        });
        if let Some(before) = before {
            let old = before.view.lock();
            let mut new = tenant.view.lock();
            new.ids.clone_from(&old.ids);
            new.names.clone_from(&old.names);
            tenant.waiting.lock().clone_from(&before.waiting.lock());
            before.tasks.lock().abort_all();
        }
        tenant.watch();
        open.insert(cluster.clone(), tenant.clone());
        tenant
    }

    /// `key` no longer waits. The workload cluster is closed after the last one.
    pub fn leave(&self, cluster: &RootKey, key: &RootKey) {
        let mut open = self.open.lock();
        let Some(tenant) = open.get(cluster) else {
            return;
        };
        {
            let mut waiting = tenant.waiting.lock();
            waiting.remove(key);
            self.conducts.lock().remove(key);
            let mut view = tenant.view.lock();
            let gone: Vec<_> = view
                .ids
                .iter()
                .filter(|(_, waiter)| waiter.key == *key)
                .map(|(id, _)| id.clone())
                .collect();
            for id in gone {
                view.forget(&id);
            }
            view.names.retain(|_, who| who != key);
            if !waiting.is_empty() {
                return;
            }
        }
        if let Some(tenant) = open.remove(cluster) {
            tenant.tasks.lock().abort_all();
        }
    }

    /// Open workload clusters of Clusters in `namespace`.
    pub fn within(&self, namespace: &str) -> Vec<Arc<Tenant>> {
        let open = self.open.lock();
        let here = open.iter().filter(|(cluster, _)| cluster.namespace == namespace);
        here.map(|(_, tenant)| tenant.clone()).collect()
    }

    /// The cluster that `key` waits in.
    pub fn cluster_of(&self, key: &RootKey) -> Option<RootKey> {
        self.open
            .lock()
            .iter()
            .find(|(_, tenant)| tenant.waiting.lock().contains(key))
            .map(|(cluster, _)| cluster.clone())
    }
}

impl Tenant {
    /// The config waits for requests with this token, and for a Node of this name.
    pub fn wait(&self, scope: &Scope<'_>, token: Option<&str>, node: Option<&str>) {
        let (key, sharers) = (scope.key, scope.sharers());
        self.waiting.lock().insert(key.clone());
        {
            let mut conducts = self.conducts.lock();
            if sharers > 1 || conducts.contains_key(key) {
                conducts.entry(key.clone()).or_default().share(sharers);
            }
        }
        let mut view = self.view.lock();
        if let Some(id) = token {
            let ignored = view.ids.get(id).is_some_and(|waiter| waiter.ignored);
            let waiter = Waiter {
                key: key.clone(),
                sharers,
                ignored,
            };
            view.ids.insert(id.to_owned(), waiter);
        }
        if let Some(name) = node {
            view.names.insert(name.to_owned(), key.clone());
        }
    }

    /// The config waits for Nodes of these names and for requests with these tokens, and for no others any more.
    pub fn wait_only(&self, scope: &Scope<'_>, tokens: &[&str], nodes: &[PoolNode]) {
        for id in tokens {
            self.wait(scope, Some(id), None);
        }
        let key = scope.key;
        if let Some(conduct) = self.conducts.lock().get_mut(key) {
            conduct.keep_tokens(tokens);
        }
        let mut view = self.view.lock();
        let mine = view.ids.iter().filter(|(_, waiter)| waiter.key == *key);
        let ended: Vec<_> = mine
            .map(|(id, _)| id.clone())
            .filter(|id| !tokens.contains(&id.as_str()))
            .collect();
        for id in ended {
            view.forget(&id);
        }
        view.names.retain(|_, who| who != key);
        let names = nodes.iter().map(|node| (node.name.clone(), key.clone()));
        view.names.extend(names);
    }

    /// UID of its Cluster.
    pub fn cluster_uid(&self) -> &str {
        &self.uid
    }

    /// Whether Nodes were listed.
    pub fn nodes_listed(&self) -> bool {
        self.view.lock().nodes.is_some()
    }

    /// Whether there may be a Node of this name: it was observed, or Nodes were not listed yet.
    pub fn may_have_node(&self, name: &str) -> bool {
        let view = self.view.lock();
        view.nodes.as_ref().is_none_or(|nodes| nodes.contains_key(name))
    }

    /// The Node of this name, if it was observed.
    pub fn node(&self, name: &str) -> Option<NodeFacts> {
        self.view.lock().nodes.as_ref()?.get(name).cloned()
    }

    /// Requests of this token without a decision.
    pub fn requests(&self, token: &str) -> Vec<CertificateSigningRequest> {
        self.view.lock().requests.of(token)
    }

    /// This request was answered.
    pub fn answered(&self, request: &str) {
        self.view.lock().requests.remove(request);
    }

    /// Last report of the machine with this token.
    pub fn report(&self, token: &str) -> Option<NodeReport> {
        self.view.lock().reports.get(token).cloned()
    }

    /// A request with this token of `key` was denied for what it asks.
    pub fn note_denial(&self, key: &RootKey, token: &str) {
        let mut conducts = self.conducts.lock();
        conducts.entry(key.clone()).or_default().note_denial(token);
    }

    /// This token of `key` is abused.
    pub fn is_abused_by(&self, key: &RootKey, token: &str) -> bool {
        let conducts = self.conducts.lock();
        conducts
            .get(key)
            .is_some_and(|conduct| conduct.is_abused_by(token))
    }

    /// The token of `key` is abused.
    pub fn is_abused(&self, key: &RootKey) -> bool {
        self.conducts.lock().get(key).is_some_and(Conduct::is_abused)
    }

    /// Looks at nothing any more that this token sends.
    pub fn ignore(&self, token: &str) {
        let mut view = self.view.lock();
        if let Some(waiter) = view.ids.get_mut(token) {
            waiter.ignored = true;
        }
        view.requests.remove_all(token);
        view.unread_requests.remove(token);
        view.reports.remove(token);
    }

    /// Something in the workload cluster wakes a config: at a bounded rate.
    fn wake(&self, key: Option<RootKey>) {
        if let Some(key) = key {
            let wait = self
                .conducts
                .lock()
                .entry(key.clone())
                .or_default()
                .wake(Instant::now().into_std());
            self.queue.add_after(key, wait);
        }
    }

    /// Runs `work` while the workload cluster is open. Drops tasks that ended.
    fn spawn(&self, work: impl Future<Output = ()> + Send + 'static) -> AbortHandle {
        let mut tasks = self.tasks.lock();
        while tasks.try_join_next().is_some() {}
        tasks.spawn(work)
    }
}
