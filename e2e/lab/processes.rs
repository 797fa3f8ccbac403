//! Our processes on this host: found by the cgroup of their container, ended with SIGKILL.

use std::{
    collections::BTreeSet,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result, ensure};
use k8s_openapi::api::core::v1::Pod;
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
    let statuses = pod.status.as_ref().and_then(|s| s.container_statuses.as_ref());
    let Some(id) = statuses.and_then(|list| list.first()?.container_id.as_deref()) else {
        return Ok(Vec::new());
    };
    let processes = members(Path::new(CGROUPS), container(id)?);
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
