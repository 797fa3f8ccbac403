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

/// Konnectivity: a tunnel from the API server to nodes and pods. Accepted but has no effect yet.
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

/// Settings of the konnectivity server.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(inline)]
pub struct KonnectivityServer {
    /// Port that the agents connect to.
    pub port: i32,
    /// Image without its tag.
    #[serde(default = "server_image")]
    pub image: String,
    /// Tag of the image. Defaults to `v0.<minor version of the tenant>.0`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub version: Option<String>,
    /// Resources of the container.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub resources: Option<ResourceRequirements>,
    /// Flags, each as `--name=value`. The flags of the engine take precedence.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub extra_args: Vec<String>,
    /// Security context of the container.
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
    /// Tolerations of the pods.
    pub tolerations: Vec<Toleration>,
    /// Flags, each as `--name=value`. They take precedence over the flags of the engine.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub extra_args: Vec<String>,
    /// Whether the agents use the network of the node.
    pub host_network: bool,
    /// Workload kind.
    pub mode: KonnectivityAgentMode,
    /// Replicas of the Deployment. Unset or 0 with mode `DaemonSet`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub replicas: Option<i32>,
}

impl Default for KonnectivityAgent {
    fn default() -> Self {
        Self {
            image: AGENT_IMAGE.to_owned(),
            version: None,
            tolerations: vec![Toleration(
                json!({"key": "CriticalAddonsOnly", "operator": "Exists"}),
            )],
            extra_args: Vec::new(),
            host_network: false,
            mode: KonnectivityAgentMode::DaemonSet,
            replicas: None,
        }
    }
}
