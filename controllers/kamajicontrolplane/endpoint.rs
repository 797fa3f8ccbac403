//! Chooses the endpoint of the control plane: preset by a user, published by this controller, or not known yet. Pure.
//!
//! Cluster API copies a published endpoint once and never follows a change
//! (`docs/src/reference/cluster-api-contract.md`), so a published endpoint is kept, and a drift is reported and not
//! repaired. A preset endpoint is adopted: the API server's certificate names it and the kubeconfigs use it. A
//! published endpoint needs no further name in the certificate, and adding one would reissue it. An annotation records
//! which of the two it is. It is written together with the endpoint, because later nothing else distinguishes them,
//! such as when the TenantControlPlane was created again at another address.

use kamaji_api::{
    controlplane::{Endpoint, KamajiControlPlane},
    labels::ours,
    tenantcontrolplane::TenantControlPlane,
};
use kube::ResourceExt;

use crate::{
    capi::cluster::Cluster,
    k8s::host_port::{HostPort, in_url},
};

/// Who set an endpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    /// This controller did: the TenantControlPlane had this address.
    Published,
    /// A user, or another provider.
    Preset,
}

impl Origin {
    /// Value of the annotation.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Published => "published",
            Self::Preset => "preset",
        }
    }

    fn recorded(control_plane: &KamajiControlPlane) -> Option<Self> {
        let text = control_plane.annotations().get(ours::ENDPOINT_ORIGIN)?;
        [Self::Published, Self::Preset]
            .into_iter()
            .find(|origin| origin.as_str() == text)
    }
}

/// The endpoint to use, and what follows from who set it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Choice {
    /// The address in kubeconfigs.
    pub endpoint: Endpoint,
    /// Who set it. The certificate has to name a preset one.
    pub origin: Origin,
    /// Endpoint and origin are to be written into the KamajiControlPlane.
    pub write: bool,
    /// What differs from the endpoint, for people.
    pub drift: Option<String>,
}

/// The endpoint to use; `None` while there is none.
pub fn choose(
    control_plane: &KamajiControlPlane,
    cluster: &Cluster,
    tenant: Option<&TenantControlPlane>,
) -> Option<Choice> {
    let own = control_plane
        .spec
        .control_plane_endpoint
        .as_ref()
        .filter(|endpoint| endpoint.is_valid());
    let reported = tenant.and_then(reported);
    let Some(endpoint) = cluster.endpoint().or(own) else {
        return reported.map(|endpoint| Choice {
            endpoint,
            origin: Origin::Published,
            write: true,
            drift: None,
        });
    };
    if let Some(own) = own.filter(|own| *own != endpoint) {
        return Some(Choice {
            endpoint: endpoint.clone(),
            origin: Origin::Preset,
            write: false,
            drift: Some(format!(
                "spec.controlPlaneEndpoint is {} and the Cluster uses {}; set it to the Cluster's: an endpoint cannot move \
                 after it was published",
                text(own),
                text(endpoint)
            )),
        });
    }
    let recorded = Origin::recorded(control_plane);
    let is_unrecorded =
        recorded.is_none() || !control_plane.annotations().contains_key(ours::PUBLISHED_SERVICE);
    let origin = recorded.unwrap_or_else(|| guess(control_plane, tenant, endpoint));
    let drift = reported
        .as_ref()
        .filter(|reported| own.is_some() && origin == Origin::Published && *reported != endpoint)
        .map(|reported| {
            format!(
                "spec.controlPlaneEndpoint is {} and the TenantControlPlane has the address {} now; give it the old \
                 address back: Cluster API does not follow a change",
                text(endpoint),
                text(reported)
            )
        });
    Some(Choice {
        endpoint: endpoint.clone(),
        origin,
        // An endpoint that is there before the tenant was set by a user, which is recorded at once. One of the Go provider
        // is recorded when the tenant reports its address, as is the Service that has it.
        write: own.is_none()
            || (is_unrecorded && reported.is_some())
            || (recorded.is_none() && tenant.is_none()),
        drift,
    })
}

