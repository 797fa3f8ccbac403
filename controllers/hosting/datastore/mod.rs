//! DataStores: where tenants keep their state (DESIGN 2.8, 7; hosting specification 1.5, 3).
//!
//! Owns the DataStore objects, the etcd of `spec.managed`, the names of schemas and users ([`names`]) and the way
//! into a datastore ([`driver`]).
//!
//! A tenant asks [`status::usable`] whether it may be placed, opens the datastore with [`access`] and calls
//! [`driver::etcd::EtcdAdmin::ensure_tenant`] or [`driver::etcd::EtcdAdmin::delete_tenant`]; what it presents there
//! is a certificate of [`crate::pki::spec::datastore`], signed by [`driver::Access::ca`]. After a
//! failure, [`invalidate`] drops the cached connection and requeues the DataStore.
//!
//! Deletion is held by a finalizer while a tenant uses the DataStore. What the engine made for a managed one,
//! volume included, belongs to it and goes with it.

mod certificates;
mod connection;
pub mod desired;
pub mod driver;
mod member;
pub mod names;
pub mod observe;
pub mod parts;
mod quantity;
mod reconcile;
pub mod status;
#[cfg(test)]
mod tests;
pub mod usage;
pub mod validate;

use kamaji_api::labels::ours;

pub use self::{
    connection::{access, invalidate},
    reconcile::reconcile,
};
use super::engine::Engine;
use crate::{k8s::key::RootKey, settings::DefaultDatastore};

/// Name of this controller in metrics and logs.
pub const CONTROLLER: &str = "datastore";
/// DataStores that are reconciled at once.
pub const CONCURRENCY: usize = 4;

/// Asks for everything that has to be there from the start.
pub fn prime(engine: &Engine) {
    if engine.settings.default_datastore == DefaultDatastore::Managed {
        engine.store_queue.add(RootKey::new("", ours::DEFAULT_DATASTORE));
    }
}
