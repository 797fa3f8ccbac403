//! The live copy of all objects of one kind that a role reads whole: its roots and the few kinds it refers to.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    sync::Arc,
};

use kube::{Resource, ResourceExt, runtime::watcher::Event};
use parking_lot::RwLock;

use super::{key::RootKey, row::older};

/// Told of a change: the object before and after; `None` for «did not exist» and «is gone».
type Route<K> = Box<dyn Fn(Option<&K>, Option<&K>) + Send + Sync>;

/// Objects by key. Our own writes are written through, so a reconcile never sees a root older than its own last
/// write.
pub struct Store<K> {
    objects: RwLock<HashMap<RootKey, Arc<K>>>,
    listing: RwLock<Option<HashSet<RootKey>>>,
    routes: RwLock<Vec<Route<K>>>,
}

impl<K> Default for Store<K> {
    fn default() -> Self {
        Self {
            objects: RwLock::default(),
            listing: RwLock::default(),
            routes: RwLock::default(),
        }
    }
}

impl<K: Resource<DynamicType = ()>> Store<K> {
    /// Calls `route` for each change that was not our own.
    pub fn route(&self, route: impl Fn(Option<&K>, Option<&K>) + Send + Sync + 'static) {
        self.routes.write().push(Box::new(route));
    }

    /// Calls `wake` where a root changed in what a controller acts on: spec, deletion, finalizers, labels,
    /// annotations or owners. Status writes, ours and others', wake nobody.
    pub fn wake_on_intent(&self, wake: impl Fn(RootKey) + Send + Sync + 'static) {
        self.route(move |old, new| {
            if let Some(new) = new.filter(|new| old.is_none_or(|old| intent(old) != intent(*new))) {
                wake(RootKey::of(new));
            }
        });
    }

    /// The object of this key.
    pub fn get(&self, key: &RootKey) -> Option<Arc<K>> {
        self.objects.read().get(key).cloned()
    }

    /// All objects, sorted by key.
    pub fn all(&self) -> Vec<Arc<K>> {
        let sorted: BTreeMap<_, _> = self
            .objects
            .read()
            .iter()
            .map(|(key, object)| (key.clone(), object.clone()))
            .collect();
        sorted.into_values().collect()
    }

    /// Writes through what one of our own writes returned: newest wins. Nobody is woken, unless the answer carries
    /// what somebody else changed meanwhile: the watch event of that change is older than our write and will be
    /// dropped, so this is the only time it is seen.
    pub fn put(&self, object: K) {
        let key = RootKey::of(&object);
        if let Some(seen) = self.listing.write().as_mut() {
            seen.insert(key.clone());
        }
        let new = Arc::new(object);
        let old = {
            let mut objects = self.objects.write();
            if objects.get(&key).is_some_and(|known| is_older(&*new, known)) {
                return;
            }
            objects.insert(key, new.clone())
        };
        if old.as_ref().is_some_and(|old| intent(&**old) != intent(&*new)) {
            self.routes
                .read()
                .iter()
                .for_each(|route| route(old.as_deref(), Some(&new)));
        }
    }

    /// Folds one watch event and wakes the routes where something really changed.
    pub fn fold(&self, event: Event<K>) {
        match event {
            Event::Init => *self.listing.write() = Some(HashSet::new()),
            Event::InitApply(object) => {
                if let Some(seen) = self.listing.write().as_mut() {
                    seen.insert(RootKey::of(&object));
                }
                self.insert(object);
            }
            Event::Apply(object) => self.insert(object),
            Event::Delete(object) => self.remove(&RootKey::of(&object)),
            Event::InitDone => {
                let seen = self.listing.write().take().unwrap_or_default();
                let gone: Vec<_> = self
                    .objects
                    .read()
                    .keys()
                    .filter(|key| !seen.contains(*key))
                    .cloned()
                    .collect();
                for key in &gone {
                    self.remove(key);
                }
            }
        }
    }

    fn insert(&self, object: K) {
        let key = RootKey::of(&object);
        let new = Arc::new(object);
        let old = {
            let mut objects = self.objects.write();
            let old = objects.get(&key).cloned();
            if old.as_ref().is_some_and(|known| {
                is_older(&*new, known) || known.resource_version() == new.resource_version()
            }) {
                return;
            }
            objects.insert(key, new.clone());
            old
        };
        self.routes
            .read()
            .iter()
            .for_each(|route| route(old.as_deref(), Some(&new)));
    }

    fn remove(&self, key: &RootKey) {
        let old = self.objects.write().remove(key);
        if let Some(old) = old {
            self.routes
                .read()
                .iter()
                .for_each(|route| route(Some(&old), None));
        }
    }
}

fn is_older<K: Resource>(a: &K, b: &K) -> bool {
    match (&a.meta().resource_version, &b.meta().resource_version) {
        (Some(a), Some(b)) => older(a, b),
        _ => false,
    }
}

/// What a controller acts on, without the status.
fn intent<K: Resource>(object: &K) -> impl PartialEq {
    let meta = object.meta();
    (
        meta.uid.clone(),
        meta.generation,
        meta.deletion_timestamp.clone(),
        meta.finalizers.clone(),
        meta.labels.clone(),
        meta.annotations.clone(),
        meta.owner_references.clone(),
    )
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use k8s_openapi::{api::core::v1::ConfigMap, apimachinery::pkg::apis::meta::v1::OwnerReference};

    use super::*;

    fn object(version: u64, owned: bool) -> ConfigMap {
        let mut object = ConfigMap::default();
        object.metadata.name = Some("a".into());
        object.metadata.namespace = Some("ns".into());
        object.metadata.resource_version = Some(version.to_string());
        object.metadata.owner_references = owned.then(|| vec![OwnerReference::default()]);
        object
    }

    fn counted() -> (Store<ConfigMap>, Arc<AtomicUsize>) {
        let store = Store::default();
        let woken = Arc::new(AtomicUsize::new(0));
        let count = woken.clone();
        store.wake_on_intent(move |_| {
            count.fetch_add(1, Ordering::SeqCst);
        });
        store.fold(Event::Apply(object(1, false)));
        (store, woken)
    }

    #[test]
    fn our_own_status_write_wakes_nobody() {
        let (store, woken) = counted();
        store.put(object(2, false));
        store.fold(Event::Apply(object(2, false)));
        assert_eq!(woken.load(Ordering::SeqCst), 1);
    }

    #[test]
    fn an_owner_that_came_with_the_answer_to_our_own_write_wakes() {
        let (store, woken) = counted();
        store.put(object(3, true));
        // The event of the owner's own write comes late and is old news.
        store.fold(Event::Apply(object(2, true)));
        assert_eq!(woken.load(Ordering::SeqCst), 2);
    }
}
