//! Objects with every field that a user can write.

use serde_json::{Value, json};

use super::manifests::{etcd, merged, minimal, secret};

/// Parts of a pod as users write them, fields of recent versions included.
fn pod() -> Value {
    json!({
        "container": {
            "name": "sidecar",
            "image": "registry.example.com/sidecar:1",
            "imagePullPolicy": "IfNotPresent",
            "args": ["--a", "--b"],
            "env": [
                {"name": "A", "value": "1"},
                {"name": "B", "valueFrom": {"secretKeyRef": {"name": "s", "key": "k", "optional": true}}},
                {"name": "C", "valueFrom": {"resourceFieldRef": {"resource": "limits.cpu", "divisor": "1m"}}},
                {"name": "D", "valueFrom": {"fileKeyRef": {"volumeName": "v", "path": "p", "key": "k", "optional": false}}},
            ],
            "envFrom": [{"configMapRef": {"name": "c"}, "prefix": "X_"}],
            "ports": [{"containerPort": 80, "protocol": "TCP"}, {"containerPort": 53, "protocol": "UDP", "name": "dns"}],
            "livenessProbe": {"httpGet": {"path": "/", "port": "http", "scheme": "HTTPS"}, "periodSeconds": 3},
            "readinessProbe": {"grpc": {"port": 1, "service": "s"}},
            "startupProbe": {"exec": {"command": ["true"]}},
            "lifecycle": {"preStop": {"sleep": {"seconds": 5}}, "stopSignal": "SIGTERM"},
            "resources": {"limits": {"cpu": 1, "memory": "64Mi"}, "claims": [{"name": "gpu", "request": "one"}]},
            "resizePolicy": [{"resourceName": "cpu", "restartPolicy": "NotRequired"}],
            "restartPolicy": "Always",
            "restartPolicyRules": [{"action": "Restart", "exitCodes": {"operator": "In", "values": [42]}}],
            "securityContext": {
                "allowPrivilegeEscalation": false, "capabilities": {"drop": ["ALL"]}, "runAsUser": 1000,
                "seccompProfile": {"type": "RuntimeDefault"}, "appArmorProfile": {"type": "RuntimeDefault"},
            },
            "volumeMounts": [{"name": "v", "mountPath": "/v", "readOnly": true, "recursiveReadOnly": "IfPossible"}],
        },
        "volumes": [
            {"name": "a", "emptyDir": {"medium": "Memory", "sizeLimit": "1Gi"}},
            {"name": "b", "projected": {"defaultMode": 288, "sources": [
                {"secret": {"name": "s", "items": [{"key": "k", "path": "p", "mode": 256}]}},
                {"serviceAccountToken": {"path": "t", "audience": "a", "expirationSeconds": 600}},
                {"clusterTrustBundle": {"path": "c", "signerName": "example.com/s", "labelSelector": {}}},
                {"podCertificate": {"signerName": "example.com/s", "keyType": "ED25519", "keyPath": "k"}},
            ]}},
            {"name": "c", "image": {"reference": "registry.example.com/data:1", "pullPolicy": "Always"}},
            {"name": "d", "csi": {"driver": "example.com", "volumeAttributes": {"a": "b"}}},
            {"name": "e", "ephemeral": {"volumeClaimTemplate": {
                "metadata": {"labels": {"a": "b"}},
                "spec": {
                    "accessModes": ["ReadWriteOnce"], "storageClassName": "fast",
                    "resources": {"requests": {"storage": "1Gi"}},
                },
            }}},
            {"name": "f", "hostPath": {"path": "/x", "type": "Directory"}},
        ],
        "affinity": {"podAntiAffinity": {"preferredDuringSchedulingIgnoredDuringExecution": [{
            "weight": 100,
            "podAffinityTerm": {
                "topologyKey": "kubernetes.io/hostname", "matchLabelKeys": ["pod-template-hash"],
                "labelSelector": {"matchExpressions": [{"key": "a", "operator": "In", "values": ["b"]}]},
            },
        }]}},
        "tolerations": [{"key": "a", "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 30}],
        "spread": [{
            "maxSkew": 1, "topologyKey": "zone", "whenUnsatisfiable": "DoNotSchedule", "nodeTaintsPolicy": "Honor",
            "minDomains": 2, "labelSelector": {"matchLabels": {"a": "b"}},
        }],
        "mounts": [{"name": "a", "mountPath": "/a", "subPathExpr": "$(A)"}],
        "resources": {"requests": {"cpu": "250m", "memory": "1Gi"}, "limits": {"memory": 1_073_741_824}},
        "securityContext": {"runAsNonRoot": true, "readOnlyRootFilesystem": true},
        "podSecurityContext": {
            "fsGroup": 65532, "fsGroupChangePolicy": "OnRootMismatch", "supplementalGroupsPolicy": "Strict",
            "sysctls": [{"name": "net.core.somaxconn", "value": "1024"}], "seLinuxChangePolicy": "MountOption",
        },
        "strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 1, "maxUnavailable": "25%"}},
        "probe": {
            "initialDelaySeconds": 1, "timeoutSeconds": 2, "periodSeconds": 3, "successThreshold": 1,
            "failureThreshold": 5,
        },
        "metadata": {"labels": {"a": "b"}, "annotations": {"c": "d"}},
        "port": {"name": "metrics", "port": 9000, "targetPort": "metrics", "protocol": "UDP", "appProtocol": "x"},
        "patch": [{"op": "add", "path": "/a", "value": {"deep": [1, "2", null]}}, {"op": "move", "from": "/a", "path": "/b"}],
        "konnectivity": {
            "server": {"port": 8132, "image": "x", "version": "v0.36.0", "extraArgs": ["--a"], "resources": {}},
            "agent": {"mode": "Deployment", "replicas": 2, "hostNetwork": true, "image": "y", "extraArgs": ["--b"]},
        },
    })
}

/// Objects with every field that a user can write.
pub fn full() -> Vec<Value> {
    let mut list = vec![full_tenant(), full_control_plane()];
    let mut template = minimal("KamajiControlPlaneTemplate", "full");
    let mut settings = list[1]["spec"].clone();
    for field in ["version", "replicas", "controlPlaneEndpoint"] {
        settings.as_object_mut().map(|spec| spec.remove(field));
    }
    template["spec"]["template"] = json!({"metadata": pod()["metadata"], "spec": settings});
    list.push(template);
    list.extend(full_stores());
    let config = full_config();
    let mut template = minimal("KamajiConfigTemplate", "full");
    template["spec"]["template"] = json!({"metadata": pod()["metadata"], "spec": config["spec"]});
    list.extend([config, template]);
    list
}

fn full_tenant() -> Value {
    let pod = pod();
    let probes = json!({"liveness": pod["probe"], "readiness": pod["probe"], "startup": pod["probe"]});
    let mut all_probes = probes.clone();
    for component in ["apiServer", "controllerManager", "scheduler"] {
        all_probes[component] = probes.clone();
    }
    let four = |value: &Value| json!({"apiServer": value, "controllerManager": value, "scheduler": value, "kine": value});
    let three = |value: &Value| json!({"apiServer": value, "controllerManager": value, "scheduler": value});
    let spec = json!({
        "dataStore": "a",
        "dataStoreSchema": "schema",
        "dataStoreUsername": "user",
        "dataStoreOverrides": [{"resource": "/events", "dataStore": "b"}],
        "writePermissions": {"blockCreation": true, "blockUpdate": true, "blockDeletion": true},
        "controlPlane": {
            "deployment": {
                "registrySettings": {
                    "registry": "r", "tagSuffix": "-x", "apiServerImage": "a", "controllerManagerImage": "b",
                    "schedulerImage": "c",
                },
                "replicas": 3,
                "nodeSelector": {"a": "b"},
                "runtimeClassName": "kata",
                "tolerations": pod["tolerations"],
                "affinity": pod["affinity"],
                "topologySpreadConstraints": pod["spread"],
                "strategy": pod["strategy"],
                "resources": four(&pod["resources"]),
                "extraArgs": four(&json!(["--v=4"])),
                "additionalMetadata": pod["metadata"],
                "podAdditionalMetadata": pod["metadata"],
                "additionalInitContainers": [pod["container"]],
                "additionalContainers": [pod["container"]],
                "additionalVolumes": pod["volumes"],
                "additionalVolumeMounts": three(&pod["mounts"]),
                "probes": all_probes,
                "serviceAccountName": "sa",
                "automountServiceAccountToken": true,
                "containerSecurityContexts": three(&pod["securityContext"]),
                "podSecurityContext": pod["podSecurityContext"],
            },
            "service": {
                "serviceType": "LoadBalancer",
                "additionalMetadata": pod["metadata"],
                "additionalPorts": [pod["port"]],
                "allocateLoadBalancerNodePorts": false,
            },
            "gateway": {
                "additionalMetadata": pod["metadata"],
                "hostname": "*.example.com",
                "parentRefs": [{
                    "group": "gateway.networking.k8s.io", "kind": "Gateway", "name": "g", "namespace": "n",
                    "sectionName": "s", "port": 443,
                }],
            },
        },
        "kubernetes": {
            "version": "v1.36.3",
            "kubelet": {
                "preferredAddressTypes": ["InternalDNS", "InternalIP"],
                "cgroupfs": "cgroupfs",
                "configurationJSONPatches": pod["patch"],
            },
            "admissionControllers": ["PodSecurity", "NodeRestriction"],
        },
        "networkProfile": {
            "address": "192.0.2.1",
            "advertiseAddress": "2001:db8::1",
            "port": 443,
            "clusterDomain": "a.b",
            "certSANs": ["a.example.com", "*.example.com", "192.0.2.2"],
            "serviceCidr": "",
            "podCidr": "10.0.0.0/8",
            "serviceCidrs": ["10.96.0.0/16", "fd00::/108"],
            "podCidrs": ["10.244.0.0/16", "fd01::/64"],
            "dnsServiceIPs": ["10.96.0.10"],
            "allowAddressAsExternalIP": true,
            "loadBalancerClass": "x",
            "loadBalancerSourceRanges": ["10.0.0.0/8"],
        },
        "addons": {
            "coreDNS": {"imageRepository": "r", "imageTag": "t"},
            "kubeProxy": {"imageRepository": "r", "imageTag": "t"},
            "konnectivity": pod["konnectivity"],
        },
    });
    merged(minimal("TenantControlPlane", "full"), json!({"spec": spec}))
}

fn full_control_plane() -> Value {
    let pod = pod();
    let probes = json!({"liveness": pod["probe"], "readiness": pod["probe"], "startup": pod["probe"]});
    let component = json!({
        "containerImageName": "x", "extraArgs": ["--v=4"], "extraVolumeMounts": pod["mounts"], "probes": probes,
        "resources": pod["resources"],
    });
    let spec = json!({
        "version": "v1.36.3+build.1",
        "replicas": 3,
        "controlPlaneEndpoint": {"host": "api.example.com", "port": 6443},
        "dataStoreName": "a",
        "dataStoreSchema": "schema",
        "dataStoreUsername": "user",
        "dataStoreOverrides": [{"resource": "/events", "dataStore": "b"}],
        "registry": "r",
        "network": {
            "serviceType": "LoadBalancer",
            "serviceAddress": "192.0.2.1",
            "advertiseAddress": "192.0.2.2",
            "serviceLabels": {"a": "b"},
            "serviceAnnotations": {"a": "b"},
            "additionalServicePorts": [pod["port"]],
            "loadBalancerConfig": {"loadBalancerClass": "x", "loadBalancerSourceRanges": ["10.0.0.0/8"]},
            "certSANs": ["a.example.com"],
            "dnsServiceIPs": ["10.96.0.10"],
            "ingress": {"className": "x", "hostname": "a:443", "extraLabels": {"a": "b"}, "extraAnnotations": {"a": "b"}},
            "gateway": {
                "name": "g", "namespace": "n", "hostname": "h", "sectionName": "s", "port": 443,
                "extraLabels": {"a": "b"}, "extraAnnotations": {"a": "b"},
            },
        },
        "deployment": {
            "nodeSelector": {"a": "b"},
            "runtimeClassName": "kata",
            "additionalMetadata": pod["metadata"],
            "podAdditionalMetadata": pod["metadata"],
            "serviceAccountName": "sa",
            "strategy": pod["strategy"],
            "affinity": pod["affinity"],
            "tolerations": pod["tolerations"],
            "topologySpreadConstraints": pod["spread"],
            "probes": probes,
            "extraInitContainers": [pod["container"]],
            "extraContainers": [pod["container"]],
            "extraVolumes": pod["volumes"],
            "externalClusterReference": {
                "deploymentNamespace": "a", "kubeconfigSecretName": "b", "kubeconfigSecretKey": "c",
                "kubeconfigSecretNamespace": "d",
            },
        },
        "apiServer": component,
        "controllerManager": component,
        "scheduler": component,
        "kine": {"extraArgs": ["--a"], "resources": pod["resources"]},
        "admissionControllers": ["PodSecurity"],
        "kubelet": {
            "preferredAddressTypes": ["Hostname"], "cgroupfs": "systemd", "configurationJSONPatches": pod["patch"],
        },
        "addons": {
            "coreDNS": {"imageRepository": "r", "imageTag": "t", "dnsServiceIPs": ["10.96.0.10"]},
            "kubeProxy": {"imageRepository": "r", "imageTag": "t"},
            "konnectivity": pod["konnectivity"],
        },
        "rollout": {"after": "2026-01-02T03:04:05Z"},
        "machineTemplate": {
            "metadata": pod["metadata"],
            "spec": {
                "infrastructureRef": {"apiGroup": "infrastructure.cluster.x-k8s.io", "kind": "X", "name": "y"},
                "deletion": {
                    "nodeDrainTimeoutSeconds": 0, "nodeVolumeDetachTimeoutSeconds": 1, "nodeDeletionTimeoutSeconds": 2,
                },
                "readinessGates": [{"conditionType": "example.com/X", "polarity": "Negative"}],
                "taints": [{"key": "a", "value": "b", "effect": "NoSchedule", "propagation": "Always"}],
            },
        },
    });
    merged(minimal("KamajiControlPlane", "full"), json!({"spec": spec}))
}

fn full_stores() -> Vec<Value> {
    let store = |name: &str, spec: Value| {
        json!({
            "apiVersion": "kamaji.clastix.io/v1alpha1", "kind": "DataStore", "metadata": {"name": name}, "spec": spec,
        })
    };
    let auth = json!({"username": {"content": "eA=="}, "password": secret("password")});
    vec![
        store("full-etcd", etcd()),
        store(
            "full-postgres",
            json!({"driver": "PostgreSQL", "endpoints": ["a:1", "b:2"], "basicAuth": auth}),
        ),
        store(
            "full-nats",
            json!({"driver": "NATS", "endpoints": ["a:1"], "tlsConfig": {"certificateAuthority": {"certificate": secret("ca")}}}),
        ),
        store(
            "full-managed",
            json!({"driver": "etcd", "managed": {
                "replicas": 3, "version": "3.6.16", "storage": {"size": "20Gi", "className": "fast"},
                "resources": pod()["resources"],
            }}),
        ),
    ]
}

fn full_config() -> Value {
    // Spans of time in seconds: our types write them so, whatever the unit they were read in.
    let spec = json!({
        "nodeRegistration": {
            "nameSource": "Template",
            "nameTemplate": "{{ v1.local_hostname }}",
            "criSocket": "unix:///run/crio/crio.sock",
            "taints": [{"key": "a", "value": "b", "effect": "NoSchedule"}, {"key": "a", "effect": "NoExecute"}],
            "labels": {
                "example.com/site": "tallinn", "topology.kubernetes.io/zone": "z", "plain": "",
                "x.node.kubernetes.io/y": "z", "node.kubernetes.io/instance-type": "t",
            },
            "labelTemplates": {"example.com/rack": "{{ v1.region }}"},
            "kubeletExtraArgs": [{"name": "runtime-cgroups", "value": "/system.slice"}],
            "nodeIP": {"interface": "eth1", "family": "IPv6"},
            "setHostname": true,
            "cloudProvider": "external",
            "providerID": {"source": "Template", "template": "x://{{ v1.instance_id }}"},
        },
        "controlPlane": {
            "endpoint": "[2001:db8::1]:6443", "tlsServerName": "api.example.com",
            "caSecretRef": {"name": "ca", "key": "ca.crt"},
        },
        "auth": {"token": {"ttl": "1800s", "maxLifetime": "43200s"}},
        "csrApproval": {"client": "External"},
        "kubelet": {
            "config": {"maxPods": 60, "evictionHard": {"memory.available": "5%"}, "anything": [{"deep": null}]},
            "featureGates": {"X": true},
            "verbosity": 4,
            "cgroupV1": "Allow",
            "path": "/opt/bin/kubelet",
            "inheritImageArgs": true,
            "allowUnsafeOverrides": true,
        },
        "versionCheck": "None",
        "infraPreset": "OpenStack",
        "output": {"maxBytes": 60000},
        "os": {"modules": ["nf_conntrack"], "sysctls": {"vm.max_map_count": "262144"}, "swap": "Keep"},
        "files": [
            {
                "path": "/etc/motd", "content": "hello", "owner": "root:root", "permissions": "0644", "append": true,
                "defer": true, "contentFormat": "Jinja",
            },
            {"path": "/etc/a", "encoding": "gzip+base64", "contentFrom": {"secret": {"name": "a", "key": "b", "optional": true}}},
            {"path": "/etc/b", "contentFrom": {"configMap": {"name": "a", "key": "b"}}},
        ],
        "users": [
            {
                "name": "ops", "gecos": "x", "groups": "a,b", "homeDir": "/h", "inactive": true, "shell": "/bin/sh",
                "passwd": "x", "primaryGroup": "ops", "lockPassword": true, "sudo": "ALL=(ALL) NOPASSWD:ALL",
                "sshAuthorizedKeys": ["ssh-ed25519 AAAA ops"],
            },
            {"name": "dev", "passwdFrom": {"secret": {"name": "a", "key": "b"}}},
        ],
        "preJoinCommands": ["true"],
        "postJoinCommands": ["true"],
        "joinTimeout": "930s",
        "secretMetadata": {"labels": {"a": "b"}, "annotations": {"c": "d"}},
    });
    merged(minimal("KamajiConfig", "full"), json!({"spec": spec}))
}
