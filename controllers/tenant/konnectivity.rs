//! Konnectivity in a tenant: the agents, and what the server may do. Pure.
//!
//! Agents need nothing of the workload cluster but the address that nodes join at: they ask the API server there, not
//! through the Service `kubernetes`, and resolve names with the resolver of their node. So they start without kube-proxy
//! and CoreDNS and, in the network of the node, without a network plugin.
//!
//! An agent that counts servers by Lease opens a connection only while it has fewer than there are Leases. `--sync-forever`,
//! which makes agents of 0.34 and later try a new one every second for good, whatever the count, is for versions that cannot.

use kamaji_api::{
    addons::{KonnectivityAgent, KonnectivityAgentMode, default_agent_tolerations},
    labels::kamaji,
};
use serde_json::{Value, json};

use super::addons::{Agents, Inputs, metadata, role_ref, service_account_subject, subject};
use crate::pki::spec::KONNECTIVITY_USER;

/// The agents' workload and ServiceAccount.
pub const ACCOUNT: &str = "konnectivity-agent";
/// Namespace of the agents, and of the Leases of servers.
pub const NAMESPACE: &str = "kube-system";
/// Binding that lets the server review tokens.
pub const BINDING: &str = "system:konnectivity-server";

const APP: (&str, &str) = ("k8s-app", ACCOUNT);
/// Role of the agents, which count Leases.
const AGENT_ROLE: &str = "system:konnectivity-agent";
const TOKEN_FOLDER: &str = "/var/run/secrets/tokens";
const TOKEN: &str = "konnectivity-agent-token";
const CA: &str = "/var/run/secrets/kubernetes.io/serviceaccount/ca.crt";
const ADMIN_PORT: u16 = 8133;
const HEALTH_PORT: u16 = 8134;
/// Replicas of a Deployment whose number the user leaves out.
const REPLICAS: i32 = 2;
/// User and group of the agents, as in their image.
const NOBODY: i64 = 65532;

/// Kind of the agents' workload.
pub const fn kind(mode: KonnectivityAgentMode) -> &'static str {
    match mode {
        KonnectivityAgentMode::DaemonSet => "DaemonSet",
        KonnectivityAgentMode::Deployment => "Deployment",
    }
}

/// The objects, the workload last.
pub fn objects(inputs: &Inputs<'_>, agents: &Agents<'_>) -> Vec<Value> {
    let mut all = permissions(inputs, agents.tenant);
    all.push(workload(inputs, agents));
    all
}

/// The workload of the kind that the agents have not, for its removal.
pub fn other_workload(inputs: &Inputs<'_>, mode: KonnectivityAgentMode) -> Value {
    let other = match mode {
        KonnectivityAgentMode::DaemonSet => KonnectivityAgentMode::Deployment,
        KonnectivityAgentMode::Deployment => KonnectivityAgentMode::DaemonSet,
    };
    named_workload(inputs, other)
}

/// All objects that there may be, for their removal.
pub fn removed(inputs: &Inputs<'_>) -> Vec<Value> {
    let mut all = permissions(inputs, "");
    all.push(named_workload(inputs, KonnectivityAgentMode::Deployment));
    all.push(named_workload(inputs, KonnectivityAgentMode::DaemonSet));
    all
}

fn named_workload(inputs: &Inputs<'_>, mode: KonnectivityAgentMode) -> Value {
    json!({
        "apiVersion": "apps/v1",
        "kind": kind(mode),
        "metadata": metadata(inputs, ACCOUNT, Some(NAMESPACE), &[]),
    })
}

