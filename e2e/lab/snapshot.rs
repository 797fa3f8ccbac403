//! Everything that a deleted cluster could leave behind: API objects, keys, users and roles in the DataStore,
//! processes,
//! mounts, routes, cgroups. Two snapshots are compared line by line.

use std::{collections::BTreeSet, fmt::Write as _, time::Duration};

use anyhow::{Result, ensure};
use kube::{
    Api,
    api::{DynamicObject, ListParams},
    discovery::{Discovery, verbs},
};

use super::{access::Lab, until::until};

/// Kinds whose objects come and go on their own.
const RESTLESS: [&str; 3] = ["Event", "ComponentStatus", "PodMetrics"];

/// Kinds of lines that the host of a running lab always has.
const KINDS: [&str; 7] = [
    "process ",
    "mount ",
    "route ",
    "link ",
    "cgroup ",
    "iptables ",
    "directory ",
];

/// One line per thing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Snapshot {
    lines: BTreeSet<String>,
}

impl Snapshot {
    /// Objects of the management cluster, machine state of the host.
    ///
    /// # Errors
    /// When a list or a command fails.
    pub async fn take(lab: &Lab) -> Result<Self> {
        let mut lines = BTreeSet::new();
        let discovery = Discovery::new(lab.management.clone()).run().await?;
        for group in discovery.groups() {
            for (resource, capabilities) in group.recommended_resources() {
                if RESTLESS.contains(&resource.kind.as_str()) || !capabilities.supports_operation(verbs::LIST)
                {
                    continue;
                }
                let api = Api::<DynamicObject>::all_with(lab.management.clone(), &resource);
                for object in api.list_metadata(&ListParams::default()).await?.items {
                    let namespace = object.metadata.namespace.unwrap_or_default();
                    let name = object.metadata.name.unwrap_or_default();
                    lines.insert(format!(
                        "object {}.{} {namespace}/{name}",
                        resource.plural, resource.group
                    ));
                }
            }
        }
        for line in host().await? {
            lines.insert(line);
        }
        Ok(Self { lines })
    }

    /// A snapshot of a lab at rest: two in a row, ten seconds apart, are equal. What an earlier test ended is then
    /// really gone.
    ///
    /// # Errors
    /// When the lab does not come to rest.
    pub async fn at_rest(lab: &Lab) -> Result<Self> {
        let mut last = Self::default();
        until("the lab to come to rest", Duration::from_mins(2), async || {
            let seen = Self::take(lab).await?;
            tokio::time::sleep(Duration::from_secs(10)).await;
            let diff = std::mem::replace(&mut last, seen.clone()).diff(&seen);
            ensure!(diff.is_empty(), "{diff}");
            Ok(Some(seen))
        })
        .await
    }

    /// Adds lines of another source, for example the keys of a datastore.
    pub fn add(&mut self, kind: &str, lines: impl IntoIterator<Item = String>) {
        self.lines
            .extend(lines.into_iter().map(|line| format!("{kind} {line}")));
    }

    /// The differences of `after`, one line each with `+` or `-`; empty if there are none.
    pub fn diff(&self, after: &Self) -> String {
        let mut out = String::new();
        for line in after.lines.difference(&self.lines) {
            let _ = writeln!(out, "+ {line}");
        }
        for line in self.lines.difference(&after.lines) {
            let _ = writeln!(out, "- {line}");
        }
        out
    }
}

/// State of the host: processes, mounts, routes, links, cgroups and rules, as `hack/quickstart --down` checks it.
///
/// # Errors
/// When the script fails, or reports nothing of a kind that every lab has.
async fn host() -> Result<Vec<String>> {
    let root = concat!(env!("CARGO_MANIFEST_DIR"), "/..");
    let output = tokio::process::Command::new("bash")
        .args(["-c", ". hack/lib/trace.sh && trace"])
        .current_dir(root)
        .output()
        .await?;
    ensure!(
        output.status.success(),
        "hack/lib/trace.sh: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    let lines: Vec<_> = String::from_utf8(output.stdout)?
        .lines()
        .map(str::to_owned)
        .collect();
    for kind in KINDS {
        ensure!(
            lines.iter().any(|line| line.starts_with(kind)),
            "hack/lib/trace.sh prints no {kind}"
        );
    }
    Ok(lines)
}
