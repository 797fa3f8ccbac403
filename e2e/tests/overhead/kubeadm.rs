//! Joins by kubeadm: what `kubeadm init` publishes in a cluster for them, and user data that runs `kubeadm join`
//! (<https://kubernetes.io/docs/reference/setup-tools/kubeadm/kubeadm-join/>, `JoinConfiguration` v1beta4).

use std::path::Path;

use anyhow::{Context as _, Result};
use e2e::{
    infra::capi,
    lab::{
        access::{HOST, Lab},
        cleanup::gone,
        clusters::{Cluster, VERSION},
    },
};
use k8s_openapi::api::{
    core::v1::Secret,
    rbac::v1::{Role, RoleBinding},
};
use kamaji_api::bootstrap::KamajiConfigTemplate;
use kube::{
    Api, Client, Resource as _, ResourceExt as _,
    api::{DynamicObject, Patch, PatchParams, PostParams},
    config::Kubeconfig,
};
use rand::Rng as _;
use serde_json::{Value, json};

/// The image of the machine host that has kubeadm.
pub const IMAGE: &str = "kubeadm";
/// The unit that joins.
pub const UNIT: &str = "kubeadm-join.service";

/// The API of kubeadm's configuration.
const API: &str = "kubeadm.k8s.io/v1beta4";
const SOCKET: &str = "unix:///run/containerd/containerd.sock";
/// The group of kubeadm's tokens.
const GROUP: &str = "system:bootstrappers:kubeadm:default-node-token";

/// Publishes what joins read, and returns `spec.bootstrap` of Machines that join with it.
pub async fn publish(lab: &Lab, cluster: &Cluster, tenant: &Client) -> Result<Value> {
    let kubeconfig = lab.kubeconfig(&cluster.namespace, &cluster.name).await?;
    let server = server(&kubeconfig)?;
    let token = token();
    let folder = lab.directory.join(format!("kubeadm-{}", std::process::id()));
    tokio::fs::create_dir_all(&folder).await?;
    let published = init(lab, cluster, &folder, &kubeconfig, &server, &token).await;
    tokio::fs::remove_dir_all(&folder).await?;
    published?;
    let_tokens_read_kube_proxy(tenant).await?;

    let ca = String::from_utf8(cluster.ca(lab).await?.0)?;
    let name = format!("{}-kubeadm-data", cluster.name);
    let clusters = Api::namespaced_with(lab.management.clone(), &cluster.namespace, &capi::clusters());
    let owner: DynamicObject = clusters.get(&cluster.name).await?;
    let secret = json!({
        "metadata": {
            "name": name,
            "ownerReferences": [{
                "apiVersion": format!("{}/v1beta2", capi::GROUP), "kind": "Cluster",
                "name": owner.name_any(), "uid": owner.uid().context("no UID")?,
            }],
        },
        "type": "cluster.x-k8s.io/secret",
        "stringData": {"format": "cloud-config", "value": user_data(&server, &ca, &token)},
    });
    let secrets = Api::<Secret>::namespaced(lab.management.clone(), &cluster.namespace);
    gone(&secrets, &name, super::PATIENCE).await?;
    secrets
        .create(&PostParams::default(), &serde_json::from_value(secret)?)
        .await?;
    Ok(super::data_in(&name))
}

/// The phases of `kubeadm init` that joins depend on.
async fn init(
    lab: &Lab,
    cluster: &Cluster,
    folder: &Path,
    kubeconfig: &Kubeconfig,
    server: &str,
    token: &str,
) -> Result<()> {
    let templates = Api::<KamajiConfigTemplate>::namespaced(lab.management.clone(), &cluster.namespace);
    let template = templates.get(&cluster.workers()).await?;
    let files = [
        ("kubeconfig", serde_yaml::to_string(kubeconfig)?),
        (
            "config.yaml",
            documents(&configuration(cluster, server, token, &template))?,
        ),
    ];
    for (name, text) in &files {
        tokio::fs::write(folder.join(name), text).await?;
    }
    let path = |name: &str| folder.join(name).display().to_string();
    let (kubeconfig, config) = (path("kubeconfig"), path("config.yaml"));
    for phase in [&["upload-config", "all"][..], &["bootstrap-token"]] {
        let with = ["--kubeconfig", &kubeconfig, "--config", &config];
        let arguments = [&["init", "phase"], phase, &with].concat();
        lab.tool("kubeadm", &arguments).await?;
    }
    Ok(())
}

/// The configuration of the cluster. Kubelets get the same settings as those of the cluster's own workers.
fn configuration(
    cluster: &Cluster,
    server: &str,
    token: &str,
    template: &KamajiConfigTemplate,
) -> [Value; 3] {
    let mut kubelet = json!({
        "apiVersion": "kubelet.config.k8s.io/v1beta1",
        "kind": "KubeletConfiguration",
        "failCgroupV1": false,
        "failSwapOn": false,
    });
    if let Some(fields) = kubelet.as_object_mut() {
        fields.extend(template.spec.template.spec.kubelet.config.clone());
    }
    [
        json!({
            "apiVersion": API,
            "kind": "InitConfiguration",
            "bootstrapTokens": [{"token": token, "groups": [GROUP], "usages": ["signing", "authentication"]}],
            // Otherwise kubeadm looks for the addresses and the container runtimes of this host.
            "localAPIEndpoint": {"advertiseAddress": HOST},
            "nodeRegistration": {"name": cluster.name, "criSocket": SOCKET},
        }),
        json!({
            "apiVersion": API,
            "kind": "ClusterConfiguration",
            "clusterName": cluster.name,
            "kubernetesVersion": VERSION,
            "controlPlaneEndpoint": server.trim_start_matches("https://"),
            // Where kubeadm writes the CA on the node, which the kubelet reads. On this host nothing is read.
            "certificatesDir": "/etc/kubernetes/pki",
            "networking": {"dnsDomain": "cluster.local", "serviceSubnet": "10.96.0.0/16"},
        }),
        kubelet,
    ]
}

