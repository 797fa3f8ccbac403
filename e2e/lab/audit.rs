//! Requests counted from the management cluster's audit log: completed ones, by ServiceAccount (lab.md 6).
//!
//! Watches re-open by themselves and leases are renewed for ever: both are left out. Events count: they are writes.

use std::{collections::BTreeMap, path::PathBuf, time::Duration};

use anyhow::{Context as _, Result, ensure};
use serde::Deserialize;
use tokio::io::{AsyncReadExt as _, AsyncSeekExt as _};

use super::{access::Lab, until::until};

/// Namespaces of our processes: what their ServiceAccounts ask for is counted.
pub const OURS: [&str; 2] = ["capi-kamaji-control-plane-system", "capi-kamaji-bootstrap-system"];

/// One completed request.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Request {
    stage: String,
    /// `get`, `create`, `patch` …
    pub verb: String,
    /// Who asked.
    pub user: User,
    /// User agent header.
    #[serde(default)]
    pub user_agent: String,
    /// Path and query.
    #[serde(default, rename = "requestURI")]
    pub uri: String,
    /// What it was about.
    pub object_ref: Option<ObjectRef>,
    /// How it was answered.
    pub response_status: Option<ResponseStatus>,
}

/// Who asked.
#[derive(Clone, Debug, Deserialize)]
pub struct User {
    /// User name.
    pub username: String,
}

/// What a request was about.
#[derive(Clone, Debug, Default, Deserialize)]
pub struct ObjectRef {
    /// Plural.
    #[serde(default)]
    pub resource: String,
    /// Namespace.
    #[serde(default)]
    pub namespace: String,
    /// Name.
    #[serde(default)]
    pub name: String,
    /// `status`, `scale` …
    #[serde(default)]
    pub subresource: String,
}

/// How a request was answered.
#[derive(Clone, Debug, Default, Deserialize)]
pub struct ResponseStatus {
    /// HTTP status.
    #[serde(default)]
    pub code: u16,
}

impl Request {
    /// The request counts against a budget.
    fn counts(&self) -> bool {
        self.stage == "ResponseComplete"
            && self.verb != "watch"
            && self.object_ref.as_ref().is_none_or(|o| o.resource != "leases")
    }

    /// It changed something.
    pub fn is_write(&self) -> bool {
        matches!(
            self.verb.as_str(),
            "create" | "update" | "patch" | "delete" | "deletecollection"
        ) && self
            .object_ref
            .as_ref()
            .is_none_or(|o| !o.resource.ends_with("reviews"))
    }
}

/// A place in the audit log to count from.
pub struct Mark {
    file: PathBuf,
    offset: u64,
}

impl Mark {
    /// The beginning of the lab's log.
    pub fn start(lab: &Lab) -> Self {
        Self {
            file: lab.directory.join("audit.log"),
            offset: 0,
        }
    }

    /// Now.
    ///
    /// # Errors
    /// When there is no audit log.
    pub async fn now(lab: &Lab) -> Result<Self> {
        let file = lab.directory.join("audit.log");
        let offset = tokio::fs::metadata(&file).await.context("no audit log")?.len();
        Ok(Self { file, offset })
    }

    /// Requests since then that were made by the ServiceAccounts of `namespaces`.
    ///
    /// # Errors
    /// When the log cannot be read.
    pub async fn requests(&self, namespaces: &[&str]) -> Result<Vec<Request>> {
        let mut file = tokio::fs::File::open(&self.file).await?;
        file.seek(std::io::SeekFrom::Start(self.offset)).await?;
        let mut text = String::new();
        file.read_to_string(&mut text).await?;
        Ok(text
            .lines()
            .filter_map(|line| serde_json::from_str::<Request>(line).ok())
            .filter(Request::counts)
            .filter(|request| {
                let account = request.user.username.strip_prefix("system:serviceaccount:");
                account
                    .and_then(|rest| rest.split(':').next())
                    .is_some_and(|namespace| namespaces.contains(&namespace))
            })
            .collect())
    }
}

/// Until our accounts made no request for five seconds: the tail of a creation belongs to its budget.
///
/// # Errors
/// When they do not rest within two minutes.
pub async fn settled(lab: &Lab) -> Result<()> {
    until(
        "five seconds without a request",
        Duration::from_mins(2),
        async || {
            let mark = Mark::now(lab).await?;
            tokio::time::sleep(Duration::from_secs(5)).await;
            let requests = mark.requests(&OURS).await?;
            ensure!(requests.is_empty(), "{}", summary(&requests));
            Ok(Some(()))
        },
    )
    .await
}

/// Requests with a user agent that is not ours: somebody else uses our accounts.
pub fn strangers(requests: &[Request]) -> Vec<&Request> {
    let known = |request: &&Request| !request.user_agent.starts_with("capi-kamaji/");
    requests.iter().filter(known).collect()
}

/// How many requests there were by verb, resource and user agent: what a test prints.
pub fn summary(requests: &[Request]) -> String {
    let mut counts: BTreeMap<String, usize> = BTreeMap::new();
    for request in requests {
        let object = request.object_ref.clone().unwrap_or_default();
        let slash = if object.subresource.is_empty() { "" } else { "/" };
        let key = format!(
            "{} {}{slash}{} [{}]",
            request.verb, object.resource, object.subresource, request.user_agent
        );
        *counts.entry(key).or_default() += 1;
    }
    let lines: Vec<_> = counts
        .into_iter()
        .map(|(key, count)| format!("  {count:4} {key}"))
        .collect();
    lines.join("\n")
}
