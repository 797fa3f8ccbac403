//! Routes to the pod ranges of the machines: on the host, or in the network outside of the lab that they are in.
//!
//! Machines use the host, or their network's gateway, as their default route, so a route there also serves the other
//! machines of the same network.

use std::{net::Ipv4Addr, path::Path};

use anyhow::{Result, bail};

use super::{addresses::Network, nat::within};

/// Sends the range to the machine, whatever an earlier run left there.
pub async fn set(place: Option<&Path>, range: Network, machine: Ipv4Addr) -> Result<()> {
    let (range, machine) = (range.to_string(), machine.to_string());
    ip(place, &["route", "replace", &range, "via", &machine]).await?;
    Ok(())
}

/// Removes the route, if it is still this machine's.
pub async fn remove(place: Option<&Path>, range: Network, machine: Ipv4Addr) -> Result<()> {
    let (range, machine) = (range.to_string(), machine.to_string());
    let listed = ip(place, &["route", "show", &range, "via", &machine]).await?;
    if !listed.is_empty() {
        ip(place, &["route", "del", &range, "via", &machine]).await?;
    }
    Ok(())
}

async fn ip(place: Option<&Path>, args: &[&str]) -> Result<Vec<u8>> {
    let output = within(place, "ip").arg("-4").args(args).output().await?;
    if !output.status.success() {
        bail!(
            "ip {}: {}",
            args.join(" "),
            String::from_utf8_lossy(&output.stderr).trim()
        );
    }
    Ok(output.stdout)
}
