//! New objects that the API server rejects or accepts, and the messages of rejections.

#![expect(clippy::too_many_lines, reason = "tables are read as one")]

use serde_json::{Value, json};

use super::manifests::{config, file, kcp, merged, minimal, node, secret, store, tcp};

/// A row of [`refused_on_creation`]: description, the object, part of the message.
pub type Creation = (&'static str, Value, &'static str);
/// Objects that are refused when they are made.
pub fn refused_on_creation() -> Vec<Creation> {
    [tenants(), control_planes(), stores(), configs(), nodes()].concat()
}

fn tenants() -> Vec<Creation> {
    let version = "version must be a semantic version with three numbers, such as v1.36.3";
    let reserved =
        "is a reserved name, such as root; choose another name, or omit the field to have one generated";
    vec![
        (
            "version in words",
            tcp(json!({"kubernetes": {"version": "latest"}})),
            version,
        ),
        (
            "version of two numbers",
            tcp(json!({"kubernetes": {"version": "v1.36"}})),
            version,
        ),
        (
            "version with leading zero",
            tcp(json!({"kubernetes": {"version": "v1.036.3"}})),
            version,
        ),
        (
            "version missing",
            tcp(json!({"kubernetes": {"version": null}})),
            "spec.kubernetes.version: Required value",
        ),
        ("user root", tcp(json!({"dataStoreUsername": "root"})), reserved),
        ("user Root", tcp(json!({"dataStoreUsername": "Root"})), reserved),
        (
            "user postgres",
            tcp(json!({"dataStoreUsername": "postgres"})),
            reserved,
        ),
        ("schema root", tcp(json!({"dataStoreSchema": "root"})), reserved),
        (
            "name no Service can have",
            merged(tcp(json!({})), json!({"metadata": {"name": "1st"}})),
            "metadata.name becomes the name of a Service",
        ),
        (
            "name too long",
            merged(tcp(json!({})), json!({"metadata": {"name": "a".repeat(64)}})),
            "at most 63 lower-case letters",
        ),
        (
            "service type",
            tcp(json!({"controlPlane": {"service": {"serviceType": "ExternalName"}}})),
            "supported values: \"ClusterIP\", \"NodePort\", \"LoadBalancer\"",
        ),
        (
            "no service type",
            tcp(json!({"controlPlane": {"service": {"serviceType": null}}})),
            "spec.controlPlane.service.serviceType: Required value",
        ),
        (
            "source ranges without load balancer",
            tcp(json!({"networkProfile": {"loadBalancerSourceRanges": ["10.0.0.0/8"]}})),
            "networkProfile.loadBalancerSourceRanges needs controlPlane.service.serviceType LoadBalancer",
        ),
        (
            "class without load balancer",
            tcp(json!({"networkProfile": {"loadBalancerClass": "x"}})),
            "networkProfile.loadBalancerClass needs controlPlane.service.serviceType LoadBalancer",
        ),
        (
            "node ports without load balancer",
            tcp(json!({"controlPlane": {"service": {"allocateLoadBalancerNodePorts": false}}})),
            "allocateLoadBalancerNodePorts needs controlPlane.service.serviceType LoadBalancer",
        ),
        (
            "source range that is none",
            tcp(json!({
                "controlPlane": {"service": {"serviceType": "LoadBalancer"}},
                "networkProfile": {"loadBalancerSourceRanges": ["10.0.0.0"]},
            })),
            "every entry must be a CIDR range such as 10.96.0.0/16",
        ),
        (
            "ingress and gateway",
            tcp(json!({"controlPlane": {"ingress": {}, "gateway": {}}})),
            "ingress and gateway exclude each other; remove one",
        ),
        (
            "address that is a name",
            tcp(json!({"networkProfile": {"address": "api.example.com"}})),
            "must be an IP address such as 192.0.2.10, not a name",
        ),
        (
            "advertised address that is a name",
            tcp(json!({"networkProfile": {"advertiseAddress": "api.example.com"}})),
            "must be an IP address such as 192.0.2.10, not a name",
        ),
        (
            "service range",
            tcp(json!({"networkProfile": {"serviceCidr": "10.96.0.0"}})),
            "must be empty or a CIDR range such as 10.96.0.0/16",
        ),
        (
            "three pod ranges",
            tcp(json!({"networkProfile": {"podCidrs": ["10.1.0.0/16", "10.2.0.0/16", "10.3.0.0/16"]}})),
            "must have at most 2 items",
        ),
        (
            "pod range",
            tcp(json!({"networkProfile": {"podCidrs": ["nowhere"]}})),
            "every entry must be a CIDR range",
        ),
        (
            "port",
            tcp(json!({"networkProfile": {"port": 0}})),
            "should be greater than or equal to 1",
        ),
        (
            "domain without dot",
            tcp(json!({"networkProfile": {"clusterDomain": "local"}})),
            "spec.networkProfile.clusterDomain",
        ),
        (
            "admission plugin",
            tcp(json!({"kubernetes": {"admissionControllers": ["Unheard"]}})),
            "spec.kubernetes.admissionControllers[0]: Unsupported value",
        ),
        (
            "address type twice",
            tcp(json!({"kubernetes": {"kubelet": {"preferredAddressTypes": ["Hostname", "Hostname"]}}})),
            "Duplicate value",
        ),
        (
            "replicas of a DaemonSet",
            tcp(json!({"addons": {"konnectivity": {"agent": {"mode": "DaemonSet", "replicas": 2}}}})),
            "replicas must be 0 or omitted with mode DaemonSet",
        ),
        (
            "no replicas of a Deployment",
            tcp(json!({"addons": {"konnectivity": {"agent": {"mode": "Deployment", "replicas": 0}}}})),
            "above 0 or omitted with mode Deployment",
        ),
        (
            "probe",
            tcp(json!({"controlPlane": {"deployment": {"probes": {"liveness": {"periodSeconds": 0}}}}})),
            "spec.controlPlane.deployment.probes.liveness.periodSeconds",
        ),
    ]
}

