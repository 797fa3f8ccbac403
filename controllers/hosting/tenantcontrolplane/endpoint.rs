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
    /// Why the endpoint may not lead to the API server, or not from everywhere. The control plane goes on with it.
    pub doubt: Option<Problem>,
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
    let mut doubt = None;
    let given = network.address.map(|address| address.to_string());
    let host = match tenant.spec.control_plane.service.service_type {
        ServiceType::ClusterIp => given.unwrap_or_else(|| internal.to_owned()),
        ServiceType::LoadBalancer => {
            if let Some(given) = given {
                given
            } else {
                let (host, moved) = balanced(name, last(tenant).as_deref(), &service.ingress)?;
                doubt = moved;
                host
            }
        }
        ServiceType::NodePort => given.ok_or_else(|| {
            Problem::on_change(
                Reason::AddressRequired,
                "spec.networkProfile.address is required with serviceType NodePort; set it to an address that reaches the \
                 nodes",
            )
        })?,
    };
    let advertise = network.advertise.or_else(|| host.parse().ok());
    let advertise = match (advertise, name_only(name, &host)) {
        (None, problem) if last(tenant).is_none() => return Err(problem),
        (None, problem) => {
            // Running pods are not replaced for an address that is no better.
            doubt = doubt.or(Some(problem));
            internal.parse().ok()
        }
        (advertise, _) => advertise,
    };
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
        doubt,
    })
}

/// Host of the endpoint that was published.
fn last(tenant: &TenantControlPlane) -> Option<String> {
    let published = tenant.status.as_ref()?.control_plane_endpoint.as_deref()?;
    HostPort::parse(published).map(|published| published.host)
}

/// The address of a load balancer. Nodes, kubeconfigs and the Cluster have the `last` one that was published, so it stays,
/// whatever the load balancer reports meanwhile, and in whatever order.
///
/// # Errors
/// There is no address yet.
fn balanced(
    name: &str,
    last: Option<&str>,
    ingress: &[String],
) -> Result<(String, Option<Problem>), Problem> {
    match (last, ingress.first()) {
        (Some(last), _) if ingress.iter().any(|address| address == last) => Ok((last.to_owned(), None)),
        (Some(last), Some(now)) => Ok((
            last.to_owned(),
            Some(Problem::on_change(
                Reason::EndpointChanged,
                format!(
                    "Service {name} has the address {now} now, and the control plane was published at {last}, where it \
                     stays; give the load balancer its old address back, or move the control plane by setting \
                     spec.networkProfile.address"
                ),
            )),
        )),
        (Some(last), None) => Ok((
            last.to_owned(),
            Some(Problem::on_change(
                Reason::WaitingForLoadBalancer,
                format!(
                    "Service {name} of type LoadBalancer has lost its address; the control plane goes on with {last}, where \
                     it was published; see to the load balancer controller of the management cluster"
                ),
            )),
        )),
        (None, Some(now)) => Ok((now.clone(), None)),
        (None, None) => Err(Problem::on_change(
            Reason::WaitingForLoadBalancer,
            format!(
                "Service {name} of type LoadBalancer has no address yet; the management cluster needs a load balancer \
                 controller, or set spec.networkProfile.address"
            ),
        )),
    }
}

/// A load balancer with a name and no address: pods of the workload cluster reach the API server by an address, and that of
/// the Service leads nowhere outside the management cluster.
fn name_only(name: &str, host: &str) -> Problem {
    Problem::on_change(
        Reason::AddressRequired,
        format!(
            "spec.networkProfile.advertiseAddress is required: Service {name} has the name {host} and no IP address, and \
             pods of the workload cluster reach the API server by an address; set it to one that leads to the load \
             balancer"
        ),
    )
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
        endpoint(&tenant, &network, &facts(ingress)).map_err(|problem| problem.reason)
    }

    fn facts(ingress: &[&str]) -> ServiceFacts {
        ServiceFacts {
            cluster_ip: Some("10.0.0.7".to_owned()),
            cluster_ips: vec!["10.0.0.7".to_owned()],
            ports: Vec::new(),
            ingress: ingress.iter().map(|text| (*text).to_owned()).collect(),
        }
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

    fn running(last: &str, ingress: &[&str]) -> Endpoint {
        let mut tenant = example::tenant();
        tenant.spec.control_plane.service.service_type = ServiceType::LoadBalancer;
        tenant.status.get_or_insert_default().control_plane_endpoint = Some(format!("{last}:6443"));
        let network = example::valid(&example::tenant()).network;
        endpoint(&tenant, &network, &facts(ingress)).unwrap()
    }

    #[test]
    fn a_load_balancer_with_a_name_needs_an_address_to_advertise() {
        let refused = of(ServiceType::LoadBalancer, None, &["lb.example.org"]);
        assert_eq!(refused, Err(Reason::AddressRequired));
        let mut network = example::valid(&example::tenant()).network;
        network.advertise = Some("192.0.2.7".parse().unwrap());
        let mut tenant = example::tenant();
        tenant.spec.control_plane.service.service_type = ServiceType::LoadBalancer;
        let endpoint = endpoint(&tenant, &network, &facts(&["lb.example.org"])).unwrap();
        assert_eq!(endpoint.published, "lb.example.org:6443");
        assert_eq!(endpoint.advertise, network.advertise);
        assert!(endpoint.hosts.contains(&"lb.example.org".to_owned()));
        assert_eq!(endpoint.doubt, None);
        let told = running("lb.example.org", &["lb.example.org"]).doubt.unwrap();
        assert_eq!(told.reason, Reason::AddressRequired, "one that runs goes on");
    }

    #[test]
    fn a_published_address_stays_while_the_load_balancer_flickers_or_moves() {
        for (ingress, reason) in [
            (&["192.0.2.9"][..], None),
            (&["192.0.2.8", "192.0.2.9"], None),
            (&[], Some(Reason::WaitingForLoadBalancer)),
            (&["192.0.2.8"], Some(Reason::EndpointChanged)),
        ] {
            let endpoint = running("192.0.2.9", ingress);
            assert_eq!(endpoint.published, "192.0.2.9:6443");
            assert_eq!(endpoint.advertise, Some("192.0.2.9".parse().unwrap()));
            assert!(endpoint.hosts.contains(&"192.0.2.9".to_owned()));
            assert_eq!(endpoint.doubt.map(|doubt| doubt.reason), reason, "{ingress:?}");
        }
    }
}
