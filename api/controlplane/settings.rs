//! Settings that KamajiControlPlane and its template have in common. The fields are those of the Go provider.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::{
    machine::{MachineTemplate, Rollout},
    network::NetworkSettings,
};
use crate::{
    addons::{AddonImage, Konnectivity},
    admission::AdmissionPlugin,
    datastore::{NAME_RULES, SCHEMA_RULES},
    kubelet::{AddressType, CgroupDriver, JsonPatch, default_address_types},
    metadata::AdditionalMetadata,
    pod::{
        Affinity, Container, DeploymentStrategy, ResourceRequirements, Toleration, TopologySpreadConstraint,
        Volume, VolumeMount,
    },
    probes::ProbeSet,
    schema::cel,
    tenantcontrolplane::DataStoreOverride,
};

/// Settings of a control plane that a template can contain as well.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
#[schemars(inline)]
pub struct ControlPlaneSettings {
    /// Name of the DataStore. Defaults to the default DataStore of the engine.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub data_store_name: Option<String>,
    /// Key prefix in etcd, or database in SQL. Generated once if omitted.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 253), extend("x-kubernetes-validations" = cel(&SCHEMA_RULES[1..])))]
    pub data_store_schema: Option<String>,
    /// User in the DataStore. Generated once if omitted. Immutable.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 253), extend("x-kubernetes-validations" = cel(NAME_RULES)))]
    pub data_store_username: Option<String>,
    /// Other DataStores for single resources. Accepted but has no effect yet.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub data_store_overrides: Vec<DataStoreOverride>,
    /// Image registry and repository prefix.
    pub registry: String,
    /// Addresses, ports and exposure of the API server.
    #[schemars(extend("default" = json!({"serviceType": "LoadBalancer"})))]
    pub network: NetworkSettings,
    /// Settings of the control plane pods.
    #[serde(skip_serializing_if = "DeploymentSettings::is_empty")]
    pub deployment: DeploymentSettings,
    /// Settings of kube-apiserver.
    #[serde(skip_serializing_if = "ComponentSettings::is_empty")]
    pub api_server: ComponentSettings,
    /// Settings of kube-controller-manager.
    #[serde(skip_serializing_if = "ComponentSettings::is_empty")]
    pub controller_manager: ComponentSettings,
    /// Settings of kube-scheduler.
    #[serde(skip_serializing_if = "ComponentSettings::is_empty")]
    pub scheduler: ComponentSettings,
    /// Settings of kine, which SQL and NATS DataStores use. Accepted but has no effect yet.
    #[serde(skip_serializing_if = "KineSettings::is_empty")]
    pub kine: KineSettings,
    /// Admission plugins to enable. Defaults to the default list of the engine. NodeRestriction is always enabled in
    /// addition.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub admission_controllers: Vec<AdmissionPlugin>,
    /// Kubelet settings.
    pub kubelet: KubeletSettings,
    /// Add-ons of the workload cluster.
    #[serde(skip_serializing_if = "AddonSettings::is_empty")]
    pub addons: AddonSettings,
    /// When to restart the pods.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rollout: Option<Rollout>,
    /// Declared because a topology may set it. Has no effect: a hosted control plane has no Machines.
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

/// Settings of the control plane pods.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
#[schemars(inline)]
pub struct DeploymentSettings {
    /// Node selector of the pods.
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
    /// Topology spread constraints of the pods.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub topology_spread_constraints: Vec<TopologySpreadConstraint>,
    /// Timings of the probes of all components.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub probes: Option<ProbeSet>,
    /// Init containers that run before those of the engine.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub extra_init_containers: Vec<Container>,
    /// Containers that are placed before those of the engine.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub extra_containers: Vec<Container>,
    /// Volumes that are placed before those of the engine.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub extra_volumes: Vec<Volume>,
    /// Another management cluster that runs the pods. Not supported yet: a control plane with it is left as it is.
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
    /// Namespace of the pods in that cluster.
    pub deployment_namespace: String,
    /// Name of the Secret with the kubeconfig of that cluster.
    #[schemars(length(min = 1))]
    pub kubeconfig_secret_name: String,
    /// Key of the Secret.
    #[schemars(length(min = 1))]
    pub kubeconfig_secret_key: String,
    /// Namespace of the Secret. Defaults to the namespace of the object.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub kubeconfig_secret_namespace: Option<String>,
}

/// Settings of one component.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
#[schemars(inline)]
pub struct ComponentSettings {
    /// Name of the image, without registry and tag.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1))]
    pub container_image_name: Option<String>,
    /// Flags, each as `--name=value`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub extra_args: Vec<String>,
    /// Volume mounts that are added to the container.
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

/// Settings of kine.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
#[schemars(inline)]
pub struct KineSettings {
    /// Flags, each as `--name=value`.
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

/// Kubelet settings.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
#[schemars(inline)]
pub struct KubeletSettings {
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

impl Default for KubeletSettings {
    fn default() -> Self {
        Self {
            preferred_address_types: default_address_types(),
            cgroupfs: Some(CgroupDriver::Systemd),
            configuration_json_patches: Vec::new(),
        }
    }
}

/// Add-ons of the workload cluster. An add-on that is omitted is off.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
#[schemars(inline)]
pub struct AddonSettings {
    /// CoreDNS, the cluster DNS.
    #[serde(rename = "coreDNS", skip_serializing_if = "Option::is_none")]
    pub core_dns: Option<CoreDnsSettings>,
    /// kube-proxy, the Service proxy.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub kube_proxy: Option<AddonImage>,
    /// Konnectivity, a tunnel from the API server to nodes and pods.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub konnectivity: Option<Konnectivity>,
}

impl AddonSettings {
    /// Whether no add-on is set.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

/// CoreDNS, the cluster DNS.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
#[schemars(inline)]
pub struct CoreDnsSettings {
    /// Repository of the image, without the name of the image.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub image_repository: Option<String>,
    /// Tag of the image.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub image_tag: Option<String>,
    /// IP addresses of the cluster DNS Service. `network.dnsServiceIPs` takes precedence.
    #[serde(rename = "dnsServiceIPs", skip_serializing_if = "Vec::is_empty")]
    pub dns_service_ips: Vec<String>,
}
