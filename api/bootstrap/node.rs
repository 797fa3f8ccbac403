//! `nodeRegistration`: name, labels, taints, addresses and provider ID of a Node.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::{is_default, listed};
use crate::schema::{Rule, cel};

/// The template and the setting that selects it are set together.
const REGISTRATION_RULES: &[Rule] = &[(
    "has(self.nameTemplate) == (has(self.nameSource) && self.nameSource == 'Template')",
    "nodeRegistration.nameTemplate is required with nameSource Template, and not allowed otherwise",
)];

/// Labels in Kubernetes' own domains that a kubelet may set on its own Node. Source: the NodeRestriction section of
/// <https://kubernetes.io/docs/reference/access-authn-authz/admission-controllers/#noderestriction>.
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
/// Subdomains of Kubernetes' own domains whose labels a kubelet may set, including those of their subdomains.
pub const KUBELET_LABEL_DOMAINS: &[&str] = &["kubelet.kubernetes.io", "node.kubernetes.io"];
/// Kubernetes' own domains.
const KUBERNETES_DOMAINS: &[&str] = &["kubernetes.io", "k8s.io"];
/// Domain whose labels Cluster API synchronizes from the Machine to the Node. A kubelet may set them; this provider
/// leaves them to Cluster API.
pub const MACHINE_LABEL_DOMAIN: &str = "node.cluster.x-k8s.io";

/// Whether `nodeRegistration.labels` may contain the label.
pub fn is_node_label(key: &str) -> bool {
    let Some((domain, _)) = key.split_once('/') else {
        return true;
    };
    let below = |domains: &[&str]| domains.iter().any(|parent| is_below(domain, parent));
    !below(&[MACHINE_LABEL_DOMAIN])
        && (!below(KUBERNETES_DOMAINS) || below(KUBELET_LABEL_DOMAINS) || KUBELET_LABELS.contains(&key))
}

/// Whether `domain` is `parent` or a subdomain of it.
pub fn is_below(domain: &str, parent: &str) -> bool {
    domain
        .strip_suffix(parent)
        .is_some_and(|rest| rest.is_empty() || rest.ends_with('.'))
}

/// [`is_node_label`] as a CEL rule for a field of `nodeRegistration`.
fn label_rules(field: &str) -> Value {
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
    let message = format!(
        "nodeRegistration.{field} has a label under kubernetes.io or k8s.io that a kubelet may not set on itself, or one \
         that this provider leaves to Cluster API; set node-role.kubernetes.io, node-restriction.kubernetes.io and \
         node.cluster.x-k8s.io labels on the Machine instead"
    );
    cel(&[(&rule, &message)])
}

/// Kubelet flags that the provider sets itself, or that would weaken the protection of the node.
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
/// First words of other such flags.
pub const DENIED_FLAG_WORDS: &[&str] = &["register", "authentication", "authorization", "rotate", "tls"];

/// Whether a kubelet flag, without leading dashes, is set by the provider or would weaken the protection of the node.
pub fn is_denied_flag(name: &str) -> bool {
    DENIED_FLAGS.contains(&name)
        || name
            .split_once('-')
            .is_some_and(|(word, _)| DENIED_FLAG_WORDS.contains(&word))
}

/// [`is_denied_flag`] as a CEL rule, and the rule of a flag's value.
fn argument_rules() -> Value {
    let names = listed(DENIED_FLAGS.iter().copied());
    let words = DENIED_FLAG_WORDS.join("|");
    cel(&[
        (
            &format!("!(self.name in {names}) && !self.name.matches('^({words})-')"),
            "the provider sets this kubelet flag itself; use the field for it (nodeRegistration, kubelet.config)",
        ),
        (
            "!self.value.matches('[\\\\n\\\\r]')",
            "the value of a kubelet flag must be a single line",
        ),
    ])
}

/// An address is either literal or taken from an interface.
const ADDRESS_RULES: &[Rule] = &[
    (
        "has(self.address) != has(self.interface)",
        "nodeRegistration.nodeIP needs exactly one of address and interface",
    ),
    (
        "!has(self.family) || has(self.interface)",
        "nodeRegistration.nodeIP.family requires interface; remove it",
    ),
    (
        "!has(self.address) || self.address.split(',').all(a, isIP(a))",
        "nodeRegistration.nodeIP.address must be one IP address, or two separated by a comma",
    ),
];

/// The template and the setting that selects it are set together.
const PROVIDER_ID_RULES: &[Rule] = &[(
    "has(self.template) == (has(self.source) && self.source == 'Template')",
    "nodeRegistration.providerID.template is required with source Template, and not allowed otherwise",
)];

