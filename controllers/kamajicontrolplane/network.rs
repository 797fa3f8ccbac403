//! Addresses, ranges and what stands in front of the API server, out of a KamajiControlPlane and its Cluster. Pure.

use kamaji_api::{
    controlplane::{ControlPlaneSettings, Endpoint, NetworkSettings},
    gateway::ParentReference,
    metadata::AdditionalMetadata,
    tenantcontrolplane::{GatewaySpec, IngressSpec, NetworkProfile, ServiceSpec},
};

use super::endpoint::{Choice, Origin};
use crate::capi::cluster::ClusterNetwork;

/// The Service.
pub fn service(network: &NetworkSettings) -> ServiceSpec {
    ServiceSpec {
        service_type: network.service_type,
        additional_metadata: AdditionalMetadata {
            labels: network.service_labels.clone(),
            annotations: network.service_annotations.clone(),
        },
        additional_ports: network.additional_service_ports.clone(),
        allocate_load_balancer_node_ports: None,
    }
}

/// The Ingress, where one is asked for.
pub fn ingress(network: &NetworkSettings) -> Option<IngressSpec> {
    let ingress = network.ingress.as_ref()?;
    Some(IngressSpec {
        additional_metadata: AdditionalMetadata {
            labels: ingress.extra_labels.clone(),
            annotations: ingress.extra_annotations.clone(),
        },
        ingress_class_name: ingress.class_name.clone(),
        hostname: Some(ingress.hostname.clone()),
    })
}

/// The route behind a Gateway, where one is asked for.
pub fn gateway(network: &NetworkSettings) -> Option<GatewaySpec> {
    let gateway = network.gateway.as_ref()?;
    Some(GatewaySpec {
        additional_metadata: AdditionalMetadata {
            labels: gateway.extra_labels.clone(),
            annotations: gateway.extra_annotations.clone(),
        },
        hostname: Some(host_of(&gateway.hostname).to_owned()),
        parent_refs: vec![ParentReference {
            group: "gateway.networking.k8s.io".to_owned(),
            kind: "Gateway".to_owned(),
            name: gateway.name.clone(),
            namespace: Some(gateway.namespace.clone()),
            section_name: gateway.section_name.clone(),
            port: gateway.port,
        }],
    })
}

/// `host` or `host:port` without the port.
fn host_of(text: &str) -> &str {
    text.rsplit_once(':').map_or(text, |(host, _)| host)
}

/// The network of the TenantControlPlane.
pub fn profile(
    settings: &ControlPlaneSettings,
    asked: &ClusterNetwork,
    endpoint: Option<&Choice>,
) -> NetworkProfile {
    let network = &settings.network;
    let defaults = NetworkProfile::default();
    let given = |text: &Option<String>| text.clone().filter(|text| !text.is_empty());
    let (service_cidr, service_cidrs) = ranges(&asked.services.cidr_blocks, defaults.service_cidr);
    let (pod_cidr, pod_cidrs) = ranges(&asked.pods.cidr_blocks, defaults.pod_cidr);
    let dns = settings.addons.core_dns.as_ref().map(|dns| &dns.dns_service_ips);
    let balancer = network.load_balancer_config.as_ref();
    NetworkProfile {
        address: given(&network.service_address),
        advertise_address: given(&network.advertise_address),
        port: port(asked, endpoint.map(|choice| &choice.endpoint)).unwrap_or(defaults.port),
        cluster_domain: Some(asked.service_domain.clone())
            .filter(|domain| !domain.is_empty())
            .unwrap_or(defaults.cluster_domain),
        cert_sans: cert_sans(network, endpoint),
        service_cidr,
        pod_cidr,
        service_cidrs,
        pod_cidrs,
        dns_service_ips: match dns {
            Some(dns) if network.dns_service_ips.is_empty() => dns.clone(),
            _ => network.dns_service_ips.clone(),
        },
        allow_address_as_external_ip: false,
        load_balancer_class: balancer.and_then(|lb| lb.load_balancer_class.clone()),
        load_balancer_source_ranges: balancer
            .map(|lb| lb.load_balancer_source_ranges.clone())
            .unwrap_or_default(),
    }
}

/// The port that the Cluster asks for, else that of its endpoint.
fn port(asked: &ClusterNetwork, endpoint: Option<&Endpoint>) -> Option<i32> {
    Some(asked.api_server_port)
        .filter(|port| *port != 0)
        .or_else(|| endpoint.map(|endpoint| endpoint.port))
}

/// One range goes into the field that existing tenants have it in; two need the list.
fn ranges(blocks: &[String], default: String) -> (String, Vec<String>) {
    match blocks {
        [] => (default, Vec::new()),
        [one] => (one.clone(), Vec::new()),
        [first, ..] => (first.clone(), blocks.to_vec()),
    }
}

/// The user's names, those of what stands in front, and a preset endpoint; each once.
fn cert_sans(network: &NetworkSettings, endpoint: Option<&Choice>) -> Vec<String> {
    let mut names = network.cert_sans.clone();
    let more = [
        network.gateway.as_ref().map(|gateway| host_of(&gateway.hostname)),
        network.ingress.as_ref().map(|ingress| host_of(&ingress.hostname)),
        endpoint
            .filter(|choice| choice.origin == Origin::Preset)
            .map(|choice| choice.endpoint.host.as_str())
            // The engine names this one by itself.
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
    use serde_json::json;

    use super::*;
    use crate::kamajicontrolplane::example;

    #[test]
    fn ranges_port_and_domain_come_from_the_cluster() {
        let mut cluster = example::cluster();
        cluster.spec.cluster_network = serde_json::from_value(json!({
            "apiServerPort": 40000, "serviceDomain": "c.example",
            "services": {"cidrBlocks": ["10.1.0.0/16", "fd00:1::/112"]}, "pods": {"cidrBlocks": ["10.2.0.0/16"]}
        }))
        .unwrap();
        let settings = example::control_plane().spec.settings;
        let profile = profile(&settings, &cluster.spec.cluster_network, None);
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
    fn a_preset_endpoint_is_named_by_the_certificate_unless_the_engine_names_it_anyway() {
        let mut network = NetworkSettings::default();
        let choice = |origin| Choice {
            endpoint: Endpoint {
                host: "192.0.2.1".into(),
                port: 443,
            },
            origin,
            write: false,
            drift: None,
        };
        assert_eq!(cert_sans(&network, Some(&choice(Origin::Preset))), ["192.0.2.1"]);
        assert!(cert_sans(&network, Some(&choice(Origin::Published))).is_empty());
        network.service_address = Some("192.0.2.1".into());
        assert!(cert_sans(&network, Some(&choice(Origin::Preset))).is_empty());
    }
}
