//! A change of an object, as the watch events that stores and indexes take.

use kube::runtime::watcher::Event;
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::k8s::{
    cache::WatchId,
    child::Child,
    children::{self, Visitor, Watched},
    index::ChildIndex,
    kind::Kind,
};

/// A change of one object.
#[derive(Clone, Debug)]
pub struct Change {
    /// The object after the change; a deleted one as it was last.
    pub object: Value,
    /// The object was deleted.
    pub gone: bool,
}

impl Change {
    /// An object that existed when the watch started.
    pub fn listed(object: Value) -> Self {
        Self { object, gone: false }
    }

    /// Kind of the object.
    pub fn kind(&self) -> &str {
        self.object["kind"].as_str().unwrap()
    }

    /// A label of the object, or null.
    pub fn label(&self, key: &str) -> &Value {
        &self.object["metadata"]["labels"][key]
    }

    /// The event of a watch of `K`.
    pub fn event<K: DeserializeOwned>(&self) -> Event<K> {
        let object = self.read();
        if self.gone {
            Event::Delete(object)
        } else {
            Event::Apply(object)
        }
    }

    /// Folds the change into `index` as a watch of `K` does. With `watched` false the object no longer matches the
    /// selector of the watch.
    pub fn fold_child<K: Child + DeserializeOwned>(&self, index: &ChildIndex, watched: bool) {
        let row = self.read::<K>().row();
        let event = if self.gone || !watched {
            Event::Delete(row)
        } else {
            Event::Apply(row)
        };
        index.fold(WatchId::ONLY, event);
    }

    /// Like [`Self::fold_child`], if the object is of a kind of the table of children.
    pub fn fold_any_child(&self, index: &ChildIndex, watched: bool) {
        struct Each<'a>(&'a Change, &'a ChildIndex, bool);
        impl Visitor for Each<'_> {
            fn visit<K: Watched>(&mut self) {
                let Self(change, index, watched) = self;
                if change.kind() == Kind::of::<K>().name() {
                    change.fold_child::<K>(index, *watched);
                }
            }
        }
        children::each(&mut Each(self, index, watched));
    }

    fn read<K: DeserializeOwned>(&self) -> K {
        serde_json::from_value(self.object.clone()).unwrap()
    }
}
