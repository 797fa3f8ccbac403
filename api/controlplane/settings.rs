//! What KamajiControlPlane and its template have in common. Source: contract.md 1.2, the Go provider's API.

use super::machine::{MachineTemplate, Rollout};
use super::network::NetworkSettings;
use crate::addons::{AddonImage, Konnectivity};
use crate::admission::AdmissionPlugin;
use crate::crd::cel;
use crate::datastore::{NAME_RULES, SCHEMA_RULES};
use crate::kubelet::{AddressType, CgroupDriver, JsonPatch, default_address_types};
use crate::metadata::AdditionalMetadata;
use crate::pod::{
    Affinity, Container, DeploymentStrategy, ResourceRequirements, Toleration, TopologySpreadConstraint,
    Volume, VolumeMount,
};
use crate::probes::ProbeSet;
use crate::tenantcontrolplane::DataStoreOverride;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::json;
use std::collections::BTreeMap;

/// Settings of a control plane that a template can hold too.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
#[schemars(inline)]
pub struct ControlPlaneSettings {
    /// Name of the DataStore; the engine's default when left out.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub data_store_name: Option<String>,
    /// Key prefix or database. Drawn once by the engine when left out.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 253), extend("x-kubernetes-validations" = cel(&SCHEMA_RULES[1..])))]
    pub data_store_schema: Option<String>,
    /// User in the datastore. Drawn once by the engine when left out. Immutable.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 253), extend("x-kubernetes-validations" = cel(NAME_RULES)))]
    pub data_store_username: Option<String>,
    /// Other stores for single resources. Accepted, not supported yet.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub data_store_overrides: Vec<DataStoreOverride>,
    /// Registry and path in front of the images' names.
    pub registry: String,
    /// Addresses, ports and exposure.
    #[schemars(extend("default" = json!({"serviceType": "LoadBalancer"})))]
    pub network: NetworkSettings,
    /// The pods.
    #[serde(skip_serializing_if = "DeploymentSettings::is_empty")]
    pub deployment: DeploymentSettings,
    /// kube-apiserver.
    #[serde(skip_serializing_if = "ComponentSettings::is_empty")]
    pub api_server: ComponentSettings,
    /// kube-controller-manager.
    #[serde(skip_serializing_if = "ComponentSettings::is_empty")]
    pub controller_manager: ComponentSettings,
    /// kube-scheduler.
    #[serde(skip_serializing_if = "ComponentSettings::is_empty")]
    pub scheduler: ComponentSettings,
    /// kine, with SQL and NATS stores. Accepted, not supported yet.
    #[serde(skip_serializing_if = "KineSettings::is_empty")]
    pub kine: KineSettings,
    /// Admission plugins to turn on; the engine's default list when empty. NodeRestriction is on beside it.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub admission_controllers: Vec<AdmissionPlugin>,
    /// What the control plane says about kubelets.
    pub kubelet: KubeletSettings,
    /// Add-ons run in the tenant.
    #[serde(skip_serializing_if = "AddonSettings::is_empty")]
    pub addons: AddonSettings,
    /// When to restart the pods.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rollout: Option<Rollout>,
    /// Declared because a topology may write it. It has no effect: a hosted control plane has no Machines.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub machine_template: Option<MachineTemplate>,
}

impl Default for ControlPlaneSettings {
    fn default() -> Self {
        Self {
            data_store_name: None,
            data_store_schema: None,
            data_store_username: None,
            data_store_overrides: Vec::new(),
            registry: "registry.k8s.io".to_owned(),
            network: NetworkSettings::default(),
            deployment: DeploymentSettings::default(),
            api_server: ComponentSettings::default(),
            controller_manager: ComponentSettings::default(),
            scheduler: ComponentSettings::default(),
            kine: KineSettings::default(),
            admission_controllers: Vec::new(),
            kubelet: KubeletSettings::default(),
            addons: AddonSettings::default(),
            rollout: None,
            machine_template: None,
        }
    }
}

