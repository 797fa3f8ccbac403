//! The pod of one member of a managed etcd: hardened to the Pod Security level `restricted`, with compaction and a quota,
//! since many API servers share it. Pure.

use std::collections::BTreeMap;

use k8s_openapi::{
    api::core::v1::{
        Container, ContainerPort, EnvVar, EnvVarSource, HTTPGetAction, KeyToPath, PodSecurityContext,
        PodSpec, Probe, ResourceRequirements, SecretKeySelector, SecretVolumeSource, Volume, VolumeMount,
    },
    apimachinery::pkg::{api::resource::Quantity, util::intstr::IntOrString},
};

use super::{
    parts::{CLIENT, CLUSTER_STATE, PEER, VOLUME, host, server, start},
    validate::Managed,
};
use crate::hosting::hardened;

/// Port of probes and metrics, without TLS; the NetworkPolicy blocks it for pods.
const PROBES: i32 = 2381;
/// Mode of mounted keys: the group can read them, since files of Secrets are owned by root.
const KEY_MODE: i32 = 0o440;
/// Mount path of the volume.
const DATA: &str = "/var/lib/etcd";
/// Mount path of the certificates.
const PKI: &str = "/etc/etcd/pki";

/// The pod spec.
pub(super) fn pod(managed: &Managed) -> PodSpec {
    PodSpec {
        automount_service_account_token: Some(false),
        enable_service_links: Some(false),
        security_context: Some(PodSecurityContext {
            fs_group_change_policy: Some("OnRootMismatch".to_owned()),
            ..hardened::pod()
        }),
        containers: vec![container(managed)],
        volumes: Some(vec![Volume {
            name: "pki".to_owned(),
            secret: Some(SecretVolumeSource {
                secret_name: Some(server(&managed.name).name),
                default_mode: Some(KEY_MODE),
                items: Some(
                    ["ca.crt", "tls.crt", "tls.key"]
                        .map(|key| KeyToPath {
                            key: key.to_owned(),
                            path: key.to_owned(),
                            mode: None,
                        })
                        .to_vec(),
                ),
                ..SecretVolumeSource::default()
            }),
            ..Volume::default()
        }]),
        ..PodSpec::default()
    }
}

/// The container.
fn container(managed: &Managed) -> Container {
    let probe = |path: &str, period: i32, failures: i32| {
        Some(Probe {
            http_get: Some(HTTPGetAction {
                path: Some(path.to_owned()),
                port: IntOrString::Int(PROBES),
                scheme: Some("HTTP".to_owned()),
                ..HTTPGetAction::default()
            }),
            period_seconds: Some(period),
            timeout_seconds: Some(5),
            failure_threshold: Some(failures),
            ..Probe::default()
        })
    };
    let port = |name: &str, port: i32| ContainerPort {
        name: Some(name.to_owned()),
        container_port: port,
        protocol: Some("TCP".to_owned()),
        ..ContainerPort::default()
    };
    let mount = |name: &str, path: &str, read_only: bool| VolumeMount {
        name: name.to_owned(),
        mount_path: path.to_owned(),
        read_only: read_only.then_some(true),
        ..VolumeMount::default()
    };
    Container {
        name: "etcd".to_owned(),
        image: Some(format!("gcr.io/etcd-development/etcd:v{}", managed.version)),
        image_pull_policy: Some("IfNotPresent".to_owned()),
        command: Some(vec!["/usr/local/bin/etcd".to_owned()]),
        args: Some(arguments(managed)),
        env: Some(vec![cluster_state(managed)]),
        ports: Some(vec![port("client", CLIENT), port("probes", PROBES)]),
        startup_probe: probe("/readyz", 2, 150),
        readiness_probe: probe("/readyz", 5, 3),
        liveness_probe: probe("/livez", 10, 6),
        resources: Some(ResourceRequirements {
            requests: Some(BTreeMap::from([
                ("cpu".to_owned(), Quantity("50m".to_owned())),
                ("memory".to_owned(), Quantity("128Mi".to_owned())),
            ])),
            ..ResourceRequirements::default()
        }),
        security_context: Some(hardened::container(None)),
        volume_mounts: Some(vec![mount(VOLUME, DATA, false), mount("pki", PKI, true)]),
        ..Container::default()
    }
}

/// How a member without data starts, as [`super::desired::start`] says. It is read whenever the container starts, so
/// that a change replaces no pod; without the Secret the container does not start.
fn cluster_state(managed: &Managed) -> EnvVar {
    EnvVar {
        name: "ETCD_INITIAL_CLUSTER_STATE".to_owned(),
        value_from: Some(EnvVarSource {
            secret_key_ref: Some(SecretKeySelector {
                name: start(&managed.name),
                key: CLUSTER_STATE.to_owned(),
                optional: None,
            }),
            ..EnvVarSource::default()
        }),
        ..EnvVar::default()
    }
}

fn arguments(managed: &Managed) -> Vec<String> {
    let name = &managed.name;
    let member = format!("{name}-0");
    let host = host(name, 0);
    let flags = [
        ("name", member.clone()),
        // A directory with mode 0700, which the mount point of a volume cannot have.
        ("data-dir", format!("{DATA}/data")),
        ("listen-client-urls", format!("https://0.0.0.0:{CLIENT}")),
        ("advertise-client-urls", format!("https://{host}:{CLIENT}")),
        // Peers are not subject to users and roles: a peer reads and writes the data of every tenant. One member has no
        // peers, so the port is on loopback. The advertised URL is only recorded.
        ("listen-peer-urls", format!("https://127.0.0.1:{PEER}")),
        ("initial-advertise-peer-urls", format!("https://{host}:{PEER}")),
        ("initial-cluster", format!("{member}=https://{host}:{PEER}")),
        ("listen-metrics-urls", format!("http://0.0.0.0:{PROBES}")),
        ("client-cert-auth", "true".to_owned()),
        ("trusted-ca-file", format!("{PKI}/ca.crt")),
        ("cert-file", format!("{PKI}/tls.crt")),
        ("key-file", format!("{PKI}/tls.key")),
        ("peer-client-cert-auth", "true".to_owned()),
        // The members' own certificate instead of the CA, which signs tenants' certificates too.
        ("peer-trusted-ca-file", format!("{PKI}/tls.crt")),
        ("peer-cert-file", format!("{PKI}/tls.crt")),
        ("peer-key-file", format!("{PKI}/tls.key")),
        // Tenants' API servers share this etcd and do not compact it.
        ("auto-compaction-mode", "periodic".to_owned()),
        ("auto-compaction-retention", "5m".to_owned()),
        ("quota-backend-bytes", managed.quota.to_string()),
    ];
    flags
        .iter()
        .map(|(flag, value)| format!("--{flag}={value}"))
        .collect()
}
