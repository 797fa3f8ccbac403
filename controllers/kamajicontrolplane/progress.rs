//! What a reconcile found and did, as far as it came. Values alone.

use super::endpoint::Choice;
use crate::k8s::{problem::Problem, report::Step};

/// What a pass found and did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Progress {
    /// Why nothing may be done.
    pub paused: Option<String>,
    /// The step of the deletion.
    pub deleting: Option<Problem>,
    /// Why nothing can be made yet.
    pub waiting: Option<Problem>,
    /// The spec can be handed on.
    pub spec: Step,
    /// The TenantControlPlane carries it.
    pub tenant: Step,
    /// Generation of the TenantControlPlane after it was applied.
    pub generation: Option<i64>,
    /// The endpoint in force.
    pub endpoint: Option<Choice>,
    /// `<cluster>-ca`.
    pub authority: Step,
    /// `<cluster>-kubeconfig`.
    pub kubeconfig: Step,
    /// The bootstrap provider's kubeconfig.
    pub bootstrap: Step,
}
