//! Objects in memory by key, as watches and our own writes bring them: what the index of children and the store of
//! whole objects have in common. Pure: no locks, no wake-ups; the callers own both.

use std::{
    collections::{HashMap, hash_map::RandomState},
    hash::{BuildHasher, Hash},
    num::NonZeroU64,
    sync::Arc,
};

use hashbrown::HashTable;
use kube::runtime::watcher::Event;

use super::key::RootKey;

/// Something that is kept by key, in a packed form that takes less memory.
pub trait Entry: Sized {
    /// Its key.
    type Key: Eq + Ord + Hash;
    /// The form in which it is kept.
    type Packed;

    /// The key.
    fn key(&self) -> &Self::Key;

    /// Resource version as the API server gave it; empty when there is none.
    fn resource_version(&self) -> &str;

    /// The form in which it is kept.
    fn pack(&self) -> Self::Packed;

    /// What [`pack`](Self::pack) was called on.
    fn unpack(packed: &Self::Packed) -> Self;

    /// The key of what is packed.
    fn packed_key(packed: &Self::Packed) -> Self::Key;

    /// The resource version of what is packed.
    fn packed_version(packed: &Self::Packed) -> String;
}

/// One watch that feeds a cache: a bit in what it holds. Two watches may hold the same object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WatchId(u16);

impl WatchId {
    /// The only watch of a cache that never calls [`Cache::watch`].
    pub const ONLY: Self = Self(1);
}

/// Name of a secondary index: where it is added, and where it is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct By(pub &'static str);

/// A change: before and after. `None` before means that it is new, `None` after that it is gone.
pub type Change<V> = (Option<V>, Option<V>);

/// Objects by key, and by what secondary indexes make of them.
pub struct Cache<V: Entry> {
    slots: HashTable<Slot<V>>,
    hasher: RandomState,
    indexes: Vec<Index<V>>,
    watches: u32,
}

struct Slot<V: Entry> {
    packed: Arc<V::Packed>,
    /// Fingerprint of the object when we last applied or read it. It goes with the object.
    applied: Option<NonZeroU64>,
    /// The watches that brought it; none for what a write of ours returned before its watch did.
    held: u16,
    /// The watches that are in the middle of a list which has not brought it yet.
    unlisted: u16,
}

type Keys<V> = Box<dyn Fn(&V) -> Vec<RootKey> + Send + Sync>;

struct Index<V: Entry> {
    by: By,
    keys: Keys<V>,
    /// Sorted by key of the object.
    found: HashMap<RootKey, Vec<Arc<V::Packed>>>,
}

impl<V: Entry> Default for Cache<V> {
    fn default() -> Self {
        Self {
            slots: HashTable::new(),
            hasher: RandomState::new(),
            indexes: Vec::new(),
            watches: 0,
        }
    }
}

impl<V: Entry> Cache<V> {
    /// A new watch to [`fold`](Self::fold) from.
    pub fn watch(&mut self) -> WatchId {
        let id = WatchId(1 << self.watches.min(u16::BITS - 1));
        self.watches += 1;
        id
    }

    /// Finds objects by the keys that `keys` makes of them, from now on without a scan.
    pub fn index_by(&mut self, by: By, keys: Keys<V>) {
        let mut index = Index {
            by,
            keys,
            found: HashMap::new(),
        };
        for slot in &self.slots {
            index.add(&V::unpack(&slot.packed), &slot.packed);
        }
        self.indexes.push(index);
    }

    /// The objects that index `by` has under `key`, sorted by their own key.
    pub fn by(&self, by: By, key: &RootKey) -> impl Iterator<Item = V> {
        self.packed_by(by, key).iter().map(|packed| V::unpack(packed))
    }

    /// The keys of the objects that index `by` has under `key`, sorted.
    pub fn keys_by(&self, by: By, key: &RootKey) -> impl Iterator<Item = V::Key> {
        self.packed_by(by, key).iter().map(|packed| V::packed_key(packed))
    }

    /// Like [`by`](Self::by), as they are kept.
    pub fn packed_by(&self, by: By, key: &RootKey) -> &[Arc<V::Packed>] {
        let index = self.indexes.iter().find(|index| index.by == by);
        debug_assert!(index.is_some(), "no index {by:?}");
        index
            .and_then(|index| index.found.get(key))
            .map_or(&[], Vec::as_slice)
    }

    /// The object of this key.
    pub fn get(&self, key: &V::Key) -> Option<V> {
        self.slot(key).map(|slot| V::unpack(&slot.packed))
    }

    /// All objects as they are kept, in no order.
    pub fn packed(&self) -> impl Iterator<Item = &Arc<V::Packed>> {
        self.slots.iter().map(|slot| &slot.packed)
    }

    /// The fingerprint that [`set_applied`](Self::set_applied) recorded for the object.
    pub fn applied(&self, key: &V::Key) -> Option<NonZeroU64> {
        self.slot(key)?.applied
    }

    /// Records how the object looked when we last applied or read it.
    pub fn set_applied(&mut self, key: &V::Key, fingerprint: NonZeroU64) {
        if let Some(slot) = self.slot_mut(key) {
            slot.applied = Some(fingerprint);
        }
    }

    /// Takes what one of our own writes returned, unless something newer is known. The change, if there is one.
    pub fn put(&mut self, value: V) -> Option<Change<V>> {
        self.insert(value, None)
    }

