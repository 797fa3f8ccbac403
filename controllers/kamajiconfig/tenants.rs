//! One set of connections and watches for each tenant that has machines still to join, and what the watches saw.
//! It is opened by the first config that waits for its machine and dropped with the last (DESIGN 2.11).
//!
//! The watches decide nothing: they keep what a pass over a config needs and wake that config. All writes to a
//! config's status happen in its own pass, so they never race each other.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, HashSet},
    sync::Arc,
    time::Duration,
};

use futures::{Stream, StreamExt as _};
use k8s_openapi::{
    api::{
        certificates::v1::CertificateSigningRequest,
        core::v1::{Event as CoreEvent, Node},
    },
    jiff::Timestamp,
};
use kamaji_api::{bootstrap::NodeReport, conditions::Reason};
use kube::{
    ResourceExt as _,
    runtime::watcher::{self, Event},
};
use parking_lot::Mutex;
use tokio::task::JoinSet;

use super::{csr, report};
use crate::{k8s::key::RootKey, runtime::queue::Queue, tenant::nodes::Session};

/// Most requests that are kept for one token: whoever posts more is not a kubelet.
const MOST_REQUESTS: usize = 20;
/// Most tokens that requests are kept for.
const MOST_TOKENS: usize = 5_000;

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

/// What the watches saw.
#[derive(Default)]
struct View {
    /// By name; `None` until listed once.
    nodes: Option<HashMap<String, NodeFacts>>,
    /// Ids of our tokens; `None` until listed once.
    tokens: Option<HashSet<String>>,
    /// Undecided requests by token id, then by name.
    requests: HashMap<String, BTreeMap<String, CertificateSigningRequest>>,
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
    /// Held while a name is claimed, so that two configs cannot claim one at once.
    pub claims: tokio::sync::Mutex<()>,
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
    queue: Arc<Queue>,
}

