//! What a tenant is published at: the endpoint that nodes, kubeconfigs and the Cluster have copied, and the Service that
//! serves it. Pure.

use std::net::IpAddr;

use kamaji_api::{labels::ours, service::ServiceType, tenantcontrolplane::TenantControlPlane};
use kube::ResourceExt as _;

use super::validate::Network;
use crate::k8s::host_port::HostPort;

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
    /// What the annotation records. A tenant of an earlier release has the endpoint in its status alone, and counts as
    /// published by what its spec says.
    pub fn of(tenant: &TenantControlPlane, network: &Network) -> Option<Self> {
        let noted = tenant.annotations().get(ours::PUBLISHED_ENDPOINT);
        noted.and_then(|text| parse(text)).or_else(|| {
            let reported = tenant.status.as_ref()?.control_plane_endpoint.as_deref()?;
            Some(Self {
                endpoint: HostPort::parse(reported)?,
                service_type: tenant.spec.control_plane.service.service_type,
                address: network.address,
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

fn parse(text: &str) -> Option<Published> {
    let find = |key: &str| {
        let mut entries = text.split(',').filter_map(|entry| entry.split_once('='));
        entries.find_map(|(found, value)| (found.trim() == key).then_some(value.trim()))
    };
    let address = |key: &str| find(key).and_then(|text| text.parse().ok());
    Some(Published {
        endpoint: HostPort::parse(find("endpoint")?)?,
        service_type: service_type(find("service")?)?,
        address: address("address"),
        advertise: address("advertise"),
    })
}

/// The type of this name.
pub fn service_type(text: &str) -> Option<ServiceType> {
    ServiceType::ALL.into_iter().find(|known| known.as_str() == text)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hosting::testing::tenant as example;

    #[test]
    fn what_the_annotation_records_is_read_back() {
        let mut tenant = example::tenant();
        let network = example::valid(&tenant).network;
        assert_eq!(Published::of(&tenant, &network), None);
        tenant.status.get_or_insert_default().control_plane_endpoint = Some("10.0.0.7:6443".to_owned());
        let earlier = Published::of(&tenant, &network).unwrap();
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
        assert_eq!(Published::of(&tenant, &network), Some(published.clone()));
        assert_eq!(published.nodes().to_string(), "[2001:db8::7]:31000");
        let annotations = tenant.annotations_mut();
        annotations.insert(ours::PUBLISHED_ENDPOINT.to_owned(), "rubbish".to_owned());
        assert_eq!(
            Published::of(&tenant, &network),
            Some(earlier),
            "the status is still there"
        );
    }
}
