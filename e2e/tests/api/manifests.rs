//! What the tests of the API write: minimal objects, full ones, and tables of what is refused, with the words that must
//! be said. Owns data alone.

#![expect(clippy::too_many_lines, reason = "tables are read as one")]
#![expect(
    clippy::needless_pass_by_value,
    reason = "every caller makes the value on the spot"
)]

use serde_json::{Value, json};

/// A row of [`refused_on_creation`]: what it is, the object, words of the answer.
pub type Creation = (&'static str, Value, &'static str);
/// A row of [`refused_on_change`]: what it is, the object before and after, words of the answer.
pub type Change = (&'static str, Value, Value, &'static str);

/// `base` with `over` merged into it; null removes.
pub fn merged(mut base: Value, over: Value) -> Value {
    match (&mut base, over) {
        (Value::Object(base), Value::Object(over)) => {
            for (key, value) in over {
                if value.is_null() {
                    base.remove(&key);
                } else {
                    let inner = base.remove(&key).unwrap_or_default();
                    base.insert(key, merged(inner, value));
                }
            }
        }
        (base, over) => *base = over,
    }
    base
}

/// The least that an object of a kind can be.
pub fn minimal(kind: &str, name: &str) -> Value {
    let (group, spec) = match kind {
        "TenantControlPlane" => (
            "kamaji.clastix.io/v1alpha1",
            json!({
                "controlPlane": {"service": {"serviceType": "ClusterIP"}},
                "kubernetes": {"version": "v1.36.3", "kubelet": {}},
            }),
        ),
        "DataStore" => ("kamaji.clastix.io/v1alpha1", etcd()),
        "KamajiControlPlane" => (
            "controlplane.cluster.x-k8s.io/v1alpha2",
            json!({"version": "v1.36.3"}),
        ),
        "KamajiControlPlaneTemplate" => (
            "controlplane.cluster.x-k8s.io/v1alpha2",
            json!({"template": {"spec": {}}}),
        ),
        "KamajiConfigTemplate" => (
            "bootstrap.cluster.x-k8s.io/v1alpha1",
            json!({"template": {"spec": {}}}),
        ),
        _ => ("bootstrap.cluster.x-k8s.io/v1alpha1", json!({})),
    };
    json!({"apiVersion": group, "kind": kind, "metadata": {"name": name}, "spec": spec})
}

fn secret(key: &str) -> Value {
    json!({"secretReference": {"name": "etcd-certs", "namespace": "etcd", "keyPath": key}})
}

fn etcd() -> Value {
    json!({
        "driver": "etcd",
        "endpoints": ["etcd-0.etcd.svc:2379"],
        "tlsConfig": {
            "certificateAuthority": {"certificate": secret("ca.crt"), "privateKey": secret("ca.key")},
            "clientCertificate": {"certificate": secret("tls.crt"), "privateKey": secret("tls.key")},
        },
    })
}

fn tcp(over: Value) -> Value {
    merged(minimal("TenantControlPlane", "bad"), json!({"spec": over}))
}

fn kcp(over: Value) -> Value {
    merged(minimal("KamajiControlPlane", "bad"), json!({"spec": over}))
}

fn store(over: Value) -> Value {
    merged(minimal("DataStore", "bad"), json!({"spec": over}))
}

fn config(over: Value) -> Value {
    merged(minimal("KamajiConfig", "bad"), json!({"spec": over}))
}

fn file(over: Value) -> Value {
    config(json!({"files": [merged(json!({"path": "/etc/motd", "content": "hello"}), over)]}))
}

fn node(over: Value) -> Value {
    config(json!({"nodeRegistration": over}))
}

/// Objects that are refused when they are made.
pub fn refused_on_creation() -> Vec<Creation> {
    [tenants(), control_planes(), stores(), configs(), nodes()].concat()
}

fn tenants() -> Vec<Creation> {
    let version = "version must be a semantic version with three numbers, such as v1.36.3";
    let reserved = "is a reserved name, such as root; choose another, or leave it out and one is drawn";
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
            "every entry must be a range of addresses such as 10.96.0.0/16",
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
            "must be empty or a range of addresses such as 10.96.0.0/16",
        ),
        (
            "three pod ranges",
            tcp(json!({"networkProfile": {"podCidrs": ["10.1.0.0/16", "10.2.0.0/16", "10.3.0.0/16"]}})),
            "must have at most 2 items",
        ),
        (
            "pod range",
            tcp(json!({"networkProfile": {"podCidrs": ["nowhere"]}})),
            "every entry must be a range of addresses",
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
            "replicas must be 0 or left out with mode DaemonSet",
        ),
        (
            "no replicas of a Deployment",
            tcp(json!({"addons": {"konnectivity": {"agent": {"mode": "Deployment", "replicas": 0}}}})),
            "above 0 or left out with mode Deployment",
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
            "or leave clientCertificate out",
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
    let reserved = "files[].path is written by the provider itself; use another path";
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
            "users[] takes one of passwd and passwdFrom",
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
    let flag = "this kubelet flag is the provider's own; use the field for it";
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
            "must be one line",
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
            "family goes with interface",
        ),
        (
            "address that is none",
            node(json!({"nodeIP": {"address": "eth0"}})),
            "must be one IP address, or two with a comma",
        ),
        (
            "provider id template",
            node(json!({"providerID": {"template": "x://{{ v1.instance_id }}"}})),
            "required with source Template",
        ),
    ]
}

