//! Commands inside a machine: in the namespaces of its PID 1, as root.

use std::{path::Path, process::Stdio};

use anyhow::{Context as _, Result, bail};
use tokio::process::Command;

use super::access::DATA;
use crate::machines::record::Record;

/// A machine of the lab that runs.
pub struct Inside {
    pid: u32,
}

impl Inside {
    /// The machine of a `LocalMachine`.
    ///
    /// # Errors
    /// When the host knows none, or it does not run.
    pub async fn of(namespace: &str, name: &str) -> Result<Self> {
        let records = Path::new(DATA).join("machines/machines");
        let mut entries = tokio::fs::read_dir(records).await.context("no machine host")?;
        while let Some(entry) = entries.next_entry().await? {
            let Ok(text) = tokio::fs::read_to_string(entry.path().join("record.json")).await else {
                continue;
            };
            let record: Record = serde_json::from_str(&text)?;
            if record.namespace == namespace && record.name == name {
                let pid = record.init.context("the machine does not run")?.pid;
                return Ok(Self { pid });
            }
        }
        bail!("the machine host knows no machine {namespace}/{name}")
    }

    /// PID of a container's first process, as the machine's containerd knows it.
    ///
    /// # Errors
    /// When the container does not run.
    pub async fn pid_of(&self, container: &str) -> Result<u32> {
        let tasks = self
            .run(&["ctr", "--namespace", "k8s.io", "tasks", "list"])
            .await?;
        let task = tasks.lines().find_map(|line| line.strip_prefix(container));
        let pid = task.and_then(|rest| rest.split_whitespace().next());
        pid.with_context(|| format!("container {container} does not run: {tasks}"))?
            .parse()
            .context("no PID")
    }

    /// Runs `command` and returns its standard output.
    ///
    /// # Errors
    /// When it fails, with its standard error.
    pub async fn run(&self, command: &[&str]) -> Result<String> {
        let output = Command::new("nsenter")
            .args(["--target", &self.pid.to_string(), "--all", "--wd=/", "--"])
            .args(command)
            .env_clear()
            .env(
                "PATH",
                "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
            )
            .stdin(Stdio::null())
            .output()
            .await?;
        if !output.status.success() {
            bail!(
                "{}: {}",
                command.join(" "),
                String::from_utf8_lossy(&output.stderr)
            );
        }
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }
}
