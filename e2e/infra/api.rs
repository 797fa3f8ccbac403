//! `LocalCluster`, `LocalMachine` and their templates: infrastructure.cluster.x-k8s.io/v1alpha1, contract v1beta2.

use std::collections::BTreeMap;

use k8s_openapi::{
    apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition,
    apimachinery::pkg::apis::meta::v1::Condition,
};
use kube::{CustomResource, CustomResourceExt as _};
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};

use super::names::DEFAULT_NETWORK_CIDR;
use crate::machines::wire::OutsideOrder;

/// API group of infrastructure kinds.
pub const GROUP: &str = "infrastructure.cluster.x-k8s.io";
/// Version of these kinds, also the value of the contract label.
pub const VERSION: &str = "v1alpha1";

/// The network that a cluster's machines share.
#[derive(CustomResource, Clone, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[kube(
    group = "infrastructure.cluster.x-k8s.io",
    version = "v1alpha1",
    kind = "LocalCluster",
    plural = "localclusters",
    namespaced,
    status = "LocalClusterStatus",
    derive = "Default",
    category = "cluster-api",
    label("cluster.x-k8s.io/v1beta2", "v1alpha1"),
    printcolumn = r#"{"name":"Provisioned","type":"boolean","jsonPath":".status.initialization.provisioned"}"#,
    printcolumn = r#"{"name":"Pods","type":"string","jsonPath":".status.podCIDR"}"#,
    printcolumn = r#"{"name":"Age","type":"date","jsonPath":".metadata.creationTimestamp"}"#
)]
#[serde(rename_all = "camelCase")]
pub struct LocalClusterSpec {
    /// Pod range, of which each machine gets a /24. Defaults to the first pod CIDR block of the Cluster.
    #[serde(default, rename = "podCIDR", skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 18))]
    pub pod_cidr: Option<String>,
}

/// Observed state of a `LocalCluster`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct LocalClusterStatus {
    /// Progress that does not revert.
    #[serde(default)]
    pub initialization: Initialization,
    /// Pod range from which the ranges of machines are allocated.
    #[serde(default, rename = "podCIDR", skip_serializing_if = "Option::is_none")]
    pub pod_cidr: Option<String>,
    /// Conditions.
    #[serde(default)]
    #[schemars(schema_with = "conditions")]
    pub conditions: Vec<Condition>,
}

/// A machine of the machine host.
#[derive(CustomResource, Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[kube(
    group = "infrastructure.cluster.x-k8s.io",
    version = "v1alpha1",
    kind = "LocalMachine",
    plural = "localmachines",
    namespaced,
    status = "LocalMachineStatus",
    derive = "Default",
    category = "cluster-api",
    label("cluster.x-k8s.io/v1beta2", "v1alpha1"),
    printcolumn = r#"{"name":"Provisioned","type":"boolean","jsonPath":".status.initialization.provisioned"}"#,
    printcolumn = r#"{"name":"Address","type":"string","jsonPath":".status.addresses[?(@.type==\"InternalIP\")].address"}"#,
    printcolumn = r#"{"name":"Network","type":"string","jsonPath":".spec.network"}"#,
    printcolumn = r#"{"name":"Pods","type":"string","jsonPath":".status.podCIDR"}"#,
    printcolumn = r#"{"name":"ProviderID","type":"string","jsonPath":".spec.providerID","priority":1}"#,
    printcolumn = r#"{"name":"Age","type":"date","jsonPath":".metadata.creationTimestamp"}"#
)]
#[serde(rename_all = "camelCase")]
pub struct LocalMachineSpec {
    /// `local://<namespace>/<name>`, set when the machine is booted.
    #[serde(default, rename = "providerID", skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 512))]
    pub provider_id: Option<String>,
    /// Image of the machine host. Defaults to the one named like the version of the Machine, or to
    /// `default` where the host has none of that name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 63))]
    pub image: Option<String>,
    /// How far the clock of a virtual machine is ahead when it boots; behind, where it is negative. A container has the clock
    /// of the host.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub clock_offset_seconds: Option<i32>,
    /// Network outside of the lab that the machine is in. Machines of such a network are behind a NAT: they reach the
    /// endpoint of their API server, and nothing of the lab reaches them or their pods. Networks of different names may
    /// have equal ranges. Empty or unset, the machine is on the lab's own bridge.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 32), regex(pattern = r"^([a-z0-9]([-a-z0-9]*[a-z0-9])?)?$"))]
    pub network: Option<String>,
    /// Addresses of the machines in `network`, without effect where that is unset. All machines of a network name the same
    /// range. Defaults to 192.168.0.0/24.
    #[serde(default, rename = "networkCIDR", skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 18))]
    pub network_cidr: Option<String>,
}

impl LocalMachineSpec {
    /// The network outside of the lab that the machine asks for.
    pub fn outside(&self) -> Option<OutsideOrder> {
        let name = self.network.clone().filter(|name| !name.is_empty())?;
        let cidr = self.network_cidr.clone().filter(|cidr| !cidr.is_empty());
        Some(OutsideOrder {
            name,
            cidr: cidr.unwrap_or_else(|| DEFAULT_NETWORK_CIDR.to_owned()),
        })
    }
}

/// Observed state of a `LocalMachine`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct LocalMachineStatus {
    /// Progress that does not revert.
    #[serde(default)]
    pub initialization: Initialization,
    /// Addresses of the machine.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub addresses: Vec<MachineAddress>,
    /// Range of the machine's pods.
    #[serde(default, rename = "podCIDR", skip_serializing_if = "Option::is_none")]
    pub pod_cidr: Option<String>,
    /// Name of the container on the host.
    #[serde(default, rename = "hostID", skip_serializing_if = "Option::is_none")]
    pub host_id: Option<String>,
    /// SHA-256 of the user-data that the machine was booted with, in hexadecimal.
    #[serde(default, rename = "userDataSHA256", skip_serializing_if = "Option::is_none")]
    pub user_data_sha256: Option<String>,
    /// Conditions.
    #[serde(default)]
    #[schemars(schema_with = "conditions")]
    pub conditions: Vec<Condition>,
}

