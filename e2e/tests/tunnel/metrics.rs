//! metrics-server in a workload cluster: an API that a pod serves, and that asks every kubelet.

use anyhow::{Result, ensure};
use e2e::lab::{access::Lab, clusters::Cluster, tenants::PATIENCE, until::until};
use kube::{Client, api::DynamicObject, discovery};
use serde_json::{Value, json};
use tokio::io::AsyncWriteExt as _;

/// As `hack/lib/versions.sh` names it.
const IMAGE: &str = "registry.k8s.io/metrics-server/metrics-server:v0.9.0";
const NAME: &str = "metrics-server";
const NAMESPACE: &str = "kube-system";
const RBAC: &str = "rbac.authorization.k8s.io";

/// Installs metrics-server and waits until `kubectl top` shows each node. It goes with the cluster.
///
/// # Errors
/// When it shows none.
pub async fn top(lab: &Lab, cluster: &Cluster, tenant: &Client) -> Result<()> {
    for object in objects() {
        apply(tenant, object).await?;
    }
    let kubeconfig = lab.kubeconfig(&cluster.namespace, &cluster.name).await?;
    let file = lab.directory.join(format!("{}.top.kubeconfig", cluster.name));
    let mut options = tokio::fs::OpenOptions::new();
    let mut opened = options
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(&file)
        .await?;
    opened.write_all(&serde_json::to_vec(&kubeconfig)?).await?;
    opened.flush().await?;
    let path = file.display().to_string();
    let shown = until("kubectl top nodes", PATIENCE, async || {
        let shown = lab
            .tool(
                "kubectl",
                &["--kubeconfig", &path, "top", "nodes", "--no-headers"],
            )
            .await?;
        ensure!(!shown.contains("<unknown>"), "{shown}");
        Ok(Some(shown))
    })
    .await;
    tokio::fs::remove_file(&file).await?;
    let shown = shown?;
    eprintln!("kubectl top nodes: {}", shown.trim());
    ensure!(!shown.trim().is_empty(), "no node");
    Ok(())
}

async fn apply(tenant: &Client, object: Value) -> Result<()> {
    let object: DynamicObject = serde_json::from_value(object)?;
    let types = object.types.clone().unwrap_or_default();
    let (resource, capabilities) = discovery::pinned_kind(tenant, &(&types).try_into()?).await?;
    let api = match capabilities.scope {
        discovery::Scope::Cluster => kube::Api::<DynamicObject>::all_with(tenant.clone(), &resource),
        discovery::Scope::Namespaced => {
            let namespace = object.metadata.namespace.as_deref().unwrap_or(NAMESPACE);
            kube::Api::namespaced_with(tenant.clone(), namespace, &resource)
        }
    };
    api.create(&kube::api::PostParams::default(), &object).await?;
    Ok(())
}

fn objects() -> Vec<Value> {
    let meta = json!({ "name": NAME, "namespace": NAMESPACE });
    let role = "e2e:metrics-server";
    let labels = json!({ "app": NAME });
    let subjects = json!([{ "kind": "ServiceAccount", "name": NAME, "namespace": NAMESPACE }]);
    let rbac = format!("{RBAC}/v1");
    let bound = |kind: &str, name: &str| json!({ "apiGroup": RBAC, "kind": kind, "name": name });
    vec![
        json!({ "apiVersion": "v1", "kind": "ServiceAccount", "metadata": meta }),
        json!({
            "apiVersion": rbac, "kind": "ClusterRole", "metadata": { "name": role },
            "rules": [
                { "apiGroups": [""], "resources": ["nodes/metrics"], "verbs": ["get"] },
                { "apiGroups": [""], "resources": ["nodes", "pods"], "verbs": ["get", "list", "watch"] },
            ],
        }),
        json!({
            "apiVersion": rbac, "kind": "ClusterRoleBinding", "metadata": { "name": role },
            "roleRef": bound("ClusterRole", role), "subjects": subjects,
        }),
        json!({
            "apiVersion": rbac, "kind": "ClusterRoleBinding", "metadata": { "name": format!("{role}-reviews") },
            "roleRef": bound("ClusterRole", "system:auth-delegator"), "subjects": subjects,
        }),
        json!({
            "apiVersion": rbac, "kind": "RoleBinding", "metadata": meta,
            "roleRef": bound("Role", "extension-apiserver-authentication-reader"), "subjects": subjects,
        }),
        json!({
            "apiVersion": "v1", "kind": "Service", "metadata": meta,
            "spec": { "selector": labels, "ports": [{ "port": 443, "targetPort": 10250 }] },
        }),
        json!({
            "apiVersion": "apps/v1", "kind": "Deployment", "metadata": meta,
            "spec": {
                "selector": { "matchLabels": labels },
                "template": { "metadata": { "labels": labels }, "spec": pod() },
            },
        }),
        json!({
            "apiVersion": "apiregistration.k8s.io/v1", "kind": "APIService",
            "metadata": { "name": "v1beta1.metrics.k8s.io" },
            "spec": {
                "group": "metrics.k8s.io", "version": "v1beta1", "groupPriorityMinimum": 100, "versionPriority": 100,
                "insecureSkipTLSVerify": true,
                "service": { "name": NAME, "namespace": NAMESPACE },
            },
        }),
    ]
}

fn pod() -> Value {
    json!({
        "serviceAccountName": NAME,
        "containers": [{
            "name": NAME,
            "image": IMAGE,
            "args": [
                "--cert-dir=/tmp", "--secure-port=10250", "--metric-resolution=15s",
                "--kubelet-preferred-address-types=InternalIP", "--kubelet-insecure-tls",
            ],
            "readinessProbe": {
                "httpGet": { "scheme": "HTTPS", "port": 10250, "path": "/readyz" },
                "periodSeconds": 2,
            },
            "securityContext": {
                "allowPrivilegeEscalation": false, "readOnlyRootFilesystem": true, "runAsNonRoot": true,
                "capabilities": { "drop": ["ALL"] },
            },
            "volumeMounts": [{ "name": "tmp", "mountPath": "/tmp" }],
        }],
        "volumes": [{ "name": "tmp", "emptyDir": {} }],
    })
}
