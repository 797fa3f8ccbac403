//! Watches: one per kind, folded into the index or a store; reconciling starts when all have listed once.
//!
//! Until then nobody is woken: a wake-up for each of a hundred thousand listed objects would ask questions that only the
//! other lists answer. Afterwards everything that was listed wakes its routes once.
//!
//! An object that does not decode is skipped, logged once for each of its versions and counted; it never keeps a role
//! from becoming ready. Of a root its Event and condition tell too ([`Watches::roots`]).

use std::{collections::HashMap, fmt::Debug, sync::Arc, time::Duration};

use anyhow::{Context as _, anyhow};
use futures::{Stream, StreamExt as _, future::BoxFuture};
use k8s_openapi::{apimachinery::pkg::apis::meta::v1::ObjectMeta, jiff::Timestamp};
use kube::{
    Api, Client, Resource,
    runtime::{
        WatchStreamExt as _,
        watcher::{self, Event},
    },
};
use serde::de::DeserializeOwned;
use tokio::{
    sync::{
        mpsc::{self, UnboundedSender},
        watch::{Receiver, channel},
    },
    task::JoinSet,
};

use super::{
    guard::{Guarded, Undecodable},
    metrics::Metrics,
    role::Role,
};
use crate::{
    k8s::{
        backoff,
        children::{self, Visitor, Watched},
        events::Events,
        index::ChildIndex,
        key::RootKey,
        kind::Kind,
        row::Row,
        store::{Storable, Store},
        undecodable::Reporter,
    },
    settings::Settings,
};

/// Tries to report on one version of an object that does not decode.
const REPORT_TRIES: u32 = 5;

/// A kind that a store can hold.
pub trait Object: Storable + Debug + Send + Sync + 'static {}

impl<K: Storable + Debug + Send + Sync + 'static> Object for K {}

/// What wakes nobody before everything was listed.
trait Held: Send {
    fn release(&self);
}

impl Held for Arc<ChildIndex> {
    fn release(&self) {
        ChildIndex::release(self);
    }
}

impl<K: Object> Held for Arc<Store<K>> {
    fn release(&self) {
        Store::release(self);
    }
}

/// The watches of one role. They end when this is dropped.
pub struct Watches {
    /// Each ends with its kind.
    tasks: JoinSet<&'static str>,
    listed: Vec<(&'static str, Receiver<bool>)>,
    held: Vec<Box<dyn Held>>,
    settings: Arc<Settings>,
    metrics: Metrics,
    reporter: Reporter,
    reports: UnboundedSender<BoxFuture<'static, ()>>,
}

impl Watches {
    /// The watches of `role`, none yet. Reports are written as `field_manager`.
    pub fn new(role: &Role, field_manager: &'static str) -> Self {
        let mut tasks = JoinSet::new();
        let (reports, mut waiting) = mpsc::unbounded_channel::<BoxFuture<'static, ()>>();
        // One after the other: a broken release of something else must not become a storm of requests of ours.
        tasks.spawn(async move {
            while let Some(report) = waiting.recv().await {
                report.await;
            }
            "reports"
        });
        Self {
            tasks,
            listed: Vec::new(),
            held: Vec::new(),
            settings: role.settings.clone(),
            metrics: role.metrics.clone(),
            reporter: Reporter {
                client: role.client.clone(),
                events: Events::new(role.client.clone(), field_manager, role.instance()),
                field_manager,
            },
            reports,
        }
    }

    /// Watches `K` and folds rows of it into `index`. `PartialObjectMeta<Kind>` watches the metadata alone. Of an object
    /// that does not decode the row has the metadata.
    pub fn children<K: Watched>(&mut self, client: Client, config: watcher::Config, index: &Arc<ChildIndex>) {
        index.hold();
        self.held.push(Box::new(index.clone()));
        let (index, id) = (index.clone(), index.watch());
        let kind = Kind::of::<K>();
        let mut skipped = Skipped::new(kind, self.metrics.clone());
        self.spawn(kind.name(), watch::<K>(client, config), move |event| {
            index.fold(
                id,
                map(event, |object, gone| match object {
                    Guarded::Decoded(object) => {
                        skipped.forget(object.meta());
                        object.row()
                    }
                    Guarded::Undecodable(object) => {
                        if gone {
                            skipped.forget(&object.meta);
                        } else {
                            skipped.note(&object);
                        }
                        Row::of::<K>(&object.meta)
                    }
                }),
            );
        });
    }

