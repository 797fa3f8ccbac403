//! `Cluster` (cluster.x-k8s.io/v1beta2), as far as we read it. Source: contract.md 1.6, 1.8, 3.3.

use kamaji_api::controlplane::Endpoint;
use kube::CustomResource;
use serde::{Deserialize, Serialize};

/// What we read of `spec`.
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
    /// Everything of the Cluster is paused.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub paused: Option<bool>,
    /// Ranges and domain that the user asked for.
    pub cluster_network: ClusterNetwork,
    /// Preset by the user, or copied by core once there is one. Core never changes it again.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub control_plane_endpoint: Option<Endpoint>,
    /// The control plane object.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub control_plane_ref: Option<Reference>,
    /// The infrastructure object.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub infrastructure_ref: Option<Reference>,
    /// Set where the Cluster is made from a ClusterClass.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub topology: Option<Topology>,
}

/// What we read of `spec.clusterNetwork`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ClusterNetwork {
    /// Port of the API server; 0 when left out.
    pub api_server_port: i32,
    /// Service ranges.
    pub services: NetworkRanges,
    /// Pod ranges.
    pub pods: NetworkRanges,
    /// DNS domain; empty when left out.
    pub service_domain: String,
}

/// A list of ranges.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct NetworkRanges {
    /// CIDR blocks.
    pub cidr_blocks: Vec<String>,
}

/// A reference without a version: the contract finds the version by the CRD's label.
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

/// What we read of `spec.topology`: that it is there.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Topology {
    /// Version asked for.
    pub version: String,
}

/// What we read of `status`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ClusterStatus {
    /// What was reached once and stays so.
    pub initialization: ClusterInitialization,
}

/// What was reached once and stays so.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ClusterInitialization {
    /// The infrastructure object is provisioned.
    pub infrastructure_provisioned: bool,
    /// The control plane object is initialized.
    pub control_plane_initialized: bool,
}

impl Cluster {
    /// The endpoint, when both parts are there.
    pub fn endpoint(&self) -> Option<&Endpoint> {
        self.spec
            .control_plane_endpoint
            .as_ref()
            .filter(|endpoint| endpoint.is_valid())
    }

    /// Core has seen the infrastructure provisioned.
    pub fn infrastructure_provisioned(&self) -> bool {
        self.status
            .as_ref()
            .is_some_and(|status| status.initialization.infrastructure_provisioned)
    }

    /// Core has seen the control plane initialized.
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
    fn a_cluster_is_read_with_only_some_fields_and_with_more_than_we_know() {
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
                "phase": "Provisioned"
            }
        }))
        .unwrap();
        assert_eq!(full.endpoint().map(|e| e.port), Some(40000));
        assert_eq!(full.spec.cluster_network.pods.cidr_blocks, ["10.1.0.0/16"]);
        assert!(full.infrastructure_provisioned() && full.control_plane_initialized());
    }

    #[test]
    fn an_endpoint_of_zeros_is_none() {
        let mut cluster = Cluster::default();
        cluster.spec.control_plane_endpoint = Some(Endpoint {
            host: "h".into(),
            port: 0,
        });
        assert!(cluster.endpoint().is_none());
    }
}
