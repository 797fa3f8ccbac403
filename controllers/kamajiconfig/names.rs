//! Names that a node can have. Pure.

use crate::k8s::names::is_dns_name;

/// Whether a node can have this name: a DNS name, and none by which clients reach the API server or themselves.
pub fn can_be_node(name: &str) -> bool {
    let first = name.split('.').next().unwrap_or_default();
    is_dns_name(name) && first != "kubernetes" && name != "localhost"
}
