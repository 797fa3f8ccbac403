//! Commands inside a machine: in the namespaces of its PID 1, as root.

use std::{path::Path, process::Stdio};

use anyhow::{Context as _, Result, bail, ensure};
use tokio::process::Command;

use super::{access::DATA, tenants::PATIENCE, until::until};
use crate::machines::record::Record;

/// Every machine that the host has recorded.
///
/// # Errors
/// When there is no machine host.
pub async fn records() -> Result<Vec<Record>> {
    let directory = Path::new(DATA).join("machines/machines");
    let mut entries = tokio::fs::read_dir(directory).await.context("no machine host")?;
    let mut records = Vec::new();
    while let Some(entry) = entries.next_entry().await? {
        // A machine that is being made or removed.
        if let Ok(text) = tokio::fs::read_to_string(entry.path().join("record.json")).await {
            records.push(serde_json::from_str(&text)?);
        }
    }
    Ok(records)
}

/// A machine of the lab that runs.
pub struct Inside {
    namespace: String,
    name: String,
    pid: u32,
}

impl Inside {
    /// The machine of a `LocalMachine`.
    ///
    /// # Errors
    /// When the host knows none, or it does not run.
    pub async fn of(namespace: &str, name: &str) -> Result<Self> {
        for record in records().await? {
            if record.namespace == namespace && record.name == name {
                ensure!(
                    !record.is_virtual,
                    "{name} is a virtual machine: its processes are not those of the host"
                );
                let init = record.running().await.context("the machine does not run")?;
                return Ok(Self {
                    namespace: record.namespace,
                    name: record.name,
                    pid: init.pid,
                });
            }
        }
        bail!("the machine host knows no machine {namespace}/{name}")
    }

    /// Ends it as a power failure does: the other ends of its connections are not notified, and then every process is killed.
    ///
    /// # Errors
    /// When it cannot be killed.
    pub async fn kill(self) -> Result<()> {
        self.run(&["ip", "link", "set", "dev", "host0", "down"]).await?;
        let status = Command::new("kill")
            .args(["-KILL", &self.pid.to_string()])
            .status()
            .await?;
        ensure!(status.success(), "PID 1 of {} cannot be killed", self.name);
        Ok(())
    }

    /// Reboots it, and waits until it has another PID 1.
    ///
    /// # Errors
    /// When it does not come up again.
    pub async fn reboot(self) -> Result<Self> {
        self.run(&["systemctl", "--no-block", "reboot"]).await?;
        until(&format!("{} to reboot", self.name), PATIENCE, async || {
            let now = Self::of(&self.namespace, &self.name).await?;
            Ok((now.pid != self.pid).then_some(now))
        })
        .await
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
