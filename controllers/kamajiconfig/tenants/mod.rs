//! One set of connections and watches for each tenant that has machines still to join, and what the watches saw.
//! It is opened by the first config that waits for its machine and dropped with the last (DESIGN 2.11).
//!
//! The watches decide nothing about a config: they keep what a pass over it needs and wake it. All writes to a
//! config's status happen in its own pass, so they never race each other.

pub mod rbac;
pub mod report;
mod watch;

use std::{
    collections::{BTreeSet, HashMap, HashSet},
    sync::Arc,
};

use k8s_openapi::{
    api::{certificates::v1::CertificateSigningRequest, core::v1::Node},
    jiff::Timestamp,
};
use kamaji_api::bootstrap::{KamajiConfig, NodeReport};
use parking_lot::Mutex;
use tokio::task::JoinSet;

use crate::{
    k8s::{key::RootKey, store::Store},
    kamajiconfig::approval::requests::Requests,
    runtime::queue::Queue,
    tenant::nodes::Session,
};

/// What is known of a Node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeFacts {
    /// When it was made.
    pub created: Option<Timestamp>,
    /// Its provider id, empty while it has none.
    pub provider_id: String,
    /// Version of its kubelet.
    pub kubelet_version: String,
}

impl NodeFacts {
    /// What we read of `node`.
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

/// Whose a token is, by the labels of its Secret. Empty where a label is missing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Mark {
    /// UID of its KamajiConfig.
    owner: String,
    /// UID of its Cluster.
    cluster: String,
}

/// What the watches saw.
#[derive(Default)]
struct View {
    /// By name; `None` until listed once.
    nodes: Option<HashMap<String, NodeFacts>>,
    /// Our tokens by id; `None` until listed once.
    tokens: Option<HashMap<String, Mark>>,
    /// Undecided requests.
    requests: Requests,
    /// Last report by token id.
    reports: HashMap<String, NodeReport>,
    /// Who waits for a token id.
    ids: HashMap<String, RootKey>,
    /// Who waits for a Node of a name.
    names: HashMap<String, RootKey>,
}

/// One tenant.
pub struct Tenant {
    /// The connections.
    pub session: Session,
    /// Held while a name is claimed, so that two configs cannot claim one at once. The same one for as long as the
    /// tenant is open, however often its kubeconfig is replaced.
    pub claims: Arc<tokio::sync::Mutex<()>>,
    /// Its Cluster.
    cluster: RootKey,
    /// UID of its Cluster. After a move the same tenant belongs to a Cluster with another one.
    uid: String,
    configs: Arc<Store<KamajiConfig>>,
    /// Resource version of the kubeconfig the connections were made from.
    version: String,
    view: Mutex<View>,
    /// Digest of the rights that were applied, and the bindings found that approve automatically.
    rights: Mutex<Option<(String, Vec<String>)>>,
    waiting: Mutex<BTreeSet<RootKey>>,
    tasks: Mutex<JoinSet<()>>,
    queue: Arc<Queue>,
}

/// All open tenants, by Cluster.
pub struct Tenants {
    open: Mutex<HashMap<RootKey, Arc<Tenant>>>,
    configs: Arc<Store<KamajiConfig>>,
    queue: Arc<Queue>,
}

impl Tenants {
    /// None open yet; `configs` are woken through `queue`.
    pub fn new(configs: Arc<Store<KamajiConfig>>, queue: Arc<Queue>) -> Self {
        Self {
            open: Mutex::default(),
            configs,
            queue,
        }
    }

    /// The tenant of `cluster`, when it is open with this version of its kubeconfig.
    pub fn get(&self, cluster: &RootKey, version: &str) -> Option<Arc<Tenant>> {
        self.open
            .lock()
            .get(cluster)
            .filter(|tenant| tenant.version == version)
            .cloned()
    }

    /// The tenant of `cluster`, whatever it was opened with.
    pub fn any(&self, cluster: &RootKey) -> Option<Arc<Tenant>> {
        self.open.lock().get(cluster).cloned()
    }

    /// Opens `cluster`, whose UID is `uid`, and starts its watches; those who waited go on waiting.
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
            rights: Mutex::default(),
            waiting: Mutex::default(),
            tasks: Mutex::default(),
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

