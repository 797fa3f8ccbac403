//! The network of the TenantControlPlane, from a KamajiControlPlane and its Cluster: addresses, ranges, Service,
//! Ingress and Gateway. Pure. Structs of the API are destructured without `..`, so that a new field does not compile
//! before it is mapped here.

use kamaji_api::{
    controlplane::{
        AddonSettings, CoreDnsSettings, GatewaySettings, IngressSettings, LoadBalancerSettings,
        NetworkSettings,
    },
    gateway::ParentReference,
    metadata::AdditionalMetadata,
    tenantcontrolplane::{GatewaySpec, IngressSpec, NetworkProfile, ServiceSpec},
};

use super::{
    endpoint::{Choice, Origin},
    kept::Keeper,
};
use crate::{
    capi::cluster::{ClusterNetwork, NetworkRanges},
    k8s::host_port::host_of,
};

/// Everything of the TenantControlPlane that comes from `spec.network`.
pub struct Network {
    /// `spec.networkProfile`.
    pub profile: NetworkProfile,
    /// `spec.controlPlane.service`.
    pub service: ServiceSpec,
    /// `spec.controlPlane.ingress`.
    pub ingress: Option<IngressSpec>,
    /// `spec.controlPlane.gateway`.
    pub gateway: Option<GatewaySpec>,
}

/// Maps `spec.network`, the DNS addresses of `spec.addons`, and `spec.clusterNetwork` of the Cluster. What the provider
/// keeps wins.
pub fn network(
    settings: &NetworkSettings,
    addons: &AddonSettings,
    cluster: &ClusterNetwork,
    endpoint: Option<&Choice>,
    keeper: &Keeper,
) -> Network {
    let NetworkSettings {
        service_type,
        service_address,
        advertise_address,
        service_labels,
        service_annotations,
        additional_service_ports,
        load_balancer_config,
        cert_sans: _,
        dns_service_ips,
        ingress,
        gateway,
    } = settings;
    let ClusterNetwork {
        api_server_port,
        services,
        pods,
        service_domain,
    } = cluster;
    let LoadBalancerSettings {
        load_balancer_class,
        load_balancer_source_ranges,
    } = load_balancer_config.clone().unwrap_or_default();
    let given = |text: &Option<String>| text.clone().filter(|text| !text.is_empty());
    let defaults = NetworkProfile::default();
    let kept = match keeper {
        Keeper::Provider(kept) => Some(kept),
        Keeper::Nobody | Keeper::Engine(_) => None,
    };
    let (service_type, service_address) = match (kept, endpoint) {
        (Some(kept), Some(choice)) => kept.service(settings, choice),
        _ => (*service_type, given(service_address)),
    };
    let (service_cidr, service_cidrs) = ranges(services, defaults.service_cidr);
    let (pod_cidr, pod_cidrs) = ranges(pods, defaults.pod_cidr);
    let profile = NetworkProfile {
        address: service_address,
        advertise_address: given(advertise_address),
        port: port(*api_server_port, endpoint, keeper).unwrap_or(defaults.port),
        cluster_domain: Some(service_domain.clone())
            .filter(|domain| !domain.is_empty())
            .unwrap_or(defaults.cluster_domain),
        cert_sans: cert_sans(settings, endpoint),
        service_cidr,
        pod_cidr,
        service_cidrs,
        pod_cidrs,
        dns_service_ips: dns(dns_service_ips, addons.core_dns.as_ref()),
        // No field of a KamajiControlPlane sets it.
        allow_address_as_external_ip: false,
        load_balancer_class,
        load_balancer_source_ranges,
    };
    let service = ServiceSpec {
        service_type,
        additional_metadata: AdditionalMetadata {
            labels: service_labels.clone(),
            annotations: service_annotations.clone(),
        },
        additional_ports: additional_service_ports.clone(),
        // No field of a KamajiControlPlane sets it.
        allocate_load_balancer_node_ports: None,
    };
    Network {
        profile,
        service,
        ingress: ingress.as_ref().map(ingress_spec),
        gateway: gateway.as_ref().map(gateway_spec),
    }
}

fn ingress_spec(settings: &IngressSettings) -> IngressSpec {
    let IngressSettings {
        class_name,
        hostname,
        extra_labels,
        extra_annotations,
    } = settings;
    IngressSpec {
        additional_metadata: AdditionalMetadata {
            labels: extra_labels.clone(),
            annotations: extra_annotations.clone(),
        },
        ingress_class_name: class_name.clone(),
        hostname: Some(hostname.clone()),
    }
}

fn gateway_spec(settings: &GatewaySettings) -> GatewaySpec {
    let GatewaySettings {
        name,
        namespace,
        hostname,
        section_name,
        port,
        extra_labels,
        extra_annotations,
    } = settings;
    GatewaySpec {
        additional_metadata: AdditionalMetadata {
            labels: extra_labels.clone(),
            annotations: extra_annotations.clone(),
        },
        hostname: Some(host_of(hostname).to_owned()),
        parent_refs: vec![ParentReference {
            group: "gateway.networking.k8s.io".to_owned(),
            kind: "Gateway".to_owned(),
            name: name.clone(),
            namespace: Some(namespace.clone()),
            section_name: section_name.clone(),
            port: *port,
        }],
    }
}

