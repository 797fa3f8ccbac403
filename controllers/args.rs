//! Flags and environment, validated once.

use std::{collections::BTreeSet, net::SocketAddr};

use clap::{Args, Parser, Subcommand, ValueEnum};

use crate::runtime::telemetry::LogFormat;

/// Cluster API control plane and bootstrap provider with an embedded Kamaji hosting engine.
#[derive(Debug, Parser)]
#[command(name = "capi-kamaji", version, about)]
pub struct Cli {
    /// What to do; `run` when nothing is said.
    #[command(subcommand)]
    pub command: Option<Command>,
}

impl Cli {
    /// The command; `run` with defaults and environment when none is given.
    pub fn command(self) -> Command {
        self.command.unwrap_or_else(|| {
            let Self { command } = Self::parse_from(["capi-kamaji", "run"]);
            command.unwrap_or(Command::Version)
        })
    }
}

/// What the binary does.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run controllers until SIGTERM.
    Run(Box<RunArgs>),
    /// Print the CustomResourceDefinitions as YAML.
    Crds,
    /// Print the version.
    Version,
}

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

/// Who hosts the control planes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Hosting {
    /// The engine in this binary.
    Embedded,
    /// A Kamaji operator beside us: the `hosting` role does nothing.
    External,
}

/// Flags of `run`.
#[derive(Debug, Args)]
pub struct RunArgs {
    /// Roles to run, separated by commas.
    #[arg(
        long,
        env = "CAPI_KAMAJI_CONTROLLERS",
        value_enum,
        value_delimiter = ',',
        default_value = "control-plane,bootstrap,hosting"
    )]
    pub controllers: Vec<RoleName>,
    /// Who hosts the control planes.
    #[arg(long, value_enum, default_value = "embedded")]
    pub hosting: Hosting,
    /// Namespaces to act on, separated by commas; all when empty.
    #[arg(long, value_delimiter = ',')]
    pub namespace: Vec<String>,
    /// DataStore for tenants that name none; `managed` makes the engine create and run one called `default`.
    #[arg(long, default_value = "")]
    pub default_datastore: String,
    /// Wait for a Lease a role before acting.
    #[arg(long, default_value_t = true, action = clap::ArgAction::Set)]
    pub leader_elect: bool,
    /// Namespace of the Leases and of this process.
    #[arg(
        long,
        env = "POD_NAMESPACE",
        default_value = "capi-kamaji-control-plane-system"
    )]
    pub lease_namespace: String,
    /// Name of this pod: identity of the Leases and instance of the events.
    #[arg(long, env = "POD_NAME")]
    pub pod_name: Option<String>,
    /// Address of /healthz and /readyz and /metrics.
    #[arg(long, default_value = "0.0.0.0:8080")]
    pub diagnostics_address: SocketAddr,
    /// Objects of one kind that are reconciled at the same time.
    #[arg(long, default_value_t = 64)]
    pub concurrency: usize,
    /// JSON lines or text.
    #[arg(long, value_enum, default_value = "json")]
    pub log_format: LogFormat,
    /// Log filter, for example `info,capi_kamaji=debug`.
    #[arg(long, env = "CAPI_KAMAJI_LOG", default_value = "info")]
    pub log_level: String,
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

impl Settings {
    /// Settings from flags.
    pub fn new(args: &RunArgs) -> Self {
        Self {
            namespaces: args.namespace.iter().filter(|n| !n.is_empty()).cloned().collect(),
            hosting: args.hosting,
            default_datastore: match args.default_datastore.as_str() {
                "" => DefaultDatastore::None,
                "managed" => DefaultDatastore::Managed,
                name => DefaultDatastore::Named(name.to_owned()),
            },
            own_namespace: args.lease_namespace.clone(),
            pod_name: args.pod_name.clone(),
            concurrency: args.concurrency.max(1),
        }
    }

    /// Objects of this namespace are ours to act on.
    pub fn acts_on(&self, namespace: &str) -> bool {
        self.namespaces.is_empty() || self.namespaces.contains(namespace)
    }
}
