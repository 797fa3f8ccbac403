//! Chooses the endpoint of the control plane: preset by a user, published by this controller, or not known yet. Pure.
//!
//! Cluster API copies a published endpoint once and never follows a change
//! (`docs/src/reference/cluster-api-contract.md`), so a published endpoint is kept, and a drift is reported and not
//! repaired, until an annotation permits the move. After it the Cluster has the former endpoint, and kubeconfigs and nodes
//! that join the new one; the user may edit the Cluster, whose field is not immutable. A preset endpoint is adopted: the API server's certificate names it and the kubeconfigs use it. A
//! published endpoint needs no further name in the certificate, and adding one would reissue it. An annotation records
//! which of the two it is. It is written together with the endpoint, because later nothing else distinguishes them,
//! such as when the TenantControlPlane was created again at another address.

use std::net::IpAddr;

use kamaji_api::{
    controlplane::{Endpoint, KamajiControlPlane},
    labels::ours,
    tenantcontrolplane::TenantControlPlane,
};
use kube::ResourceExt;

use crate::{
    capi::cluster::Cluster,
    k8s::host_port::{HostPort, is_host, joined},
};

/// Who set an endpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    /// This controller did: the TenantControlPlane had this address.
    Published,
    /// This controller did, and the Cluster still has the one before.
    Moved,
    /// A user, or another provider.
    Preset,
}

impl Origin {
    /// Value of the annotation.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Published => "published",
            Self::Moved => "moved",
            Self::Preset => "preset",
        }
    }

    fn recorded(control_plane: &KamajiControlPlane) -> Option<Self> {
        let text = control_plane.annotations().get(ours::ENDPOINT_ORIGIN)?;
        [Self::Published, Self::Moved, Self::Preset]
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
    /// What the user can do about a Cluster that still has the endpoint before, for people.
    pub moved: Option<String>,
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
    let recorded = Origin::recorded(control_plane);
    let of_cluster = cluster.endpoint();
    // After a move the Cluster has the one before.
    let current = own.filter(|_| recorded == Some(Origin::Moved));
    let Some(endpoint) = current.or(of_cluster).or(own) else {
        return reported.map(|endpoint| Choice {
            endpoint,
            origin: Origin::Published,
            write: true,
            drift: None,
            moved: None,
        });
    };
    if let Some(own) = own.filter(|own| *own != endpoint) {
        return Some(Choice {
            endpoint: endpoint.clone(),
            origin: Origin::Preset,
            write: false,
            drift: Some(format!(
                "spec.controlPlaneEndpoint is {} and the Cluster uses {}; set it to the Cluster's: an endpoint moves only by \
                 the annotation {}",
                text(own),
                text(endpoint),
                ours::MOVE_ENDPOINT
            )),
            moved: None,
        });
    }
    let is_own = matches!(recorded, Some(Origin::Published | Origin::Moved)) && own.is_some();
    if let Some(to) = reported.clone().filter(|to| is_own && permits(control_plane, to)) {
        return Some(moved_to(control_plane, cluster, to, recorded));
    }
    let is_unrecorded =
        recorded.is_none() || !control_plane.annotations().contains_key(ours::PUBLISHED_SERVICE);
    let origin = recorded.unwrap_or_else(|| guess(control_plane, tenant, endpoint));
    let drift = reported
        .as_ref()
        .filter(|reported| own.is_some() && origin != Origin::Preset && *reported != endpoint)
        .map(|reported| {
            let (endpoint, reported, key) = (text(endpoint), text(reported), ours::MOVE_ENDPOINT);
            format!(
                "spec.controlPlaneEndpoint is {endpoint} and the TenantControlPlane has the address {reported} now; give it \
                 the old address back, or set the annotation {key} to {reported} to follow it: Cluster API does not follow a \
                 change"
            )
        });
    if origin == Origin::Moved {
        return Some(Choice {
            drift,
            ..moved_to(control_plane, cluster, endpoint.clone(), recorded)
        });
    }
    Some(Choice {
        endpoint: endpoint.clone(),
        origin,
        // An endpoint that is there before the tenant was set by a user, which is recorded at once. One of the Go provider
        // is recorded when the tenant reports its address, as is the Service that has it.
        write: own.is_none()
            || (is_unrecorded && reported.is_some())
            || (recorded.is_none() && tenant.is_none()),
        drift,
        moved: None,
    })
}

