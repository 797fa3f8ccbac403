//! The Service of a tenant (hosting specification 2.3). Applied first: its addresses stand in certificates.

use k8s_openapi::api::core::v1::{Service, ServicePort, ServiceSpec};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use kamaji_api::service::{AdditionalPort, Protocol, ServiceType};
use kamaji_api::tenantcontrolplane::TenantControlPlane;
use kube::ResourceExt;

use super::{Result, metadata, selector};
use crate::k8s::manifest::Manifest;

/// Name of the API server's port.
pub const API_SERVER_PORT: &str = "kube-apiserver";

/// The Service.
pub fn render(tenant: &TenantControlPlane) -> Result<Manifest> {
    let asked = &tenant.spec.control_plane.service;
    let network = &tenant.spec.network_profile;
    let kind = asked.service_type;
    let balanced = kind == ServiceType::LoadBalancer;
    let mut ports = vec![ServicePort {
        name: Some(API_SERVER_PORT.to_owned()),
        port: network.port,
        protocol: Some("TCP".to_owned()),
        target_port: Some(IntOrString::Int(network.port)),
        node_port: (kind == ServiceType::NodePort).then_some(network.port),
        ..ServicePort::default()
    }];
    ports.extend(asked.additional_ports.iter().map(additional));
    let external = network.allow_address_as_external_ip && !balanced;
    let service = Service {
        metadata: metadata(
            tenant,
            &tenant.name_any(),
            "service",
            Some(&asked.additional_metadata),
        ),
        spec: Some(ServiceSpec {
            type_: Some(kind.as_str().to_owned()),
            selector: Some(selector(tenant)),
            ports: Some(ports),
            external_ips: external
                .then(|| network.address.clone())
                .flatten()
                .map(|address| vec![address]),
            load_balancer_class: network.load_balancer_class.clone().filter(|_| balanced),
            load_balancer_source_ranges: Some(network.load_balancer_source_ranges.clone())
                .filter(|ranges| balanced && !ranges.is_empty()),
            allocate_load_balancer_node_ports: asked.allocate_load_balancer_node_ports.filter(|_| balanced),
            ..ServiceSpec::default()
        }),
        ..Service::default()
    };
    Manifest::of(&service)
}

fn additional(port: &AdditionalPort) -> ServicePort {
    ServicePort {
        name: Some(port.name.clone()),
        protocol: Some(protocol(port.protocol).to_owned()),
        app_protocol: port.app_protocol.clone(),
        port: port.port,
        target_port: Some(port.target_port.clone()),
        ..ServicePort::default()
    }
}

/// The protocol as Kubernetes spells it.
pub(super) fn protocol(protocol: Protocol) -> &'static str {
    match protocol {
        Protocol::Tcp => "TCP",
        Protocol::Udp => "UDP",
        Protocol::Sctp => "SCTP",
    }
}