impl Tenants {
    /// None open yet; configs are woken through `queue`.
    pub fn new(queue: Arc<Queue>) -> Self {
        Self {
            open: Mutex::default(),
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

    /// Opens `cluster` and starts its watches; those who waited go on waiting.
    pub fn open(&self, cluster: &RootKey, version: &str, session: Session) -> Arc<Tenant> {
        let mut open = self.open.lock();
        if let Some(tenant) = open.get(cluster).filter(|tenant| tenant.version == version) {
            return tenant.clone();
        }
        let before = open.remove(cluster);
        let tenant = Arc::new(Tenant {
            session,
            claims: tokio::sync::Mutex::default(),
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
                view.requests.remove(&id);
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
        self.view.lock().tokens.as_ref().map(|ids| ids.contains(id))
    }

    /// We made or ended a token: the watch will say so later.
    pub fn note_token(&self, id: &str, exists: bool) {
        if let Some(ids) = self.view.lock().tokens.as_mut() {
            if exists {
                ids.insert(id.to_owned());
            } else {
                ids.remove(id);
            }
        }
    }

    /// The Node of this name, when the watch has seen one.
    pub fn node(&self, name: &str) -> Option<NodeFacts> {
        self.view.lock().nodes.as_ref()?.get(name).cloned()
    }

    /// Undecided requests made with this token.
    pub fn requests(&self, token: &str) -> Vec<CertificateSigningRequest> {
        let view = self.view.lock();
        view.requests
            .get(token)
            .into_iter()
            .flat_map(BTreeMap::values)
            .cloned()
            .collect()
    }

    /// This request was answered.
    pub fn answered(&self, token: &str, request: &str) {
        if let Some(list) = self.view.lock().requests.get_mut(token) {
            list.remove(request);
        }
    }

    /// Last report of the machine with this token.
    pub fn report(&self, token: &str) -> Option<NodeReport> {
        self.view.lock().reports.get(token).cloned()
    }

    /// Ids of the tokens that `key` waits with.
    pub fn tokens_of(&self, key: &RootKey) -> Vec<String> {
        let view = self.view.lock();
        view.ids
            .iter()
            .filter(|(_, who)| *who == key)
            .map(|(id, _)| id.clone())
            .collect()
    }

    fn wake(&self, key: Option<RootKey>) {
        if let Some(key) = key {
            self.queue.add(key);
        }
    }

    fn watch(self: &Arc<Self>) {
        let mut tasks = self.tasks.lock();
        let me = Arc::downgrade(self);
        tasks.spawn(follow("requests", self.session.requests(), move |event| {
            if let Some(tenant) = me.upgrade() {
                tenant.saw_request(event);
            }
        }));
        let me = Arc::downgrade(self);
        let mut listing = HashMap::new();
        tasks.spawn(follow("nodes", self.session.nodes(), move |event| {
            if let Some(tenant) = me.upgrade() {
                tenant.saw_node(event, &mut listing);
            }
        }));
        let me = Arc::downgrade(self);
        let mut listing = HashSet::new();
        tasks.spawn(follow("tokens", self.session.tokens(), move |event| {
            if let Some(tenant) = me.upgrade() {
                let event = match event {
                    Event::Apply(secret) => Event::Apply(secret.name_any()),
                    Event::Delete(secret) => Event::Delete(secret.name_any()),
                    Event::InitApply(secret) => Event::InitApply(secret.name_any()),
                    Event::Init => Event::Init,
                    Event::InitDone => Event::InitDone,
                };
                tenant.saw_token(event, &mut listing);
            }
        }));
        let me = Arc::downgrade(self);
        tasks.spawn(follow("reports", self.session.reports(), move |event| {
            if let (Some(tenant), Event::Apply(event) | Event::InitApply(event)) = (me.upgrade(), event) {
                tenant.saw_report(&event);
            }
        }));
    }

    fn saw_request(self: &Arc<Self>, event: Event<CertificateSigningRequest>) {
        match event {
            Event::Init => self.view.lock().requests.clear(),
            Event::InitDone => {}
            Event::Delete(request) => {
                let name = request.name_any();
                for list in self.view.lock().requests.values_mut() {
                    list.remove(&name);
                }
            }
            Event::Apply(request) | Event::InitApply(request) => {
                let name = request.name_any();
                let Some(token) = csr::token_of(&request).map(ToOwned::to_owned) else {
                    for list in self.view.lock().requests.values_mut() {
                        list.remove(&name);
                    }
                    return;
                };
                let owner = {
                    let mut view = self.view.lock();
                    let room = view.requests.len() < MOST_TOKENS;
                    let list = view.requests.entry(token.clone()).or_default();
                    if !room || (list.len() >= MOST_REQUESTS && !list.contains_key(&name)) {
                        return;
                    }
                    list.insert(name.clone(), request);
                    view.ids.get(&token).cloned()
                };
                if owner.is_none() {
                    self.deny_later(token, name);
                }
                self.wake(owner);
            }
        }
    }

    /// A token that nobody waits for: its config may only be new here. After a while it is nobody's.
    fn deny_later(self: &Arc<Self>, token: String, name: String) {
        let me = Arc::downgrade(self);
        self.tasks.lock().spawn(async move {
            tokio::time::sleep(Duration::from_secs(csr::UNKNOWN_FOR.unsigned_abs())).await;
            let Some(tenant) = me.upgrade() else {
                return;
            };
            let (owner, request) = {
                let view = tenant.view.lock();
                let request = view
                    .requests
                    .get(&token)
                    .and_then(|list| list.get(&name))
                    .cloned();
                (view.ids.get(&token).cloned(), request)
            };
            match (owner, request) {
                (Some(owner), _) => tenant.wake(Some(owner)),
                (None, Some(request)) => {
                    let message = "the token belongs to no KamajiConfig";
                    let answer = tenant
                        .session
                        .answer(&request, false, Reason::UnknownToken, message);
                    match answer.await {
                        Ok(()) => tenant.answered(&token, &name),
                        Err(error) => tracing::debug!(%error, "request of an unknown token stays open"),
                    }
                }
                (None, None) => {}
            }
        });
    }

    fn saw_node(&self, event: Event<Node>, listing: &mut HashMap<String, NodeFacts>) {
        let (name, facts) = match event {
            Event::Init => {
                listing.clear();
                return;
            }
            Event::InitApply(node) => {
                listing.insert(node.name_any(), NodeFacts::of(&node));
                return;
            }
            Event::InitDone => {
                let woken: BTreeSet<_> = {
                    let mut view = self.view.lock();
                    view.nodes = Some(std::mem::take(listing));
                    view.names.values().cloned().collect()
                };
                for key in woken {
                    self.wake(Some(key));
                }
                return;
            }
            Event::Apply(node) => (node.name_any(), Some(NodeFacts::of(&node))),
            Event::Delete(node) => (node.name_any(), None),
        };
        let owner = {
            let mut view = self.view.lock();
            let Some(nodes) = view.nodes.as_mut() else {
                return;
            };
            let before = match &facts {
                Some(facts) => nodes.insert(name.clone(), facts.clone()),
                None => nodes.remove(&name),
            };
            // Heartbeats are no news.
            if before == facts {
                return;
            }
            view.names.get(&name).cloned()
        };
        self.wake(owner);
    }

    fn saw_token(&self, event: Event<String>, listing: &mut HashSet<String>) {
        let id = |name: &str| {
            name.strip_prefix("bootstrap-token-")
                .unwrap_or_default()
                .to_owned()
        };
        match event {
            Event::Init => listing.clear(),
            Event::InitApply(name) => {
                listing.insert(id(&name));
            }
            Event::InitDone => {
                let mut view = self.view.lock();
                let missing: Vec<_> = view
                    .ids
                    .iter()
                    .filter(|(id, _)| !listing.contains(*id))
                    .map(|(_, key)| key.clone())
                    .collect();
                view.tokens = Some(std::mem::take(listing));
                drop(view);
                for key in missing {
                    self.wake(Some(key));
                }
            }
            Event::Apply(name) => self.note_token(&id(&name), true),
            Event::Delete(name) => {
                let id = id(&name);
                self.note_token(&id, false);
                let owner = self.view.lock().ids.get(&id).cloned();
                self.wake(owner);
            }
        }
    }

    fn saw_report(&self, event: &CoreEvent) {
        let Some((token, report)) = report::read(event) else {
            return;
        };
        let owner = {
            let mut view = self.view.lock();
            let Some(owner) = view.ids.get(token).cloned() else {
                return;
            };
            let newer = view
                .reports
                .get(token)
                .is_none_or(|known| known.time.as_ref().map(|t| t.0) <= report.time.as_ref().map(|t| t.0));
            if !newer {
                return;
            }
            view.reports.insert(token.to_owned(), report);
            owner
        };
        self.wake(Some(owner));
    }
}

/// Feeds `fold` from `stream`. Trouble is logged once until the next success.
async fn follow<T: Send + 'static>(
    what: &'static str,
    stream: impl Stream<Item = watcher::Result<Event<T>>> + Send + 'static,
    mut fold: impl FnMut(Event<T>) + Send + 'static,
) {
    let mut stream = Box::pin(stream);
    let mut broken = false;
    while let Some(event) = stream.next().await {
        match event {
            Ok(event) => {
                broken = false;
                fold(event);
            }
            Err(error) if broken => tracing::debug!(what, %error, "tenant watch still fails"),
            Err(error) => {
                broken = true;
                tracing::info!(what, %error, "tenant watch failed, retrying with backoff");
            }
        }
    }
}
