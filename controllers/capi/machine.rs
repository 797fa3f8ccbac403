//! `Machine` and `MachinePool` (cluster.x-k8s.io/v1beta2), as far as we read them. Source: contract.md 3.3–3.6.

use kube::CustomResource;
use serde::{Deserialize, Serialize};

use super::cluster::Reference;

/// What we read of a Machine's `spec`.
#[derive(CustomResource, Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[kube(
    group = "cluster.x-k8s.io",
    version = "v1beta2",
    kind = "Machine",
    plural = "machines",
    namespaced,
    schema = "disabled",
    status = "MachineStatus",
    derive = "PartialEq",
    derive = "Default"
)]
#[serde(rename_all = "camelCase", default)]
pub struct MachineSpec {
    /// Name of the Cluster.
    pub cluster_name: String,
    /// Where the bootstrap data comes from.
    pub bootstrap: MachineBootstrap,
    /// The infrastructure object.
    pub infrastructure_ref: Reference,
    /// Kubernetes version of the node; empty when left out.
    pub version: String,
    /// Identity of the machine at its infrastructure; empty until known.
    #[serde(rename = "providerID")]
    pub provider_id: String,
}

/// Where the bootstrap data comes from.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct MachineBootstrap {
    /// The bootstrap config.
    pub config_ref: Option<Reference>,
    /// Name of the Secret with the data, once core copied it.
    pub data_secret_name: Option<String>,
}

/// What we read of a Machine's `status`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct MachineStatus {
    /// The node, once one has the Machine's provider id.
    pub node_ref: Option<NodeReference>,
    /// Addresses reported by the infrastructure.
    pub addresses: Vec<MachineAddress>,
    /// What was reached once and stays so.
    pub initialization: MachineInitialization,
}

/// The node of a Machine.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct NodeReference {
    /// Name of the Node.
    pub name: String,
}

/// One address.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct MachineAddress {
    /// `Hostname`, `InternalIP`, `ExternalIP`, `InternalDNS` or `ExternalDNS`.
    #[serde(rename = "type")]
    pub type_: String,
    /// The address.
    pub address: String,
}

/// What was reached once and stays so.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct MachineInitialization {
    /// The infrastructure object is provisioned.
    pub infrastructure_provisioned: bool,
    /// The bootstrap data is there.
    pub bootstrap_data_secret_created: bool,
}

impl Machine {
    /// Name of the node, once there is one.
    pub fn node(&self) -> Option<&str> {
        self.status
            .as_ref()?
            .node_ref
            .as_ref()
            .map(|node| node.name.as_str())
    }
}

/// What we read of a MachinePool: that it is there.
#[derive(CustomResource, Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[kube(
    group = "cluster.x-k8s.io",
    version = "v1beta2",
    kind = "MachinePool",
    plural = "machinepools",
    namespaced,
    schema = "disabled",
    derive = "PartialEq",
    derive = "Default"
)]
#[serde(rename_all = "camelCase", default)]
pub struct MachinePoolSpec {
    /// Name of the Cluster.
    pub cluster_name: String,
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_machine_is_read_from_what_core_writes() {
        let machine: Machine = serde_json::from_value(json!({
            "apiVersion": "cluster.x-k8s.io/v1beta2", "kind": "Machine",
            "metadata": {"name": "m", "namespace": "ns"},
            "spec": {
                "clusterName": "c", "version": "v1.36.3", "providerID": "local:///m",
                "bootstrap": {"configRef": {"apiGroup": "bootstrap.cluster.x-k8s.io", "kind": "KamajiConfig", "name": "m"}},
                "infrastructureRef": {"apiGroup": "g", "kind": "LocalMachine", "name": "m"}
            },
            "status": {
                "nodeRef": {"name": "m"}, "initialization": {"infrastructureProvisioned": true},
                "addresses": [{"type": "InternalIP", "address": "10.0.0.1"}]
            }
        }))
        .unwrap();
        assert_eq!(machine.node(), Some("m"));
        assert_eq!(machine.spec.provider_id, "local:///m");
        assert_eq!(machine.spec.bootstrap.config_ref.unwrap().kind, "KamajiConfig");
        assert_eq!(machine.status.unwrap().addresses[0].type_, "InternalIP");
    }
}
