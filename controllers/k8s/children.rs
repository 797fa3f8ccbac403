//! The kinds of Kubernetes that the hosting engine's objects are made of, in one table.
//!
//! Everything that has to know each of them is generated from it or iterates over it: the watched type, the row of an
//! object that a write returned, the watches of the engine, the watches of the convergence tests, and the check of the
//! engine's RBAC rules. A new kind is one line here. One of which more than the metadata is read (`full`) also needs
//! its [`Observed`](super::child::Observed) facts, without which it does not compile.

use std::fmt::Debug;

use k8s_openapi::api::{
    apps::v1::{Deployment, StatefulSet},
    core::v1::{PersistentVolumeClaim, Pod, Secret, Service},
    networking::v1::NetworkPolicy,
    policy::v1::PodDisruptionBudget,
};
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
    ($kind:ident, metadata) => { PartialObjectMeta<$kind> };
    ($kind:ident, full) => { $kind };
}

/// A kind of the table. The engine renders objects of these kinds only: those of another kind would be neither watched nor
/// deleted.
pub trait Listed: Resource<DynamicType = ()> {}

macro_rules! children {
    ($($kind:ident: $how:ident,)*) => {
        $(impl Listed for $kind {})*

        /// Calls `visitor` once for each kind of the table.
        pub fn each(visitor: &mut impl Visitor) {
            $(visitor.visit::<watched!($kind, $how)>();)*
        }

        /// The kinds of the table.
        pub fn kinds() -> Vec<Kind> {
            vec![$(Kind::of::<$kind>()),*]
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
    ($kind:ident, metadata, $object:ident) => {
        None
    };
    ($kind:ident, full, $object:ident) => {
        serde_json::to_value($object)
            .and_then(serde_json::from_value::<$kind>)
            .ok()
            .map(|object| object.row())
    };
}

children! {
    Secret: metadata,
    NetworkPolicy: metadata,
    PodDisruptionBudget: metadata,
    Service: full,
    Deployment: full,
    StatefulSet: full,
    PersistentVolumeClaim: full,
    Pod: full,
}
