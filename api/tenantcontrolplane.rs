//! TenantControlPlane (kamaji.clastix.io/v1alpha1): a hosted Kubernetes control plane, Kamaji's API.
//! Owns the object and the top of its spec; deployment, network and status have files of their own.
//! Source: hosting.md 1.1–1.3, DESIGN 2.1 and 7.

mod deployment;
mod network;
mod status;

pub use deployment::*;
pub use network::*;
pub use status::*;

use crate::addons::{AddonImage, Konnectivity};
use crate::admission::AdmissionPlugin;
use crate::kubelet::{AddressType, CgroupDriver, JsonPatch, default_address_types};
use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Desired state of a hosted control plane.
#[derive(CustomResource, Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[kube(
    group = "kamaji.clastix.io",
    version = "v1alpha1",
    kind = "TenantControlPlane",
    plural = "tenantcontrolplanes",
    namespaced,
    status = "TenantControlPlaneStatus",
    shortname = "tcp",
    category = "kamaji",
    derive = "PartialEq",
    derive = "Default",
    doc = "TenantControlPlane is a Kubernetes control plane that runs as pods of the management cluster.",
    scale(
        spec_replicas_path = ".spec.controlPlane.deployment.replicas",
        status_replicas_path = ".status.kubernetesResources.deployment.replicas",
        label_selector_path = ".status.kubernetesResources.deployment.selector"
    ),
    printcolumn(name = "Version", type_ = "string", json_path = ".spec.kubernetes.version"),
    printcolumn(
        name = "Installed Version",
        type_ = "string",
        json_path = ".status.kubernetesResources.version.version"
    ),
    printcolumn(
        name = "Status",
        type_ = "string",
        json_path = ".status.kubernetesResources.version.status"
    ),
    printcolumn(
        name = "Control-Plane endpoint",
        type_ = "string",
        json_path = ".status.controlPlaneEndpoint"
    ),
    printcolumn(
        name = "Kubeconfig",
        type_ = "string",
        json_path = ".status.kubeconfig.admin.secretName"
    ),
    printcolumn(
        name = "Datastore",
        type_ = "string",
        json_path = ".status.storage.dataStoreName"
    ),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp")
)]
#[serde(rename_all = "camelCase")]
pub struct TenantControlPlaneSpec {
    /// Name of the DataStore; the engine's default when left out. It can be changed, not unset.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub data_store: Option<String>,
    /// Key prefix and role in etcd, database in SQL. Drawn once by the engine when left out. Immutable.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub data_store_schema: Option<String>,
    /// User in the datastore. Drawn once by the engine when left out. Immutable.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub data_store_username: Option<String>,
    /// Other stores for single resources (etcd only), as in `--etcd-servers-overrides`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub data_store_overrides: Vec<DataStoreOverride>,
    /// Kinds of writes that are refused.
    #[serde(default, skip_serializing_if = "WritePermissions::is_open")]
    pub write_permissions: WritePermissions,
    /// The pods and how they are reached.
    pub control_plane: ControlPlane,
    /// Version and settings of Kubernetes.
    pub kubernetes: KubernetesSpec,
    /// Addresses, ports and ranges.
    #[serde(default)]
    pub network_profile: NetworkProfile,
    /// Add-ons run in the tenant.
    #[serde(default, skip_serializing_if = "Addons::is_empty")]
    pub addons: Addons,
}

/// Another DataStore for one resource.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
#[schemars(inline)]
pub struct DataStoreOverride {
    /// Resource as `[group]/resource`, such as `/events`; built-in resources only.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub resource: String,
    /// Name of the DataStore.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub data_store: String,
}

/// Writes that are refused.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
#[schemars(inline)]
pub struct WritePermissions {
    /// Refuse creation.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub block_creation: bool,
    /// Refuse updates.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub block_update: bool,
    /// Refuse deletion.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub block_deletion: bool,
}

impl WritePermissions {
    /// Whether every write is allowed.
    pub fn is_open(&self) -> bool {
        *self == Self::default()
    }
}

/// Version and settings of Kubernetes.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(inline)]
pub struct KubernetesSpec {
    /// Version with or without a leading `v`, used verbatim as the tag of the images. It grows by one minor at a time.
    pub version: String,
    /// What the control plane says about kubelets.
    pub kubelet: KubeletSpec,
    /// Admission plugins to turn on. NodeRestriction is on beside this list.
    #[serde(default = "AdmissionPlugin::defaults")]
    pub admission_controllers: Vec<AdmissionPlugin>,
}

/// What the control plane says about kubelets.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
#[schemars(inline)]
pub struct KubeletSpec {
    /// Order in which the API server picks a node's address.
    #[schemars(length(min = 1), extend("x-kubernetes-list-type" = "set"))]
    pub preferred_address_types: Vec<AddressType>,
    /// Deprecated in favour of a patch: driver of control groups written into `kubelet-config`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cgroupfs: Option<CgroupDriver>,
    /// Patches on the KubeletConfiguration of `kubelet-config`, used by kubeadm workers.
    #[serde(rename = "configurationJSONPatches", skip_serializing_if = "Vec::is_empty")]
    pub configuration_json_patches: Vec<JsonPatch>,
}

impl Default for KubeletSpec {
    fn default() -> Self {
        Self {
            preferred_address_types: default_address_types(),
            cgroupfs: None,
            configuration_json_patches: Vec::new(),
        }
    }
}

/// Add-ons run in the tenant; absent means off.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
#[schemars(inline)]
pub struct Addons {
    /// Cluster DNS.
    #[serde(rename = "coreDNS", skip_serializing_if = "Option::is_none")]
    pub core_dns: Option<AddonImage>,
    /// Service proxy.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub kube_proxy: Option<AddonImage>,
    /// Tunnel to nodes and pods. Accepted, not supported yet.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub konnectivity: Option<Konnectivity>,
}

impl Addons {
    /// Whether no add-on is asked for.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}
