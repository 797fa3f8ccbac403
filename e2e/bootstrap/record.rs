//! What the API server recorded of requests.

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::Result;
use capi_kamaji::pki::spec::BOOTSTRAP_USER;
use serde_json::{Value, json};

use super::{NS, World};

/// Verbs that write.
const WRITES: [&str; 5] = ["create", "update", "patch", "delete", "deletecollection"];

/// Who answers certificate requests and makes tokens is written down, each write in the namespace of the Clusters, and what the
/// bootstrap provider asks of the workload cluster.
pub fn policy() -> Value {
    json!({
        "apiVersion": "audit.k8s.io/v1", "kind": "Policy", "omitStages": ["RequestReceived"],
        "rules": [
            {
                "level": "Metadata", "verbs": ["update", "patch"],
                "resources": [{"group": "certificates.k8s.io", "resources": ["certificatesigningrequests/approval"]}],
            },
            {
                "level": "Metadata", "verbs": ["create"], "namespaces": ["kube-system"],
                "resources": [{"group": "", "resources": ["secrets"]}],
            },
            {"level": "Metadata", "verbs": WRITES, "namespaces": [NS]},
            {"level": "Metadata", "users": [BOOTSTRAP_USER]},
            {"level": "None"},
        ],
    })
}

/// Writes a policy, and returns the flags of an API server that follows it. The record is the file `<name>.log`.
pub fn arguments(home: &Path, name: &str, policy: &Value) -> Result<Vec<String>> {
    let (rules, log) = (
        home.join(format!("{name}.yaml")),
        home.join(format!("{name}.log")),
    );
    fs::write(&rules, policy.to_string())?;
    Ok(vec![
        format!("--audit-policy-file={}", rules.display()),
        format!("--audit-log-path={}", log.display()),
    ])
}

/// A write to the management cluster, by the API server's own record.
pub struct Write {
    /// Resource, in the plural.
    pub resource: String,
    /// Subresource, empty for the object itself.
    pub subresource: String,
    /// Name of the object.
    pub name: String,
    /// Another client wrote at the same time.
    pub conflict: bool,
}

impl World {
    /// A file that goes with this.
    pub fn file(&self, name: &str) -> PathBuf {
        self.home.0.join(name)
    }

    /// What the API server recorded.
    fn recorded(&self) -> Result<Vec<Value>> {
        self.records("audit")
    }

    /// The requests that an API server wrote down as `name`, without the content: events of `audit.k8s.io/v1`.
    pub fn records(&self, name: &str) -> Result<Vec<Value>> {
        let text = fs::read_to_string(self.file(&format!("{name}.log")))?;
        // The last line may be half written.
        let events = text.lines().filter_map(|line| serde_json::from_str(line).ok());
        Ok(events.collect())
    }

    /// Writes in the namespace of the Clusters.
    pub fn writes(&self) -> Result<Vec<Write>> {
        let text = |event: &Value, key: &str| event["objectRef"][key].as_str().unwrap_or_default().to_owned();
        let events = self.recorded()?.into_iter();
        Ok(events
            .filter(|event| event["objectRef"]["namespace"] == NS)
            .map(|event| Write {
                resource: text(&event, "resource"),
                subresource: text(&event, "subresource"),
                name: text(&event, "name"),
                conflict: event["responseStatus"]["code"] == 409,
            })
            .collect())
    }

    /// How many requests the bootstrap provider sent to the workload cluster, without lists and watches.
    pub fn asked(&self) -> Result<usize> {
        let events = self.recorded()?.into_iter();
        let ours = events.filter(|event| event["user"]["username"] == BOOTSTRAP_USER);
        Ok(ours
            .filter(|event| !["list", "watch"].contains(&event["verb"].as_str().unwrap_or_default()))
            .count())
    }

    /// Users who answered the request of this name, or created the token of this name: one entry a write.
    pub fn writers(&self, name: &str) -> Result<Vec<String>> {
        let events = self.recorded()?.into_iter();
        Ok(events
            .filter(|event| event["objectRef"]["name"] == name)
            .filter(|event| event["verb"] == "create" || event["objectRef"]["subresource"] == "approval")
            .filter(|event| matches!(event["responseStatus"]["code"].as_u64(), Some(200 | 201)))
            .filter_map(|event| event["user"]["username"].as_str().map(str::to_owned))
            .collect())
    }
}
