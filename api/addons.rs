//! Add-ons that the engine runs in the workload cluster: CoreDNS, kube-proxy, konnectivity. The fields are Kamaji's; an
//! add-on that is omitted is off.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::json;

use crate::{
    pod::{ResourceRequirements, SecurityContext, Toleration},
    schema::cel,
};

/// Image of an add-on. The engine selects what is omitted to match the version of the tenant.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(inline)]
pub struct AddonImage {
    /// Repository of the image, without the name of the image.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub image_repository: Option<String>,
    /// Tag of the image.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub image_tag: Option<String>,
}

/// Workload kind of the konnectivity agents in the workload cluster.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(inline)]
#[expect(missing_docs, reason = "the names are workload kinds")]
pub enum KonnectivityAgentMode {
    #[default]
    DaemonSet,
    Deployment,
}

/// Konnectivity: a tunnel from the API server to nodes and pods, for nodes that the management cluster cannot reach. The
/// server runs in the pods of the control plane; agents in the workload cluster connect to it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[schemars(inline)]
pub struct Konnectivity {
    /// The server, which runs beside the API server.
    #[serde(default)]
    pub server: KonnectivityServer,
    /// The agents in the workload cluster.
    #[serde(default)]
    #[schemars(extend("default" = json!({"image": AGENT_IMAGE, "mode": "DaemonSet"})))]
    pub agent: KonnectivityAgent,
}

/// Default image of konnectivity agents.
pub const AGENT_IMAGE: &str = "registry.k8s.io/kas-network-proxy/proxy-agent";
/// Default image of the konnectivity server.
pub const SERVER_IMAGE: &str = "registry.k8s.io/kas-network-proxy/proxy-server";

impl Konnectivity {
    /// Tag of the server's image, for a tenant of this minor version of Kubernetes 1.
    pub fn server_tag(&self, minor: u64) -> String {
        tag(self.server.version.as_deref(), minor)
    }

    /// Tag of the agents' image, for a tenant of this minor version of Kubernetes 1.
    pub fn agent_tag(&self, minor: u64) -> String {
        tag(self.agent.version.as_deref(), minor)
    }
}

fn tag(given: Option<&str>, minor: u64) -> String {
    given
        .filter(|version| !version.is_empty())
        .map_or_else(|| format!("v0.{minor}.0"), str::to_owned)
}

/// Settings of the konnectivity server.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(inline)]
pub struct KonnectivityServer {
    /// Port that the agents connect to, 1024 to 49151, at the same Service and address as the API server. With service type
    /// NodePort it is the node port too, so it has to be in that range. It differs from every other port of the Service.
    pub port: i32,
    /// Image without its tag.
    #[serde(default = "server_image")]
    pub image: String,
    /// Tag of the image. Defaults to `v0.<minor version of the tenant>.0`. From `v0.32` on, servers are counted by Leases
    /// and scaling replaces no pod.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub version: Option<String>,
    /// Resources of the container.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub resources: Option<ResourceRequirements>,
    /// Flags, each as `--name=value`. They replace flags of the engine, except those that other parts have to agree with,
    /// which the condition `FieldNotSupported` names.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub extra_args: Vec<String>,
    /// Security context of the container, merged over the hardened one of the engine.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub security_context: Option<SecurityContext>,
}

fn server_image() -> String {
    SERVER_IMAGE.to_owned()
}

impl Default for KonnectivityServer {
    fn default() -> Self {
        Self {
            port: 8132,
            image: server_image(),
            version: None,
            resources: None,
            extra_args: Vec::new(),
            security_context: None,
        }
    }
}

/// Settings of the konnectivity agents.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
#[schemars(inline, extend("x-kubernetes-validations" = cel(&[(
    "!has(self.replicas) || (self.mode == 'DaemonSet' ? self.replicas == 0 : self.replicas > 0)",
    "replicas must be 0 or omitted with mode DaemonSet, and above 0 or omitted with mode Deployment",
)])))]
pub struct KonnectivityAgent {
    /// Image without its tag.
    pub image: String,
    /// Tag of the image. Defaults to `v0.<minor version of the tenant>.0`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub version: Option<String>,
    /// Tolerations of the pods. With the default, agents of a DaemonSet tolerate every taint, and those of a Deployment the
    /// taints of nodes that are being initialized too.
    pub tolerations: Vec<Toleration>,
    /// Flags, each as `--name=value`. They take precedence over the flags of the engine.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub extra_args: Vec<String>,
    /// Whether the agents use the network of the node. They then start before the network plugin does.
    pub host_network: bool,
    /// Workload kind.
    pub mode: KonnectivityAgentMode,
    /// Replicas of the Deployment, 2 if unset. Unset or 0 with mode `DaemonSet`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub replicas: Option<i32>,
}

/// Default of [`KonnectivityAgent::tolerations`]. The API server writes it into objects, so it counts as unset.
pub fn default_agent_tolerations() -> Vec<Toleration> {
    vec![Toleration(
        json!({"key": "CriticalAddonsOnly", "operator": "Exists"}),
    )]
}

impl Default for KonnectivityAgent {
    fn default() -> Self {
        Self {
            image: AGENT_IMAGE.to_owned(),
            version: None,
            tolerations: default_agent_tolerations(),
            extra_args: Vec::new(),
            host_network: false,
            mode: KonnectivityAgentMode::DaemonSet,
            replicas: None,
        }
    }
}
