//! Where a tenant is reached, from its spec and its Service (hosting specification 2.3). Pure.

use std::net::IpAddr;

use kamaji_api::conditions::Reason;
use kamaji_api::service::ServiceType;
use kamaji_api::tenantcontrolplane::TenantControlPlane;

use super::{problem::Problem, validate::Network};
use crate::k8s::row::ServiceFacts;

/// Where a tenant is reached.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Endpoint {
    /// `host:port` for the management cluster and for administrators.
    pub published: String,
    /// Address that the tenant's `kubernetes` Service leads to.
    pub advertise: Option<IpAddr>,
    /// Hosts that the API server answers as.
    pub hosts: Vec<String>,
    /// `host:port` of the Service, for ourselves.
    pub service: String,
}

/// The endpoint, or what it waits for.
pub fn endpoint(
    tenant: &TenantControlPlane,
    network: &Network,
    service: &ServiceFacts,
) -> Result<Endpoint, Problem> {
    let name = tenant.metadata.name.as_deref().unwrap_or_default();
    let internal = service.cluster_ip.as_deref().ok_or_else(|| {
        Problem::wait(
            Reason::WaitingForService,
            format!("Service {name} has no cluster address yet"),
        )
    })?;
    let given = network.address.map(|address| address.to_string());
    let host = match tenant.spec.control_plane.service.service_type {
        ServiceType::ClusterIp => given.unwrap_or_else(|| internal.to_owned()),
        ServiceType::LoadBalancer => given
            .or_else(|| service.ingress.first().cloned())
            .ok_or_else(|| {
                Problem::wait(
                    Reason::WaitingForLoadBalancer,
                    format!(
                        "Service {name} of type LoadBalancer has no address yet; the management cluster needs a \
                         load balancer controller, or set spec.networkProfile.address"
                    ),
                )
            })?,
        ServiceType::NodePort => given.ok_or_else(|| {
            Problem::wait(
                Reason::AddressRequired,
                "spec.networkProfile.address: required with serviceType NodePort",
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
        published: joined(&host, network.port),
        advertise,
        hosts,
        service: joined(internal, network.port),
    })
}

fn joined(host: &str, port: u16) -> String {
    if host.contains(':') {
        format!("[{host}]:{port}")
    } else {
        format!("{host}:{port}")
    }
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
    fn the_address_comes_from_the_user_or_the_service() {
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
    fn a_load_balancer_with_a_name_keeps_the_name_and_advertises_an_address() {
        let endpoint = of(ServiceType::LoadBalancer, None, &["lb.example.org"]).unwrap();
        assert_eq!(endpoint.published, "lb.example.org:6443");
        assert_eq!(endpoint.advertise, Some("10.0.0.7".parse().unwrap()));
        assert!(endpoint.hosts.contains(&"lb.example.org".to_owned()));
    }
}
