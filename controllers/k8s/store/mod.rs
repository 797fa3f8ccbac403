//! The live copy of all objects of one kind that a role reads whole: its roots and the few kinds it refers to.

mod packed;

use std::{collections::BTreeMap, sync::Arc};

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ManagedFieldsEntry, ObjectMeta};
use kube::{Resource, runtime::watcher::Event};
use parking_lot::{Mutex, RwLock};
use serde::{Serialize, de::DeserializeOwned};

use self::packed::PackedObject;
use super::{
    cache::{By, Cache, Change, Entry, WatchId},
    key::RootKey,
    routes::Routes,
};

/// Annotation in which `kubectl apply` keeps a whole object.
const LAST_APPLIED: &str = "kubectl.kubernetes.io/last-applied-configuration";

/// Receives a change: the object before and after; `None` for "did not exist" and "is gone".
type Route<K> = dyn Fn(Option<&K>, Option<&K>) + Send + Sync;

/// A kind that a store can hold.
pub trait Storable: Resource<DynamicType = ()> + Clone + Serialize + DeserializeOwned {}

impl<K: Resource<DynamicType = ()> + Clone + Serialize + DeserializeOwned> Storable for K {}

/// Objects by key, packed: each read decodes the object, so a caller reads it once. Our own writes are written through, so
/// a reconcile never acts on a root that is older than its own last write. Managed fields and what `kubectl apply` noted
/// are not kept.
pub struct Store<K: Storable> {
    cache: RwLock<Cache<Kept<K>>>,
    routes: Routes<Route<K>>,
    /// Objects that exist and do not decode; `false` for those that a list under way has not brought yet.
    undecodable: Mutex<BTreeMap<RootKey, bool>>,
}

/// An object beside its key.
struct Kept<K> {
    key: RootKey,
    version: String,
    object: Arc<K>,
}

impl<K: Storable> Entry for Kept<K> {
    type Key = RootKey;
    type Packed = PackedObject<K>;

    fn key(&self) -> &RootKey {
        &self.key
    }

    fn resource_version(&self) -> &str {
        &self.version
    }

    fn pack(&self) -> PackedObject<K> {
        PackedObject::of(self)
    }

    fn unpack(packed: &PackedObject<K>) -> Self {
        Self {
            key: packed.key.clone(),
            version: packed.version.to_string(),
            object: Arc::new(packed.unpack()),
        }
    }

    fn packed_key(packed: &PackedObject<K>) -> RootKey {
        packed.key.clone()
    }

    fn packed_version(packed: &PackedObject<K>) -> String {
        packed.version.to_string()
    }
}

impl<K: Storable> Default for Store<K> {
    fn default() -> Self {
        Self {
            cache: RwLock::default(),
            routes: Routes::default(),
            undecodable: Mutex::default(),
        }
    }
}

