//! Objects of CoreDNS in a tenant. Pure.
//!
//! The Service `kube-dns` has the addresses that kubelets are configured with. (Upstream Kamaji always uses the tenth
//! address of the service range.)

use kamaji_api::addons::AddonImage;
use serde_json::{Value, json};

use super::addons::{Inputs, metadata, service_account, service_account_binding};

const NAME: &str = "coredns";
const NAMESPACE: &str = "kube-system";
const APP: (&str, &str) = ("k8s-app", "kube-dns");

/// The version of CoreDNS that kubeadm of this Kubernetes minor version installs.
pub fn version(minor: u64) -> &'static str {
    match minor {
        ..=32 => "v1.11.3",
        33 => "v1.12.0",
        34 => "v1.12.1",
        35 => "v1.13.1",
        _ => "v1.14.2",
    }
}

/// The objects, the Deployment last.
pub fn objects(inputs: &Inputs<'_>, image: &AddonImage) -> Vec<Value> {
    vec![
        service_account(inputs, NAME),
        json!({
            "apiVersion": "rbac.authorization.k8s.io/v1",
            "kind": "ClusterRole",
            "metadata": metadata(inputs, "system:coredns", None, &[]),
            "rules": [
                { "apiGroups": [""], "resources": ["endpoints", "services", "pods", "namespaces"], "verbs": ["list", "watch"] },
                { "apiGroups": ["discovery.k8s.io"], "resources": ["endpointslices"], "verbs": ["list", "watch"] },
            ],
        }),
        service_account_binding(inputs, "system:coredns", "system:coredns", NAME),
        json!({
            "apiVersion": "v1",
            "kind": "ConfigMap",
            "metadata": metadata(inputs, NAME, Some(NAMESPACE), &[]),
            "data": { "Corefile": corefile(inputs.domain) },
        }),
        service(inputs),
        deployment(inputs, image),
    ]
}

fn corefile(domain: &str) -> String {
    format!(
        ".:53 {{
    errors
    health {{
       lameduck 5s
    }}
    ready
    kubernetes {domain} in-addr.arpa ip6.arpa {{
       pods insecure
       fallthrough in-addr.arpa ip6.arpa
       ttl 30
    }}
    prometheus :9153
    forward . /etc/resolv.conf {{
       max_concurrent 1000
    }}
    cache 30 {{
       disable success {domain}
       disable denial {domain}
    }}
    loop
    reload
    loadbalance
}}
"
    )
}

fn service(inputs: &Inputs<'_>) -> Value {
    let addresses: Vec<String> = inputs.dns.iter().map(ToString::to_string).collect();
    let port = |name: &str, protocol: &str, port: u16| json!({ "name": name, "port": port, "protocol": protocol, "targetPort": port });
    let mut spec = json!({
        "selector": { APP.0: APP.1 },
        "ports": [port("dns", "UDP", 53), port("dns-tcp", "TCP", 53), port("metrics", "TCP", 9153)],
    });
    if let Some(first) = addresses.first() {
        spec["clusterIP"] = json!(first);
    }
    let families: Vec<&str> = inputs
        .dns
        .iter()
        .map(|address| if address.is_ipv6() { "IPv6" } else { "IPv4" })
        .collect();
    if let [a, b, ..] = families[..]
        && a != b
    {
        spec["clusterIPs"] = json!(&addresses[..2]);
        spec["ipFamilies"] = json!([a, b]);
        spec["ipFamilyPolicy"] = json!("PreferDualStack");
    }
    json!({
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": metadata(
            inputs,
            "kube-dns",
            Some(NAMESPACE),
            &[APP, ("kubernetes.io/cluster-service", "true"), ("kubernetes.io/name", "CoreDNS")],
        ),
        "spec": spec,
    })
}

fn deployment(inputs: &Inputs<'_>, image: &AddonImage) -> Value {
    let registry = inputs.registry;
    let repository = image
        .image_repository
        .clone()
        .unwrap_or_else(|| format!("{registry}/coredns"));
    let tag = image
        .image_tag
        .as_deref()
        .unwrap_or_else(|| version(inputs.version.minor));
    json!({
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": metadata(inputs, NAME, Some(NAMESPACE), &[APP]),
        "spec": {
            "replicas": 2,
            "strategy": { "type": "RollingUpdate", "rollingUpdate": { "maxUnavailable": 1 } },
            "selector": { "matchLabels": { APP.0: APP.1 } },
            "template": {
                "metadata": { "labels": { APP.0: APP.1 } },
                "spec": {
                    "priorityClassName": "system-cluster-critical",
                    "serviceAccountName": NAME,
                    "dnsPolicy": "Default",
                    "nodeSelector": { "kubernetes.io/os": "linux" },
                    "tolerations": [
                        { "key": "CriticalAddonsOnly", "operator": "Exists" },
                        { "key": "node-role.kubernetes.io/control-plane", "effect": "NoSchedule" },
                    ],
                    "affinity": { "podAntiAffinity": { "preferredDuringSchedulingIgnoredDuringExecution": [{
                        "weight": 100,
                        "podAffinityTerm": {
                            "topologyKey": "kubernetes.io/hostname",
                            "labelSelector": { "matchLabels": { APP.0: APP.1 } },
                        },
                    }] } },
                    "containers": [{
                        "name": NAME,
                        "image": format!("{repository}/coredns:{tag}"),
                        "imagePullPolicy": "IfNotPresent",
                        "args": ["-conf", "/etc/coredns/Corefile"],
                        "resources": {
                            "limits": { "memory": "170Mi" },
                            "requests": { "cpu": "100m", "memory": "70Mi" },
                        },
                        "volumeMounts": [{ "name": "config-volume", "mountPath": "/etc/coredns", "readOnly": true }],
                        "ports": [
                            { "name": "dns", "containerPort": 53, "protocol": "UDP" },
                            { "name": "dns-tcp", "containerPort": 53, "protocol": "TCP" },
                            { "name": "metrics", "containerPort": 9153, "protocol": "TCP" },
                        ],
                        "livenessProbe": {
                            "httpGet": { "path": "/health", "port": 8080, "scheme": "HTTP" },
                            "initialDelaySeconds": 60,
                            "timeoutSeconds": 5,
                            "successThreshold": 1,
                            "failureThreshold": 5,
                        },
                        "readinessProbe": { "httpGet": { "path": "/ready", "port": 8181, "scheme": "HTTP" } },
                        "securityContext": {
                            "allowPrivilegeEscalation": false,
                            "capabilities": { "add": ["NET_BIND_SERVICE"], "drop": ["ALL"] },
                            "readOnlyRootFilesystem": true,
                        },
                    }],
                    "volumes": [{
                        "name": "config-volume",
                        "configMap": { "name": NAME, "items": [{ "key": "Corefile", "path": "Corefile" }] },
                    }],
                },
            },
        },
    })
}
