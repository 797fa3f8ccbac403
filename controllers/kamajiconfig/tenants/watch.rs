//! The watches of one workload cluster. Each event is folded into its view and wakes the config that it concerns. What
//! concerns no config is handled here, since no reconcile does it: requests with unknown tokens, tokens without a config.

use std::{
    collections::{BTreeSet, HashMap},
    sync::Arc,
    time::Duration,
};

use futures::Stream;
use k8s_openapi::api::{
    certificates::v1::CertificateSigningRequest,
    core::v1::{Event as CoreEvent, Node, Secret},
};
use kamaji_api::{
    bootstrap::{KamajiConfig, NodeReport},
    conditions::Reason,
};
use kube::{
    ResourceExt as _,
    api::PartialObjectMeta,
    runtime::watcher::{self, Event},
};
use tokio::{task::AbortHandle, time::Instant};

use super::{
    Mark, NodeFacts, Tenant, report,
    requests::{self, Kept, Requests, most_of_a_token},
    tokens::id_of,
};
use crate::{k8s::key::RootKey, kamajiconfig::wake::BY_CLUSTER, runtime::watch};

/// How long a request with an unknown token waits before it is denied: its KamajiConfig may not be listed yet.
const UNKNOWN_FOR: Duration = Duration::from_secs(30);
/// What is watched, for messages.
const REQUESTS: &str = "CertificateSigningRequests";
const NODES: &str = "Nodes";
const TOKENS: &str = "bootstrap tokens";
const REPORTS: &str = "Events in kamaji-bootstrap";

impl Tenant {
    pub(super) fn watch(self: &Arc<Self>) {
        self.watch_requests();
        let mut listing = HashMap::new();
        self.follow(NODES, self.session.nodes(), move |tenant, event| {
            tenant.on_node(event, &mut listing);
        });
        let mut listing = HashMap::new();
        self.follow(TOKENS, self.session.tokens(), move |tenant, event| {
            tenant.on_token(event, &mut listing);
        });
        let mut listing = BTreeSet::new();
        self.follow(REPORTS, self.session.reports(), move |tenant, event| {
            tenant.on_report(event, &mut listing);
        });
    }

    /// Watches certificate requests, from a list on.
    pub(super) fn watch_requests(self: &Arc<Self>) {
        let new = self.follow(REQUESTS, self.session.requests(), |tenant, event| {
            tenant.on_request(event);
        });
        if let Some(old) = self.requests_watch.lock().replace(new) {
            old.abort();
        }
    }