/// Who set an endpoint that has no annotation: a user, or the Go provider.
fn guess(
    control_plane: &KamajiControlPlane,
    tenant: Option<&TenantControlPlane>,
    endpoint: &Endpoint,
) -> Origin {
    let Some(tenant) = tenant else {
        return Origin::Preset;
    };
    let names = |list: &[String]| list.contains(&endpoint.host);
    let named_for_preset =
        names(&tenant.spec.network_profile.cert_sans) && !names(&control_plane.spec.network.cert_sans);
    let only_in_cluster = control_plane.spec.control_plane_endpoint.is_none();
    match reported(tenant) {
        _ if named_for_preset => Origin::Preset,
        Some(reported) if reported == *endpoint => Origin::Published,
        // It was published, and the tenant has another address since.
        Some(_) if !only_in_cluster => Origin::Published,
        _ => Origin::Preset,
    }
}

/// The address that the TenantControlPlane reports.
pub fn reported(tenant: &TenantControlPlane) -> Option<Endpoint> {
    parse(tenant.status.as_ref()?.control_plane_endpoint.as_deref()?)
}

/// The endpoint for nodes where it differs from the endpoint for clients: set while `network.advertiseAddress` is.
pub fn for_workers(
    control_plane: &KamajiControlPlane,
    tenant: Option<&TenantControlPlane>,
) -> Option<Endpoint> {
    let host = control_plane
        .spec
        .network
        .advertise_address
        .clone()
        .filter(|host| !host.is_empty())?;
    Some(Endpoint {
        host,
        port: tenant?.spec.network_profile.port,
    })
}

/// Parses `host:port`; an IPv6 address may have brackets. `None` for a port above 65535.
pub fn parse(text: &str) -> Option<Endpoint> {
    HostPort::parse(text).map(|HostPort { host, port }| Endpoint {
        host,
        port: port.into(),
    })
}

/// Formats `host:port`; an IPv6 address gets brackets.
pub fn text(endpoint: &Endpoint) -> String {
    let Endpoint { host, port } = endpoint;
    format!("{}:{port}", in_url(host))
}

