//! Konnectivity of a tenant: names, ports, versions, and which settings fit together. Pure.
//!
//! The server is a container of the control plane's pods: kube-apiserver reaches it through a socket, agents in the
//! workload cluster through the Service. What pods mount is there before a Deployment names it, and goes once no pod of a
//! former template is left; so does the port of the Service.
//!
//! Names are those of upstream Kamaji. Facts about the server and its flags are from sigs.k8s.io/apiserver-network-proxy
//! 0.34.0 and 0.36.0.

use k8s_openapi::api::core::v1::ServicePort;
use kamaji_api::{
    addons::{Konnectivity, KonnectivityAgent, KonnectivityAgentMode},
    conditions::Reason,
    labels::ours,
    service::{Protocol, ServiceType},
    tenantcontrolplane::TenantControlPlane,
};

use super::component::{CONTROLLER_MANAGER, CONTROLLER_MANAGER_PORT, SCHEDULER, SCHEDULER_PORT};
use crate::k8s::{host_port::HostPort, problem::Problem, version};

/// The container, the port of the Service, and the volume with the server's files.
pub const SERVER: &str = "konnectivity-server";
/// Volume with the socket between kube-apiserver and the server.
pub const SOCKET_VOLUME: &str = "konnectivity-uds";
/// Folder of the socket.
pub const SOCKET_FOLDER: &str = "/run/konnectivity";
/// The socket.
pub const SOCKET: &str = "/run/konnectivity/konnectivity-server.socket";
/// Volume with the configuration of kube-apiserver's egress.
pub const EGRESS_VOLUME: &str = "egress-selector-configuration";
/// Key of the ConfigMap with that configuration.
pub const EGRESS_KEY: &str = "egress-selector-configuration.yaml";
/// Where kube-apiserver has the ConfigMap.
pub const EGRESS_FOLDER: &str = "/etc/kubernetes/konnectivity/configurations";
/// Path of the configuration in kube-apiserver.
pub const EGRESS_FILE: &str =
    "/etc/kubernetes/konnectivity/configurations/egress-selector-configuration.yaml";
/// Folder above [`EGRESS_FOLDER`].
const FOLDER: &str = "/etc/kubernetes/konnectivity";
/// Key of the Secret with the server's kubeconfig.
pub const KUBECONFIG_KEY: &str = "konnectivity-server.conf";
/// Value of the component label of the ConfigMap.
pub const EGRESS: &str = "konnectivity-egress-selector-configuration";
/// Value of the component label of the Secret with the kubeconfig.
pub const KUBECONFIG: &str = "konnectivity-kubeconfig";
/// Port of the server for metrics and profiles, on the loopback interface.
pub const ADMIN_PORT: i32 = 8133;
/// Port of the server for its probe.
pub const HEALTH_PORT: i32 = 8134;

/// Ports that the server accepts for its agents.
const PORTS: std::ops::RangeInclusive<i32> = 1024..=49151;
/// First minor version that counts servers by Lease with the flags that are used here.
const LEASES: u64 = 32;

/// The settings, while the add-on is on.
pub fn of(tenant: &TenantControlPlane) -> Option<&Konnectivity> {
    tenant.spec.addons.konnectivity.as_ref()
}

/// The status reports that agents are in the workload cluster.
pub fn is_installed(tenant: &TenantControlPlane) -> bool {
    let addons = tenant.status.as_ref().and_then(|status| status.addons.as_ref());
    let reported = addons.and_then(|addons| addons.konnectivity.as_ref());
    reported.is_some_and(|reported| reported.enabled)
}

/// Where nodes reach the servers: at the host of the API server as they reach it.
pub fn published(settings: &Konnectivity, api_server: &HostPort) -> HostPort {
    // `check` refuses what is no port.
    let port = u16::try_from(settings.server.port).unwrap_or_default();
    HostPort::new(&api_server.host, port)
}

/// The port of the Service that former pods serve agents at, where nothing in the spec is in its way by now.
pub fn kept_port(tenant: &TenantControlPlane, served: &[ServicePort]) -> Option<i32> {
    let found = served.iter().find(|port| port.name.as_deref() == Some(SERVER))?;
    let spec = &tenant.spec.control_plane.service;
    let taken = tenant.spec.network_profile.port == found.port
        || spec
            .additional_ports
            .iter()
            .any(|other| other.port == found.port || other.name == SERVER);
    let on_nodes = spec.service_type != ServiceType::NodePort || found.node_port == Some(found.port);
    (!taken && on_nodes).then_some(found.port)
}