    /// Watches every kind of [`children`] in all namespaces and folds rows of it into `index`.
    pub fn all_children(&mut self, client: &Client, config: &watcher::Config, index: &Arc<ChildIndex>) {
        struct Each<'a>(
            &'a mut Watches,
            &'a Client,
            &'a watcher::Config,
            &'a Arc<ChildIndex>,
        );
        impl Visitor for Each<'_> {
            fn visit<K: Watched>(&mut self) {
                let Self(watches, client, config, index) = self;
                watches.children::<K>((*client).clone(), (*config).clone(), index);
            }
        }
        children::each(&mut Each(self, client, config, index));
    }

    /// Watches `K`, which the role only reads, into `store`.
    pub fn store<K: Object>(&mut self, client: Client, config: watcher::Config, store: &Arc<Store<K>>) {
        self.whole(client, config, store, |_| {});
    }

    /// Watches the role's own `K` into `store`. One that does not decode gets an Event, and `condition` becomes `False`.
    pub fn roots<K: Object>(
        &mut self,
        client: Client,
        config: watcher::Config,
        store: &Arc<Store<K>>,
        condition: &'static str,
    ) {
        let (reporter, reports, settings) =
            (self.reporter.clone(), self.reports.clone(), self.settings.clone());
        self.whole(client, config, store, move |object: &Undecodable| {
            let namespace = object.meta.namespace.clone().unwrap_or_default();
            if namespace.is_empty() || settings.acts_on(&namespace) {
                // Fails when the role ends.
                let _ = reports.send(report::<K>(reporter.clone(), object, condition));
            }
        });
    }

    fn whole<K: Object>(
        &mut self,
        client: Client,
        config: watcher::Config,
        store: &Arc<Store<K>>,
        report: impl Fn(&Undecodable) + Send + 'static,
    ) {
        store.hold();
        self.held.push(Box::new(store.clone()));
        let store = store.clone();
        let kind = Kind::of::<K>();
        let mut skipped = Skipped::new(kind, self.metrics.clone());
        self.spawn(
            kind.name(),
            watch::<K>(client, config),
            move |event| match event {
                Event::Init => store.fold(Event::Init),
                Event::InitDone => store.fold(Event::InitDone),
                Event::InitApply(Guarded::Decoded(object)) => {
                    skipped.forget(object.meta());
                    store.fold(Event::InitApply(object));
                }
                Event::Apply(Guarded::Decoded(object)) => {
                    skipped.forget(object.meta());
                    store.fold(Event::Apply(object));
                }
                Event::Delete(Guarded::Decoded(object)) => {
                    skipped.forget(object.meta());
                    store.fold(Event::Delete(object));
                }
                Event::Delete(Guarded::Undecodable(object)) => {
                    skipped.forget(&object.meta);
                    store.gone(&object.meta);
                }
                Event::InitApply(Guarded::Undecodable(object))
                | Event::Apply(Guarded::Undecodable(object)) => {
                    store.skip(&object.meta);
                    if skipped.note(&object) {
                        report(&object);
                    }
                }
            },
        );
    }

    fn spawn<T: Send + 'static>(
        &mut self,
        kind: &'static str,
        stream: impl Stream<Item = watcher::Result<Event<T>>> + Send + 'static,
        mut fold: impl FnMut(Event<T>) + Send + 'static,
    ) {
        let (listed, observed) = channel(false);
        self.listed.push((kind, observed));
        let (metrics, restarts) = (self.metrics.clone(), self.metrics.clone());
        let follow = follow(
            stream.default_backoff(),
            move |event| {
                match &event {
                    Event::InitDone => {
                        fold(event);
                        listed.send_replace(true);
                        return;
                    }
                    Event::Init if *listed.borrow() => restarts.watch_restarted(kind),
                    _ => {}
                }
                fold(event);
            },
            move |first, error| {
                metrics.watch_failed(kind);
                if first {
                    tracing::warn!(kind, %error, "watch failed, retrying with backoff");
                } else {
                    tracing::debug!(kind, %error, "watch still fails");
                }
            },
        );
        self.tasks.spawn(async move {
            follow.await;
            kind
        });
    }

    /// Waits until every kind was listed once, then lets changes wake their routes. Until then nothing may be pruned or
    /// created.
    ///
    /// # Errors
    /// A watch ended before its first list.
    pub async fn listed(&mut self) -> anyhow::Result<()> {
        for (kind, observed) in &mut self.listed {
            tracing::debug!(kind, "waiting for the first list");
            observed
                .wait_for(|done| *done)
                .await
                .with_context(|| format!("the watch of {kind} ended before its first list"))?;
        }
        self.held.drain(..).for_each(|held| held.release());
        Ok(())
    }

    /// Runs `work` while every watch goes on.
    ///
    /// # Errors
    /// A watch ended: from then on `work` would act on what was true then.
    pub async fn during<T>(&mut self, work: impl Future<Output = T>) -> anyhow::Result<T> {
        let ended = async {
            match self.tasks.join_next().await {
                Some(Err(panic)) => anyhow!("a watch panicked: {panic}"),
                Some(Ok(kind)) => anyhow!("the watch of {kind} ended"),
                None => std::future::pending().await,
            }
        };
        // Boxed: a role is a large future.
        let work = Box::pin(work);
        tokio::select! {
            result = work => Ok(result),
            ended = ended => Err(ended),
        }
    }
}