    /// Forgets an object.
    pub fn remove(&mut self, key: &V::Key) -> Option<V> {
        let hash = self.hasher.hash_one(key);
        let found = self.slots.find_entry(hash, |slot| slot.is(key)).ok()?;
        let old = V::unpack(&found.remove().0.packed);
        for index in &mut self.indexes {
            index.remove(&old);
        }
        Some(old)
    }

    /// Folds one event of `watch`. What really changed.
    pub fn fold(&mut self, watch: WatchId, event: Event<V>) -> Vec<Change<V>> {
        match event {
            Event::Init => {
                self.begin_list(watch);
                Vec::new()
            }
            Event::InitApply(value) | Event::Apply(value) => {
                self.insert(value, Some(watch)).into_iter().collect()
            }
            Event::Delete(value) => self.release(value.key(), watch).into_iter().collect(),
            Event::InitDone => self.end_list(watch),
        }
    }

    /// The object is there, whatever else is known of it: the list of `watch` keeps it.
    pub fn keep(&mut self, watch: WatchId, key: &V::Key) {
        if let Some(slot) = self.slot_mut(key) {
            slot.unlisted &= !watch.0;
        }
    }

    /// Marks what `watch` holds, and what no watch holds yet, until its list brings it again.
    fn begin_list(&mut self, watch: WatchId) {
        for slot in &mut self.slots {
            if slot.held & watch.0 != 0 || slot.held == 0 {
                slot.unlisted |= watch.0;
            }
        }
    }

    /// Removes what the list of `watch` did not bring, unless another watch holds it.
    fn end_list(&mut self, watch: WatchId) -> Vec<Change<V>> {
        let missing = |slot: &&Slot<V>| slot.unlisted & watch.0 != 0;
        let gone: Vec<_> = self
            .slots
            .iter()
            .filter(missing)
            .map(|slot| V::packed_key(&slot.packed))
            .collect();
        gone.iter().filter_map(|key| self.release(key, watch)).collect()
    }

    /// Lets `watch` go of an object; it is gone when no other watch holds it.
    fn release(&mut self, key: &V::Key, watch: WatchId) -> Option<Change<V>> {
        let slot = self.slot_mut(key)?;
        slot.held &= !watch.0;
        slot.unlisted &= !watch.0;
        if slot.held != 0 {
            return None;
        }
        self.remove(key).map(|old| (Some(old), None))
    }

    /// Takes an object from a watch, or from a write of ours.
    fn insert(&mut self, new: V, watch: Option<WatchId>) -> Option<Change<V>> {
        let held = watch.map_or(0, |watch| watch.0);
        let Some(slot) = self.slot_mut(new.key()) else {
            let packed = Arc::new(new.pack());
            let slot = Slot {
                packed: packed.clone(),
                applied: None,
                held,
                unlisted: 0,
            };
            let hash = self.hasher.hash_one(new.key());
            self.slots.insert_unique(hash, slot, |slot| {
                self.hasher.hash_one(V::packed_key(&slot.packed))
            });
            for index in &mut self.indexes {
                index.add(&new, &packed);
            }
            return Some((None, Some(new)));
        };
        slot.held |= held;
        // What a write of ours returned exists, whichever list is under way.
        slot.unlisted &= watch.map_or(0, |watch| !watch.0);
        let (known, version) = (V::packed_version(&slot.packed), new.resource_version());
        if older(version, &known) || (known == version && !version.is_empty()) {
            return None;
        }
        let packed = Arc::new(new.pack());
        let old = V::unpack(std::mem::replace(&mut slot.packed, packed.clone()).as_ref());
        for index in &mut self.indexes {
            index.remove(&old);
            index.add(&new, &packed);
        }
        Some((Some(old), Some(new)))
    }

    fn slot(&self, key: &V::Key) -> Option<&Slot<V>> {
        let hash = self.hasher.hash_one(key);
        self.slots.find(hash, |slot| slot.is(key))
    }

    fn slot_mut(&mut self, key: &V::Key) -> Option<&mut Slot<V>> {
        let hash = self.hasher.hash_one(key);
        self.slots.find_mut(hash, |slot| slot.is(key))
    }
}

impl<V: Entry> Slot<V> {
    fn is(&self, key: &V::Key) -> bool {
        V::packed_key(&self.packed) == *key
    }
}

impl<V: Entry> Index<V> {
    fn add(&mut self, value: &V, packed: &Arc<V::Packed>) {
        for key in (self.keys)(value) {
            let found = self.found.entry(key).or_default();
            if let Err(at) = position::<V>(found, value.key()) {
                if found.len() == found.capacity() {
                    // Most have few, and some have all: a quarter more at a time.
                    found.reserve_exact(1 + found.len() / 4);
                }
                found.insert(at, packed.clone());
            }
        }
    }

    fn remove(&mut self, value: &V) {
        for key in (self.keys)(value) {
            let Some(found) = self.found.get_mut(&key) else {
                continue;
            };
            if let Ok(at) = position::<V>(found, value.key()) {
                found.remove(at);
            }
            if found.is_empty() {
                self.found.remove(&key);
            }
        }
    }
}

/// Where the object of this key is, or belongs.
fn position<V: Entry>(found: &[Arc<V::Packed>], key: &V::Key) -> Result<usize, usize> {
    found.binary_search_by(|packed| V::packed_key(packed).cmp(key))
}

/// Resource versions are revisions of the API server's store and grow (KEP-5504 makes this a promise).
pub fn older(a: &str, b: &str) -> bool {
    matches!((a.parse::<u64>(), b.parse::<u64>()), (Ok(a), Ok(b)) if a < b)
}
