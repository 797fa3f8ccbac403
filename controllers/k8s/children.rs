//! The table of [`kamaji_api::children`] as types: what a watch brings of each kind, and the row of an object that a write
//! returned.

use std::fmt::Debug;

use kube::{
    Resource,
    api::{DynamicObject, PartialObjectMeta},
};
use serde::de::DeserializeOwned;

use super::{child::Child, kind::Kind, row::Row};

/// A type that a watch can bring.
pub trait Watched:
    Child + Resource<DynamicType = ()> + Clone + DeserializeOwned + Debug + Send + 'static
{
}

impl<K: Child + Resource<DynamicType = ()> + Clone + DeserializeOwned + Debug + Send + 'static> Watched
    for K
{
}

/// Visits each kind of the table.
pub trait Visitor {
    /// Visits the kind that is watched as `K`.
    fn visit<K: Watched>(&mut self);
}

/// The type as which a kind is watched.
macro_rules! watched {
    ($kind:path, metadata) => { PartialObjectMeta<$kind> };
    ($kind:path, full) => { $kind };
}

/// A kind of the table. The engine renders objects of these kinds only: those of another kind would be neither watched nor
/// deleted.
pub trait Listed: Resource<DynamicType = ()> {}

macro_rules! children {
    ($($kind:path: $how:ident, $verbs:ident;)*) => {
        $(impl Listed for $kind {})*

        /// Calls `visitor` once for each kind of the table.
        pub fn each(visitor: &mut impl Visitor) {
            $(visitor.visit::<watched!($kind, $how)>();)*
        }

        /// The row of an object that one of our writes returned. Of kinds that are not in the table, as of those that
        /// are watched as metadata, the metadata is kept.
        pub fn row_of(kind: Kind, object: &DynamicObject) -> Row {
            let row = match kind.name() {
                $(name if name == Kind::of::<$kind>().name() => decoded!($kind, $how, object),)*
                _ => None,
            };
            row.unwrap_or_else(|| Row::metadata(kind, &object.metadata))
        }
    };
}

/// The row of an object of which more than the metadata is kept.
macro_rules! decoded {
    ($kind:path, metadata, $object:ident) => {
        None
    };
    ($kind:path, full, $object:ident) => {
        serde_json::to_value($object)
            .and_then(serde_json::from_value::<$kind>)
            .ok()
            .map(|object| object.row())
    };
}

kamaji_api::child_kinds!(children);
