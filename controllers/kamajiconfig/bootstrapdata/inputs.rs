//! Everything bootstrap data is made from, and why it cannot be made. Pure.

use std::{collections::BTreeMap, time::Duration};

use base64::Engine as _;
use kamaji_api::bootstrap::{KamajiConfigSpec, NameSource};
use semver::Version;

use crate::kamajiconfig::token::Token;

/// Socket of the container runtime where none is named.
pub const DEFAULT_CRI_SOCKET: &str = "unix:///run/containerd/containerd.sock";
/// How long a machine tries to join where nothing is said.
pub const DEFAULT_JOIN_TIMEOUT: Duration = Duration::from_mins(10);

/// Everything the plan is made from. The user's files and passwords are resolved already.
pub struct Inputs<'a> {
    /// Name of the KamajiConfig.
    pub name: &'a str,
    /// Digest of its spec.
    pub spec_hash: &'a str,
    /// Its spec, validated.
    pub spec: &'a KamajiConfigSpec,
    /// Name of the Machine.
    pub machine: &'a str,
    /// Version of the Machine.
    pub version: &'a Version,
    /// The API server.
    pub target: &'a Target,
    /// The credential.
    pub token: &'a Token,
    /// Content of `spec.files`, by position; `None` for an optional one that does not exist.
    pub files: &'a [Option<Vec<u8>>],
    /// Password hashes read from Secrets, by user name.
    pub passwords: &'a BTreeMap<String, String>,
}

/// The API server as nodes see it, and what the cluster's network tells them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Target {
    /// Host: a name or an address, without brackets.
    pub host: String,
    /// Port.
    pub port: u16,
    /// Name its certificate is checked for, where that is not the host.
    pub tls_server_name: Option<String>,
    /// Authorities to trust, PEM.
    pub authority_pem: String,
    /// Addresses of cluster DNS.
    pub cluster_dns: Vec<String>,
    /// Domain of the cluster.
    pub cluster_domain: String,
}

impl Target {
    /// The host as it stands in a URL.
    pub fn url_host(&self) -> String {
        url_host(&self.host)
    }
}

/// A host, as it stands in a URL: addresses with colons are in brackets.
pub fn url_host(host: &str) -> String {
    if host.contains(':') && !host.starts_with('[') {
        format!("[{host}]")
    } else {
        host.to_owned()
    }
}

/// A text could not be made.
#[derive(Debug, thiserror::Error)]
pub enum RenderError {
    /// A template.
    #[error("template: {0}")]
    Template(#[from] askama::Error),
    /// A document.
    #[error("document: {0}")]
    Yaml(#[from] serde_yaml::Error),
    /// What the user gave cannot be carried to the machine.
    #[error("{field} {why}")]
    Refused {
        /// The field of the spec.
        field: String,
        /// What is wrong with it, and the fix.
        why: &'static str,
    },
}

/// Where the node's name comes from: by default the Machine's name, known before the machine boots.
pub fn name_source(spec: &KamajiConfigSpec) -> NameSource {
    spec.node_registration
        .name_source
        .unwrap_or(NameSource::MachineName)
}

/// How long the machine tries to join.
pub fn join_timeout(spec: &KamajiConfigSpec) -> Duration {
    spec.join_timeout.map_or(DEFAULT_JOIN_TIMEOUT, Duration::from)
}

/// Standard base64.
pub fn base64(bytes: &[u8]) -> String {
    base64::engine::general_purpose::STANDARD.encode(bytes)
}
