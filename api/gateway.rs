//! The parts of the Gateway API that appear in our objects, with the limits of gateway.networking.k8s.io/v1. Accepted but
//! without effect yet.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Host name of a route, including wildcards.
pub(crate) const HOSTNAME: &str = r"^(\*\.)?[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*$";
/// DNS subdomain.
const SUBDOMAIN: &str = r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*$";
/// DNS subdomain, or an empty string.
const GROUP: &str = r"^$|^[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*$";
/// Kind.
const KIND: &str = r"^[a-zA-Z]([-a-zA-Z0-9]*[a-zA-Z0-9])?$";
/// DNS label.
const LABEL: &str = r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$";
/// Domain and path.
const CONTROLLER: &str =
    r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*\/[A-Za-z0-9\/\-._~%!$&'()*+,;=:]+$";
/// Type of an address.
const ADDRESS_TYPE: &str = r"^Hostname|IPAddress|NamedAddress|[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*\/[A-Za-z0-9\/\-._~%!$&'()*+,;=:]+$";

/// A Gateway (or another parent) that a route attaches to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(inline)]
pub struct ParentReference {
    /// API group of the parent.
    #[serde(default = "gateway_group")]
    #[schemars(length(max = 253), regex(pattern = GROUP))]
    pub group: String,
    /// Kind of the parent.
    #[serde(default = "gateway_kind")]
    #[schemars(length(min = 1, max = 63), regex(pattern = KIND))]
    pub kind: String,
    /// Name of the parent.
    #[schemars(length(min = 1, max = 253))]
    pub name: String,
    /// Namespace of the parent. Defaults to the namespace of the object.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 63), regex(pattern = LABEL))]
    pub namespace: Option<String>,
    /// Section of the parent, such as a listener.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253), regex(pattern = SUBDOMAIN))]
    pub section_name: Option<String>,
    /// Port of the parent.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 65535))]
    pub port: Option<i32>,
}

fn gateway_group() -> String {
    "gateway.networking.k8s.io".to_owned()
}

fn gateway_kind() -> String {
    "Gateway".to_owned()
}

/// The status of a route, as reported by one parent.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(inline)]
pub struct RouteParentStatus {
    /// The parent.
    pub parent_ref: ParentReference,
    /// Name of the controller that wrote this entry.
    #[schemars(length(min = 1, max = 253), regex(pattern = CONTROLLER))]
    pub controller_name: String,
    /// Conditions that the parent reports.
    #[schemars(schema_with = "crate::schema::gateway_conditions")]
    pub conditions: Vec<Condition>,
}

/// Name of a route.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(inline, extend("x-kubernetes-map-type" = "atomic"))]
pub struct RouteReference {
    /// Name of the route in the same namespace.
    #[serde(default)]
    pub name: String,
}

/// An address at which a Gateway serves the tenant.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(inline)]
pub struct GatewayAccessPoint {
    /// `Hostname`, `IPAddress`, `NamedAddress` or a qualified name.
    #[serde(rename = "type")]
    #[schemars(length(min = 1, max = 253), regex(pattern = ADDRESS_TYPE))]
    pub kind: String,
    /// The address.
    pub value: String,
    /// The port.
    pub port: i32,
    /// Complete URLs.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub urls: Vec<String>,
}

/// State of a route and of the Gateways that accepted it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(inline)]
pub struct GatewayStatus {
    /// Parents of the route.
    #[schemars(length(max = 32), extend("x-kubernetes-list-type" = "atomic"))]
    pub parents: Vec<RouteParentStatus>,
    /// The TLSRoute.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub route_ref: Option<RouteReference>,
    /// Addresses at which the tenant is served.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub access_points: Vec<GatewayAccessPoint>,
}
