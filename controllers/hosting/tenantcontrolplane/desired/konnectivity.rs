//! Konnectivity in the management cluster: the server's container, what it and kube-apiserver mount for it, and its
//! ConfigMap and Secret. Pure.
//!
//! The server has the serving pair of kube-apiserver, which agents verify, and a client certificate of its own. Its
//! readiness is that of its process: it counts agents otherwise, and agents come through the Service, to ready pods alone.

use std::collections::BTreeMap;

use k8s_openapi::{
    ByteString,
    api::core::v1::{
        ConfigMap, ConfigMapVolumeSource, Container, ContainerPort, EmptyDirVolumeSource, EnvVar,
        EnvVarSource, HTTPGetAction, Lifecycle, LifecycleHandler, ObjectFieldSelector, Probe, SleepAction,
        Volume, VolumeMount,
    },
    apimachinery::pkg::{api::resource::Quantity, util::intstr::IntOrString},
};
use kamaji_api::{
    addons::{Konnectivity, KonnectivityServer},
    labels::kamaji,
    tenantcontrolplane::TenantControlPlane,
};
use kube::ResourceExt;
use serde_json::json;

use super::{
    Result,
    flags::{self, Flags},
    inputs::Inputs,
    manifest,
    metadata::metadata,
    secrets, volumes,
};
use crate::{
    hosting::{
        hardened,
        tenantcontrolplane::{
            component::{CaKeys, file},
            konnectivity::{
                ADMIN_PORT, EGRESS, EGRESS_FOLDER, EGRESS_KEY, EGRESS_VOLUME, HEALTH_PORT, KUBECONFIG,
                KUBECONFIG_KEY, SERVER, SOCKET, SOCKET_FOLDER, SOCKET_VOLUME, counts_by_lease, egress_name,
                kubeconfig_name, of,
            },
        },
    },
    k8s::{digest, manifest::Manifest},
    pki::spec::KONNECTIVITY_USER,
    tenant::konnectivity::{ACCOUNT, NAMESPACE},
};

/// Flags of the server that the engine owns.
const OWNED: [&str; 18] = [
    "admin-bind-address",
    "admin-port",
    "agent-namespace",
    "agent-port",
    "agent-service-account",
    "authentication-audience",
    "cluster-cert",
    "cluster-key",
    "enable-lease-controller",
    "health-port",
    "kubeconfig",
    "lease-label",
    "lease-namespace",
    "mode",
    "server-count",
    "server-id",
    "server-port",
    "uds-name",
];

/// How long the server goes on after the pod was told to end, in seconds: kube-apiserver takes requests for ten more
/// seconds (`--shutdown-delay-duration`) and then ends those under way, through the tunnel.
const OUTLIVES: i64 = 15;

/// Describes what the user set but has no effect: flags of the server that the engine owns.
pub fn ignored(tenant: &TenantControlPlane) -> Vec<String> {
    let extra = of(tenant).map_or(&[][..], |settings| &settings.server.extra_args);
    extra
        .iter()
        .map(|flag| flags::name(flag))
        .filter(|name| OWNED.contains(&name.as_str()))
        .map(|name| format!("spec.addons.konnectivity.server.extraArgs (the engine sets --{name} itself)"))
        .collect()
}

/// The server's container.
pub(super) fn container(inputs: &Inputs<'_>, settings: &Konnectivity) -> Container {
    let KonnectivityServer {
        port,
        image,
        version: _,
        extra_args: _,
        // Merged over the Deployment as they are.
        resources: _,
        security_context: _,
    } = &settings.server;
    let tag = settings.server_tag(inputs.valid.version.minor);
    let listens = |name: &str, port: i32| ContainerPort {
        name: Some(name.to_owned()),
        container_port: port,
        protocol: Some("TCP".to_owned()),
        ..ContainerPort::default()
    };
    let probe = |timeout, period, failures| Probe {
        http_get: Some(HTTPGetAction {
            path: Some("/healthz".to_owned()),
            port: IntOrString::Int(HEALTH_PORT),
            scheme: Some("HTTP".to_owned()),
            ..HTTPGetAction::default()
        }),
        timeout_seconds: Some(timeout),
        period_seconds: Some(period),
        success_threshold: Some(1),
        failure_threshold: Some(failures),
        ..Probe::default()
    };
    Container {
        name: SERVER.to_owned(),
        image: Some(format!("{image}:{tag}")),
        image_pull_policy: Some("IfNotPresent".to_owned()),
        command: Some(vec!["/proxy-server".to_owned()]),
        args: Some(arguments(inputs, settings)),
        env: Some(vec![EnvVar {
            // The pod is the server: agents and Leases name it.
            name: "PROXY_SERVER_ID".to_owned(),
            value_from: Some(EnvVarSource {
                field_ref: Some(ObjectFieldSelector {
                    api_version: Some("v1".to_owned()),
                    field_path: "metadata.name".to_owned(),
                }),
                ..EnvVarSource::default()
            }),
            value: None,
        }]),
        ports: Some(vec![
            listens("agentport", *port),
            listens("adminport", ADMIN_PORT),
            listens("healthport", HEALTH_PORT),
        ]),
        liveness_probe: Some(probe(15, 10, 8)),
        readiness_probe: Some(probe(5, 5, 3)),
        lifecycle: Some(Lifecycle {
            pre_stop: Some(LifecycleHandler {
                sleep: Some(SleepAction { seconds: OUTLIVES }),
                ..LifecycleHandler::default()
            }),
            ..Lifecycle::default()
        }),
        security_context: Some(hardened::container(None)),
        volume_mounts: Some(vec![volumes::mount(SERVER), socket_mount()]),
        ..Container::default()
    }
}

