//! The Kubernetes objects of a provider, as JSON: Namespace, ServiceAccount, RBAC, Deployment. Pure.

use kamaji_api::{
    labels::ours::AGGREGATE_TO_INFRA,
    quirks::{Mode, Quirk, Quirks},
    rbac::Grant,
};
use serde_json::{Value, json};

use crate::{access::KUBEADM_READS, provider::Provider};

const RBAC: &str = "rbac.authorization.k8s.io";
const RBAC_V1: &str = "rbac.authorization.k8s.io/v1";
/// User and group of the process; the image has no user database.
const NON_ROOT: u32 = 65532;
/// Port of /healthz, /readyz and /metrics.
const DIAGNOSTICS: u16 = 8080;
/// Cluster API's kubeadm bootstrap provider, as a user: clusterctl would move the namespace of a ServiceAccount
/// subject to ours, and leaves a User alone.
const KUBEADM_BOOTSTRAP: &str =
    "system:serviceaccount:capi-kubeadm-bootstrap-system:capi-kubeadm-bootstrap-manager";

/// Namespace, ServiceAccount, Deployment.
pub fn process(provider: &Provider, image: &str) -> Vec<Value> {
    vec![
        labelled(
            provider,
            json!({
                "apiVersion": "v1",
                "kind": "Namespace",
                "metadata": {
                    "name": provider.namespace,
                    "labels": {"pod-security.kubernetes.io/enforce": "restricted"},
                },
            }),
        ),
        labelled(
            provider,
            json!({
                "apiVersion": "v1",
                "kind": "ServiceAccount",
                "metadata": {"name": provider.name(), "namespace": provider.namespace},
            }),
        ),
        labelled(provider, deployment(provider, image)),
    ]
}

/// Roles and bindings; cluster-scoped names begin with the namespace, as `clusterctl upgrade` wants it.
pub fn rights(provider: &Provider, quirks: &Quirks) -> Vec<Value> {
    let account = json!({
        "kind": "ServiceAccount", "name": provider.name(), "namespace": provider.namespace,
    });
    let mut objects = Vec::new();
    for (role, grants) in provider.roles {
        let name = format!("{}-{role}", provider.namespace);
        objects.push(cluster_role(&name, grants));
        objects.push(cluster_binding(&name, &account));
    }
    if provider.short == "control-plane" {
        let infra = format!("{}-infra-endpoint", provider.namespace);
        objects.push(json!({
            "apiVersion": RBAC_V1,
            "kind": "ClusterRole",
            "metadata": {"name": infra},
            "aggregationRule": {"clusterRoleSelectors": [{"matchLabels": {AGGREGATE_TO_INFRA: "true"}}]},
            // Without rules of its own: kube-controller-manager fills them in, and an apply does not take them away.
        }));
        objects.push(cluster_binding(&infra, &account));
        objects.extend(
            quirks
                .kinds
                .iter()
                .filter_map(|known| endpoint_role(provider.namespace, known)),
        );
        let kubeadm = format!("{}-kubeadm-bootstrap", provider.namespace);
        objects.push(cluster_role(&kubeadm, KUBEADM_READS));
        objects.push(cluster_binding(
            &kubeadm,
            &json!({"apiGroup": RBAC, "kind": "User", "name": KUBEADM_BOOTSTRAP}),
        ));
    }
    let leases = json!({"name": format!("{}-leases", provider.name()), "namespace": provider.namespace});
    objects.push(json!({
        "apiVersion": RBAC_V1, "kind": "Role", "metadata": leases, "rules": own_leases(provider),
    }));
    objects.push(json!({
        "apiVersion": RBAC_V1,
        "kind": "RoleBinding",
        "metadata": leases,
        "roleRef": {"apiGroup": RBAC, "kind": "Role", "name": leases["name"]},
        "subjects": [account],
    }));
    objects
        .into_iter()
        .map(|object| labelled(provider, object))
        .collect()
}

/// What the hand-off of the endpoint to one infrastructure kind needs; nothing for a kind that takes none. Users add such a
/// role for kinds that are not known here.
fn endpoint_role(namespace: &str, known: &Quirk) -> Option<Value> {
    let plural = known.plural();
    let verbs = match known.mode {
        Mode::Set => json!(["get", "patch"]),
        Mode::Verify => json!(["get"]),
        Mode::Unsupported => return None,
    };
    let mut rules = vec![json!({"apiGroups": [known.group], "resources": [plural], "verbs": verbs})];
    if known.needs_manager() {
        let status = format!("{plural}/status");
        rules.push(json!({"apiGroups": [known.group], "resources": [status], "verbs": ["patch"]}));
    }
    // Two groups have a kind of the same name.
    let group = known.group.split('.').next().unwrap_or_default();
    Some(json!({
        "apiVersion": RBAC_V1,
        "kind": "ClusterRole",
        "metadata": {
            "name": format!("{namespace}-endpoint-{plural}-{group}"),
            "labels": {AGGREGATE_TO_INFRA: "true"},
        },
        "rules": rules,
    }))
}

