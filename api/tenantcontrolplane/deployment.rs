//! `spec.controlPlane`: the pods of a tenant and the objects in front of them. Source: hosting.md 1.1.

use crate::crd::cel;
use crate::gateway::{HOSTNAME, ParentReference};
use crate::metadata::AdditionalMetadata;
use crate::pod::{
    Affinity, Container, DeploymentStrategy, PodSecurityContext, ResourceRequirements, SecurityContext,
    Toleration, TopologySpreadConstraint, Volume, VolumeMount,
};
use crate::probes::ControlPlaneProbes;
use crate::service::{AdditionalPort, ServiceType};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::json;
use std::collections::BTreeMap;

/// The pods and how they are reached.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(inline, extend("x-kubernetes-validations" = cel(&[
    ("!(has(self.ingress) && has(self.gateway))", "ingress and gateway exclude each other; remove one"),
])))]
pub struct ControlPlane {
    /// The pods.
    #[serde(default)]
    pub deployment: DeploymentSpec,
    /// The Service.
    pub service: ServiceSpec,
    /// An Ingress in front of the Service. Accepted, not supported yet.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ingress: Option<IngressSpec>,
    /// A TLSRoute in front of the Service. Accepted, not supported yet.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub gateway: Option<GatewaySpec>,
}

/// The Deployment of kube-apiserver, kube-controller-manager and kube-scheduler.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
#[schemars(inline)]
pub struct DeploymentSpec {
    /// Where the images come from: `<registry>/<name>:<version><tagSuffix>`.
    pub registry_settings: RegistrySettings,
    /// Pods; 0 puts the control plane to sleep.
    pub replicas: i32,
    /// Node labels the pods want.
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
    /// Spread of the pods; an entry without labelSelector gets the tenant's.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub topology_spread_constraints: Vec<TopologySpreadConstraint>,
    /// How pods are replaced.
    pub strategy: DeploymentStrategy,
    /// Resources of each container.
    #[serde(skip_serializing_if = "ComponentResources::is_empty")]
    pub resources: ComponentResources,
    /// Flags `--name=value` of each container.
    #[serde(skip_serializing_if = "ComponentArgs::is_empty")]
    pub extra_args: ComponentArgs,
    /// Metadata of the Deployment.
    #[serde(skip_serializing_if = "AdditionalMetadata::is_empty")]
    pub additional_metadata: AdditionalMetadata,
    /// Metadata of the pods.
    #[serde(skip_serializing_if = "AdditionalMetadata::is_empty")]
    pub pod_additional_metadata: AdditionalMetadata,
    /// Init containers placed before the engine's.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub additional_init_containers: Vec<Container>,
    /// Containers placed before the engine's. One named `kine` only gives kine's image.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub additional_containers: Vec<Container>,
    /// Volumes placed before the engine's.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub additional_volumes: Vec<Volume>,
    /// Mounts added to the engine's containers.
    #[serde(skip_serializing_if = "ComponentVolumeMounts::is_empty")]
    pub additional_volume_mounts: ComponentVolumeMounts,
    /// Timings of the probes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub probes: Option<ControlPlaneProbes>,
    /// ServiceAccount of the pods.
    pub service_account_name: String,
    /// Mount the ServiceAccount's token; never unless asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub automount_service_account_token: Option<bool>,
    /// Security contexts of the engine's containers.
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

/// Kamaji's default of the field. The engine reads exactly this value as «not chosen» and surges by one pod (DESIGN 7).
pub fn default_strategy() -> DeploymentStrategy {
    DeploymentStrategy(json!({
        "type": "RollingUpdate",
        "rollingUpdate": {"maxSurge": "100%", "maxUnavailable": 0},
    }))
}

/// Where the images come from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
#[schemars(inline)]
pub struct RegistrySettings {
    /// Registry and path in front of the names.
    pub registry: String,
    /// Text after the version in the tag.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tag_suffix: Option<String>,
    /// Name of kube-apiserver's image.
    pub api_server_image: String,
    /// Name of kube-controller-manager's image.
    pub controller_manager_image: String,
    /// Name of kube-scheduler's image.
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

/// Declares a struct with one field a component, and `is_empty`.
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
    /// Resources of each container; none by default.
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
    /// Mounts added to the engine's containers.
    ComponentVolumeMounts {
        #[serde(skip_serializing_if = "Vec::is_empty")]
        api_server: Vec<VolumeMount> = "kube-apiserver.",
        #[serde(skip_serializing_if = "Vec::is_empty")]
        controller_manager: Vec<VolumeMount> = "kube-controller-manager.",
        #[serde(skip_serializing_if = "Vec::is_empty")]
        scheduler: Vec<VolumeMount> = "kube-scheduler.",
    }
    /// Security contexts of the engine's containers.
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
    /// Ports beside the API server's own.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub additional_ports: Vec<AdditionalPort>,
    /// Allocate node ports for a load balancer; only with `LoadBalancer`.
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
    /// `host` or `host:port`.
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
    /// Gateways the route attaches to.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub parent_refs: Vec<ParentReference>,
}