/// ServiceAccount of the agents, and what they and the server may do.
fn permissions(inputs: &Inputs<'_>, tenant: &str) -> Vec<Value> {
    let meta = |name: &str, namespace: Option<&str>, component: &str| {
        let more = [(kamaji::NAME, tenant), (kamaji::COMPONENT, component)];
        metadata(inputs, name, namespace, &more)
    };
    let leases = |name: &str, verbs: &[&str]| {
        json!({
            "apiVersion": "rbac.authorization.k8s.io/v1",
            "kind": "Role",
            "metadata": meta(name, Some(NAMESPACE), "konnectivity-leases"),
            "rules": [{ "apiGroups": ["coordination.k8s.io"], "resources": ["leases"], "verbs": verbs }],
        })
    };
    let bound = |role: &str, who: Value| {
        json!({
            "apiVersion": "rbac.authorization.k8s.io/v1",
            "kind": "RoleBinding",
            "metadata": meta(role, Some(NAMESPACE), "konnectivity-leases"),
            "roleRef": role_ref("Role", role),
            "subjects": [who],
        })
    };
    vec![
        json!({
            "apiVersion": "v1",
            "kind": "ServiceAccount",
            "metadata": meta(ACCOUNT, Some(NAMESPACE), "konnectivity-sa"),
        }),
        json!({
            "apiVersion": "rbac.authorization.k8s.io/v1",
            "kind": "ClusterRoleBinding",
            "metadata": meta(BINDING, None, "konnectivity-clusterrolebinding"),
            "roleRef": role_ref("ClusterRole", "system:auth-delegator"),
            "subjects": [subject("User", KONNECTIVITY_USER)],
        }),
        leases(BINDING, &["create", "delete", "get", "list", "update"]),
        bound(BINDING, subject("User", KONNECTIVITY_USER)),
        leases(AGENT_ROLE, &["get", "list", "watch"]),
        bound(AGENT_ROLE, service_account_subject(ACCOUNT)),
    ]
}

fn workload(inputs: &Inputs<'_>, agents: &Agents<'_>) -> Value {
    let settings = agents.settings;
    let mut spec = json!({
        "selector": { "matchLabels": { APP.0: APP.1 } },
        "template": template(agents),
    });
    // In the network of the node a new agent cannot have its ports before the old one is gone.
    let (surge, unavailable) = if settings.host_network { (0, 1) } else { (1, 0) };
    let strategy = json!({
        "type": "RollingUpdate",
        "rollingUpdate": { "maxSurge": surge, "maxUnavailable": unavailable },
    });
    match settings.mode {
        KonnectivityAgentMode::DaemonSet => spec["updateStrategy"] = strategy,
        KonnectivityAgentMode::Deployment => {
            spec["strategy"] = strategy;
            spec["replicas"] = json!(settings.replicas.filter(|count| *count > 0).unwrap_or(REPLICAS));
        }
    }
    let labels = [APP, (kamaji::NAME, agents.tenant), (kamaji::COMPONENT, ACCOUNT)];
    json!({
        "apiVersion": "apps/v1",
        "kind": kind(settings.mode),
        "metadata": metadata(inputs, ACCOUNT, Some(NAMESPACE), &labels),
        "spec": spec,
    })
}

fn template(agents: &Agents<'_>) -> Value {
    let KonnectivityAgent {
        image,
        version: _,
        tolerations: _,
        extra_args: _,
        host_network,
        mode,
        replicas: _,
    } = agents.settings;
    let of_node = *mode == KonnectivityAgentMode::DaemonSet;
    let mut probe = json!({ "path": "/healthz", "port": HEALTH_PORT });
    let mut ready = json!({ "path": "/readyz", "port": HEALTH_PORT });
    if *host_network {
        probe["host"] = json!("127.0.0.1");
        ready["host"] = json!("127.0.0.1");
    }
    let from_field =
        |name: &str, path: &str| json!({ "name": name, "valueFrom": { "fieldRef": { "fieldPath": path } } });
    let mut env = vec![
        json!({ "name": "KUBERNETES_SERVICE_HOST", "value": agents.api_server.host }),
        json!({ "name": "KUBERNETES_SERVICE_PORT", "value": agents.api_server.port.to_string() }),
        from_field("PROXY_AGENT_ID", "metadata.name"),
    ];
    if of_node {
        env.push(from_field("NODE_NAME", "spec.nodeName"));
        env.push(from_field("NODE_IP", "status.hostIP"));
    }
    let mut pod = json!({
        "priorityClassName": if of_node { "system-node-critical" } else { "system-cluster-critical" },
        "serviceAccountName": ACCOUNT,
        // Its connections go on until then.
        "terminationGracePeriodSeconds": 10,
        "dnsPolicy": "Default",
        "nodeSelector": { "kubernetes.io/os": "linux" },
        "tolerations": tolerations(agents.settings),
        "securityContext": {
            "runAsNonRoot": true,
            "runAsUser": NOBODY,
            "runAsGroup": NOBODY,
            "fsGroup": NOBODY,
            "seccompProfile": { "type": "RuntimeDefault" },
        },
        "containers": [{
            "name": ACCOUNT,
            "image": format!("{image}:{}", agents.tag),
            "imagePullPolicy": "IfNotPresent",
            "command": ["/proxy-agent"],
            "args": arguments(agents),
            "env": env,
            "resources": { "requests": { "cpu": "10m", "memory": "32Mi" } },
            "ports": [{ "name": "healthport", "containerPort": HEALTH_PORT, "protocol": "TCP" }],
            // It serves its health once the API server answered.
            "startupProbe": { "httpGet": probe, "timeoutSeconds": 5, "periodSeconds": 3, "failureThreshold": 100 },
            "livenessProbe": { "httpGet": probe, "timeoutSeconds": 15, "periodSeconds": 10, "failureThreshold": 8 },
            // It is connected to a server.
            "readinessProbe": { "httpGet": ready, "timeoutSeconds": 5, "periodSeconds": 5, "failureThreshold": 3 },
            "securityContext": {
                "allowPrivilegeEscalation": false,
                "capabilities": { "drop": ["ALL"] },
                "readOnlyRootFilesystem": true,
            },
            "volumeMounts": [{ "name": TOKEN, "mountPath": TOKEN_FOLDER, "readOnly": true }],
        }],
        "volumes": [{
            "name": TOKEN,
            "projected": { "sources": [{ "serviceAccountToken": {
                "path": TOKEN,
                "audience": KONNECTIVITY_USER,
                "expirationSeconds": 3600,
            } }] },
        }],
    });
    if *host_network {
        pod["hostNetwork"] = json!(true);
    }
    if !of_node {
        pod["affinity"] = json!({ "podAntiAffinity": { "preferredDuringSchedulingIgnoredDuringExecution": [{
            "weight": 100,
            "podAffinityTerm": {
                "topologyKey": "kubernetes.io/hostname",
                "labelSelector": { "matchLabels": { APP.0: APP.1 } },
            },
        }] } });
    }
    json!({ "metadata": { "labels": { APP.0: APP.1 } }, "spec": pod })
}

