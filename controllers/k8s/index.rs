//! The objects that roots own, in memory: one row an object.
//!
//! Watches feed it ([`ChildIndex::fold`]), and so do the answers to our own writes ([`ChildIndex::put`]). A reconcile
//! therefore never acts on a state older than its last write, and the watch event of our own write wakes nobody. A delete
//! wakes the owner as any other change does; kube's shared streams drop deletes.

use std::{num::NonZeroU64, sync::Arc};

use kube::{Resource, runtime::watcher::Event};
use parking_lot::RwLock;

use super::{
    cache::{By, Cache, Change, WatchId},
    key::{ObjectKey, RootKey},
    routes::Routes,
    row::{Facts, Row},
};

/// Rows by UID of their controller owner.
const BY_OWNER: By = By("owner");
/// Pods that do not come up, by label.
const BY_TROUBLE: By = By("trouble");

/// Rows of all watched kinds, by key, by owner and by further secondary indexes.
pub struct ChildIndex {
    cache: RwLock<Cache<Row>>,
    routes: Routes<dyn Fn(&Row) + Send + Sync>,
}

impl Default for ChildIndex {
    fn default() -> Self {
        let mut cache = Cache::default();
        let owners = |row: &Row| row.owner.iter().map(|owner| owner_key(&owner.uid)).collect();
        cache.index_by(BY_OWNER, Box::new(owners));
        cache.index_by(BY_TROUBLE, Box::new(trouble_keys));
        Self {
            cache: RwLock::new(cache),
            routes: Routes::default(),
        }
    }
}

/// Rows with this owner, in the secondary index.
fn owner_key(uid: &str) -> RootKey {
    RootKey::new("", uid)
}

/// The row with the same allocation for its owner as the owner's other rows, which saves some 190 bytes a row.
fn with_shared_owner(cache: &Cache<Row>, mut row: Row) -> Row {
    if let Some(owner) = &row.owner {
        let siblings = cache.packed_by(BY_OWNER, &owner_key(&owner.uid));
        if let Some(known) = siblings.first().filter(|known| known.owner == row.owner) {
            row.owner.clone_from(&known.owner);
        }
    }
    row
}

/// The last row of an object that was taken from its owner, so that the owner hears of it.
fn taken<'a>(old: Option<&'a Row>, new: Option<&Row>) -> Option<&'a Row> {
    old.filter(|old| old.owner.is_some() && new.is_some_and(|new| new.owner != old.owner))
}

/// Labels of a pod that does not come up, in the secondary index.
fn trouble_keys(row: &Row) -> Vec<RootKey> {
    if row.deleting || !matches!(row.facts, Facts::Pod { trouble: Some(_) }) {
        return Vec::new();
    }
    let namespace = row.key.namespace.as_str();
    let labels = row.labels.iter();
    labels
        .map(|(label, value)| trouble_key(namespace, label, value))
        .collect()
}

fn trouble_key(namespace: &str, label: &str, value: &str) -> RootKey {
    RootKey::new(namespace, format!("{label}={value}"))
}

impl ChildIndex {
    /// A new watch to [`fold`](Self::fold) from.
    pub fn watch(&self) -> WatchId {
        self.cache.write().watch()
    }

    /// Calls `wake` for each change by somebody else of a row whose controller owner is a `K`.
    pub fn wake_owner<K: Resource<DynamicType = ()>>(&self, wake: impl Fn(RootKey) + Send + Sync + 'static) {
        self.route(move |row| {
            if let Some(owner) = row.owner.as_ref().filter(|owner| owner.is::<K>()) {
                wake(RootKey::new(row.key.namespace.clone(), owner.name.clone()));
            }
        });
    }

    /// Calls `route` for each change by somebody else: with the new row, or with the last one after a delete. Where an
    /// object has lost its owner or got another one, with both.
    pub fn route(&self, route: impl Fn(&Row) + Send + Sync + 'static) {
        self.routes.add(Box::new(route));
    }

