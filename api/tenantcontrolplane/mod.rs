//! TenantControlPlane (kamaji.clastix.io/v1alpha1): a hosted Kubernetes control plane, in Kamaji's API.
//! Owns the object and the top level of its spec; deployment, network and status have files of their own.

mod deployment;
mod network;
mod status;

pub use deployment::*;
pub use network::*;
pub use status::*;

use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{
    addons::{AddonImage, Konnectivity},
    admission::AdmissionPlugin,
    datastore::{NAME_RULES, SCHEMA_RULES},
    kubelet::{AddressType, CgroupDriver, JsonPatch, default_address_types},
    schema::{Rule, VERSION_LENGTH, VERSION_RULES, cel},
};

/// CEL: the number at `$part` of the first `major.minor` in a version.
macro_rules! part {
    ($version:literal, $part:literal) => {
        concat!(
            "int(",
            $version,
            ".find('[0-9]+[.][0-9]+').split('.')[",
            $part,
            "])"
        )
    };
}
macro_rules! major {
    ($version:literal) => {
        part!($version, "0")
    };
}
macro_rules! minor {
    ($version:literal) => {
        part!($version, "1")
    };
}
/// CEL: the version did not change, or there is no running version to compare it with.
macro_rules! unchanged_or_not_running {
    () => {
        "self.spec.kubernetes.version == oldSelf.spec.kubernetes.version || !has(self.status) || \
         !has(self.status.kubernetesResources) || !has(self.status.kubernetesResources.version) || \
         !has(self.status.kubernetesResources.version.version) || \
         !self.status.kubernetesResources.version.version.matches('[0-9]+[.][0-9]+')"
    };
}

/// Rules that need spec and status together. The running version is in the status, which users do not write with the
/// spec. A comparison with `oldSelf` alone would let two quick edits skip a minor version.
pub(crate) const ROOT_RULES: &[Rule] = &[
    (
        "size(self.metadata.name) <= 63 && self.metadata.name.matches('^[a-z]([-a-z0-9]*[a-z0-9])?$')",
        "metadata.name becomes the name of a Service: use at most 63 lower-case letters, digits and '-', beginning \
         with a letter",
    ),
    (
        concat!(
            unchanged_or_not_running!(),
            " || (",
            minor!("self.spec.kubernetes.version"),
            " >= ",
            minor!("self.status.kubernetesResources.version.version"),
            " && ",
            major!("self.spec.kubernetes.version"),
            " == ",
            major!("self.status.kubernetesResources.version.version"),
            ")"
        ),
        "spec.kubernetes.version is below the running version (status.kubernetesResources.version.version): a downgrade \
         is not possible, set the running minor version or the next one",
    ),
    (
        concat!(
            unchanged_or_not_running!(),
            " || ",
            minor!("self.spec.kubernetes.version"),
            " <= ",
            minor!("self.status.kubernetesResources.version.version"),
            " + 1"
        ),
        "spec.kubernetes.version is more than one minor above the running version \
         (status.kubernetesResources.version.version): set the next minor version first",
    ),
];

