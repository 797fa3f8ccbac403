//! Kubelet settings of a hosted control plane: preferred address types, and the ConfigMap `kubelet-config` of kubeadm
//! workers. Nodes of KamajiConfig do not use the ConfigMap.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// Type of a Node address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[schemars(inline)]
#[expect(missing_docs, reason = "the names are Kubernetes' own")]
pub enum AddressType {
    Hostname,
    #[serde(rename = "InternalIP")]
    InternalIp,
    #[serde(rename = "ExternalIP")]
    ExternalIp,
    #[serde(rename = "InternalDNS")]
    InternalDns,
    #[serde(rename = "ExternalDNS")]
    ExternalDns,
}

impl AddressType {
    /// The name as `--kubelet-preferred-address-types` expects it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Hostname => "Hostname",
            Self::InternalIp => "InternalIP",
            Self::ExternalIp => "ExternalIP",
            Self::InternalDns => "InternalDNS",
            Self::ExternalDns => "ExternalDNS",
        }
    }
}

/// Cgroup driver of the nodes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(inline)]
#[serde(rename_all = "lowercase")]
pub enum CgroupDriver {
    /// systemd.
    #[default]
    Systemd,
    /// The kubelet itself.
    Cgroupfs,
}

/// Operation of RFC 6902.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(inline)]
#[serde(rename_all = "lowercase")]
#[expect(missing_docs, reason = "the names are those of RFC 6902")]
pub enum PatchOperation {
    Add,
    Remove,
    Replace,
    Move,
    Copy,
    Test,
}

/// One JSON patch (RFC 6902) on the KubeletConfiguration of `kubelet-config`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(inline)]
pub struct JsonPatch {
    /// Operation.
    pub op: PatchOperation,
    /// JSON pointer to the target.
    pub path: String,
    /// JSON pointer to the source, for `move` and `copy`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub from: Option<String>,
    /// Any JSON, for `add`, `replace` and `test`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "crate::schema::any_json")]
    pub value: Option<Value>,
}

/// Kamaji's default order of address types.
pub fn default_address_types() -> Vec<AddressType> {
    vec![
        AddressType::InternalIp,
        AddressType::ExternalIp,
        AddressType::Hostname,
    ]
}