/// The port of an endpoint that was published, else the one that the Cluster sets, else that of a preset endpoint. Where the
/// engine keeps the endpoint, the one that the Cluster sets comes first. A user leads a preset endpoint to the Service by
/// any port, so once the Service is published, it keeps its own.
fn port(api_server_port: i32, endpoint: Option<&Choice>, keeper: &Keeper) -> Option<i32> {
    let published = endpoint.filter(|choice| choice.origin != Origin::Preset);
    let published = published.map(|choice| choice.endpoint.port);
    let set = Some(api_server_port).filter(|port| *port != 0);
    match keeper {
        Keeper::Provider(kept) => Some(kept.port),
        Keeper::Engine(running) => set.or(published).or(Some(*running)),
        Keeper::Nobody => published
            .or(set)
            .or_else(|| endpoint.map(|choice| choice.endpoint.port)),
    }
}

/// The DNS addresses of `spec.network`, else those of the CoreDNS addon.
fn dns(network: &[String], core_dns: Option<&CoreDnsSettings>) -> Vec<String> {
    match core_dns {
        Some(core_dns) if network.is_empty() => core_dns.dns_service_ips.clone(),
        Some(_) | None => network.to_vec(),
    }
}

/// A single range goes into the field that Kamaji always had; two go into the list, with the first in the field too.
fn ranges(ranges: &NetworkRanges, default: String) -> (String, Vec<String>) {
    let NetworkRanges { cidr_blocks } = ranges;
    match cidr_blocks.as_slice() {
        [] => (default, Vec::new()),
        [one] => (one.clone(), Vec::new()),
        [first, ..] => (first.clone(), cidr_blocks.clone()),
    }
}

/// Names in the API server's certificate: those of the user, those of Gateway and Ingress, and a preset endpoint; each
/// once.
fn cert_sans(network: &NetworkSettings, endpoint: Option<&Choice>) -> Vec<String> {
    let mut names = network.cert_sans.clone();
    let more = [
        network.gateway.as_ref().map(|gateway| host_of(&gateway.hostname)),
        network.ingress.as_ref().map(|ingress| host_of(&ingress.hostname)),
        endpoint
            .filter(|choice| choice.origin == Origin::Preset)
            .map(|choice| choice.endpoint.host.as_str())
            // The engine adds this one itself.
            .filter(|host| network.service_address.as_deref() != Some(host)),
    ];
    for name in more.into_iter().flatten() {
        if !names.iter().any(|known| known == name) {
            names.push(name.to_owned());
        }
    }
    names
}

#[cfg(test)]
mod tests {
    use kamaji_api::controlplane::Endpoint;
    use serde_json::json;

    use super::*;
    use crate::kamajicontrolplane::example;

    #[test]
    fn ranges_port_and_domain_are_those_of_the_cluster() {
        let mut cluster = example::cluster();
        cluster.spec.cluster_network = serde_json::from_value(json!({
            "apiServerPort": 40000, "serviceDomain": "c.example",
            "services": {"cidrBlocks": ["10.1.0.0/16", "fd00:1::/112"]}, "pods": {"cidrBlocks": ["10.2.0.0/16"]}
        }))
        .unwrap();
        let settings = example::control_plane().spec.settings;
        let profile = network(
            &settings.network,
            &settings.addons,
            &cluster.spec.cluster_network,
            None,
            &Keeper::Nobody,
        )
        .profile;
        assert_eq!(
            (profile.port, profile.cluster_domain.as_str()),
            (40000, "c.example")
        );
        assert_eq!(profile.effective_service_cidrs(), ["10.1.0.0/16", "fd00:1::/112"]);
        assert_eq!(
            (profile.pod_cidr.as_str(), profile.pod_cidrs.len()),
            ("10.2.0.0/16", 0)
        );
    }

    #[test]
    fn a_port_of_the_cluster_moves_a_published_endpoint_only_through_the_engine() {
        let choice = |origin| Choice {
            endpoint: Endpoint {
                host: "api.example.org".into(),
                port: 443,
            },
            origin,
            write: false,
            drift: None,
            moved: None,
        };
        for (origin, keeper, set, expected) in [
            (Origin::Published, Keeper::Nobody, 7443, 443),
            (Origin::Published, Keeper::Engine(443), 7443, 7443),
            (Origin::Published, Keeper::Engine(6443), 0, 443),
            (Origin::Preset, Keeper::Engine(6443), 7443, 7443),
            // The endpoint that a user leads to the Service says nothing about the port of a Service that runs.
            (Origin::Preset, Keeper::Engine(6443), 0, 6443),
            (Origin::Preset, Keeper::Nobody, 0, 443),
        ] {
            assert_eq!(
                port(set, Some(&choice(origin)), &keeper),
                Some(expected),
                "{origin:?} {set}"
            );
        }
    }

    #[test]
    fn a_preset_endpoint_is_a_name_in_the_certificate_unless_the_engine_adds_it_itself() {
        let mut settings = NetworkSettings::default();
        let choice = |origin| Choice {
            endpoint: Endpoint {
                host: "192.0.2.1".into(),
                port: 443,
            },
            origin,
            write: false,
            drift: None,
            moved: None,
        };
        assert_eq!(cert_sans(&settings, Some(&choice(Origin::Preset))), ["192.0.2.1"]);
        assert!(cert_sans(&settings, Some(&choice(Origin::Published))).is_empty());
        settings.service_address = Some("192.0.2.1".into());
        assert!(cert_sans(&settings, Some(&choice(Origin::Preset))).is_empty());
    }
}
