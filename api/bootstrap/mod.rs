//! KamajiConfig and KamajiConfigTemplate (bootstrap.cluster.x-k8s.io/v1alpha1): how a machine becomes a Node without
//! kubeadm. Owns both objects; node, kubelet, infrastructure, files and status have files of their own. The fields follow the contract for
//! bootstrap providers: <https://cluster-api.sigs.k8s.io/developer/providers/contracts/bootstrap-config>.

mod files;
mod infra;
mod kubelet;
mod node;
mod status;

pub use files::*;
pub use infra::*;
pub use kubelet::*;
pub use node::*;
pub use status::*;

use std::collections::BTreeMap;

use kube::{CustomResource, core::Duration};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::{
    metadata::{AdditionalMetadata, TemplateMetadata},
    schema::{Rule, cel},
};

/// Desired state: how the bootstrap data is generated. After the data is generated, changes apply to new Machines
/// only.
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
    doc = "KamajiConfig generates the bootstrap data with which a machine joins a hosted control plane.",
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
    /// Format of the bootstrap data.
    #[serde(skip_serializing_if = "is_default")]
    pub format: Format,
    /// How the kubelet registers its Node.
    #[serde(skip_serializing_if = "is_default")]
    pub node_registration: NodeRegistration,
    /// The API server to join. Defaults to the control plane of the Cluster.
    #[serde(skip_serializing_if = "is_default")]
    pub control_plane: ControlPlaneTarget,
    /// The credential that the machine uses until it has a client certificate.
    #[serde(skip_serializing_if = "is_default")]
    pub auth: Auth,
    /// How CertificateSigningRequests are approved.
    #[serde(skip_serializing_if = "is_default")]
    pub csr_approval: CsrApproval,
    /// Settings of the kubelet.
    #[serde(skip_serializing_if = "is_default")]
    pub kubelet: Kubelet,
    /// How the version of the kubelet must match the version of the Machine. Defaults to `Exact` for a Cluster with a
    /// topology, which waits until every Node has the version of its Machine, and to `Minor` for others.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub version_check: Option<VersionCheck>,
    /// What is known about the infrastructure of the machine: where the name of the Node and its provider ID come from,
    /// labels with a value of the infrastructure, how much bootstrap data it takes, and how the data has to be written.
    /// Other fields of this object win over it. Defaults to `Auto`.
    #[serde(skip_serializing_if = "is_default")]
    pub infra_preset: InfraPreset,
    /// How the bootstrap data is written.
    #[serde(skip_serializing_if = "is_default")]
    pub output: Output,
    /// Settings of the operating system.
    #[serde(skip_serializing_if = "is_default")]
    pub os: OperatingSystem,
    /// Files that are written on first boot.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(
        length(max = 200),
        extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["path"])
    )]
    pub files: Vec<File>,
    /// Users that are created on first boot. The default user of the distribution is created only if the list has a
    /// user named `default`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(
        length(max = 100),
        extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["name"])
    )]
    pub users: Vec<User>,
    /// Shell commands that run in order before the join, at every attempt until the machine has joined. The first
    /// command that fails, or does not finish within `joinTimeout`, ends the attempt, and the machine reports the
    /// failure. Commands are not templates: `cloud-init query` reads the metadata of the instance.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 1000), inner(length(min = 1, max = 10240)))]
    pub pre_join_commands: Vec<String>,
    /// Shell commands that run in order after the join. Each runs until it has succeeded once: the first that fails
    /// ends the sequence, and the next boot continues with it. Together they have another `joinTimeout`. The
    /// bootstrap token no longer exists by then, so a failure is not reported in the status; the machine writes it to
    /// its console and to its journal (`journalctl -u kamaji-join`).
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 1000), inner(length(min = 1, max = 10240)))]
    pub post_join_commands: Vec<String>,
    /// How long one attempt to join lasts, including `preJoinCommands`. Between 1m and 1h; defaults to 10m. After this
    /// time the failure is reported and the kubelet is stopped. The next attempt begins five minutes later or at the
    /// next boot, until the bootstrap token ends.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(
        length(max = 32),
        regex(pattern = DURATION),
        extend("x-kubernetes-validations" = cel(&[(
            &JOIN_TIMEOUT.rule("self"),
            &format!("joinTimeout {JOIN_TIMEOUT}"),
        )]))
    )]
    pub join_timeout: Option<Duration>,
    /// Labels and annotations of the bootstrap data Secret.
    #[serde(skip_serializing_if = "AdditionalMetadata::is_empty")]
    pub secret_metadata: AdditionalMetadata,
}

/// A duration in Go's format, without a sign.
const DURATION: &str = "^([0-9]+([.][0-9]+)?(ms|s|m|h))+$";

/// Lower and upper bound of a duration, both inclusive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bounds {
    /// Lower bound.
    pub least: std::time::Duration,
    /// Upper bound.
    pub most: std::time::Duration,
}

impl Bounds {
    /// Whether `span` is within the bounds.
    pub fn hold(&self, span: Duration) -> bool {
        !span.is_negative() && (self.least..=self.most).contains(&std::time::Duration::from(span))
    }

    /// [`Self::hold`] as a CEL expression about `field`.
    fn rule(&self, field: &str) -> String {
        let (least, most) = (go(self.least), go(self.most));
        format!("duration({field}) >= duration('{least}') && duration({field}) <= duration('{most}')")
    }
}

impl std::fmt::Display for Bounds {
    /// The message for a value out of bounds, to follow the name of the field.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "must be between {} and {}", go(self.least), go(self.most))
    }
}