fn control_planes() -> Vec<Creation> {
    let template = |over: Value| {
        let base = minimal("KamajiControlPlaneTemplate", "bad");
        merged(base, json!({"spec": {"template": {"spec": over}}}))
    };
    vec![
        (
            "version",
            kcp(json!({"version": "1.36"})),
            "version must be a semantic version with three numbers",
        ),
        (
            "user root",
            kcp(json!({"dataStoreUsername": "root"})),
            "dataStoreUsername is a reserved name",
        ),
        (
            "user root in a template",
            template(json!({"dataStoreUsername": "root"})),
            "dataStoreUsername is a reserved name",
        ),
        (
            "schema root",
            kcp(json!({"dataStoreSchema": "root"})),
            "dataStoreSchema is a reserved name",
        ),
        (
            "empty endpoint",
            kcp(json!({"controlPlaneEndpoint": {}})),
            "should have at least 1 properties",
        ),
        (
            "endpoint port",
            kcp(json!({"controlPlaneEndpoint": {"host": "a", "port": 70000}})),
            "less than or equal to 65535",
        ),
        (
            "service address that is a name",
            kcp(json!({"network": {"serviceType": "NodePort", "serviceAddress": "node.example.com"}})),
            "must be an IP address such as 192.0.2.10, not a name",
        ),
        (
            "source ranges without load balancer",
            kcp(json!({"network": {
                "serviceType": "NodePort", "loadBalancerConfig": {"loadBalancerSourceRanges": ["10.0.0.0/8"]},
            }})),
            "loadBalancerConfig.loadBalancerSourceRanges needs serviceType LoadBalancer",
        ),
        (
            "class without load balancer",
            template(json!({"network": {
                "serviceType": "ClusterIP", "loadBalancerConfig": {"loadBalancerClass": "x"},
            }})),
            "loadBalancerConfig.loadBalancerClass needs serviceType LoadBalancer",
        ),
        (
            "gateway without name",
            kcp(json!({"network": {"gateway": {"hostname": "a.example.com", "namespace": "x"}}})),
            "spec.network.gateway.name: Required value",
        ),
    ]
}