/// Rules between fields of the spec.
const SPEC_RULES: &[Rule] = &[
    (
        "!has(oldSelf.dataStore) || has(self.dataStore)",
        "dataStore cannot be unset once it is set; name a DataStore",
    ),
    (
        "!has(oldSelf.dataStoreSchema) || has(self.dataStoreSchema)",
        "dataStoreSchema cannot be unset once it is set; keep its value",
    ),
    (
        "!has(oldSelf.dataStoreUsername) || has(self.dataStoreUsername)",
        "dataStoreUsername cannot be unset once it is set; keep its value",
    ),
    (
        "!has(self.networkProfile) || !has(self.networkProfile.loadBalancerSourceRanges) || \
         size(self.networkProfile.loadBalancerSourceRanges) == 0 || \
         self.controlPlane.service.serviceType == 'LoadBalancer'",
        "networkProfile.loadBalancerSourceRanges needs controlPlane.service.serviceType LoadBalancer; remove it or \
         change the type",
    ),
    (
        "!has(self.networkProfile) || !has(self.networkProfile.loadBalancerClass) || \
         self.controlPlane.service.serviceType == 'LoadBalancer'",
        "networkProfile.loadBalancerClass needs controlPlane.service.serviceType LoadBalancer; remove it or change the \
         type",
    ),
    (
        "!has(self.controlPlane.service.allocateLoadBalancerNodePorts) || \
         self.controlPlane.service.serviceType == 'LoadBalancer'",
        "controlPlane.service.allocateLoadBalancerNodePorts needs controlPlane.service.serviceType LoadBalancer; \
         remove it or change the type",
    ),
    (
        "self.controlPlane.service.serviceType != 'LoadBalancer' || \
         oldSelf.controlPlane.service.serviceType != 'LoadBalancer' || \
         (has(self.networkProfile) && has(self.networkProfile.loadBalancerClass)) == \
         (has(oldSelf.networkProfile) && has(oldSelf.networkProfile.loadBalancerClass))",
        "networkProfile.loadBalancerClass cannot be set or unset while the Service is a LoadBalancer; change the type \
         first",
    ),
];

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
    doc = "TenantControlPlane is a Kubernetes control plane that runs as pods in the management cluster.",
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
#[schemars(extend("x-kubernetes-validations" = cel(SPEC_RULES)))]
pub struct TenantControlPlaneSpec {
    /// Name of the DataStore. Defaults to the default DataStore of the engine. Cannot be unset.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub data_store: Option<String>,
    /// Key prefix and role in etcd, or database in SQL. Generated once if omitted. Immutable.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 253), extend("x-kubernetes-validations" = cel(SCHEMA_RULES)))]
    pub data_store_schema: Option<String>,
    /// User in the DataStore. Generated once if omitted. Immutable.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 253), extend("x-kubernetes-validations" = cel(NAME_RULES)))]
    pub data_store_username: Option<String>,
    /// Other DataStores for single resources (etcd only), as in `--etcd-servers-overrides`. Accepted but has no
    /// effect yet.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub data_store_overrides: Vec<DataStoreOverride>,
    /// Kinds of writes that the API server rejects. Accepted but has no effect yet.
    #[serde(default, skip_serializing_if = "WritePermissions::is_open")]
    pub write_permissions: WritePermissions,
    /// The control plane pods and their exposure.
    pub control_plane: ControlPlane,
    /// Version and settings of Kubernetes.
    pub kubernetes: KubernetesSpec,
    /// Addresses, ports and address ranges.
    #[serde(default)]
    pub network_profile: NetworkProfile,
    /// Add-ons of the workload cluster.
    #[serde(default, skip_serializing_if = "Addons::is_empty")]
    pub addons: Addons,
}

/// Another DataStore for one resource.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
#[schemars(inline)]
pub struct DataStoreOverride {
    /// Resource as `[group]/resource`, such as `/events`. Built-in resources only.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub resource: String,
    /// Name of the DataStore.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub data_store: String,
}

/// Kinds of writes that the API server rejects.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
#[schemars(inline)]
pub struct WritePermissions {
    /// Reject creation.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub block_creation: bool,
    /// Reject updates.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub block_update: bool,
    /// Reject deletion.
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
    /// Version with or without a leading `v`, used verbatim as the tag of the images. It can be raised by one minor
    /// version at a time.
    #[schemars(length(min = 1, max = VERSION_LENGTH), extend("x-kubernetes-validations" = cel(VERSION_RULES)))]
    pub version: String,
    /// Kubelet settings.
    pub kubelet: KubeletSpec,
    /// Admission plugins to enable. NodeRestriction is enabled in addition.
    #[serde(default = "AdmissionPlugin::defaults")]
    pub admission_controllers: Vec<AdmissionPlugin>,
}

/// Kubelet settings.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
#[schemars(inline)]
pub struct KubeletSpec {
    /// Order in which the API server selects an address of a Node.
    #[schemars(length(min = 1), extend("x-kubernetes-list-type" = "set"))]
    pub preferred_address_types: Vec<AddressType>,
    /// Deprecated, use a patch instead: cgroup driver in the ConfigMap `kubelet-config`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cgroupfs: Option<CgroupDriver>,
    /// JSON patches of the KubeletConfiguration in the ConfigMap `kubelet-config`, which kubeadm workers use.
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

/// Add-ons of the workload cluster. An add-on that is omitted is off.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
#[schemars(inline)]
pub struct Addons {
    /// CoreDNS, the cluster DNS.
    #[serde(rename = "coreDNS", skip_serializing_if = "Option::is_none")]
    pub core_dns: Option<AddonImage>,
    /// kube-proxy, the Service proxy.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub kube_proxy: Option<AddonImage>,
    /// Konnectivity, a tunnel from the API server to nodes and pods.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub konnectivity: Option<Konnectivity>,
}

impl Addons {
    /// Whether no add-on is set.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}
