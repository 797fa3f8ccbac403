//! Routes of the host to the pod ranges of the machines.
//!
//! Machines use the host as their default route, so a route on the host also serves the other machines.

use std::net::Ipv4Addr;

use anyhow::{Result, bail};
use tokio::process::Command;

use super::addresses::Network;

/// Sends the range to the machine, whatever an earlier run left there.
pub async fn set(range: Network, machine: Ipv4Addr) -> Result<()> {
    ip(&[
        "route",
        "replace",
        &range.to_string(),
        "via",
        &machine.to_string(),
    ])
    .await
}

/// Removes the route, if it is still this machine's.
pub async fn remove(range: Network, machine: Ipv4Addr) -> Result<()> {
    let listed = Command::new("ip")
        .args([
            "-4",
            "route",
            "show",
            &range.to_string(),
            "via",
            &machine.to_string(),
        ])
        .output()
        .await?;
    if listed.stdout.is_empty() {
        return Ok(());
    }
    ip(&["route", "del", &range.to_string(), "via", &machine.to_string()]).await
}

async fn ip(args: &[&str]) -> Result<()> {
    let output = Command::new("ip").arg("-4").args(args).output().await?;
    if !output.status.success() {
        bail!(
            "ip {}: {}",
            args.join(" "),
            String::from_utf8_lossy(&output.stderr).trim()
        );
    }
    Ok(())
}
