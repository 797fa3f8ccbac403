//! RBAC rules and the admission policy that let nodes join a workload cluster: who may request a certificate, renew it and
//! report a failure, and what bootstrap tokens may not do. Pure.
//!
//! The rules are those of kubelet TLS bootstrapping
//! (<https://kubernetes.io/docs/reference/access-authn-authz/kubelet-tls-bootstrapping/>) for a group of this provider's
//! tokens alone.

use kamaji_api::labels::{kamaji, namespace::TENANT_REPORTS, ours};
use serde_json::{Value, json};

use crate::tenant::bootstrap_role::{
    CLIENT_SIGNER, CSR_BINDING, NODE_BOOTSTRAPPER, POLICY, RENEW_BINDING, REPORT, SELF_NODE_CLIENT,
};

/// The objects, in the order in which they are applied. None of them lets kube-controller-manager approve a first
/// certificate, because it would do so for any machine and any node name.
pub fn objects() -> Vec<Value> {
    vec![
        json!({"apiVersion": "v1", "kind": "Namespace", "metadata": metadata(TENANT_REPORTS, None)}),
        binding(CSR_BINDING, NODE_BOOTSTRAPPER, ours::NODE_BOOTSTRAP_GROUP),
        binding(RENEW_BINDING, SELF_NODE_CLIENT, "system:nodes"),
        json!({
            "apiVersion": "rbac.authorization.k8s.io/v1",
            "kind": "Role",
            "metadata": metadata(REPORT, Some(TENANT_REPORTS)),
            "rules": [{"apiGroups": [""], "resources": ["events"], "verbs": ["create"]}],
        }),
        json!({
            "apiVersion": "rbac.authorization.k8s.io/v1",
            "kind": "RoleBinding",
            "metadata": metadata(REPORT, Some(TENANT_REPORTS)),
            "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": REPORT},
            "subjects": [group(ours::NODE_BOOTSTRAP_GROUP)],
        }),
        policy(),
        json!({
            "apiVersion": "admissionregistration.k8s.io/v1",
            "kind": "ValidatingAdmissionPolicyBinding",
            "metadata": metadata(POLICY, None),
            "spec": {"policyName": POLICY, "validationActions": ["Deny"]},
        }),
    ]
}

/// Groups of whoever has a token of this provider, as the API server authenticates it.
pub const BEARER_GROUPS: [&str; 3] = [
    ours::NODE_BOOTSTRAP_GROUP,
    "system:bootstrappers",
    "system:authenticated",
];

/// What bearers of the tokens may create: Events that are named after their own token, so that nobody reports for another
/// machine, and requests to the signer of client certificates.
fn policy() -> Value {
    let short = |field: &str, most: u32| {
        json!({
            "expression": format!("request.resource.resource != 'events' || !has(object.{field}) || size(object.{field}) <= {most}"),
            "message": format!("{field} is longer than {most} bytes"),
        })
    };
    json!({
        "apiVersion": "admissionregistration.k8s.io/v1",
        "kind": "ValidatingAdmissionPolicy",
        "metadata": metadata(POLICY, None),
        "spec": {
            "failurePolicy": "Fail",
            "matchConstraints": {"resourceRules": [
                {"apiGroups": [""], "apiVersions": ["*"], "operations": ["CREATE", "UPDATE"], "resources": ["events"]},
                {
                    "apiGroups": ["certificates.k8s.io"], "apiVersions": ["*"], "operations": ["CREATE"],
                    "resources": ["certificatesigningrequests"],
                },
            ]},
            "matchConditions": [{
                "name": "ours",
                "expression": format!("'{}' in request.userInfo.groups", ours::NODE_BOOTSTRAP_GROUP),
            }],
            "validations": [
                {
                    "expression": format!(
                        "request.resource.resource != 'certificatesigningrequests' || object.spec.signerName == '{CLIENT_SIGNER}'"
                    ),
                    "message": format!("a bootstrap token may only ask {CLIENT_SIGNER}"),
                },
                {
                    "expression": "request.resource.resource != 'events' || (has(object.metadata.name) && \
                        object.metadata.name.startsWith(request.userInfo.username.split(':')[2] + '.'))",
                    "message": "the event is not named after the token",
                },
                {
                    "expression": "request.resource.resource != 'events' || (has(object.type) && object.type in ['Normal', 'Warning'])",
                    "message": "type is Normal or Warning",
                },
                {
                    "expression": "request.resource.resource != 'events' || \
                        (!has(object.metadata.labels) && !has(object.metadata.annotations) && !has(object.metadata.ownerReferences) \
                        && !has(object.related) && !has(object.series))",
                    "message": "the event carries more than a report",
                },
                short("message", 1024),
                short("reason", 128),
                short("action", 128),
                short("reportingComponent", 128),
                short("reportingInstance", 128),
            ],
        },
    })
}

fn metadata(name: &str, namespace: Option<&str>) -> Value {
    let mut metadata = json!({
        "name": name,
        "labels": {(kamaji::PROJECT): kamaji::PROJECT_VALUE, (ours::MANAGED_BY): kamaji_api::labels::field_manager::BOOTSTRAP},
    });
    if let Some(namespace) = namespace {
        metadata["namespace"] = namespace.into();
    }
    metadata
}

fn group(name: &str) -> Value {
    json!({"apiGroup": "rbac.authorization.k8s.io", "kind": "Group", "name": name})
}

fn binding(name: &str, role: &str, to: &str) -> Value {
    json!({
        "apiVersion": "rbac.authorization.k8s.io/v1",
        "kind": "ClusterRoleBinding",
        "metadata": metadata(name, None),
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": role},
        "subjects": [group(to)],
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tenant::bootstrap_role::NODE_CLIENT;

    #[test]
    fn nothing_approves_tokens_automatically() {
        assert!(
            !objects()
                .iter()
                .any(|object| object["roleRef"]["name"] == NODE_CLIENT)
        );
    }
}
