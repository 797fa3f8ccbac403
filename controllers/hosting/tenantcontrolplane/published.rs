//! What a tenant is published at: the endpoint that nodes, kubeconfigs and the Cluster have copied, and the Service that
//! serves it. Pure.

use std::net::IpAddr;

use kamaji_api::{labels::ours, service::ServiceType, tenantcontrolplane::TenantControlPlane};
use kube::ResourceExt as _;

use super::validate::Network;
use crate::k8s::{
    host_port::{HostPort, is_host},
    row::ServiceFacts,
};

/// See the module.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Published {
    /// The endpoint for kubeconfigs.
    pub endpoint: HostPort,
    /// Type of the Service.
    pub service_type: ServiceType,
    /// `spec.networkProfile.address`.
    pub address: Option<IpAddr>,
    /// `spec.networkProfile.advertiseAddress`.
    pub advertise: Option<IpAddr>,
}

impl Published {
    /// What the annotation records. A tenant of an earlier release has the endpoint in its status alone: it is published by
    /// the Service that exists, since the spec may have been edited while nobody acted on it.
    pub fn of(
        tenant: &TenantControlPlane,
        network: &Network,
        service: Option<&ServiceFacts>,
    ) -> Option<Self> {
        let noted = tenant.annotations().get(ours::PUBLISHED_ENDPOINT);
        noted.and_then(|text| parse(text)).or_else(|| {
            let reported = tenant.status.as_ref()?.control_plane_endpoint.as_deref()?;
            let endpoint = endpoint(reported)?;
            let asked = tenant.spec.control_plane.service.service_type;
            let service_type = service.and_then(|service| service.service_type).unwrap_or(asked);
            Some(Self {
                address: given(&endpoint.host, service_type, network, service),
                endpoint,
                service_type,
                advertise: network.advertise,
            })
        })
    }

    /// The endpoint for nodes.
    pub fn nodes(&self) -> HostPort {
        self.advertise.map_or_else(
            || self.endpoint.clone(),
            |address| HostPort::new(&address.to_string(), self.endpoint.port),
        )
    }

    /// Value of the annotation.
    pub fn text(&self) -> String {
        let given = |key: &str, address: Option<IpAddr>| {
            address.map_or_else(String::new, |address| format!(",{key}={address}"))
        };
        format!(
            "endpoint={},service={}{}{}",
            self.endpoint,
            self.service_type.as_str(),
            given("address", self.address),
            given("advertise", self.advertise)
        )
    }
}

/// The address that the spec gave when the Service at `host` was made: none where the Service has the host by itself, and
/// that host where the spec has another one now.
fn given(
    host: &str,
    service_type: ServiceType,
    network: &Network,
    service: Option<&ServiceFacts>,
) -> Option<IpAddr> {
    let published = host.parse::<IpAddr>().ok();
    let Some(service) = service.filter(|_| published != network.address) else {
        return network.address;
    };
    if [&service.ingress, &service.cluster_ips]
        .into_iter()
        .flatten()
        .any(|own| own == host)
    {
        return None;
    }
    // The address of a load balancer may be missing for a while.
    let flickers = service_type == ServiceType::LoadBalancer && network.address.is_none();
    published.filter(|_| !flickers)
}

/// An endpoint with a host that may be shown in a command. Authors can write annotations, and perhaps the status.
fn endpoint(text: &str) -> Option<HostPort> {
    HostPort::parse(text).filter(|endpoint| is_host(&endpoint.host))
}