/// The URL for `server` of a kubeconfig.
pub fn server(endpoint: &Endpoint) -> String {
    format!("https://{}", text(endpoint))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kamajicontrolplane::example;

    fn at(host: &str, port: i32) -> Endpoint {
        Endpoint {
            host: host.into(),
            port,
        }
    }

    fn tenant_at(text: &str) -> TenantControlPlane {
        let mut tenant = example::tenant();
        tenant.status.get_or_insert_default().control_plane_endpoint = Some(text.into());
        tenant
    }

    #[test]
    fn there_is_no_endpoint_until_the_tenant_has_an_address() {
        assert_eq!(choose(&example::control_plane(), &example::cluster(), None), None);
        let bare = example::tenant();
        assert_eq!(
            choose(&example::control_plane(), &example::cluster(), Some(&bare)),
            None
        );
    }

    #[test]
    fn contract_12_any_port_is_carried() {
        let tenant = tenant_at("192.0.2.1:40000");
        let choice = choose(&example::control_plane(), &example::cluster(), Some(&tenant)).unwrap();
        assert_eq!((choice.endpoint, choice.write), (at("192.0.2.1", 40000), true));
    }

    #[test]
    fn contract_11_a_preset_cluster_endpoint_is_adopted_and_named_by_the_certificate() {
        let mut cluster = example::cluster();
        cluster.spec.control_plane_endpoint = Some(at("api.example.org", 443));
        for tenant in [None, Some(tenant_at("192.0.2.1:443"))] {
            let choice = choose(&example::control_plane(), &cluster, tenant.as_ref()).unwrap();
            assert_eq!(choice.endpoint, at("api.example.org", 443));
            assert_eq!(choice.origin, Origin::Preset);
            assert!(choice.write && choice.drift.is_none());
        }
        // Once both are written the choice stays the same.
        let mut own = example::control_plane();
        own.spec.control_plane_endpoint = Some(at("api.example.org", 443));
        let mut tenant = tenant_at("192.0.2.1:443");
        tenant.spec.network_profile.cert_sans = vec!["api.example.org".into()];
        let choice = choose(&own, &cluster, Some(&tenant)).unwrap();
        assert_eq!(choice.origin, Origin::Preset);
        assert!(
            choice.write && choice.drift.is_none(),
            "its origin is not recorded yet"
        );
        record(&mut own, Origin::Preset);
        tenant.spec.network_profile.cert_sans.clear();
        let choice = choose(&own, &cluster, Some(&tenant)).unwrap();
        assert_eq!(choice.origin, Origin::Preset);
        assert!(!choice.write && choice.drift.is_none());
    }

    fn record(control_plane: &mut KamajiControlPlane, origin: Origin) {
        let annotations = control_plane.metadata.annotations.get_or_insert_default();
        annotations.insert(ours::ENDPOINT_ORIGIN.into(), origin.as_str().into());
        annotations.insert(ours::PUBLISHED_SERVICE.into(), "LoadBalancer:6443".into());
    }

    #[test]
    fn a_published_endpoint_adds_no_name_and_its_drift_is_reported() {
        let mut own = example::control_plane();
        own.spec.control_plane_endpoint = Some(at("192.0.2.1", 6443));
        record(&mut own, Origin::Published);
        let mut cluster = example::cluster();
        let settled = choose(&own, &cluster, Some(&tenant_at("192.0.2.1:6443"))).unwrap();
        assert_eq!(settled.origin, Origin::Published);
        assert!(!settled.write && settled.drift.is_none());
        cluster.spec.control_plane_endpoint = Some(at("192.0.2.1", 6443));
        // The TenantControlPlane was created again and knows nothing of the endpoint.
        let again = choose(&own, &cluster, None).unwrap();
        assert_eq!((again.origin, again.drift), (Origin::Published, None));
        let moved = choose(&own, &cluster, Some(&tenant_at("192.0.2.9:6443"))).unwrap();
        assert_eq!(moved.endpoint, at("192.0.2.1", 6443));
        assert_eq!(
            moved.drift.as_deref(),
            Some(
                "spec.controlPlaneEndpoint is 192.0.2.1:6443 and the TenantControlPlane has the address \
                 192.0.2.9:6443 now; give it the old address back: Cluster API does not follow a change"
            )
        );
    }

    #[test]
    fn an_endpoint_of_the_go_provider_is_recorded_as_published() {
        let mut own = example::control_plane();
        own.spec.control_plane_endpoint = Some(at("192.0.2.1", 6443));
        own.spec.network.cert_sans = vec!["192.0.2.1".into()];
        let mut tenant = tenant_at("192.0.2.1:6443");
        tenant.spec.network_profile.cert_sans = vec!["192.0.2.1".into()];
        let choice = choose(&own, &example::cluster(), Some(&tenant)).unwrap();
        assert_eq!((choice.origin, choice.write), (Origin::Published, true));
        tenant.status = None;
        let choice = choose(&own, &example::cluster(), Some(&tenant)).unwrap();
        assert!(!choice.write, "the tenant reports no address yet");
    }

    #[test]
    fn addresses_of_both_families_are_parsed_and_formatted() {
        assert_eq!(parse("[fd00::1]:6443"), Some(at("fd00::1", 6443)));
        assert_eq!(text(&at("fd00::1", 6443)), "[fd00::1]:6443");
        assert_eq!(server(&at("h", 1)), "https://h:1");
        assert_eq!(parse("192.0.2.1:70000"), None);
        assert_eq!(parse("no-port"), None);
    }
}
