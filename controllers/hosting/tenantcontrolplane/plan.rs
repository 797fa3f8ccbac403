//! What a tenant is published at now, and what it is rendered for. Pure.
//!
//! Nodes, kubeconfigs and the Cluster copy the published endpoint, so an edit of port, address or type of the Service, or
//! another address of the load balancer, moves it only when an annotation names the new one. Until then the spec before is
//! in effect. `advertiseAddress` is an address for nodes alone, and moves without asking.
//!
//! A move happens in this order, and each reconcile finds from what exists where it is:
//! 1. the endpoint is added to the [`former`] ones;
//! 2. the Service serves both, and the certificate names both;
//! 3. the pods are replaced;
//! 4. when every pod serves the new one, it is recorded as published ([`Published`]): then kubeconfigs, status, kube-proxy
//!    and nodes that join get it.
//!
//! The former endpoint is served until the user takes it from the list.

use std::net::IpAddr;

use kamaji_api::{
    conditions::Reason,
    labels::ours,
    service::{AdditionalPort, Protocol, ServiceType},
    tenantcontrolplane::TenantControlPlane,
};
use kube::ResourceExt as _;

use super::{
    component::API_SERVER_PORT,
    former::{self, Former, LIMIT},
    published::Published,
    validate::Network,
};
use crate::k8s::{host_port::HostPort, problem::Problem, row::ServiceFacts};

/// See the module.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plan {
    /// What it is published at; `None` before the first time.
    pub published: Option<Published>,
    /// What Service, certificates and pods are rendered for; `None` while that is not known.
    pub target: Option<Published>,
    /// Endpoints that are served beside.
    pub former: Vec<Former>,
    /// Type of the Service: that of the target, or one that reaches farther.
    pub service_type: ServiceType,
    /// Why it is not what the spec asks for.
    pub doubt: Option<Problem>,
}

impl Plan {
    /// Type of the Service that the endpoint needs.
    pub fn endpoint_type(&self) -> ServiceType {
        let target = self.target.as_ref();
        target.map_or(self.service_type, |target| target.service_type)
    }
}

/// The plan, from what the Service has, if it exists.
pub fn plan(tenant: &TenantControlPlane, network: &Network, service: Option<&ServiceFacts>) -> Plan {
    let asked_type = tenant.spec.control_plane.service.service_type;
    let listed = former::list(tenant);
    let published = Published::of(tenant, network, service);
    let asked = |endpoint| Published {
        endpoint,
        service_type: asked_type,
        address: network.address,
        advertise: network.advertise,
    };
    let wanted = wanted(tenant, network, service, published.as_ref());
    let Some(published) = published else {
        let (target, doubt) = match wanted {
            Ok(endpoint) => (Some(asked(endpoint)), None),
            Err(problem) => (None, Some(problem)),
        };
        return Plan {
            published: None,
            target,
            service_type: former::widest(asked_type, &listed),
            former: listed,
            doubt,
        };
    };
    let kept = Published {
        advertise: network.advertise,
        ..published.clone()
    };
    let (mut target, mut doubt) = match wanted {
        Ok(endpoint) if endpoint == published.endpoint => (asked(endpoint), None),
        Ok(endpoint) if !permits(tenant, &endpoint) => {
            let problem = changed(tenant, network, &published, &endpoint);
            (kept, Some(problem))
        }
        Ok(endpoint) => match advertise(&tenant.name_any(), network, &endpoint.host) {
            Ok(_) => (asked(endpoint), None),
            Err(problem) => (kept, Some(problem)),
        },
        Err(problem) => (kept, Some(problem)),
    };
    let port = service.and_then(port_of);
    let mut former = former::after(&listed, &published, &target, port);
    if former.len() > LIMIT {
        doubt = Some(too_many(&published));
        target = published.clone();
        former = listed;
    }
    let waiting = waiting(tenant, network, &target);
    if let Some(doubt) = doubt.as_mut().filter(|_| !waiting.is_empty()) {
        let (names, held) = (waiting.join(", "), target.endpoint.port);
        doubt.message = format!(
            "{}; until then {names} of spec.controlPlane.service.additionalPorts is left out, since {held}/TCP leads to \
             kube-apiserver",
            doubt.message
        );
    }
    let mut service_type = former::widest(target.service_type, &former);
    if asked_type == ServiceType::LoadBalancer {
        // Its address is known only once it exists, and it takes nothing away.
        service_type = asked_type;
    }
    Plan {
        published: Some(published),
        target: Some(target),
        former,
        service_type,
        doubt,
    }
}

