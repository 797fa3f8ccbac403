//! `spec.network` of KamajiControlPlane. The fields are those of the Go provider.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{
    schema::{CLASS_RULES, IP_RULES, Rule, cel},
    service::{AdditionalPort, ServiceType},
};

/// Rules of settings that only a load balancer has.
const RULES: &[Rule] = &[
    (
        "!has(self.loadBalancerConfig) || !has(self.loadBalancerConfig.loadBalancerSourceRanges) || \
         size(self.loadBalancerConfig.loadBalancerSourceRanges) == 0 || self.serviceType == 'LoadBalancer'",
        "loadBalancerConfig.loadBalancerSourceRanges needs serviceType LoadBalancer; remove it or change the type",
    ),
    (
        "!has(self.loadBalancerConfig) || !has(self.loadBalancerConfig.loadBalancerClass) || \
         self.serviceType == 'LoadBalancer'",
        "loadBalancerConfig.loadBalancerClass needs serviceType LoadBalancer; remove it or change the type",
    ),
];

/// Addresses, ports and exposure of the API server.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
#[schemars(inline, extend("x-kubernetes-validations" = cel(RULES)))]
pub struct NetworkSettings {
    /// How the API server is exposed.
    pub service_type: ServiceType,
    /// IP address of the API server. Defaults to the address of the Service; required with service type `NodePort`.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 64), extend("x-kubernetes-validations" = cel(IP_RULES)))]
    pub service_address: Option<String>,
    /// IP address that nodes and pods of the workload cluster use, if it differs from the address of the API server.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 64), extend("x-kubernetes-validations" = cel(IP_RULES)))]
    pub advertise_address: Option<String>,
    /// Labels of the Service.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub service_labels: BTreeMap<String, String>,
    /// Annotations of the Service.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub service_annotations: BTreeMap<String, String>,
    /// Ports of the Service in addition to the port of the API server.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub additional_service_ports: Vec<AdditionalPort>,
    /// Settings of the load balancer. Only with service type `LoadBalancer`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub load_balancer_config: Option<LoadBalancerSettings>,
    /// Additional names in the certificate of the API server: DNS names, wildcards or IP addresses.
    #[serde(rename = "certSANs", skip_serializing_if = "Vec::is_empty")]
    pub cert_sans: Vec<String>,
    /// IP addresses of the cluster DNS Service. Defaults to the tenth address of each Service range.
    #[serde(rename = "dnsServiceIPs", skip_serializing_if = "Vec::is_empty")]
    pub dns_service_ips: Vec<String>,
    /// An Ingress in front of the Service. Accepted but has no effect yet.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ingress: Option<IngressSettings>,
    /// A Gateway in front of the Service. Accepted but has no effect yet.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub gateway: Option<GatewaySettings>,
}

impl Default for NetworkSettings {
    fn default() -> Self {
        Self {
            service_type: ServiceType::LoadBalancer,
            service_address: None,
            advertise_address: None,
            service_labels: BTreeMap::new(),
            service_annotations: BTreeMap::new(),
            additional_service_ports: Vec::new(),
            load_balancer_config: None,
            cert_sans: Vec::new(),
            dns_service_ips: Vec::new(),
            ingress: None,
            gateway: None,
        }
    }
}

/// Settings of the load balancer.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
#[schemars(inline, extend("x-kubernetes-validations" = cel(&[(
    "has(self.loadBalancerClass) == has(oldSelf.loadBalancerClass)",
    "loadBalancerClass cannot be set or unset later; change the type of the Service first",
)])))]
pub struct LoadBalancerSettings {
    /// Class of the load balancer. Immutable.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1), extend("x-kubernetes-validations" = cel(CLASS_RULES)))]
    pub load_balancer_class: Option<String>,
    /// Source ranges that the load balancer accepts.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub load_balancer_source_ranges: Vec<String>,
}

/// An Ingress in front of the Service.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(inline)]
pub struct IngressSettings {
    /// Class of the Ingress.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub class_name: Option<String>,
    /// Host name, as `host` or `host:port`.
    #[schemars(length(min = 1))]
    pub hostname: String,
    /// Labels of the Ingress.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub extra_labels: BTreeMap<String, String>,
    /// Annotations of the Ingress.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub extra_annotations: BTreeMap<String, String>,
}

/// A Gateway in front of the Service.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(inline)]
pub struct GatewaySettings {
    /// Name of the Gateway.
    #[schemars(length(min = 1))]
    pub name: String,
    /// Namespace of the Gateway.
    #[schemars(length(min = 1))]
    pub namespace: String,
    /// Host name of the route.
    #[schemars(length(min = 1))]
    pub hostname: String,
    /// Listener of the Gateway.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253))]
    pub section_name: Option<String>,
    /// Port of the Gateway.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 65535))]
    pub port: Option<i32>,
    /// Labels of the route.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub extra_labels: BTreeMap<String, String>,
    /// Annotations of the route.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub extra_annotations: BTreeMap<String, String>,
}
