//! The TenantControlPlane controller: a hosted Kubernetes control plane as pods of the management cluster.
//!
//! One reconcile, in [`reconcile`]: [`validate`] → [`storage`] → [`plan`] → Service and [`endpoint`] → [`certificates`] →
//! [`workload`] → [`tenant_api`] → [`status`]. [`desired`] renders the objects. A reconcile brings up all that can be
//! brought up; what it waits for is a condition, and a watched change or a backoff ends the wait. Nothing is polled.
//!
//! It reads and writes nothing of Cluster API. Others use only the objects and the status of a TenantControlPlane.

pub mod ca;
mod ca_copy;
pub mod certificates;
pub mod component;
pub mod context;
pub mod deletion;
pub mod desired;
pub mod endpoint;
mod events;
pub mod former;
mod held;
pub mod identity;
pub mod konnectivity;
mod names;
mod nodes;
pub mod observe;
pub mod observed;
pub mod phase;
pub mod plan;
mod powers;
pub mod published;
pub mod reconcile;
mod rollout;
pub mod scope;
pub mod status;
pub mod storage;
mod tenant_api;
pub mod trust_roots;
mod tunnel;
pub mod validate;
mod workload;

#[cfg(test)]
pub(super) mod tests;

/// Name of this controller in metrics and logs.
pub const CONTROLLER: &str = "tenantcontrolplane";
