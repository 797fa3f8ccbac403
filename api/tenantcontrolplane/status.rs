//! `status` of TenantControlPlane: Kamaji's paths, read by the Go provider too, and conditions beside them.
//! Source: hosting.md 1.1, 1.2 and 8; DESIGN 6.

use crate::gateway::GatewayStatus;
use k8s_openapi::api::apps::v1::DeploymentCondition;
use k8s_openapi::api::core::v1::LoadBalancerStatus;
use k8s_openapi::api::networking::v1::IngressLoadBalancerStatus;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Observed state of a hosted control plane.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct TenantControlPlaneStatus {
    /// Generation of the spec that was last brought about in full.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// Conditions; types and reasons are listed in the project's `api/conditions.rs`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "crate::crd::conditions")]
    pub conditions: Vec<Condition>,
    /// The tenant's place in its DataStore.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub storage: Option<StorageStatus>,
    /// Certificates and keys.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub certificates: Option<CertificatesStatus>,
    /// Kubeconfigs.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub kubeconfig: Option<KubeconfigsStatus>,
    /// Kamaji's kubeadm configuration.
    #[serde(rename = "kubeadmconfig", skip_serializing_if = "Option::is_none")]
    pub kubeadm_config: Option<KubeadmConfigStatus>,
    /// Kamaji's kubeadm phases inside the tenant.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub kubeadm_phase: Option<KubeadmPhaseStatus>,
    /// Objects in the management cluster.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub kubernetes_resources: Option<KubernetesResourcesStatus>,
    /// `host:port` under which the API server is reached from the management cluster.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub control_plane_endpoint: Option<String>,
    /// Add-ons in the tenant.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub addons: Option<AddonsStatus>,
}

/// The tenant's place in its DataStore.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
#[schemars(inline)]
pub struct StorageStatus {
    /// Driver of the DataStore.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub driver: Option<String>,
    /// Name of the DataStore in use.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub data_store_name: Option<String>,
    /// Secret with the connection.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub config: Option<StorageConfigStatus>,
    /// What was set up; schema and user never change once they stand here.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub setup: Option<StorageSetupStatus>,
    /// Secret with the client certificate.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub certificate: Option<SecretStatus>,
}

/// Secret with the connection to the DataStore.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
#[schemars(inline)]
pub struct StorageConfigStatus {
    /// Name of the Secret.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub secret_name: Option<String>,
    /// Digest of its data.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub checksum: Option<String>,
}

/// What was set up in the DataStore.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
#[schemars(inline)]
pub struct StorageSetupStatus {
    /// Key prefix and role in etcd, database in SQL.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub schema: Option<String>,
    /// User.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub user: Option<String>,
    /// Digest of the connection that this setup belongs to.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub checksum: Option<String>,
    /// Time of the last change.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_update: Option<Time>,
}

/// A Secret made by the engine.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
#[schemars(inline)]
pub struct SecretStatus {
    /// Name of the Secret.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub secret_name: Option<String>,
    /// Digest of its data.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub checksum: Option<String>,
    /// Time of the last change.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_update: Option<Time>,
}

/// Certificates and keys of a tenant.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
#[schemars(inline)]
pub struct CertificatesStatus {
    /// Cluster CA.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ca: Option<SecretStatus>,
    /// Serving certificate of kube-apiserver.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub api_server: Option<SecretStatus>,
    /// Client certificate of kube-apiserver towards kubelets.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub api_server_kubelet_client: Option<SecretStatus>,
    /// Front-proxy CA.
    #[serde(rename = "frontProxyCA", skip_serializing_if = "Option::is_none")]
    pub front_proxy_ca: Option<SecretStatus>,
    /// Front-proxy client certificate.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub front_proxy_client: Option<SecretStatus>,
    /// Key pair of ServiceAccount tokens.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sa: Option<SecretStatus>,
    /// Kamaji's legacy, never set.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub etcd: Option<EtcdCertificatesStatus>,
}

/// Kamaji's legacy.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
#[schemars(inline)]
pub struct EtcdCertificatesStatus {
    /// Client certificate of kube-apiserver.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub api_server: Option<SecretStatus>,
    /// CA of etcd.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ca: Option<SecretStatus>,
}

/// Kubeconfigs of a tenant.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
#[schemars(inline)]
pub struct KubeconfigsStatus {
    /// Administrators.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub admin: Option<SecretStatus>,
    /// kube-controller-manager.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub controller_manager: Option<SecretStatus>,
    /// kube-scheduler.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub scheduler: Option<SecretStatus>,
}

/// ConfigMap with the kubeadm configuration.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
#[schemars(inline)]
pub struct KubeadmConfigStatus {
    /// Name of the ConfigMap.
    #[serde(rename = "configmapName", skip_serializing_if = "Option::is_none")]
    pub config_map_name: Option<String>,
    /// Digest of its data.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub checksum: Option<String>,
    /// Time of the last change.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_update: Option<Time>,
}

/// Kubeadm phases.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(inline)]
pub struct KubeadmPhaseStatus {
    /// Rights of bootstrap tokens.
    pub bootstrap_token: PhaseStatus,
}

/// One kubeadm phase.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
#[schemars(inline)]
pub struct PhaseStatus {
    /// Digest of what was applied.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub checksum: Option<String>,
    /// Time of the last change.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_update: Option<Time>,
}

/// Objects in the management cluster.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
#[schemars(inline)]
pub struct KubernetesResourcesStatus {
    /// Version that runs, and the phase.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub version: Option<VersionStatus>,
    /// The Deployment.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub deployment: Option<DeploymentStatus>,
    /// The Service.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub service: Option<ServiceStatus>,
    /// The Ingress.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ingress: Option<IngressStatus>,
    /// The route.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub gateway: Option<GatewayStatus>,
}

