//! DataStores: where tenants keep their state.
//!
//! Owns the DataStore objects and the etcd of `spec.managed`. The requests to datastores are [`super::driver`]'s.
//!
//! The controller of tenants calls [`status::usable`] to learn whether a DataStore accepts tenants, opens it with
//! [`access`] and calls [`Admin::ensure_tenant`] or [`Admin::delete_tenant`]. The tenant's
//! API server connects with a certificate of [`crate::pki::spec::datastore`], signed by [`Access::ca`]. After a
//! failure, [`invalidate`] drops the cached connection and requeues the DataStore.
//!
//! A finalizer, which a DataStore has before it is ready, blocks its deletion while a tenant uses it. The objects of a
//! managed DataStore, volume included, are owned by it and garbage-collected with it.
//!
//! [`identity`] tells the datastore with the data from an empty one. A managed member that lost its volume does not start:
//! [`desired::start`].
//!
//! [`Admin::ensure_tenant`]: super::driver::admin::Admin::ensure_tenant
//! [`Admin::delete_tenant`]: super::driver::admin::Admin::delete_tenant
//! [`Access::ca`]: super::driver::Access::ca

mod certificates;
mod connection;
pub mod deletion;
pub mod desired;
mod events;
mod identity;
mod member;
pub mod observe;
pub mod parts;
mod quantity;
mod reconcile;
pub mod space;
pub mod status;
#[cfg(test)]
mod tests;
pub mod validate;
pub mod version;

use kamaji_api::labels::ours;

pub use self::{
    connection::{access, invalidate},
    reconcile::reconcile,
};
use super::engine::Engine;
use crate::{k8s::key::RootKey, settings::DefaultDatastore};

/// Name of this controller in metrics and logs.
pub const CONTROLLER: &str = "datastore";
/// Number of DataStores that are reconciled at the same time.
pub const CONCURRENCY: usize = 4;

/// Queues the DataStore `default`, if the engine creates it.
pub fn prime(engine: &Engine) {
    if engine.settings.default_datastore == DefaultDatastore::Managed {
        engine.store_queue.add(RootKey::new("", ours::DEFAULT_DATASTORE));
    }
}
