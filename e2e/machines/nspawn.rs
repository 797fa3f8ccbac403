//! Starts and ends a systemd-nspawn container.
//!
//! A machine outlives the process that started it. It is ended through the recorded PID of its PID 1, which ends the
//! whole
//! PID namespace.

use std::{path::Path, process::Stdio, time::Duration};

use anyhow::{Context as _, Result, bail};
use tokio::{
    fs,
    process::Command,
    time::{Instant, sleep},
};

use super::{files, nat::within, record::Pid, seed::Overlay};

const LAUNCH: &str = include_str!("launch.sh");

/// Network interface inside the machine.
pub const INTERFACE: &str = "host0";

/// Time for a container to show its PID 1, and for a killed one to go.
const PATIENCE: Duration = Duration::from_secs(30);

/// Lays out the machine's directory: an empty upper layer with the overlay's files, and its data directories.
pub async fn lay_out(directory: &Path, overlay: &[Overlay]) -> Result<()> {
    for part in ["root", "upper", "work", "containerd", "kubelet"] {
        fs::create_dir_all(directory.join(part)).await?;
    }
    files::write(&directory.join("upper"), overlay).await
}

/// Starts the container; its console goes to `console.log` beside the record. `bridge` is that of the network `place`, or
/// of the host.
pub async fn start(
    directory: &Path,
    lower: &Path,
    id: &str,
    hostname: &str,
    (place, bridge): (Option<&Path>, &str),
) -> Result<Pid> {
    let console = std::fs::File::create(directory.join("console.log"))?;
    let child = within(place, "unshare")
        .args([
            "--mount",
            "--propagation",
            "slave",
            "--",
            "/bin/sh",
            "-c",
            LAUNCH,
            "launch",
        ])
        .arg(directory)
        .arg(lower)
        .args([id, hostname, bridge])
        .current_dir("/")
        .env_clear()
        .env(
            "PATH",
            "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
        )
        .stdin(Stdio::null())
        .stdout(console.try_clone()?)
        .stderr(console)
        .process_group(0)
        .spawn()
        .context("cannot start the container (is util-linux installed?)")?;
    let pid = child.id().context("the container ended at once")?;
    Pid::of(pid).await.context("the container ended at once")
}

/// Waits until the container's PID 1 exists.
pub async fn init_of(supervisor: Pid, directory: &Path) -> Result<Pid> {
    let deadline = Instant::now() + PATIENCE;
    while supervisor.alive().await {
        if let Some(init) = supervisor.init_below().await {
            return Ok(init);
        }
        if Instant::now() > deadline {
            bail!("the container shows no PID 1 after {} s", PATIENCE.as_secs());
        }
        sleep(Duration::from_millis(50)).await;
    }
    let console = fs::read(directory.join("console.log")).await.unwrap_or_default();
    bail!(
        "the container ended: {}",
        String::from_utf8_lossy(&console).trim()
    );
}

/// Ends the machine and waits until its supervisor has cleaned up.
pub async fn stop(init: Option<Pid>, supervisor: Option<Pid>) -> Result<()> {
    for process in [init, supervisor].into_iter().flatten() {
        let deadline = Instant::now() + PATIENCE;
        let mut killed = false;
        while process.alive().await {
            // The supervisor is given time to follow its machine before it is ended too.
            if !killed && (Some(process) == init || Instant::now() + PATIENCE / 2 > deadline) {
                kill(process.pid).await?;
                killed = true;
            }
            if Instant::now() > deadline {
                bail!("process {} does not end", process.pid);
            }
            sleep(Duration::from_millis(50)).await;
        }
    }
    Ok(())
}

/// Removes what a killed supervisor left behind.
pub async fn forget(id: &str) {
    // Best effort: an empty directory that another run makes anew.
    let _ = fs::remove_dir(format!("/run/systemd/nspawn/propagate/{id}")).await;
}

/// Ends one process.
pub async fn kill(pid: u32) -> Result<()> {
    Command::new("kill")
        .args(["-KILL", &pid.to_string()])
        .status()
        .await?;
    Ok(())
}