/// Progress that Cluster API's contract requires.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Initialization {
    /// True once the infrastructure is provisioned. It does not revert to false.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub provisioned: Option<bool>,
}

/// One address of a machine.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct MachineAddress {
    /// `InternalIP` or `Hostname`.
    #[serde(rename = "type")]
    pub kind: String,
    /// The address.
    pub address: String,
}

/// Labels and annotations of objects created from a template.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct TemplateMeta {
    /// Labels.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
    /// Annotations.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: BTreeMap<String, String>,
}

/// Template of `LocalMachine`.
#[derive(CustomResource, Clone, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[kube(
    group = "infrastructure.cluster.x-k8s.io",
    version = "v1alpha1",
    kind = "LocalMachineTemplate",
    plural = "localmachinetemplates",
    namespaced,
    category = "cluster-api",
    label("cluster.x-k8s.io/v1beta2", "v1alpha1"),
    printcolumn = r#"{"name":"Age","type":"date","jsonPath":".metadata.creationTimestamp"}"#
)]
pub struct LocalMachineTemplateSpec {
    /// The machine to create.
    pub template: LocalMachineTemplateResource,
}

/// Template of a `LocalMachine`.
#[derive(Clone, Debug, Default, Serialize, Deserialize, JsonSchema)]
pub struct LocalMachineTemplateResource {
    /// Labels and annotations.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub metadata: Option<TemplateMeta>,
    /// Specification.
    pub spec: LocalMachineSpec,
}

/// Template of `LocalCluster`.
#[derive(CustomResource, Clone, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[kube(
    group = "infrastructure.cluster.x-k8s.io",
    version = "v1alpha1",
    kind = "LocalClusterTemplate",
    plural = "localclustertemplates",
    namespaced,
    category = "cluster-api",
    label("cluster.x-k8s.io/v1beta2", "v1alpha1"),
    printcolumn = r#"{"name":"Age","type":"date","jsonPath":".metadata.creationTimestamp"}"#
)]
pub struct LocalClusterTemplateSpec {
    /// The cluster to create.
    pub template: LocalClusterTemplateResource,
}

/// Template of a `LocalCluster`.
#[derive(Clone, Debug, Default, Serialize, Deserialize, JsonSchema)]
pub struct LocalClusterTemplateResource {
    /// Labels and annotations.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub metadata: Option<TemplateMeta>,
    /// Specification.
    pub spec: LocalClusterSpec,
}

/// All four definitions.
pub fn definitions() -> Vec<CustomResourceDefinition> {
    vec![
        LocalCluster::crd(),
        LocalClusterTemplate::crd(),
        LocalMachine::crd(),
        LocalMachineTemplate::crd(),
    ]
}

/// Conditions as a list keyed by type, as Cluster API and `kubectl wait` expect them.
fn conditions(generator: &mut SchemaGenerator) -> Schema {
    let item = generator.subschema_for::<Condition>();
    json_schema!({
        "type": "array",
        "maxItems": 32,
        "items": item,
        "x-kubernetes-list-type": "map",
        "x-kubernetes-list-map-keys": ["type"],
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_machine_without_a_network_is_on_the_bridge_and_one_with_it_has_a_range() {
        let spec = |value: serde_json::Value| -> LocalMachineSpec { serde_json::from_value(value).unwrap() };
        for unset in [
            json!({}),
            json!({"network": "", "networkCIDR": ""}),
            json!({"networkCIDR": "10.0.0.0/24"}),
        ] {
            assert_eq!(spec(unset).outside(), None);
        }
        let asked = spec(json!({"network": "outside", "networkCIDR": ""}))
            .outside()
            .unwrap();
        assert_eq!((&*asked.name, &*asked.cidr), ("outside", "192.168.0.0/24"));
        let asked = spec(json!({"network": "outside", "networkCIDR": "10.1.0.0/24"}))
            .outside()
            .unwrap();
        assert_eq!(asked.cidr, "10.1.0.0/24");
    }

    #[test]
    fn each_kind_carries_the_contract_label_and_the_name_that_core_computes() {
        for crd in definitions() {
            assert_eq!(
                crd.metadata.labels.as_ref().unwrap()["cluster.x-k8s.io/v1beta2"],
                VERSION
            );
            let names = &crd.spec.names;
            assert_eq!(
                crd.metadata.name.as_deref(),
                Some(&*format!("{}s.{GROUP}", names.kind.to_lowercase()))
            );
        }
    }

    #[test]
    fn the_contract_paths_are_served() {
        let crd = serde_json::to_value(LocalMachine::crd()).unwrap();
        let version = &crd["spec"]["versions"][0];
        let schema = &version["schema"]["openAPIV3Schema"]["properties"];
        assert_eq!(schema["spec"]["properties"]["providerID"]["type"], "string");
        assert_eq!(
            schema["status"]["properties"]["initialization"]["properties"]["provisioned"]["type"],
            "boolean"
        );
        assert_eq!(
            schema["status"]["properties"]["addresses"]["items"]["properties"]["type"]["type"],
            "string"
        );
        assert_eq!(
            schema["status"]["properties"]["conditions"]["x-kubernetes-list-type"],
            "map"
        );
        assert!(version["subresources"]["status"].is_object());
    }
}