impl Role {
    /// Waits until everything watched was listed once; `false` when the process stops before.
    ///
    /// # Errors
    /// A watch ended.
    pub async fn listed(&self, watches: &mut Watches) -> anyhow::Result<bool> {
        tokio::select! {
            listed = watches.listed() => listed.map(|()| true),
            () = self.stop.cancelled() => Ok(false),
        }
    }
}

/// Objects of one watch that do not decode.
struct Skipped {
    kind: Kind,
    metrics: Metrics,
    versions: HashMap<RootKey, String>,
}

impl Skipped {
    fn new(kind: Kind, metrics: Metrics) -> Self {
        Self {
            kind,
            metrics,
            versions: HashMap::new(),
        }
    }

    /// `true` for a version that is new.
    fn note(&mut self, object: &Undecodable) -> bool {
        let key = key(&object.meta);
        let version = object.meta.resource_version.clone().unwrap_or_default();
        let known = self.versions.insert(key.clone(), version.clone());
        if known == Some(version) {
            return false;
        }
        self.metrics.undecodable(self.kind.name(), self.versions.len());
        let Undecodable { path, problem, .. } = object;
        tracing::warn!(kind = %self.kind, object = %key, path, problem, "the object does not decode and is skipped");
        true
    }

    fn forget(&mut self, meta: &ObjectMeta) {
        if !self.versions.is_empty() && self.versions.remove(&key(meta)).is_some() {
            self.metrics.undecodable(self.kind.name(), self.versions.len());
        }
    }
}

fn key(meta: &ObjectMeta) -> RootKey {
    RootKey::new(
        meta.namespace.clone().unwrap_or_default(),
        meta.name.clone().unwrap_or_default(),
    )
}

/// Reports on an object that does not decode, with a few tries: nothing else would report this version again.
fn report<K: Object>(
    reporter: Reporter,
    object: &Undecodable,
    condition: &'static str,
) -> BoxFuture<'static, ()> {
    let message = format!(
        "{}: {}; correct the field, or use a version of this provider that knows it",
        object.path, object.problem
    );
    let meta = object.meta.clone();
    Box::pin(async move {
        for tries in 1..=REPORT_TRIES {
            let Err(error) = reporter
                .report::<K>(&meta, condition, &message, Timestamp::now())
                .await
            else {
                return;
            };
            tracing::debug!(kind = %Kind::of::<K>(), object = %key(&meta), %error, "the condition was not written");
            tokio::time::sleep(backoff::wait(tries, rand::random()).min(Duration::from_secs(10))).await;
        }
    })
}

/// Lists and watches `K` in all namespaces; each object may be undecodable.
fn watch<K: Resource<DynamicType = ()> + Clone + DeserializeOwned + Debug + Send + 'static>(
    client: Client,
    config: watcher::Config,
) -> impl Stream<Item = watcher::Result<Event<Guarded<K>>>> + Send {
    watcher::watcher(Api::<Guarded<K>>::all(client), config)
}

fn map<A, B>(event: Event<A>, mut f: impl FnMut(A, bool) -> B) -> Event<B> {
    match event {
        Event::Apply(a) => Event::Apply(f(a, false)),
        Event::Delete(a) => Event::Delete(f(a, true)),
        Event::Init => Event::Init,
        Event::InitApply(a) => Event::InitApply(f(a, false)),
        Event::InitDone => Event::InitDone,
    }
}

/// Feeds `fold` from a watch until it ends. `failed` receives each error, and whether it is the first since the last
/// success.
pub async fn follow<T>(
    stream: impl Stream<Item = watcher::Result<Event<T>>>,
    mut fold: impl FnMut(Event<T>),
    failed: impl Fn(bool, watcher::Error),
) {
    let mut stream = std::pin::pin!(stream);
    let mut broken = false;
    while let Some(event) = stream.next().await {
        match event {
            Ok(event) => {
                broken = false;
                fold(event);
            }
            Err(error) => {
                failed(!broken, error);
                broken = true;
            }
        }
    }
}

#[cfg(test)]
mod tests;