/// Names of additional ports that cannot be served while the port of the spec is not in effect: they have the one that is.
fn waiting<'a>(tenant: &'a TenantControlPlane, network: &Network, target: &Published) -> Vec<&'a str> {
    let in_effect = target.endpoint.port;
    if network.port == in_effect {
        return Vec::new();
    }
    let additional = &tenant.spec.control_plane.service.additional_ports;
    let waiting = additional.iter().filter(|port| takes(port, in_effect));
    waiting.map(|port| port.name.as_str()).collect()
}

/// The port would take the place of `port` in the Service.
pub fn takes(additional: &AdditionalPort, port: u16) -> bool {
    additional.protocol == Protocol::Tcp && additional.port == i32::from(port)
}

/// The endpoint that spec and Service ask for.
///
/// # Errors
/// The Service has no address yet, or the spec needs one.
fn wanted(
    tenant: &TenantControlPlane,
    network: &Network,
    service: Option<&ServiceFacts>,
    published: Option<&Published>,
) -> Result<HostPort, Problem> {
    let name = tenant.name_any();
    let given = network.address.map(|address| address.to_string());
    let host = match (tenant.spec.control_plane.service.service_type, given) {
        (_, Some(given)) => given,
        (ServiceType::NodePort, None) => {
            return Err(Problem::on_change(
                Reason::AddressRequired,
                "spec.networkProfile.address is required with serviceType NodePort; set it to an address that reaches the \
                 nodes",
            ));
        }
        (ServiceType::ClusterIp, None) => service
            .and_then(|service| service.cluster_ip.clone())
            .ok_or_else(|| no_cluster_ip(&name))?,
        (ServiceType::LoadBalancer, None) => {
            let ingress = service.map_or(&[][..], |service| &service.ingress);
            balanced(&name, published, ingress)?
        }
    };
    Ok(HostPort::new(&host, network.port))
}

/// The address of a load balancer. The published one stays while it is reported, in whatever order.
fn balanced(name: &str, published: Option<&Published>, ingress: &[String]) -> Result<String, Problem> {
    let last = published.map(|published| published.endpoint.host.as_str());
    let found = ingress.iter().find(|address| Some(address.as_str()) == last);
    if let Some(found) = found.or_else(|| ingress.first()) {
        return Ok(found.clone());
    }
    let missing = match published {
        Some(published) => format!(
            "Service {name} of type LoadBalancer has no address; the control plane goes on with {}, where it was \
             published; see to the load balancer controller of the management cluster",
            published.endpoint
        ),
        None => format!(
            "Service {name} of type LoadBalancer has no address yet; the management cluster needs a load balancer \
             controller, or set spec.networkProfile.address"
        ),
    };
    Err(Problem::on_change(Reason::WaitingForLoadBalancer, missing))
}

/// The Service was not created yet.
pub fn no_cluster_ip(name: &str) -> Problem {
    Problem::on_change(
        Reason::WaitingForService,
        format!("Service {name} has no cluster IP yet"),
    )
}

/// The address behind the `kubernetes` Service of the workload cluster, for an endpoint at `host`.
///
/// # Errors
/// The spec has to name one: the endpoint has a name, or an address of another family than the Services of the workload
/// cluster, which kube-apiserver refuses.
pub fn advertise(name: &str, network: &Network, host: &str) -> Result<IpAddr, Problem> {
    if let Some(address) = network.advertise {
        return Ok(address);
    }
    let required = |why: String| {
        Problem::on_change(
            Reason::AddressRequired,
            format!(
                "spec.networkProfile.advertiseAddress is required: {why}; set it to one that leads to the endpoint"
            ),
        )
    };
    let Ok(address) = host.parse::<IpAddr>() else {
        return Err(required(format!(
            "Service {name} has the name {host} and no IP address, and pods of the workload cluster reach the API server by \
             an address"
        )));
    };
    if network.fits_services(address) {
        return Ok(address);
    }
    Err(required(format!(
        "the endpoint has the address {host}, which is of another family than the first of spec.networkProfile.serviceCidrs, \
         and pods of the workload cluster reach the API server by an address of that family"
    )))
}

