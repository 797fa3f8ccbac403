//! The Service of a tenant. It is applied first, since the certificates contain its addresses. Pure.

use k8s_openapi::{
    api::core::v1::{Service, ServicePort, ServiceSpec},
    apimachinery::pkg::util::intstr::IntOrString,
};
use kamaji_api::{
    service::{AdditionalPort, Protocol, ServiceType},
    tenantcontrolplane::{ServiceSpec as UserSpec, TenantControlPlane},
};
use kube::ResourceExt;

use super::{
    Result, manifest,
    metadata::{metadata, selector},
};
use crate::{hosting::tenantcontrolplane::konnectivity::SERVER, k8s::manifest::Manifest};

/// Name of the port of kube-apiserver.
pub const API_SERVER_PORT: &str = "kube-apiserver";

/// The Service. `agents` is the port that konnectivity's agents connect to, where the pods have one.
///
/// # Errors
/// See [`Result`].
pub fn render(tenant: &TenantControlPlane, agents: Option<i32>) -> Result<Manifest> {
    let UserSpec {
        service_type,
        additional_metadata,
        additional_ports,
        allocate_load_balancer_node_ports,
    } = &tenant.spec.control_plane.service;
    let network = &tenant.spec.network_profile;
    let balanced = *service_type == ServiceType::LoadBalancer;
    let own = |name: &str, port: i32| ServicePort {
        name: Some(name.to_owned()),
        port,
        protocol: Some("TCP".to_owned()),
        target_port: Some(IntOrString::Int(port)),
        node_port: (*service_type == ServiceType::NodePort).then_some(port),
        ..ServicePort::default()
    };
    let mut ports = vec![own(API_SERVER_PORT, network.port)];
    ports.extend(agents.map(|port| own(SERVER, port)));
    ports.extend(additional_ports.iter().map(additional));
    let external = network.allow_address_as_external_ip && !balanced;
    let service = Service {
        metadata: metadata(tenant, &tenant.name_any(), "service", Some(additional_metadata)),
        spec: Some(ServiceSpec {
            type_: Some(service_type.as_str().to_owned()),
            selector: Some(selector(tenant)),
            ports: Some(ports),
            external_ips: external
                .then(|| network.address.clone())
                .flatten()
                .map(|address| vec![address]),
            load_balancer_class: network.load_balancer_class.clone().filter(|_| balanced),
            load_balancer_source_ranges: Some(network.load_balancer_source_ranges.clone())
                .filter(|ranges| balanced && !ranges.is_empty()),
            allocate_load_balancer_node_ports: allocate_load_balancer_node_ports.filter(|_| balanced),
            ..ServiceSpec::default()
        }),
        ..Service::default()
    };
    manifest(&service)
}

fn additional(user: &AdditionalPort) -> ServicePort {
    let AdditionalPort {
        name,
        port,
        target_port,
        protocol: transport,
        app_protocol,
    } = user;
    ServicePort {
        name: Some(name.clone()),
        protocol: Some(protocol(*transport).to_owned()),
        app_protocol: app_protocol.clone(),
        port: *port,
        target_port: Some(target_port.clone()),
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
