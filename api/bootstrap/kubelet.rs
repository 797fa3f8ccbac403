//! `kubelet`: configuration merged into what the provider writes. Source: bootstrap.md 1.3, 1.4, 3.1.

use super::is_default;
use crate::crd::cel;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use std::collections::BTreeMap;

/// The kubelet.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
#[schemars(inline)]
pub struct Kubelet {
    /// Fields of KubeletConfiguration (kubelet.config.k8s.io/v1beta1), merged over the provider's. Fields that would
    /// open the node are refused.
    #[serde(skip_serializing_if = "Map::is_empty")]
    #[schemars(schema_with = "crate::crd::any_object")]
    pub config: Map<String, Value>,
    /// Feature gates.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(extend("maxProperties" = 200))]
    pub feature_gates: BTreeMap<String, bool>,
    /// Verbosity of the log, 0 to 10.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 10))]
    pub verbosity: Option<i32>,
    /// What to do on a node with control groups of version 1.
    #[serde(rename = "cgroupV1", skip_serializing_if = "is_default")]
    pub cgroup_v1: CgroupV1,
    /// Absolute path of the program; searched for when left out.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(
        length(max = 512),
        extend("x-kubernetes-validations" = cel(&[
            ("self.matches('^/[-A-Za-z0-9._/]+$')", "kubelet.path must be an absolute path"),
        ]))
    )]
    pub path: Option<String>,
    /// Put the image's own `KUBELET_EXTRA_ARGS` in front of ours.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub inherit_image_args: bool,
    /// Accept fields in `config` that would open the node.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub allow_unsafe_overrides: bool,
}

/// What to do on a node with control groups of version 1.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(inline)]
pub enum CgroupV1 {
    /// Leave it to the kubelet of that version.
    #[default]
    Auto,
    /// Fail.
    Fail,
    /// Run.
    Allow,
}
