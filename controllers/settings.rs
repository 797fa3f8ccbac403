//! What controllers read of the flags. Below `runtime`, so that every controller may use it; `args` builds it.

use std::{collections::BTreeSet, fmt, path::PathBuf};

use clap::ValueEnum;
use ipnet::IpNet;

/// The roles a process can hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, ValueEnum)]
pub enum RoleName {
    /// KamajiControlPlane.
    ControlPlane,
    /// KamajiConfig.
    Bootstrap,
    /// TenantControlPlane and DataStore.
    Hosting,
}

impl RoleName {
    /// The word on the command line, in leases and in user agents.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::ControlPlane => "control-plane",
            Self::Bootstrap => "bootstrap",
            Self::Hosting => "hosting",
        }
    }
}

impl fmt::Display for RoleName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Who hosts the control planes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Hosting {
    /// The engine in this binary.
    Embedded,
    /// A Kamaji operator beside us: the `hosting` role does nothing.
    External,
}

/// What the controllers read of the flags.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Namespaces to act on; all when empty.
    pub namespaces: BTreeSet<String>,
    /// Who hosts the control planes: some fields of a TenantControlPlane only our own engine reads.
    pub hosting: Hosting,
    /// DataStore for tenants that name none; empty for none.
    pub default_datastore: DefaultDatastore,
    /// Namespace of this process.
    pub own_namespace: String,
    /// Name of this pod.
    pub pod_name: Option<String>,
    /// Objects of one kind that are reconciled at the same time, at least 1.
    pub concurrency: usize,
    /// What authors of TenantControlPlanes may change in the pods.
    pub pod_overrides: PodOverrides,
    /// Ranges of addresses that authors of TenantControlPlanes may take as external addresses of a Service.
    pub external_ips: Vec<IpNet>,
    /// No endpoint is handed over to infrastructure objects.
    pub skip_infrastructure: bool,
    /// A file with what is special about infrastructure kinds, over what the program knows.
    pub infrastructure_quirks: Option<PathBuf>,
}

/// A feature gate of the Go control plane provider.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
#[value(rename_all = "PascalCase")]
pub enum Gate {
    /// No endpoint is handed over to infrastructure objects.
    SkipInfraClusterPatch,
    /// No effect: every kind that follows the contract gets the endpoint.
    DynamicInfrastructureClusterPatch,
    /// No effect: this version runs no pods in other clusters.
    ExternalClusterReference,
    /// No effect: this version runs no pods in other clusters.
    ExternalClusterReferenceCrossNamespace,
}

/// What authors of TenantControlPlanes may change in the pods of their control planes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum PodOverrides {
    /// No containers, volumes and security contexts of their own.
    None,
    /// What the Pod Security Standard baseline allows.
    #[default]
    Baseline,
    /// Anything: they may run privileged pods on the nodes of the management cluster.
    Any,
}

impl PodOverrides {
    /// The word on the command line.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Baseline => "baseline",
            Self::Any => "any",
        }
    }
}

impl Settings {
    /// Objects of this namespace are ours to act on.
    pub fn acts_on(&self, namespace: &str) -> bool {
        self.namespaces.is_empty() || self.namespaces.contains(namespace)
    }
}

/// Where a tenant's data goes when it names no DataStore.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DefaultDatastore {
    /// Tenants must name one.
    None,
    /// This DataStore; somebody else makes it.
    Named(String),
    /// The DataStore `default`, made and run by the engine.
    Managed,
}

impl DefaultDatastore {
    /// Name of the DataStore, if there is one.
    pub fn name(&self) -> Option<&str> {
        match self {
            Self::None => None,
            Self::Named(name) => Some(name),
            Self::Managed => Some("default"),
        }
    }
}