/// The annotation permits a move to this endpoint.
fn permits(tenant: &TenantControlPlane, endpoint: &HostPort) -> bool {
    let text = tenant.annotations().get(ours::MOVE_ENDPOINT);
    text.and_then(|text| HostPort::parse(text.trim())).as_ref() == Some(endpoint)
}

/// The endpoint would move to `wanted`, and no annotation permits that.
fn changed(
    tenant: &TenantControlPlane,
    network: &Network,
    published: &Published,
    wanted: &HostPort,
) -> Problem {
    let mut fields = Vec::new();
    let mut field = |differs: bool, field: &'static str| {
        if differs {
            fields.push(field);
        }
    };
    field(
        network.port != published.endpoint.port,
        "spec.networkProfile.port",
    );
    field(
        network.address != published.address,
        "spec.networkProfile.address",
    );
    field(
        tenant.spec.control_plane.service.service_type != published.service_type,
        "spec.controlPlane.service.serviceType",
    );
    let (cause, back) = if fields.is_empty() {
        (
            format!(
                "Service {} has the address {} now",
                tenant.name_any(),
                wanted.host
            ),
            "give it its old address back".to_owned(),
        )
    } else {
        let fields = fields.join(", ");
        (format!("{fields} changed"), format!("set {fields} back"))
    };
    let given = tenant
        .annotations()
        .get(ours::MOVE_ENDPOINT)
        .map_or_else(String::new, |text| format!(" (it is {text:?})"));
    let key = ours::MOVE_ENDPOINT;
    Problem::on_change(
        Reason::EndpointChanged,
        format!(
            "{cause}, and the control plane stays at {}, where it is published; to move it, set the annotation {key} to \
             {wanted}{given}; otherwise {back}",
            published.endpoint
        ),
    )
}

fn too_many(published: &Published) -> Problem {
    Problem::on_change(
        Reason::EndpointChanged,
        format!(
            "the control plane stays at {}, since no more than {LIMIT} former endpoints are served; take those that no node \
             uses any more from the annotation {}",
            published.endpoint,
            ours::FORMER_ENDPOINTS
        ),
    )
}

