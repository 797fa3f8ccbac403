//! Endpoints that a tenant was published at before. Nodes keep the endpoint that they joined with for as long as they
//! live, so a former one is served until the user takes it from the list: the certificate names its host, and the Service
//! has its port and its type. Pure.

use k8s_openapi::api::core::v1::ServicePort;
use kamaji_api::{
    conditions::{Reason, TenantControlPlaneCondition as On},
    labels::ours,
    service::ServiceType,
    tenantcontrolplane::TenantControlPlane,
};
use kube::ResourceExt as _;

use super::{component::API_SERVER_PORT, published::Published};
use crate::k8s::{
    conditions::Verdict,
    host_port::{HostPort, is_host},
    row::ServiceFacts,
};

/// Number of former endpoints that are served. A move that would need more is not made.
pub const LIMIT: usize = 8;

/// An endpoint that nodes may still use.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Former {
    /// The endpoint.
    pub endpoint: HostPort,
    /// Type of the Service that served it.
    pub service_type: ServiceType,
}

impl Former {
    /// `published` serves it.
    fn is_covered(&self, published: &Published) -> bool {
        let same = self.endpoint == published.endpoint || self.endpoint == published.nodes();
        same && self.service_type.reach() <= published.service_type.reach()
    }

    fn text(&self) -> String {
        match self.service_type {
            ServiceType::ClusterIp => self.endpoint.to_string(),
            wider => format!("{}/{}", self.endpoint, wider.as_str()),
        }
    }
}

/// The list that the annotation holds. What cannot be read is left out.
pub fn list(tenant: &TenantControlPlane) -> Vec<Former> {
    let text = tenant.annotations().get(ours::FORMER_ENDPOINTS);
    let entries = text.into_iter().flat_map(|text| text.split(','));
    let mut all = Vec::new();
    for found in entries.filter_map(|entry| parse(entry.trim())) {
        add(&mut all, found);
    }
    all.truncate(LIMIT);
    all
}

fn parse(entry: &str) -> Option<Former> {
    let (endpoint, kind) = match entry.split_once('/') {
        Some((endpoint, kind)) => (endpoint, ServiceType::parse(kind)?),
        None => (entry, ServiceType::ClusterIp),
    };
    let endpoint = HostPort::parse(endpoint)?;
    is_host(&endpoint.host).then_some(Former {
        endpoint,
        service_type: kind,
    })
}

/// Value of the annotation.
pub fn text(list: &[Former]) -> String {
    let entries: Vec<String> = list.iter().map(Former::text).collect();
    entries.join(",")
}

/// The list once the tenant moves from `published` to `target`. `port` is the one that the Service has now: pods may
/// listen there for a move that was given up.
pub fn after(listed: &[Former], published: &Published, target: &Published, port: Option<u16>) -> Vec<Former> {
    let mut all = listed.to_vec();
    if published != target {
        for endpoint in [published.endpoint.clone(), published.nodes()] {
            let service_type = published.service_type;
            add(
                &mut all,
                Former {
                    endpoint,
                    service_type,
                },
            );
        }
    }
    let known = |port: u16| {
        let mut ports = all.iter().map(|former| former.endpoint.port);
        port == target.endpoint.port || ports.any(|known| known == port)
    };
    if let Some(port) = port.filter(|port| !known(*port)) {
        let endpoint = HostPort::new(&target.endpoint.host, port);
        let service_type = ServiceType::ClusterIp;
        add(
            &mut all,
            Former {
                endpoint,
                service_type,
            },
        );
    }
    all.retain(|former| !former.is_covered(target));
    all
}

/// Adds an endpoint; of one that is listed, the wider type counts.
fn add(all: &mut Vec<Former>, new: Former) {
    match all.iter_mut().find(|known| known.endpoint == new.endpoint) {
        Some(known) => known.service_type = known.service_type.wider(new.service_type),
        None => all.push(new),
    }
}

/// The type that reaches as far as `service_type` and every former endpoint.
pub fn widest(service_type: ServiceType, list: &[Former]) -> ServiceType {
    let types = list.iter().map(|former| former.service_type);
    types.fold(service_type, ServiceType::wider)
}