/// Flags of the server. One server is counted by a Lease of its own, so that a change of the replicas changes no flag.
fn arguments(inputs: &Inputs<'_>, settings: &Konnectivity) -> Vec<String> {
    let deployment = &inputs.tenant.spec.control_plane.deployment;
    let mut all: Flags = [
        ("admin-bind-address", "127.0.0.1".to_owned()),
        ("admin-port", ADMIN_PORT.to_string()),
        ("agent-namespace", NAMESPACE.to_owned()),
        ("agent-port", settings.server.port.to_string()),
        ("agent-service-account", ACCOUNT.to_owned()),
        ("authentication-audience", KONNECTIVITY_USER.to_owned()),
        ("cluster-cert", file::API_SERVER_CERTIFICATE.to_owned()),
        ("cluster-key", file::API_SERVER_KEY.to_owned()),
        ("health-port", HEALTH_PORT.to_string()),
        // A connection that a NAT or a cut network forgot is found soon.
        ("keepalive-time", "10s".to_owned()),
        ("kubeconfig", file::KONNECTIVITY_KUBECONFIG.to_owned()),
        // After a restart every agent comes back at once, each with a token to review; the default is 5 a second.
        ("kubeconfig-burst", "200".to_owned()),
        ("kubeconfig-qps", "100".to_owned()),
        ("mode", "grpc".to_owned()),
        // A node is reached through its own agent, if it has one.
        ("proxy-strategies", "destHost,default".to_owned()),
        ("server-port", "0".to_owned()),
        ("uds-name", SOCKET.to_owned()),
    ]
    .into();
    if counts_by_lease(settings, inputs.valid.version.minor) {
        all.insert("enable-lease-controller", "true".to_owned());
    } else {
        all.insert("server-count", deployment.replicas.max(1).to_string());
    }
    let extra: Vec<String> = settings
        .server
        .extra_args
        .iter()
        .filter(|flag| !OWNED.contains(&flags::name(flag).as_str()))
        .cloned()
        .collect();
    flags::merged(all, &extra)
}

/// The volumes, in the order of upstream Kamaji.
pub(super) fn volumes(inputs: &Inputs<'_>) -> Vec<Volume> {
    let name = inputs.tenant.name_any();
    vec![
        Volume {
            name: SOCKET_VOLUME.to_owned(),
            empty_dir: Some(EmptyDirVolumeSource {
                medium: Some("Memory".to_owned()),
                size_limit: Some(Quantity("1Mi".to_owned())),
            }),
            ..Volume::default()
        },
        Volume {
            name: EGRESS_VOLUME.to_owned(),
            config_map: Some(ConfigMapVolumeSource {
                name: egress_name(&name),
                ..ConfigMapVolumeSource::default()
            }),
            ..Volume::default()
        },
        volumes::projected(SERVER, files(&name, inputs.ca_secret, inputs.ca_keys)),
    ]
}

