//! The PodDisruptionBudget of a tenant with several replicas. Pure.

use k8s_openapi::{
    api::policy::v1::{PodDisruptionBudget, PodDisruptionBudgetSpec},
    apimachinery::pkg::{apis::meta::v1::LabelSelector, util::intstr::IntOrString},
};
use kamaji_api::tenantcontrolplane::TenantControlPlane;
use kube::ResourceExt;

use super::{
    Result, manifest,
    metadata::{metadata, selector},
};
use crate::k8s::manifest::Manifest;

/// The PodDisruptionBudget; `None` with fewer than two replicas, where it would only block the drain of a node.
///
/// # Errors
/// See [`Result`].
pub fn render(tenant: &TenantControlPlane) -> Result<Option<Manifest>> {
    if tenant.spec.control_plane.deployment.replicas < 2 {
        return Ok(None);
    }
    let budget = PodDisruptionBudget {
        metadata: metadata(tenant, &tenant.name_any(), "poddisruptionbudget", None),
        spec: Some(PodDisruptionBudgetSpec {
            max_unavailable: Some(IntOrString::Int(1)),
            selector: Some(LabelSelector {
                match_labels: Some(selector(tenant)),
                ..LabelSelector::default()
            }),
            unhealthy_pod_eviction_policy: Some("AlwaysAllow".to_owned()),
            ..PodDisruptionBudgetSpec::default()
        }),
        ..PodDisruptionBudget::default()
    };
    manifest(&budget).map(Some)
}
