//! The endpoint of a tenant, from its spec and its Service. Pure.

use std::net::IpAddr;

use kamaji_api::{conditions::Reason, service::ServiceType, tenantcontrolplane::TenantControlPlane};

use super::validate::Network;
use crate::k8s::{host_port::HostPort, problem::Problem, row::ServiceFacts};

/// Addresses of a tenant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Endpoint {
    /// `host:port` for nodes and admins.
    pub published: String,
    /// Address behind the `kubernetes` Service of the workload cluster.
    pub advertise: Option<IpAddr>,
    /// Names and addresses in the serving certificate of kube-apiserver.
    pub hosts: Vec<String>,
    /// `host:port` of the Service, for the engine.
    pub service: String,
}

/// The endpoint: the address of the spec, else that of the Service.
///
/// # Errors
/// The Service has no address yet, or the spec needs one.
pub fn endpoint(
    tenant: &TenantControlPlane,
    network: &Network,
    service: &ServiceFacts,
) -> Result<Endpoint, Problem> {
    let name = tenant.metadata.name.as_deref().unwrap_or_default();
    let internal = service.cluster_ip.as_deref().ok_or_else(|| {
        Problem::on_change(
            Reason::WaitingForService,
            format!("Service {name} has no cluster IP yet"),
        )
    })?;
    let given = network.address.map(|address| address.to_string());
    let host = match tenant.spec.control_plane.service.service_type {
        ServiceType::ClusterIp => given.unwrap_or_else(|| internal.to_owned()),
        ServiceType::LoadBalancer => given
            .or_else(|| service.ingress.first().cloned())
            .ok_or_else(|| {
                Problem::on_change(
                    Reason::WaitingForLoadBalancer,
                    format!(
                        "Service {name} of type LoadBalancer has no address yet; the management cluster needs a \
                         load balancer controller, or set spec.networkProfile.address"
                    ),
                )
            })?,
        ServiceType::NodePort => given.ok_or_else(|| {
            Problem::on_change(
                Reason::AddressRequired,
                "spec.networkProfile.address is required with serviceType NodePort; set it to an address that reaches the \
                 nodes",
            )
        })?,
    };
    let advertise = network
        .advertise
        .or_else(|| host.parse().ok())
        .or_else(|| internal.parse().ok());
    let mut hosts: Vec<String> = service.cluster_ips.clone();
    hosts.extend(service.ingress.iter().cloned());
    hosts.push(internal.to_owned());
    hosts.push(host.clone());
    hosts.extend(advertise.map(|address| address.to_string()));
    Ok(Endpoint {
        published: HostPort::new(&host, network.port).to_string(),
        advertise,
        hosts,
        service: HostPort::new(internal, network.port).to_string(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hosting::testing::tenant as example;

    fn of(kind: ServiceType, address: Option<&str>, ingress: &[&str]) -> Result<Endpoint, Reason> {
        let mut tenant = example::tenant();
        tenant.spec.control_plane.service.service_type = kind;
        let mut network = example::valid(&example::tenant()).network;
        network.address = address.map(|text| text.parse().unwrap());
        let facts = ServiceFacts {
            cluster_ip: Some("10.0.0.7".to_owned()),
            cluster_ips: vec!["10.0.0.7".to_owned()],
            ports: Vec::new(),
            ingress: ingress.iter().map(|text| (*text).to_owned()).collect(),
        };
        endpoint(&tenant, &network, &facts).map_err(|problem| problem.reason)
    }

    #[test]
    fn the_address_comes_from_the_spec_or_from_the_service() {
        let published = |kind, address, ingress: &[&str]| of(kind, address, ingress).map(|e| e.published);
        assert_eq!(
            published(ServiceType::ClusterIp, None, &[]).unwrap(),
            "10.0.0.7:6443"
        );
        assert_eq!(
            published(ServiceType::LoadBalancer, None, &["192.0.2.9"]).unwrap(),
            "192.0.2.9:6443"
        );
        assert_eq!(
            published(ServiceType::LoadBalancer, Some("2001:db8::1"), &[]).unwrap(),
            "[2001:db8::1]:6443"
        );
        assert_eq!(
            of(ServiceType::LoadBalancer, None, &[]),
            Err(Reason::WaitingForLoadBalancer)
        );
        assert_eq!(of(ServiceType::NodePort, None, &[]), Err(Reason::AddressRequired));
    }

    #[test]
    fn a_load_balancer_with_a_host_name_publishes_the_name_and_advertises_an_address() {
        let endpoint = of(ServiceType::LoadBalancer, None, &["lb.example.org"]).unwrap();
        assert_eq!(endpoint.published, "lb.example.org:6443");
        assert_eq!(endpoint.advertise, Some("10.0.0.7".parse().unwrap()));
        assert!(endpoint.hosts.contains(&"lb.example.org".to_owned()));
    }
}
