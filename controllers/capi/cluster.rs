//! The fields of `Cluster` (cluster.x-k8s.io/v1beta2) that the providers read. Source of the rules:
//! <https://cluster-api.sigs.k8s.io/developer/providers/contracts/overview>.

use kamaji_api::controlplane::Endpoint;
use kube::CustomResource;
use serde::{Deserialize, Deserializer, Serialize};

/// Fields of `spec`.
#[derive(CustomResource, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[kube(
    group = "cluster.x-k8s.io",
    version = "v1beta2",
    kind = "Cluster",
    plural = "clusters",
    namespaced,
    schema = "disabled",
    status = "ClusterStatus",
    derive = "PartialEq",
    derive = "Default"
)]
#[serde(rename_all = "camelCase", default)]
pub struct ClusterSpec {
    /// All objects of the Cluster are paused.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub paused: Option<bool>,
    /// IP ranges, port and DNS domain.
    pub cluster_network: ClusterNetwork,
    /// Set by the user, or copied by Cluster API core from the control plane or infrastructure object; then immutable.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub control_plane_endpoint: Option<Endpoint>,
    /// The control plane object.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub control_plane_ref: Option<Reference>,
    /// The infrastructure object.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub infrastructure_ref: Option<Reference>,
    /// Set if the Cluster has a ClusterClass.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub topology: Option<Topology>,
}

/// Fields of `spec.clusterNetwork`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ClusterNetwork {
    /// Port of the API server; 0 if not set.
    pub api_server_port: i32,
    /// Service ranges.
    pub services: NetworkRanges,
    /// Pod ranges.
    pub pods: NetworkRanges,
    /// DNS domain; empty if not set.
    pub service_domain: String,
}

/// IP ranges of one kind.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct NetworkRanges {
    /// CIDR blocks.
    pub cidr_blocks: Vec<String>,
}

/// A reference without a version: the labels of the CRD name the version for each contract.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Reference {
    /// API group.
    pub api_group: String,
    /// Kind.
    pub kind: String,
    /// Name in the same namespace.
    pub name: String,
}

/// `spec.topology`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Topology {
    /// Desired Kubernetes version.
    pub version: String,
}

/// Fields of `status`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ClusterStatus {
    /// Fields that become true once and stay true.
    pub initialization: ClusterInitialization,
    /// Worker Machines, those of MachinePools included.
    pub workers: ClusterWorkers,
    /// The condition `InfrastructureReady` alone.
    #[serde(
        deserialize_with = "infrastructure_ready",
        skip_serializing_if = "Vec::is_empty"
    )]
    pub conditions: Vec<ClusterCondition>,
}

/// The part of a condition that is read.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct ClusterCondition {
    /// Type.
    #[serde(rename = "type")]
    pub type_: String,
    /// Reason.
    pub reason: String,
}

fn infrastructure_ready<'de, D: Deserializer<'de>>(from: D) -> Result<Vec<ClusterCondition>, D::Error> {
    let mut all = Vec::<ClusterCondition>::deserialize(from)?;
    all.retain(|condition| condition.type_ == "InfrastructureReady");
    Ok(all)
}

/// Counts of worker Machines.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ClusterWorkers {
    /// Machines that are Ready.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ready_replicas: Option<i32>,
}

/// Fields that become true once and stay true.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ClusterInitialization {
    /// The infrastructure object is provisioned.
    pub infrastructure_provisioned: bool,
    /// The control plane object is initialized.
    pub control_plane_initialized: bool,
}

impl Reference {
    /// For people: `Kind name`.
    pub fn text(&self) -> String {
        format!("{} {}", self.kind, self.name)
    }
}

impl Cluster {
    /// The control plane endpoint, if host and port are set.
    pub fn endpoint(&self) -> Option<&Endpoint> {
        self.spec
            .control_plane_endpoint
            .as_ref()
            .filter(|endpoint| endpoint.is_valid())
    }

    /// Whether the infrastructure object is provisioned.
    pub fn infrastructure_provisioned(&self) -> bool {
        self.status
            .as_ref()
            .is_some_and(|status| status.initialization.infrastructure_provisioned)
    }

    /// Cluster API looked for the infrastructure object and found none. Not known before it looked.
    pub fn infrastructure_is_missing(&self) -> bool {
        let conditions = self.status.as_ref().map(|status| status.conditions.as_slice());
        let mut reasons = conditions
            .unwrap_or_default()
            .iter()
            .map(|condition| condition.reason.as_str());
        reasons.any(|reason| matches!(reason, "ObjectDoesNotExist" | "ObjectDeleted"))
    }

    /// Number of Ready worker Machines.
    pub fn ready_workers(&self) -> i32 {
        let workers = self.status.as_ref().map(|status| &status.workers);
        workers.and_then(|workers| workers.ready_replicas).unwrap_or(0)
    }

    /// Whether the control plane object is initialized.
    pub fn control_plane_initialized(&self) -> bool {
        self.status
            .as_ref()
            .is_some_and(|status| status.initialization.control_plane_initialized)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_cluster_is_read_with_missing_and_with_unknown_fields() {
        let bare: Cluster = serde_json::from_value(json!({
            "apiVersion": "cluster.x-k8s.io/v1beta2", "kind": "Cluster",
            "metadata": {"name": "a", "namespace": "ns"}, "spec": {}
        }))
        .unwrap();
        assert!(bare.endpoint().is_none() && !bare.control_plane_initialized());

        let full: Cluster = serde_json::from_value(json!({
            "apiVersion": "cluster.x-k8s.io/v1beta2", "kind": "Cluster",
            "metadata": {"name": "a", "namespace": "ns"},
            "spec": {
                "paused": true,
                "clusterNetwork": {"pods": {"cidrBlocks": ["10.1.0.0/16"]}, "serviceDomain": "c.local"},
                "controlPlaneEndpoint": {"host": "h", "port": 40000},
                "availabilityGates": [{"conditionType": "X"}]
            },
            "status": {
                "initialization": {"infrastructureProvisioned": true, "controlPlaneInitialized": true},
                "conditions": [
                    {"type": "Available", "status": "True", "reason": "Available"},
                    {"type": "InfrastructureReady", "status": "False", "reason": "ObjectDeleted", "message": "m"}
                ],
                "phase": "Provisioned"
            }
        }))
        .unwrap();
        assert_eq!(full.endpoint().map(|e| e.port), Some(40000));
        assert_eq!(full.spec.cluster_network.pods.cidr_blocks, ["10.1.0.0/16"]);
        assert!(full.infrastructure_provisioned() && full.control_plane_initialized());
        assert!(full.infrastructure_is_missing() && !bare.infrastructure_is_missing());
        let kept = full.status.map(|status| status.conditions.len());
        assert_eq!(kept, Some(1), "the others are not kept in memory");
    }

    #[test]
    fn an_endpoint_with_port_0_is_no_endpoint() {
        let mut cluster = Cluster::default();
        cluster.spec.control_plane_endpoint = Some(Endpoint {
            host: "h".into(),
            port: 0,
        });
        assert!(cluster.endpoint().is_none());
    }
}
