//! `status` of KamajiConfig, without the deprecated fields of older contracts (`ready`, `failureReason`,
//! `failureMessage`).

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::NameSource;

/// Observed state of the bootstrap of a machine.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct KamajiConfigStatus {
    /// Progress that other Cluster API controllers read.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub initialization: Option<ConfigInitialization>,
    /// Name of the bootstrap data Secret.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253))]
    pub data_secret_name: Option<String>,
    /// Generation of the spec that the controller last observed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// Conditions of the object.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "crate::schema::conditions")]
    pub conditions: Vec<Condition>,
    /// The bootstrap token, without its secret part.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub token: Option<TokenStatus>,
    /// The Node name that is reserved for the machine.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub node: Option<NodeStatus>,
    /// The bootstrap data.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bootstrap_data: Option<BootstrapDataStatus>,
    /// The last report of the machine.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_report: Option<NodeReport>,
}

/// Progress that other Cluster API controllers read.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
#[schemars(inline)]
pub struct ConfigInitialization {
    /// Whether the bootstrap data Secret exists.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub data_secret_created: Option<bool>,
}

/// The bootstrap token, without its secret part.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
#[schemars(inline)]
pub struct TokenStatus {
    /// ID of the token, six characters.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub id: Option<String>,
    /// Time at which the token expires.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub expiration: Option<Time>,
    /// Time at which the token was created; `auth.token.maxLifetime` counts from here.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub created: Option<Time>,
}

/// The Node name that is reserved for the machine.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
#[schemars(inline)]
pub struct NodeStatus {
    /// Name of the Node.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Time at which the name was reserved.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub claimed_at: Option<Time>,
    /// Number of client certificate requests that were approved for the Node.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub approvals: Option<i32>,
    /// The latest approved requests. At most five are approved within 15 minutes.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 5))]
    pub recent_approvals: Vec<Approval>,
}

/// An approved client certificate request.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[schemars(inline)]
pub struct Approval {
    /// UID of the CertificateSigningRequest.
    pub uid: String,
    /// Time of the approval.
    pub time: Time,
}

/// The bootstrap data.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
#[schemars(inline)]
pub struct BootstrapDataStatus {
    /// SHA-256 of the data, in hexadecimal.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sha256: Option<String>,
    /// Size in bytes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bytes: Option<i64>,
    /// Size in bytes after compression.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub gzip_bytes: Option<i64>,
    /// Size in bytes as the infrastructure counts it, after the encoding that its provider applies.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub user_data_bytes: Option<i64>,
    /// Largest `userDataBytes` that the infrastructure takes. Without a value no limit is known but that of a Secret.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub user_data_limit: Option<i64>,
    /// Where the machine takes the name of its Node from.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name_source: Option<NameSource>,
    /// SHA-256 of the spec that the data was generated from. A different value means that the spec has changed since.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub spec_hash: Option<String>,
}

/// The last report of the machine.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
#[schemars(inline)]
pub struct NodeReport {
    /// Reason of the report.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// Message of the report.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
    /// Time of the report.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub time: Option<Time>,
    /// Name of the Node.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub node: Option<String>,
}
