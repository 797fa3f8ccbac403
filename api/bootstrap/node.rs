//! `nodeRegistration`: name, labels, taints, addresses and identity of a node. Source: bootstrap.md 1.5, 1.9, 3.1.

use super::{is_default, listed, rules};
use crate::crd::{Rule, cel};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use std::collections::BTreeMap;

/// The template and its switch belong together.
const REGISTRATION_RULES: &[Rule] = &[(
    "has(self.nameTemplate) == (has(self.nameSource) && self.nameSource == 'Template')",
    "nodeRegistration.nameTemplate is required with nameSource Template, and has no place without it",
)];

/// Labels below Kubernetes' own domains that a kubelet may set on its own node (bootstrap.md 1.9).
pub const KUBELET_LABELS: &[&str] = &[
    "kubernetes.io/hostname",
    "kubernetes.io/os",
    "kubernetes.io/arch",
    "beta.kubernetes.io/os",
    "beta.kubernetes.io/arch",
    "beta.kubernetes.io/instance-type",
    "topology.kubernetes.io/zone",
    "topology.kubernetes.io/region",
    "failure-domain.beta.kubernetes.io/zone",
    "failure-domain.beta.kubernetes.io/region",
];
/// Domains below Kubernetes' own whose labels a kubelet may set, theirs and those of what is below them.
pub const KUBELET_LABEL_DOMAINS: &[&str] = &["kubelet.kubernetes.io", "node.kubernetes.io"];
/// Kubernetes' own domains.
const KUBERNETES_DOMAINS: &[&str] = &["kubernetes.io", "k8s.io"];
/// Domain whose labels Cluster API keeps the same on Machine and Node. A kubelet may set them; this provider leaves
/// them to Cluster API.
pub const MACHINE_LABEL_DOMAIN: &str = "node.cluster.x-k8s.io";

/// Whether `nodeRegistration.labels` may have the label.
pub fn is_node_label(key: &str) -> bool {
    let Some((domain, _)) = key.split_once('/') else {
        return true;
    };
    let below = |domains: &[&str]| domains.iter().any(|parent| is_below(domain, parent));
    !below(&[MACHINE_LABEL_DOMAIN])
        && (!below(KUBERNETES_DOMAINS) || below(KUBELET_LABEL_DOMAINS) || KUBELET_LABELS.contains(&key))
}

/// Whether `domain` is `parent`, or below it.
pub fn is_below(domain: &str, parent: &str) -> bool {
    domain
        .strip_suffix(parent)
        .is_some_and(|rest| rest.is_empty() || rest.ends_with('.'))
}

/// [`is_node_label`] in CEL.
fn label_rules() -> Value {
    let below = |domains: &[&str]| {
        let domains: Vec<_> = domains.iter().map(|domain| domain.replace('.', "[.]")).collect();
        format!("k.matches('^([-a-z0-9.]+[.])?({})/')", domains.join("|"))
    };
    let rule = format!(
        "self.all(k, !{} && (!{} || {} || k in {}))",
        below(&[MACHINE_LABEL_DOMAIN]),
        below(KUBERNETES_DOMAINS),
        below(KUBELET_LABEL_DOMAINS),
        listed(KUBELET_LABELS.iter().copied()),
    );
    rules(&[(
        &rule,
        "nodeRegistration.labels has a label under kubernetes.io or k8s.io that a kubelet may not set on itself, or one \
         that this provider leaves to Cluster API; set node-role.kubernetes.io, node-restriction.kubernetes.io and \
         node.cluster.x-k8s.io labels on the Machine instead",
    )])
}

/// Flags of the kubelet that are the provider's own, or would open the node (bootstrap.md 3.1).
pub const DENIED_FLAGS: &[&str] = &[
    "config",
    "config-dir",
    "kubeconfig",
    "bootstrap-kubeconfig",
    "hostname-override",
    "node-labels",
    "node-ip",
    "provider-id",
    "cloud-provider",
    "pod-infra-container-image",
    "cert-dir",
    "client-ca-file",
    "read-only-port",
    "anonymous-auth",
];
/// First words of further such flags.
pub const DENIED_FLAG_WORDS: &[&str] = &["register", "authentication", "authorization", "rotate", "tls"];

/// Whether a flag of the kubelet, without dashes in front, is the provider's own or would open the node.
pub fn is_denied_flag(name: &str) -> bool {
    DENIED_FLAGS.contains(&name)
        || name
            .split_once('-')
            .is_some_and(|(word, _)| DENIED_FLAG_WORDS.contains(&word))
}

/// [`is_denied_flag`] in CEL, and what a value looks like.
fn argument_rules() -> Value {
    let names = listed(DENIED_FLAGS.iter().copied());
    let words = DENIED_FLAG_WORDS.join("|");
    rules(&[
        (
            &format!("!(self.name in {names}) && !self.name.matches('^({words})-')"),
            "this kubelet flag is the provider's own; use the field for it (nodeRegistration, kubelet.config)",
        ),
        (
            "!self.value.matches('[\\\\n\\\\r]')",
            "the value of a kubelet flag must be one line",
        ),
    ])
}

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
        "x-kubernetes-validations" = label_rules(),
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
#[schemars(inline, extend("x-kubernetes-validations" = argument_rules()))]
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bootstrap_31_labels_that_a_kubelet_may_set() {
        for key in [
            "site",
            "example.com/site",
            "topology.kubernetes.io/zone",
            "node.kubernetes.io/instance-type",
            "x.kubelet.kubernetes.io/y",
            "mykubernetes.io/x",
        ] {
            assert!(is_node_label(key), "{key}");
        }
        for key in [
            "kubernetes.io/x",
            "failure-domain.kubernetes.io/zone",
            "node-role.kubernetes.io/worker",
            "a.node-restriction.kubernetes.io/b",
            "foo.k8s.io/x",
            "node.cluster.x-k8s.io/pool",
        ] {
            assert!(!is_node_label(key), "{key}");
        }
        let rules = label_rules();
        let rule = rules[0]["rule"].as_str().unwrap();
        for key in KUBELET_LABELS {
            assert!(rule.contains(&format!("'{key}'")), "{key}");
        }
        assert!(rule.contains("(node[.]cluster[.]x-k8s[.]io)/"), "{rule}");
    }

    #[test]
    fn bootstrap_33_flags_that_are_the_providers_own() {
        for name in DENIED_FLAGS.iter().copied().chain([
            "register-node",
            "tls-cert-file",
            "rotate-server-certificates",
            "authorization-webhook-cache-unauthorized-ttl",
        ]) {
            assert!(is_denied_flag(name), "{name}");
        }
        for name in ["v", "runtime-cgroups", "registry-qps"] {
            assert!(!is_denied_flag(name), "{name}");
        }
        let rules = argument_rules();
        let rule = rules[0]["rule"].as_str().unwrap();
        assert!(
            rule.contains("'^(register|authentication|authorization|rotate|tls)-'"),
            "{rule}"
        );
    }
}