/// The pods.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
#[schemars(inline)]
pub struct DeploymentSettings {
    /// Node labels the pods want.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub node_selector: BTreeMap<String, String>,
    /// RuntimeClass of the pods.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub runtime_class_name: Option<String>,
    /// Metadata of the Deployment.
    #[serde(skip_serializing_if = "AdditionalMetadata::is_empty")]
    pub additional_metadata: AdditionalMetadata,
    /// Metadata of the pods.
    #[serde(skip_serializing_if = "AdditionalMetadata::is_empty")]
    pub pod_additional_metadata: AdditionalMetadata,
    /// ServiceAccount of the pods.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub service_account_name: Option<String>,
    /// How pods are replaced.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub strategy: Option<DeploymentStrategy>,
    /// Affinity of the pods.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub affinity: Option<Affinity>,
    /// Tolerations of the pods.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub tolerations: Vec<Toleration>,
    /// Spread of the pods.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub topology_spread_constraints: Vec<TopologySpreadConstraint>,
    /// Timings of the probes of every component.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub probes: Option<ProbeSet>,
    /// Init containers placed before the engine's.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub extra_init_containers: Vec<Container>,
    /// Containers placed before the engine's.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub extra_containers: Vec<Container>,
    /// Volumes placed before the engine's.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub extra_volumes: Vec<Volume>,
    /// Another management cluster that runs the pods. Accepted, not supported yet.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub external_cluster_reference: Option<ExternalClusterReference>,
}

impl DeploymentSettings {
    /// Whether nothing is set.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

/// Another management cluster.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(inline)]
pub struct ExternalClusterReference {
    /// Namespace of the pods there.
    pub deployment_namespace: String,
    /// Name of the Secret with its kubeconfig.
    #[schemars(length(min = 1))]
    pub kubeconfig_secret_name: String,
    /// Key of the Secret.
    #[schemars(length(min = 1))]
    pub kubeconfig_secret_key: String,
    /// Namespace of the Secret; the object's own when left out.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub kubeconfig_secret_namespace: Option<String>,
}

/// One component.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
#[schemars(inline)]
pub struct ComponentSettings {
    /// Name of the image, without registry and tag.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1))]
    pub container_image_name: Option<String>,
    /// Flags `--name=value`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub extra_args: Vec<String>,
    /// Mounts added to the container.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub extra_volume_mounts: Vec<VolumeMount>,
    /// Timings of the probes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub probes: Option<ProbeSet>,
    /// Resources of the container.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub resources: Option<ResourceRequirements>,
}

impl ComponentSettings {
    /// Whether nothing is set.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

/// kine.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
#[schemars(inline)]
pub struct KineSettings {
    /// Flags `--name=value`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub extra_args: Vec<String>,
    /// Resources of the container.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub resources: Option<ResourceRequirements>,
}

impl KineSettings {
    /// Whether nothing is set.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

/// What the control plane says about kubelets.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
#[schemars(inline)]
pub struct KubeletSettings {
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

impl Default for KubeletSettings {
    fn default() -> Self {
        Self {
            preferred_address_types: default_address_types(),
            cgroupfs: Some(CgroupDriver::Systemd),
            configuration_json_patches: Vec::new(),
        }
    }
}

/// Add-ons run in the tenant; absent means off.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
#[schemars(inline)]
pub struct AddonSettings {
    /// Cluster DNS.
    #[serde(rename = "coreDNS", skip_serializing_if = "Option::is_none")]
    pub core_dns: Option<CoreDnsSettings>,
    /// Service proxy.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub kube_proxy: Option<AddonImage>,
    /// Tunnel to nodes and pods. Accepted, not supported yet.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub konnectivity: Option<Konnectivity>,
}

impl AddonSettings {
    /// Whether no add-on is asked for.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

/// Cluster DNS.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
#[schemars(inline)]
pub struct CoreDnsSettings {
    /// Repository the image is pulled from, without the image's name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub image_repository: Option<String>,
    /// Tag of the image.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub image_tag: Option<String>,
    /// Addresses of cluster DNS; `network.dnsServiceIPs` takes precedence.
    #[serde(rename = "dnsServiceIPs", skip_serializing_if = "Vec::is_empty")]
    pub dns_service_ips: Vec<String>,
}
