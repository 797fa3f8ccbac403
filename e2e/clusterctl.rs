//! `clusterctl` as a user runs it, with an empty configuration of its own. Owns no cluster.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    process::Stdio,
};

use anyhow::{Context as _, Result, bail};
use tokio::process::Command;

use crate::{apiserver::Home, etcd::tools};

/// Namespace and name of the generated clusters, and their version of Kubernetes.
pub const NAMESPACE: &str = "team-a";
/// Name of the generated clusters.
pub const CLUSTER: &str = "alpha";
/// Version of Kubernetes of the generated clusters.
pub const VERSION: &str = "v1.36.3";

/// The program.
pub struct Clusterctl {
    home: Home,
    program: PathBuf,
}

/// The variables of a template.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Variables {
    /// Those without a default.
    pub required: Vec<String>,
    /// The others with their defaults, as the template has them.
    pub optional: BTreeMap<String, String>,
}

impl Clusterctl {
    /// The built one; none where it is not built, which is reported, and an error under `CI=true`.
    ///
    /// # Errors
    /// See above, and when no folder can be made.
    pub fn find() -> Result<Option<Self>> {
        let program = tools().join("clusterctl");
        if program.exists() {
            let home = Home::new()?;
            return Ok(Some(Self { home, program }));
        }
        let what = format!("{} is not built (hack/tools makes it)", program.display());
        if std::env::var("CI").is_ok_and(|value| value == "true") {
            bail!(what);
        }
        crate::skip(&what);
        Ok(None)
    }

    /// Runs it with these variables and no others of its environment.
    ///
    /// # Errors
    /// When it fails, with what it wrote to standard error.
    pub async fn run(&self, arguments: &[&str], variables: &BTreeMap<String, String>) -> Result<String> {
        let output = Command::new(&self.program)
            .args(arguments)
            .env_clear()
            .env("HOME", self.home.path())
            .env("XDG_CONFIG_HOME", self.home.path())
            .env("PATH", std::env::var_os("PATH").unwrap_or_default())
            // It looks for no newer release of itself.
            .env("CLUSTERCTL_DISABLE_VERSIONCHECK", "true")
            .envs(variables)
            .stdin(Stdio::null())
            .output()
            .await
            .context("clusterctl cannot run")?;
        if !output.status.success() {
            bail!("{}", String::from_utf8_lossy(&output.stderr).trim());
        }
        Ok(String::from_utf8(output.stdout)?)
    }

    /// What `clusterctl generate cluster --from` prints, with two workers.
    ///
    /// # Errors
    /// When it fails, with what it wrote to standard error.
    pub async fn generate(&self, template: &Path, variables: &BTreeMap<String, String>) -> Result<String> {
        let with = ["--kubernetes-version", VERSION, "--worker-machine-count", "2"];
        self.generate_with(template, &with, variables).await
    }

    /// The variables of a template, without those that have a flag of `clusterctl generate cluster`.
    ///
    /// # Errors
    /// When clusterctl fails.
    pub async fn variables(&self, template: &Path) -> Result<Variables> {
        let none = BTreeMap::new();
        Ok(listed(
            &self.generate_with(template, &["--list-variables"], &none).await?,
        ))
    }

    /// What `clusterctl generate cluster --from` prints with more arguments.
    async fn generate_with(
        &self,
        template: &Path,
        with: &[&str],
        variables: &BTreeMap<String, String>,
    ) -> Result<String> {
        let from = template.display().to_string();
        let target = [
            "generate",
            "cluster",
            CLUSTER,
            "--from",
            &from,
            "--target-namespace",
            NAMESPACE,
        ];
        self.run(&[&target, with].concat(), variables).await
    }
}

/// Variables that have a flag.
const FLAGS: [&str; 5] = [
    "CLUSTER_NAME",
    "CONTROL_PLANE_MACHINE_COUNT",
    "KUBERNETES_VERSION",
    "NAMESPACE",
    "WORKER_MACHINE_COUNT",
];

/// Reads the list that `--list-variables` prints.
fn listed(printed: &str) -> Variables {
    let mut variables = Variables::default();
    for line in printed.lines() {
        let Some(entry) = line.trim().strip_prefix("- ") else {
            continue;
        };
        let (name, rest) = entry.split_once(' ').unwrap_or((entry, ""));
        let rest = rest.trim();
        let default = rest
            .strip_prefix("(defaults to ")
            .and_then(|rest| rest.strip_suffix(')'));
        match default {
            _ if FLAGS.contains(&name) => {}
            Some(default) => {
                let plain = default.strip_prefix('"').and_then(|text| text.strip_suffix('"'));
                let default = plain.unwrap_or(default).to_owned();
                variables.optional.insert(name.to_owned(), default);
            }
            None => variables.required.push(name.to_owned()),
        }
    }
    variables
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_list_is_read_without_variables_that_have_flags() {
        let printed = "Required Variables:\n  - KUBERNETES_VERSION\n  - SERVER\n\nOptional Variables:\n  \
                       - CLUSTER_NAME  (defaults to alpha)\n  - IMAGE         (defaults to \"a:v1\")\n  \
                       - EMPTY  (defaults to \"\")\n";
        let optional =
            [("EMPTY", ""), ("IMAGE", "a:v1")].map(|(name, text)| (name.to_owned(), text.to_owned()));
        let expected = Variables {
            required: vec!["SERVER".to_owned()],
            optional: optional.into(),
        };
        assert_eq!(listed(printed), expected);
    }
}
