//! `spec.controlPlane`: the pods of a tenant, and the objects that expose them. The fields are Kamaji's.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::json;

use crate::{
    gateway::{HOSTNAME, ParentReference},
    metadata::AdditionalMetadata,
    pod::{
        Affinity, Container, DeploymentStrategy, PodSecurityContext, ResourceRequirements, SecurityContext,
        Toleration, TopologySpreadConstraint, Volume, VolumeMount,
    },
    probes::ControlPlaneProbes,
    schema::cel,
    service::{AdditionalPort, ServiceType},
};

/// The control plane pods and their exposure.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(inline, extend("x-kubernetes-validations" = cel(&[
    ("!(has(self.ingress) && has(self.gateway))", "ingress and gateway exclude each other; remove one"),
])))]
pub struct ControlPlane {
    /// The Deployment of the control plane pods.
    #[serde(default)]
    pub deployment: DeploymentSpec,
    /// The Service.
    pub service: ServiceSpec,
    /// An Ingress in front of the Service. Accepted but has no effect yet.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ingress: Option<IngressSpec>,
    /// A TLSRoute in front of the Service. Accepted but has no effect yet.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub gateway: Option<GatewaySpec>,
}

/// The Deployment of kube-apiserver, kube-controller-manager and kube-scheduler.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
#[schemars(inline)]
pub struct DeploymentSpec {
    /// Sources of the images: `<registry>/<name>:<version><tagSuffix>`.
    pub registry_settings: RegistrySettings,
    /// Number of pods; 0 puts the control plane to sleep.
    pub replicas: i32,
    /// Node selector of the pods.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub node_selector: BTreeMap<String, String>,
    /// RuntimeClass of the pods.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub runtime_class_name: Option<String>,
    /// Tolerations of the pods.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub tolerations: Vec<Toleration>,
    /// Affinity of the pods.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub affinity: Option<Affinity>,
    /// Topology spread constraints of the pods. An entry without a labelSelector selects the pods of the tenant.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub topology_spread_constraints: Vec<TopologySpreadConstraint>,
    /// How pods are replaced.
    pub strategy: DeploymentStrategy,
    /// Resources of each container.
    #[serde(skip_serializing_if = "ComponentResources::is_empty")]
    pub resources: ComponentResources,
    /// Flags of each container, each as `--name=value`.
    #[serde(skip_serializing_if = "ComponentArgs::is_empty")]
    pub extra_args: ComponentArgs,
    /// Metadata of the Deployment.
    #[serde(skip_serializing_if = "AdditionalMetadata::is_empty")]
    pub additional_metadata: AdditionalMetadata,
    /// Metadata of the pods.
    #[serde(skip_serializing_if = "AdditionalMetadata::is_empty")]
    pub pod_additional_metadata: AdditionalMetadata,
    /// Init containers that run before those of the engine.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub additional_init_containers: Vec<Container>,
    /// Containers that are placed before those of the engine. A container named `kine` only sets the image of kine.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub additional_containers: Vec<Container>,
    /// Volumes that are placed before those of the engine.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub additional_volumes: Vec<Volume>,
    /// Volume mounts that are added to the containers of the engine.
    #[serde(skip_serializing_if = "ComponentVolumeMounts::is_empty")]
    pub additional_volume_mounts: ComponentVolumeMounts,
    /// Timings of the probes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub probes: Option<ControlPlaneProbes>,
    /// ServiceAccount of the pods.
    pub service_account_name: String,
    /// Whether to mount the token of the ServiceAccount. Defaults to false.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub automount_service_account_token: Option<bool>,
    /// Security contexts of the containers of the engine.
    #[serde(skip_serializing_if = "ComponentSecurityContexts::is_empty")]
    pub container_security_contexts: ComponentSecurityContexts,
    /// Security context of the pods.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pod_security_context: Option<PodSecurityContext>,
}

impl Default for DeploymentSpec {
    fn default() -> Self {
        Self {
            registry_settings: RegistrySettings::default(),
            replicas: 2,
            node_selector: BTreeMap::new(),
            runtime_class_name: None,
            tolerations: Vec::new(),
            affinity: None,
            topology_spread_constraints: Vec::new(),
            strategy: default_strategy(),
            resources: ComponentResources::default(),
            extra_args: ComponentArgs::default(),
            additional_metadata: AdditionalMetadata::default(),
            pod_additional_metadata: AdditionalMetadata::default(),
            additional_init_containers: Vec::new(),
            additional_containers: Vec::new(),
            additional_volumes: Vec::new(),
            additional_volume_mounts: ComponentVolumeMounts::default(),
            probes: None,
            service_account_name: "default".to_owned(),
            automount_service_account_token: None,
            container_security_contexts: ComponentSecurityContexts::default(),
            pod_security_context: None,
        }
    }
}

/// Kamaji's default of the field. The engine treats exactly this value as unset and surges by one pod, because a
/// surge of 100 % would double the control plane during every rollout.
pub fn default_strategy() -> DeploymentStrategy {
    DeploymentStrategy(json!({
        "type": "RollingUpdate",
        "rollingUpdate": {"maxSurge": "100%", "maxUnavailable": 0},
    }))
}