fn stores() -> Vec<Creation> {
    let bare = |spec: Value| {
        json!({
            "apiVersion": "kamaji.clastix.io/v1alpha1", "kind": "DataStore", "metadata": {"name": "bad"}, "spec": spec,
        })
    };
    let sql = |over: Value| {
        let auth = json!({"content": "eA=="});
        let with_password = json!({"driver": "PostgreSQL", "endpoints": ["db:5432"], "basicAuth": {"username": auth, "password": auth}});
        bare(merged(with_password, over))
    };
    vec![
        (
            "nothing",
            bare(json!({})),
            "driver and endpoints are required; or set managed",
        ),
        (
            "no endpoints",
            store(json!({"endpoints": null})),
            "driver and endpoints are required; or set managed",
        ),
        (
            "empty endpoints",
            store(json!({"endpoints": []})),
            "spec.endpoints",
        ),
        (
            "endpoint with scheme",
            store(json!({"endpoints": ["https://etcd:2379"]})),
            "host:port without a scheme",
        ),
        (
            "driver",
            store(json!({"driver": "SQLite"})),
            "supported values: \"etcd\", \"MySQL\", \"PostgreSQL\", \"NATS\"",
        ),
        (
            "no TLS",
            store(json!({"tlsConfig": null})),
            "tlsConfig.certificateAuthority.privateKey needs content",
        ),
        (
            "no CA key",
            store(json!({"tlsConfig": {"certificateAuthority": {"privateKey": null}}})),
            "tlsConfig.certificateAuthority.privateKey needs content or secretReference with driver etcd",
        ),
        (
            "no client certificate",
            store(json!({"tlsConfig": {"clientCertificate": null}})),
            "tlsConfig.clientCertificate.certificate needs content or secretReference with driver etcd",
        ),
        (
            "empty client certificate",
            store(json!({"tlsConfig": {"clientCertificate": {"certificate": {"secretReference": null}}}})),
            "tlsConfig.clientCertificate.certificate needs content or secretReference with driver etcd",
        ),
        (
            "empty client key",
            store(json!({"tlsConfig": {"clientCertificate": {"privateKey": {"secretReference": null}}}})),
            "tlsConfig.clientCertificate.privateKey needs content or secretReference with driver etcd",
        ),
        (
            "key without path",
            store(
                json!({"tlsConfig": {"certificateAuthority": {"privateKey": {"secretReference": {"keyPath": ""}}}}}),
            ),
            "keyPath",
        ),
        (
            "SQL without credentials",
            sql(json!({"basicAuth": null})),
            "tlsConfig or basicAuth is required",
        ),
        (
            "SQL without user",
            sql(json!({"basicAuth": {"username": {"content": null}}})),
            "basicAuth.username needs",
        ),
        (
            "SQL without password",
            sql(json!({"basicAuth": {"password": {"content": null}}})),
            "basicAuth.password needs",
        ),
        (
            "SQL with an empty certificate",
            sql(json!({"tlsConfig": {
                "certificateAuthority": {"certificate": secret("ca.crt")},
                "clientCertificate": {"certificate": {}, "privateKey": secret("tls.key")},
            }})),
            "or omit clientCertificate",
        ),
        (
            "managed with endpoints",
            store(json!({"managed": {}})),
            "leave out endpoints, tlsConfig and basicAuth",
        ),
        (
            "managed SQL",
            bare(json!({"managed": {}, "driver": "MySQL"})),
            "any driver but etcd",
        ),
        (
            "two members",
            bare(json!({"managed": {"replicas": 2}})),
            "managed.replicas must be 1 or 3",
        ),
        (
            "size",
            bare(json!({"managed": {"storage": {"size": "much"}}})),
            "spec.managed.storage.size",
        ),
        (
            "etcd version",
            bare(json!({"managed": {"version": "3"}})),
            "spec.managed.version",
        ),
    ]
}

