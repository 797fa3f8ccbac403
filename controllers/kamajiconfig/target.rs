//! Where a node finds its API server, and the network settings of its cluster. Pure.

use std::net::IpAddr;

use ipnet::IpNet;
use kamaji_api::{
    bootstrap::KamajiConfig,
    conditions::Reason,
    controlplane::{Endpoint, KamajiControlPlane},
};
use kube::ResourceExt as _;

use super::bootstrapdata::inputs::Target;
use crate::{
    capi::cluster::Cluster,
    k8s::{
        host_port::{HostPort, nth_address, without_brackets},
        names::{is_dns_name, is_dns_name_of_any_case},
        problem::Problem,
    },
};

/// Service network of a workload cluster whose Cluster names none.
const DEFAULT_SERVICES: &str = "10.96.0.0/16";
/// DNS domain of a workload cluster whose Cluster names none.
const DEFAULT_DOMAIN: &str = "cluster.local";

/// The API server and the network settings. The endpoint is that of the config, else the control plane's for workers, else
/// the Cluster's.
///
/// # Errors
/// When there is no valid endpoint yet.
pub fn target(
    config: &KamajiConfig,
    cluster: &Cluster,
    control_plane: Option<&KamajiControlPlane>,
    ca_pem: String,
) -> Result<Target, Problem> {
    let (host, port) = endpoint(config, cluster, control_plane)?;
    let tls_server_name = config.spec.control_plane.tls_server_name.clone();
    if tls_server_name.as_deref().is_some_and(|name| !is_dns_name(name)) {
        return Err(Problem::on_change(
            Reason::InvalidSpec,
            "spec.controlPlane.tlsServerName is not a DNS name; set one of the names in the API server's certificate",
        ));
    }
    let network = &cluster.spec.cluster_network;
    let domain = network.service_domain.as_str();
    Ok(Target {
        host,
        port,
        tls_server_name,
        ca_pem,
        cluster_dns: cluster_dns(cluster, control_plane),
        cluster_domain: if domain.is_empty() { DEFAULT_DOMAIN } else { domain }.to_owned(),
    })
}

/// Host and port of the API server for nodes.
fn endpoint(
    config: &KamajiConfig,
    cluster: &Cluster,
    control_plane: Option<&KamajiControlPlane>,
) -> Result<(String, u16), Problem> {
    if let Some(text) = config.spec.control_plane.endpoint.as_deref() {
        return split(text).ok_or_else(|| {
            Problem::on_change(
                Reason::InvalidSpec,
                format!("spec.controlPlane.endpoint {text:?} is not valid; write host:port, with an IPv6 address in brackets"),
            )
        });
    }
    let worker = control_plane
        .and_then(|known| known.status.as_ref())
        .and_then(|status| status.worker_endpoint.as_ref())
        .filter(|endpoint| endpoint.is_valid());
    worker
        .or_else(|| cluster.endpoint())
        .and_then(of_endpoint)
        .ok_or_else(|| {
            Problem::on_change(
                Reason::WaitingForEndpoint,
                format!(
                    "waiting for spec.controlPlaneEndpoint of Cluster {}",
                    cluster.name_any()
                ),
            )
        })
}

/// Host names of the API server, in lower case: the endpoint for nodes, the name its certificate is checked for, and the
/// Cluster's endpoint.
pub fn hosts(
    config: &KamajiConfig,
    cluster: Option<&Cluster>,
    control_plane: Option<&KamajiControlPlane>,
) -> Vec<String> {
    let none = Cluster::default();
    let own = endpoint(config, cluster.unwrap_or(&none), control_plane);
    let published = cluster.and_then(Cluster::endpoint).and_then(of_endpoint);
    let mut hosts: Vec<_> = own
        .ok()
        .into_iter()
        .chain(published)
        .map(|(host, _)| host)
        .chain(config.spec.control_plane.tls_server_name.clone())
        .map(|host| host.to_ascii_lowercase())
        .collect();
    hosts.dedup();
    hosts
}

fn of_endpoint(endpoint: &Endpoint) -> Option<(String, u16)> {
    let host = without_brackets(&endpoint.host);
    is_host(host).then_some(())?;
    Some((host.to_owned(), endpoint.port.try_into().ok()?))
}

fn split(text: &str) -> Option<(String, u16)> {
    let HostPort { host, port } = HostPort::parse_strict(text)?;
    is_host(&host).then_some((host, port))
}

fn is_host(host: &str) -> bool {
    host.parse::<IpAddr>().is_ok() || is_dns_name_of_any_case(host)
}

