//! Flags and environment, validated once.

use std::{net::SocketAddr, path::PathBuf};

use anyhow::ensure;
use clap::{Args, Parser, Subcommand, ValueEnum, builder::BoolishValueParser};
use clap_complete::Shell;
use ipnet::IpNet;

use crate::{
    runtime::{
        http,
        telemetry::{self, LogFormat},
    },
    settings::{DefaultDatastore, Gate, Hosting, PodOverrides, RoleName, Settings},
};

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
            command.unwrap_or(Command::Version(VersionArgs { output: Output::Text }))
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
    /// Print the version, and the versions of Kubernetes it is for.
    Version(VersionArgs),
    /// Print the completion script of a shell.
    Completion {
        /// The shell.
        shell: Shell,
    },
}

/// Flags of `version`.
#[derive(Debug, Args)]
pub struct VersionArgs {
    /// How it is printed.
    #[arg(short, long, value_enum, value_name = "FORMAT", default_value = "text")]
    pub output: Output,
}

/// How something is printed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Output {
    /// For people.
    Text,
    /// For programs.
    Json,
}

/// Flags of `run`.
#[derive(Debug, Args)]
pub struct RunArgs {
    /// Roles to run, separated by commas.
    #[arg(
        long,
        env = "CAPI_KAMAJI_CONTROLLERS",
        value_enum,
        value_name = "ROLE,...",
        value_delimiter = ',',
        default_value = "control-plane,bootstrap,hosting"
    )]
    pub controllers: Vec<RoleName>,
    /// Who hosts the control planes.
    #[arg(
        long,
        env = "CAPI_KAMAJI_HOSTING",
        value_enum,
        value_name = "ENGINE",
        default_value = "embedded"
    )]
    pub hosting: Hosting,
    /// Namespaces to act on, separated by commas; all when empty.
    #[arg(
        long,
        env = "CAPI_KAMAJI_NAMESPACE",
        value_name = "NAMESPACE,...",
        value_delimiter = ','
    )]
    pub namespace: Vec<String>,
    /// DataStore for tenants that name none; `managed` makes the engine create and run one called `default`.
    #[arg(
        long,
        env = "CAPI_KAMAJI_DEFAULT_DATASTORE",
        value_name = "NAME|managed",
        default_value = "",
        hide_default_value = true
    )]
    pub default_datastore: String,
    /// Hold one Lease per role before acting; only one replica acts.
    #[arg(
        long,
        env = "CAPI_KAMAJI_LEADER_ELECT",
        value_name = "BOOL",
        num_args = 0..=1,
        require_equals = true,
        default_value = "true",
        default_missing_value = "true",
        action = clap::ArgAction::Set,
        value_parser = BoolishValueParser::new()
    )]
    pub leader_elect: bool,
    /// Namespace of the Leases and of this process.
    #[arg(
        long,
        env = "POD_NAMESPACE",
        value_name = "NAMESPACE",
        default_value = "capi-kamaji-control-plane-system"
    )]
    pub lease_namespace: String,
    /// Name of this pod: it holds the Leases and reports the events under it; a random one when left out.
    #[arg(long, env = "POD_NAME", value_name = "NAME")]
    pub pod_name: Option<String>,
    /// Where /healthz, /readyz and /metrics are served. Without an IP address: every IPv6 and IPv4 address of the pod.
    #[arg(
        long,
        env = "CAPI_KAMAJI_DIAGNOSTICS_ADDRESS",
        value_name = "[IP]:PORT",
        value_parser = http::listen_address,
        default_value = ":8080"
    )]
    pub diagnostics_address: SocketAddr,
    /// How many objects of one kind are reconciled at the same time.
    #[arg(
        long,
        env = "CAPI_KAMAJI_CONCURRENCY",
        value_name = "COUNT",
        default_value_t = 64
    )]
    pub concurrency: usize,
    /// What the author of a TenantControlPlane may change in the pods of its control plane.
    #[arg(
        long,
        env = "CAPI_KAMAJI_POD_OVERRIDES",
        value_enum,
        value_name = "WHAT",
        default_value = "baseline"
    )]
    pub pod_overrides: PodOverrides,
    /// Ranges of addresses that authors of TenantControlPlanes may take as external addresses of a Service
    /// (`allowAddressAsExternalIP`); none when left out.
    #[arg(
        long,
        env = "CAPI_KAMAJI_EXTERNAL_IPS",
        value_name = "CIDR",
        value_delimiter = ','
    )]
    pub external_ips: Vec<IpNet>,
    /// Feature gates of the Go control plane provider, separated by commas. `SkipInfraClusterPatch=true` hands no endpoint over
    /// to infrastructure objects; `DynamicInfrastructureClusterPatch`, `ExternalClusterReference` and
    /// `ExternalClusterReferenceCrossNamespace` are accepted without effect.
    #[arg(
        long,
        env = "CAPI_KAMAJI_FEATURE_GATES",
        value_name = "NAME=BOOL,...",
        value_delimiter = ',',
        value_parser = gate
    )]
    pub feature_gates: Vec<(Gate, bool)>,
    /// Accepted without effect, for installations of the Go control plane provider: every infrastructure kind that follows the
    /// contract gets the endpoint.
    #[arg(
        long,
        env = "CAPI_KAMAJI_DYNAMIC_INFRASTRUCTURE_CLUSTERS",
        value_name = "KIND,...",
        value_delimiter = ','
    )]
    pub dynamic_infrastructure_clusters: Vec<String>,
    /// A file with what is special about infrastructure kinds, in the form of `api/quirks.yaml`; its entries
    /// replace those of the same kind, and add to them.
    #[arg(long, env = "CAPI_KAMAJI_INFRASTRUCTURE_QUIRKS", value_name = "FILE")]
    pub infrastructure_quirks: Option<PathBuf>,
    /// How log lines look.
    #[arg(
        long,
        env = "CAPI_KAMAJI_LOG_FORMAT",
        value_enum,
        value_name = "FORMAT",
        default_value = "json"
    )]
    pub log_format: LogFormat,
    /// What is logged: a level, and levels of modules, for example `info,capi_kamaji=debug`.
    #[arg(
        long,
        env = "CAPI_KAMAJI_LOG_LEVEL",
        value_name = "FILTER",
        default_value = "info",
        value_parser = telemetry::checked
    )]
    pub log_level: String,
}