/// Name of the ConfigMap with the configuration of kube-apiserver's egress.
pub fn egress_name(tenant: &str) -> String {
    format!("{tenant}-{EGRESS}")
}

/// Name of the Secret with the server's kubeconfig.
pub fn kubeconfig_name(tenant: &str) -> String {
    format!("{tenant}-{KUBECONFIG}")
}

/// Servers announce themselves by Leases and agents count these. It takes both: agents of an older version believe the
/// number that a server tells, and servers of an older version have no Lease.
pub fn counts_by_lease(settings: &Konnectivity, minor: u64) -> bool {
    [settings.server_tag(minor), settings.agent_tag(minor)]
        .iter()
        // A tag that names no version is taken for one of the tenant's minor version.
        .map(|tag| version::parse(tag).map_or(minor, |version| version.minor))
        .all(|minor| minor >= LEASES)
}

/// Checks the settings against the rest of the spec.
///
/// # Errors
/// The first field that does not fit, with the fix.
pub fn check(tenant: &TenantControlPlane) -> Result<(), Problem> {
    let Some(Konnectivity { server, agent }) = of(tenant) else {
        return Ok(());
    };
    ports(tenant, server.port)?;
    replicas(agent)?;
    names(tenant)
}

/// Checks the port against endpoints at which nodes may still use the API server.
///
/// # Errors
/// The endpoint that has the port, with the fix.
pub fn check_former<'a>(
    tenant: &TenantControlPlane,
    former: impl IntoIterator<Item = &'a HostPort>,
) -> Result<(), Problem> {
    let Some(port) = of(tenant).map(|settings| settings.server.port) else {
        return Ok(());
    };
    let mut former = former.into_iter();
    let Some(endpoint) = former.find(|endpoint| i32::from(endpoint.port) == port) else {
        return Ok(());
    };
    Err(conflict(format!(
        "{PORT}: {port} leads to the API server for nodes that use the former endpoint {endpoint}; set another, or take that \
         endpoint from the annotation {}",
        ours::FORMER_ENDPOINTS
    )))
}

const PORT: &str = "spec.addons.konnectivity.server.port";

fn conflict(message: String) -> Problem {
    Problem::on_change(Reason::PortConflict, message)
}

fn invalid(message: String) -> Problem {
    Problem::on_change(Reason::InvalidSpec, message)
}

fn ports(tenant: &TenantControlPlane, port: i32) -> Result<(), Problem> {
    if !PORTS.contains(&port) {
        return Err(invalid(format!(
            "{PORT}: {port} is not a port of the konnectivity server; set one from {} to {}",
            PORTS.start(),
            PORTS.end()
        )));
    }
    let api_server = tenant.spec.network_profile.port;
    if port == api_server {
        return Err(conflict(format!(
            "{PORT}: {port} is the port of the API server, spec.networkProfile.port; set another"
        )));
    }
    let in_pod = [
        (ADMIN_PORT, "the konnectivity server, for metrics"),
        (HEALTH_PORT, "the konnectivity server, for its probe"),
        (CONTROLLER_MANAGER_PORT, CONTROLLER_MANAGER),
        (SCHEDULER_PORT, SCHEDULER),
    ];
    for (taken, by) in in_pod {
        if port == taken {
            return Err(conflict(format!(
                "{PORT}: {port} is used in the same pod by {by}; set another"
            )));
        }
    }
    // Without konnectivity these two are free.
    for (taken, by) in &in_pod[..2] {
        if api_server == *taken {
            return Err(conflict(format!(
                "spec.networkProfile.port: {api_server} is used in the same pod by {by}; set another, or remove \
                 spec.addons.konnectivity"
            )));
        }
    }
    for (index, other) in tenant
        .spec
        .control_plane
        .service
        .additional_ports
        .iter()
        .enumerate()
    {
        let field = format!("spec.controlPlane.service.additionalPorts[{index}]");
        if other.port == port && matches!(other.protocol, Protocol::Tcp) {
            return Err(conflict(format!(
                "{PORT}: {port} is the port of {field} too; change one of them"
            )));
        }
        if other.name == SERVER {
            return Err(conflict(format!(
                "{field}.name: {SERVER} is the name of the port of konnectivity; choose another"
            )));
        }
    }
    Ok(())
}

