//! Parts of the Gateway API as they stand in our objects. Accepted, not supported yet.
//! Source: hosting.md 1.1 and 2.10; limits are those of gateway.networking.k8s.io/v1.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// A Gateway (or another parent) that a route attaches to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(inline)]
pub struct ParentReference {
    /// API group of the parent.
    #[serde(default = "gateway_group")]
    pub group: String,
    /// Kind of the parent.
    #[serde(default = "gateway_kind")]
    pub kind: String,
    /// Name of the parent.
    pub name: String,
    /// Namespace of the parent; the object's own when left out.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub namespace: Option<String>,
    /// Section of the parent, such as a listener.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub section_name: Option<String>,
    /// Port of the parent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub port: Option<i32>,
}

fn gateway_group() -> String {
    "gateway.networking.k8s.io".to_owned()
}

fn gateway_kind() -> String {
    "Gateway".to_owned()
}

/// What a parent says about a route.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(inline)]
pub struct RouteParentStatus {
    /// The parent.
    pub parent_ref: ParentReference,
    /// Who wrote this entry.
    pub controller_name: String,
    /// Conditions as the parent sees them.
    pub conditions: Vec<Condition>,
}

/// Name of a route.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(inline)]
pub struct RouteReference {
    /// Name of the route in the same namespace.
    #[serde(default)]
    pub name: String,
}

/// An address under which a Gateway serves the tenant.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(inline)]
pub struct GatewayAccessPoint {
    /// `Hostname`, `IPAddress`, `NamedAddress` or a qualified name.
    #[serde(rename = "type")]
    pub kind: String,
    /// The address.
    pub value: String,
    /// The port.
    pub port: i32,
    /// Ready-made URLs.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub urls: Vec<String>,
}

/// State of a route and of the Gateways that took it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(inline)]
pub struct GatewayStatus {
    /// Parents of the route.
    pub parents: Vec<RouteParentStatus>,
    /// The route.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub route_ref: Option<RouteReference>,
    /// Addresses under which the tenant is served.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub access_points: Vec<GatewayAccessPoint>,
}