/// Whether an endpoint leads to the Service; `None` where that cannot be seen.
fn leads_here(former: &Former, service: &ServiceFacts) -> Option<bool> {
    let Former {
        endpoint: HostPort { host, port },
        service_type,
    } = former;
    let port = i32::from(*port);
    if !serving(service).any(|known| known.port == port) {
        return Some(false);
    }
    if service.cluster_ips.contains(host) || service.ingress.contains(host) {
        return Some(true);
    }
    let on_nodes = || serving(service).any(|known| known.node_port == Some(port));
    (*service_type == ServiceType::NodePort && !on_nodes()).then_some(false)
}

/// The ports that lead to kube-apiserver. An additional one may have the number of a former port and lead elsewhere.
fn serving(service: &ServiceFacts) -> impl Iterator<Item = &ServicePort> {
    let own = |known: &&ServicePort| known.name.as_deref() == Some(API_SERVER_PORT);
    let target = service.ports.iter().find(own).map(|own| &own.target_port);
    service.ports.iter().filter(move |known| {
        let is_tcp = known.protocol.as_deref().is_none_or(|protocol| protocol == "TCP");
        is_tcp && target == Some(&known.target_port)
    })
}

/// The condition `FormerEndpointsServed`; `None` where there is no former endpoint.
pub fn verdict(
    tenant: &TenantControlPlane,
    list: &[Former],
    service: &ServiceFacts,
    nodes: &HostPort,
) -> Option<Verdict> {
    if list.is_empty() {
        return None;
    }
    let on = On::FormerEndpointsServed.as_str();
    let of = |answer: Option<bool>| {
        let found = list.iter().filter(|former| leads_here(former, service) == answer);
        let found: Vec<String> = found.map(|former| former.endpoint.to_string()).collect();
        (!found.is_empty()).then(|| found.join(", "))
    };
    let move_nodes = format!(
        "on a node that was made before, let the line `server:` in /etc/kubernetes/kubelet.conf name {} and restart the \
         kubelet, or replace its machine",
        nodes.https()
    );
    let release = format!(
        "when no node uses a former endpoint any more, take it from the annotation {} of TenantControlPlane {}/{}",
        ours::FORMER_ENDPOINTS,
        tenant.namespace().unwrap_or_default(),
        tenant.name_any()
    );
    Some(match (of(Some(false)), of(None)) {
        (Some(gone), _) => Verdict::no(
            on,
            Reason::NodesCutOff.as_str(),
            format!("{gone} does not lead to this control plane any more; {move_nodes}; {release}"),
        ),
        (None, Some(unknown)) => Verdict::unknown(
            on,
            Reason::FormerEndpointsUnverified,
            format!(
                "whether {unknown} still leads to this control plane cannot be seen from here; where it does not, \
                 {move_nodes}; {release}"
            ),
        ),
        (None, None) => Verdict::yes(
            on,
            Reason::FormerEndpointsServed,
            format!(
                "{} still leads to this control plane; {release}",
                of(Some(true)).unwrap_or_default()
            ),
        ),
    })
}

#[cfg(test)]
mod tests {
    use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

    use super::*;
    use crate::{hosting::testing::tenant as example, k8s::conditions::Status};

    fn published(endpoint: &str, service_type: ServiceType, advertise: Option<&str>) -> Published {
        Published {
            endpoint: HostPort::parse(endpoint).unwrap(),
            service_type,
            address: None,
            advertise: advertise.map(|text| text.parse().unwrap()),
        }
    }

    fn moved(listed: &str, from: &Published, to: &Published) -> String {
        text(&after(&read(listed), from, to, None))
    }

    fn read(listed: &str) -> Vec<Former> {
        let mut tenant = example::tenant();
        tenant
            .annotations_mut()
            .insert(ours::FORMER_ENDPOINTS.to_owned(), listed.to_owned());
        list(&tenant)
    }

    #[test]
    fn the_list_is_read_back_and_bounded() {
        let all = "10.0.0.7:6443,192.0.2.1:30002/NodePort,[fd00::1]:443/LoadBalancer,lb.example.org:443";
        assert_eq!(text(&read(all)), all);
        assert_eq!(
            text(&read("a b:1, ,x:0,h:1/Wide, h:1 ,h:1/NodePort")),
            "h:1/NodePort"
        );
        let many: Vec<String> = (1..20).map(|port| format!("h:{port}")).collect();
        assert_eq!(read(&many.join(",")).len(), LIMIT);
    }

