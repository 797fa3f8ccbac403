//! Requests to the API servers of tenants: connections, add-ons, RBAC, Nodes and their certificate requests. No other
//! module talks to a tenant.
//!
//! A tenant may be deleted, asleep or hostile. Every request is bounded in time, every error is one short line that can
//! be shown in a condition of the management cluster, and no more is read than was asked for. [`Clients`] caches
//! connections while they are used, 256 at most.

pub mod addons;
pub mod bootstrap_role;
pub mod bundle;
pub mod coredns;
pub mod konnectivity;
pub mod kubeproxy;
pub mod nodes;
pub mod rbac;
pub mod who_answers;

mod client;
mod clients;
mod error;
mod limit;
mod silence;

use kamaji_api::labels::field_manager;

pub use self::{
    client::{Connection, Use},
    clients::Clients,
    error::Error,
};
use crate::pki::kubeconfig::Kubeconfig;

/// The hosting engine's connection to a tenant, with the identity of `kubeconfig`, to `address` (`host:port`), which the
/// server's certificate must name. No request is sent.
///
/// # Errors
/// When the kubeconfig cannot be used.
pub fn connect(kubeconfig: &Kubeconfig, address: &str) -> Result<Connection, Error> {
    let server = format!("https://{address}");
    Connection::new(
        kubeconfig,
        &server,
        "tenant",
        field_manager::HOSTING,
        Use::Requests,
    )
}