fn replicas(agent: &KonnectivityAgent) -> Result<(), Problem> {
    const REPLICAS: &str = "spec.addons.konnectivity.agent.replicas";
    match (agent.mode, agent.replicas) {
        (KonnectivityAgentMode::DaemonSet, Some(count)) if count != 0 => Err(invalid(format!(
            "{REPLICAS}: {count} has no meaning with mode DaemonSet, which runs an agent on every node; remove it, or set \
             mode to Deployment"
        ))),
        (KonnectivityAgentMode::Deployment, Some(count)) if count < 1 => Err(invalid(format!(
            "{REPLICAS}: {count} leaves the control plane without a tunnel; set 1 or more, or remove it for 2"
        ))),
        (KonnectivityAgentMode::DaemonSet | KonnectivityAgentMode::Deployment, _) => Ok(()),
    }
}

/// What the user adds to the pods may not have the names or paths of what konnectivity adds.
fn names(tenant: &TenantControlPlane) -> Result<(), Problem> {
    const AT: &str = "spec.controlPlane.deployment";
    let deployment = &tenant.spec.control_plane.deployment;
    let containers = [
        ("additionalContainers", &deployment.additional_containers),
        ("additionalInitContainers", &deployment.additional_init_containers),
    ];
    for (field, list) in containers {
        for (index, container) in list.iter().enumerate() {
            if container.0["name"] == SERVER {
                return Err(invalid(format!(
                    "{AT}.{field}[{index}].name: {SERVER} is the name of a container of the engine; choose another, or \
                     remove it: spec.addons.konnectivity runs one"
                )));
            }
        }
    }
    for (index, volume) in deployment.additional_volumes.iter().enumerate() {
        let name = volume.0["name"].as_str().unwrap_or_default();
        if [SERVER, SOCKET_VOLUME, EGRESS_VOLUME].contains(&name) {
            return Err(invalid(format!(
                "{AT}.additionalVolumes[{index}].name: {name} is the name of a volume of konnectivity; choose another"
            )));
        }
    }
    for (index, mount) in deployment.additional_volume_mounts.api_server.iter().enumerate() {
        let path = mount.0["mountPath"].as_str().unwrap_or_default();
        let path = path.trim_end_matches('/');
        let within = |folder: &str| path == folder || path.starts_with(&format!("{folder}/"));
        if within(SOCKET_FOLDER) || within(FOLDER) {
            return Err(invalid(format!(
                "{AT}.additionalVolumeMounts.apiServer[{index}].mountPath: {path} is where konnectivity has its socket and \
                 its configuration; choose another folder"
            )));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use rstest::rstest;
    use serde_json::json;

    use super::*;
    use crate::hosting::testing::tenant as example;

    #[rstest]
    #[case(36, None, None, true)]
    #[case(31, None, None, false)]
    #[case(36, Some("v0.31.4"), None, false)]
    #[case(36, None, Some("v0.30.1"), false)]
    #[case(30, Some("v0.36.0"), Some("v0.36.0"), true)]
    #[case(36, Some("latest"), Some(""), true)]
    fn servers_are_counted_by_lease_where_both_versions_can(
        #[case] minor: u64,
        #[case] server: Option<&str>,
        #[case] agent: Option<&str>,
        #[case] expected: bool,
    ) {
        let mut settings = Konnectivity::default();
        settings.server.version = server.map(str::to_owned);
        settings.agent.version = agent.map(str::to_owned);
        assert_eq!(counts_by_lease(&settings, minor), expected);
    }

    #[rstest]
    #[case(json!({"addons": {"konnectivity": {"server": {"port": 443}}}}), Reason::InvalidSpec, PORT, "1024 to 49151")]
    #[case(
        json!({"addons": {"konnectivity": {"server": {"port": 6443}}}}),
        Reason::PortConflict, PORT, "spec.networkProfile.port"
    )]
    #[case(json!({"addons": {"konnectivity": {"server": {"port": 8134}}}}), Reason::PortConflict, PORT, "its probe")]
    #[case(
        json!({"addons": {"konnectivity": {"server": {"port": 10259}}}}),
        Reason::PortConflict, PORT, "kube-scheduler"
    )]
    #[case(
        json!({"addons": {"konnectivity": {}}, "networkProfile": {"port": 8133}}),
        Reason::PortConflict, "spec.networkProfile.port", "remove spec.addons.konnectivity"
    )]
    #[case(
        json!({"addons": {"konnectivity": {}}, "controlPlane": {"service": {"serviceType": "ClusterIP", "additionalPorts": [
            {"name": "a", "port": 8132, "targetPort": 1, "protocol": "UDP"},
            {"name": "b", "port": 8132, "targetPort": 2},
        ]}}}),
        Reason::PortConflict, PORT, "additionalPorts[1]"
    )]
    #[case(
        json!({"addons": {"konnectivity": {}}, "controlPlane": {"service": {"serviceType": "ClusterIP", "additionalPorts": [
            {"name": "konnectivity-server", "port": 1, "targetPort": 1},
        ]}}}),
        Reason::PortConflict, "spec.controlPlane.service.additionalPorts[0].name", "choose another"
    )]
    #[case(
        json!({"addons": {"konnectivity": {"agent": {"mode": "Deployment", "replicas": 0}}}}),
        Reason::InvalidSpec, "spec.addons.konnectivity.agent.replicas", "set 1 or more"
    )]
    #[case(
        json!({"addons": {"konnectivity": {"agent": {"mode": "DaemonSet", "replicas": 2}}}}),
        Reason::InvalidSpec, "spec.addons.konnectivity.agent.replicas", "mode to Deployment"
    )]
    #[case(
        json!({"addons": {"konnectivity": {}}, "controlPlane": {"deployment": {
            "additionalContainers": [{"name": "konnectivity-server", "image": "x"}],
        }}}),
        Reason::InvalidSpec, "spec.controlPlane.deployment.additionalContainers[0].name", "choose another"
    )]
    #[case(
        json!({"addons": {"konnectivity": {}}, "controlPlane": {"deployment": {
            "additionalVolumes": [{"name": "konnectivity-uds", "emptyDir": {}}],
        }}}),
        Reason::InvalidSpec, "spec.controlPlane.deployment.additionalVolumes[0].name", "choose another"
    )]
    #[case(
        json!({"addons": {"konnectivity": {}}, "controlPlane": {"deployment": {
            "additionalVolumeMounts": {"apiServer": [{"name": "a", "mountPath": "/run/konnectivity/"}]},
        }}}),
        Reason::InvalidSpec, "spec.controlPlane.deployment.additionalVolumeMounts.apiServer[0].mountPath", "choose another"
    )]
    fn hosting_peer_15_16_what_does_not_fit_names_its_field_and_the_fix(
        #[case] change: serde_json::Value,
        #[case] reason: Reason,
        #[case] field: &str,
        #[case] fix: &str,
    ) {
        let mut tenant = example::with(&change);
        let refused = check(&tenant).unwrap_err();
        assert_eq!(refused.reason, reason, "{}", refused.message);
        assert!(refused.message.starts_with(field), "{}", refused.message);
        assert!(refused.message.contains(fix), "{}", refused.message);
        tenant.spec.addons.konnectivity = None;
        assert!(check(&tenant).is_ok(), "without the add-on all of it is allowed");
    }

    #[test]
    fn a_port_at_which_nodes_may_still_use_the_api_server_is_refused() {
        let tenant = |port| example::with(&json!({"addons": {"konnectivity": {"server": {"port": port}}}}));
        let former = [HostPort::new("192.0.2.9", 6443), HostPort::new("192.0.2.9", 8443)];
        assert!(check_former(&tenant(8132), &former).is_ok());
        let refused = check_former(&tenant(8443), &former).unwrap_err();
        assert_eq!(refused.reason, Reason::PortConflict);
        assert!(refused.message.contains("192.0.2.9:8443"), "{}", refused.message);
        assert!(check_former(&example::tenant(), &former).is_ok(), "it is off");
    }

    #[test]
    fn the_port_of_former_pods_stays_unless_the_spec_needs_it() {
        let served = |node_port| {
            let port = |name: &str, port| ServicePort {
                name: Some(name.to_owned()),
                port,
                node_port,
                ..ServicePort::default()
            };
            [port("kube-apiserver", 6443), port(SERVER, 8132)]
        };
        let service = |kind: &str, ports: serde_json::Value| {
            example::with(
                &json!({"controlPlane": {"service": {"serviceType": kind, "additionalPorts": ports}}}),
            )
        };
        let cluster = service("ClusterIP", json!([]));
        assert_eq!(kept_port(&cluster, &served(None)), Some(8132));
        assert_eq!(kept_port(&cluster, &served(None)[..1]), None);
        let taken = service("ClusterIP", json!([{"name": "a", "port": 8132, "targetPort": 1}]));
        assert_eq!(kept_port(&taken, &served(None)), None);
        let node = service("NodePort", json!([]));
        assert_eq!(kept_port(&node, &served(None)), None, "8132 is no node port");
        assert_eq!(kept_port(&node, &served(Some(8132))), Some(8132));
    }

    #[test]
    fn the_defaults_fit() {
        let tenant = example::with(&json!({"addons": {"konnectivity": {}}}));
        assert!(check(&tenant).is_ok());
    }
}
