//! What has to be there before a machine gets its data, in the order of the contract (contract.md 3.3), and where the
//! node finds its API server. Pure.

use std::net::IpAddr;

use ipnet::IpNet;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use kamaji_api::{
    bootstrap::{ClientApproval, KamajiConfig, KamajiConfigSpec, NameSource},
    conditions::Reason,
    controlplane::{Endpoint, KamajiControlPlane},
    labels::capi,
};
use kube::ResourceExt as _;
use semver::Version;

use super::{
    approval::csr,
    bootstrapdata::inputs::{self, Target},
    validate::Problem,
};
use crate::capi::{cluster::Cluster, machine::Machine, owner};

/// Service range of a tenant whose Cluster names none.
const DEFAULT_SERVICES: &str = "10.96.0.0/16";
/// Domain of a tenant whose Cluster names none.
const DEFAULT_DOMAIN: &str = "cluster.local";

/// Why there is no data yet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Gate {
    /// Reason of `DataSecretAvailable`.
    pub reason: Reason,
    /// What is missing and who supplies it.
    pub message: String,
}

impl Gate {
    /// A gate that is closed.
    pub fn closed(reason: Reason, message: impl Into<String>) -> Self {
        Self {
            reason,
            message: message.into(),
        }
    }
}

/// The Machine that owns the config.
///
/// # Errors
/// When another kind owns it, or nobody does yet.
pub fn machine_owner(config: &KamajiConfig) -> Result<&OwnerReference, Gate> {
    if let Some(machine) = owner::of_kind(config, "Machine") {
        return Ok(machine);
    }
    if let Some(pool) = owner::of_kind(config, "MachinePool") {
        return Err(Gate::closed(
            Reason::OwnerNotSupported,
            format!(
                "MachinePool {} owns it: MachinePools are not supported yet, use a MachineDeployment",
                pool.name
            ),
        ));
    }
    Err(Gate::closed(
        Reason::WaitingForOwner,
        "waiting for Cluster API to set a Machine as owner",
    ))
}

/// The Machine can use a config of this kind.
///
/// # Errors
/// When it is a control plane's.
pub fn worker(machine: &Machine) -> Result<(), Gate> {
    if machine.labels().contains_key(capi::CONTROL_PLANE) {
        return Err(Gate::closed(
            Reason::ControlPlaneMachineNotSupported,
            format!(
                "Machine {} has the label {} of control planes: they run as pods of a KamajiControlPlane, use \
                 KamajiConfig for workers alone",
                machine.name_any(),
                capi::CONTROL_PLANE
            ),
        ));
    }
    Ok(())
}

/// Nobody but us approves yet: another approver would need us to learn the node's name from somewhere else, and the
/// automatic one would approve any name for every machine of the tenant.
pub fn approver(spec: &KamajiConfigSpec) -> Option<Problem> {
    let given = match spec.csr_approval.client {
        ClientApproval::Bound => return None,
        ClientApproval::ControllerManager => "ControllerManager",
        ClientApproval::External => "External",
    };
    Some(Problem {
        reason: Reason::FieldNotSupported,
        message: format!("spec.csrApproval.client={given} is not supported yet: use Bound, or leave it out"),
    })
}

/// The request for the node's certificate would not be denied for its name alone.
///
/// # Errors
/// When the Machine's name is one that no node can have. `hosts` are those of the API server.
pub fn node_name(spec: &KamajiConfigSpec, machine: &str, hosts: &[String]) -> Result<(), Gate> {
    if inputs::name_source(spec) != NameSource::MachineName {
        return Ok(());
    }
    let why = if hosts.iter().any(|host| host == machine) {
        "that is the API server's name"
    } else if csr::can_be_node(machine) {
        return Ok(());
    } else {
        "no node can have that name"
    };
    Err(Gate::closed(
        Reason::NodeNameInvalid,
        format!(
            "Machine {machine} gives the node its name, and {why}: delete the Machine and name the next one otherwise \
             (machineNaming of its MachineDeployment), or set nodeRegistration.nameSource: Hostname"
        ),
    ))
}

