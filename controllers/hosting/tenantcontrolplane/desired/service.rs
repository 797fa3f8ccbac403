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
use crate::{
    hosting::tenantcontrolplane::{
        component::{API_SERVER_PORT, HTTPS},
        former::{self, Former},
        konnectivity::SERVER,
    },
    k8s::manifest::Manifest,
};

/// The port that konnectivity's agents connect to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AgentsPort {
    /// Its number, in the pods, in the Service and, with type NodePort, on the nodes.
    pub port: i32,
    /// The Service has it as a node port already.
    pub on_nodes: bool,
}

/// The Service. `endpoint` is the type that the endpoint of the tenant needs; the spec may keep a wider one for a former
/// endpoint. `agents` is set where the pods have a port for them.
///
/// # Errors
/// See [`Result`].
pub fn render(
    tenant: &TenantControlPlane,
    endpoint: ServiceType,
    agents: Option<AgentsPort>,
) -> Result<Manifest> {
    let UserSpec {
        service_type,
        additional_metadata,
        additional_ports,
        allocate_load_balancer_node_ports,
    } = &tenant.spec.control_plane.service;
    let network = &tenant.spec.network_profile;
    let balanced = *service_type == ServiceType::LoadBalancer;
    let former = former::list(tenant);
    let target = target(tenant, &former);
    let on_nodes = |port: i32| {
        let former = former.iter().any(|former| {
            i32::from(former.endpoint.port) == port && former.service_type == ServiceType::NodePort
        });
        let own = endpoint == ServiceType::NodePort && port == network.port;
        *service_type != ServiceType::ClusterIp && (own || former)
    };
    let served = |name: String, port: i32| ServicePort {
        name: Some(name),
        port,
        protocol: Some("TCP".to_owned()),
        target_port: Some(target.clone()),
        node_port: on_nodes(port).then_some(port),
        ..ServicePort::default()
    };
    let mut ports = vec![served(API_SERVER_PORT.to_owned(), network.port)];
    // Agents get the address of the new endpoint once every pod serves it. Until then they connect to the former one.
    let former_on_nodes = *service_type != ServiceType::ClusterIp
        && former
            .iter()
            .any(|former| former.service_type == ServiceType::NodePort);
    ports.extend(agents.map(|AgentsPort { port, on_nodes }| ServicePort {
        name: Some(SERVER.to_owned()),
        port,
        protocol: Some("TCP".to_owned()),
        target_port: Some(IntOrString::Int(port)),
        node_port: (endpoint == ServiceType::NodePort || on_nodes && former_on_nodes).then_some(port),
        ..ServicePort::default()
    }));
    ports.extend(additional_ports.iter().map(additional));
    for port in former.iter().map(|former| i32::from(former.endpoint.port)) {
        let tcp = |known: &ServicePort| known.protocol.as_deref() == Some("TCP");
        if !ports.iter().any(|known| known.port == port && tcp(known)) {
            ports.push(served(format!("{API_SERVER_PORT}-{port}"), port));
        }
    }
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

/// The port of the pods. After a change of the port, pods before and after it listen on different ones, so it is the name
/// that they have for it, unless a container of the user takes that name.
fn target(tenant: &TenantControlPlane, former: &[Former]) -> IntOrString {
    let port = tenant.spec.network_profile.port;
    let moved = former
        .iter()
        .any(|former| i32::from(former.endpoint.port) != port);
    let of_user = &tenant.spec.control_plane.deployment.additional_containers;
    let is_taken = of_user.iter().any(|container| {
        let mut ports = container.0["ports"].as_array().into_iter().flatten();
        ports.any(|port| port["name"] == HTTPS)
    });
    if moved && !is_taken {
        IntOrString::String(HTTPS.to_owned())
    } else {
        IntOrString::Int(port)
    }
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
