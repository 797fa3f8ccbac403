//! What each hosted container sees of the tenant's Secrets: one projected volume a container with exactly the keys
//! it needs, mode 0440 (DESIGN 2.5). Only kube-controller-manager sees the authority's key.

use k8s_openapi::api::core::v1::{
    KeyToPath, ProjectedVolumeSource, SecretProjection, Volume, VolumeMount, VolumeProjection,
};

/// Where a container's volume is mounted.
pub const ROOT: &str = "/etc/kubernetes";
/// Files of Secrets belong to root; the pod's group reads them.
const MODE: i32 = 0o440;

/// Paths of the files in the containers.
pub mod file {
    macro_rules! paths {
        ($($(#[$doc:meta])* $name:ident = $path:literal;)+) => {
            $($(#[$doc])* pub const $name: &str = concat!("/etc/kubernetes/", $path);)+
        };
    }
    paths! {
        /// Trust bundle of the tenant.
        CA = "pki/ca.crt";
        /// The one certificate that kube-controller-manager signs with.
        SIGNING_CERTIFICATE = "pki/signing/ca.crt";
        /// Its key.
        SIGNING_KEY = "pki/signing/ca.key";
        /// Serving certificate.
        API_SERVER_CERTIFICATE = "pki/apiserver.crt";
        /// Its key.
        API_SERVER_KEY = "pki/apiserver.key";
        /// Certificate towards kubelets.
        KUBELET_CLIENT_CERTIFICATE = "pki/apiserver-kubelet-client.crt";
        /// Its key.
        KUBELET_CLIENT_KEY = "pki/apiserver-kubelet-client.key";
        /// Front proxy authority.
        FRONT_PROXY_CA = "pki/front-proxy-ca.crt";
        /// Certificate towards aggregated API servers.
        FRONT_PROXY_CERTIFICATE = "pki/front-proxy-client.crt";
        /// Its key.
        FRONT_PROXY_KEY = "pki/front-proxy-client.key";
        /// Public half of the ServiceAccount pair.
        SA_PUBLIC = "pki/sa.pub";
        /// Private half of it.
        SA_KEY = "pki/sa.key";
        /// What etcd is checked by.
        ETCD_CA = "pki/etcd/ca.crt";
        /// Certificate towards etcd.
        ETCD_CERTIFICATE = "pki/etcd/server.crt";
        /// Its key.
        ETCD_KEY = "pki/etcd/server.key";
        /// Kubeconfig of kube-controller-manager.
        CONTROLLER_MANAGER_KUBECONFIG = "controller-manager.conf";
        /// Kubeconfig of kube-scheduler.
        SCHEDULER_KUBECONFIG = "scheduler.conf";
    }
}

/// Keys of the Secret `<tcp>-ca` that exist: a user's has perhaps only Cluster API's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AuthorityFiles {
    /// Trust bundle.
    pub bundle: &'static str,
    /// Signing certificate, one.
    pub certificate: &'static str,
    /// Its key.
    pub key: &'static str,
}

/// The keys of an authority that the engine made.
pub const OUR_AUTHORITY: AuthorityFiles = AuthorityFiles {
    bundle: "ca.crt",
    certificate: "tls.crt",
    key: "tls.key",
};

type Item = (String, &'static str, &'static str);

/// (Secret, key, path) of what kube-apiserver reads.
pub(super) fn api_server(tenant: &str, authority: AuthorityFiles) -> Vec<Item> {
    let own = |suffix: &str| format!("{tenant}-{suffix}");
    let mut items = vec![(own("ca"), authority.bundle, file::CA)];
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

/// (Secret, key, path) of what kube-controller-manager reads.
pub(super) fn controller_manager(tenant: &str, authority: AuthorityFiles) -> Vec<Item> {
    let own = |suffix: &str| format!("{tenant}-{suffix}");
    vec![
        (own("ca"), authority.bundle, file::CA),
        (own("ca"), authority.certificate, file::SIGNING_CERTIFICATE),
        (own("ca"), authority.key, file::SIGNING_KEY),
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

/// (Secret, key, path) of what kube-scheduler reads.
pub(super) fn scheduler(tenant: &str) -> Vec<Item> {
    vec![(
        format!("{tenant}-scheduler-kubeconfig"),
        "scheduler.conf",
        file::SCHEDULER_KUBECONFIG,
    )]
}

/// One projected volume of `items`, grouped by Secret.
pub(super) fn projected(name: &str, items: Vec<Item>) -> Volume {
    let mut sources: Vec<VolumeProjection> = Vec::new();
    for (secret, key, path) in items {
        let item = KeyToPath {
            key: key.to_owned(),
            path: path.trim_start_matches(ROOT).trim_start_matches('/').to_owned(),
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

/// The mount of a container's volume.
pub(super) fn mount(name: &str) -> VolumeMount {
    VolumeMount {
        name: name.to_owned(),
        mount_path: ROOT.to_owned(),
        read_only: Some(true),
        ..VolumeMount::default()
    }
}
