//! Our processes on this host: found by the cgroup of their container, ended with SIGKILL.

use std::{
    collections::BTreeSet,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result, ensure};
use k8s_openapi::api::core::v1::{ContainerStatus, Pod};
use kube::{Api, api::ListParams};
use tokio::process::Command;

use super::access::Lab;

const CGROUPS: &str = "/sys/fs/cgroup";

/// Kills the processes of our pod in `namespace` and returns their PIDs; none where nothing runs right now.
///
/// # Errors
/// When there is no such pod, or a process cannot be killed.
pub async fn kill(lab: &Lab, namespace: &str) -> Result<Vec<u32>> {
    let pods = Api::<Pod>::namespaced(lab.management.clone(), namespace);
    let pods = pods.list(&ListParams::default()).await?.items;
    let pod = pods.first().context("no pod of ours")?;
    match statuses(pod)
        .first()
        .and_then(|status| status.container_id.as_deref())
    {
        Some(id) => kill_all(container(id)?).await,
        None => Ok(Vec::new()),
    }
}

/// Kills the processes of one container of a pod of the management cluster.
///
/// # Errors
/// When it does not run, or a process cannot be killed.
pub async fn kill_container(pod: &Pod, name: &str) -> Result<()> {
    let killed = kill_all(id_of(pod, name)?).await?;
    ensure!(!killed.is_empty(), "nothing runs in container {name}");
    Ok(())
}

/// What the processes of one container of a pod of the management cluster use.
///
/// # Errors
/// When it does not run.
pub fn usage(pod: &Pod, name: &str) -> Result<Usage> {
    let pids = members(Path::new(CGROUPS), id_of(pod, name)?);
    ensure!(!pids.is_empty(), "nothing runs in container {name}");
    let mut all = Usage::default();
    for pid in pids {
        let status = std::fs::read_to_string(format!("/proc/{pid}/status"))?;
        let rss = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
        let kib = rss.and_then(|text| text.trim().strip_suffix("kB"));
        all.kib += kib.context("no VmRSS")?.trim().parse::<u64>()?;
        for file in std::fs::read_dir(format!("/proc/{pid}/fd"))? {
            // It may be closed while it is looked at.
            let to = std::fs::read_link(file?.path()).unwrap_or_default();
            all.sockets += usize::from(to.to_string_lossy().starts_with("socket:"));
        }
    }
    Ok(all)
}

/// What a container uses.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// Open sockets.
    pub sockets: usize,
    /// Resident memory in KiB.
    pub kib: u64,
}

fn statuses(pod: &Pod) -> &[ContainerStatus] {
    let status = pod.status.as_ref();
    status
        .and_then(|status| status.container_statuses.as_deref())
        .unwrap_or_default()
}

fn id_of<'a>(pod: &'a Pod, name: &str) -> Result<&'a str> {
    let status = statuses(pod).iter().find(|status| status.name == name);
    let id = status.and_then(|status| status.container_id.as_deref());
    container(id.with_context(|| format!("container {name} has no id"))?)
}

async fn kill_all(id: &str) -> Result<Vec<u32>> {
    let processes = members(Path::new(CGROUPS), id);
    for pid in &processes {
        let status = Command::new("kill")
            .args(["-KILL", &pid.to_string()])
            .status()
            .await?;
        ensure!(
            status.success(),
            "process {pid} of container {id} cannot be killed"
        );
    }
    Ok(processes.into_iter().collect())
}

/// The id in `containerd://<id>`: nothing but a whole one may choose whom to kill.
fn container(text: &str) -> Result<&str> {
    let id = text.rsplit('/').next().unwrap_or_default();
    ensure!(
        id.len() == 64 && id.bytes().all(|byte| byte.is_ascii_hexdigit()),
        "{text:?} is no id of a container"
    );
    Ok(id)
}

/// Processes in the cgroups that carry the id in their name, in any hierarchy.
fn members(root: &Path, id: &str) -> BTreeSet<u32> {
    let mut pids = BTreeSet::new();
    let mut ahead = vec![root.to_owned()];
    while let Some(place) = ahead.pop() {
        let named = place
            .file_name()
            .is_some_and(|name| name.to_string_lossy().contains(id));
        if named {
            let text = std::fs::read_to_string(place.join("cgroup.procs")).unwrap_or_default();
            // 0 is a process outside this PID namespace.
            pids.extend(
                text.lines()
                    .filter_map(|line| line.parse::<u32>().ok())
                    .filter(|pid| *pid != 0),
            );
        }
        ahead.extend(folders(&place));
    }
    pids
}

fn folders(place: &Path) -> Vec<PathBuf> {
    // A cgroup may go while it is looked at.
    let entries = std::fs::read_dir(place).into_iter().flatten().flatten();
    entries
        .filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()))
        .map(|entry| entry.path())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_but_a_whole_id_names_a_container() {
        let id = "0123456789abcdef".repeat(4);
        assert_eq!(container(&format!("containerd://{id}")).unwrap(), id);
        for bad in ["", "containerd://", "containerd://*", "containerd://0123abcd"] {
            assert!(container(bad).is_err(), "{bad}");
        }
        assert!(container(&id.replace('0', "*")).is_err());
    }

    #[test]
    fn members_are_those_of_the_containers_own_cgroups() {
        let root = std::env::temp_dir().join(format!("kamaji-cgroups-{}", std::process::id()));
        let (mine, other) = ("a".repeat(64), "b".repeat(64));
        for (place, pids) in [
            (format!("memory/kubepods/pod1/{mine}"), "11\n12\n"),
            (format!("unified/kubepods.slice/cri-{mine}.scope"), "12\n0\n"),
            (format!("memory/kubepods/pod1/{other}"), "13\n"),
            ("memory".to_owned(), "1\n"),
        ] {
            let place = root.join(place);
            std::fs::create_dir_all(&place).unwrap();
            std::fs::write(place.join("cgroup.procs"), pids).unwrap();
        }
        let found = members(&root, &mine);
        std::fs::remove_dir_all(&root).unwrap();
        assert_eq!(found, [11, 12].into());
    }
}