/// Gates 3 and 4: the Cluster is provisioned and its control plane initialized.
///
/// # Errors
/// What is awaited.
pub fn cluster<'a>(name: &str, cluster: Option<&'a Cluster>) -> Result<&'a Cluster, Gate> {
    let Some(cluster) = cluster else {
        return Err(Gate::closed(
            Reason::WaitingForCluster,
            format!("Cluster {name} does not exist"),
        ));
    };
    if !cluster.infrastructure_provisioned() {
        return Err(Gate::closed(
            Reason::WaitingForInfrastructure,
            format!("waiting for the infrastructure of Cluster {name} to be provisioned"),
        ));
    }
    if !cluster.control_plane_initialized() {
        return Err(Gate::closed(
            Reason::WaitingForControlPlaneInitialized,
            format!("waiting for the control plane of Cluster {name} to be initialized"),
        ));
    }
    Ok(cluster)
}

/// The Machine's version.
///
/// # Errors
/// When it is missing or malformed.
pub fn version(machine: &Machine) -> Result<Version, Gate> {
    let text = machine.spec.version.as_str();
    if text.is_empty() {
        return Err(Gate::closed(
            Reason::WaitingForVersion,
            format!(
                "Machine {} has no spec.version: set it in the MachineDeployment",
                machine.name_any()
            ),
        ));
    }
    Version::parse(text.trim_start_matches('v')).map_err(|_| {
        Gate::closed(
            Reason::InvalidVersion,
            format!(
                "spec.version {text:?} of Machine {} is not a semantic version; write it like v1.36.3",
                machine.name_any()
            ),
        )
    })
}

/// Gate 6, and the facts of the network: the endpoint of the config, else the control plane's for workers, else the
/// Cluster's (DESIGN 6).
///
/// # Errors
/// When there is no valid endpoint.
pub fn target(
    config: &KamajiConfig,
    cluster: &Cluster,
    control_plane: Option<&KamajiControlPlane>,
    authority_pem: String,
) -> Result<Target, Gate> {
    let (host, port) = endpoint(config, cluster, control_plane)?;
    let tls_server_name = config.spec.control_plane.tls_server_name.clone();
    if tls_server_name
        .as_deref()
        .is_some_and(|name| !csr::is_dns_name(name))
    {
        return Err(Gate::closed(
            Reason::InvalidSpec,
            "controlPlane.tlsServerName is not a DNS name; set one of the names in the API server's certificate",
        ));
    }
    let network = &cluster.spec.cluster_network;
    let domain = network.service_domain.as_str();
    Ok(Target {
        host,
        port,
        tls_server_name,
        authority_pem,
        cluster_dns: cluster_dns(cluster, control_plane),
        cluster_domain: if domain.is_empty() { DEFAULT_DOMAIN } else { domain }.to_owned(),
    })
}

