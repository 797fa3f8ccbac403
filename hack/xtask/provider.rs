//! The two providers that this project ships: names, files, namespaces, processes and RBAC rules.
//! Owns this data only; `components` generates objects from it. clusterctl derives names and files from the type of a
//! provider: <https://cluster-api.sigs.k8s.io/developer/providers/contracts/clusterctl>.

use kamaji_api::{labels::namespace, rbac::Grant};

use crate::access::{BOOTSTRAP_ROLE, CONTROL_PLANE_ROLE, HOSTING_ROLE};

/// Where the image is pulled from, without tag.
pub const IMAGE_REPOSITORY: &str = "ghcr.io/capi-kamaji/capi-kamaji";

/// Version of this checkout's release: a tag, a folder of the provider repository, the image's tag.
pub const VERSION: &str = concat!("v", env!("CARGO_PKG_VERSION"));

/// The one image of both providers, fully qualified.
pub fn image(version: &str) -> String {
    format!("{IMAGE_REPOSITORY}:{version}")
}

/// One provider: one file, one namespace, one Deployment.
pub struct Provider {
    /// clusterctl's label, and the folder in a provider repository.
    pub label: &'static str,
    /// Name of the components file; clusterctl fixes it by the provider's type.
    pub file: &'static str,
    /// Name of the sources in `config/`, of ServiceAccount and Deployment behind `capi-kamaji-`.
    pub short: &'static str,
    /// Its namespace.
    pub namespace: &'static str,
    /// Flags of `run`.
    pub flags: &'static [&'static str],
    /// One ClusterRole a role of the process.
    pub roles: &'static [(&'static str, &'static [Grant])],
    /// Groups of the CRDs that it brings.
    pub groups: &'static [&'static str],
}

impl Provider {
    /// Name of ServiceAccount, Deployment and lease role.
    pub fn name(&self) -> String {
        format!("capi-kamaji-{}", self.short)
    }
}

/// Both, in order of installation.
pub const PROVIDERS: [Provider; 2] = [
    Provider {
        label: "control-plane-kamaji",
        file: "control-plane-components.yaml",
        short: "control-plane",
        namespace: namespace::CONTROL_PLANE,
        flags: &[
            "--controllers=control-plane,hosting",
            "--default-datastore=managed",
        ],
        roles: &[("control-plane", CONTROL_PLANE_ROLE), ("hosting", HOSTING_ROLE)],
        groups: &["controlplane.cluster.x-k8s.io", "kamaji.clastix.io"],
    },
    Provider {
        label: "bootstrap-kamaji",
        file: "bootstrap-components.yaml",
        short: "bootstrap",
        namespace: namespace::BOOTSTRAP,
        flags: &["--controllers=bootstrap"],
        roles: &[("bootstrap", BOOTSTRAP_ROLE)],
        groups: &["bootstrap.cluster.x-k8s.io"],
    },
];
