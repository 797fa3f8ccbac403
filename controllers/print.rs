//! The subcommands that print.

use std::io::{Write as _, stdout};

use clap::CommandFactory;
use clap_complete::{Generator as _, Shell};
use serde_json::json;

use crate::args::{Cli, Output};

/// Prints all CustomResourceDefinitions as one YAML stream.
///
/// # Errors
/// When standard output is closed.
pub fn crds() -> anyhow::Result<()> {
    let mut out = stdout().lock();
    for crd in kamaji_api::crd::all_crds() {
        writeln!(out, "---\n{}", serde_yaml::to_string(&crd)?)?;
    }
    Ok(())
}

/// Commit of the sources, where the build names it.
const COMMIT: Option<&str> = option_env!("CAPI_KAMAJI_COMMIT");
/// Oldest Kubernetes of a management cluster.
const MANAGEMENT_FROM: &str = "1.33";
/// Oldest Kubernetes of a tenant; newer ones are not refused.
const TENANTS_FROM: &str = "1.30";
/// What tenants are tested with.
const TENANTS_TESTED: [&str; 2] = ["1.35", "1.36"];

/// Prints the version.
///
/// # Errors
/// When standard output is closed.
pub fn version(output: Output) -> anyhow::Result<()> {
    let version = env!("CARGO_PKG_VERSION");
    let mut out = stdout().lock();
    match output {
        Output::Text => {
            let commit = COMMIT.map(|commit| format!(" ({commit})")).unwrap_or_default();
            let tested = TENANTS_TESTED.join(", ");
            writeln!(out, "capi-kamaji {version}{commit}")?;
            writeln!(out, "management cluster: Kubernetes {MANAGEMENT_FROM} or newer")?;
            writeln!(
                out,
                "tenants: Kubernetes {TENANTS_FROM} or newer, tested with {tested}"
            )?;
        }
        Output::Json => {
            let all = json!({
                "version": version,
                "commit": COMMIT,
                "kubernetes": {
                    "management": { "from": MANAGEMENT_FROM },
                    "tenants": { "from": TENANTS_FROM, "tested": TENANTS_TESTED },
                },
            });
            writeln!(out, "{all}")?;
        }
    }
    Ok(())
}

/// Prints the completion script of `shell`.
///
/// # Errors
/// When standard output is closed.
pub fn completion(shell: Shell) -> anyhow::Result<()> {
    let mut command = <Cli as CommandFactory>::command();
    command.set_bin_name("capi-kamaji");
    command.build();
    shell.try_generate(&command, &mut stdout().lock())?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use kamaji_api::{bootstrap::KamajiConfigSpec, conditions::Reason};

    use super::*;
    use crate::kamajiconfig::validate;

    #[test]
    fn the_oldest_tenant_is_what_the_controllers_accept() {
        let refused = |version: &str| {
            let problems = validate::version(&KamajiConfigSpec::default(), "m", &version.parse().unwrap());
            problems.iter().any(|p| p.reason == Reason::VersionNotSupported)
        };
        assert!(!refused(&format!("{TENANTS_FROM}.0")));
        let minor: u64 = TENANTS_FROM.strip_prefix("1.").unwrap().parse().unwrap();
        assert!(refused(&format!("1.{}.9", minor - 1)));
    }
}