/// A Lease a role, in the process's own namespace. A request that makes one carries no name to grant by.
fn own_leases(provider: &Provider) -> Value {
    let names: Vec<String> = provider
        .roles
        .iter()
        .map(|(role, _)| format!("capi-kamaji-{role}"))
        .collect();
    let group = "coordination.k8s.io";
    json!([
        {"apiGroups": [group], "resources": ["leases"], "verbs": ["create"]},
        {"apiGroups": [group], "resources": ["leases"], "resourceNames": names, "verbs": ["get", "patch"]},
    ])
}

/// clusterctl's labels, on the object and never on pod templates or objects of hosted clusters.
pub fn labelled(provider: &Provider, mut object: Value) -> Value {
    let labels = &mut object["metadata"]["labels"];
    labels["cluster.x-k8s.io/provider"] = json!(provider.label);
    labels["clusterctl.cluster.x-k8s.io"] = json!("");
    object
}

fn cluster_role(name: &str, grants: &[Grant]) -> Value {
    json!({
        "apiVersion": RBAC_V1, "kind": "ClusterRole", "metadata": {"name": name}, "rules": rules(grants),
    })
}

fn cluster_binding(name: &str, subject: &Value) -> Value {
    json!({
        "apiVersion": RBAC_V1,
        "kind": "ClusterRoleBinding",
        "metadata": {"name": name},
        "roleRef": {"apiGroup": RBAC, "kind": "ClusterRole", "name": name},
        "subjects": [subject],
    })
}

fn rules(grants: &[Grant]) -> Vec<Value> {
    grants.iter().map(rule).collect()
}

fn rule(grant: &Grant) -> Value {
    let verbs: Vec<&str> = grant.verbs.iter().map(|verb| verb.as_str()).collect();
    let mut rule = json!({"apiGroups": [grant.group], "resources": grant.resources, "verbs": verbs});
    if !grant.names.is_empty() {
        rule["resourceNames"] = json!(grant.names);
    }
    rule
}

fn deployment(provider: &Provider, image: &str) -> Value {
    let selector = json!({"app.kubernetes.io/name": provider.name()});
    let mut labels = selector.clone();
    labels["cluster.x-k8s.io/provider"] = json!(provider.label);
    json!({
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": provider.name(), "namespace": provider.namespace},
        "spec": {
            "replicas": 1,
            "selector": {"matchLabels": selector},
            "template": {
                "metadata": {
                    "labels": labels,
                    "annotations": {"kubectl.kubernetes.io/default-container": "manager"},
                },
                "spec": {
                    "serviceAccountName": provider.name(),
                    // 20 s to finish what is in flight, then the leases are given back.
                    "terminationGracePeriodSeconds": 30,
                    "securityContext": {
                        "runAsNonRoot": true,
                        "runAsUser": NON_ROOT,
                        "runAsGroup": NON_ROOT,
                        "seccompProfile": {"type": "RuntimeDefault"},
                    },
                    "tolerations": [
                        {"key": "node-role.kubernetes.io/control-plane", "effect": "NoSchedule"},
                    ],
                    "containers": [container(provider, image)],
                },
            },
        },
    })
}

fn container(provider: &Provider, image: &str) -> Value {
    let args: Vec<&str> = ["run"].iter().chain(provider.flags).copied().collect();
    let probe = |path: &str, failures: u8| {
        json!({
            "httpGet": {"path": path, "port": "diagnostics"},
            "periodSeconds": 10, "timeoutSeconds": 5, "failureThreshold": failures,
        })
    };
    let field = |path: &str| json!({"fieldRef": {"fieldPath": path}});
    json!({
        // clusterctl looks for a container of this name.
        "name": "manager",
        "image": image,
        "imagePullPolicy": "IfNotPresent",
        "args": args,
        "env": [
            {"name": "POD_NAME", "valueFrom": field("metadata.name")},
            {"name": "POD_NAMESPACE", "valueFrom": field("metadata.namespace")},
        ],
        "ports": [{"name": "diagnostics", "containerPort": DIAGNOSTICS}],
        "livenessProbe": probe("/healthz", 6),
        "readinessProbe": probe("/readyz", 3),
        "resources": {
            "requests": {"cpu": "50m", "memory": "64Mi"},
            "limits": {"memory": "512Mi"},
        },
        "securityContext": {
            "allowPrivilegeEscalation": false,
            "readOnlyRootFilesystem": true,
            "capabilities": {"drop": ["ALL"]},
        },
        "terminationMessagePolicy": "FallbackToLogsOnError",
    })
}
