//! Permissions of the bootstrap provider in a tenant. The hosting engine, which has the tenant's admin kubeconfig, applies
//! these objects; the bootstrap provider has no other permissions.
//!
//! It may bind two roles to nodes (verb `bind`): it can neither widen a role nor bind another one. Its Secrets in
//! `kube-system` are bootstrap tokens: an admission policy, which it cannot change, refuses every other type. Without it,
//! a Secret of the type of a ServiceAccount's token would make it the admin of the tenant. Pure.

use k8s_openapi::{
    api::rbac::v1::{ClusterRole, ClusterRoleBinding, PolicyRule, Role, RoleBinding, RoleRef, Subject},
    apimachinery::pkg::apis::meta::v1::ObjectMeta,
};
use kamaji_api::labels::{kamaji, namespace};
use serde_json::{Value, json};

use crate::pki::spec::BOOTSTRAP_USER;

/// Name of the objects here.
pub const NAME: &str = "kamaji-bootstrap:controller";
/// Binding that lets our bootstrap tokens request a client certificate.
pub const CSR_BINDING: &str = "kamaji-bootstrap:csr";
/// Binding that lets nodes renew their client certificate.
pub const RENEW_BINDING: &str = "kamaji-bootstrap:renew";
/// Role and binding that let our bootstrap tokens report a failure as an Event.
pub const REPORT: &str = "kamaji-bootstrap:report";
/// `ValidatingAdmissionPolicy` and its binding for our bootstrap tokens.
pub const POLICY: &str = "kamaji-bootstrap";
/// ClusterRole that permits requests for a client certificate.
pub const NODE_BOOTSTRAPPER: &str = "system:node-bootstrapper";
/// ClusterRole whose subjects get their renewals approved by kube-controller-manager.
pub const SELF_NODE_CLIENT: &str = "system:certificates.k8s.io:certificatesigningrequests:selfnodeclient";
/// ClusterRole whose subjects get their first requests approved by kube-controller-manager, whatever the node name.
pub const NODE_CLIENT: &str = "system:certificates.k8s.io:certificatesigningrequests:nodeclient";
/// Signer of the client certificates of nodes.
pub const CLIENT_SIGNER: &str = "kubernetes.io/kube-apiserver-client-kubelet";
/// Signer of the serving certificates of nodes.
pub const SERVING_SIGNER: &str = "kubernetes.io/kubelet-serving";

const RBAC: &str = "rbac.authorization.k8s.io";
/// Policy and binding that bound the Secrets of this identity. Another name than [`POLICY`], which the identity may change.
const SECRETS: &str = "kamaji-bootstrap-secrets";