    #[test]
    fn a_move_lists_what_nodes_used_and_a_move_back_takes_it_from_the_list() {
        let (inside, balanced) = (
            published("10.0.0.7:6443", ServiceType::ClusterIp, None),
            published("192.0.2.9:6443", ServiceType::LoadBalancer, None),
        );
        assert_eq!(moved("", &inside, &inside), "");
        assert_eq!(moved("", &inside, &balanced), "10.0.0.7:6443");
        assert_eq!(
            moved("10.0.0.7:6443", &balanced, &inside),
            "192.0.2.9:6443/LoadBalancer",
            "and back"
        );
        let advertised = published("10.0.0.7:6443", ServiceType::ClusterIp, Some("198.51.100.1"));
        assert_eq!(moved("", &inside, &advertised), "", "the endpoint is served");
        let elsewhere = published("10.0.0.7:6443", ServiceType::ClusterIp, Some("198.51.100.2"));
        assert_eq!(moved("", &advertised, &elsewhere), "198.51.100.1:6443");
        let narrower = published("192.0.2.9:6443", ServiceType::ClusterIp, None);
        assert_eq!(
            moved("", &balanced, &narrower),
            "192.0.2.9:6443/LoadBalancer",
            "the load balancer stays until it is released"
        );
        assert_eq!(moved("", &narrower, &balanced), "");
    }

    #[test]
    fn the_port_of_a_move_that_was_given_up_is_served() {
        let here = published("10.0.0.7:6443", ServiceType::ClusterIp, None);
        assert_eq!(text(&after(&[], &here, &here, Some(6443))), "");
        assert_eq!(text(&after(&[], &here, &here, Some(7443))), "10.0.0.7:7443");
        assert_eq!(text(&after(&read("h:7443"), &here, &here, Some(7443))), "h:7443");
    }

    #[test]
    fn the_condition_says_what_nodes_have_to_do() {
        let port = |port: i32, node_port: Option<i32>| ServicePort {
            name: Some(format!("{API_SERVER_PORT}-{port}")),
            port,
            node_port,
            protocol: Some("TCP".to_owned()),
            target_port: Some(IntOrString::String("https".to_owned())),
            ..ServicePort::default()
        };
        let own = ServicePort {
            name: Some(API_SERVER_PORT.to_owned()),
            ..port(8443, None)
        };
        let of_user = ServicePort {
            target_port: Some(IntOrString::Int(9000)),
            ..port(9000, Some(30009))
        };
        let udp = ServicePort {
            protocol: Some("UDP".to_owned()),
            ..port(5353, Some(30053))
        };
        let mixed = ServicePort {
            target_port: Some(IntOrString::Int(9000)),
            ..port(9001, Some(30003))
        };
        let service = ServiceFacts {
            cluster_ip: Some("10.0.0.7".to_owned()),
            cluster_ips: vec!["10.0.0.7".to_owned()],
            ports: vec![
                of_user,
                own,
                port(6443, None),
                port(30002, Some(30002)),
                port(30003, None),
                udp,
                mixed,
            ],
            ingress: vec!["192.0.2.9".to_owned()],
            service_type: None,
        };
        let seen = |listed: &str| {
            let nodes = HostPort::new("192.0.2.9", 6443);
            verdict(&example::tenant(), &read(listed), &service, &nodes)
        };
        assert!(seen("").is_none());
        for (listed, status, reason) in [
            (
                "10.0.0.7:6443,192.0.2.9:6443/LoadBalancer",
                Status::True,
                Reason::FormerEndpointsServed,
            ),
            ("10.0.0.7:7443", Status::False, Reason::NodesCutOff),
            // The Service leads it elsewhere.
            ("10.0.0.7:9000", Status::False, Reason::NodesCutOff),
            ("10.0.0.7:5353", Status::False, Reason::NodesCutOff),
            (
                "192.0.2.8:6443/LoadBalancer",
                Status::Unknown,
                Reason::FormerEndpointsUnverified,
            ),
            (
                "198.51.100.7:30002/NodePort",
                Status::Unknown,
                Reason::FormerEndpointsUnverified,
            ),
            ("198.51.100.7:30003/NodePort", Status::False, Reason::NodesCutOff),
        ] {
            let found = seen(listed).unwrap();
            assert_eq!(
                (found.status, found.reason.as_str()),
                (status, reason.as_str()),
                "{listed}"
            );
            assert!(
                found
                    .message
                    .contains("annotation capi-kamaji.io/former-endpoints")
            );
        }
        let message = seen("10.0.0.7:7443").unwrap().message;
        assert!(
            message.contains("/etc/kubernetes/kubelet.conf name https://192.0.2.9:6443 and restart"),
            "{message}"
        );
    }
}