impl RunArgs {
    /// The roles to run: with an external engine, hosting is nobody's.
    ///
    /// # Errors
    /// When none is left.
    pub fn roles(&self) -> anyhow::Result<Vec<RoleName>> {
        let mut roles = self.controllers.clone();
        roles.sort_unstable();
        roles.dedup();
        roles.retain(|role| *role != RoleName::Hosting || self.hosting == Hosting::Embedded);
        ensure!(
            !roles.is_empty(),
            "nothing to run: --hosting=external leaves hosting to the Kamaji operator, and --controllers names no \
             other role"
        );
        Ok(roles)
    }

    /// The part of the flags that controllers read.
    pub fn settings(&self) -> Settings {
        Settings {
            namespaces: self.namespace.iter().filter(|n| !n.is_empty()).cloned().collect(),
            hosting: self.hosting,
            default_datastore: match self.default_datastore.as_str() {
                "" => DefaultDatastore::None,
                "managed" => DefaultDatastore::Managed,
                name => DefaultDatastore::Named(name.to_owned()),
            },
            own_namespace: self.lease_namespace.clone(),
            pod_name: self.pod_name.clone(),
            concurrency: self.concurrency.max(1),
            pod_overrides: self.pod_overrides,
            external_ips: self.external_ips.clone(),
            skip_infrastructure: self.is_on(Gate::SkipInfraClusterPatch),
            infrastructure_quirks: self.infrastructure_quirks.clone(),
        }
    }

    /// A feature gate is on; the last word on it counts.
    fn is_on(&self, gate: Gate) -> bool {
        let last = self.feature_gates.iter().rev().find(|(named, _)| *named == gate);
        last.is_some_and(|(_, on)| *on)
    }
}

