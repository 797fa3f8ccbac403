//! What one reconcile observed of a tenant, step by step: the input of its status. Pure.

use super::{certificates::Certificates, endpoint::Endpoint, storage::Placed, tunnel::found::Found};
use crate::k8s::{problem::Problem, report::Step};

/// What was observed in the workload cluster.
#[derive(Clone, Debug)]
pub struct TenantApi {
    /// Digest of what belongs into the workload cluster.
    pub digest: String,
    /// The API server answered an authenticated request.
    pub answered: Step,
    /// The RBAC rules were applied and read back.
    pub rbac: Step,
    /// The add-ons were applied.
    pub addons: Step,
}

/// What was observed of a tenant. A step that was not reached keeps the conditions of the reconcile before.
#[derive(Debug, Default)]
pub struct Observed {
    /// The annotation pauses the TenantControlPlane.
    pub paused: bool,
    /// The TenantControlPlane is being deleted, and this is what the deletion waits for.
    pub deleting: Option<Problem>,
    /// What the user set but has no effect.
    pub unsupported: Option<String>,
    /// The spec is valid.
    pub spec: Step,
    /// The DataStore is ready, schema and user exist.
    pub data_store: Step,
    /// What the DataStore tells while its quota is nearly used up.
    pub filling: Option<String>,
    /// Schema and user, once they exist.
    pub placed: Option<Placed>,
    /// Schema, user and data were deleted.
    pub torn_down: bool,
    /// The endpoint is known.
    pub endpoint: Step,
    /// The addresses, once the Service has them.
    pub addresses: Option<Endpoint>,
    /// The key material is complete.
    pub certificates: Step,
    /// The key material, once it is complete.
    pub key_material: Option<Certificates>,
    /// The Deployment was applied, and its pods are neither refused nor failing.
    pub deployment: Step,
    /// Version of Kubernetes that the Deployment was rendered for, once it was applied.
    pub rendered: Option<String>,
    /// The workload cluster, where this reconcile looked at it.
    pub tenant_api: Option<TenantApi>,
    /// What the kubelets answered, where this reconcile asked them.
    pub tunnel: Option<Found>,
}