/// Version that runs, and the phase.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
#[schemars(inline)]
pub struct VersionStatus {
    /// Version last rolled out in full, spelled as in the spec it came from.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = crate::crd::VERSION_LENGTH))]
    pub version: Option<String>,
    /// Phase.
    pub status: VersionPhase,
}

/// Phase of a tenant, Kamaji's nine values (hosting.md 1.2).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[schemars(inline)]
pub enum VersionPhase {
    /// A rollout that is none of the others.
    Unknown,
    /// Nothing was ready yet.
    #[default]
    Provisioning,
    /// The CA was replaced and everything below it follows.
    CertificateAuthorityRotating,
    /// Another version is being rolled out.
    Upgrading,
    /// Data moves to another DataStore.
    Migrating,
    /// All pods run what was asked for.
    Ready,
    /// No pod is ready.
    NotReady,
    /// Replicas are 0.
    Sleeping,
    /// Writes are refused.
    WriteLimited,
}

impl VersionPhase {
    /// The name as it stands in the object.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Unknown => "Unknown",
            Self::Provisioning => "Provisioning",
            Self::CertificateAuthorityRotating => "CertificateAuthorityRotating",
            Self::Upgrading => "Upgrading",
            Self::Migrating => "Migrating",
            Self::Ready => "Ready",
            Self::NotReady => "NotReady",
            Self::Sleeping => "Sleeping",
            Self::WriteLimited => "WriteLimited",
        }
    }
}

/// The Deployment: apps/v1 DeploymentStatus and where it is.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(inline)]
pub struct DeploymentStatus {
    /// Name of the Deployment.
    pub name: String,
    /// Namespace of the Deployment.
    pub namespace: String,
    /// Serialized label selector of its pods.
    pub selector: String,
    /// Time of the last change.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_update: Option<Time>,
    /// Generation seen by the Deployment controller.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// Pods.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub replicas: Option<i32>,
    /// Pods of the current template.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub updated_replicas: Option<i32>,
    /// Ready pods.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ready_replicas: Option<i32>,
    /// Available pods.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub available_replicas: Option<i32>,
    /// Pods still missing.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub unavailable_replicas: Option<i32>,
    /// Pods that are going.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub terminating_replicas: Option<i32>,
    /// Collisions of template digests.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub collision_count: Option<i32>,
    /// Conditions of the Deployment.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "crate::pod::deployment_conditions")]
    pub conditions: Vec<DeploymentCondition>,
}

/// The Service: core/v1 ServiceStatus and where it is.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(inline)]
pub struct ServiceStatus {
    /// Name of the Service.
    pub name: String,
    /// Namespace of the Service.
    pub namespace: String,
    /// Port of the API server.
    pub port: i32,
    /// Addresses of the load balancer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "crate::pod::load_balancer_status")]
    pub load_balancer: Option<LoadBalancerStatus>,
    /// Conditions of the Service.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "crate::crd::conditions")]
    pub conditions: Vec<Condition>,
}

/// The Ingress: networking.k8s.io/v1 IngressStatus and where it is.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(inline)]
pub struct IngressStatus {
    /// Name of the Ingress.
    pub name: String,
    /// Namespace of the Ingress.
    pub namespace: String,
    /// Addresses of the Ingress.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "crate::pod::ingress_load_balancer_status")]
    pub load_balancer: Option<IngressLoadBalancerStatus>,
}

/// Add-ons in the tenant.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
#[schemars(inline)]
pub struct AddonsStatus {
    /// CoreDNS.
    #[serde(rename = "coreDNS", skip_serializing_if = "Option::is_none")]
    pub core_dns: Option<AddonStatus>,
    /// kube-proxy.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub kube_proxy: Option<AddonStatus>,
    /// Konnectivity.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub konnectivity: Option<KonnectivityStatus>,
}

/// One add-on.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(inline)]
pub struct AddonStatus {
    /// Whether it is on.
    pub enabled: bool,
    /// Time of the last change.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_update: Option<Time>,
}

/// Konnectivity.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(inline)]
pub struct KonnectivityStatus {
    /// Whether it is on.
    pub enabled: bool,
    /// Egress selector configuration.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub config_map: Option<KonnectivityConfigMapStatus>,
    /// Certificate of the server.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub certificate: Option<SecretStatus>,
    /// Kubeconfig of the server.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub kubeconfig: Option<SecretStatus>,
    /// ServiceAccount of the agents.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sa: Option<ExternalObjectStatus>,
    /// Rights of the server.
    #[serde(rename = "clusterrolebinding", skip_serializing_if = "Option::is_none")]
    pub cluster_role_binding: Option<ExternalObjectStatus>,
    /// The agents.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub agent: Option<KonnectivityAgentStatus>,
    /// The Service.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub service: Option<ServiceStatus>,
    /// The route.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub gateway: Option<GatewayStatus>,
}

/// A ConfigMap in the management cluster.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
#[schemars(inline)]
pub struct KonnectivityConfigMapStatus {
    /// Name of the ConfigMap.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Digest of its data.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub checksum: Option<String>,
}

/// An object inside the tenant.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
#[schemars(inline)]
pub struct ExternalObjectStatus {
    /// Name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Namespace.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub namespace: Option<String>,
    /// Time of the last change.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_update: Option<Time>,
}

/// Konnectivity agents inside the tenant.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
#[schemars(inline)]
pub struct KonnectivityAgentStatus {
    /// Name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Namespace.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub namespace: Option<String>,
    /// Workload kind.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mode: Option<String>,
    /// Time of the last change.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_update: Option<Time>,
}
