//! Starts a virtual machine: its own kernel, control groups v2 and clock, which a container cannot have.
//!
//! The emulator is the machine's process on the host. What the machine writes, and its network interface, go when it ends.

use std::{os::unix::fs::PermissionsExt as _, path::Path, process::Stdio, time::Duration};

use anyhow::{Context as _, Result, ensure};
use k8s_openapi::jiff::{SignedDuration, Timestamp};
use tokio::{fs, process::Command};

use super::{
    files,
    nat::within,
    record::Pid,
    seed::{Overlay, sha256_hex},
};

/// Network interface inside the machine.
pub const INTERFACE: &str = "eth0";
/// File in the folder of an image that a container's root filesystem does not have.
pub const KERNEL: &str = "vmlinuz";

/// Bytes of the disk with the machine's own files. User-data has at most a few megabytes.
const FILES_SIZE: u64 = 32 * 1024 * 1024;
/// What the emulator does with the interface that it made.
const JOIN_BRIDGE: &str = "#!/bin/sh\nexec ip link set dev \"$1\" master \"$LAB_BRIDGE\" up\n";

/// What a virtual machine is started with.
#[derive(Clone, Copy, Debug)]
pub struct Start<'a> {
    /// Folder of its image: `vmlinuz`, `initrd.img` and `disk.ext4`.
    pub image: &'a Path,
    /// Name on the host.
    pub id: &'a str,
    /// Namespace file of its network; none is the host's own.
    pub namespace: Option<&'a Path>,
    /// Bridge in that network.
    pub bridge: &'a str,
    /// How far its clock is ahead when it boots; behind, where it is negative.
    pub clock_offset: SignedDuration,
}

/// Writes the files to a disk that the image copies to its root filesystem at the first boot.
///
/// # Errors
/// When the disk cannot be made.
pub async fn lay_out(directory: &Path, overlay: &[Overlay]) -> Result<()> {
    let (folder, disk) = (directory.join("files"), directory.join("files.ext4"));
    files::write(&folder, overlay).await?;
    fs::File::create(&disk).await?.set_len(FILES_SIZE).await?;
    let made = Command::new("mkfs.ext4")
        .args(["-q", "-F", "-L", "lab-files", "-d"])
        .args([&folder, &disk])
        .output()
        .await
        .context("cannot run mkfs.ext4 (is e2fsprogs installed?)")?;
    ensure!(
        made.status.success(),
        "mkfs.ext4: {}",
        String::from_utf8_lossy(&made.stderr).trim()
    );
    let join = directory.join("join-bridge");
    fs::write(&join, JOIN_BRIDGE).await?;
    fs::set_permissions(&join, std::fs::Permissions::from_mode(0o755)).await?;
    Ok(())
}

/// Starts the machine; its console goes to `console.log` beside the record.
///
/// # Errors
/// When the emulator does not start.
pub async fn start(directory: &Path, machine: Start<'_>) -> Result<Pid> {
    let console = directory.join("console.log");
    let log = std::fs::File::create(directory.join("emulator.log"))?;
    let mut child = within(machine.namespace, "qemu-system-x86_64")
        .args(arguments(directory, machine, Timestamp::now()))
        .arg("-serial")
        .arg(format!("file:{}", console.display()))
        .current_dir("/")
        .env_clear()
        .env(
            "PATH",
            "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
        )
        // What the machine writes goes to a file there that has no name.
        .env("TMPDIR", directory)
        .env("LAB_BRIDGE", machine.bridge)
        .stdin(Stdio::null())
        .stdout(log.try_clone()?)
        .stderr(log)
        .process_group(0)
        .spawn()
        .context("cannot start the emulator (is qemu-system-x86 installed?)")?;
    let pid = child.id().context("the emulator ended at once")?;
    // Arguments that it does not take end it at once.
    if let Ok(ended) = tokio::time::timeout(Duration::from_millis(300), child.wait()).await {
        let log = fs::read_to_string(directory.join("emulator.log")).await;
        anyhow::bail!(
            "the emulator ended: {}: {}",
            ended?,
            log.unwrap_or_default().trim()
        );
    }
    tokio::spawn(async move { child.wait().await });
    Pid::of(pid).await.context("the emulator ended at once")
}

fn arguments(directory: &Path, machine: Start<'_>, now: Timestamp) -> Vec<String> {
    let Start { image, id, .. } = machine;
    let in_image = |name: &str| image.join(name).display().to_string();
    let hash = sha256_hex(id.as_bytes());
    let (os_id, mac) = (&hash[..32], [&hash[..2], &hash[2..4], &hash[4..6]].join(":"));
    let clock = (now + machine.clock_offset).strftime("%Y-%m-%dT%H:%M:%S");
    let ours = |name: &str| directory.join(name).display().to_string();
    let text = [
        "-nodefaults -no-user-config -display none -M q35 -smp 2 -m 2048 -cpu max".to_owned(),
        // Slower than the processor's own virtualization, and there on every host.
        "-accel tcg,thread=multi".to_owned(),
        format!("-kernel {} -initrd {}", in_image(KERNEL), in_image("initrd.img")),
        format!(
            "-drive if=virtio,format=raw,snapshot=on,file={}",
            in_image("disk.ext4")
        ),
        format!(
            "-drive if=virtio,format=raw,readonly=on,file={}",
            ours("files.ext4")
        ),
        format!(
            "-netdev tap,id=lan,ifname=t-{id},script={},downscript=no",
            ours("join-bridge")
        ),
        format!("-device virtio-net-pci,netdev=lan,mac=52:54:00:{mac}"),
        format!("-rtc base={clock},clock=vm"),
    ];
    let words = text.iter().flat_map(|line| line.split(' ')).map(str::to_owned);
    let boot = format!("root=/dev/vda rw console=ttyS0 net.ifnames=0 systemd.machine_id={os_id}");
    words.chain(["-append".to_owned(), boot]).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_clock_of_a_machine_is_off_by_what_was_asked_for() {
        let machine = |seconds| Start {
            image: Path::new("/image"),
            id: "m0123456789a",
            namespace: None,
            bridge: "cni0",
            clock_offset: SignedDuration::from_secs(seconds),
        };
        let now: Timestamp = "2026-01-01T00:30:00Z".parse().unwrap();
        let clock = |seconds| {
            let arguments = arguments(Path::new("/m"), machine(seconds), now);
            let at = arguments.iter().position(|word| word == "-rtc").unwrap();
            arguments[at + 1].clone()
        };
        assert_eq!(clock(0), "base=2026-01-01T00:30:00,clock=vm");
        assert_eq!(clock(-3600), "base=2025-12-31T23:30:00,clock=vm");
    }
}