/// Where nodes find their API server.
fn endpoint(
    config: &KamajiConfig,
    cluster: &Cluster,
    control_plane: Option<&KamajiControlPlane>,
) -> Result<(String, u16), Gate> {
    if let Some(text) = config.spec.control_plane.endpoint.as_deref() {
        return split(text).ok_or_else(|| {
            Gate::closed(
                Reason::InvalidSpec,
                format!("controlPlane.endpoint {text:?} must be host:port, an IPv6 address in brackets"),
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
            Gate::closed(
                Reason::WaitingForEndpoint,
                format!(
                    "waiting for spec.controlPlaneEndpoint of Cluster {}",
                    cluster.name_any()
                ),
            )
        })
}

/// Names by which the API server is reached: what nodes are told, what its certificate is checked for, and the
/// Cluster's own. In lower case.
pub fn hosts(
    config: &KamajiConfig,
    cluster: Option<&Cluster>,
    control_plane: Option<&KamajiControlPlane>,
) -> Vec<String> {
    let none = Cluster::default();
    let told = endpoint(config, cluster.unwrap_or(&none), control_plane);
    let own = cluster.and_then(Cluster::endpoint).and_then(of_endpoint);
    let mut hosts: Vec<_> = told
        .ok()
        .into_iter()
        .chain(own)
        .map(|(host, _)| host)
        .chain(config.spec.control_plane.tls_server_name.clone())
        .map(|host| host.to_ascii_lowercase())
        .collect();
    hosts.dedup();
    hosts
}

fn of_endpoint(endpoint: &Endpoint) -> Option<(String, u16)> {
    let host = endpoint.host.trim_start_matches('[').trim_end_matches(']');
    is_host(host).then_some(())?;
    Some((host.to_owned(), endpoint.port.try_into().ok()?))
}

fn split(text: &str) -> Option<(String, u16)> {
    let (host, port) = text.rsplit_once(':')?;
    let bare = host.strip_prefix('[').and_then(|host| host.strip_suffix(']'));
    let host = match bare {
        Some(host) => host.parse::<std::net::Ipv6Addr>().ok().map(|_| host)?,
        None if host.contains(':') => return None,
        None => host,
    };
    is_host(host).then_some(())?;
    Some((host.to_owned(), port.parse().ok().filter(|port| *port > 0)?))
}

fn is_host(host: &str) -> bool {
    host.parse::<IpAddr>().is_ok() || csr::is_dns_name(&host.to_ascii_lowercase())
}

/// Those of the control plane, else the tenth address of each service range.
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
    ranges.iter().filter_map(|range| tenth(range)).collect()
}

fn tenth(range: &str) -> Option<String> {
    Some(match range.parse::<IpNet>().ok()?.network() {
        IpAddr::V4(base) => std::net::Ipv4Addr::from(u32::from(base).checked_add(10)?).to_string(),
        IpAddr::V6(base) => std::net::Ipv6Addr::from(u128::from(base).checked_add(10)?).to_string(),
    })
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn config(value: Value) -> KamajiConfig {
        KamajiConfig {
            spec: serde_json::from_value(value).unwrap(),
            ..KamajiConfig::default()
        }
    }

    fn ready() -> Cluster {
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
    fn contract_40_each_closed_gate_has_its_own_reason() {
        let mut seen = vec![cluster("c", None).unwrap_err().reason];
        let mut now = Cluster::default();
        seen.push(cluster("c", Some(&now)).unwrap_err().reason);
        now = ready();
        now.status
            .as_mut()
            .unwrap()
            .initialization
            .control_plane_initialized = false;
        seen.push(cluster("c", Some(&now)).unwrap_err().reason);
        now = ready();
        assert!(cluster("c", Some(&now)).is_ok());
        now.spec.control_plane_endpoint = None;
        seen.push(
            target(&KamajiConfig::default(), &now, None, String::new())
                .unwrap_err()
                .reason,
        );
        seen.push(machine_owner(&KamajiConfig::default()).unwrap_err().reason);
        seen.push(version(&Machine::default()).unwrap_err().reason);
        let unique: std::collections::BTreeSet<_> = seen.iter().collect();
        assert_eq!(unique.len(), seen.len());
    }

    #[test]
    fn contract_55_a_control_plane_machine_is_refused() {
        let mut machine = Machine::default();
        assert!(worker(&machine).is_ok());
        machine.metadata.labels = Some([(capi::CONTROL_PLANE.to_owned(), String::new())].into());
        assert_eq!(
            worker(&machine).unwrap_err().reason,
            Reason::ControlPlaneMachineNotSupported
        );
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
    fn another_approver_is_refused_by_name() {
        assert_eq!(approver(&KamajiConfig::default().spec), None);
        for client in ["ControllerManager", "External"] {
            let config = config(json!({"csrApproval": {"client": client}}));
            let problem = approver(&config.spec).unwrap();
            assert_eq!(problem.reason, Reason::FieldNotSupported);
            assert!(
                problem
                    .message
                    .contains(&format!("spec.csrApproval.client={client}"))
            );
        }
    }

    #[test]
    fn a_machine_whose_request_would_be_denied_for_its_name_gets_no_data() {
        let hosts = hosts(&KamajiConfig::default(), Some(&ready()), None);
        let of = |machine: &str| node_name(&KamajiConfigSpec::default(), machine, &hosts);
        assert_eq!(of("kubernetes-workers-1"), Ok(()));
        for name in ["kubernetes", "kubernetes.default", "localhost", "10.0.0.1"] {
            let gate = of(name).unwrap_err();
            assert_eq!(gate.reason, Reason::NodeNameInvalid);
            assert!(
                gate.message.contains(&format!("Machine {name} ")),
                "{}",
                gate.message
            );
        }
        let by_host = config(json!({"nodeRegistration": {"nameSource": "Hostname"}}));
        assert_eq!(node_name(&by_host.spec, "kubernetes", &hosts), Ok(()));
    }

    #[test]
    fn every_name_of_the_api_server_is_known() {
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
    fn cluster_dns_is_the_tenth_address_unless_the_control_plane_says_otherwise() {
        let mut control_plane = KamajiControlPlane::default();
        assert_eq!(
            cluster_dns(&ready(), Some(&control_plane)),
            ["10.120.0.10", "fd00:120::a"]
        );
        assert_eq!(cluster_dns(&Cluster::default(), None), ["10.96.0.10"]);
        control_plane.spec.network.dns_service_ips = vec!["10.1.2.3".to_owned()];
        assert_eq!(cluster_dns(&ready(), Some(&control_plane)), ["10.1.2.3"]);
    }
}