/// As the addon phase of kubeadm does for its kube-proxy: a join that may not read the ConfigMap tries again for a while.
async fn let_tokens_read_kube_proxy(tenant: &Client) -> Result<()> {
    let name = "overhead:kube-proxy";
    let role = json!({
        "apiVersion": Role::api_version(&()), "kind": "Role", "metadata": {"name": name},
        "rules": [{"apiGroups": [""], "resources": ["configmaps"], "resourceNames": ["kube-proxy"], "verbs": ["get"]}],
    });
    let binding = json!({
        "apiVersion": RoleBinding::api_version(&()), "kind": "RoleBinding", "metadata": {"name": name},
        "roleRef": {"apiGroup": Role::group(&()), "kind": "Role", "name": name},
        "subjects": [{"apiGroup": Role::group(&()), "kind": "Group", "name": GROUP}],
    });
    let params = PatchParams::apply("overhead");
    Api::<Role>::namespaced(tenant.clone(), "kube-system")
        .patch(name, &params, &Patch::Apply(&role))
        .await?;
    Api::<RoleBinding>::namespaced(tenant.clone(), "kube-system")
        .patch(name, &params, &Patch::Apply(&binding))
        .await?;
    Ok(())
}

/// The address that machines reach.
fn server(kubeconfig: &Kubeconfig) -> Result<String> {
    let cluster = kubeconfig
        .clusters
        .first()
        .and_then(|named| named.cluster.clone());
    cluster
        .and_then(|cluster| cluster.server)
        .context("no server in the kubeconfig")
}

/// A new bootstrap token.
fn token() -> String {
    let mut random = rand::rng();
    let mut word = |length: usize| -> String {
        let letters = b"abcdefghijklmnopqrstuvwxyz0123456789";
        (0..length)
            .map(|_| char::from(letters[random.random_range(0..letters.len())]))
            .collect()
    };
    format!("{}.{}", word(6), word(16))
}

fn documents(values: &[Value]) -> Result<String> {
    let mut text = String::new();
    for value in values {
        text += "---\n";
        text += &serde_yaml::to_string(value)?;
    }
    Ok(text)
}

/// A discovery file needs no signed ConfigMap, and is the shortest way of kubeadm to an API server.
fn user_data(server: &str, ca: &str, token: &str) -> String {
    let discovery = json!({
        "apiVersion": "v1", "kind": "Config", "current-context": "join",
        "clusters": [{"name": "join", "cluster": {
            "server": server,
            "certificate-authority-data": base64(ca),
        }}],
        "contexts": [{"name": "join", "context": {"cluster": "join", "user": "join"}}],
        "users": [{"name": "join", "user": {"token": token}}],
    });
    let config = json!({
        "apiVersion": API, "kind": "JoinConfiguration",
        "discovery": {"file": {"kubeConfigPath": "/etc/kubernetes/discovery.conf"}, "tlsBootstrapToken": token},
        // A container has neither the kernel's configuration nor its modules.
        "nodeRegistration": {"criSocket": SOCKET, "ignorePreflightErrors": ["all"]},
    });
    let file = |path: &str, mode: &str, content: String| json!({"path": path, "permissions": mode, "content": content});
    let data = json!({
        "write_files": [
            file("/etc/kubernetes/discovery.conf", "0600", discovery.to_string()),
            file("/etc/kubernetes/join.yaml", "0600", config.to_string()),
            file("/etc/systemd/system/kubelet.service", "0644", KUBELET.to_owned()),
            file(&format!("/etc/systemd/system/{UNIT}"), "0644", JOIN.to_owned()),
        ],
        "runcmd": ["systemctl daemon-reload", format!("systemctl start {UNIT}")],
    });
    format!("#cloud-config\n{data}\n")
}

fn base64(text: &str) -> String {
    data_encoding::BASE64.encode(text.as_bytes())
}

/// The kubelet as kubeadm starts it: its flags are in the file that kubeadm writes.
const KUBELET: &str = "[Unit]
Description=kubelet
After=containerd.service

[Service]
EnvironmentFile=-/var/lib/kubelet/kubeadm-flags.env
ExecStart=/usr/local/bin/kubelet --config=/var/lib/kubelet/config.yaml --kubeconfig=/etc/kubernetes/kubelet.conf \\
  --bootstrap-kubeconfig=/etc/kubernetes/bootstrap-kubelet.conf $KUBELET_KUBEADM_ARGS
Restart=always
RestartSec=10
";

/// Ordered as the unit of a KamajiConfig is.
const JOIN: &str = "[Unit]
Description=Join the cluster
Wants=network-online.target
After=network-online.target containerd.service

[Service]
Type=oneshot
RemainAfterExit=yes
Environment=PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
ExecStart=/usr/local/bin/kubeadm join --config /etc/kubernetes/join.yaml
StandardOutput=journal+console
";
