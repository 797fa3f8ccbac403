//! What the add-ons of a tenant depend on, and the metadata they share. Pure.

use std::net::IpAddr;

use ipnet::IpNet;
use kamaji_api::{
    addons::AddonImage,
    labels::{kamaji, ours},
};
use semver::Version;
use serde_json::{Value, json};

/// What is asked for inside a tenant.
#[derive(Clone, Copy, Debug)]
pub struct Wanted<'a> {
    /// UID of the management cluster's namespace `kube-system`.
    pub management_cluster: &'a str,
    /// Version of the tenant.
    pub version: &'a Version,
    /// The same as it is spelled in image tags.
    pub tag: &'a str,
    /// Registry of Kubernetes' images.
    pub registry: &'a str,
    /// Addresses of cluster DNS.
    pub dns: &'a [IpAddr],
    /// DNS domain of the tenant.
    pub domain: &'a str,
    /// `https://host:port` for nodes.
    pub server: &'a str,
    /// Pod ranges.
    pub pod_cidrs: &'a [IpNet],
    /// CoreDNS, if it is on.
    pub core_dns: Option<&'a AddonImage>,
    /// kube-proxy, if it is on.
    pub kube_proxy: Option<&'a AddonImage>,
    /// CoreDNS was on.
    pub had_core_dns: bool,
    /// kube-proxy was on.
    pub had_kube_proxy: bool,
}

/// Metadata of an object inside a tenant.
pub(super) fn metadata(
    wanted: &Wanted<'_>,
    name: &str,
    namespace: Option<&str>,
    more: &[(&str, &str)],
) -> Value {
    let mut labels = json!({
        kamaji::PROJECT: kamaji::PROJECT_VALUE,
        ours::MANAGEMENT_CLUSTER: wanted.management_cluster,
    });
    for (key, value) in more {
        labels[*key] = json!(value);
    }
    let mut metadata = json!({ "name": name, "labels": labels });
    if let Some(namespace) = namespace {
        metadata["namespace"] = json!(namespace);
    }
    metadata
}

/// A binding's reference to a role.
pub(super) fn role_ref(kind: &str, name: &str) -> Value {
    json!({ "apiGroup": "rbac.authorization.k8s.io", "kind": kind, "name": name })
}

/// A binding's subject that is a user or a group.
pub(super) fn subject(kind: &str, name: &str) -> Value {
    json!({ "apiGroup": "rbac.authorization.k8s.io", "kind": kind, "name": name })
}

/// A binding's subject that is a ServiceAccount of `kube-system`.
pub(super) fn service_account(name: &str) -> Value {
    json!({ "kind": "ServiceAccount", "name": name, "namespace": "kube-system" })
}