fn parse(text: &str) -> Option<Published> {
    let find = |key: &str| {
        let mut entries = text.split(',').filter_map(|entry| entry.split_once('='));
        entries.find_map(|(found, value)| (found.trim() == key).then_some(value.trim()))
    };
    let address = |key: &str| find(key).and_then(|text| text.parse().ok());
    Some(Published {
        endpoint: endpoint(find("endpoint")?)?,
        service_type: ServiceType::parse(find("service")?)?,
        address: address("address"),
        advertise: address("advertise"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hosting::testing::tenant as example;

    #[test]
    fn what_the_annotation_records_is_read_back() {
        let mut tenant = example::tenant();
        let network = example::valid(&tenant).network;
        assert_eq!(Published::of(&tenant, &network, None), None);
        tenant.status.get_or_insert_default().control_plane_endpoint = Some("10.0.0.7:6443".to_owned());
        let earlier = Published::of(&tenant, &network, None).unwrap();
        assert_eq!(earlier.text(), "endpoint=10.0.0.7:6443,service=ClusterIP");
        assert_eq!(earlier.nodes(), earlier.endpoint);
        let published = Published {
            endpoint: HostPort::new("fd00::1", 31000),
            service_type: ServiceType::NodePort,
            address: Some("fd00::1".parse().unwrap()),
            advertise: Some("2001:db8::7".parse().unwrap()),
        };
        let annotations = tenant.annotations_mut();
        annotations.insert(ours::PUBLISHED_ENDPOINT.to_owned(), published.text());
        assert_eq!(Published::of(&tenant, &network, None), Some(published.clone()));
        assert_eq!(published.nodes().to_string(), "[2001:db8::7]:31000");
        let annotations = tenant.annotations_mut();
        annotations.insert(ours::PUBLISHED_ENDPOINT.to_owned(), "rubbish".to_owned());
        assert_eq!(
            Published::of(&tenant, &network, None),
            Some(earlier),
            "the status is still there"
        );
    }

    #[test]
    fn a_tenant_of_an_earlier_release_is_published_by_the_service_that_exists() {
        use ServiceType::{ClusterIp, LoadBalancer, NodePort};
        let mut tenant = example::tenant();
        let mut network = example::valid(&tenant).network;
        for (at, live, ingress, asked, address, expected) in [
            // Edited while the tenant was paused.
            (
                "192.0.2.9",
                LoadBalancer,
                Some("192.0.2.9"),
                ClusterIp,
                None,
                None,
            ),
            (
                "192.0.2.9",
                LoadBalancer,
                Some("192.0.2.9"),
                NodePort,
                Some("203.0.113.4"),
                None,
            ),
            ("192.0.2.9", LoadBalancer, None, LoadBalancer, None, None),
            (
                "203.0.113.4",
                NodePort,
                None,
                ClusterIp,
                None,
                Some("203.0.113.4"),
            ),
            (
                "203.0.113.4",
                NodePort,
                None,
                NodePort,
                Some("203.0.113.5"),
                Some("203.0.113.4"),
            ),
            ("10.0.0.7", ClusterIp, None, NodePort, Some("203.0.113.4"), None),
            // Not edited.
            (
                "203.0.113.4",
                NodePort,
                None,
                NodePort,
                Some("203.0.113.4"),
                Some("203.0.113.4"),
            ),
        ] {
            let facts = ServiceFacts {
                service_type: Some(live),
                cluster_ips: vec!["10.0.0.7".to_owned()],
                ingress: ingress.into_iter().map(str::to_owned).collect(),
                ..ServiceFacts::default()
            };
            tenant.status.get_or_insert_default().control_plane_endpoint = Some(format!("{at}:6443"));
            tenant.spec.control_plane.service.service_type = asked;
            network.address = address.map(|text| text.parse().unwrap());
            let found = Published::of(&tenant, &network, Some(&facts)).unwrap();
            let case = format!("{at} by {live:?}, now {asked:?} {address:?}");
            assert_eq!(found.service_type, live, "{case}");
            let expected = expected.map(|text| text.parse::<IpAddr>().unwrap());
            assert_eq!(found.address, expected, "{case}");
            assert_eq!(found.endpoint, HostPort::new(at, 6443));
        }
    }

    #[test]
    fn a_host_that_a_shell_would_run_is_not_published() {
        let mut tenant = example::tenant();
        let network = example::valid(&tenant).network;
        let annotations = tenant.annotations_mut();
        let text = "endpoint=x;reboot:6443,service=ClusterIP";
        annotations.insert(ours::PUBLISHED_ENDPOINT.to_owned(), text.to_owned());
        assert_eq!(Published::of(&tenant, &network, None), None);
        tenant.status.get_or_insert_default().control_plane_endpoint = Some("$(reboot):6443".to_owned());
        assert_eq!(Published::of(&tenant, &network, None), None);
    }
}