    /// Finds rows by the keys that `keys` makes of them, without a scan: see [`by`](Self::by).
    pub fn index_by<I>(&self, by: By, keys: impl Fn(&Row) -> I + Send + Sync + 'static)
    where
        I: IntoIterator<Item = RootKey>,
    {
        let keys = move |row: &Row| keys(row).into_iter().collect();
        self.cache.write().index_by(by, Box::new(keys));
    }

    /// The rows that index `by` has under `key`, sorted by their own key.
    pub fn by(&self, by: By, key: &RootKey) -> Vec<Arc<Row>> {
        self.cache.read().by(by, key).map(Arc::new).collect()
    }

    /// The row of `key`, if the object exists.
    pub fn get(&self, key: &ObjectKey) -> Option<Arc<Row>> {
        self.cache.read().get(key).map(Arc::new)
    }

    /// The row of the `K` `namespace`/`name`, if the object exists.
    pub fn find<K: Resource<DynamicType = ()>>(&self, namespace: &str, name: &str) -> Option<Arc<Row>> {
        self.get(&ObjectKey::of::<K>(namespace, name))
    }

    /// All rows whose controller owner has this UID, sorted by key.
    pub fn owned_by(&self, uid: &str) -> Vec<Arc<Row>> {
        self.by(BY_OWNER, &owner_key(uid))
    }

    /// All rows.
    #[cfg(test)]
    pub fn all(&self) -> Vec<Row> {
        self.cache.read().packed().map(|row| row.unpack()).collect()
    }

    /// Why a pod with this label does not run; of several pods, that of the first by name. The label needs one of the
    /// prefixes that rows keep.
    pub fn pod_trouble(&self, namespace: &str, label: &str, value: &str) -> Option<String> {
        let pods = self.by(BY_TROUBLE, &trouble_key(namespace, label, value));
        let Facts::Pod { trouble } = &pods.first()?.facts else {
            return None;
        };
        trouble.as_deref().map(str::to_owned)
    }

    /// Stores the answer to one of our own writes, unless a newer version is known. It wakes nobody, unless the answer
    /// contains a status that was not observed yet: the watch event of that status is older than the write and is dropped.
    pub fn put(&self, row: Row) {
        let mut cache = self.cache.write();
        let row = with_shared_owner(&cache, row);
        let change = cache.put(row);
        drop(cache);
        if let Some((Some(old), Some(new))) = change
            && old.facts != new.facts
        {
            self.notify([(Some(old), Some(new))]);
        }
    }

    /// Like [`put`](Self::put), for a row that is as we applied or read it; see [`is_untouched`](Self::is_untouched).
    pub fn put_applied(&self, row: Row) {
        let (key, fingerprint) = (row.key.clone(), row.fingerprint());
        self.put(row);
        self.cache.write().set_applied(&key, fingerprint);
    }

    /// Nobody has changed the object since we last applied it or read it as a whole. What a process finds when it starts
    /// counts as unchanged.
    pub fn is_untouched(&self, row: &Row) -> bool {
        let now = row.fingerprint();
        if let Some(then) = self.applied(&row.key) {
            return then == now;
        }
        self.cache.write().set_applied(&row.key, now);
        true
    }

    /// We read the object as it is in `row`, and it is as it should be.
    pub fn set_untouched(&self, row: &Row) {
        self.cache.write().set_applied(&row.key, row.fingerprint());
    }

    /// This process has applied or read the object.
    pub(super) fn is_known(&self, key: &ObjectKey) -> bool {
        self.applied(key).is_some()
    }

    fn applied(&self, key: &ObjectKey) -> Option<NonZeroU64> {
        self.cache.read().applied(key)
    }

    /// Removes an object that one of our own deletes removed.
    pub fn forget(&self, key: &ObjectKey) {
        self.cache.write().remove(key);
    }

    /// Stores one event of `watch` and calls the routes if something changed.
    pub fn fold(&self, watch: WatchId, event: Event<Row>) {
        let mut cache = self.cache.write();
        let event = match event {
            Event::Apply(row) => Event::Apply(with_shared_owner(&cache, row)),
            Event::InitApply(row) => Event::InitApply(with_shared_owner(&cache, row)),
            Event::Delete(_) | Event::Init | Event::InitDone => event,
        };
        let changes = cache.fold(watch, event);
        drop(cache);
        self.notify(changes);
    }

    /// Calls no route until [`Self::release`].
    pub fn hold(&self) {
        self.routes.hold();
    }

    /// Calls the routes once for each row, and from now on for each change. For when every watch has listed.
    pub fn release(&self) {
        if self.routes.release() {
            // Unpacked one by one: together they may not fit.
            let all: Vec<_> = self.cache.read().packed().cloned().collect();
            self.notify(all.iter().map(|packed| (None, Some(packed.unpack()))));
        }
    }

    fn notify(&self, changes: impl IntoIterator<Item = Change<Row>>) {
        self.routes.each(changes, |route, (old, new)| {
            let now = new.as_ref().or(old.as_ref());
            now.into_iter()
                .chain(taken(old.as_ref(), new.as_ref()))
                .for_each(route);
        });
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use k8s_openapi::{
        api::core::v1::Secret,
        apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference},
    };
    use kamaji_api::tenantcontrolplane::TenantControlPlane;

    use super::*;

    fn row(name: &str, version: u64) -> Row {
        let meta = ObjectMeta {
            name: Some(name.into()),
            namespace: Some("ns".into()),
            uid: Some(format!("uid-{name}")),
            resource_version: Some(version.to_string()),
            owner_references: Some(vec![OwnerReference {
                kind: "TenantControlPlane".into(),
                name: "t".into(),
                uid: "owner".into(),
                controller: Some(true),
                ..OwnerReference::default()
            }]),
            ..ObjectMeta::default()
        };
        Row::of::<Secret>(&meta)
    }

    fn counted() -> (ChildIndex, Arc<AtomicUsize>) {
        let index = ChildIndex::default();
        let woken = Arc::new(AtomicUsize::new(0));
        let count = woken.clone();
        index.wake_owner::<TenantControlPlane>(move |key| {
            assert_eq!(key, RootKey::new("ns", "t"));
            count.fetch_add(1, Ordering::SeqCst);
        });
        (index, woken)
    }

    #[test]
    fn a_delete_wakes_the_owner() {
        let (index, woken) = counted();
        let watch = index.watch();
        index.fold(watch, Event::Apply(row("a", 1)));
        index.fold(watch, Event::Delete(row("a", 2)));
        assert_eq!(woken.load(Ordering::SeqCst), 2);
        assert!(index.owned_by("owner").is_empty());
    }

    #[test]
    fn the_event_of_our_own_write_wakes_nobody() {
        let (index, woken) = counted();
        let watch = index.watch();
        index.put(row("a", 5));
        index.fold(watch, Event::Apply(row("a", 5)));
        index.fold(watch, Event::Apply(row("a", 4)));
        assert_eq!(woken.load(Ordering::SeqCst), 0);
        assert_eq!(index.owned_by("owner").len(), 1);
    }

    #[test]
    fn a_relist_drops_what_is_gone_and_keeps_what_was_written_meanwhile() {
        let (index, woken) = counted();
        let watch = index.watch();
        index.fold(watch, Event::Apply(row("gone", 1)));
        index.fold(watch, Event::Init);
        index.put(row("fresh", 9));
        index.fold(watch, Event::InitApply(row("stays", 3)));
        index.fold(watch, Event::InitDone);
        let names: Vec<_> = index
            .owned_by("owner")
            .iter()
            .map(|r| r.key.name.clone())
            .collect();
        assert_eq!(names, ["fresh", "stays"]);
        assert_eq!(woken.load(Ordering::SeqCst), 3);
    }

    #[test]
    fn what_two_watches_of_a_kind_hold_goes_with_the_second() {
        let (index, woken) = counted();
        let (one, two) = (index.watch(), index.watch());
        index.fold(one, Event::Apply(row("both", 1)));
        index.fold(two, Event::Apply(row("both", 1)));
        index.fold(two, Event::Apply(row("second's", 1)));
        assert_eq!(woken.load(Ordering::SeqCst), 2);
        // A list of the first brings nothing: it lost its label there.
        index.fold(one, Event::Init);
        index.fold(one, Event::InitDone);
        assert_eq!(index.owned_by("owner").len(), 2);
        index.fold(two, Event::Delete(row("both", 2)));
        assert_eq!(index.owned_by("owner").len(), 1);
        assert_eq!(woken.load(Ordering::SeqCst), 3);
    }
}