    /// `key` waits no more; with the last one the tenant is closed.
    pub fn leave(&self, cluster: &RootKey, key: &RootKey) {
        let mut open = self.open.lock();
        let Some(tenant) = open.get(cluster) else {
            return;
        };
        {
            let mut waiting = tenant.waiting.lock();
            waiting.remove(key);
            let mut view = tenant.view.lock();
            let gone: Vec<_> = view
                .ids
                .iter()
                .filter(|(_, who)| *who == key)
                .map(|(id, _)| id.clone())
                .collect();
            for id in gone {
                view.ids.remove(&id);
                view.requests.remove_all(&id);
                view.reports.remove(&id);
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

    /// Open tenants of Clusters in `namespace`.
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
    /// `key` waits: for its token, and for a Node of this name.
    pub fn wait(&self, key: &RootKey, token: Option<&str>, node: Option<&str>) {
        self.waiting.lock().insert(key.clone());
        let mut view = self.view.lock();
        if let Some(id) = token {
            view.ids.insert(id.to_owned(), key.clone());
        }
        if let Some(name) = node {
            view.names.insert(name.to_owned(), key.clone());
        }
    }

    /// Bindings that approve automatically, when rights of this digest were applied.
    pub fn rights(&self, digest: &str) -> Option<Vec<String>> {
        self.rights
            .lock()
            .as_ref()
            .filter(|(known, _)| known == digest)
            .map(|(_, found)| found.clone())
    }

    /// Rights of this digest were applied.
    pub fn note_rights(&self, digest: String, found: Vec<String>) {
        *self.rights.lock() = Some((digest, found));
    }

    /// Whether a token of this id exists; `None` until the watch has listed.
    pub fn has_token(&self, id: &str) -> Option<bool> {
        self.view.lock().tokens.as_ref().map(|ids| ids.contains_key(id))
    }

    /// UID of its Cluster.
    pub fn cluster_uid(&self) -> &str {
        &self.uid
    }

    /// We made or extended a token for the config with the UID `owner`: the watch will say so later.
    pub fn note_token(&self, id: &str, owner: &str) {
        if let Some(ids) = self.view.lock().tokens.as_mut() {
            let mark = Mark {
                owner: owner.to_owned(),
                cluster: self.uid.clone(),
            };
            ids.insert(id.to_owned(), mark);
        }
    }

    /// We ended a token: the watch will say so later.
    pub fn note_end(&self, id: &str) {
        if let Some(ids) = self.view.lock().tokens.as_mut() {
            ids.remove(id);
        }
    }

    /// Tokens of `key` that are to end with it: not those that another management cluster took over.
    pub fn tokens_to_end(&self, key: &RootKey) -> Vec<String> {
        let view = self.view.lock();
        let moved = |id: &String| {
            let mark = view.tokens.as_ref().and_then(|ids| ids.get(id));
            mark.is_some_and(|mark| !mark.cluster.is_empty() && mark.cluster != self.uid)
        };
        let mine = view.ids.iter().filter(|(id, who)| *who == key && !moved(id));
        mine.map(|(id, _)| id.clone()).collect()
    }

    /// Ids of the tokens made for this Cluster whose config is gone or going.
    fn orphans(&self) -> Vec<String> {
        let ours: Vec<_> = {
            let view = self.view.lock();
            let known = view.tokens.iter().flatten();
            known
                .filter(|(_, mark)| mark.cluster == self.uid && !mark.owner.is_empty())
                .map(|(id, mark)| (id.clone(), mark.owner.clone()))
                .collect()
        };
        if ours.is_empty() || self.uid.is_empty() {
            return Vec::new();
        }
        let configs = self.configs.all();
        let living: HashSet<_> = configs
            .iter()
            .filter(|config| config.metadata.deletion_timestamp.is_none())
            .filter_map(|config| config.metadata.uid.as_deref())
            .collect();
        ours.into_iter()
            .filter(|(_, owner)| !living.contains(owner.as_str()))
            .map(|(id, _)| id)
            .collect()
    }

    /// Ends the tokens of configs that went while no process looked, or while they were paused.
    pub async fn sweep(&self) {
        for id in self.orphans() {
            match self.session.delete_token(&id).await {
                Ok(()) => {
                    self.note_end(&id);
                    tracing::info!(cluster = %self.cluster, id, "ended a token without a KamajiConfig");
                }
                Err(error) => tracing::info!(cluster = %self.cluster, %error, "a token is left to its end"),
            }
        }
    }

    /// Whether Nodes were listed once.
    pub fn nodes_listed(&self) -> bool {
        self.view.lock().nodes.is_some()
    }

    /// The Node of this name, when the watch has seen one.
    pub fn node(&self, name: &str) -> Option<NodeFacts> {
        self.view.lock().nodes.as_ref()?.get(name).cloned()
    }

    /// Undecided requests made with this token.
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

    fn wake(&self, key: Option<RootKey>) {
        if let Some(key) = key {
            self.queue.add(key);
        }
    }

    /// Runs `work` for as long as the tenant is open. What ended is let go.
    fn spawn(&self, work: impl Future<Output = ()> + Send + 'static) {
        let mut tasks = self.tasks.lock();
        while tasks.try_join_next().is_some() {}
        tasks.spawn(work);
    }
}
