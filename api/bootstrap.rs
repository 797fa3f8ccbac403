//! KamajiConfig and KamajiConfigTemplate (bootstrap.cluster.x-k8s.io/v1alpha1): how a machine becomes a node without
//! kubeadm. Owns both objects; node, kubelet, files and status have files of their own.
//! Source: bootstrap.md 3.1–3.2, contract.md 3.1.

mod files;
mod kubelet;
mod node;
mod status;

pub use files::*;
pub use kubelet::*;
pub use node::*;
pub use status::*;

use crate::crd::{Rule, cel};
use crate::metadata::{AdditionalMetadata, TemplateMetadata};
use kube::CustomResource;
use kube::core::Duration;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use std::collections::BTreeMap;

/// Desired state: what the machine is told on its first boot. Once the data is written, changes apply to new machines.
#[derive(CustomResource, Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[kube(
    group = "bootstrap.cluster.x-k8s.io",
    version = "v1alpha1",
    kind = "KamajiConfig",
    plural = "kamajiconfigs",
    namespaced,
    status = "KamajiConfigStatus",
    shortname = "kjc",
    category = "cluster-api",
    category = "kamaji",
    label("cluster.x-k8s.io/v1beta2", "v1alpha1"),
    derive = "PartialEq",
    derive = "Default",
    doc = "KamajiConfig is what a machine is told on its first boot to join a hosted control plane.",
    printcolumn(
        name = "Cluster",
        type_ = "string",
        json_path = r#".metadata.labels['cluster\.x-k8s\.io/cluster-name']"#
    ),
    printcolumn(
        name = "Data Secret Created",
        type_ = "boolean",
        json_path = ".status.initialization.dataSecretCreated"
    ),
    printcolumn(name = "Node", type_ = "string", json_path = ".status.node.name"),
    printcolumn(
        name = "Ready",
        type_ = "string",
        json_path = r#".status.conditions[?(@.type=="Ready")].status"#
    ),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp")
)]
#[serde(rename_all = "camelCase", default)]
pub struct KamajiConfigSpec {
    /// Format of the data.
    #[serde(skip_serializing_if = "is_default")]
    pub format: Format,
    /// How the kubelet registers its node.
    #[serde(skip_serializing_if = "is_default")]
    pub node_registration: NodeRegistration,
    /// The API server to join; the Cluster's when left out.
    #[serde(skip_serializing_if = "is_default")]
    pub control_plane: ControlPlaneTarget,
    /// The machine's credential until it has a certificate.
    #[serde(skip_serializing_if = "is_default")]
    pub auth: Auth,
    /// Who approves certificate requests.
    #[serde(skip_serializing_if = "is_default")]
    pub csr_approval: CsrApproval,
    /// The kubelet.
    #[serde(skip_serializing_if = "is_default")]
    pub kubelet: Kubelet,
    /// How the kubelet's version must match the Machine's.
    #[serde(skip_serializing_if = "is_default")]
    pub version_check: VersionCheck,
    /// Settings of the operating system.
    #[serde(skip_serializing_if = "is_default")]
    pub os: OperatingSystem,
    /// Files written on first boot.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(
        length(max = 200),
        extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["path"])
    )]
    pub files: Vec<File>,
    /// Users made on first boot. Without one named `default`, the distribution's own user is not made.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(
        length(max = 100),
        extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["name"])
    )]
    pub users: Vec<User>,
    /// Shell commands run in order before the join, again at every boot until the machine joined. The first that fails,
    /// or is not done within `joinTimeout`, ends the boot with a report.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 1000), inner(length(min = 1, max = 10240)))]
    pub pre_join_commands: Vec<String>,
    /// Shell commands run in order after the join, each until it succeeded once: the first that fails ends the boot, and
    /// the next boot goes on with it. All of them have `joinTimeout` once more. The token is gone by then, so a failure
    /// is not reported here; it stands in the machine's console and in its journal (`journalctl -u kamaji-join`).
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 1000), inner(length(min = 1, max = 10240)))]
    pub post_join_commands: Vec<String>,
    /// How long the machine tries to join, commands before the join included, from 1m to 1h; 10m when left out. After it
    /// the kubelet is stopped, so that no machine joins that was reported as failed; the next boot tries again.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(
        length(max = 32),
        regex(pattern = DURATION),
        extend("x-kubernetes-validations" = rules(&[(
            &JOIN_TIMEOUT.rule("self"),
            &format!("joinTimeout {JOIN_TIMEOUT}"),
        )]))
    )]
    pub join_timeout: Option<Duration>,
    /// Metadata of the bootstrap Secret.
    #[serde(skip_serializing_if = "AdditionalMetadata::is_empty")]
    pub secret_metadata: AdditionalMetadata,
}

