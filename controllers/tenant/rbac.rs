//! RBAC that the engine applies in each tenant, as kubeadm does in its clusters: the admins' group, the API server as a
//! client of kubelets, and [`super::bootstrap_role`]. What nodes need to join is applied by the bootstrap provider.

use k8s_openapi::api::rbac::v1::ClusterRoleBinding;
use kube::Api;
use serde_json::{Value, json};

use super::{
    Connection, Error,
    addons::{Inputs, metadata, role_ref, subject},
    bootstrap_role,
    client::within,
};
use crate::pki::spec::ADMINS_GROUP;

/// Binding of the admins' group to `cluster-admin`.
pub const ADMINS: &str = "kubeadm:cluster-admins";
/// Binding that lets the API server call kubelets (logs, exec).
pub const KUBELET_CLIENT: &str = "kubeadm:apiserver-kubelet-client";

/// The objects.
pub fn objects(inputs: &Inputs<'_>) -> Vec<Value> {
    let binding = |name: &str, role: &str, who: Value| {
        json!({
            "apiVersion": "rbac.authorization.k8s.io/v1",
            "kind": "ClusterRoleBinding",
            "metadata": metadata(inputs, name, None, &[]),
            "roleRef": role_ref("ClusterRole", role),
            "subjects": [who],
        })
    };
    let mut all = vec![
        binding(ADMINS, "cluster-admin", subject("Group", ADMINS_GROUP)),
        binding(
            KUBELET_CLIENT,
            "system:kubelet-api-admin",
            subject("User", "kube-apiserver-kubelet-client"),
        ),
    ];
    all.extend(bootstrap_role::objects());
    all
}

/// Reads the bindings back with the admin's identity: proves that they exist and that they work.
///
/// # Errors
/// When one cannot be read, or has no subject.
pub async fn read_back(admin: &Connection) -> Result<(), Error> {
    let api: Api<ClusterRoleBinding> = Api::all(admin.client());
    for name in [ADMINS, KUBELET_CLIENT] {
        let found = within(&format!("get ClusterRoleBinding {name}"), api.get(name)).await?;
        if found.subjects.is_none_or(|subjects| subjects.is_empty()) {
            return Err(Error::NoSubjects(name));
        }
    }
    Ok(())
}
