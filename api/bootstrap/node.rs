//! `nodeRegistration`: name, labels, taints, addresses and identity of a node. Source: bootstrap.md 1.5, 1.9, 3.1.

use super::is_default;
use crate::crd::{Rule, cel};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::json;
use std::collections::BTreeMap;

/// The template and its switch belong together.
const REGISTRATION_RULES: &[Rule] = &[(
    "has(self.nameTemplate) == (has(self.nameSource) && self.nameSource == 'Template')",
    "nodeRegistration.nameTemplate is required with nameSource Template, and has no place without it",
)];

/// Labels that a kubelet may set on its own node (bootstrap.md 1.9).
const LABEL_RULES: &[Rule] = &[(
    "self.all(k, !k.matches('^([-a-z0-9.]+[.])?(kubernetes|k8s)[.]io/') || \
     k.matches('^([-a-z0-9.]+[.])?(kubelet|node)[.]kubernetes[.]io/') || \
     k in ['kubernetes.io/hostname', 'kubernetes.io/os', 'kubernetes.io/arch', 'beta.kubernetes.io/os', \
     'beta.kubernetes.io/arch', 'beta.kubernetes.io/instance-type', 'topology.kubernetes.io/zone', \
     'topology.kubernetes.io/region', 'failure-domain.beta.kubernetes.io/zone', \
     'failure-domain.beta.kubernetes.io/region'])",
    "nodeRegistration.labels has a label under kubernetes.io or k8s.io that a kubelet may not set on itself; set \
     node-role.kubernetes.io, node-restriction.kubernetes.io and node.cluster.x-k8s.io labels on the Machine instead",
)];

/// Flags that are the provider's own, or would open the node (bootstrap.md 3.1).
const ARGUMENT_RULES: &[Rule] = &[
    (
        "!(self.name in ['config', 'config-dir', 'kubeconfig', 'bootstrap-kubeconfig', 'hostname-override', \
         'node-labels', 'node-ip', 'provider-id', 'cloud-provider', 'pod-infra-container-image', 'cert-dir', \
         'client-ca-file', 'read-only-port', 'anonymous-auth']) && \
         !self.name.matches('^(register|authentication|authorization|rotate|tls)-')",
        "this kubelet flag is the provider's own; use the field for it (nodeRegistration, kubelet.config)",
    ),
    (
        "!self.value.matches('[\\\\n\\\\r]')",
        "the value of a kubelet flag must be one line",
    ),
];

/// Literal or found.
const ADDRESS_RULES: &[Rule] = &[
    (
        "has(self.address) != has(self.interface)",
        "nodeRegistration.nodeIP needs exactly one of address and interface",
    ),
    (
        "!has(self.family) || has(self.interface)",
        "nodeRegistration.nodeIP.family goes with interface; remove it",
    ),
    (
        "!has(self.address) || self.address.split(',').all(a, isIP(a))",
        "nodeRegistration.nodeIP.address must be one IP address, or two with a comma",
    ),
];

/// The template and its switch belong together.
const PROVIDER_ID_RULES: &[Rule] = &[(
    "has(self.template) == (has(self.source) && self.source == 'Template')",
    "nodeRegistration.providerID.template is required with source Template, and has no place without it",
)];

/// How the kubelet registers its node.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
#[schemars(inline, extend("x-kubernetes-validations" = cel(REGISTRATION_RULES)))]
pub struct NodeRegistration {
    /// Where the node's name comes from; `MachineName` for a Machine when left out.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name_source: Option<NameSource>,
    /// The node's name as a cloud-init expression, with `nameSource: Template` and only then.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 512), regex(pattern = r"^[^\n\r]+$"))]
    pub name_template: Option<String>,
    /// Socket of the container runtime; `unix:///run/containerd/containerd.sock` when left out.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(
        length(max = 512),
        extend("x-kubernetes-validations" = cel(&[
            ("self.startsWith('unix:///')", "nodeRegistration.criSocket must begin with unix:///"),
        ]))
    )]
    pub cri_socket: Option<String>,
    /// Taints at registration.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(
        length(max = 50),
        extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["key", "effect"])
    )]
    pub taints: Vec<Taint>,
    /// Labels at registration; only those a kubelet may set on itself.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(extend(
        "maxProperties" = 50,
        "x-kubernetes-validations" = cel(LABEL_RULES),
        "additionalProperties" = json!({
            "type": "string",
            "maxLength": 63,
            "pattern": "^(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?$",
        })
    ))]
    pub labels: BTreeMap<String, String>,
    /// Flags of the kubelet that are not fields here.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 100))]
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
    #[schemars(length(min = 1, max = 317))]
    pub key: String,
    /// Value.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 63))]
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
#[schemars(inline, extend("x-kubernetes-validations" = cel(ARGUMENT_RULES)))]
pub struct KubeletArg {
    /// Name without the leading dashes.
    #[schemars(length(min = 1, max = 256), regex(pattern = "^[a-z0-9-]+$"))]
    pub name: String,
    /// Value; one line.
    #[schemars(length(max = 1024))]
    pub value: String,
}

/// Address of the node: literal, or found on an interface.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
#[schemars(inline, extend("x-kubernetes-validations" = cel(ADDRESS_RULES)))]
pub struct NodeIp {
    /// An address, two of them with a comma for dual stack, or `0.0.0.0` or `::` for a family.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 96))]
    pub address: Option<String>,
    /// Interface whose first address is taken.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 15), regex(pattern = "^[^/\\s]+$"))]
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
#[schemars(inline, extend("x-kubernetes-validations" = cel(PROVIDER_ID_RULES)))]
pub struct ProviderId {
    /// Source.
    #[serde(skip_serializing_if = "is_default")]
    pub source: ProviderIdSource,
    /// The provider id as a cloud-init expression, with `source: Template` and only then.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 512), regex(pattern = r"^[^\n\r]+$"))]
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
