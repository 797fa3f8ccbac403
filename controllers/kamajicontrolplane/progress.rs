//! What a reconcile found and did, as far as it came. Values alone.

use super::{endpoint::Choice, handoff::Handoff, reach::Reach};
use crate::k8s::{problem::Problem, report::Step};

/// What a reconcile found and did: what the status is computed from.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Progress {
    /// Why nothing is done: the Cluster or the object is paused.
    pub paused: Option<String>,
    /// Why nothing is done: another management cluster runs the pods. Whatever the object and its status hold of it stays.
    pub elsewhere: Option<Problem>,
    /// What the deletion waits for.
    pub deleting: Option<Problem>,
    /// What is missing before a TenantControlPlane can be applied: the owner, or its Cluster.
    pub waiting: Option<Problem>,
    /// The spec is valid.
    pub spec: Step,
    /// The TenantControlPlane is applied.
    pub tenant: Step,
    /// Generation of the TenantControlPlane after it was applied.
    pub generation: Option<i64>,
    /// The endpoint to use.
    pub endpoint: Option<Choice>,
    /// Whether the endpoint leads here.
    pub reach: Reach,
    /// Whether the infrastructure cluster has the endpoint.
    pub handoff: Handoff,
    /// Secret `<cluster>-ca`.
    pub ca: Step,
    /// Secret `<cluster>-kubeconfig`.
    pub kubeconfig: Step,
    /// Secret `<cluster>-kamaji-bootstrap`.
    pub bootstrap: Step,
}
