//! One in-memory index of the objects that our roots own: rows instead of cached objects, deletes included.
//!
//! Watches fold into it ([`ChildIndex::fold`]); the apply path writes through ([`ChildIndex::put`]), so that a
//! reconcile never acts on a state older than its own last write, and so that the watch event of our own write
//! wakes nobody. Kube's shared streams drop deletes; here they trigger owners as any change does.

use std::{
    collections::{BTreeSet, HashMap, HashSet},
    sync::Arc,
};

use kube::runtime::watcher::Event;
use parking_lot::RwLock;

use super::{
    key::{ObjectKey, RootKey},
    row::{Facts, Row},
};

/// Told of every change that was not our own: the row before (`None` when new) and after (`None` when deleted).
type Route = Box<dyn Fn(&Row) + Send + Sync>;

/// Rows of all watched kinds, with a secondary index by owner.
#[derive(Default)]
pub struct ChildIndex {
    state: RwLock<State>,
    routes: RwLock<Vec<Route>>,
}

#[derive(Default)]
struct State {
    rows: HashMap<ObjectKey, Arc<Row>>,
    /// By owner UID.
    owned: HashMap<String, BTreeSet<ObjectKey>>,
    /// Kinds in the middle of a list, with the keys seen so far.
    listing: HashMap<&'static str, HashSet<ObjectKey>>,
}

impl ChildIndex {
    /// Calls `wake` for each foreign change of a row whose controller owner has kind `owner_kind`.
    pub fn wake_owner(&self, owner_kind: &'static str, wake: impl Fn(RootKey) + Send + Sync + 'static) {
        self.route(move |row| {
            if let Some(owner) = row.owner.as_ref().filter(|o| o.kind == owner_kind) {
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
        self.state.read().rows.get(key).cloned()
    }

    /// The row of `kind` `namespace`/`name`, if the object exists.
    pub fn find(&self, kind: &'static str, namespace: &str, name: &str) -> Option<Arc<Row>> {
        self.get(&ObjectKey::new(kind, namespace, name))
    }

    /// All rows whose controller owner has this UID, sorted by key.
    pub fn owned_by(&self, uid: &str) -> Vec<Arc<Row>> {
        let state = self.state.read();
        state
            .owned
            .get(uid)
            .into_iter()
            .flatten()
            .filter_map(|key| state.rows.get(key).cloned())
            .collect()
    }

    /// All rows that `keep` accepts. A scan: for rare questions only.
    pub fn filter(&self, keep: impl Fn(&Row) -> bool) -> Vec<Arc<Row>> {
        self.state
            .read()
            .rows
            .values()
            .filter(|row| keep(row))
            .cloned()
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
            if let Some(seen) = state.listing.get_mut(row.key.kind) {
                seen.insert(row.key.clone());
            }
            let facts = state.rows.get(&row.key).map(|known| known.facts.clone());
            state
                .insert(row)
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

    /// Folds one watch event of `kind` and wakes the routes where something really changed.
    pub fn fold(&self, kind: &'static str, event: Event<Row>) {
        let changed: Vec<Arc<Row>> = {
            let mut state = self.state.write();
            match event {
                Event::Init => {
                    state.listing.insert(kind, HashSet::new());
                    Vec::new()
                }
                Event::InitApply(row) => {
                    if let Some(seen) = state.listing.get_mut(kind) {
                        seen.insert(row.key.clone());
                    }
                    state.insert(row).into_iter().collect()
                }
                Event::Apply(row) => state.insert(row).into_iter().collect(),
                Event::Delete(row) => state.remove(&row.key).into_iter().collect(),
                Event::InitDone => {
                    let seen = state.listing.remove(kind).unwrap_or_default();
                    let gone: Vec<_> = state
                        .rows
                        .keys()
                        .filter(|key| key.kind == kind && !seen.contains(*key))
                        .cloned()
                        .collect();
                    gone.iter().filter_map(|key| state.remove(key)).collect()
                }
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
    /// The row, when it is news.
    fn insert(&mut self, row: Row) -> Option<Arc<Row>> {
        if let Some(known) = self.rows.get(&row.key) {
            if row.is_older_than(known) || **known == row {
                return None;
            }
            if let Some(owner) = &known.owner {
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
        self.rows.insert(row.key.clone(), row.clone());
        Some(row)
    }

    fn remove(&mut self, key: &ObjectKey) -> Option<Arc<Row>> {
        let row = self.rows.remove(key)?;
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

    use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};

    use super::{super::row::Facts, *};

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
        Row::new("Secret", &meta, Facts::Metadata)
    }

    fn counted() -> (ChildIndex, Arc<AtomicUsize>) {
        let index = ChildIndex::default();
        let woken = Arc::new(AtomicUsize::new(0));
        let count = woken.clone();
        index.wake_owner("TenantControlPlane", move |key| {
            assert_eq!(key, RootKey::new("ns", "t"));
            count.fetch_add(1, Ordering::SeqCst);
        });
        (index, woken)
    }

    #[test]
    fn a_delete_wakes_the_owner() {
        let (index, woken) = counted();
        index.fold("Secret", Event::Apply(row("a", 1)));
        index.fold("Secret", Event::Delete(row("a", 2)));
        assert_eq!(woken.load(Ordering::SeqCst), 2);
        assert!(index.owned_by("owner").is_empty());
    }

    #[test]
    fn the_event_of_our_own_write_wakes_nobody() {
        let (index, woken) = counted();
        index.put(row("a", 5));
        index.fold("Secret", Event::Apply(row("a", 5)));
        index.fold("Secret", Event::Apply(row("a", 4)));
        assert_eq!(woken.load(Ordering::SeqCst), 0);
        assert_eq!(index.owned_by("owner").len(), 1);
    }

    #[test]
    fn a_relist_drops_what_is_gone_and_keeps_what_was_written_meanwhile() {
        let (index, woken) = counted();
        index.fold("Secret", Event::Apply(row("gone", 1)));
        index.fold("Secret", Event::Init);
        index.put(row("fresh", 9));
        index.fold("Secret", Event::InitApply(row("stays", 3)));
        index.fold("Secret", Event::InitDone);
        let names: Vec<_> = index
            .owned_by("owner")
            .iter()
            .map(|r| r.key.name.clone())
            .collect();
        assert_eq!(names, ["fresh", "stays"]);
        assert_eq!(woken.load(Ordering::SeqCst), 3);
    }
}
