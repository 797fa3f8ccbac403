//! Counts completed requests by ServiceAccount in the audit log of the management cluster.
//!
//! Watches reconnect on their own, and leases are renewed periodically, so neither is counted. Events are counted:
//! they
//! are writes.

use std::{collections::BTreeMap, path::PathBuf, time::Duration};

use anyhow::{Context as _, Result, ensure};
use serde::Deserialize;
use tokio::io::{AsyncReadExt as _, AsyncSeekExt as _};

use super::{access::Lab, until::until};

/// Namespaces of our processes; the requests of their ServiceAccounts are counted.
pub const OURS: [&str; 2] = ["capi-kamaji-control-plane-system", "capi-kamaji-bootstrap-system"];

/// One completed request.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Request {
    stage: String,
    /// `get`, `create`, `patch` …
    pub verb: String,
    /// Who made the request.
    pub user: User,
    /// User agent header.
    #[serde(default)]
    pub user_agent: String,
    /// Path and query.
    #[serde(default, rename = "requestURI")]
    pub uri: String,
    /// The object of the request.
    pub object_ref: Option<ObjectRef>,
    /// The response.
    pub response_status: Option<ResponseStatus>,
    /// What the API server notes: the decision of the authorizer, for one.
    #[serde(default)]
    pub annotations: BTreeMap<String, String>,
}

/// Who made the request.
#[derive(Clone, Debug, Deserialize)]
pub struct User {
    /// User name.
    pub username: String,
}

/// The object of a request.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ObjectRef {
    /// API group.
    #[serde(default)]
    pub api_group: String,
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

/// The response to a request.
#[derive(Clone, Debug, Default, Deserialize)]
pub struct ResponseStatus {
    /// HTTP status.
    #[serde(default)]
    pub code: u16,
}

impl Request {
    /// Whether the request counts against a budget.
    fn counts(&self) -> bool {
        self.stage == "ResponseComplete"
            && self.verb != "watch"
            && self.object_ref.as_ref().is_none_or(|o| o.resource != "leases")
    }

    /// The authorizer refused it.
    pub fn is_forbidden(&self) -> bool {
        self.annotations
            .get("authorization.k8s.io/decision")
            .is_some_and(|decision| decision == "forbid")
    }

    /// Whether the request is a write.
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

/// A position in the audit log to count from.
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

    /// Requests since then that were made by the ServiceAccounts of `namespaces`, as far as they count.
    ///
    /// # Errors
    /// When the log cannot be read, or a line of it is no audit event.
    pub async fn requests(&self, namespaces: &[&str]) -> Result<Vec<Request>> {
        let mut requests = self.all_requests(namespaces).await?;
        requests.retain(Request::counts);
        Ok(requests)
    }

    /// Requests since then that were made by the ServiceAccounts of `namespaces`, with watches and Leases, each once for
    /// each of its stages.
    ///
    /// # Errors
    /// When the log cannot be read, or a line of it is no audit event.
    pub async fn all_requests(&self, namespaces: &[&str]) -> Result<Vec<Request>> {
        let mut file = tokio::fs::File::open(&self.file).await?;
        let length = file.metadata().await?.len();
        ensure!(length >= self.offset, "the audit log was begun anew");
        // From one byte before: that shows whether a line begins at the mark.
        file.seek(std::io::SeekFrom::Start(self.offset.saturating_sub(1)))
            .await?;
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes).await?;
        Ok(events(&bytes, self.offset == 0)?
            .into_iter()
            .filter(|request| {
                let account = request.user.username.strip_prefix("system:serviceaccount:");
                account
                    .and_then(|rest| rest.split(':').next())
                    .is_some_and(|namespace| namespaces.contains(&namespace))
            })
            .collect())
    }
}

/// The events of all whole lines. What is before the first line break belongs to an earlier line, except `at_start`;
/// what
/// is after the last one is still being written.
fn events(bytes: &[u8], at_start: bool) -> Result<Vec<Request>> {
    let end = bytes.iter().rposition(|byte| *byte == b'\n').unwrap_or(0);
    let begin = match bytes.iter().position(|byte| *byte == b'\n') {
        Some(first) if !at_start => first,
        _ => 0,
    };
    let text = std::str::from_utf8(&bytes[begin.min(end)..end])?;
    text.lines()
        .filter(|line| !line.is_empty())
        .map(|line| serde_json::from_str(line).with_context(|| format!("no audit event: {line}")))
        .collect()
}