/// How the kubelet registers its Node.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
#[schemars(inline, extend("x-kubernetes-validations" = cel(REGISTRATION_RULES)))]
pub struct NodeRegistration {
    /// Where the name of the Node comes from. Defaults to that of the preset that `infraPreset` names, otherwise to
    /// `MachineName` for a Machine.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name_source: Option<NameSource>,
    /// The name of the Node as a cloud-init expression. Required with `nameSource: Template`, and not allowed
    /// otherwise.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 512), regex(pattern = r"^[^\n\r]+$"))]
    pub name_template: Option<String>,
    /// Socket of the container runtime. Defaults to `unix:///run/containerd/containerd.sock`.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(
        length(max = 512),
        extend("x-kubernetes-validations" = cel(&[
            ("self.startsWith('unix:///')", "nodeRegistration.criSocket must begin with unix:///"),
        ]))
    )]
    pub cri_socket: Option<String>,
    /// Taints of the Node at registration.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(
        length(max = 50),
        extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["key", "effect"])
    )]
    pub taints: Vec<Taint>,
    /// Labels of the Node at registration. Only labels that a kubelet may set on its own Node are allowed.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(extend(
        "maxProperties" = 50,
        "x-kubernetes-validations" = label_rules("labels"),
        "additionalProperties" = json!({
            "type": "string",
            "maxLength": 63,
            "pattern": "^(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?$",
        })
    ))]
    pub labels: BTreeMap<String, String>,
    /// Labels whose value only the machine knows: a cloud-init expression for each, which has to give the value of a label.
    /// A key of `labels` wins.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(extend(
        "maxProperties" = 20,
        "x-kubernetes-validations" = label_rules("labelTemplates"),
        "additionalProperties" = json!({"type": "string", "minLength": 1, "maxLength": 512, "pattern": r"^[^\n\r]+$"})
    ))]
    pub label_templates: BTreeMap<String, String>,
    /// Kubelet flags that have no field here.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 100))]
    pub kubelet_extra_args: Vec<KubeletArg>,
    /// Address of the Node.
    #[serde(rename = "nodeIP", skip_serializing_if = "Option::is_none")]
    pub node_ip: Option<NodeIp>,
    /// Set the host name of the machine to the name of the Node. Defaults to that of the preset that `infraPreset` names,
    /// otherwise to false.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub set_hostname: Option<bool>,
    /// Set to `external` if a cloud controller manager initializes the Nodes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cloud_provider: Option<CloudProvider>,
    /// Where the provider ID of the Node comes from.
    #[serde(rename = "providerID", skip_serializing_if = "is_default")]
    pub provider_id: ProviderId,
}

/// Where the name of the Node comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[schemars(inline)]
pub enum NameSource {
    /// The name of the Machine. It is known before the machine boots, so the request for a certificate can be checked
    /// most strictly.
    MachineName,
    /// The host name of the machine.
    Hostname,
    /// The value of `nameTemplate`.
    Template,
}

impl NameSource {
    /// The value as it is written.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::MachineName => "MachineName",
            Self::Hostname => "Hostname",
            Self::Template => "Template",
        }
    }

    /// The source that is written so.
    pub fn parse(text: &str) -> Option<Self> {
        let all = [Self::MachineName, Self::Hostname, Self::Template];
        all.into_iter().find(|source| source.as_str() == text)
    }
}

/// A taint of the Node.
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
    /// The value as Kubernetes spells it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::NoSchedule => "NoSchedule",
            Self::PreferNoSchedule => "PreferNoSchedule",
            Self::NoExecute => "NoExecute",
        }
    }
}

/// A kubelet flag.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(inline, extend("x-kubernetes-validations" = argument_rules()))]
pub struct KubeletArg {
    /// Name of the flag without leading dashes.
    #[schemars(length(min = 1, max = 256), regex(pattern = "^[a-z0-9-]+$"))]
    pub name: String,
    /// Value of the flag, a single line.
    #[schemars(length(max = 1024))]
    pub value: String,
}

/// Address of the Node: either literal or taken from an interface.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
#[schemars(inline, extend("x-kubernetes-validations" = cel(ADDRESS_RULES)))]
pub struct NodeIp {
    /// An IP address, two addresses separated by a comma for dual stack, or `0.0.0.0` or `::` to select an address
    /// family.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 96))]
    pub address: Option<String>,
    /// Interface whose first address is used.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 15), regex(pattern = "^[^/\\s]+$"))]
    pub interface: Option<String>,
    /// Family of the address that is taken from the interface. Defaults to IPv4.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub family: Option<IpFamily>,
}

/// Address family.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(inline)]
#[expect(missing_docs, reason = "the names say it")]
pub enum IpFamily {
    #[serde(rename = "IPv4")]
    V4,
    #[serde(rename = "IPv6")]
    V6,
}

/// Which component initializes Nodes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(inline)]
#[serde(rename_all = "lowercase")]
pub enum CloudProvider {
    /// A cloud controller manager.
    External,
}

/// Where the provider ID of the Node comes from.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
#[schemars(inline, extend("x-kubernetes-validations" = cel(PROVIDER_ID_RULES)))]
pub struct ProviderId {
    /// Source.
    #[serde(skip_serializing_if = "is_default")]
    pub source: ProviderIdSource,
    /// The provider ID as a cloud-init expression. Required with `source: Template`, and not allowed otherwise.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 512), regex(pattern = r"^[^\n\r]+$"))]
    pub template: Option<String>,
}

/// Source of the provider ID.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(inline)]
pub enum ProviderIdSource {
    /// The cloud controller manager if there is one, otherwise the Machine.
    #[default]
    Auto,
    /// `spec.providerID` of the Machine, written by this provider.
    Machine,
    /// A cloud controller manager.
    CloudProvider,
    /// The value of `template`, evaluated on the machine.
    Template,
    /// No provider ID is set.
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
        let rules = label_rules("labels");
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
