//! Names that a node can have. Pure.

use crate::k8s::names::is_dns_name;

/// Longest name of a node. The kubelet sets it as the value of the label `kubernetes.io/hostname` too, which is shorter than
/// a name may be.
const LONGEST: usize = 63;

/// Why no node can have this name: it is no DNS name, one by which clients reach the API server or themselves, or too long.
pub fn unfit_for_node(name: &str) -> Option<&'static str> {
    let first = name.split('.').next().unwrap_or_default();
    if !is_dns_name(name) || first == "kubernetes" || name == "localhost" {
        Some("no node can have that name")
    } else if name.len() > LONGEST {
        Some("the name of a node has at most 63 characters, since it is a label of the Node too")
    } else {
        None
    }
}