/// Checks that the requests are within a budget and that some of them are writes: an empty log would fit any budget.
///
/// # Errors
/// When there are more, when none is a write, or when one has an unknown user agent.
pub fn within(requests: &[Request], budget: usize) -> Result<()> {
    let summary = summary(requests);
    ensure!(
        requests.iter().any(Request::is_write),
        "no write was counted:\n{summary}"
    );
    let strangers = strangers(requests);
    ensure!(strangers.is_empty(), "unknown user agents: {strangers:#?}");
    let count = requests.len();
    ensure!(
        count <= budget,
        "{count} requests, the budget is {budget}:\n{summary}"
    );
    Ok(())
}

/// Waits until our accounts made no request for `quiet`: the last requests of a creation count against its budget.
///
/// # Errors
/// When they do not rest within `limit`.
pub async fn rest(lab: &Lab, quiet: Duration, limit: Duration) -> Result<()> {
    let what = format!("{} s without a request", quiet.as_secs());
    until(&what, limit, async || {
        let mark = Mark::now(lab).await?;
        // A fixed time on purpose: the absence of requests during this time is the condition.
        tokio::time::sleep(quiet).await;
        let requests = mark.requests(&OURS).await?;
        ensure!(requests.is_empty(), "{}", summary(&requests));
        Ok(Some(()))
    })
    .await
}

/// Requests with a user agent that the account's roles do not have: somebody else uses our accounts, or one role the
/// client of another.
fn strangers(requests: &[Request]) -> Vec<&Request> {
    let roles = |account: &str| match account.split(':').nth(2) {
        Some(namespace) if namespace == OURS[0] => &["control-plane", "hosting"][..],
        Some(namespace) if namespace == OURS[1] => &["bootstrap"],
        _ => &[],
    };
    let unknown = |request: &&Request| {
        let agents = roles(&request.user.username)
            .iter()
            .map(|role| format!("capi-kamaji/{} ({role})", env!("CARGO_PKG_VERSION")));
        !agents.into_iter().any(|agent| agent == request.user_agent)
    };
    requests.iter().filter(unknown).collect()
}

/// Number of requests by verb, resource and user agent, as text.
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

#[cfg(test)]
mod tests {
    use super::*;

    fn line(verb: &str, agent: &str) -> String {
        of(OURS[0], verb, agent)
    }

    fn of(namespace: &str, verb: &str, agent: &str) -> String {
        let user = format!("system:serviceaccount:{namespace}:account");
        format!(
            r#"{{"stage":"ResponseComplete","requestURI":"/","verb":"{verb}","user":{{"username":"{user}"}},"userAgent":"{agent}"}}"#
        )
    }

    #[test]
    fn whole_lines_after_the_mark_are_events() {
        let (one, two) = (line("get", "a"), line("create", "b"));
        let verbs = |text: &str, at_start| -> Vec<String> {
            let events = events(text.as_bytes(), at_start).unwrap();
            events.into_iter().map(|event| event.verb).collect()
        };
        assert_eq!(verbs(&format!("{one}\n{two}\n"), true), ["get", "create"]);
        assert_eq!(verbs(&format!("\n{one}\n{two}\n"), false), ["get", "create"]);
        // The mark was set in the middle of a line; the last line is being written.
        assert_eq!(verbs(&format!("\"x\"}}\n{one}\n{}", &two[..20]), false), ["get"]);
        assert!(verbs("", true).is_empty() && verbs("\n", false).is_empty());
        assert!(verbs(&two[..20], true).is_empty());
    }

    #[test]
    fn a_whole_line_that_is_no_event_is_an_error() {
        let text = format!("{}\n{{\"stage\":1}}\n", line("get", "a"));
        let error = events(text.as_bytes(), true).unwrap_err();
        assert!(error.to_string().starts_with("no audit event"), "{error}");
    }

    #[test]
    fn a_budget_holds_for_requests_of_ours_that_write() {
        let requests = |lines: &[String]| events((lines.join("\n") + "\n").as_bytes(), true).unwrap();
        let agent = |role: &str| format!("capi-kamaji/{} ({role})", env!("CARGO_PKG_VERSION"));
        let (read, write) = (
            line("get", &agent("hosting")),
            line("create", &agent("control-plane")),
        );
        within(&requests(&[read.clone(), write.clone()]), 2).unwrap();
        assert!(within(&requests(&[read.clone(), write.clone()]), 1).is_err());
        assert!(within(&requests(&[read]), 2).is_err());
        assert!(within(&[], 2).is_err());
        within(&requests(&[of(OURS[1], "create", &agent("bootstrap"))]), 1).unwrap();
        for stranger in [
            line("get", "kubectl"),
            line("get", "capi-kamaji/0"),
            line("get", &agent("bootstrap")),
            of(OURS[1], "get", &agent("hosting")),
        ] {
            assert!(
                within(&requests(&[write.clone(), stranger.clone()]), 2).is_err(),
                "{stranger}"
            );
        }
    }
}