fn configs() -> Vec<Creation> {
    let reserved = "the provider writes files[].path itself; use another path";
    vec![
        (
            "format",
            config(json!({"format": "butane"})),
            "supported values: \"cloud-config\", \"ignition\"",
        ),
        (
            "the kubeconfig",
            file(json!({"path": "/etc/kubernetes/bootstrap-kubelet.conf"})),
            reserved,
        ),
        (
            "below a reserved folder",
            file(json!({"path": "/var/lib/kubelet/pki/x.pem"})),
            reserved,
        ),
        (
            "the sentinel",
            file(json!({"path": "/run/cluster-api/bootstrap-success.complete"})),
            reserved,
        ),
        (
            "relative path",
            file(json!({"path": "etc/motd"})),
            "files[].path must be an absolute path",
        ),
        (
            "path with dots",
            file(json!({"path": "/etc/x/../kubernetes/kubelet.conf"})),
            "without empty, '.' or '..' segments",
        ),
        (
            "path with two slashes",
            file(json!({"path": "/etc//motd"})),
            "without empty, '.' or '..' segments",
        ),
        (
            "no content",
            file(json!({"content": null})),
            "files[] needs exactly one of content and contentFrom",
        ),
        (
            "two contents",
            file(json!({"contentFrom": {"secret": {"name": "a", "key": "b"}}})),
            "files[] needs exactly one of content and contentFrom",
        ),
        (
            "two sources",
            file(json!({"content": null, "contentFrom": {
                "secret": {"name": "a", "key": "b"}, "configMap": {"name": "a", "key": "b"},
            }})),
            "files[].contentFrom needs exactly one of secret and configMap",
        ),
        (
            "permissions",
            file(json!({"permissions": "rwxr-xr-x"})),
            "spec.files[0].permissions",
        ),
        (
            "the same path twice",
            config(json!({"files": [{"path": "/a/b", "content": "1"}, {"path": "/a/b", "content": "2"}]})),
            "spec.files[1]: Duplicate value",
        ),
        (
            "content too long",
            file(json!({"content": "x".repeat(10241)})),
            "spec.files[0].content: Too long",
        ),
        (
            "two passwords",
            config(json!({"users": [{
                "name": "a", "passwd": "x", "passwdFrom": {"secret": {"name": "a", "key": "b"}},
            }]})),
            "users[] needs at most one of passwd and passwdFrom",
        ),
        (
            "join timeout",
            config(json!({"joinTimeout": "2h"})),
            "joinTimeout must be between 1m and 1h",
        ),
        (
            "no duration",
            config(json!({"joinTimeout": "soon"})),
            "spec.joinTimeout",
        ),
        (
            "token life",
            config(json!({"auth": {"token": {"ttl": "1m"}}})),
            "auth.token.ttl must be between 5m and 24h",
        ),
        (
            "longest token life below its life",
            config(json!({"auth": {"token": {"ttl": "2h", "maxLifetime": "1h"}}})),
            "auth.token.maxLifetime must be at least auth.token.ttl",
        ),
        (
            "endpoint",
            config(json!({"controlPlane": {"endpoint": "https://api:6443"}})),
            "host:port without a scheme",
        ),
        (
            "kubelet path",
            config(json!({"kubelet": {"path": "kubelet"}})),
            "kubelet.path must be an absolute path",
        ),
        (
            "verbosity",
            config(json!({"kubelet": {"verbosity": 11}})),
            "less than or equal to 10",
        ),
        (
            "sysctl of two lines",
            config(json!({"os": {"sysctls": {"a": "1\n2"}}})),
            "spec.os.sysctls.a",
        ),
        (
            "empty command",
            config(json!({"preJoinCommands": [""]})),
            "spec.preJoinCommands[0]",
        ),
    ]
}

