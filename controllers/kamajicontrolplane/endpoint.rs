//! Which endpoint the control plane has: preset by a user, published by us, or not known yet. Pure.
//!
//! Source: contract.md 1.6, D9. Core copies the published endpoint once and never again, so a published one is kept
//! for good and a drift is told, not repaired. A preset one is adopted: it goes into the certificate's names and into
//! the kubeconfig. What was published by us needs no further name, and getting one would issue the certificate again.
//! Which of the two it is stands in an annotation, written together with the endpoint: afterwards nothing tells them
//! apart, least of all a TenantControlPlane that was made again at another address.

use std::net::IpAddr;

use kamaji_api::{
    controlplane::{Endpoint, KamajiControlPlane},
    labels::ours,
    tenantcontrolplane::TenantControlPlane,
};
use kube::ResourceExt;

use crate::capi::cluster::Cluster;

/// Where an endpoint came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    /// The TenantControlPlane had this address when it was published.
    Published,
    /// Somebody else set it.
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

/// The endpoint in force, and what follows from where it came from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Choice {
    /// What clients and kubeconfigs use.
    pub endpoint: Endpoint,
    /// Where it came from. A preset one has to be named by the certificate.
    pub origin: Origin,
    /// It and its origin have to be written into the object.
    pub write: bool,
    /// What does not fit, for people.
    pub drift: Option<String>,
}

/// The endpoint in force; `None` while nothing gives one.
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
                "spec.controlPlaneEndpoint is {} and the Cluster uses {}; it cannot be moved after publication",
                text(own),
                text(endpoint)
            )),
        });
    }
    let recorded = Origin::recorded(control_plane);
    let origin = recorded.unwrap_or_else(|| guess(control_plane, tenant, endpoint));
    let drift = reported
        .as_ref()
        .filter(|reported| own.is_some() && origin == Origin::Published && *reported != endpoint)
        .map(|reported| {
            format!(
                "{} was published and the TenantControlPlane is at {} now; bring the address back, Cluster API does \
                 not follow",
                text(endpoint),
                text(reported)
            )
        });
    Some(Choice {
        endpoint: endpoint.clone(),
        origin,
        // What was set by a user or by the Go provider is recorded once the tenant can speak for itself.
        write: own.is_none() || (recorded.is_none() && reported.is_some()),
        drift,
    })
}

/// Where an endpoint without a record came from: a user or the Go provider wrote it.
fn guess(
    control_plane: &KamajiControlPlane,
    tenant: Option<&TenantControlPlane>,
    endpoint: &Endpoint,
) -> Origin {
    let Some(tenant) = tenant else {
        return Origin::Preset;
    };
    let names = |list: &[String]| list.contains(&endpoint.host);
    let named_by_us =
        names(&tenant.spec.network_profile.cert_sans) && !names(&control_plane.spec.network.cert_sans);
    let by_somebody = control_plane.spec.control_plane_endpoint.is_none();
    match reported(tenant) {
        _ if named_by_us => Origin::Preset,
        Some(reported) if reported == *endpoint => Origin::Published,
        // It was published and has moved since.
        Some(_) if !by_somebody => Origin::Published,
        _ => Origin::Preset,
    }
}

/// What the TenantControlPlane reports.
pub fn reported(tenant: &TenantControlPlane) -> Option<Endpoint> {
    parse(tenant.status.as_ref()?.control_plane_endpoint.as_deref()?)
}

/// Where nodes reach the API server, where that is not the endpoint: set while `network.advertiseAddress` is.
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

/// Reads `host:port`, with brackets around an IPv6 address or without.
pub fn parse(text: &str) -> Option<Endpoint> {
    let (host, port) = text.rsplit_once(':')?;
    let endpoint = Endpoint {
        host: host.trim_start_matches('[').trim_end_matches(']').to_owned(),
        port: port.parse().ok()?,
    };
    (endpoint.is_valid() && endpoint.port <= 65535).then_some(endpoint)
}

/// `host:port`, with brackets around an IPv6 address.
pub fn text(endpoint: &Endpoint) -> String {
    let Endpoint { host, port } = endpoint;
    match host.parse::<IpAddr>() {
        Ok(IpAddr::V6(_)) => format!("[{host}]:{port}"),
        _ => format!("{host}:{port}"),
    }
}

/// The `server` of a kubeconfig.
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
    fn nothing_is_known_until_the_tenant_has_an_address() {
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
        // After both were written the judgement is the same.
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
    }

    #[test]
    fn a_published_endpoint_adds_no_name_and_its_drift_is_told() {
        let mut own = example::control_plane();
        own.spec.control_plane_endpoint = Some(at("192.0.2.1", 6443));
        record(&mut own, Origin::Published);
        let mut cluster = example::cluster();
        let settled = choose(&own, &cluster, Some(&tenant_at("192.0.2.1:6443"))).unwrap();
        assert_eq!(settled.origin, Origin::Published);
        assert!(!settled.write && settled.drift.is_none());
        cluster.spec.control_plane_endpoint = Some(at("192.0.2.1", 6443));
        // The TenantControlPlane was made again: nothing about it tells where the endpoint came from.
        let anew = choose(&own, &cluster, None).unwrap();
        assert_eq!((anew.origin, anew.drift), (Origin::Published, None));
        let moved = choose(&own, &cluster, Some(&tenant_at("192.0.2.9:6443"))).unwrap();
        assert_eq!(moved.endpoint, at("192.0.2.1", 6443));
        assert_eq!(
            moved.drift.as_deref(),
            Some(
                "192.0.2.1:6443 was published and the TenantControlPlane is at 192.0.2.9:6443 now; bring the address \
                 back, Cluster API does not follow"
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
        assert!(!choice.write, "nothing speaks for it yet");
    }

    #[test]
    fn addresses_of_both_families_are_read_and_written() {
        assert_eq!(parse("[fd00::1]:6443"), Some(at("fd00::1", 6443)));
        assert_eq!(text(&at("fd00::1", 6443)), "[fd00::1]:6443");
        assert_eq!(server(&at("h", 1)), "https://h:1");
        assert_eq!(parse("192.0.2.1:70000"), None);
        assert_eq!(parse("no-port"), None);
    }
}
