//! The NetworkPolicy of a tenant: ingress to the served ports only. Egress is not restricted. Pure.

use k8s_openapi::{
    api::networking::v1::{NetworkPolicy, NetworkPolicyIngressRule, NetworkPolicyPort, NetworkPolicySpec},
    apimachinery::pkg::{apis::meta::v1::LabelSelector, util::intstr::IntOrString},
};
use kamaji_api::tenantcontrolplane::TenantControlPlane;
use kube::ResourceExt;

use super::{
    Result, manifest,
    metadata::{metadata, selector},
    service::protocol,
    switch::Switch,
};
use crate::{hosting::tenantcontrolplane::former, k8s::manifest::Manifest};

/// The NetworkPolicy; `None` when the user disables it by annotation. `agents`: see [`super::service::render`].
///
/// # Errors
/// See [`Result`].
pub fn render(tenant: &TenantControlPlane, agents: Option<i32>) -> Result<Option<Manifest>> {
    if Switch::NetworkPolicy.is_set(tenant) {
        return Ok(None);
    }
    // Pods that were not replaced yet listen on a former port.
    let former = former::list(tenant);
    let former = former.iter().map(|former| i32::from(former.endpoint.port));
    let mut served = vec![tenant.spec.network_profile.port];
    for port in former.chain(agents) {
        if !served.contains(&port) {
            served.push(port);
        }
    }
    let served = served.into_iter().map(|port| NetworkPolicyPort {
        port: Some(IntOrString::Int(port)),
        protocol: Some("TCP".to_owned()),
        end_port: None,
    });
    let others = &tenant.spec.control_plane.service.additional_ports;
    let ports = served.chain(others.iter().map(|port| NetworkPolicyPort {
        port: Some(port.target_port.clone()),
        protocol: Some(protocol(port.protocol).to_owned()),
        end_port: None,
    }));
    let policy = NetworkPolicy {
        metadata: metadata(tenant, &tenant.name_any(), "networkpolicy", None),
        spec: Some(NetworkPolicySpec {
            pod_selector: Some(LabelSelector {
                match_labels: Some(selector(tenant)),
                ..LabelSelector::default()
            }),
            policy_types: Some(vec!["Ingress".to_owned()]),
            ingress: Some(vec![NetworkPolicyIngressRule {
                from: None,
                ports: Some(ports.collect()),
            }]),
            egress: None,
        }),
    };
    manifest(&policy).map(Some)
}