/// Everything here, in the order in which it is applied: the bound on Secrets before the permission.
pub fn objects() -> Vec<Value> {
    let labels = json!({ kamaji::PROJECT: kamaji::PROJECT_VALUE });
    let policy = |kind: &str, spec: Value| {
        json!({
            "apiVersion": "admissionregistration.k8s.io/v1", "kind": kind,
            "metadata": { "name": SECRETS, "labels": labels }, "spec": spec,
        })
    };
    let mut all = vec![
        policy(
            "ValidatingAdmissionPolicy",
            json!({
                "failurePolicy": "Fail",
                "matchConstraints": { "resourceRules": [{
                    "apiGroups": [""], "apiVersions": ["v1"], "resources": ["secrets"],
                    "operations": ["CREATE", "UPDATE"],
                }] },
                "matchConditions": [{
                    "name": "bootstrap-provider",
                    "expression": format!("request.userInfo.username == '{BOOTSTRAP_USER}'"),
                }],
                "validations": [{
                    "expression": "object.type == 'bootstrap.kubernetes.io/token'",
                    "message": "the bootstrap provider writes bootstrap tokens alone",
                }],
            }),
        ),
        policy(
            "ValidatingAdmissionPolicyBinding",
            json!({ "policyName": SECRETS, "validationActions": ["Deny"] }),
        ),
    ];
    let roles = [
        typed(&cluster_role()),
        typed(&cluster_role_binding()),
        typed(&role()),
        typed(&role_binding()),
    ];
    all.extend(roles.into_iter().flatten());
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

/// Rules for the whole tenant.
fn cluster_role() -> ClusterRole {
    ClusterRole {
        metadata: metadata(None),
        rules: Some(vec![
            rule(
                "certificates.k8s.io",
                "certificatesigningrequests",
                &[],
                &["get", "list", "watch"],
            ),
            rule(
                "certificates.k8s.io",
                "certificatesigningrequests/approval",
                &[],
                &["update", "patch"],
            ),
            rule(
                "certificates.k8s.io",
                "signers",
                &[CLIENT_SIGNER, SERVING_SIGNER],
                &["approve"],
            ),
            rule("", "nodes", &[], &["get", "list", "watch", "patch"]),
            rule("", "events", &[], &["get", "list", "watch", "create"]),
            rule("", "namespaces", &[namespace::TENANT_REPORTS], WRITE),
            // To find out whether kube-controller-manager approves bootstrap identities automatically. It tells who may do
            // what, and permits nothing.
            rule("authorization.k8s.io", "subjectaccessreviews", &[], &["create"]),
            rule(RBAC, "clusterrolebindings", &[CSR_BINDING, RENEW_BINDING], WRITE),
            rule(
                RBAC,
                "clusterroles",
                &[NODE_BOOTSTRAPPER, SELF_NODE_CLIENT],
                &["bind"],
            ),
            rule(RBAC, "roles", &[REPORT], WRITE),
            rule(RBAC, "rolebindings", &[REPORT], WRITE),
            rule(
                "admissionregistration.k8s.io",
                "validatingadmissionpolicies",
                &[POLICY],
                WRITE,
            ),
            rule(
                "admissionregistration.k8s.io",
                "validatingadmissionpolicybindings",
                &[POLICY],
                WRITE,
            ),
        ]),
        ..ClusterRole::default()
    }
}

/// Binding of [`cluster_role`].
fn cluster_role_binding() -> ClusterRoleBinding {
    ClusterRoleBinding {
        metadata: metadata(None),
        role_ref: reference("ClusterRole"),
        subjects: Some(vec![subject()]),
    }
}

/// Rules in `kube-system`: bootstrap tokens.
fn role() -> Role {
    Role {
        metadata: metadata(Some("kube-system")),
        rules: Some(vec![rule(
            "",
            "secrets",
            &[],
            &["get", "list", "watch", "create", "update", "patch", "delete"],
        )]),
    }
}

/// Binding of [`role`].
fn role_binding() -> RoleBinding {
    RoleBinding {
        metadata: metadata(Some("kube-system")),
        role_ref: reference("Role"),
        subjects: Some(vec![subject()]),
    }
}

/// Verbs of a server-side apply of one object by name. `create` with a resource name works here, since the request is a
/// `PATCH` to the name.
const WRITE: &[&str] = &["get", "create", "patch"];

fn metadata(namespace: Option<&str>) -> ObjectMeta {
    ObjectMeta {
        name: Some(NAME.to_owned()),
        namespace: namespace.map(ToOwned::to_owned),
        labels: Some([(kamaji::PROJECT.to_owned(), kamaji::PROJECT_VALUE.to_owned())].into()),
        ..ObjectMeta::default()
    }
}

fn reference(kind: &str) -> RoleRef {
    RoleRef {
        api_group: RBAC.to_owned(),
        kind: kind.to_owned(),
        name: NAME.to_owned(),
    }
}

fn subject() -> Subject {
    Subject {
        api_group: Some(RBAC.to_owned()),
        kind: "User".to_owned(),
        name: BOOTSTRAP_USER.to_owned(),
        namespace: None,
    }
}

fn rule(group: &str, resource: &str, names: &[&str], verbs: &[&str]) -> PolicyRule {
    let owned = |list: &[&str]| list.iter().map(|&text| text.to_owned()).collect::<Vec<_>>();
    PolicyRule {
        api_groups: Some(vec![group.to_owned()]),
        resources: Some(vec![resource.to_owned()]),
        resource_names: (!names.is_empty()).then(|| owned(names)),
        verbs: owned(verbs),
        non_resource_urls: None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_are_reachable_in_kube_system_alone_and_no_role_can_be_widened() {
        let rules = cluster_role().rules.unwrap();
        for rule in &rules {
            assert!(!rule.resources.iter().flatten().any(|r| r == "secrets"));
            assert!(!rule.verbs.iter().any(|v| v == "escalate" || v == "*"));
            if rule.verbs.iter().any(|v| v == "bind" || v == "approve") {
                assert!(rule.resource_names.is_some());
            }
        }
        assert_eq!(role().metadata.namespace.as_deref(), Some("kube-system"));
    }
}