/// Reads `NAME=BOOL`.
fn gate(text: &str) -> Result<(Gate, bool), String> {
    let known = || {
        let names = Gate::value_variants().iter().filter_map(Gate::to_possible_value);
        let names: Vec<_> = names.map(|name| name.get_name().to_owned()).collect();
        format!("want one of {} with =true or =false", names.join(", "))
    };
    let (name, on) = text.split_once('=').ok_or_else(known)?;
    let gate = Gate::from_str(name.trim(), false).map_err(|_| known())?;
    let on = on.trim().parse().map_err(|_| known())?;
    Ok((gate, on))
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    fn run(flags: &[&str]) -> Result<RunArgs, clap::Error> {
        let words = ["capi-kamaji", "run"].iter().chain(flags);
        match Cli::try_parse_from(words)?.command() {
            Command::Run(args) => Ok(*args),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn leader_elect_is_written_as_in_go() {
        for (flags, wanted) in [
            (&[][..], true),
            (&["--leader-elect"], true),
            (&["--leader-elect=true"], true),
            (&["--leader-elect=false"], false),
            (&["--leader-elect", "--hosting=external"], true),
        ] {
            assert_eq!(run(flags).unwrap().leader_elect, wanted, "{flags:?}");
        }
    }

    #[test]
    fn the_feature_gates_of_the_go_provider_are_read() {
        let skips = |flags: &[&str]| run(flags).map(|args| args.settings().skip_infrastructure);
        assert!(!skips(&[]).unwrap());
        assert!(skips(&["--feature-gates=SkipInfraClusterPatch=true"]).unwrap());
        assert!(!skips(&["--feature-gates=SkipInfraClusterPatch=true,SkipInfraClusterPatch=false"]).unwrap());
        let both = "--feature-gates=DynamicInfrastructureClusterPatch=true,ExternalClusterReference=false";
        assert!(!skips(&[both, "--dynamic-infrastructure-clusters=ThatCluster,ThisCluster"]).unwrap());
        for wrong in [
            "SkipInfraClusterPatch",
            "SkipInfraClusterPatch=maybe",
            "Unknown=true",
        ] {
            let error = skips(&[&format!("--feature-gates={wrong}")])
                .unwrap_err()
                .to_string();
            assert!(error.contains("want one of SkipInfraClusterPatch,"), "{error}");
        }
    }

    #[test]
    fn a_wrong_filter_is_refused_with_the_name_of_its_flag() {
        for wrong in ["inof", "verbose", "capi_kamaji=loud", "info,=debug=", "warn,kube"] {
            let error = run(&["--log-level", wrong]).unwrap_err().to_string();
            assert!(error.contains("--log-level"), "{error}");
        }
        for right in [
            "info",
            "DEBUG",
            "off",
            "info,capi_kamaji=debug",
            "warn,capi_kamaji::k8s=trace",
        ] {
            assert_eq!(run(&["--log-level", right]).unwrap().log_level, right);
        }
    }

    #[test]
    fn no_role_is_no_way_to_run() {
        let roles = |flags: &[&str]| run(flags).unwrap().roles();
        let error = roles(&["--controllers=hosting", "--hosting=external"]).unwrap_err();
        assert!(error.to_string().contains("--hosting=external"), "{error}");
        assert_eq!(
            roles(&["--hosting=external"]).unwrap(),
            [RoleName::ControlPlane, RoleName::Bootstrap]
        );
        assert_eq!(
            roles(&["--controllers=hosting,hosting"]).unwrap(),
            [RoleName::Hosting]
        );
    }

    #[test]
    fn every_flag_of_run_has_a_variable_a_value_name_and_a_help() {
        let cli = <Cli as CommandFactory>::command();
        let run = cli.find_subcommand("run").unwrap();
        for flag in run.get_arguments() {
            assert!(flag.get_env().is_some(), "{flag}");
            assert!(flag.get_help().is_some(), "{flag}");
            assert!(flag.get_value_names().is_some(), "{flag}");
        }
    }
}