/// A span of time as Go writes it, without sign.
const DURATION: &str = "^([0-9]+([.][0-9]+)?(ms|s|m|h))+$";

/// The least and the most that a span of time may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bounds {
    /// The least.
    pub least: std::time::Duration,
    /// The most.
    pub most: std::time::Duration,
}

impl Bounds {
    /// Whether `span` is within them.
    pub fn hold(&self, span: Duration) -> bool {
        !span.is_negative() && (self.least..=self.most).contains(&std::time::Duration::from(span))
    }

    /// [`Self::hold`] of a field in CEL.
    fn rule(&self, field: &str) -> String {
        let (least, most) = (go(self.least), go(self.most));
        format!("duration({field}) >= duration('{least}') && duration({field}) <= duration('{most}')")
    }
}

impl std::fmt::Display for Bounds {
    /// What is said where they do not hold, after the name of the field.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "must be between {} and {}", go(self.least), go(self.most))
    }
}

/// A span of time in Go's words.
fn go(span: std::time::Duration) -> String {
    match span.as_secs() {
        seconds if seconds.is_multiple_of(3600) => format!("{}h", seconds / 3600),
        seconds if seconds.is_multiple_of(60) => format!("{}m", seconds / 60),
        seconds => format!("{seconds}s"),
    }
}

/// Bounds of `joinTimeout`.
pub const JOIN_TIMEOUT: Bounds = Bounds {
    least: std::time::Duration::from_mins(1),
    most: std::time::Duration::from_hours(1),
};
/// Bounds of `auth.token.ttl`.
pub const TOKEN_TTL: Bounds = Bounds {
    least: std::time::Duration::from_mins(5),
    most: std::time::Duration::from_hours(24),
};
/// `auth.token.ttl` when left out.
pub const DEFAULT_TOKEN_TTL: std::time::Duration = std::time::Duration::from_mins(15);
/// The most that `auth.token.maxLifetime` may be; the least is `auth.token.ttl`.
pub const TOKEN_MAX_LIFETIME: std::time::Duration = std::time::Duration::from_hours(168);

/// Rules whose text is made from constants, as the value of `x-kubernetes-validations`.
fn rules(rules: &[(&str, &str)]) -> Value {
    rules
        .iter()
        .map(|(rule, message)| json!({"rule": rule, "message": message}))
        .collect()
}

/// A list of words in CEL.
fn listed<'a>(words: impl Iterator<Item = &'a str>) -> String {
    let words: Vec<_> = words.map(|word| format!("'{word}'")).collect();
    format!("[{}]", words.join(", "))
}

/// Whether a part of the spec says nothing.
fn is_default<T: Default + PartialEq>(part: &T) -> bool {
    *part == T::default()
}

/// Desired state of a template.
#[derive(CustomResource, Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[kube(
    group = "bootstrap.cluster.x-k8s.io",
    version = "v1alpha1",
    kind = "KamajiConfigTemplate",
    plural = "kamajiconfigtemplates",
    namespaced,
    shortname = "kjct",
    category = "cluster-api",
    category = "kamaji",
    label("cluster.x-k8s.io/v1beta2", "v1alpha1"),
    derive = "PartialEq",
    derive = "Default",
    doc = "KamajiConfigTemplate is what MachineDeployments and ClusterClasses make KamajiConfigs from.",
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp")
)]
pub struct KamajiConfigTemplateSpec {
    /// The template. It can be changed; machines that exist are not replaced by it.
    pub template: KamajiConfigTemplateResource,
}

/// What a KamajiConfig is made from.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[schemars(inline)]
pub struct KamajiConfigTemplateResource {
    /// Metadata of the object made from it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub metadata: Option<TemplateMetadata>,
    /// Spec of the object made from it.
    #[serde(default)]
    pub spec: KamajiConfigSpec,
}

/// Format of the bootstrap data.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
#[schemars(inline)]
pub enum Format {
    /// cloud-init.
    #[default]
    CloudConfig,
    /// Ignition. Accepted, not supported yet.
    Ignition,
}

impl TokenSettings {
    /// Bounds of `maxLifetime`.
    pub fn max_lifetime_bounds(&self) -> Bounds {
        Bounds {
            least: self.ttl.map_or(DEFAULT_TOKEN_TTL, std::time::Duration::from),
            most: TOKEN_MAX_LIFETIME,
        }
    }
}

impl Format {
    /// The value of the bootstrap Secret's key `format`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::CloudConfig => "cloud-config",
            Self::Ignition => "ignition",
        }
    }
}

