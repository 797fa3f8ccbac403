//! The fields of `MachinePool` (cluster.x-k8s.io/v1beta2) that the providers read. Source of the rules:
//! <https://cluster-api.sigs.k8s.io/developer/providers/contracts/infra-machinepool>.

use kube::CustomResource;
use serde::{Deserialize, Serialize};

use super::{
    cluster::Reference,
    machine::{MachineBootstrap, NodeReference},
};

/// Fields of a MachinePool's `spec`.
#[derive(CustomResource, Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[kube(
    group = "cluster.x-k8s.io",
    version = "v1beta2",
    kind = "MachinePool",
    plural = "machinepools",
    namespaced,
    schema = "disabled",
    status = "MachinePoolStatus",
    derive = "PartialEq",
    derive = "Default"
)]
#[serde(rename_all = "camelCase", default)]
pub struct MachinePoolSpec {
    /// Name of the Cluster.
    pub cluster_name: String,
    /// How many machines there are to be; one if unset.
    pub replicas: Option<i32>,
    /// Identities of the machines in their infrastructure, as far as the infrastructure provider reports them.
    #[serde(rename = "providerIDList")]
    pub provider_id_list: Vec<String>,
    /// What each machine is.
    pub template: MachinePoolTemplate,
}

/// What each machine is.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct MachinePoolTemplate {
    /// Its specification.
    pub spec: PoolMachineSpec,
}

/// Specification of the machines.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct PoolMachineSpec {
    /// Source of the bootstrap data.
    pub bootstrap: MachineBootstrap,
    /// The infrastructure object.
    pub infrastructure_ref: Reference,
    /// Kubernetes version of the nodes; empty if not set.
    pub version: String,
}

/// Fields of a MachinePool's `status`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct MachinePoolStatus {
    /// Machines that the infrastructure has.
    pub replicas: Option<i32>,
    /// Nodes with a provider ID of the list, once they exist.
    pub node_refs: Vec<NodeReference>,
}

impl MachinePool {
    /// How many machines there are, or are to be, whichever is more: while the pool grows, shrinks, or an autoscaler
    /// decides.
    pub fn wanted(&self) -> usize {
        let count = |replicas: i32| usize::try_from(replicas).unwrap_or_default();
        let found = self.status.as_ref().and_then(|status| status.replicas);
        count(self.spec.replicas.unwrap_or(1))
            .max(count(found.unwrap_or_default()))
            .max(self.spec.provider_id_list.len())
    }

    /// Names of the Nodes that Cluster API found by their provider IDs.
    pub fn nodes(&self) -> impl Iterator<Item = &str> {
        let refs = self.status.iter().flat_map(|status| &status.node_refs);
        refs.map(|node| node.name.as_str())
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn pool(spec: &serde_json::Value, status: &serde_json::Value) -> MachinePool {
        serde_json::from_value(json!({
            "apiVersion": "cluster.x-k8s.io/v1beta2", "kind": "MachinePool", "metadata": {"name": "p", "namespace": "ns"},
            "spec": spec, "status": status,
        }))
        .unwrap()
    }

    #[test]
    fn a_pool_is_read_as_cluster_api_writes_it() {
        let pool = pool(
            &json!({
                "clusterName": "c", "replicas": 2, "providerIDList": ["local://ns/a"],
                "template": {"metadata": {}, "spec": {
                    "clusterName": "c", "version": "v1.36.3",
                    "bootstrap": {"configRef": {"apiGroup": "g", "kind": "KamajiConfig", "name": "p"}, "dataSecretName": "p-1"},
                    "infrastructureRef": {"apiGroup": "g", "kind": "LocalMachinePool", "name": "p"},
                }},
            }),
            &json!({"replicas": 1, "nodeRefs": [{"apiVersion": "v1", "kind": "Node", "name": "a", "uid": "u"}]}),
        );
        let machine = &pool.spec.template.spec;
        assert_eq!(machine.bootstrap.data_secret_name.as_deref(), Some("p-1"));
        assert_eq!((machine.version.as_str(), pool.wanted()), ("v1.36.3", 2));
        assert_eq!(pool.nodes().collect::<Vec<_>>(), ["a"]);
    }

    #[test]
    fn a_pool_that_shrinks_or_that_an_autoscaler_grows_wants_what_there_is() {
        assert_eq!(
            pool(&json!({}), &json!({})).wanted(),
            1,
            "the default of Cluster API"
        );
        assert_eq!(pool(&json!({"replicas": 0}), &json!({})).wanted(), 0);
        assert_eq!(pool(&json!({"replicas": 1}), &json!({"replicas": 3})).wanted(), 3);
        assert_eq!(
            pool(&json!({"replicas": 0, "providerIDList": ["a", "b"]}), &json!({})).wanted(),
            2
        );
        assert_eq!(
            pool(&json!({"replicas": -1}), &json!({"replicas": -3})).wanted(),
            0
        );
    }
}
