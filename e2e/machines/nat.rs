//! Makes and removes networks outside of the lab on this host.
//!
//! A network exists while machines are in it, and their records name it: whatever a crash leaves behind goes with the last
//! of them. Its namespace is a file that the kernel has mounted, which ends with the boot.

use std::{
    ffi::OsString,
    net::Ipv4Addr,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
    process::Stdio,
};

use anyhow::{Context as _, Result, bail};
use tokio::{fs, process::Command};

use super::outside::Outside;

const NAT: &str = include_str!("nat.sh");

/// The bridge inside of a network that its machines are attached to.
pub const BRIDGE: &str = "machines";

/// The lab's bridge, to which networks are attached.
#[derive(Clone, Copy, Debug)]
pub struct Attachment<'a> {
    /// Its name.
    pub bridge: &'a str,
    /// The host's own address on it.
    pub host: Ipv4Addr,
    /// Prefix length of its network.
    pub prefix: u8,
}

/// The directory with a namespace file for each network.
#[derive(Clone, Debug)]
pub struct Namespaces {
    root: PathBuf,
}

impl Namespaces {
    /// Opens, and makes, the directory below `state`.
    ///
    /// # Errors
    /// When it cannot be made.
    pub async fn open(state: &Path) -> Result<Self> {
        let root = state.join("networks");
        fs::create_dir_all(&root)
            .await
            .with_context(|| format!("cannot make {}", root.display()))?;
        Ok(Self {
            root: fs::canonicalize(&root).await?,
        })
    }

    /// Makes a network, or what an interrupted run has not made of it.
    ///
    /// # Errors
    /// When a command fails, with what it says.
    pub async fn set_up(&self, network: &Outside, lab: Attachment<'_>) -> Result<()> {
        let host = lab.host.to_string();
        let uplink = format!("{}/{}", network.uplink, lab.prefix);
        let gateway = format!("{}/{}", network.gateway(), network.range.prefix());
        self.script("up", network, &[lab.bridge, &host, &uplink, &gateway])
            .await
    }

    /// Removes a network, or what is left of it.
    ///
    /// # Errors
    /// When a command fails, with what it says.
    pub async fn tear_down(&self, network: &Outside) -> Result<()> {
        self.script("down", network, &[]).await
    }

    /// The file of a network's namespace, if the namespace exists: it may have ended with an earlier boot.
    pub async fn living(&self, name: &str) -> Option<PathBuf> {
        let file = self.root.join(name);
        let mounted = fs::metadata(&file).await.ok()?.dev();
        let around = fs::metadata(&self.root).await.ok()?.dev();
        (mounted != around).then_some(file)
    }

    async fn script(&self, action: &str, network: &Outside, args: &[&str]) -> Result<()> {
        let output = Command::new("/bin/sh")
            .args(["-c", NAT, "nat", action])
            .arg(self.root.join(&network.name))
            .arg(network.link())
            .args(args)
            .stdin(Stdio::null())
            .output()
            .await?;
        if !output.status.success() {
            let said = String::from_utf8_lossy(&output.stderr);
            bail!("network {}, {action}: {}", network.name, said.trim());
        }
        Ok(())
    }
}

/// A command that runs in the network of a namespace file, or in the host's own.
pub fn within(namespace: Option<&Path>, program: &str) -> Command {
    let Some(namespace) = namespace else {
        return Command::new(program);
    };
    let mut net = OsString::from("--net=");
    net.push(namespace);
    let mut command = Command::new("nsenter");
    command.arg(net).args(["--", program]);
    command
}
