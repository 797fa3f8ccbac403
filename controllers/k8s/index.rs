//! One in-memory index of the objects that our roots own: rows instead of cached objects, deletes included.
//!
//! Watches fold into it ([`ChildIndex::fold`]); the apply path writes through ([`ChildIndex::put`]), so that a
//! reconcile never acts on a state older than its own last write, and so that the watch event of our own write
//! wakes nobody. Kube's shared streams drop deletes; here they trigger owners as any change does.

use std::{
    collections::{BTreeSet, HashMap},
    sync::Arc,
};

use kube::{Resource, runtime::watcher::Event};
use parking_lot::RwLock;

use super::{
    key::{ObjectKey, RootKey},
    row::{Facts, Row},
};

/// Receives each foreign change: the new row, or the last one of a deleted object.
type Route = Box<dyn Fn(&Row) + Send + Sync>;

/// Rows of all watched kinds, with a secondary index by owner.
#[derive(Default)]
pub struct ChildIndex {
    state: RwLock<State>,
    routes: RwLock<Vec<Route>>,
}

/// One watch that feeds an index: a bit in the rows that it holds. Two watches of one kind may hold the same row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WatchId(u16);

#[cfg(test)]
impl WatchId {
    /// For tests, which fold changes of all kinds without lists.
    pub const ONLY: Self = Self(1);
}

#[derive(Default)]
struct State {
    rows: HashMap<ObjectKey, Slot>,
    /// By owner UID.
    owned: HashMap<String, BTreeSet<ObjectKey>>,
    watches: u32,
}

struct Slot {
    row: Arc<Row>,
    /// The watches that brought the row; none for one that a write of ours returned before its watch did.
    held: u16,
    /// The watches that are in the middle of a list which has not brought the row yet.
    unlisted: u16,
}

impl ChildIndex {
    /// A new watch to [`fold`](Self::fold) from.
    pub fn watch(&self) -> WatchId {
        let mut state = self.state.write();
        let id = WatchId(1 << state.watches.min(u16::BITS - 1));
        state.watches += 1;
        id
    }

    /// Calls `wake` for each foreign change of a row whose controller owner is a `K`.
    pub fn wake_owner<K: Resource<DynamicType = ()>>(&self, wake: impl Fn(RootKey) + Send + Sync + 'static) {
        self.route(move |row| {
            if let Some(owner) = row.owner.as_ref().filter(|owner| owner.is::<K>()) {
                wake(RootKey::new(row.key.namespace.clone(), owner.name.clone()));
            }
        });
    }

    /// Calls `route` for each foreign change: with the new row, or the last one for a delete.
    pub fn route(&self, route: impl Fn(&Row) + Send + Sync + 'static) {
        self.routes.write().push(Box::new(route));
    }

    /// The row of `key`, if the object exists.
    pub fn get(&self, key: &ObjectKey) -> Option<Arc<Row>> {
        self.state.read().rows.get(key).map(|slot| slot.row.clone())
    }

    /// The row of the `K` `namespace`/`name`, if the object exists.
    pub fn find<K: Resource<DynamicType = ()>>(&self, namespace: &str, name: &str) -> Option<Arc<Row>> {
        self.get(&ObjectKey::of::<K>(namespace, name))
    }

    /// All rows whose controller owner has this UID, sorted by key.
    pub fn owned_by(&self, uid: &str) -> Vec<Arc<Row>> {
        let state = self.state.read();
        state
            .owned
            .get(uid)
            .into_iter()
            .flatten()
            .filter_map(|key| state.rows.get(key).map(|slot| slot.row.clone()))
            .collect()
    }

    /// All rows that `keep` accepts. A scan: for rare questions only.
    pub fn filter(&self, keep: impl Fn(&Row) -> bool) -> Vec<Arc<Row>> {
        self.state
            .read()
            .rows
            .values()
            .filter(|slot| keep(&slot.row))
            .map(|slot| slot.row.clone())
            .collect()
    }

    /// What keeps a pod with this label from running: of several, the first by name. A scan, as [`Self::filter`].
    pub fn pod_trouble(&self, namespace: &str, label: &str, value: &str) -> Option<String> {
        let pods = self.filter(|row| {
            matches!(row.facts, Facts::Pod { trouble: Some(_) })
                && row.key.namespace == namespace
                && !row.deleting
                && row.labels.get(label).is_some_and(|found| found == value)
        });
        let first = pods.iter().min_by(|a, b| a.key.cmp(&b.key))?;
        match &first.facts {
            Facts::Pod { trouble } => trouble.clone(),
            _ => None,
        }
    }

