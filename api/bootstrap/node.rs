//! `nodeRegistration`: name, labels, taints, addresses and identity of a node. Source: bootstrap.md 1.5, 1.9, 3.1.

use super::is_default;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// How the kubelet registers its node.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
#[schemars(inline)]
pub struct NodeRegistration {
    /// Where the node's name comes from; `MachineName` for a Machine when left out.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name_source: Option<NameSource>,
    /// The node's name as a cloud-init expression, with `nameSource: Template` and only then.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name_template: Option<String>,
    /// Socket of the container runtime; `unix:///run/containerd/containerd.sock` when left out.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cri_socket: Option<String>,
    /// Taints at registration.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub taints: Vec<Taint>,
    /// Labels at registration; only those a kubelet may set on itself.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
    /// Flags of the kubelet that are not fields here.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub kubelet_extra_args: Vec<KubeletArg>,
    /// Address of the node.
    #[serde(rename = "nodeIP", skip_serializing_if = "Option::is_none")]
    pub node_ip: Option<NodeIp>,
    /// Set the machine's host name to the node's name.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub set_hostname: bool,
    /// `external` where a cloud controller manager initializes nodes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cloud_provider: Option<CloudProvider>,
    /// Where the node's provider id comes from.
    #[serde(rename = "providerID", skip_serializing_if = "is_default")]
    pub provider_id: ProviderId,
}

/// Where the node's name comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[schemars(inline)]
pub enum NameSource {
    /// Name of the Machine: known before the machine boots, the strongest check.
    MachineName,
    /// Host name of the machine.
    Hostname,
    /// `nameTemplate`.
    Template,
}

/// A taint of the node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(inline)]
pub struct Taint {
    /// Key.
    pub key: String,
    /// Value.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub value: Option<String>,
    /// Effect.
    pub effect: TaintEffect,
}

/// Effect of a taint.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[schemars(inline)]
#[expect(missing_docs, reason = "the names are Kubernetes' own")]
pub enum TaintEffect {
    NoSchedule,
    PreferNoSchedule,
    NoExecute,
}

impl TaintEffect {
    /// The name as Kubernetes spells it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::NoSchedule => "NoSchedule",
            Self::PreferNoSchedule => "PreferNoSchedule",
            Self::NoExecute => "NoExecute",
        }
    }
}

/// A flag of the kubelet.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(inline)]
pub struct KubeletArg {
    /// Name without the leading dashes.
    pub name: String,
    /// Value; one line.
    pub value: String,
}

/// Address of the node: literal, or found on an interface.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
#[schemars(inline)]
pub struct NodeIp {
    /// An address, two of them with a comma for dual stack, or `0.0.0.0` or `::` for a family.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub address: Option<String>,
    /// Interface whose first address is taken.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub interface: Option<String>,
    /// Family of the address taken from the interface; IPv4 when left out.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub family: Option<IpFamily>,
}

/// Family of an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(inline)]
#[expect(missing_docs, reason = "the names say it")]
pub enum IpFamily {
    #[serde(rename = "IPv4")]
    V4,
    #[serde(rename = "IPv6")]
    V6,
}

/// Who initializes nodes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(inline)]
#[serde(rename_all = "lowercase")]
pub enum CloudProvider {
    /// A cloud controller manager.
    External,
}

/// Where the node's provider id comes from.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
#[schemars(inline)]
pub struct ProviderId {
    /// Source.
    #[serde(skip_serializing_if = "is_default")]
    pub source: ProviderIdSource,
    /// The provider id as a cloud-init expression, with `source: Template` and only then.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub template: Option<String>,
}

/// Source of the provider id.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(inline)]
pub enum ProviderIdSource {
    /// A cloud controller manager where there is one, else the Machine.
    #[default]
    Auto,
    /// `spec.providerID` of the Machine, written by this provider.
    Machine,
    /// A cloud controller manager.
    CloudProvider,
    /// `template`, evaluated on the machine.
    Template,
    /// Nobody.
    None,
}
