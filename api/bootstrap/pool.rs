//! What a KamajiConfig has for a MachinePool alone: the name of its data, and the Nodes that joined with it.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::Approval;

/// Default of `auth.token.poolTTL`.
pub const DEFAULT_POOL_TTL: std::time::Duration = std::time::Duration::from_hours(1);
/// Most Nodes that `status.nodes` has, so most Nodes of a MachinePool.
pub const MOST_POOL_NODES: u16 = 1000;

/// Name of the bootstrap data Secret of a MachinePool.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(inline)]
pub enum PoolSecretName {
    /// Another name for each version, spec, CA and endpoint: `<name>-<hash>`. Infrastructure providers replace the
    /// instances of a pool when the name changes. A new token does not change it.
    #[default]
    ByIntent,
    /// The name of the KamajiConfig. The content changes, and most infrastructure providers use it for new instances
    /// only.
    Fixed,
}

/// A Node of a MachinePool.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(inline)]
pub struct PoolNode {
    /// Name of the Node.
    #[schemars(length(min = 1, max = 63))]
    pub name: String,
    /// Time at which the name was reserved. The reservation ends if there is no Node five minutes after `joinTimeout`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub claimed_at: Option<Time>,
    /// Whether the Node exists.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub joined: bool,
    /// The latest approved certificate requests, until the Node exists. At most five are approved within 15 minutes.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 5))]
    pub recent_approvals: Vec<Approval>,
}