/// The annotation permits a move to this endpoint.
fn permits(control_plane: &KamajiControlPlane, endpoint: &Endpoint) -> bool {
    let text = control_plane.annotations().get(ours::MOVE_ENDPOINT);
    text.and_then(|text| parse(text.trim())).as_ref() == Some(endpoint)
}

/// The endpoint after a move. It counts as moved until the Cluster has it too.
fn moved_to(
    control_plane: &KamajiControlPlane,
    cluster: &Cluster,
    endpoint: Endpoint,
    recorded: Option<Origin>,
) -> Choice {
    let left = cluster.endpoint().filter(|left| **left != endpoint);
    let moved = left.map(|left| {
        let (name, namespace) = (cluster.name_any(), cluster.namespace().unwrap_or_default());
        let still = format!(
            "Cluster {name} still has {}, which Cluster API does not change; machines that join get {} all the same; let the \
             Cluster show it",
            text(left),
            text(&endpoint)
        );
        // People paste the command into a shell.
        if !is_host(&endpoint.host) {
            return still;
        }
        format!(
            "{still} with: kubectl patch cluster {name} -n {namespace} --type merge -p \
             '{{\"spec\":{{\"controlPlaneEndpoint\":{{\"host\":\"{}\",\"port\":{}}}}}}}'",
            endpoint.host, endpoint.port
        )
    });
    let origin = match left {
        Some(_) => Origin::Moved,
        None => Origin::Published,
    };
    let own = control_plane.spec.control_plane_endpoint.as_ref();
    Choice {
        write: own != Some(&endpoint) || recorded != Some(origin),
        endpoint,
        origin,
        drift: None,
        moved,
    }
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

/// The endpoint for nodes where it differs from that of the Cluster: while `network.advertiseAddress` is set, and after a
/// move. The engine reports the one that every pod serves, which is that of the Service until they serve the advertised
/// address; upstream Kamaji reports none.
pub fn for_workers(
    control_plane: &KamajiControlPlane,
    tenant: Option<&TenantControlPlane>,
    choice: Option<&Choice>,
) -> Option<Endpoint> {
    let moved = || {
        let moved = choice.filter(|choice| choice.origin == Origin::Moved)?;
        Some(moved.endpoint.clone())
    };
    let advertised = control_plane.spec.network.advertise_address.clone();
    let Some(host) = advertised.filter(|host| !host.is_empty()) else {
        return moved();
    };
    let reported = reported(tenant?);
    match &tenant?.status.as_ref()?.worker_endpoint {
        Some(text) => {
            let served = parse(text)?;
            let is_advertised = is_same(&served.host, &host);
            if reported.as_ref() == Some(&served) && !is_advertised {
                return moved();
            }
            Some(served)
        }
        None => Some(Endpoint {
            host,
            port: reported?.port,
        }),
    }
}

/// The same name or address, however it is written.
fn is_same(one: &str, other: &str) -> bool {
    let address = |text: &str| text.parse::<IpAddr>().ok();
    one == other || address(one).is_some_and(|one| Some(one) == address(other))
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
    joined(&endpoint.host, endpoint.port)
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

    /// A tenant at an address that nodes use too.
    fn tenant_served(text: &str) -> TenantControlPlane {
        let mut tenant = tenant_at(text);
        tenant.status.get_or_insert_default().worker_endpoint = Some(text.into());
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
                 192.0.2.9:6443 now; give it the old address back, or set the annotation capi-kamaji.io/move-endpoint to \
                 192.0.2.9:6443 to follow it: Cluster API does not follow a change"
            )
        );
    }

    #[test]
    fn hosting_beyond_09_the_endpoint_follows_the_tenant_where_the_annotation_says_so() {
        let mut own = example::control_plane();
        own.spec.control_plane_endpoint = Some(at("192.0.2.1", 6443));
        record(&mut own, Origin::Published);
        let mut cluster = example::cluster();
        cluster.spec.control_plane_endpoint = Some(at("192.0.2.1", 6443));
        let tenant = tenant_at("192.0.2.9:7443");
        permit(&mut own, "192.0.2.9:6443");
        let refused = choose(&own, &cluster, Some(&tenant)).unwrap();
        assert_eq!(refused.endpoint, at("192.0.2.1", 6443));
        assert!(refused.drift.is_some(), "another one is permitted");
        permit(&mut own, "192.0.2.9:7443");
        let moved = choose(&own, &cluster, Some(&tenant)).unwrap();
        assert_eq!(moved.endpoint, at("192.0.2.9", 7443));
        assert_eq!(
            (moved.origin, moved.write, &moved.drift),
            (Origin::Moved, true, &None)
        );
        own.spec.control_plane_endpoint = Some(moved.endpoint.clone());
        record(&mut own, Origin::Moved);
        let settled = choose(&own, &cluster, Some(&tenant)).unwrap();
        assert_eq!((&settled.endpoint, settled.write), (&moved.endpoint, false));
        assert_eq!(
            settled.moved.as_deref(),
            Some(
                "Cluster alpha still has 192.0.2.1:6443, which Cluster API does not change; machines that join get \
                 192.0.2.9:7443 all the same; let the Cluster show it with: kubectl patch cluster alpha -n demo --type merge \
                 -p '{\"spec\":{\"controlPlaneEndpoint\":{\"host\":\"192.0.2.9\",\"port\":7443}}}'"
            )
        );
        assert_eq!(
            for_workers(&own, Some(&tenant), Some(&settled)),
            Some(moved.endpoint.clone())
        );
        // The annotation that was left behind permits nothing else, and without the tenant nothing changes.
        let again = choose(&own, &cluster, Some(&tenant_at("192.0.2.1:6443"))).unwrap();
        assert_eq!(again.endpoint, moved.endpoint);
        assert!(again.drift.is_some());
        assert_eq!(choose(&own, &cluster, None), Some(settled));
        cluster.spec.control_plane_endpoint = Some(moved.endpoint.clone());
        let shown = choose(&own, &cluster, Some(&tenant)).unwrap();
        assert_eq!(
            (shown.origin, shown.write, shown.moved),
            (Origin::Published, true, None)
        );
        record(&mut own, Origin::Published);
        let shown = choose(&own, &cluster, Some(&tenant)).unwrap();
        assert_eq!((shown.origin, shown.write), (Origin::Published, false));
    }

    fn permit(control_plane: &mut KamajiControlPlane, endpoint: &str) {
        let annotations = control_plane.metadata.annotations.get_or_insert_default();
        annotations.insert(ours::MOVE_ENDPOINT.into(), endpoint.into());
    }

    #[test]
    fn nodes_get_the_advertised_address_once_every_pod_serves_it() {
        let mut own = example::control_plane();
        let mut tenant = tenant_at("192.0.2.1:6443");
        assert_eq!(for_workers(&own, Some(&tenant), None), None);
        own.spec.settings.network.advertise_address = Some("198.51.100.1".into());
        assert_eq!(
            for_workers(&own, Some(&tenant), None),
            Some(at("198.51.100.1", 6443)),
            "upstream Kamaji reports none"
        );
        let mut served = |text: &str, choice: Option<&Choice>| {
            tenant.status.get_or_insert_default().worker_endpoint = Some(text.into());
            for_workers(&own, Some(&tenant), choice)
        };
        // The address of the Service may lead nowhere from a node.
        let mut choice = Choice {
            endpoint: at("api.example.org", 443),
            origin: Origin::Preset,
            write: false,
            drift: None,
            moved: None,
        };
        assert_eq!(served("192.0.2.1:6443", Some(&choice)), None, "not served yet");
        choice.origin = Origin::Moved;
        assert_eq!(
            served("192.0.2.1:6443", Some(&choice)),
            Some(choice.endpoint.clone())
        );
        assert_eq!(
            served("198.51.100.1:6443", Some(&choice)),
            Some(at("198.51.100.1", 6443))
        );
        assert_eq!(
            served("198.51.100.9:6443", Some(&choice)),
            Some(at("198.51.100.9", 6443)),
            "the one before is served until every pod serves the new one"
        );
        own.spec.settings.network.advertise_address = Some("192.0.2.1".into());
        assert_eq!(
            for_workers(&own, Some(&tenant_served("192.0.2.1:6443")), Some(&choice)),
            Some(at("192.0.2.1", 6443)),
            "it is the address of the Service"
        );
        tenant.status = None;
        assert_eq!(for_workers(&own, Some(&tenant), None), None);
    }

    #[test]
    fn a_host_that_a_shell_would_run_gets_no_command() {
        let mut cluster = example::cluster();
        cluster.spec.control_plane_endpoint = Some(at("192.0.2.1", 6443));
        for (host, is_shown) in [("lb.example.org", true), ("fd00::1", true), ("x'$(id)'", false)] {
            let choice = moved_to(&example::control_plane(), &cluster, at(host, 6443), None);
            let reported = choice.moved.unwrap();
            assert_eq!(reported.contains("kubectl"), is_shown, "{reported}");
        }
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
