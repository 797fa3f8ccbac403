//! `kubelet`: kubelet configuration that is merged into the one the provider generates.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::is_default;
use crate::schema::cel;

/// Settings of the kubelet.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
#[schemars(inline)]
pub struct Kubelet {
    /// Fields of KubeletConfiguration (kubelet.config.k8s.io/v1beta1), merged over those of the provider. Fields that
    /// would weaken the protection of the node are rejected.
    #[serde(skip_serializing_if = "Map::is_empty")]
    #[schemars(schema_with = "crate::schema::any_object")]
    pub config: Map<String, Value>,
    /// Feature gates.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(extend("maxProperties" = 200))]
    pub feature_gates: BTreeMap<String, bool>,
    /// Log verbosity, 0 to 10.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 10))]
    pub verbosity: Option<i32>,
    /// Behaviour on nodes with cgroup v1.
    #[serde(rename = "cgroupV1", skip_serializing_if = "is_default")]
    pub cgroup_v1: CgroupV1,
    /// Absolute path of the kubelet binary. If omitted, it is searched for.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(
        length(max = 512),
        extend("x-kubernetes-validations" = cel(&[
            ("self.matches('^/[-A-Za-z0-9._/]+$')", "kubelet.path must be an absolute path"),
        ]))
    )]
    pub path: Option<String>,
    /// Put the `KUBELET_EXTRA_ARGS` of the machine image in front of the provider's flags.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub inherit_image_args: bool,
    /// Accept fields in `config` that would weaken the protection of the node, and fields and feature gates that the kubelet of
    /// the Machine's version does not know.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub allow_unsafe_overrides: bool,
}

/// Behaviour on nodes with cgroup v1.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(inline)]
pub enum CgroupV1 {
    /// Use the default of the kubelet.
    #[default]
    Auto,
    /// The kubelet does not start.
    Fail,
    /// The kubelet starts.
    Allow,
}