    /// Writes through what one of our own writes returned: newest wins. Nobody is woken, unless the answer carries
    /// a status that we had not seen: its own event will be dropped as old news.
    pub fn put(&self, row: Row) {
        let news = {
            let mut state = self.state.write();
            let facts = state.rows.get(&row.key).map(|known| known.row.facts.clone());
            state
                .insert(row, None)
                .filter(|new| facts.is_some_and(|facts| facts != new.facts))
        };
        if let Some(row) = news {
            self.routes.read().iter().for_each(|route| route(&row));
        }
    }

    /// Forgets an object that one of our own deletes ended.
    pub fn forget(&self, key: &ObjectKey) {
        self.state.write().remove(key);
    }

    /// Folds one event of `watch` and wakes the routes where something really changed.
    pub fn fold(&self, watch: WatchId, event: Event<Row>) {
        let changed: Vec<Arc<Row>> = {
            let mut state = self.state.write();
            match event {
                Event::Init => {
                    state.begin_list(watch);
                    Vec::new()
                }
                Event::InitApply(row) | Event::Apply(row) => {
                    state.insert(row, Some(watch)).into_iter().collect()
                }
                Event::Delete(row) => state.release(&row.key, watch).into_iter().collect(),
                Event::InitDone => state.end_list(watch),
            }
        };
        if !changed.is_empty() {
            let routes = self.routes.read();
            for row in &changed {
                routes.iter().for_each(|route| route(row));
            }
        }
    }
}

impl State {
    /// Marks what `watch` holds, and what no watch holds yet, until its list brings it again.
    fn begin_list(&mut self, watch: WatchId) {
        for slot in self.rows.values_mut() {
            if slot.held & watch.0 != 0 || slot.held == 0 {
                slot.unlisted |= watch.0;
            }
        }
    }

    /// Removes what the list of `watch` did not bring, unless another watch holds it.
    fn end_list(&mut self, watch: WatchId) -> Vec<Arc<Row>> {
        let gone: Vec<_> = self
            .rows
            .iter()
            .filter(|(_, slot)| slot.unlisted & watch.0 != 0)
            .map(|(key, _)| key.clone())
            .collect();
        gone.iter().filter_map(|key| self.release(key, watch)).collect()
    }

    /// Lets `watch` go of a row. The row, when no other watch holds it.
    fn release(&mut self, key: &ObjectKey, watch: WatchId) -> Option<Arc<Row>> {
        let slot = self.rows.get_mut(key)?;
        slot.held &= !watch.0;
        slot.unlisted &= !watch.0;
        if slot.held == 0 { self.remove(key) } else { None }
    }

    /// Takes a row from a watch, or from a write of ours. The row, when something changed.
    fn insert(&mut self, row: Row, watch: Option<WatchId>) -> Option<Arc<Row>> {
        let mut held = watch.map_or(0, |watch| watch.0);
        let mut unlisted = 0;
        if let Some(known) = self.rows.get_mut(&row.key) {
            known.held |= held;
            // What we wrote ourselves exists, whichever list is under way.
            known.unlisted &= watch.map_or(0, |watch| !watch.0);
            if row.is_older_than(&known.row) || *known.row == row {
                return None;
            }
            (held, unlisted) = (known.held, known.unlisted);
            if let Some(owner) = &known.row.owner {
                let (uid, key) = (owner.uid.clone(), row.key.clone());
                self.disown(&uid, &key);
            }
        }
        if let Some(owner) = &row.owner {
            self.owned
                .entry(owner.uid.clone())
                .or_default()
                .insert(row.key.clone());
        }
        let row = Arc::new(row);
        let slot = Slot {
            row: row.clone(),
            held,
            unlisted,
        };
        self.rows.insert(row.key.clone(), slot);
        Some(row)
    }

    fn remove(&mut self, key: &ObjectKey) -> Option<Arc<Row>> {
        let row = self.rows.remove(key)?.row;
        if let Some(owner) = &row.owner {
            self.disown(&owner.uid, key);
        }
        Some(row)
    }

    fn disown(&mut self, uid: &str, key: &ObjectKey) {
        if let Some(keys) = self.owned.get_mut(uid) {
            keys.remove(key);
            if keys.is_empty() {
                self.owned.remove(uid);
            }
        }
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