/// Every node has an agent of a DaemonSet, whatever its taints: without one its logs are out of reach when they are needed.
/// Agents of a Deployment go to nodes that still wait to be initialized too, since that may need a webhook.
fn tolerations(settings: &KonnectivityAgent) -> Value {
    if settings.tolerations != default_agent_tolerations() {
        return json!(settings.tolerations);
    }
    match settings.mode {
        KonnectivityAgentMode::DaemonSet => json!([{ "operator": "Exists" }]),
        KonnectivityAgentMode::Deployment => {
            let fresh = |key: &str| json!({ "key": key, "operator": "Exists", "effect": "NoSchedule" });
            let mut all = vec![
                json!({ "key": "CriticalAddonsOnly", "operator": "Exists" }),
                fresh("node.cluster.x-k8s.io/uninitialized"),
                fresh("node.cloudprovider.kubernetes.io/uninitialized"),
            ];
            if settings.host_network {
                // The network plugin may need the tunnel.
                all.push(fresh("node.kubernetes.io/not-ready"));
                all.push(fresh("node.kubernetes.io/network-unavailable"));
            }
            json!(all)
        }
    }
}

/// Flags of an agent: those of the engine, sorted, without the ones that the user replaces, then the user's.
fn arguments(agents: &Agents<'_>) -> Vec<String> {
    let settings = agents.settings;
    let mut flags = vec![
        ("admin-bind-address", "127.0.0.1".to_owned()),
        ("admin-server-port", ADMIN_PORT.to_string()),
        ("ca-cert", CA.to_owned()),
        ("health-server-port", HEALTH_PORT.to_string()),
        // The server ends connections that ask more often.
        ("keepalive-time", "30s".to_owned()),
        ("proxy-server-host", agents.server.host.clone()),
        ("proxy-server-port", agents.server.port.to_string()),
        ("service-account-token-path", format!("{TOKEN_FOLDER}/{TOKEN}")),
        ("sync-interval-cap", "2s".to_owned()),
    ];
    flags.push(if agents.by_lease {
        ("count-server-leases", "true".to_owned())
    } else {
        ("sync-forever", "true".to_owned())
    });
    if settings.host_network {
        flags.push(("health-server-host", "127.0.0.1".to_owned()));
    }
    if settings.mode == KonnectivityAgentMode::DaemonSet {
        flags.push((
            "agent-identifiers",
            "host=$(NODE_IP)&host=$(NODE_NAME)".to_owned(),
        ));
    }
    let name = |flag: &str| {
        let bare = flag.trim().trim_start_matches('-');
        bare.split('=').next().unwrap_or_default().replace('_', "-")
    };
    flags.retain(|(flag, _)| !settings.extra_args.iter().any(|given| name(given) == *flag));
    flags.sort();
    let own = flags.into_iter().map(|(flag, value)| format!("--{flag}={value}"));
    own.chain(settings.extra_args.iter().cloned()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        k8s::host_port::HostPort,
        tenant::addons::{Konnectivity, Selection},
    };

    /// The workload with these settings.
    fn of(settings: &KonnectivityAgent, by_lease: bool) -> Value {
        let version = semver::Version::new(1, 36, 3);
        let inputs = Inputs {
            management_cluster: "cluster-id",
            version: &version,
            tag: "v1.36.3",
            registry: "registry.k8s.io",
            dns: &[],
            domain: "cluster.local",
            server: "https://10.0.0.7:6443",
            pod_cidrs: &[],
            core_dns: Selection::default(),
            kube_proxy: Selection::default(),
            konnectivity: Konnectivity::default(),
        };
        workload(
            &inputs,
            &Agents {
                tenant: "alpha",
                settings,
                tag: "v0.36.0",
                api_server: &HostPort::new("fd00::7", 6443),
                server: &HostPort::new("fd00::7", 8132),
                by_lease,
            },
        )
    }

    fn flags(workload: &Value) -> Vec<&str> {
        let args = &workload["spec"]["template"]["spec"]["containers"][0]["args"];
        args.as_array()
            .unwrap()
            .iter()
            .filter_map(Value::as_str)
            .collect()
    }

    #[test]
    fn every_field_of_the_agents_has_an_effect() {
        let settings: KonnectivityAgent = serde_json::from_value(json!({
            "image": "mirror.example.org/agent", "tolerations": [{ "key": "gpu", "operator": "Exists" }],
            "extraArgs": ["--sync_interval_cap=9s", "--v=4"], "hostNetwork": true, "mode": "Deployment", "replicas": 5,
        }))
        .unwrap();
        let workload = of(&settings, true);
        assert_eq!(workload["kind"], "Deployment");
        assert_eq!(workload["spec"]["replicas"], 5);
        let pod = &workload["spec"]["template"]["spec"];
        assert_eq!(pod["containers"][0]["image"], "mirror.example.org/agent:v0.36.0");
        assert_eq!(
            pod["tolerations"],
            json!([{ "key": "gpu", "operator": "Exists" }])
        );
        assert_eq!(pod["hostNetwork"], true);
        let flags = flags(&workload);
        assert!(!flags.contains(&"--sync-interval-cap=2s"), "{flags:?}");
        assert_eq!(flags[flags.len() - 2..], ["--sync_interval_cap=9s", "--v=4"]);
    }

    #[test]
    fn agents_of_nodes_tolerate_everything_and_say_which_node_they_reach() {
        let workload = of(&KonnectivityAgent::default(), true);
        assert_eq!(workload["kind"], "DaemonSet");
        let pod = &workload["spec"]["template"]["spec"];
        assert_eq!(pod["tolerations"], json!([{ "operator": "Exists" }]));
        let flags = flags(&workload);
        assert!(flags.contains(&"--agent-identifiers=host=$(NODE_IP)&host=$(NODE_NAME)"));
        assert!(
            flags.contains(&"--proxy-server-host=fd00::7"),
            "an address has no brackets: {flags:?}"
        );
    }

    #[test]
    fn an_agent_in_the_network_of_its_node_can_be_replaced_and_is_probed_on_the_node() {
        let settings = KonnectivityAgent {
            host_network: true,
            ..KonnectivityAgent::default()
        };
        let workload = of(&settings, true);
        assert_eq!(
            workload["spec"]["updateStrategy"]["rollingUpdate"],
            json!({ "maxSurge": 0, "maxUnavailable": 1 })
        );
        let container = &workload["spec"]["template"]["spec"]["containers"][0];
        assert_eq!(container["livenessProbe"]["httpGet"]["host"], "127.0.0.1");
        assert!(flags(&workload).contains(&"--health-server-host=127.0.0.1"));
    }

    #[test]
    fn old_versions_are_told_the_number_of_servers_and_go_on_looking_for_them() {
        let (new, old) = (
            of(&KonnectivityAgent::default(), true),
            of(&KonnectivityAgent::default(), false),
        );
        assert!(flags(&new).contains(&"--count-server-leases=true"));
        assert!(!flags(&new).iter().any(|flag| flag.contains("sync-forever")));
        assert!(flags(&old).contains(&"--sync-forever=true"));
        assert!(!flags(&old).iter().any(|flag| flag.contains("lease")));
    }
}