/// Objects that are refused when they change.
pub fn refused_on_change() -> Vec<Change> {
    let balanced = |over: Value| {
        tcp(merged(
            json!({"controlPlane": {"service": {"serviceType": "LoadBalancer"}}}),
            over,
        ))
    };
    let managed = |over: Value| {
        json!({
            "apiVersion": "kamaji.clastix.io/v1alpha1", "kind": "DataStore", "metadata": {"name": "x"},
            "spec": {"managed": over},
        })
    };
    vec![
        (
            "unset DataStore",
            tcp(json!({"dataStore": "a"})),
            tcp(json!({})),
            "dataStore cannot be unset once it is set; name a DataStore",
        ),
        (
            "unset schema",
            tcp(json!({"dataStoreSchema": "a"})),
            tcp(json!({})),
            "dataStoreSchema cannot be unset once it is set",
        ),
        (
            "unset user",
            tcp(json!({"dataStoreUsername": "a"})),
            tcp(json!({})),
            "dataStoreUsername cannot be unset once it is set",
        ),
        (
            "another schema",
            tcp(json!({"dataStoreSchema": "a"})),
            tcp(json!({"dataStoreSchema": "b"})),
            "dataStoreSchema cannot be changed",
        ),
        (
            "another user",
            tcp(json!({"dataStoreUsername": "a"})),
            tcp(json!({"dataStoreUsername": "b"})),
            "dataStoreUsername cannot be changed",
        ),
        (
            "another domain",
            tcp(json!({})),
            tcp(json!({"networkProfile": {"clusterDomain": "other.local"}})),
            "clusterDomain cannot be changed",
        ),
        (
            "another class",
            balanced(json!({"networkProfile": {"loadBalancerClass": "a"}})),
            balanced(json!({"networkProfile": {"loadBalancerClass": "b"}})),
            "loadBalancerClass cannot be changed",
        ),
        (
            "a class later",
            balanced(json!({})),
            balanced(json!({"networkProfile": {"loadBalancerClass": "b"}})),
            "networkProfile.loadBalancerClass cannot be set or unset while the Service is a LoadBalancer",
        ),
        (
            "no class later",
            balanced(json!({"networkProfile": {"loadBalancerClass": "b"}})),
            balanced(json!({})),
            "networkProfile.loadBalancerClass cannot be set or unset while the Service is a LoadBalancer",
        ),
        (
            "another user of a control plane",
            kcp(json!({"dataStoreUsername": "a"})),
            kcp(json!({"dataStoreUsername": "b"})),
            "dataStoreUsername cannot be changed",
        ),
        (
            "a class later, of a control plane",
            kcp(json!({"network": {"loadBalancerConfig": {}}})),
            kcp(json!({"network": {"loadBalancerConfig": {"loadBalancerClass": "a"}}})),
            "loadBalancerClass cannot be set or unset later",
        ),
        (
            "another class, of a control plane",
            kcp(json!({"network": {"loadBalancerConfig": {"loadBalancerClass": "a"}}})),
            kcp(json!({"network": {"loadBalancerConfig": {"loadBalancerClass": "b"}}})),
            "loadBalancerClass cannot be changed",
        ),
        (
            "another driver",
            store(json!({})),
            store(json!({"driver": "NATS"})),
            "driver cannot be changed; make another DataStore",
        ),
        (
            "managed later",
            store(json!({})),
            managed(json!({})),
            "managed cannot be added to or taken from",
        ),
        (
            "not managed any more",
            managed(json!({})),
            store(json!({})),
            "managed cannot be added to or taken from",
        ),
        (
            "more members",
            managed(json!({})),
            managed(json!({"replicas": 3})),
            "managed.replicas cannot be changed; make another DataStore",
        ),
        (
            "more storage",
            managed(json!({})),
            managed(json!({"storage": {"size": "16Gi"}})),
            "managed.storage cannot be changed; make another DataStore",
        ),
    ]
}

/// Objects shaped as the peers' users write them: nulls and empty lists where nothing is meant, versions with and
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
                "replicas": 3, "version": "3.6.5", "storage": {"size": "20Gi", "className": "fast"},
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
