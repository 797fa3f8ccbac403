//! What each hosted container reads of the Secrets of the tenant: one projected volume for each container, with exactly
//! the keys that it needs, mode 0440. Only kube-controller-manager gets the private key of the CA. Pure.

use k8s_openapi::api::core::v1::{
    KeyToPath, ProjectedVolumeSource, SecretProjection, Volume, VolumeMount, VolumeProjection,
};
use serde_json::Value;

use crate::hosting::tenantcontrolplane::component::{CaKeys, MOUNT_PATH, file};

/// Root owns the files; the group of the pod reads them.
const MODE: i32 = 0o440;

/// Secret, key in it, and path in the container.
pub(super) type Item = (String, &'static str, &'static str);

/// Files of kube-apiserver. `ca_secret` has the CA.
pub(super) fn api_server(tenant: &str, ca_secret: &str, ca: CaKeys) -> Vec<Item> {
    let own = |suffix: &str| format!("{tenant}-{suffix}");
    let mut items = vec![(ca_secret.to_owned(), ca.bundle, file::CA)];
    for (secret, key, path) in [
        (
            "api-server-certificate",
            "apiserver.crt",
            file::API_SERVER_CERTIFICATE,
        ),
        ("api-server-certificate", "apiserver.key", file::API_SERVER_KEY),
        (
            "api-server-kubelet-client-certificate",
            "apiserver-kubelet-client.crt",
            file::KUBELET_CLIENT_CERTIFICATE,
        ),
        (
            "api-server-kubelet-client-certificate",
            "apiserver-kubelet-client.key",
            file::KUBELET_CLIENT_KEY,
        ),
        (
            "front-proxy-ca-certificate",
            "front-proxy-ca.crt",
            file::FRONT_PROXY_CA,
        ),
        (
            "front-proxy-client-certificate",
            "front-proxy-client.crt",
            file::FRONT_PROXY_CERTIFICATE,
        ),
        (
            "front-proxy-client-certificate",
            "front-proxy-client.key",
            file::FRONT_PROXY_KEY,
        ),
        ("sa-certificate", "sa.pub", file::SA_PUBLIC),
        ("sa-certificate", "sa.key", file::SA_KEY),
        ("datastore-certificate", "ca.crt", file::ETCD_CA),
        ("datastore-certificate", "server.crt", file::ETCD_CERTIFICATE),
        ("datastore-certificate", "server.key", file::ETCD_KEY),
    ] {
        items.push((own(secret), key, path));
    }
    items
}

/// Files of kube-controller-manager.
pub(super) fn controller_manager(tenant: &str, ca_secret: &str, ca: CaKeys) -> Vec<Item> {
    let own = |suffix: &str| format!("{tenant}-{suffix}");
    vec![
        (ca_secret.to_owned(), ca.bundle, file::CA),
        (ca_secret.to_owned(), ca.certificate, file::SIGNING_CERTIFICATE),
        (ca_secret.to_owned(), ca.key, file::SIGNING_KEY),
        (
            own("front-proxy-ca-certificate"),
            "front-proxy-ca.crt",
            file::FRONT_PROXY_CA,
        ),
        (own("sa-certificate"), "sa.key", file::SA_KEY),
        (
            own("controller-manager-kubeconfig"),
            "controller-manager.conf",
            file::CONTROLLER_MANAGER_KUBECONFIG,
        ),
    ]
}

/// Files of kube-scheduler.
pub(super) fn scheduler(tenant: &str) -> Vec<Item> {
    vec![(
        format!("{tenant}-scheduler-kubeconfig"),
        "scheduler.conf",
        file::SCHEDULER_KUBECONFIG,
    )]
}

/// The projected volume `name` with `items`, grouped by Secret.
pub(super) fn projected(name: &str, items: Vec<Item>) -> Volume {
    let mut sources: Vec<VolumeProjection> = Vec::new();
    for (secret, key, path) in items {
        let item = KeyToPath {
            key: key.to_owned(),
            path: path
                .trim_start_matches(MOUNT_PATH)
                .trim_start_matches('/')
                .to_owned(),
            mode: None,
        };
        let same = sources
            .iter_mut()
            .filter_map(|source| source.secret.as_mut())
            .find(|known| known.name == secret);
        if let Some(known) = same {
            known.items.get_or_insert_default().push(item);
        } else {
            sources.push(VolumeProjection {
                secret: Some(SecretProjection {
                    name: secret,
                    items: Some(vec![item]),
                    optional: None,
                }),
                ..VolumeProjection::default()
            });
        }
    }
    Volume {
        name: name.to_owned(),
        projected: Some(ProjectedVolumeSource {
            default_mode: Some(MODE),
            sources: Some(sources),
        }),
        ..Volume::default()
    }
}

/// The text of a file. Every JSON value serialises to YAML.
pub(super) fn yaml(value: &Value) -> String {
    serde_yaml::to_string(value).unwrap_or_default()
}

/// The mount of the volume `name`.
pub(super) fn mount(name: &str) -> VolumeMount {
    VolumeMount {
        name: name.to_owned(),
        mount_path: MOUNT_PATH.to_owned(),
        read_only: Some(true),
        ..VolumeMount::default()
    }
}
