//! What bootstrap data is rendered from, and why it cannot be rendered. Pure.

use std::{collections::BTreeMap, time::Duration};

use kamaji_api::{
    bootstrap::{KamajiConfigSpec, NameSource, NodeRegistration},
    conditions::Reason,
};
use semver::Version;

use crate::{
    k8s::host_port::in_url,
    kamajiconfig::{owner::Owner, token::Token},
};

/// Socket of the container runtime if the config names none.
pub const DEFAULT_CRI_SOCKET: &str = "unix:///run/containerd/containerd.sock";
/// How long a machine tries to join if the config sets no time.
pub const DEFAULT_JOIN_TIMEOUT: Duration = Duration::from_mins(10);

/// What the plan is computed from. Contents of the user's files and passwords are already read.
pub struct Inputs<'a> {
    /// Name of the KamajiConfig.
    pub name: &'a str,
    /// Its UID. A machine keeps it, to tell a disk of its own from one with an earlier life.
    pub uid: &'a str,
    /// Its spec, validated, with the settings of its machine.
    pub spec: &'a KamajiConfigSpec,
    /// The owner; of a Machine, its name.
    pub owner: Owner<&'a str>,
    /// Kubernetes version of the owner.
    pub version: &'a Version,
    /// The API server.
    pub target: &'a Target,
    /// The bootstrap token.
    pub token: &'a Token,
    /// Content of `spec.files`, by position; `None` for an optional one that does not exist.
    pub files: &'a [Option<Vec<u8>>],
    /// Password hashes read from Secrets, by user name.
    pub passwords: &'a BTreeMap<String, String>,
}

/// The API server as nodes reach it, and the network settings of the cluster.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Target {
    /// Host: a name or an address, without brackets.
    pub host: String,
    /// Port.
    pub port: u16,
    /// Name that the server's certificate is checked for, if that is not `host`.
    pub tls_server_name: Option<String>,
    /// Certificates of the CAs to trust, PEM.
    pub ca_pem: String,
    /// Addresses of the cluster's DNS service.
    pub cluster_dns: Vec<String>,
    /// DNS domain of the cluster.
    pub cluster_domain: String,
}

impl Target {
    /// The host as a URL has it.
    pub fn url_host(&self) -> String {
        in_url(&self.host)
    }
}

/// Why bootstrap data cannot be rendered.
#[derive(Debug, thiserror::Error)]
pub enum RenderError {
    /// A template failed.
    #[error("template: {0}")]
    Template(#[from] askama::Error),
    /// A document could not be serialized.
    #[error("document: {0}")]
    Yaml(#[from] serde_yaml::Error),
    /// A value of the user cannot be carried to the machine.
    #[error("{field} {why}")]
    Refused {
        /// The field of the spec.
        field: String,
        /// What is wrong with it, and the fix.
        why: &'static str,
    },
    /// No data can be written in this format.
    #[error("format {0} is not supported")]
    Format(&'static str),
    /// The data is larger than the infrastructure takes.
    #[error("the bootstrap data has {size}; largest entries: {largest}")]
    TooLarge {
        /// Its size and the largest possible one, for people.
        size: String,
        /// The five largest entries.
        largest: String,
    },
    /// The rendered text does not read back as the plan.
    #[error("the rendered bootstrap data does not read back: {0}")]
    SelfCheck(String),
}

impl RenderError {
    /// Reason of the condition.
    pub const fn reason(&self) -> Reason {
        match self {
            Self::Refused { .. } => Reason::InvalidSpec,
            Self::Format(_) => Reason::FieldNotSupported,
            Self::TooLarge { .. } => Reason::TooLarge,
            Self::Template(_) | Self::Yaml(_) | Self::SelfCheck(_) => Reason::InternalError,
        }
    }
}

/// Where a node's name comes from. The default of a Machine is its own name, which is known before the machine boots.
pub fn name_source<M>(registration: &NodeRegistration, owner: &Owner<M>) -> NameSource {
    let default = match owner {
        Owner::Machine(_) => NameSource::MachineName,
        Owner::Pool(pool) => match *pool {},
    };
    registration.name_source.unwrap_or(default)
}

/// How long the machine tries to join.
pub fn join_timeout(spec: &KamajiConfigSpec) -> Duration {
    spec.join_timeout.map_or(DEFAULT_JOIN_TIMEOUT, Duration::from)
}
