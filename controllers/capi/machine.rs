//! The fields of `Machine` (cluster.x-k8s.io/v1beta2) that the providers read. Source of the rules:
//! <https://cluster-api.sigs.k8s.io/developer/providers/contracts/bootstrap-config>.

use kube::CustomResource;
use serde::{Deserialize, Serialize};

use super::cluster::Reference;

/// Fields of a Machine's `spec`.
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
    /// Source of the bootstrap data.
    pub bootstrap: MachineBootstrap,
    /// The infrastructure object.
    pub infrastructure_ref: Reference,
    /// Kubernetes version of the node; empty if not set.
    pub version: String,
    /// Identity of the machine in its infrastructure; empty until the infrastructure provider reports it.
    #[serde(rename = "providerID")]
    pub provider_id: String,
}

/// Source of the bootstrap data.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct MachineBootstrap {
    /// The bootstrap config.
    pub config_ref: Option<Reference>,
    /// Name of the Secret with the data, once core copied it.
    pub data_secret_name: Option<String>,
}

/// Fields of a Machine's `status`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct MachineStatus {
    /// The Node with the Machine's provider ID, once it exists.
    pub node_ref: Option<NodeReference>,
    /// Addresses reported by the infrastructure.
    pub addresses: Vec<MachineAddress>,
    /// Fields that become true once and stay true.
    pub initialization: MachineInitialization,
}

/// Reference to the Node of a Machine.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct NodeReference {
    /// Name of the Node.
    pub name: String,
}

/// One address of a Machine.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct MachineAddress {
    /// `Hostname`, `InternalIP`, `ExternalIP`, `InternalDNS` or `ExternalDNS`.
    #[serde(rename = "type")]
    pub type_: String,
    /// The address.
    pub address: String,
}

/// Fields that become true once and stay true.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct MachineInitialization {
    /// The infrastructure object is provisioned.
    pub infrastructure_provisioned: bool,
    /// The bootstrap data Secret exists.
    pub bootstrap_data_secret_created: bool,
}

impl Machine {
    /// Name of the Node, once it exists.
    pub fn node(&self) -> Option<&str> {
        self.status
            .as_ref()?
            .node_ref
            .as_ref()
            .map(|node| node.name.as_str())
    }

    /// Names that the infrastructure reports for the machine.
    pub fn host_names(&self) -> impl Iterator<Item = &str> {
        self.status
            .iter()
            .flat_map(|status| &status.addresses)
            .filter(|address| ["Hostname", "InternalDNS", "ExternalDNS"].contains(&address.type_.as_str()))
            .map(|address| address.address.as_str())
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_machine_is_read_as_cluster_api_writes_it() {
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
