//! KamajiControlPlane and KamajiControlPlaneTemplate (controlplane.cluster.x-k8s.io/v1alpha2): the control plane
//! provider's objects, field for field the Go provider's, with what the contract added since.
//! Owns both objects; the parts of the spec and the status have files of their own.
//! Source: contract.md 1.1–1.3 and 2.2, DESIGN 2.2.

mod machine;
mod network;
mod settings;
mod status;

pub use machine::*;
pub use network::*;
pub use settings::*;
pub use status::*;

use crate::crd::{VERSION_LENGTH, VERSION_RULES, cel};
use crate::metadata::TemplateMetadata;
use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::ops::{Deref, DerefMut};

/// Desired state of a hosted control plane of a Cluster.
#[derive(CustomResource, Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[kube(
    group = "controlplane.cluster.x-k8s.io",
    version = "v1alpha2",
    kind = "KamajiControlPlane",
    plural = "kamajicontrolplanes",
    namespaced,
    status = "KamajiControlPlaneStatus",
    shortname = "ktcp",
    category = "cluster-api",
    category = "kamaji",
    label("cluster.x-k8s.io/v1beta2", "v1alpha2"),
    derive = "PartialEq",
    derive = "Default",
    doc = "KamajiControlPlane is the control plane of a Cluster, run as pods of the management cluster.",
    scale(
        spec_replicas_path = ".spec.replicas",
        status_replicas_path = ".status.replicas",
        label_selector_path = ".status.selector"
    ),
    printcolumn(
        name = "Cluster",
        type_ = "string",
        json_path = r#".metadata.labels['cluster\.x-k8s\.io/cluster-name']"#
    ),
    printcolumn(
        name = "Available",
        type_ = "string",
        json_path = r#".status.conditions[?(@.type=="Available")].status"#
    ),
    printcolumn(name = "Desired", type_ = "integer", json_path = ".spec.replicas"),
    printcolumn(name = "Current", type_ = "integer", json_path = ".status.replicas"),
    printcolumn(name = "Ready", type_ = "integer", json_path = ".status.readyReplicas"),
    printcolumn(
        name = "Up-to-date",
        type_ = "integer",
        json_path = ".status.upToDateReplicas"
    ),
    printcolumn(
        name = "Paused",
        type_ = "string",
        json_path = r#".status.conditions[?(@.type=="Paused")].status"#
    ),
    printcolumn(
        name = "Initialized",
        type_ = "boolean",
        json_path = ".status.initialization.controlPlaneInitialized"
    ),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp"),
    printcolumn(name = "Version", type_ = "string", json_path = ".status.version"),
    printcolumn(
        name = "Desired Version",
        type_ = "string",
        json_path = ".spec.version",
        priority = 10
    ),
    printcolumn(
        name = "Endpoint",
        type_ = "string",
        json_path = ".spec.controlPlaneEndpoint.host",
        priority = 10
    ),
    printcolumn(
        name = "Port",
        type_ = "integer",
        json_path = ".spec.controlPlaneEndpoint.port",
        priority = 10
    )
)]
#[serde(rename_all = "camelCase")]
pub struct KamajiControlPlaneSpec {
    /// Version of Kubernetes, with or without a leading `v`. It grows by one minor at a time.
    #[schemars(length(min = 1, max = VERSION_LENGTH), extend("x-kubernetes-validations" = cel(VERSION_RULES)))]
    pub version: String,
    /// Pods of the control plane; 0 puts it to sleep.
    #[serde(default = "default_replicas")]
    pub replicas: i32,
    /// Address of the API server: preset by the user and then honoured, else written by the provider.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub control_plane_endpoint: Option<Endpoint>,
    /// What a template can hold too.
    #[serde(flatten)]
    pub settings: ControlPlaneSettings,
}

impl Default for KamajiControlPlaneSpec {
    fn default() -> Self {
        Self {
            version: String::new(),
            replicas: default_replicas(),
            control_plane_endpoint: None,
            settings: ControlPlaneSettings::default(),
        }
    }
}

impl Deref for KamajiControlPlaneSpec {
    type Target = ControlPlaneSettings;

    fn deref(&self) -> &Self::Target {
        &self.settings
    }
}

impl DerefMut for KamajiControlPlaneSpec {
    fn deref_mut(&mut self) -> &mut Self::Target {
        &mut self.settings
    }
}

fn default_replicas() -> i32 {
    2
}

/// Address of an API server.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
#[schemars(inline, extend("minProperties" = 1))]
pub struct Endpoint {
    /// Host name or IP address.
    #[serde(skip_serializing_if = "String::is_empty")]
    #[schemars(length(min = 1, max = 512))]
    pub host: String,
    /// Port.
    #[serde(skip_serializing_if = "is_zero")]
    #[schemars(range(min = 1, max = 65535))]
    pub port: i32,
}

impl Endpoint {
    /// Valid in the sense of the contract: neither part is missing.
    pub fn is_valid(&self) -> bool {
        !self.host.is_empty() && self.port != 0
    }
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde asks for a reference")]
fn is_zero(port: &i32) -> bool {
    *port == 0
}

/// Desired state of a template.
#[derive(CustomResource, Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[kube(
    group = "controlplane.cluster.x-k8s.io",
    version = "v1alpha2",
    kind = "KamajiControlPlaneTemplate",
    plural = "kamajicontrolplanetemplates",
    namespaced,
    shortname = "ktcpt",
    category = "cluster-api",
    category = "kamaji",
    label("cluster.x-k8s.io/v1beta2", "v1alpha2"),
    derive = "PartialEq",
    derive = "Default",
    doc = "KamajiControlPlaneTemplate is what a ClusterClass makes KamajiControlPlanes from."
)]
pub struct KamajiControlPlaneTemplateSpec {
    /// The template.
    pub template: KamajiControlPlaneTemplateResource,
}

/// What a KamajiControlPlane is made from.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[schemars(inline)]
pub struct KamajiControlPlaneTemplateResource {
    /// Metadata of the object made from it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub metadata: Option<TemplateMetadata>,
    /// Spec of the object made from it; version, replicas and endpoint come from the Cluster.
    pub spec: ControlPlaneSettings,
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn an_endpoint_is_valid_only_with_both_parts() {
        assert!(
            !Endpoint {
                host: "a".into(),
                port: 0
            }
            .is_valid()
        );
        assert!(
            Endpoint {
                host: "a".into(),
                port: 1
            }
            .is_valid()
        );
    }

    #[test]
    fn settings_stand_beside_version_in_the_object() -> Result<(), serde_json::Error> {
        let spec: KamajiControlPlaneSpec =
            serde_json::from_value(json!({"version": "v1.36.3", "dataStoreName": "default"}))?;
        assert_eq!(spec.data_store_name.as_deref(), Some("default"));
        assert_eq!(spec.replicas, 2);
        let text = serde_json::to_value(&spec)?;
        assert_eq!(text["dataStoreName"], "default");
        assert!(text.get("settings").is_none());
        Ok(())
    }
}
