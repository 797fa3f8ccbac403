//! Add-ons that the engine runs inside a tenant: CoreDNS, kube-proxy, konnectivity. Absent means off.
//! Source: hosting.md 1.1.

use crate::crd::cel;
use crate::pod::{ResourceRequirements, SecurityContext, Toleration};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::json;

/// Image of an add-on; what is left out is chosen by the engine for the tenant's version.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(inline)]
pub struct AddonImage {
    /// Repository the image is pulled from, without the image's name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub image_repository: Option<String>,
    /// Tag of the image.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub image_tag: Option<String>,
}

/// How konnectivity agents run in the tenant.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(inline)]
#[expect(missing_docs, reason = "the names are workload kinds")]
pub enum KonnectivityAgentMode {
    #[default]
    DaemonSet,
    Deployment,
}

/// Konnectivity: a tunnel from the API server to nodes and pods. Accepted, not supported yet.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[schemars(inline)]
pub struct Konnectivity {
    /// Server beside the API server.
    #[serde(default)]
    pub server: KonnectivityServer,
    /// Agents in the tenant.
    #[serde(default)]
    #[schemars(extend("default" = json!({"image": AGENT_IMAGE, "mode": "DaemonSet"})))]
    pub agent: KonnectivityAgent,
}

/// Default image of konnectivity agents.
pub const AGENT_IMAGE: &str = "registry.k8s.io/kas-network-proxy/proxy-agent";
/// Default image of the konnectivity server.
pub const SERVER_IMAGE: &str = "registry.k8s.io/kas-network-proxy/proxy-server";

/// Konnectivity server.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(inline)]
pub struct KonnectivityServer {
    /// Port that agents dial.
    pub port: i32,
    /// Image without tag.
    #[serde(default = "server_image")]
    pub image: String,
    /// Tag; `v0.<minor of the tenant>.0` when left out.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub version: Option<String>,
    /// Resources of the container.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub resources: Option<ResourceRequirements>,
    /// Flags `--name=value`; the engine's own win.
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

/// Konnectivity agents.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
#[schemars(inline, extend("x-kubernetes-validations" = cel(&[(
    "!has(self.replicas) || (self.mode == 'DaemonSet' ? self.replicas == 0 : self.replicas > 0)",
    "replicas must be 0 or left out with mode DaemonSet, and above 0 or left out with mode Deployment",
)])))]
pub struct KonnectivityAgent {
    /// Image without tag.
    pub image: String,
    /// Tag; `v0.<minor of the tenant>.0` when left out.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub version: Option<String>,
    /// Tolerations of the pods.
    pub tolerations: Vec<Toleration>,
    /// Flags `--name=value`; they win over the engine's.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub extra_args: Vec<String>,
    /// Run in the node's network.
    pub host_network: bool,
    /// Workload kind.
    pub mode: KonnectivityAgentMode,
    /// Replicas of a Deployment; unset or 0 with `DaemonSet`.
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
