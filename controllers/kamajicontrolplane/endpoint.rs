//! Which endpoint the control plane has: preset by a user, published by us, or not known yet. Pure.
//!
//! Source: contract.md 1.6, D9. Core copies the published endpoint once and never again, so a published one is kept
//! for good and a drift is told, not repaired. A preset one is adopted: it goes into the certificate's names and into
//! the kubeconfig. What was published by us needs no further name, and getting one would issue the certificate again.

use std::net::IpAddr;

use kamaji_api::{
    controlplane::{Endpoint, KamajiControlPlane},
    tenantcontrolplane::TenantControlPlane,
};

use crate::capi::cluster::Cluster;

/// The endpoint in force, and what follows from where it came from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Choice {
    /// What clients and kubeconfigs use.
    pub endpoint: Endpoint,
    /// It has to be written into `spec.controlPlaneEndpoint`.
    pub write: bool,
    /// It is not what the TenantControlPlane reports by itself, so the certificate must name it.
    pub preset: bool,
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
            write: true,
            preset: false,
            drift: None,
        });
    };
    let preset = is_preset(control_plane, cluster, tenant, endpoint);
    let drift = match (own, &reported) {
        (Some(own), _) if own != endpoint => Some(format!(
            "spec.controlPlaneEndpoint is {} and the Cluster uses {}; it cannot be moved after publication",
            text(own),
            text(endpoint)
        )),
        (Some(_), Some(reported)) if !preset && reported != endpoint => Some(format!(
            "{} was published and the TenantControlPlane is at {} now; bring the address back, Cluster API does not \
             follow",
            text(endpoint),
            text(reported)
        )),
        _ => None,
    };
    Some(Choice {
        endpoint: endpoint.clone(),
        write: own.is_none(),
        preset,
        drift,
    })
}

/// The endpoint came from somebody else than the TenantControlPlane. Told from the objects alone, so that it is the
/// same after a restart: what the tenant's certificate names already, or what is there before the tenant has an
/// address, or what the Cluster got before we published.
fn is_preset(
    control_plane: &KamajiControlPlane,
    cluster: &Cluster,
    tenant: Option<&TenantControlPlane>,
    endpoint: &Endpoint,
) -> bool {
    if control_plane.spec.network.service_address.as_deref() == Some(endpoint.host.as_str()) {
        return false;
    }
    let Some(tenant) = tenant else { return true };
    let named = tenant.spec.network_profile.cert_sans.contains(&endpoint.host);
    named
        || reported(tenant).is_none()
        || cluster
            .endpoint()
            .is_some_and(|theirs| control_plane.spec.control_plane_endpoint.as_ref() != Some(theirs))
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
            assert!(choice.write && choice.preset && choice.drift.is_none());
        }
        // After both were written the judgement is the same.
        let mut own = example::control_plane();
        own.spec.control_plane_endpoint = Some(at("api.example.org", 443));
        let mut tenant = tenant_at("192.0.2.1:443");
        tenant.spec.network_profile.cert_sans = vec!["api.example.org".into()];
        let choice = choose(&own, &cluster, Some(&tenant)).unwrap();
        assert!(!choice.write && choice.preset && choice.drift.is_none());
    }

    #[test]
    fn a_published_endpoint_adds_no_name_and_its_drift_is_told() {
        let mut own = example::control_plane();
        own.spec.control_plane_endpoint = Some(at("192.0.2.1", 6443));
        let mut cluster = example::cluster();
        let settled = choose(&own, &cluster, Some(&tenant_at("192.0.2.1:6443"))).unwrap();
        assert!(!settled.write && !settled.preset && settled.drift.is_none());
        cluster.spec.control_plane_endpoint = Some(at("192.0.2.1", 6443));
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
    fn addresses_of_both_families_are_read_and_written() {
        assert_eq!(parse("[fd00::1]:6443"), Some(at("fd00::1", 6443)));
        assert_eq!(text(&at("fd00::1", 6443)), "[fd00::1]:6443");
        assert_eq!(server(&at("h", 1)), "https://h:1");
        assert_eq!(parse("192.0.2.1:70000"), None);
        assert_eq!(parse("no-port"), None);
    }
}
