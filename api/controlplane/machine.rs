//! Fields of Cluster API's contract that a topology may set: `rollout.after`, which restarts the pods, and
//! `machineTemplate`, which has no effect because a hosted control plane has no Machines. If the schema did not declare
//! them, a Cluster that sets them could not be reconciled.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::metadata::TemplateMetadata;

/// When to restart the pods.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
#[schemars(inline, extend("minProperties" = 1))]
pub struct Rollout {
    /// After this time (RFC 3339), pods that started before it are replaced.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub after: Option<Time>,
}

/// Machines of the control plane. Has no effect.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
#[schemars(inline)]
pub struct MachineTemplate {
    /// Metadata of the Machines.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub metadata: Option<TemplateMetadata>,
    /// Spec of the Machines.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub spec: Option<MachineTemplateSpec>,
}

/// Spec of the Machines. Has no effect.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
#[schemars(inline)]
pub struct MachineTemplateSpec {
    /// Infrastructure of the Machines.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub infrastructure_ref: Option<InfrastructureReference>,
    /// How Machines are deleted.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub deletion: Option<MachineDeletion>,
    /// Conditions that a Machine needs to be ready.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(
        length(min = 1, max = 32),
        extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["conditionType"])
    )]
    pub readiness_gates: Vec<MachineReadinessGate>,
    /// Taints of the Nodes.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(
        length(min = 1, max = 64),
        extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["key", "effect"])
    )]
    pub taints: Vec<MachineTaint>,
}

/// Infrastructure of the Machines.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(inline)]
pub struct InfrastructureReference {
    /// API group.
    #[schemars(length(min = 1, max = 253))]
    pub api_group: String,
    /// Kind.
    #[schemars(length(min = 1, max = 63))]
    pub kind: String,
    /// Name.
    #[schemars(length(min = 1, max = 253))]
    pub name: String,
}

/// How Machines are deleted.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
#[schemars(inline, extend("minProperties" = 1))]
pub struct MachineDeletion {
    /// Seconds to drain the Node; 0 means no limit.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0))]
    pub node_drain_timeout_seconds: Option<i32>,
    /// Seconds to detach volumes; 0 means no limit.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0))]
    pub node_volume_detach_timeout_seconds: Option<i32>,
    /// Seconds to delete the Node; 0 means no limit.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0))]
    pub node_deletion_timeout_seconds: Option<i32>,
}

/// A condition that a Machine needs to be ready.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(inline)]
pub struct MachineReadinessGate {
    /// Type of the condition.
    #[schemars(length(min = 1, max = 316))]
    pub condition_type: String,
    /// `Positive` or `Negative`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub polarity: Option<Polarity>,
}

/// Meaning of a condition that is `True`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(inline)]
#[expect(missing_docs, reason = "the names say it")]
pub enum Polarity {
    Positive,
    Negative,
}

/// A taint of a Node.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(inline)]
pub struct MachineTaint {
    /// Key.
    #[schemars(length(min = 1, max = 317))]
    pub key: String,
    /// Value.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 63))]
    pub value: Option<String>,
    /// Effect: `NoSchedule`, `PreferNoSchedule` or `NoExecute`.
    pub effect: String,
    /// Whether the taint is kept (`Always`) or only set at registration (`OnInitialization`).
    pub propagation: String,
}
