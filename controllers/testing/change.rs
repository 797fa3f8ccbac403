//! What a watch tells of the objects in memory, in the form that each store and index takes.

use kube::runtime::watcher::Event;
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::k8s::{
    child::Child,
    children::{self, Visitor, Watched},
    index::{ChildIndex, WatchId},
    kind::Kind,
};

/// What changed: the object, and whether it is gone.
#[derive(Clone, Debug)]
pub struct Change {
    /// The object after the change, or the last one before it went.
    pub object: Value,
    /// It is gone.
    pub gone: bool,
}

impl Change {
    /// An object that was there when the watch began.
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

    /// Folds it as a watch of the children `K` does. What `watched` is false of has left the watch.
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
