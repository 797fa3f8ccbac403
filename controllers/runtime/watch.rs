//! Watches: one per kind, folded into the index or a store; reconciling starts when all have listed once.

use std::{fmt::Debug, sync::Arc};

use futures::{Stream, StreamExt, TryStreamExt};
use kube::{
    Api, Client, Resource, ResourceExt,
    runtime::{
        WatchStreamExt,
        watcher::{self, Event},
    },
};
use serde::de::DeserializeOwned;
use tokio::{
    sync::watch::{Receiver, Sender, channel},
    task::JoinSet,
};

use crate::k8s::{
    children::{self, Visitor, Watched},
    index::ChildIndex,
    kind::Kind,
    store::Store,
};

/// The watches of one role. They end when this is dropped.
#[derive(Default)]
pub struct Watches {
    tasks: JoinSet<()>,
    listed: Vec<(String, Receiver<bool>)>,
}

impl Watches {
    /// Watches `K` and folds rows of it into `index`. `PartialObjectMeta<Kind>` watches the metadata alone.
    pub fn children<K>(&mut self, api: Api<K>, config: watcher::Config, index: &Arc<ChildIndex>)
    where
        K: Watched,
    {
        let (index, id) = (index.clone(), index.watch());
        self.spawn(
            Kind::of::<K>().name(),
            watcher::watcher(api, config),
            move |event| {
                index.fold(id, map(event, |object| object.row()));
            },
        );
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
                watches.children::<K>(Api::all((*client).clone()), (*config).clone(), index);
            }
        }
        children::each(&mut Each(self, client, config, index));
    }

    /// Watches `K` into `store`, without managed fields.
    pub fn store<K>(&mut self, api: Api<K>, config: watcher::Config, store: &Arc<Store<K>>)
    where
        K: Resource<DynamicType = ()> + Clone + DeserializeOwned + Debug + Send + Sync + 'static,
    {
        let store = store.clone();
        self.spawn(&K::kind(&()), watcher::watcher(api, config), move |event| {
            store.fold(map(event, |mut object| {
                object.managed_fields_mut().clear();
                object
            }));
        });
    }

    fn spawn<T>(
        &mut self,
        kind: &str,
        stream: impl Stream<Item = watcher::Result<Event<T>>> + Send + 'static,
        mut fold: impl FnMut(Event<T>) + Send + 'static,
    ) where
        T: Send + 'static,
    {
        let (listed, seen): (Sender<bool>, _) = channel(false);
        self.listed.push((kind.to_owned(), seen));
        let kind = kind.to_owned();
        self.tasks.spawn(async move {
            let mut stream = Box::pin(stream.default_backoff());
            let mut broken = false;
            while let Some(event) = stream.next().await {
                match event {
                    Ok(event) => {
                        let done = matches!(event, Event::InitDone);
                        fold(event);
                        if done {
                            listed.send_replace(true);
                        }
                        broken = false;
                    }
                    Err(error) if broken => tracing::debug!(kind, %error, "watch still fails"),
                    Err(error) => {
                        broken = true;
                        tracing::warn!(kind, %error, "watch failed, retrying with backoff");
                    }
                }
            }
        });
    }

    /// Waits until every kind was listed once. Until then nothing may be pruned or created.
    pub async fn listed(&mut self) {
        for (kind, seen) in &mut self.listed {
            tracing::debug!(kind, "waiting for the first list");
            if seen.wait_for(|done| *done).await.is_err() {
                tracing::error!(kind, "watch ended");
            }
        }
    }
}

fn map<A, B>(event: Event<A>, f: impl FnOnce(A) -> B) -> Event<B> {
    match event {
        Event::Apply(a) => Event::Apply(f(a)),
        Event::Delete(a) => Event::Delete(f(a)),
        Event::Init => Event::Init,
        Event::InitApply(a) => Event::InitApply(f(a)),
        Event::InitDone => Event::InitDone,
    }
}

/// Collects a watch as a plain stream, for watches outside the index (tenant API servers).
pub fn objects<K>(api: Api<K>, config: watcher::Config) -> impl Stream<Item = watcher::Result<K>> + Send
where
    K: Resource + Clone + DeserializeOwned + Debug + Send + 'static,
{
    watcher::watcher(api, config)
        .default_backoff()
        .try_filter_map(|event| async move {
            Ok(match event {
                Event::Apply(object) | Event::InitApply(object) => Some(object),
                Event::Delete(_) | Event::Init | Event::InitDone => None,
            })
        })
}
