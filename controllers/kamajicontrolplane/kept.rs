//! What stays of a control plane once its endpoint is published: the port, and the Service that has the address. Pure.
//!
//! Nodes and kubeconfigs use the published endpoint and Cluster API never follows a change of it, so an edit that would
//! move it cuts off every node. Our engine decides about such an edit itself, and knows how to move. For upstream Kamaji,
//! and until our engine has recorded what is published, the edit is reported and not applied.

use kamaji_api::{
    controlplane::{KamajiControlPlane, NetworkSettings},
    labels::ours,
    service::ServiceType,
    tenantcontrolplane::TenantControlPlane,
};
use kube::ResourceExt as _;

use super::endpoint::{self, Choice, Origin};
use crate::{
    capi::cluster::{Cluster, ClusterNetwork},
    settings::Hosting,
};

/// The Service that has a published endpoint, as an annotation of the KamajiControlPlane records it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Kept {
    /// Type of the Service.
    pub service_type: ServiceType,
    /// Port of the Service.
    pub port: i32,
    /// Address that the spec gave it, if it did.
    pub address: Option<String>,
}

impl Kept {
    /// The Service of a TenantControlPlane that reports its address.
    pub fn of(tenant: &TenantControlPlane) -> Option<Self> {
        endpoint::reported(tenant)?;
        let profile = &tenant.spec.network_profile;
        Some(Self {
            service_type: tenant.spec.control_plane.service.service_type,
            port: profile.port,
            address: profile.address.clone().filter(|address| !address.is_empty()),
        })
    }

    /// The recorded one; `None` before an endpoint is published.
    pub fn recorded(control_plane: &KamajiControlPlane) -> Option<Self> {
        let text = control_plane.annotations().get(ours::PUBLISHED_SERVICE)?;
        let mut parts = text.splitn(3, ':');
        let (service_type, port) = (parts.next()?, parts.next()?.parse().ok()?);
        Some(Self {
            service_type: ServiceType::ALL
                .into_iter()
                .find(|known| known.as_str() == service_type)?,
            port,
            address: parts.next().map(str::to_owned),
        })
    }

    /// Value of the annotation: type, port, and the address if there is one, with colons between.
    pub fn text(&self) -> String {
        let (service_type, port) = (self.service_type.as_str(), self.port);
        match &self.address {
            Some(address) => format!("{service_type}:{port}:{address}"),
            None => format!("{service_type}:{port}"),
        }
    }

    /// Type and address of the Service: the recorded ones, or those of the spec where they do not move the endpoint.
    pub fn service(&self, network: &NetworkSettings, choice: &Choice) -> (ServiceType, Option<String>) {
        if self.fits(network, choice) {
            (network.service_type, address(network))
        } else {
            (self.service_type, self.address.clone())
        }
    }

    /// The Service keeps the published address: the spec says what it said, or names the address that it has. Where a user
    /// set the endpoint, the user leads it to the Service.
    fn fits(&self, network: &NetworkSettings, choice: &Choice) -> bool {
        let wanted = address(network);
        let same_address = wanted == self.address || wanted.as_deref() == Some(choice.endpoint.host.as_str());
        choice.origin == Origin::Preset || (network.service_type == self.service_type && same_address)
    }

    /// The edits that are not applied, with what to set back; `None` when there are none.
    pub fn refused(
        &self,
        network: &NetworkSettings,
        cluster: &ClusterNetwork,
        choice: &Choice,
    ) -> Option<String> {
        let mut refused = Vec::new();
        let port = cluster.api_server_port;
        if port != 0 && port != self.port {
            refused.push(format!(
                "spec.clusterNetwork.apiServerPort of the Cluster is {port}, and the published endpoint stays on port {}; \
                 set it to {} or remove it",
                self.port, self.port
            ));
        }
        if !self.fits(network, choice) {
            refused.push(format!(
                "spec.network.serviceType and serviceAddress are {}, and the Service of the published endpoint stays {}; \
                 set them back",
                described(network.service_type, address(network).as_deref()),
                described(self.service_type, self.address.as_deref())
            ));
        }
        (!refused.is_empty()).then(|| refused.join("; "))
    }
}

/// Who keeps a published endpoint where it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Keeper {
    /// Nobody: none is published.
    Nobody,
    /// This controller, by what it recorded.
    Provider(Kept),
    /// The engine: it gets every edit. The port is the one that the Service was published with.
    Engine(i32),
}

impl Keeper {
    /// The keeper of the endpoint of `control_plane`. The record of our engine stays on a TenantControlPlane that another
    /// engine hosts since, and means nothing to that one.
    pub fn of(
        control_plane: &KamajiControlPlane,
        tenant: Option<&TenantControlPlane>,
        hosting: Hosting,
    ) -> Self {
        let recorded = Kept::recorded(control_plane);
        let by_engine = tenant
            .filter(|_| hosting == Hosting::Embedded)
            .filter(|tenant| tenant.annotations().contains_key(ours::PUBLISHED_ENDPOINT));
        match (by_engine, recorded) {
            (Some(tenant), recorded) => {
                Self::Engine(recorded.map_or(tenant.spec.network_profile.port, |kept| kept.port))
            }
            (None, Some(kept)) => Self::Provider(kept),
            (None, None) => Self::Nobody,
        }
    }
}

