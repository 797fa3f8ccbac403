//! Inputs of the objects that the engine applies in a tenant, and what these objects share. Pure.

use std::net::IpAddr;

use ipnet::IpNet;
use kamaji_api::{
    addons::{AddonImage, KonnectivityAgent},
    labels::{kamaji, ours},
};
use semver::Version;
use serde_json::{Value, json};

use crate::k8s::host_port::HostPort;

/// What the objects in a tenant depend on.
#[derive(Clone, Copy, Debug)]
pub struct Inputs<'a> {
    /// UID of the management cluster's namespace `kube-system`.
    pub management_cluster: &'a str,
    /// Kubernetes version of the tenant.
    pub version: &'a Version,
    /// The version as image tags spell it.
    pub tag: &'a str,
    /// Registry of Kubernetes' images.
    pub registry: &'a str,
    /// Addresses of cluster DNS.
    pub dns: &'a [IpAddr],
    /// DNS domain of the tenant.
    pub domain: &'a str,
    /// `https://host:port` of the API server, for nodes.
    pub server: &'a str,
    /// Pod ranges.
    pub pod_cidrs: &'a [IpNet],
    /// CoreDNS.
    pub core_dns: Selection<'a>,
    /// kube-proxy.
    pub kube_proxy: Selection<'a>,
    /// Konnectivity.
    pub konnectivity: Konnectivity<'a>,
}

/// Whether an add-on is installed.
#[derive(Clone, Copy, Debug, Default)]
pub struct Selection<'a> {
    /// Its image, if it is enabled.
    pub image: Option<&'a AddonImage>,
    /// It was enabled before: its objects are removed once it is disabled.
    pub installed: bool,
}

/// Whether konnectivity is installed.
#[derive(Clone, Copy, Debug, Default)]
pub struct Konnectivity<'a> {
    /// The agents, if it is enabled.
    pub agents: Option<Agents<'a>>,
    /// It was enabled before: its objects are removed once it is disabled.
    pub installed: bool,
}

/// The agents of konnectivity.
#[derive(Clone, Copy, Debug)]
pub struct Agents<'a> {
    /// Name of the TenantControlPlane.
    pub tenant: &'a str,
    /// The user's settings.
    pub settings: &'a KonnectivityAgent,
    /// Tag of the image.
    pub tag: &'a str,
    /// The API server, as nodes reach it.
    pub api_server: &'a HostPort,
    /// Where nodes reach the servers.
    pub server: &'a HostPort,
    /// Agents count the Leases of servers.
    pub by_lease: bool,
}

/// Metadata of an object in a tenant. Its labels name this management cluster as the one that made it.
pub(super) fn metadata(
    inputs: &Inputs<'_>,
    name: &str,
    namespace: Option<&str>,
    more: &[(&str, &str)],
) -> Value {
    let mut labels = json!({
        kamaji::PROJECT: kamaji::PROJECT_VALUE,
        ours::MANAGEMENT_CLUSTER: inputs.management_cluster,
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

/// Reference of a binding to a role.
pub(super) fn role_ref(kind: &str, name: &str) -> Value {
    json!({ "apiGroup": "rbac.authorization.k8s.io", "kind": kind, "name": name })
}

/// Subject of a binding: a user or a group.
pub(super) fn subject(kind: &str, name: &str) -> Value {
    json!({ "apiGroup": "rbac.authorization.k8s.io", "kind": kind, "name": name })
}

/// Subject of a binding: a ServiceAccount of `kube-system`.
pub(super) fn service_account_subject(name: &str) -> Value {
    json!({ "kind": "ServiceAccount", "name": name, "namespace": "kube-system" })
}

/// The ServiceAccount `name` of `kube-system`.
pub(super) fn service_account(inputs: &Inputs<'_>, name: &str) -> Value {
    json!({
        "apiVersion": "v1",
        "kind": "ServiceAccount",
        "metadata": metadata(inputs, name, Some("kube-system"), &[]),
    })
}

/// The binding `binding` of the ClusterRole `role` to the ServiceAccount `account` of `kube-system`.
pub(super) fn service_account_binding(
    inputs: &Inputs<'_>,
    binding: &str,
    role: &str,
    account: &str,
) -> Value {
    json!({
        "apiVersion": "rbac.authorization.k8s.io/v1",
        "kind": "ClusterRoleBinding",
        "metadata": metadata(inputs, binding, None, &[]),
        "roleRef": role_ref("ClusterRole", role),
        "subjects": [service_account_subject(account)],
    })
}
