//! Objects of kube-proxy in a tenant. Pure.
//!
//! kube-proxy does not set the conntrack limits of nodes: nodes in containers mount `/proc/sys` read-only.

use kamaji_api::addons::AddonImage;
use serde_json::{Value, json};

use super::addons::{Inputs, metadata, service_account, service_account_binding};
use crate::k8s::digest;

const NAME: &str = "kube-proxy";
const NAMESPACE: &str = "kube-system";
const APP: (&str, &str) = ("k8s-app", "kube-proxy");
const FOLDER: &str = "/var/lib/kube-proxy";

/// The objects, the DaemonSet last.
pub fn objects(inputs: &Inputs<'_>, image: &AddonImage) -> Vec<Value> {
    let data = json!({
        "config.conf": yaml(&configuration(inputs)),
        "kubeconfig.conf": yaml(&kubeconfig(inputs.server)),
    });
    vec![
        service_account(inputs, NAME),
        service_account_binding(inputs, "kubeadm:node-proxier", "system:node-proxier", NAME),
        json!({
            "apiVersion": "v1",
            "kind": "ConfigMap",
            "metadata": metadata(inputs, NAME, Some(NAMESPACE), &[("app", NAME)]),
            "data": data,
        }),
        daemon_set(inputs, image, &digest::of(&data)),
    ]
}

fn configuration(inputs: &Inputs<'_>) -> Value {
    let ranges: Vec<String> = inputs.pod_cidrs.iter().map(ToString::to_string).collect();
    json!({
        "apiVersion": "kubeproxy.config.k8s.io/v1alpha1",
        "kind": "KubeProxyConfiguration",
        "clientConnection": { "kubeconfig": format!("{FOLDER}/kubeconfig.conf") },
        "clusterCIDR": ranges.join(","),
        "conntrack": {
            "maxPerCore": 0,
            "min": 0,
            "tcpEstablishedTimeout": "0s",
            "tcpCloseWaitTimeout": "0s",
        },
    })
}

fn kubeconfig(server: &str) -> Value {
    const TOKEN: &str = "/var/run/secrets/kubernetes.io/serviceaccount";
    json!({
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{
            "name": "default",
            "cluster": { "certificate-authority": format!("{TOKEN}/ca.crt"), "server": server },
        }],
        "contexts": [{
            "name": "default",
            "context": { "cluster": "default", "namespace": "default", "user": "default" },
        }],
        "current-context": "default",
        "users": [{ "name": "default", "user": { "tokenFile": format!("{TOKEN}/token") } }],
    })
}

/// Every JSON value serialises to YAML.
fn yaml(value: &Value) -> String {
    serde_yaml::to_string(value).unwrap_or_default()
}

fn daemon_set(inputs: &Inputs<'_>, image: &AddonImage, digest: &str) -> Value {
    let repository = image.image_repository.as_deref().unwrap_or(inputs.registry);
    let tag = image.image_tag.as_deref().unwrap_or(inputs.tag);
    json!({
        "apiVersion": "apps/v1",
        "kind": "DaemonSet",
        "metadata": metadata(inputs, NAME, Some(NAMESPACE), &[APP]),
        "spec": {
            "selector": { "matchLabels": { APP.0: APP.1 } },
            "updateStrategy": { "type": "RollingUpdate" },
            "template": {
                "metadata": {
                    "labels": { APP.0: APP.1 },
                    // kube-proxy does not reload its configuration: a change rolls the pods.
                    "annotations": { kamaji_api::labels::kamaji::CHECKSUM: digest },
                },
                "spec": {
                    "priorityClassName": "system-node-critical",
                    "serviceAccountName": NAME,
                    "hostNetwork": true,
                    "nodeSelector": { "kubernetes.io/os": "linux" },
                    "tolerations": [{ "operator": "Exists" }],
                    "containers": [{
                        "name": NAME,
                        "image": format!("{repository}/kube-proxy:{tag}"),
                        "imagePullPolicy": "IfNotPresent",
                        "command": [
                            "/usr/local/bin/kube-proxy",
                            format!("--config={FOLDER}/config.conf"),
                            "--hostname-override=$(NODE_NAME)",
                        ],
                        "env": [{
                            "name": "NODE_NAME",
                            "valueFrom": { "fieldRef": { "fieldPath": "spec.nodeName" } },
                        }],
                        "securityContext": { "privileged": true },
                        "volumeMounts": [
                            { "name": NAME, "mountPath": FOLDER },
                            { "name": "xtables-lock", "mountPath": "/run/xtables.lock" },
                            { "name": "lib-modules", "mountPath": "/lib/modules", "readOnly": true },
                        ],
                    }],
                    "volumes": [
                        { "name": NAME, "configMap": { "name": NAME } },
                        { "name": "xtables-lock", "hostPath": { "path": "/run/xtables.lock", "type": "FileOrCreate" } },
                        { "name": "lib-modules", "hostPath": { "path": "/lib/modules" } },
                    ],
                },
            },
        },
    })
}
