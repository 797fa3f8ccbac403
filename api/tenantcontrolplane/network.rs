//! `spec.networkProfile`: addresses, ports and address ranges. The fields are Kamaji's.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::schema::{CLASS_RULES, IP_RULES, Rule, cel};

/// A CIDR range, or an empty string.
const CIDR_RULES: &[Rule] = &[(
    "self == '' || isCIDR(self)",
    "must be empty or a CIDR range such as 10.96.0.0/16",
)];

/// A list of CIDR ranges.
const CIDRS_RULES: &[Rule] = &[(
    "self.all(range, isCIDR(range))",
    "every entry must be a CIDR range such as 10.96.0.0/16",
)];

/// Addresses, ports and address ranges of a tenant.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
#[schemars(inline)]
pub struct NetworkProfile {
    /// IP address of the API server. Defaults to the address of the Service; required with service type `NodePort`.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 64), extend("x-kubernetes-validations" = cel(IP_RULES)))]
    pub address: Option<String>,
    /// IP address that nodes and pods of the workload cluster use, if it differs from `address`.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 64), extend("x-kubernetes-validations" = cel(IP_RULES)))]
    pub advertise_address: Option<String>,
    /// Port of the API server and of the Service. With service type `NodePort` it is also the node port.
    #[schemars(range(min = 1, max = 65535))]
    pub port: i32,
    /// DNS domain of the workload cluster. It must contain a dot. Immutable.
    #[schemars(
        length(max = 253),
        regex(pattern = r".*\..*"),
        extend("x-kubernetes-validations" = cel(&[
            ("self == oldSelf", "clusterDomain cannot be changed; it is part of every certificate and record"),
        ]))
    )]
    pub cluster_domain: String,
    /// Additional names in the certificate of the API server: DNS names, wildcards or IP addresses.
    #[serde(rename = "certSANs", skip_serializing_if = "Vec::is_empty")]
    pub cert_sans: Vec<String>,
    /// Deprecated, use `serviceCidrs`, which takes precedence: CIDR range of Services.
    #[schemars(length(max = 64), extend("x-kubernetes-validations" = cel(CIDR_RULES)))]
    pub service_cidr: String,
    /// Deprecated, use `podCidrs`, which takes precedence: CIDR range of pods.
    #[schemars(length(max = 64), extend("x-kubernetes-validations" = cel(CIDR_RULES)))]
    pub pod_cidr: String,
    /// One or two CIDR ranges of Services.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(min = 1, max = 2), inner(length(max = 64)), extend("x-kubernetes-validations" = cel(CIDRS_RULES)))]
    pub service_cidrs: Vec<String>,
    /// One or two CIDR ranges of pods.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(min = 1, max = 2), inner(length(max = 64)), extend("x-kubernetes-validations" = cel(CIDRS_RULES)))]
    pub pod_cidrs: Vec<String>,
    /// IP addresses of the cluster DNS Service. Defaults to the tenth address of each Service range.
    #[serde(rename = "dnsServiceIPs", skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 8))]
    pub dns_service_ips: Vec<String>,
    /// Add `address` to the external IPs of the Service.
    #[serde(
        rename = "allowAddressAsExternalIP",
        skip_serializing_if = "std::ops::Not::not"
    )]
    pub allow_address_as_external_ip: bool,
    /// Class of the load balancer. Only with service type `LoadBalancer`. Immutable.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1), extend("x-kubernetes-validations" = cel(CLASS_RULES)))]
    pub load_balancer_class: Option<String>,
    /// Source ranges that the load balancer accepts. Only with service type `LoadBalancer`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16), inner(length(max = 64)), extend("x-kubernetes-validations" = cel(CIDRS_RULES)))]
    pub load_balancer_source_ranges: Vec<String>,
}

impl Default for NetworkProfile {
    fn default() -> Self {
        Self {
            address: None,
            advertise_address: None,
            port: 6443,
            cluster_domain: "cluster.local".to_owned(),
            cert_sans: Vec::new(),
            service_cidr: "10.96.0.0/16".to_owned(),
            pod_cidr: "10.244.0.0/16".to_owned(),
            service_cidrs: Vec::new(),
            pod_cidrs: Vec::new(),
            dns_service_ips: Vec::new(),
            allow_address_as_external_ip: false,
            load_balancer_class: None,
            load_balancer_source_ranges: Vec::new(),
        }
    }
}

impl NetworkProfile {
    /// Service ranges in effect: the list if it is set, otherwise the single value.
    pub fn effective_service_cidrs(&self) -> Vec<&str> {
        effective(&self.service_cidrs, &self.service_cidr)
    }

    /// Pod ranges in effect: the list if it is set, otherwise the single value.
    pub fn effective_pod_cidrs(&self) -> Vec<&str> {
        effective(&self.pod_cidrs, &self.pod_cidr)
    }
}

fn effective<'a>(list: &'a [String], single: &'a str) -> Vec<&'a str> {
    if list.is_empty() {
        Some(single).filter(|cidr| !cidr.is_empty()).into_iter().collect()
    } else {
        list.iter().map(String::as_str).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_list_of_ranges_takes_precedence_over_the_single_value() {
        let mut profile = NetworkProfile::default();
        assert_eq!(profile.effective_pod_cidrs(), ["10.244.0.0/16"]);
        profile.pod_cidrs = vec!["10.1.0.0/16".into(), "fd00::/64".into()];
        assert_eq!(profile.effective_pod_cidrs(), ["10.1.0.0/16", "fd00::/64"]);
        profile.service_cidr.clear();
        assert!(profile.effective_service_cidrs().is_empty());
    }
}