/// Files of the server.
fn files(tenant: &str, ca_secret: &str, ca: CaKeys) -> Vec<volumes::Item> {
    let own = |suffix: &str| format!("{tenant}-{suffix}");
    vec![
        (ca_secret.to_owned(), ca.bundle, file::CA),
        (
            own("api-server-certificate"),
            "apiserver.crt",
            file::API_SERVER_CERTIFICATE,
        ),
        (
            own("api-server-certificate"),
            "apiserver.key",
            file::API_SERVER_KEY,
        ),
        (
            own("konnectivity-certificate"),
            "tls.crt",
            file::KONNECTIVITY_CERTIFICATE,
        ),
        (own("konnectivity-certificate"), "tls.key", file::KONNECTIVITY_KEY),
        (
            kubeconfig_name(tenant),
            KUBECONFIG_KEY,
            file::KONNECTIVITY_KUBECONFIG,
        ),
    ]
}

/// What kube-apiserver mounts.
pub(super) fn api_server_mounts() -> [VolumeMount; 2] {
    [
        socket_mount(),
        VolumeMount {
            name: EGRESS_VOLUME.to_owned(),
            mount_path: EGRESS_FOLDER.to_owned(),
            read_only: Some(true),
            ..VolumeMount::default()
        },
    ]
}

fn socket_mount() -> VolumeMount {
    VolumeMount {
        name: SOCKET_VOLUME.to_owned(),
        mount_path: SOCKET_FOLDER.to_owned(),
        ..VolumeMount::default()
    }
}

/// The ConfigMap with which kube-apiserver sends its requests to nodes, pods and Services through the server.
///
/// # Errors
/// See [`Result`].
pub fn egress(tenant: &TenantControlPlane) -> Result<Manifest> {
    let mut metadata = metadata(tenant, &egress_name(&tenant.name_any()), EGRESS, None);
    metadata.annotations = Some(BTreeMap::from([(kamaji::CHECKSUM.to_owned(), egress_hash())]));
    manifest(&ConfigMap {
        metadata,
        data: Some(egress_data()),
        ..ConfigMap::default()
    })
}

/// Digest of the data of [`egress`].
pub fn egress_hash() -> String {
    digest::of(&json!(egress_data()))
}

fn egress_data() -> BTreeMap<String, String> {
    let configuration = json!({
        "apiVersion": "apiserver.k8s.io/v1beta1",
        "kind": "EgressSelectorConfiguration",
        "egressSelections": [{
            "name": "cluster",
            "connection": {
                "proxyProtocol": "GRPC",
                "transport": { "uds": { "udsName": SOCKET } },
            },
        }],
    });
    BTreeMap::from([(EGRESS_KEY.to_owned(), volumes::yaml(&configuration))])
}

/// The Secret with the server's kubeconfig. It names the files of its certificate, which is a Secret of its own.
///
/// # Errors
/// See [`Result`].
pub fn kubeconfig(tenant: &TenantControlPlane) -> Result<Manifest> {
    let name = kubeconfig_name(&tenant.name_any());
    secrets::rendered(tenant, &name, KUBECONFIG, kubeconfig_data(tenant))
}

/// Digest of the data of [`kubeconfig`].
pub fn kubeconfig_hash(tenant: &TenantControlPlane) -> String {
    secrets::digest(&kubeconfig_data(tenant))
}

fn kubeconfig_data(tenant: &TenantControlPlane) -> BTreeMap<String, ByteString> {
    let text = kubeconfig_text(tenant).into_bytes();
    BTreeMap::from([(KUBECONFIG_KEY.to_owned(), ByteString(text))])
}

fn kubeconfig_text(tenant: &TenantControlPlane) -> String {
    let server = format!("https://localhost:{}", tenant.spec.network_profile.port);
    let context = format!("{KONNECTIVITY_USER}@kubernetes");
    volumes::yaml(&json!({
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{
            "name": "kubernetes",
            "cluster": { "certificate-authority": file::CA, "server": server },
        }],
        "contexts": [{
            "name": context,
            "context": { "cluster": "kubernetes", "user": KONNECTIVITY_USER },
        }],
        "current-context": context,
        "users": [{
            "name": KONNECTIVITY_USER,
            "user": {
                "client-certificate": file::KONNECTIVITY_CERTIFICATE,
                "client-key": file::KONNECTIVITY_KEY,
            },
        }],
    }))
}

/// Digests whose change replaces the pods, by component, beside those of every tenant.
pub(super) fn mounted(inputs: &Inputs<'_>) -> [(&'static str, String); 3] {
    use crate::pki::spec::component;
    let certificate = inputs.hashes.get(component::KONNECTIVITY);
    [
        (component::KONNECTIVITY, certificate.cloned().unwrap_or_default()),
        (EGRESS, egress_hash()),
        (KUBECONFIG, kubeconfig_hash(inputs.tenant)),
    ]
}
