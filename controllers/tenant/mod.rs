//! Requests to the API servers of tenants: connections, add-ons, RBAC, Nodes and their certificate requests. No other
//! module talks to a tenant.
//!
//! A tenant may be deleted, asleep or hostile. Every request is bounded in time, every error is one short line that can
//! be shown in a condition of the management cluster, and no more is read than was asked for. [`Clients`] caches
//! connections while they are used, 256 at most.

pub mod addons;
pub mod agents;
pub mod bootstrap_role;
pub mod bundle;
pub mod coredns;
pub mod konnectivity;
pub mod kubelets;
pub mod kubeproxy;
pub mod leases;
pub mod nodes;
pub mod rbac;
pub mod who_answers;

mod client;
mod clients;
mod error;
mod limit;
mod list;
mod pages;
mod sight;
mod silence;
mod watch;

use kamaji_api::labels::field_manager;

#[cfg(test)]
pub use self::limit::too_large;
pub use self::{
    client::{Connection, Use},
    clients::Clients,
    error::Error,
    limit::is_too_large,
};
use crate::pki::kubeconfig::Kubeconfig;

/// Where a connection leads.
#[derive(Clone, Copy, Debug)]
pub enum Server<'a> {
    /// The Service of a tenant, as `host:port`. The server's certificate must name the host.
    Service(&'a str),
    /// One of the pods behind it, as `host:port`. Certificates do not name pods, but they name the API server.
    Pod(&'a str),
}

/// A name that the certificate of every API server has.
const ANY_API_SERVER: &str = "kubernetes.default.svc";

/// The hosting engine's connection to a tenant, with the identity of `kubeconfig`. No request is sent.
///
/// # Errors
/// When the kubeconfig cannot be used.
pub fn connect(kubeconfig: &Kubeconfig, server: Server<'_>) -> Result<Connection, Error> {
    let (address, name) = match server {
        Server::Service(address) => (address, None),
        Server::Pod(address) => (address, Some(ANY_API_SERVER)),
    };
    Connection::named(
        kubeconfig,
        &format!("https://{address}"),
        name,
        "tenant",
        field_manager::HOSTING,
        Use::Requests,
    )
}