/// Sources of the images.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
#[schemars(inline)]
pub struct RegistrySettings {
    /// Image registry and repository prefix.
    pub registry: String,
    /// Suffix of the tag after the version.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tag_suffix: Option<String>,
    /// Name of the image of kube-apiserver.
    pub api_server_image: String,
    /// Name of the image of kube-controller-manager.
    pub controller_manager_image: String,
    /// Name of the image of kube-scheduler.
    pub scheduler_image: String,
}

impl Default for RegistrySettings {
    fn default() -> Self {
        Self {
            registry: "registry.k8s.io".to_owned(),
            tag_suffix: None,
            api_server_image: "kube-apiserver".to_owned(),
            controller_manager_image: "kube-controller-manager".to_owned(),
            scheduler_image: "kube-scheduler".to_owned(),
        }
    }
}

/// Declares a struct with one field for each component, and `is_empty`.
macro_rules! per_component {
    ($( $(#[$doc:meta])* $name:ident { $( $(#[$attr:meta])* $field:ident: $ty:ty = $doc_field:literal ),+ $(,)? } )+) => { $(
        $(#[$doc])*
        #[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
        #[serde(rename_all = "camelCase", default)]
        #[schemars(inline)]
        pub struct $name { $( #[doc = $doc_field] $(#[$attr])* pub $field: $ty ),+ }

        impl $name {
            /// Whether nothing is set.
            pub fn is_empty(&self) -> bool {
                *self == Self::default()
            }
        }
    )+ };
}

per_component! {
    /// Resources of each container. None by default.
    ComponentResources {
        #[serde(skip_serializing_if = "Option::is_none")]
        api_server: Option<ResourceRequirements> = "kube-apiserver.",
        #[serde(skip_serializing_if = "Option::is_none")]
        controller_manager: Option<ResourceRequirements> = "kube-controller-manager.",
        #[serde(skip_serializing_if = "Option::is_none")]
        scheduler: Option<ResourceRequirements> = "kube-scheduler.",
        #[serde(skip_serializing_if = "Option::is_none")]
        kine: Option<ResourceRequirements> = "kine, with SQL and NATS stores.",
    }
    /// Flags of each container.
    ComponentArgs {
        #[serde(skip_serializing_if = "Vec::is_empty")]
        api_server: Vec<String> = "kube-apiserver.",
        #[serde(skip_serializing_if = "Vec::is_empty")]
        controller_manager: Vec<String> = "kube-controller-manager.",
        #[serde(skip_serializing_if = "Vec::is_empty")]
        scheduler: Vec<String> = "kube-scheduler.",
        #[serde(skip_serializing_if = "Vec::is_empty")]
        kine: Vec<String> = "kine, with SQL and NATS stores.",
    }
    /// Volume mounts that are added to the containers of the engine.
    ComponentVolumeMounts {
        #[serde(skip_serializing_if = "Vec::is_empty")]
        api_server: Vec<VolumeMount> = "kube-apiserver.",
        #[serde(skip_serializing_if = "Vec::is_empty")]
        controller_manager: Vec<VolumeMount> = "kube-controller-manager.",
        #[serde(skip_serializing_if = "Vec::is_empty")]
        scheduler: Vec<VolumeMount> = "kube-scheduler.",
    }
    /// Security contexts of the containers of the engine.
    ComponentSecurityContexts {
        #[serde(skip_serializing_if = "Option::is_none")]
        api_server: Option<SecurityContext> = "kube-apiserver.",
        #[serde(skip_serializing_if = "Option::is_none")]
        controller_manager: Option<SecurityContext> = "kube-controller-manager.",
        #[serde(skip_serializing_if = "Option::is_none")]
        scheduler: Option<SecurityContext> = "kube-scheduler.",
    }
}

/// The Service in front of the pods.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(inline)]
pub struct ServiceSpec {
    /// How the API server is exposed.
    pub service_type: ServiceType,
    /// Metadata of the Service.
    #[serde(default, skip_serializing_if = "AdditionalMetadata::is_empty")]
    pub additional_metadata: AdditionalMetadata,
    /// Ports of the Service in addition to the port of the API server.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub additional_ports: Vec<AdditionalPort>,
    /// Whether to allocate node ports for a load balancer. Only with service type `LoadBalancer`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub allocate_load_balancer_node_ports: Option<bool>,
}

/// An Ingress in front of the Service.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
#[schemars(inline)]
pub struct IngressSpec {
    /// Metadata of the Ingress.
    #[serde(skip_serializing_if = "AdditionalMetadata::is_empty")]
    pub additional_metadata: AdditionalMetadata,
    /// Class of the Ingress.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ingress_class_name: Option<String>,
    /// Host name, as `host` or `host:port`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hostname: Option<String>,
}

/// A TLSRoute in front of the Service.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
#[schemars(inline)]
pub struct GatewaySpec {
    /// Metadata of the route.
    #[serde(skip_serializing_if = "AdditionalMetadata::is_empty")]
    pub additional_metadata: AdditionalMetadata,
    /// Host name of the route.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253), regex(pattern = HOSTNAME))]
    pub hostname: Option<String>,
    /// Gateways that the route attaches to.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub parent_refs: Vec<ParentReference>,
}
