//! The hosted components: names of their containers, ports, and the paths of their files. Pure.
//!
//! Validation, rendering and key material share these names.

/// Container kube-apiserver.
pub const API_SERVER: &str = "kube-apiserver";
/// Container kube-controller-manager.
pub const CONTROLLER_MANAGER: &str = "kube-controller-manager";
/// Container kube-scheduler.
pub const SCHEDULER: &str = "kube-scheduler";
/// Names of the containers that the engine owns; a user's additional container cannot have one of them.
pub const CONTAINERS: [&str; 3] = [API_SERVER, SCHEDULER, CONTROLLER_MANAGER];

/// Secure port of kube-controller-manager: upstream's default, used by its probes.
pub const CONTROLLER_MANAGER_PORT: i32 = 10257;
/// Secure port of kube-scheduler: upstream's default, used by its probes.
pub const SCHEDULER_PORT: i32 = 10259;

/// Name of the port of kube-apiserver in its container.
pub const HTTPS: &str = "https";
/// Name of the port of kube-apiserver in its Service.
pub const API_SERVER_PORT: &str = "kube-apiserver";

/// Folder of Kubernetes in a container. Users put files of their own beside the engine's, as every guide does with an
/// audit policy.
pub const FOLDER: &str = "/etc/kubernetes";
/// Mount path of the volume of each container. Nothing can be mounted below it, since the volume is read-only.
pub const MOUNT_PATH: &str = "/etc/kubernetes/pki";

/// Paths of the files in the containers.
pub mod file {
    macro_rules! paths {
        ($($(#[$doc:meta])* $name:ident = $path:literal;)+) => {
            $($(#[$doc])* pub const $name: &str = concat!("/etc/kubernetes/pki/", $path);)+
        };
    }
    paths! {
        /// Trust bundle of the tenant.
        CA = "ca.crt";
        /// The certificate that kube-controller-manager signs with.
        SIGNING_CERTIFICATE = "signing/ca.crt";
        /// Private key of [`SIGNING_CERTIFICATE`].
        SIGNING_KEY = "signing/ca.key";
        /// Serving certificate of kube-apiserver.
        API_SERVER_CERTIFICATE = "apiserver.crt";
        /// Private key of [`API_SERVER_CERTIFICATE`].
        API_SERVER_KEY = "apiserver.key";
        /// Client certificate for kubelets.
        KUBELET_CLIENT_CERTIFICATE = "apiserver-kubelet-client.crt";
        /// Private key of [`KUBELET_CLIENT_CERTIFICATE`].
        KUBELET_CLIENT_KEY = "apiserver-kubelet-client.key";
        /// Front proxy CA.
        FRONT_PROXY_CA = "front-proxy-ca.crt";
        /// Client certificate for aggregated API servers.
        FRONT_PROXY_CERTIFICATE = "front-proxy-client.crt";
        /// Private key of [`FRONT_PROXY_CERTIFICATE`].
        FRONT_PROXY_KEY = "front-proxy-client.key";
        /// Public key that verifies ServiceAccount tokens.
        SA_PUBLIC = "sa.pub";
        /// Private key that signs ServiceAccount tokens.
        SA_KEY = "sa.key";
        /// Trust bundle for etcd.
        ETCD_CA = "etcd/ca.crt";
        /// Client certificate for etcd.
        ETCD_CERTIFICATE = "etcd/server.crt";
        /// Private key of [`ETCD_CERTIFICATE`].
        ETCD_KEY = "etcd/server.key";
        /// Kubeconfig of kube-controller-manager.
        CONTROLLER_MANAGER_KUBECONFIG = "controller-manager.conf";
        /// Kubeconfig of kube-scheduler.
        SCHEDULER_KUBECONFIG = "scheduler.conf";
        /// Client certificate of the konnectivity server.
        KONNECTIVITY_CERTIFICATE = "konnectivity-server.crt";
        /// Private key of [`KONNECTIVITY_CERTIFICATE`].
        KONNECTIVITY_KEY = "konnectivity-server.key";
        /// Kubeconfig of the konnectivity server.
        KONNECTIVITY_KUBECONFIG = "konnectivity-server.conf";
    }
}

/// Which keys of the Secret `<tcp>-ca` hold the CA. A CA that a user provides may have Cluster API's two keys only.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CaKeys {
    /// Key of the trust bundle.
    pub bundle: &'static str,
    /// Key of the signing certificate, a single one.
    pub certificate: &'static str,
    /// Key of the private key.
    pub key: &'static str,
}

/// Keys of a CA that the engine generated.
pub const GENERATED_CA: CaKeys = CaKeys {
    bundle: "ca.crt",
    certificate: "tls.crt",
    key: "tls.key",
};