/// `choice` with the edits that are not applied.
pub fn with_refused(
    choice: Choice,
    control_plane: &KamajiControlPlane,
    cluster: &Cluster,
    keeper: &Keeper,
) -> Choice {
    let refused = match keeper {
        Keeper::Provider(kept) => kept.refused(
            &control_plane.spec.settings.network,
            &cluster.spec.cluster_network,
            &choice,
        ),
        Keeper::Nobody | Keeper::Engine(_) => None,
    };
    Choice {
        drift: choice.drift.or(refused),
        ..choice
    }
}

fn described(service_type: ServiceType, address: Option<&str>) -> String {
    let service_type = service_type.as_str();
    address.map_or_else(
        || service_type.to_owned(),
        |address| format!("{service_type} with address {address}"),
    )
}

fn address(network: &NetworkSettings) -> Option<String> {
    network
        .service_address
        .clone()
        .filter(|address| !address.is_empty())
}

#[cfg(test)]
mod tests {
    use kamaji_api::controlplane::Endpoint;
    use rstest::rstest;

    use super::*;
    use crate::kamajicontrolplane::example;

    fn choice(origin: Origin) -> Choice {
        Choice {
            endpoint: Endpoint {
                host: "192.0.2.1".into(),
                port: 6443,
            },
            origin,
            write: false,
            drift: None,
            moved: None,
        }
    }

    fn published(origin: Origin) -> (Kept, Choice, NetworkSettings, ClusterNetwork) {
        let mut control_plane = example::control_plane();
        let kept = Kept::of(&example::running("v1.36.3")).unwrap();
        let annotations = control_plane.metadata.annotations.get_or_insert_default();
        annotations.insert(ours::PUBLISHED_SERVICE.into(), kept.text());
        assert_eq!(Kept::recorded(&control_plane).as_ref(), Some(&kept));
        let keeper = |tenant: &TenantControlPlane, hosting| Keeper::of(&control_plane, Some(tenant), hosting);
        let mut tenant = example::running("v1.36.3");
        let here = Hosting::Embedded;
        assert_eq!(keeper(&tenant, here), Keeper::Provider(kept.clone()));
        let noted = tenant.metadata.annotations.get_or_insert_default();
        noted.insert(ours::PUBLISHED_ENDPOINT.into(), String::new());
        tenant.spec.network_profile.port = 7443;
        assert_eq!(keeper(&tenant, here), Keeper::Engine(6443));
        assert_eq!(
            Keeper::of(&example::control_plane(), Some(&tenant), here),
            Keeper::Engine(7443),
            "nothing is recorded"
        );
        assert_eq!(
            keeper(&tenant, Hosting::External),
            Keeper::Provider(kept.clone()),
            "the record outlives our engine"
        );
        let cluster = example::cluster().spec.cluster_network;
        (kept, choice(origin), control_plane.spec.settings.network, cluster)
    }

    #[test]
    fn nothing_is_kept_before_an_endpoint_is_published() {
        assert_eq!(Kept::recorded(&example::control_plane()), None);
        assert_eq!(
            Keeper::of(&example::control_plane(), None, Hosting::Embedded),
            Keeper::Nobody
        );
        assert_eq!(Kept::of(&example::tenant()), None, "it reports no address");
        let (kept, choice, network, cluster) = published(Origin::Published);
        assert_eq!(
            kept.refused(&network, &cluster, &choice),
            None,
            "nothing was edited"
        );
    }

    #[test]
    fn the_record_of_a_service_with_an_ipv6_address_is_read_back() {
        let kept = Kept {
            service_type: ServiceType::NodePort,
            port: 31000,
            address: Some("fd00::1".to_owned()),
        };
        let mut control_plane = example::control_plane();
        let annotations = control_plane.metadata.annotations.get_or_insert_default();
        annotations.insert(ours::PUBLISHED_SERVICE.into(), kept.text());
        assert_eq!(Kept::recorded(&control_plane), Some(kept));
    }

    #[rstest]
    #[case(Origin::Published)]
    #[case(Origin::Preset)]
    fn the_port_stays_whoever_set_the_endpoint(#[case] origin: Origin) {
        let (kept, choice, network, mut cluster) = published(origin);
        cluster.api_server_port = 443;
        let message = kept.refused(&network, &cluster, &choice).unwrap();
        assert_eq!(
            message,
            "spec.clusterNetwork.apiServerPort of the Cluster is 443, and the published endpoint stays on port 6443; set \
             it to 6443 or remove it"
        );
    }

    #[rstest]
    #[case::type_(ServiceType::ClusterIp, None, true)]
    #[case::address(ServiceType::LoadBalancer, Some("192.0.2.9"), true)]
    #[case::the_same_address(ServiceType::LoadBalancer, Some("192.0.2.1"), false)]
    fn the_service_of_a_published_endpoint_stays(
        #[case] service_type: ServiceType,
        #[case] address: Option<&str>,
        #[case] is_refused: bool,
    ) {
        let (kept, choice, mut network, cluster) = published(Origin::Published);
        assert_eq!(network.service_type, ServiceType::LoadBalancer);
        network.service_type = service_type;
        network.service_address = address.map(str::to_owned);
        assert_eq!(kept.refused(&network, &cluster, &choice).is_some(), is_refused);
        let service = kept.service(&network, &choice);
        assert_eq!(service.0, ServiceType::LoadBalancer);
        let expected = address.filter(|_| !is_refused).map(str::to_owned);
        assert_eq!(service.1, expected);
        let (preset, choice, _, _) = published(Origin::Preset);
        assert_eq!(
            preset.refused(&network, &cluster, &choice),
            None,
            "a user leads it to the Service"
        );
    }
}