fn nodes() -> Vec<Creation> {
    let label = "on the Machine instead";
    let flag = "the provider sets this kubelet flag itself; use the field for it";
    vec![
        (
            "role label",
            node(json!({"labels": {"node-role.kubernetes.io/worker": ""}})),
            label,
        ),
        (
            "restricted label",
            node(json!({"labels": {"node-restriction.kubernetes.io/x": "y"}})),
            label,
        ),
        (
            "k8s.io label",
            node(json!({"labels": {"x.k8s.io/y": "z"}})),
            label,
        ),
        (
            "label value",
            node(json!({"labels": {"example.com/x": "not a value"}})),
            "spec.nodeRegistration.labels.example.com/x",
        ),
        (
            "label template",
            node(json!({"labelTemplates": {"node-role.kubernetes.io/x": "{{ v1.region }}"}})),
            "nodeRegistration.labelTemplates has a label under kubernetes.io",
        ),
        (
            "label template of two lines",
            node(json!({"labelTemplates": {"example.com/x": "a\nb"}})),
            "spec.nodeRegistration.labelTemplates.example.com/x",
        ),
        (
            "unknown preset",
            config(json!({"infraPreset": "Cloud"})),
            "spec.infraPreset",
        ),
        (
            "no bytes",
            config(json!({"output": {"maxBytes": 0}})),
            "spec.output.maxBytes",
        ),
        (
            "more than a Secret holds",
            config(json!({"output": {"maxBytes": 1_000_001}})),
            "spec.output.maxBytes",
        ),
        (
            "template without source",
            node(json!({"nameTemplate": "{{ v1.local_hostname }}"})),
            "required with nameSource Template",
        ),
        (
            "source without template",
            node(json!({"nameSource": "Template"})),
            "required with nameSource Template",
        ),
        (
            "socket",
            node(json!({"criSocket": "/run/containerd/containerd.sock"})),
            "criSocket must begin with unix:///",
        ),
        (
            "effect",
            node(json!({"taints": [{"key": "a", "effect": "Never"}]})),
            "spec.nodeRegistration.taints[0].effect",
        ),
        (
            "the same taint twice",
            node(
                json!({"taints": [{"key": "a", "effect": "NoExecute"}, {"key": "a", "effect": "NoExecute", "value": "b"}]}),
            ),
            "Duplicate value",
        ),
        (
            "own flag",
            node(json!({"kubeletExtraArgs": [{"name": "node-labels", "value": "a=b"}]})),
            flag,
        ),
        (
            "flag of registration",
            node(json!({"kubeletExtraArgs": [{"name": "register-node", "value": "false"}]})),
            flag,
        ),
        (
            "flag of authorization",
            node(json!({"kubeletExtraArgs": [{"name": "authorization-mode", "value": "AlwaysAllow"}]})),
            flag,
        ),
        (
            "flag with dashes",
            node(json!({"kubeletExtraArgs": [{"name": "V", "value": "4"}]})),
            "kubeletExtraArgs[0].name",
        ),
        (
            "flag of two lines",
            node(json!({"kubeletExtraArgs": [{"name": "v", "value": "4\n5"}]})),
            "must be a single line",
        ),
        (
            "address and interface",
            node(json!({"nodeIP": {"address": "::", "interface": "eth0"}})),
            "exactly one of address and interface",
        ),
        (
            "no address",
            node(json!({"nodeIP": {}})),
            "exactly one of address and interface",
        ),
        (
            "family without interface",
            node(json!({"nodeIP": {"address": "::", "family": "IPv6"}})),
            "family requires interface",
        ),
        (
            "address that is none",
            node(json!({"nodeIP": {"address": "eth0"}})),
            "must be one IP address, or two separated by a comma",
        ),
        (
            "provider id template",
            node(json!({"providerID": {"template": "x://{{ v1.instance_id }}"}})),
            "required with source Template",
        ),
    ]
}

/// Objects as users of upstream Kamaji write them: nulls and empty lists where nothing is meant, versions with and
/// without `v`, fields that have no effect here yet.
pub fn accepted() -> Vec<(&'static str, Value)> {
    vec![
        ("null for a part that is left out", store(json!({}))),
        ("version without v", kcp(json!({"version": "1.27.0"}))),
        (
            "version with build metadata",
            kcp(json!({"version": "v1.34.1+build1"})),
        ),
        (
            "pre-release",
            tcp(json!({"kubernetes": {"version": "v1.37.0-rc.1"}})),
        ),
        (
            "empty lists",
            kcp(json!({
                "apiServer": {"extraVolumeMounts": [], "extraArgs": []},
                "deployment": {"extraInitContainers": [], "extraContainers": [], "extraVolumes": []},
                "addons": {"coreDNS": {}, "konnectivity": {}, "kubeProxy": {}},
            })),
        ),
        (
            "dual stack",
            tcp(json!({"networkProfile": {
                "podCidrs": ["10.244.0.0/16", "fd00:244::/56"], "serviceCidrs": ["10.96.0.0/16", "fd00::/120"],
                "dnsServiceIPs": ["10.96.0.10", "fd00::10"],
            }})),
        ),
        (
            "gateway with default parent",
            tcp(json!({"dataStore": "default", "controlPlane": {
                "gateway": {"hostname": "a.example.com", "parentRefs": [{"name": "gateway", "namespace": "default"}]},
            }})),
        ),
        (
            "node port with address",
            tcp(json!({
                "controlPlane": {"service": {"serviceType": "NodePort"}},
                "networkProfile": {"address": "172.18.0.2", "port": 31443},
            })),
        ),
        (
            "empty advertised address",
            tcp(json!({"networkProfile": {"advertiseAddress": ""}})),
        ),
        (
            "registry's own schema in other words",
            tcp(json!({"dataStoreSchema": "default_tenant"})),
        ),
    ]
}