impl<K: Storable> Store<K> {
    /// Calls `route` for each change that was not our own.
    pub fn route(&self, route: impl Fn(Option<&K>, Option<&K>) + Send + Sync + 'static) {
        self.routes.add(Box::new(route));
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

    /// Finds objects by the keys that `keys` makes of them, without a scan: see [`by`](Self::by).
    pub fn index_by<I>(&self, by: By, keys: impl Fn(&K) -> I + Send + Sync + 'static)
    where
        I: IntoIterator<Item = RootKey>,
    {
        let keys = move |kept: &Kept<K>| keys(&kept.object).into_iter().collect();
        self.cache.write().index_by(by, Box::new(keys));
    }

    /// The objects that index `by` has under `key`, sorted by their own key.
    pub fn by(&self, by: By, key: &RootKey) -> Vec<Arc<K>> {
        self.cache.read().by(by, key).map(|kept| kept.object).collect()
    }

    /// The keys of the objects that index `by` has under `key`, sorted. Decodes none of them.
    pub fn keys_by(&self, by: By, key: &RootKey) -> Vec<RootKey> {
        self.cache.read().keys_by(by, key).collect()
    }

    /// The object of this key.
    pub fn get(&self, key: &RootKey) -> Option<Arc<K>> {
        self.cache.read().get(key).map(|kept| kept.object)
    }

    /// Writes through what one of our own writes returned: newest wins. Nobody is woken, unless the answer carries
    /// what somebody else changed meanwhile: the watch event of that change is older than our write and will be
    /// dropped, so this is the only time it is observed.
    pub fn put(&self, object: K) {
        let change = self.cache.write().put(Kept::of(object));
        if let Some((Some(old), Some(new))) = change
            && intent(&*old.object) != intent(&*new.object)
        {
            self.notify([(Some(old), Some(new))]);
        }
    }

    /// Folds one watch event and wakes the routes where something really changed.
    pub fn fold(&self, event: Event<K>) {
        let event = match event {
            Event::Init => {
                self.undecodable
                    .lock()
                    .values_mut()
                    .for_each(|listed| *listed = false);
                Event::Init
            }
            Event::InitDone => {
                self.undecodable.lock().retain(|_, listed| *listed);
                Event::InitDone
            }
            Event::InitApply(object) => Event::InitApply(self.decoded(object)),
            Event::Apply(object) => Event::Apply(self.decoded(object)),
            Event::Delete(object) => Event::Delete(self.decoded(object)),
        };
        let changes = self.cache.write().fold(WatchId::ONLY, event);
        self.notify(changes);
    }

    fn decoded(&self, object: K) -> Kept<K> {
        let kept = Kept::of(object);
        self.undecodable.lock().remove(&kept.key);
        kept
    }

    /// The watch brought an object that does not decode. The last version that did stays, so that nothing else takes it
    /// for deleted; its own controller leaves it alone (see [`is_undecodable`](Self::is_undecodable)).
    pub fn skip(&self, meta: &ObjectMeta) {
        let key = RootKey::new(
            meta.namespace.clone().unwrap_or_default(),
            meta.name.clone().unwrap_or_default(),
        );
        self.cache.write().keep(WatchId::ONLY, &key);
        self.undecodable.lock().insert(key, true);
    }

    /// An object that did not decode is gone.
    pub fn gone(&self, meta: &ObjectMeta) {
        let key = RootKey::new(
            meta.namespace.clone().unwrap_or_default(),
            meta.name.clone().unwrap_or_default(),
        );
        self.undecodable.lock().remove(&key);
        let old = self.cache.write().remove(&key);
        if let Some(old) = old {
            self.notify([(Some(old), None)]);
        }
    }

    /// The object exists and does not decode now.
    pub fn is_undecodable(&self, key: &RootKey) -> bool {
        self.undecodable.lock().contains_key(key)
    }

    /// Some objects exist that do not decode: what is not found here may be there all the same.
    pub fn undecodable(&self) -> Vec<RootKey> {
        self.undecodable.lock().keys().cloned().collect()
    }

    /// Wakes nobody from now on, until [`Self::release`].
    pub fn hold(&self) {
        self.routes.hold();
    }

    /// Everything was listed: wakes the routes once for each object, and from now on for each change.
    pub fn release(&self) {
        if self.routes.release() {
            // Decoded one by one: together they may not fit.
            let all: Vec<_> = self.cache.read().packed().cloned().collect();
            self.notify(all.iter().map(|packed| (None, Some(Kept::unpack(packed)))));
        }
    }

    fn notify(&self, changes: impl IntoIterator<Item = Change<Kept<K>>>) {
        self.routes.each(changes, |route, (old, new)| {
            let object = |kept: &Option<Kept<K>>| kept.as_ref().map(|kept| kept.object.clone());
            route(object(old).as_deref(), object(new).as_deref());
        });
    }
}

impl<K: Storable> Kept<K> {
    fn of(mut object: K) -> Self {
        let meta = object.meta_mut();
        let version = meta.resource_version.clone().unwrap_or_default();
        strip(meta);
        Self {
            key: RootKey::of(&object),
            version,
            object: Arc::new(object),
        }
    }
}

/// Drops what nobody reads. Fields of a spec that a replaced writer holds stay until the next event of the watch, which
/// has none: [`root::disown`](super::root::disown) finds them in what our own writes return.
fn strip(meta: &mut ObjectMeta) {
    let replaced = |entry: &ManagedFieldsEntry| {
        entry.operation.as_deref() == Some("Update")
            && entry
                .fields_v1
                .as_ref()
                .is_some_and(|fields| fields.0.get("f:spec").is_some())
    };
    // All or none: whoever replaces the list has to name every entry.
    meta.managed_fields = meta
        .managed_fields
        .take()
        .filter(|fields| fields.iter().any(replaced));
    if let Some(annotations) = &mut meta.annotations {
        annotations.remove(LAST_APPLIED);
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
        // The event of the owner's own write comes late and is older.
        store.fold(Event::Apply(object(2, true)));
        assert_eq!(woken.load(Ordering::SeqCst), 2);
    }
}
