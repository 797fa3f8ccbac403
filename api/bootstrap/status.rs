//! `status` of KamajiConfig. Source: bootstrap.md 3.2, contract.md 3.1; DESIGN 6 (no `ready`, no failure fields).

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Observed state of a machine's bootstrap.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct KamajiConfigStatus {
    /// What was reached.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub initialization: Option<ConfigInitialization>,
    /// Name of the bootstrap Secret.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253))]
    pub data_secret_name: Option<String>,
    /// Generation of the spec that was last looked at.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// Conditions; types and reasons are listed in the project's `api/conditions.rs`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "crate::crd::conditions")]
    pub conditions: Vec<Condition>,
    /// The token; never its secret part.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub token: Option<TokenStatus>,
    /// The node this machine claimed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub node: Option<NodeStatus>,
    /// The data.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bootstrap_data: Option<BootstrapDataStatus>,
    /// What the machine last reported.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_report: Option<NodeReport>,
}

/// What was reached.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
#[schemars(inline)]
pub struct ConfigInitialization {
    /// The bootstrap Secret was written.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub data_secret_created: Option<bool>,
}

/// The token; never its secret part.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
#[schemars(inline)]
pub struct TokenStatus {
    /// Public part, six characters.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub id: Option<String>,
    /// When it ends.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub expiration: Option<Time>,
    /// When it was first made; `auth.token.maxLifetime` counts from here.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub created: Option<Time>,
}

/// The node this machine claimed.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
#[schemars(inline)]
pub struct NodeStatus {
    /// Name of the node.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// When the name was claimed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub claimed_at: Option<Time>,
    /// Client certificate requests approved for it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub approvals: Option<i32>,
}

/// The data.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
#[schemars(inline)]
pub struct BootstrapDataStatus {
    /// SHA-256 of the data, hexadecimal.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sha256: Option<String>,
    /// Size in bytes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bytes: Option<i64>,
    /// Size in bytes, compressed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub gzip_bytes: Option<i64>,
    /// SHA-256 of the spec the data was made from; another one means that the spec changed since.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub spec_hash: Option<String>,
}

/// What the machine last reported.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
#[schemars(inline)]
pub struct NodeReport {
    /// Reason.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// Message.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
    /// Time of the report.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub time: Option<Time>,
    /// Node.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub node: Option<String>,
}