/// The port of kube-apiserver that the Service has.
pub fn port_of(service: &ServiceFacts) -> Option<u16> {
    let mut ports = service.ports.iter();
    let found = ports.find(|port| port.name.as_deref() == Some(API_SERVER_PORT))?;
    u16::try_from(found.port).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hosting::testing::tenant as example;

    fn facts(ingress: &[&str]) -> ServiceFacts {
        ServiceFacts {
            service_type: None,
            cluster_ip: Some("10.0.0.7".to_owned()),
            cluster_ips: vec!["10.0.0.7".to_owned()],
            ports: Vec::new(),
            ingress: ingress.iter().map(|text| (*text).to_owned()).collect(),
        }
    }

    /// A tenant that is published at this endpoint by a Service of this type, with the spec that says so.
    fn running(endpoint: &str, service_type: ServiceType) -> TenantControlPlane {
        let mut tenant = example::tenant();
        tenant.spec.control_plane.service.service_type = service_type;
        let published = Published {
            endpoint: HostPort::parse(endpoint).unwrap(),
            service_type,
            address: None,
            advertise: None,
        };
        let annotations = tenant.annotations_mut();
        annotations.insert(ours::PUBLISHED_ENDPOINT.to_owned(), published.text());
        tenant
    }

    fn permit(tenant: &mut TenantControlPlane, endpoint: &str) {
        let annotations = tenant.annotations_mut();
        annotations.insert(ours::MOVE_ENDPOINT.to_owned(), endpoint.to_owned());
    }

    fn plan_of(tenant: &TenantControlPlane, ingress: &[&str]) -> Plan {
        plan(tenant, &example::valid(tenant).network, Some(&facts(ingress)))
    }

    fn target(plan: &Plan) -> String {
        plan.target.as_ref().unwrap().endpoint.to_string()
    }

    #[test]
    fn the_first_endpoint_comes_from_the_spec_or_from_the_service() {
        let first = |service_type, address: Option<&str>, ingress: &[&str]| {
            let mut tenant = example::tenant();
            tenant.spec.control_plane.service.service_type = service_type;
            let mut network = example::valid(&example::tenant()).network;
            network.address = address.map(|text| text.parse().unwrap());
            let plan = plan(&tenant, &network, Some(&facts(ingress)));
            match plan.target {
                Some(target) => Ok(target.endpoint.to_string()),
                None => Err(plan.doubt.unwrap().reason),
            }
        };
        let (inside, nodes, balanced) = (
            ServiceType::ClusterIp,
            ServiceType::NodePort,
            ServiceType::LoadBalancer,
        );
        assert_eq!(first(inside, None, &[]).unwrap(), "10.0.0.7:6443");
        assert_eq!(first(balanced, None, &["192.0.2.9"]).unwrap(), "192.0.2.9:6443");
        assert_eq!(
            first(balanced, Some("2001:db8::1"), &[]).unwrap(),
            "[2001:db8::1]:6443"
        );
        assert_eq!(first(balanced, None, &[]), Err(Reason::WaitingForLoadBalancer));
        assert_eq!(first(nodes, None, &[]), Err(Reason::AddressRequired));
    }

    #[test]
    fn a_published_address_stays_while_the_load_balancer_flickers_or_moves() {
        for (ingress, reason) in [
            (&["192.0.2.9"][..], None),
            (&["192.0.2.8", "192.0.2.9"], None),
            (&[], Some(Reason::WaitingForLoadBalancer)),
            (&["192.0.2.8"], Some(Reason::EndpointChanged)),
        ] {
            let plan = plan_of(&running("192.0.2.9:6443", ServiceType::LoadBalancer), ingress);
            assert_eq!(target(&plan), "192.0.2.9:6443");
            assert!(plan.former.is_empty());
            assert_eq!(plan.doubt.map(|doubt| doubt.reason), reason, "{ingress:?}");
        }
    }

    #[test]
    fn hosting_beyond_09_the_endpoint_moves_only_where_the_annotation_names_the_new_one() {
        let mut tenant = running("10.0.0.7:6443", ServiceType::ClusterIp);
        tenant.spec.network_profile.port = 7443;
        let plan = plan_of(&tenant, &[]);
        assert_eq!(target(&plan), "10.0.0.7:6443");
        let reported = plan.doubt.unwrap();
        assert_eq!(reported.reason, Reason::EndpointChanged);
        assert_eq!(
            reported.message,
            "spec.networkProfile.port changed, and the control plane stays at 10.0.0.7:6443, where it is published; to move \
             it, set the annotation capi-kamaji.io/move-endpoint to 10.0.0.7:7443; otherwise set \
             spec.networkProfile.port back"
        );
        permit(&mut tenant, "10.0.0.7:8443");
        let reported = plan_of(&tenant, &[]).doubt.unwrap();
        assert!(
            reported.message.contains("(it is \"10.0.0.7:8443\")"),
            "{}",
            reported.message
        );
        permit(&mut tenant, "10.0.0.7:7443");
        let plan = plan_of(&tenant, &[]);
        assert_eq!((target(&plan).as_str(), &plan.doubt), ("10.0.0.7:7443", &None));
        assert_eq!(former::text(&plan.former), "10.0.0.7:6443");
    }

    #[test]
    fn a_service_of_another_type_takes_nothing_away_before_the_user_says_so() {
        use ServiceType::{ClusterIp, LoadBalancer, NodePort};
        for (from, to, permitted, rendered) in [
            // Its address is not known before.
            (ClusterIp, LoadBalancer, false, LoadBalancer),
            (ClusterIp, LoadBalancer, true, LoadBalancer),
            (NodePort, LoadBalancer, false, LoadBalancer),
            (ClusterIp, NodePort, false, ClusterIp),
            (ClusterIp, NodePort, true, NodePort),
            (NodePort, ClusterIp, false, NodePort),
            // Until the former endpoint is released.
            (NodePort, ClusterIp, true, NodePort),
            (LoadBalancer, ClusterIp, false, LoadBalancer),
            (LoadBalancer, ClusterIp, true, LoadBalancer),
            (LoadBalancer, NodePort, false, LoadBalancer),
            (LoadBalancer, NodePort, true, LoadBalancer),
        ] {
            let mut tenant = running("198.51.100.1:30002", from);
            tenant.spec.control_plane.service.service_type = to;
            tenant.spec.network_profile.port = 30002;
            if to == NodePort {
                tenant.spec.network_profile.address = Some("203.0.113.4".to_owned());
            }
            let wanted = match to {
                ClusterIp => "10.0.0.7:30002",
                NodePort => "203.0.113.4:30002",
                LoadBalancer => "192.0.2.9:30002",
            };
            if permitted {
                permit(&mut tenant, wanted);
            }
            let plan = plan_of(&tenant, &["192.0.2.9"]);
            let case = format!("{from:?} to {to:?}, permitted: {permitted}");
            assert_eq!(plan.service_type, rendered, "{case}");
            let expected = if permitted { wanted } else { "198.51.100.1:30002" };
            assert_eq!(target(&plan), expected, "{case}");
            assert_eq!(plan.doubt.is_some(), !permitted, "{case}");
        }
    }

    #[test]
    fn an_address_for_nodes_moves_at_once_and_the_former_one_is_served() {
        let mut tenant = running("10.0.0.7:6443", ServiceType::ClusterIp);
        tenant.spec.network_profile.advertise_address = Some("198.51.100.1".to_owned());
        let plan = plan_of(&tenant, &[]);
        let target = plan.target.unwrap();
        assert_eq!(target.nodes().to_string(), "198.51.100.1:6443");
        assert_eq!(target.endpoint.to_string(), "10.0.0.7:6443");
        assert_eq!((plan.doubt, plan.former), (None, Vec::new()));
    }

    #[test]
    fn a_move_to_a_name_needs_an_address_to_advertise() {
        let mut tenant = running("192.0.2.9:6443", ServiceType::LoadBalancer);
        permit(&mut tenant, "lb.example.org:6443");
        let plan = plan_of(&tenant, &["lb.example.org"]);
        assert_eq!(target(&plan), "192.0.2.9:6443");
        assert_eq!(plan.doubt.unwrap().reason, Reason::AddressRequired);
        tenant.spec.network_profile.advertise_address = Some("192.0.2.9".to_owned());
        assert_eq!(
            target(&plan_of(&tenant, &["lb.example.org"])),
            "lb.example.org:6443"
        );
    }

    #[test]
    fn pods_reach_the_api_server_by_an_address_of_their_family() {
        let mut network = example::valid(&example::tenant()).network;
        for (host, fits) in [
            ("192.0.2.9", true),
            ("2001:db8::9", false),
            ("lb.example.org", false),
        ] {
            let found = advertise("alpha", &network, host).map_err(|problem| problem.reason);
            assert_eq!(found.is_ok(), fits, "{host}: {found:?}");
            assert!(fits || found == Err(Reason::AddressRequired));
        }
        network.advertise = Some("192.0.2.7".parse().unwrap());
        assert_eq!(
            advertise("alpha", &network, "lb.example.org").ok(),
            network.advertise
        );
    }

    #[test]
    fn no_node_is_cut_off_silently_where_too_many_endpoints_are_served() {
        let mut tenant = running("10.0.0.7:6443", ServiceType::ClusterIp);
        let many: Vec<String> = (0..LIMIT)
            .map(|number| format!("192.0.2.{number}:6443"))
            .collect();
        let annotations = tenant.annotations_mut();
        annotations.insert(ours::FORMER_ENDPOINTS.to_owned(), many.join(","));
        tenant.spec.network_profile.port = 7443;
        permit(&mut tenant, "10.0.0.7:7443");
        let plan = plan_of(&tenant, &[]);
        assert_eq!(target(&plan), "10.0.0.7:6443");
        assert_eq!(plan.former.len(), LIMIT);
        assert!(plan.doubt.unwrap().message.contains("former-endpoints"));
    }
}
