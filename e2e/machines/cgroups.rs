//! The cgroup subtrees of a machine, one in each hierarchy of the host: their processes, and their removal.

use std::{
    collections::BTreeSet,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result};

const ROOT: &str = "/sys/fs/cgroup";

/// Every process in the machine's subtrees, also one that was started and never recorded.
pub fn members(id: &str) -> Vec<u32> {
    let mut pids = BTreeSet::new();
    for place in places(id) {
        collect(&place, &mut pids);
    }
    pids.into_iter().collect()
}

fn collect(place: &Path, pids: &mut BTreeSet<u32>) {
    let procs = std::fs::read_to_string(place.join("cgroup.procs")).unwrap_or_default();
    pids.extend(
        procs
            .lines()
            .filter_map(|line| line.parse::<u32>().ok())
            .filter(|pid| *pid != 0),
    );
    for child in children(place) {
        collect(&child, pids);
    }
}

/// Removes the subtree `lab-<id>` of every hierarchy; its processes must be gone.
pub fn remove(id: &str) -> Result<()> {
    places(id).iter().try_for_each(|place| remove_tree(place))
}

fn places(id: &str) -> Vec<PathBuf> {
    let group = format!("lab-{id}");
    let root = Path::new(ROOT);
    let mut places = vec![root.join(&group)];
    if let Ok(entries) = std::fs::read_dir(root) {
        // Hierarchies mounted together have links as second names.
        let hierarchies = entries
            .flatten()
            .filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()));
        places.extend(hierarchies.map(|entry| entry.path().join(&group)));
    }
    places.retain(|place| place.is_dir());
    places
}

fn children(place: &Path) -> Vec<PathBuf> {
    std::fs::read_dir(place)
        .into_iter()
        .flatten()
        .flatten()
        .filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()))
        .map(|entry| entry.path())
        .collect()
}

/// Removes directories from the leaves up: the files in them are the kernel's.
fn remove_tree(place: &Path) -> Result<()> {
    children(place).iter().try_for_each(|child| remove_tree(child))?;
    std::fs::remove_dir(place).with_context(|| format!("cannot remove cgroup {}", place.display()))
}