/// A duration in Go's format.
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
/// Default of `auth.token.ttl`.
pub const DEFAULT_TOKEN_TTL: std::time::Duration = std::time::Duration::from_mins(15);
/// Upper bound of `auth.token.maxLifetime`; the lower bound is `auth.token.ttl`.
pub const TOKEN_MAX_LIFETIME: std::time::Duration = std::time::Duration::from_hours(168);

/// A list of strings in CEL.
fn listed<'a>(words: impl Iterator<Item = &'a str>) -> String {
    let words: Vec<_> = words.map(|word| format!("'{word}'")).collect();
    format!("[{}]", words.join(", "))
}

/// Whether a part of the spec has its default value.
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
    doc = "KamajiConfigTemplate is the template from which MachineDeployments and ClusterClasses create KamajiConfigs.",
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp")
)]
pub struct KamajiConfigTemplateSpec {
    /// The template. It can be changed; existing Machines are not replaced.
    pub template: KamajiConfigTemplateResource,
}

/// Template of a KamajiConfig.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[schemars(inline)]
pub struct KamajiConfigTemplateResource {
    /// Metadata of the objects created from the template.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub metadata: Option<TemplateMetadata>,
    /// Spec of the objects created from the template.
    #[serde(default)]
    pub spec: KamajiConfigSpec,
}

/// Format of the bootstrap data.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
#[schemars(inline)]
pub enum Format {
    /// A cloud-config for cloud-init.
    #[default]
    CloudConfig,
    /// Ignition. Accepted but has no effect yet.
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
    /// The value of the key `format` in the bootstrap data Secret.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::CloudConfig => "cloud-config",
            Self::Ignition => "ignition",
        }
    }
}

/// Rules of an explicit API server endpoint.
const TARGET_RULES: &[Rule] = &[(
    "!has(self.endpoint) || self.endpoint.matches('^([^:/]+|[[][0-9a-fA-F:.]+[]]):[0-9]{1,5}$')",
    "controlPlane.endpoint must be host:port without a scheme, such as api.example.com:6443",
)];

/// The API server to join.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
#[schemars(inline, extend("x-kubernetes-validations" = cel(TARGET_RULES)))]
pub struct ControlPlaneTarget {
    /// Endpoint as `host:port`. Defaults to `status.workerEndpoint` of the control plane if set, otherwise to the
    /// endpoint of the Cluster.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 512))]
    pub endpoint: Option<String>,
    /// Server name to verify the certificate of the API server against. Defaults to the host of the endpoint.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253))]
    pub tls_server_name: Option<String>,
    /// Secret in the same namespace that holds the CA to trust. Defaults to `<cluster>-ca`.
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
    /// Key of the Secret. Defaults to `tls.crt`.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253))]
    pub key: Option<String>,
}

/// The credential that the machine uses until it has a client certificate.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
#[schemars(inline)]
pub struct Auth {
    /// Kind of credential.
    #[serde(rename = "type", skip_serializing_if = "is_default")]
    pub kind: AuthType,
    /// Settings of the bootstrap token.
    #[serde(skip_serializing_if = "is_default")]
    pub token: TokenSettings,
}

/// Kind of credential.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(inline)]
pub enum AuthType {
    /// A bootstrap token for each Machine.
    #[default]
    BootstrapToken,
}

/// Rules of a token's lifetime.
fn token_rules() -> Value {
    let (ttl, most) = (go(DEFAULT_TOKEN_TTL), go(TOKEN_MAX_LIFETIME));
    cel(&[
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
                "auth.token.maxLifetime must be at least auth.token.ttl (default {ttl}) and at most {most}"
            ),
        ),
    ])
}

/// Lifetime of the bootstrap token.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
#[schemars(inline, extend("x-kubernetes-validations" = token_rules()))]
pub struct TokenSettings {
    /// Lifetime of the token. It is extended until the machine has joined. Between 5m and 24h; defaults to 15m.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 32), regex(pattern = DURATION))]
    pub ttl: Option<Duration>,
    /// Total lifetime after which the token is no longer extended. Defaults to 24h.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 32), regex(pattern = DURATION))]
    pub max_lifetime: Option<Duration>,
}

/// How CertificateSigningRequests of nodes are approved.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
#[schemars(inline)]
pub struct CsrApproval {
    /// Who approves the first client certificate of a node.
    #[serde(skip_serializing_if = "is_default")]
    pub client: ClientApproval,
}

/// Who approves the first client certificate of a node.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(inline)]
pub enum ClientApproval {
    /// This provider, only for the node name of the Machine that the token belongs to.
    #[default]
    Bound,
    /// The kube-controller-manager of the workload cluster, for any name.
    ControllerManager,
    /// Another component.
    External,
}

/// How the version of the kubelet must match the version of the Machine.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(inline)]
pub enum VersionCheck {
    /// The minor version must match; a different patch version causes a warning.
    #[default]
    Minor,
    /// The version must match exactly.
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
    /// Kernel modules to load in addition to `overlay` and `br_netfilter`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(
        length(max = 64),
        inner(length(min = 1, max = 64), regex(pattern = "^[A-Za-z0-9_-]+$"))
    )]
    pub modules: Vec<String>,
    /// Kernel parameters in addition to those that Kubernetes requires.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(extend(
        "maxProperties" = 100,
        "additionalProperties" = json!({"type": "string", "maxLength": 256, "pattern": r"^[^\n\r]*$"})
    ))]
    pub sysctls: BTreeMap<String, String>,
    /// How swap is handled.
    #[serde(skip_serializing_if = "is_default")]
    pub swap: Swap,
}

/// How swap is handled. No value is a word that YAML reads as a boolean.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(inline)]
pub enum Swap {
    /// Swap is turned off permanently.
    #[default]
    #[serde(rename = "Disabled")]
    Off,
    /// Swap stays on; pods do not use it.
    Keep,
}