    /// Feeds `fold` from `stream`. An error is logged once until the next success. One that does not pass by itself is noted.
    fn follow<T: Send + 'static>(
        self: &Arc<Self>,
        what: &'static str,
        stream: impl Stream<Item = watcher::Result<Event<T>>> + Send + 'static,
        mut fold: impl FnMut(&Arc<Self>, Event<T>) + Send + 'static,
    ) -> AbortHandle {
        let (me, failing) = (Arc::downgrade(self), Arc::downgrade(self));
        self.spawn(watch::follow(
            stream,
            move |event| {
                if let Some(tenant) = me.upgrade() {
                    tenant.note_event(what, &event);
                    fold(&tenant, event);
                }
            },
            move |first, error| {
                if first {
                    tracing::info!(what, %error, "watch of a workload cluster failed, retries with backoff");
                } else {
                    tracing::debug!(what, %error, "watch of a workload cluster still fails");
                }
                if let Some(tenant) = failing.upgrade() {
                    tenant.note_error(what, &error);
                }
            },
        ))
    }

    pub(in crate::kamajiconfig) fn on_request(self: &Arc<Self>, event: Event<CertificateSigningRequest>) {
        match event {
            Event::Init => {
                let mut view = self.view.lock();
                view.requests = Requests::default();
                view.unread_requests.clear();
            }
            Event::InitDone => {}
            Event::Delete(request) => {
                let owner = self.view.lock().without(&request.name_any());
                self.wake(owner);
            }
            Event::Apply(request) | Event::InitApply(request) => {
                let name = request.name_any();
                let token = requests::token_of(&request).map(ToOwned::to_owned);
                let (owner, new) = {
                    let mut view = self.view.lock();
                    let Some(token) = &token else {
                        let owner = view.without(&name);
                        drop(view);
                        self.wake(owner);
                        return;
                    };
                    let new = view.requests.get(&name).is_none();
                    let waiter = view.ids.get(token).cloned();
                    if waiter.as_ref().is_some_and(|waiter| waiter.ignored) {
                        return;
                    }
                    let sharers = waiter.as_ref().map_or(1, |waiter| waiter.sharers);
                    match view.requests.keep(token, most_of_a_token(sharers), request) {
                        Kept::Yes => {}
                        Kept::TooMany | Kept::NoRoom => return,
                        Kept::TooLarge => {
                            let owner = waiter.and_then(|waiter| {
                                let known = view.unread_requests.insert(token.clone(), name);
                                known.is_none().then_some(waiter.key)
                            });
                            drop(view);
                            self.wake(owner);
                            return;
                        }
                    }
                    view.unread_requests.remove(token);
                    (waiter.map(|waiter| waiter.key), new)
                };
                if let (None, true, Some(token)) = (&owner, new, token) {
                    self.deny_later(token, name);
                }
                self.wake(owner);
            }
        }
    }

    /// No config waits for the token. Its config may not be listed yet, so that the request is denied only after a while.
    fn deny_later(self: &Arc<Self>, token: String, name: String) {
        let me = Arc::downgrade(self);
        self.spawn(async move {
            tokio::time::sleep(UNKNOWN_FOR).await;
            if let Some(tenant) = me.upgrade() {
                tenant.deny_unknown(&token, &name).await;
            }
        });
    }

    /// Denies the request, unless a config has its token by now.
    pub(in crate::kamajiconfig) async fn deny_unknown(&self, token: &str, name: &str) {
        let (owner, request) = {
            let view = self.view.lock();
            (
                view.ids.get(token).map(|waiter| waiter.key.clone()),
                view.requests.get(name).cloned(),
            )
        };
        // A paused config does not wait here, and answers when it is resumed.
        if let Some(owner) = owner.or_else(|| self.holder(token)) {
            self.wake(Some(owner));
            return;
        }
        let Some(request) = request else {
            return;
        };
        let message = "the token belongs to no KamajiConfig";
        let answer = self
            .session
            .answer(&request, false, Reason::UnknownToken, message);
        match answer.await {
            Ok(()) => self.answered(name),
            Err(error) => tracing::debug!(%error, "cannot deny the request of an unknown token"),
        }
    }

    /// The config of this Cluster whose status has the token. Scans all configs, once for each request of an unknown token.
    fn holder(&self, token: &str) -> Option<RootKey> {
        let configs = self.configs.by(BY_CLUSTER, &self.cluster);
        let holds = |config: &KamajiConfig| {
            let status = config.status.iter();
            let mut known = status.flat_map(|status| status.token.iter().chain(&status.former_token));
            known.any(|known| known.id.as_deref() == Some(token))
        };
        configs
            .iter()
            .find(|config| holds(config))
            .map(|config| RootKey::of(&**config))
    }

    pub(in crate::kamajiconfig) fn on_node(
        &self,
        event: Event<Node>,
        listing: &mut HashMap<String, NodeFacts>,
    ) {
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
                let (first, woken) = {
                    let mut view = self.view.lock();
                    let listed = std::mem::take(listing);
                    let before = view.nodes.take();
                    let changed = |name: &&String| {
                        let before = before.as_ref().map(|nodes| nodes.get(*name));
                        before != Some(listed.get(*name))
                    };
                    let names = view.names.iter().filter(|(name, _)| changed(name));
                    let woken: BTreeSet<_> = names.map(|(_, key)| key.clone()).collect();
                    view.nodes = Some(listed);
                    (before.is_none(), woken)
                };
                for key in woken {
                    // The first list comes with the connection, and not from inside the workload cluster.
                    if first {
                        self.queue.add(key);
                    } else {
                        self.wake(Some(key));
                    }
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
            // Heartbeats of a kubelet change nothing that is used.
            if before == facts {
                return;
            }
            view.names.get(&name).cloned()
        };
        self.wake(owner);
    }

    pub(in crate::kamajiconfig) fn on_token(
        self: &Arc<Self>,
        event: Event<PartialObjectMeta<Secret>>,
        listing: &mut HashMap<String, Mark>,
    ) {
        match event {
            Event::Init => listing.clear(),
            Event::InitApply(secret) => {
                listing.insert(id_of(&secret), Mark::of(&secret));
            }
            Event::InitDone => {
                let missing: Vec<_> = {
                    let mut view = self.view.lock();
                    let missing = view.ids.iter().filter(|(id, _)| !listing.contains_key(*id));
                    let missing = missing.map(|(_, waiter)| waiter.key.clone()).collect();
                    view.tokens = Some(std::mem::take(listing));
                    missing
                };
                for key in missing {
                    self.wake(Some(key));
                }
                let me = Arc::downgrade(self);
                self.spawn(async move {
                    if let Some(tenant) = me.upgrade() {
                        tenant.sweep().await;
                    }
                });
            }
            Event::Apply(secret) => {
                if let Some(ids) = self.view.lock().tokens.as_mut() {
                    ids.insert(id_of(&secret), Mark::of(&secret));
                }
            }
            Event::Delete(secret) => {
                let id = id_of(&secret);
                let owner = {
                    let mut view = self.view.lock();
                    let ended = view.tokens.as_mut().is_some_and(|ids| ids.remove(&id).is_none());
                    // We deleted it.
                    if ended {
                        return;
                    }
                    view.ids.get(&id).map(|waiter| waiter.key.clone())
                };
                self.wake(owner);
            }
        }
    }

    pub(in crate::kamajiconfig) fn on_report(
        &self,
        event: Event<CoreEvent>,
        listing: &mut BTreeSet<RootKey>,
    ) {
        match event {
            Event::Init => listing.clear(),
            Event::InitApply(event) => listing.extend(self.keep_report(&event).map(|(key, _)| key)),
            Event::InitDone => {
                for key in std::mem::take(listing) {
                    self.wake(Some(key));
                }
            }
            Event::Apply(event) => {
                let Some((key, token)) = self.keep_report(&event) else {
                    return;
                };
                {
                    let mut conducts = self.conducts.lock();
                    let conduct = conducts.entry(key.clone()).or_default();
                    conduct.note_report(&token, Instant::now().into_std());
                }
                self.wake(Some(key));
            }
            Event::Delete(_) => {}
        }
    }

    /// Keeps a report that is newer than the one before, and returns the config that it is about, and its token.
    fn keep_report(&self, event: &CoreEvent) -> Option<(RootKey, String)> {
        let (token, report) = report::read(event)?;
        let mut view = self.view.lock();
        let owner = view.ids.get(token).filter(|waiter| !waiter.ignored)?.key.clone();
        let time = |report: &NodeReport| report.time.as_ref().map(|time| time.0);
        let known = view.reports.get(token);
        if known.is_some_and(|known| time(known) > time(&report)) {
            return None;
        }
        view.reports.insert(token.to_owned(), report);
        Some((owner, token.to_owned()))
    }
}
