//! Rights inside a tenant that belong to its control plane (hosting specification 2.11): administrators, and the API
//! server towards kubelets. What nodes need to join is the bootstrap provider's (bootstrap.md 1.7); its own rights
//! are [`super::bootstrap_role`].

use k8s_openapi::api::rbac::v1::ClusterRoleBinding;
use kube::{Api, Client};
use serde_json::{Value, json};

use super::{
    Error,
    addons::{Wanted, metadata, role_ref, subject},
    bootstrap_role, within,
};
use crate::pki::spec::ADMINS_GROUP;

/// Binding of the administrators' group.
pub const ADMINS: &str = "kubeadm:cluster-admins";
/// Binding of the API server towards kubelets.
pub const KUBELET_CLIENT: &str = "kubeadm:apiserver-kubelet-client";

/// The objects.
pub fn objects(wanted: &Wanted<'_>) -> Vec<Value> {
    let binding = |name: &str, role: &str, who: Value| {
        json!({
            "apiVersion": "rbac.authorization.k8s.io/v1",
            "kind": "ClusterRoleBinding",
            "metadata": metadata(wanted, name, None, &[]),
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
    all.extend(
        [
            typed(&bootstrap_role::cluster_role()),
            typed(&bootstrap_role::cluster_role_binding()),
            typed(&bootstrap_role::role()),
            typed(&bootstrap_role::role_binding()),
        ]
        .into_iter()
        .flatten(),
    );
    all
}

/// A typed object as JSON, kind included.
fn typed<K>(object: &K) -> Option<Value>
where
    K: kube::Resource<DynamicType = ()> + serde::Serialize,
{
    let mut body = serde_json::to_value(object).ok()?;
    body["apiVersion"] = json!(K::api_version(&()));
    body["kind"] = json!(K::kind(&()));
    Some(body)
}

/// Reads the administrators' binding as an administrator: it is there, and it works.
///
/// # Errors
/// When it does not.
pub async fn read_back(admin: &Client) -> Result<(), Error> {
    let api: Api<ClusterRoleBinding> = Api::all(admin.clone());
    for name in [ADMINS, KUBELET_CLIENT] {
        let action = format!("read ClusterRoleBinding {name} back");
        let found = within(&action, api.get(name)).await?;
        if found.subjects.is_none_or(|subjects| subjects.is_empty()) {
            return Err(Error::Refused(format!("{action}: it binds nobody")));
        }
    }
    Ok(())
}