/// Addresses of the DNS service: those of the control plane, else the tenth address of each service network.
fn cluster_dns(cluster: &Cluster, control_plane: Option<&KamajiControlPlane>) -> Vec<String> {
    let given = control_plane.map(|known| &known.spec.network.dns_service_ips);
    if let Some(given) = given.filter(|given| !given.is_empty()) {
        return given.clone();
    }
    let ranges = &cluster.spec.cluster_network.services.cidr_blocks;
    let default = [DEFAULT_SERVICES.to_owned()];
    let ranges = if ranges.is_empty() {
        &default[..]
    } else {
        ranges.as_slice()
    };
    ranges
        .iter()
        .filter_map(|range| nth_address(&range.parse::<IpNet>().ok()?, 10))
        .map(|address| address.to_string())
        .collect()
}

#[cfg(test)]
pub mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn config(value: Value) -> KamajiConfig {
        KamajiConfig {
            spec: serde_json::from_value(value).unwrap(),
            ..KamajiConfig::default()
        }
    }

    pub fn ready() -> Cluster {
        serde_json::from_value(json!({
            "apiVersion": "cluster.x-k8s.io/v1beta2", "kind": "Cluster",
            "metadata": {"name": "c", "namespace": "ns"},
            "spec": {
                "controlPlaneEndpoint": {"host": "10.0.0.1", "port": 6443},
                "clusterNetwork": {"services": {"cidrBlocks": ["10.120.0.0/16", "fd00:120::/112"]}}
            },
            "status": {"initialization": {"infrastructureProvisioned": true, "controlPlaneInitialized": true}}
        }))
        .unwrap()
    }

    #[test]
    fn nodes_use_the_configs_endpoint_then_the_workers_then_the_clusters() {
        let mut control_plane = KamajiControlPlane::default();
        let of = |config: &KamajiConfig, control_plane: &KamajiControlPlane| {
            let target = target(config, &ready(), Some(control_plane), String::new()).unwrap();
            (target.host, target.port)
        };
        assert_eq!(
            of(&config(json!({})), &control_plane),
            ("10.0.0.1".to_owned(), 6443)
        );
        control_plane.status.get_or_insert_default().worker_endpoint = Some(Endpoint {
            host: "192.0.2.9".to_owned(),
            port: 443,
        });
        assert_eq!(
            of(&config(json!({})), &control_plane),
            ("192.0.2.9".to_owned(), 443)
        );
        let own = config(json!({"controlPlane": {"endpoint": "[fd00::1]:6443"}}));
        assert_eq!(of(&own, &control_plane), ("fd00::1".to_owned(), 6443));
        for bad in ["host", "host:0", "fd00::1:6443", "a b:1", "[x]:1", ":1"] {
            let config = config(json!({"controlPlane": {"endpoint": bad}}));
            assert!(target(&config, &ready(), None, String::new()).is_err(), "{bad}");
        }
    }

    #[test]
    fn every_host_name_of_the_api_server_is_known() {
        let own = config(json!({"controlPlane": {
            "endpoint": "API.example.com:6443", "tlsServerName": "kubernetes.example.com",
        }}));
        assert_eq!(
            hosts(&own, Some(&ready()), None),
            ["api.example.com", "10.0.0.1", "kubernetes.example.com"]
        );
        assert_eq!(hosts(&KamajiConfig::default(), None, None), Vec::<String>::new());
    }

    #[test]
    fn hosting_beyond_07_cluster_dns_is_the_tenth_address_unless_the_control_plane_sets_others() {
        let mut control_plane = KamajiControlPlane::default();
        assert_eq!(
            cluster_dns(&ready(), Some(&control_plane)),
            ["10.120.0.10", "fd00:120::a"]
        );
        assert_eq!(cluster_dns(&Cluster::default(), None), ["10.96.0.10"]);
        let mut other = ready();
        for (ranges, expected) in [
            (&["fd00:96::/112"][..], &["fd00:96::a"][..]),
            (&["fd00:96::/112", "10.96.0.0/16"], &["fd00:96::a", "10.96.0.10"]),
        ] {
            let blocks = &mut other.spec.cluster_network.services.cidr_blocks;
            *blocks = ranges.iter().map(|range| (*range).to_owned()).collect();
            assert_eq!(cluster_dns(&other, Some(&control_plane)), expected);
        }
        control_plane.spec.network.dns_service_ips = vec!["10.1.2.3".to_owned()];
        assert_eq!(cluster_dns(&ready(), Some(&control_plane)), ["10.1.2.3"]);
    }
}