/// An API server that is not the Cluster's.
const TARGET_RULES: &[Rule] = &[(
    "!has(self.endpoint) || self.endpoint.matches('^([^:/]+|[[][0-9a-fA-F:.]+[]]):[0-9]{1,5}$')",
    "controlPlane.endpoint must be host:port without a scheme, such as api.example.com:6443",
)];

/// The API server to join.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
#[schemars(inline, extend("x-kubernetes-validations" = cel(TARGET_RULES)))]
pub struct ControlPlaneTarget {
    /// `host:port`; else the control plane's `status.workerEndpoint`, else the Cluster's endpoint.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 512))]
    pub endpoint: Option<String>,
    /// Name the API server's certificate is checked for, where it is not the endpoint's host.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253))]
    pub tls_server_name: Option<String>,
    /// Secret in the same namespace with the CA to trust; `<cluster>-ca` when left out.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ca_secret_ref: Option<SecretKeyRef>,
}

/// A key of a Secret in the same namespace.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(inline)]
pub struct SecretKeyRef {
    /// Name of the Secret.
    #[schemars(length(min = 1, max = 253))]
    pub name: String,
    /// Key of the Secret; `tls.crt` when left out.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253))]
    pub key: Option<String>,
}

/// The machine's credential until it has a certificate.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
#[schemars(inline)]
pub struct Auth {
    /// Kind of credential.
    #[serde(rename = "type", skip_serializing_if = "is_default")]
    pub kind: AuthType,
    /// The token.
    #[serde(skip_serializing_if = "is_default")]
    pub token: TokenSettings,
}

/// Kind of credential.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(inline)]
pub enum AuthType {
    /// One bootstrap token a Machine.
    #[default]
    BootstrapToken,
}

/// Bounds of a token's life.
fn token_rules() -> Value {
    let (ttl, most) = (go(DEFAULT_TOKEN_TTL), go(TOKEN_MAX_LIFETIME));
    rules(&[
        (
            &format!("!has(self.ttl) || ({})", TOKEN_TTL.rule("self.ttl")),
            &format!("auth.token.ttl {TOKEN_TTL}"),
        ),
        (
            &format!(
                "!has(self.maxLifetime) || (duration(self.maxLifetime) >= duration(has(self.ttl) ? self.ttl : '{ttl}') \
                 && duration(self.maxLifetime) <= duration('{most}'))"
            ),
            &format!(
                "auth.token.maxLifetime must be at least auth.token.ttl ({ttl} when left out) and at most {most}"
            ),
        ),
    ])
}

/// Life of the token.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
#[schemars(inline, extend("x-kubernetes-validations" = token_rules()))]
pub struct TokenSettings {
    /// Life of the token, extended until the machine joined; from 5m to 24h, 15m when left out.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 32), regex(pattern = DURATION))]
    pub ttl: Option<Duration>,
    /// Life after which the token is not extended any more; 24h when left out.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 32), regex(pattern = DURATION))]
    pub max_lifetime: Option<Duration>,
}

/// Who approves certificate requests of nodes.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
#[schemars(inline)]
pub struct CsrApproval {
    /// The first client certificate.
    #[serde(skip_serializing_if = "is_default")]
    pub client: ClientApproval,
}

/// Who approves the first client certificate of a node.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(inline)]
pub enum ClientApproval {
    /// This provider, for the machine the token was made for and for no other name.
    #[default]
    Bound,
    /// kube-controller-manager of the tenant, for any name.
    ControllerManager,
    /// Somebody else.
    External,
}

/// How the kubelet's version must match the Machine's.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(inline)]
pub enum VersionCheck {
    /// Same minor; another patch only warns.
    #[default]
    Minor,
    /// Same version.
    Exact,
    /// No check.
    #[serde(rename = "None")]
    Off,
}

/// Settings of the operating system.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
#[schemars(inline)]
pub struct OperatingSystem {
    /// Kernel modules to load beside `overlay` and `br_netfilter`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(
        length(max = 64),
        inner(length(min = 1, max = 64), regex(pattern = "^[A-Za-z0-9_-]+$"))
    )]
    pub modules: Vec<String>,
    /// Kernel settings beside those that Kubernetes needs.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(extend(
        "maxProperties" = 100,
        "additionalProperties" = json!({"type": "string", "maxLength": 256, "pattern": r"^[^\n\r]*$"})
    ))]
    pub sysctls: BTreeMap<String, String>,
    /// What happens to swap.
    #[serde(skip_serializing_if = "is_default")]
    pub swap: Swap,
}

/// What happens to swap. No value is a word that YAML reads as a boolean.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(inline)]
pub enum Swap {
    /// Swap is turned off, for good.
    #[default]
    #[serde(rename = "Disabled")]
    Off,
    /// Swap stays; pods do not use it.
    Keep,
}
