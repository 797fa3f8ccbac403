//! `status` of TenantControlPlane: Kamaji's fields, which the Go provider reads too, and conditions.

use k8s_openapi::{
    api::{
        apps::v1::DeploymentCondition, core::v1::LoadBalancerStatus,
        networking::v1::IngressLoadBalancerStatus,
    },
    apimachinery::pkg::apis::meta::v1::{Condition, Time},
};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::gateway::GatewayStatus;

/// Observed state of a hosted control plane.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct TenantControlPlaneStatus {
    /// Generation of the spec that was last applied completely.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// Conditions of the object.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "crate::schema::conditions")]
    pub conditions: Vec<Condition>,
    /// The schema and user of the tenant in its DataStore.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub storage: Option<StorageStatus>,
    /// Certificates and keys.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub certificates: Option<CertificatesStatus>,
    /// Kubeconfigs.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub kubeconfig: Option<KubeconfigsStatus>,
    /// ConfigMap with the kubeadm configuration.
    #[serde(rename = "kubeadmconfig", skip_serializing_if = "Option::is_none")]
    pub kubeadm_config: Option<KubeadmConfigStatus>,
    /// Kubeadm phases that were applied to the workload cluster.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub kubeadm_phase: Option<KubeadmPhaseStatus>,
    /// Objects in the management cluster.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub kubernetes_resources: Option<KubernetesResourcesStatus>,
    /// Endpoint of the API server for clients in the management cluster, as `host:port`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub control_plane_endpoint: Option<String>,
    /// Endpoint of the API server for nodes, as `host:port`: that of `spec.networkProfile.advertiseAddress` where it is
    /// set, else `controlPlaneEndpoint`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub worker_endpoint: Option<String>,
    /// Add-ons of the workload cluster.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub addons: Option<AddonsStatus>,
}

/// The schema and user of the tenant in its DataStore.
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
    /// Secret with the connection settings.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub config: Option<StorageConfigStatus>,
    /// The schema and user that were created. They do not change once they are recorded here.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub setup: Option<StorageSetupStatus>,
    /// Secret with the client certificate.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub certificate: Option<SecretStatus>,
}

/// Secret with the connection settings of the DataStore.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
#[schemars(inline)]
pub struct StorageConfigStatus {
    /// Name of the Secret.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub secret_name: Option<String>,
    /// Digest of the data.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub checksum: Option<String>,
}

/// The schema and user that were created in the DataStore.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
#[schemars(inline)]
pub struct StorageSetupStatus {
    /// Key prefix and role in etcd, or database in SQL.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub schema: Option<String>,
    /// User in the DataStore.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub user: Option<String>,
    /// Digest of the connection settings that this setup belongs to.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub checksum: Option<String>,
    /// Time of the last change.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_update: Option<Time>,
}

/// A Secret that the engine created.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
#[schemars(inline)]
pub struct SecretStatus {
    /// Name of the Secret.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub secret_name: Option<String>,
    /// Digest of the data.
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
    /// Client certificate that kube-apiserver presents to kubelets.
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
    /// Legacy field of Kamaji. Never set.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub etcd: Option<EtcdCertificatesStatus>,
}

/// Legacy fields of Kamaji.
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
    /// Kubeconfig of the admin.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub admin: Option<SecretStatus>,
    /// Kubeconfig of kube-controller-manager.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub controller_manager: Option<SecretStatus>,
    /// Kubeconfig of kube-scheduler.
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
    /// Digest of the data.
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
    /// RBAC rules of bootstrap tokens.
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
    /// Running version, and the phase.
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
    /// The TLSRoute.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub gateway: Option<GatewayStatus>,
}

/// Running version, and the phase.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
#[schemars(inline)]
pub struct VersionStatus {
    /// Version that was last rolled out completely, spelled as in the spec.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = crate::schema::VERSION_LENGTH))]
    pub version: Option<String>,
    /// Phase of the tenant.
    pub status: VersionPhase,
}

/// Phase of a tenant: the nine values that Kamaji defines.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, JsonSchema)]
#[schemars(inline)]
pub enum VersionPhase {
    /// A rollout that is none of the other phases; also what a later version of Kamaji may write.
    Unknown,
    /// No pod was ready yet.
    #[default]
    Provisioning,
    /// The CA was replaced, and the certificates that it issues are being replaced.
    CertificateAuthorityRotating,
    /// Another version is being rolled out.
    Upgrading,
    /// The data moves to another DataStore.
    Migrating,
    /// All pods are ready and match the spec.
    Ready,
    /// No pod is ready.
    NotReady,
    /// The desired number of replicas is 0.
    Sleeping,
    /// Writes are rejected.
    WriteLimited,
}

/// A phase that this version does not know is [`VersionPhase::Unknown`].
impl<'de> Deserialize<'de> for VersionPhase {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        let known = Self::ALL.into_iter().find(|phase| phase.as_str() == text);
        Ok(known.unwrap_or(Self::Unknown))
    }
}

impl VersionPhase {
    /// Every phase.
    pub const ALL: [Self; 9] = [
        Self::Unknown,
        Self::Provisioning,
        Self::CertificateAuthorityRotating,
        Self::Upgrading,
        Self::Migrating,
        Self::Ready,
        Self::NotReady,
        Self::Sleeping,
        Self::WriteLimited,
    ];

    /// The value as it is spelled in the object.
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

/// The Deployment: apps/v1 DeploymentStatus with name and namespace.
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
    /// Generation that the Deployment controller observed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// Number of pods.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub replicas: Option<i32>,
    /// Number of pods of the current pod template.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub updated_replicas: Option<i32>,
    /// Number of ready pods.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ready_replicas: Option<i32>,
    /// Number of available pods.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub available_replicas: Option<i32>,
    /// Number of pods that are missing.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub unavailable_replicas: Option<i32>,
    /// Number of pods that are terminating.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub terminating_replicas: Option<i32>,
    /// Number of hash collisions of the pod template.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub collision_count: Option<i32>,
    /// Conditions of the Deployment.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "crate::pod::deployment_conditions")]
    pub conditions: Vec<DeploymentCondition>,
}

/// The Service: core/v1 ServiceStatus with name and namespace.
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
    #[schemars(schema_with = "crate::schema::conditions")]
    pub conditions: Vec<Condition>,
}

/// The Ingress: networking.k8s.io/v1 IngressStatus with name and namespace.
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

/// Add-ons of the workload cluster.
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

/// State of an add-on.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(inline)]
pub struct AddonStatus {
    /// Whether the add-on is on.
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
    /// Whether the add-on is on.
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
    /// RBAC rules of the server.
    #[serde(rename = "clusterrolebinding", skip_serializing_if = "Option::is_none")]
    pub cluster_role_binding: Option<ExternalObjectStatus>,
    /// The agents.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub agent: Option<KonnectivityAgentStatus>,
    /// The Service.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub service: Option<ServiceStatus>,
    /// The TLSRoute.
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
    /// Digest of the data.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub checksum: Option<String>,
}

/// An object in the workload cluster.
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

/// Konnectivity agents in the workload cluster.
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
