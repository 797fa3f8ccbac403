//! KamajiControlPlane and KamajiControlPlaneTemplate (controlplane.cluster.x-k8s.io/v1alpha2): the objects of the control
//! plane provider. They have every field of the Go provider, and the fields that Cluster API's contract added since:
//! <https://cluster-api.sigs.k8s.io/developer/providers/contracts/control-plane>.
//! Owns both objects; the parts of the spec and the status have files of their own.

mod machine;
mod network;
mod settings;
mod status;

pub use machine::*;
pub use network::*;
pub use settings::*;
pub use status::*;

use std::ops::{Deref, DerefMut};

use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{
    metadata::TemplateMetadata,
    schema::{VERSION_LENGTH, VERSION_RULES, cel},
};

/// Desired state of the hosted control plane of a Cluster.
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
    doc = "KamajiControlPlane is the control plane of a Cluster that runs as pods in the management cluster.",
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
    /// Version of Kubernetes, with or without a leading `v`. It can be raised by one minor version at a time.
    #[schemars(length(min = 1, max = VERSION_LENGTH), extend("x-kubernetes-validations" = cel(VERSION_RULES)))]
    pub version: String,
    /// Number of control plane pods; 0 puts the control plane to sleep.
    #[serde(default = "default_replicas")]
    pub replicas: i32,
    /// Endpoint of the API server. The provider sets it, unless the user set it before.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub control_plane_endpoint: Option<Endpoint>,
    /// Settings that a template can contain as well.
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

/// Endpoint of an API server.
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
    /// Whether both parts are set, as Cluster API's contract requires of a valid endpoint.
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
    doc = "KamajiControlPlaneTemplate is the template from which a ClusterClass creates KamajiControlPlanes."
)]
pub struct KamajiControlPlaneTemplateSpec {
    /// The template.
    pub template: KamajiControlPlaneTemplateResource,
}

/// Template of a KamajiControlPlane.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[schemars(inline)]
pub struct KamajiControlPlaneTemplateResource {
    /// Metadata of the objects created from the template.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub metadata: Option<TemplateMetadata>,
    /// Spec of the objects created from the template. Version, replicas and endpoint come from the Cluster.
    pub spec: ControlPlaneSettings,
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

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
