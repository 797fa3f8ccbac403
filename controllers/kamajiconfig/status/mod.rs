//! Computes the status of a KamajiConfig from what one reconcile found. Pure.

use k8s_openapi::{
    apimachinery::pkg::apis::meta::v1::{Condition, Time},
    jiff::Timestamp,
};
use kamaji_api::{
    bootstrap::{
        BootstrapDataStatus, ConfigInitialization, KamajiConfig, KamajiConfigStatus, NodeReport, TokenStatus,
    },
    conditions::{KamajiConfigCondition as Condition_, Reason},
    unsupported::UnsupportedFields as _,
};

use super::bootstrapdata::delivery;
use crate::k8s::{
    conditions::{self, Verdict},
    problem::Problem,
    report::{Report, Step, verdict},
};

/// What one reconcile found. A condition whose field is `None` or [`Step::NotReached`] keeps what it reported before.
#[derive(Clone, Debug, Default)]
pub struct Progress {
    /// Why the config is paused.
    pub paused: Option<String>,
    /// What is wrong with the spec.
    pub problems: Option<Vec<Problem>>,
    /// Why there is no bootstrap data.
    pub no_data: Option<Problem>,
    /// The CA of the workload cluster was read.
    pub ca: Step,
    /// The bootstrap data that exists.
    pub data: Option<Data>,
    /// The token.
    pub token: Option<Token>,
    /// The token that was created or found, however the reconcile went on.
    pub known: Option<TokenStatus>,
    /// The status reported the data before, and its Secret is deleted or belongs to another object.
    pub lost: bool,
    /// Why requests are approved automatically in the workload cluster, if they are.
    pub automatic: Option<Option<String>>,
    /// The node.
    pub node: Option<Node>,
}

/// The bootstrap data.
#[derive(Clone, Debug)]
pub struct Data {
    /// Name of its Secret.
    pub name: String,
    /// Its figures, if it was written or read in this reconcile.
    pub figures: Option<BootstrapDataStatus>,
}

impl Data {
    /// Data that was reported before, with its figures.
    pub const fn known(name: String) -> Self {
        Self { name, figures: None }
    }
}

/// The token.
#[derive(Clone, Debug, PartialEq)]
pub enum Token {
    /// It is valid in the workload cluster.
    Alive(TokenStatus),
    /// Its longest lifetime is over.
    Ended(TokenStatus),
    /// Its bearer abused it, so it is ended.
    Abused {
        /// The token.
        token: TokenStatus,
        /// The workload cluster deleted it.
        deleted: bool,
    },
    /// It was deleted, and why.
    Removed(String),
    /// The workload cluster could not be asked.
    Unknown(Problem),
}

/// The node.
#[derive(Clone, Debug, PartialEq)]
pub enum Node {
    /// It did not join yet.
    Waiting {
        /// The last report of the machine.
        report: Option<NodeReport>,
        /// What a certificate request waits for, or why the last one was denied.
        held: Option<Problem>,
    },
    /// It joined and was deleted since.
    Gone(String),
    /// It joined, and what is left to do could not be done.
    Unsettled(Problem),
    /// It joined.
    Joined {
        /// Its name.
        name: String,
        /// Its version; the error says how it differs from the Machine's.
        version: Result<String, String>,
        /// Its provider ID.
        provider_id: ProviderId,
    },
}

/// The provider ID of the node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ProviderId {
    /// It is the Machine's.
    Set,
    /// Another component writes it.
    NotOurs,
    /// The Machine has none yet.
    Awaited,
    /// The node has another one.
    Mismatch(String),
    /// It could not be written.
    Unknown(Problem),
}

/// The status after the reconcile.
pub fn status(config: &KamajiConfig, progress: &Progress, now: Timestamp) -> KamajiConfigStatus {
    let mut status = config.status.clone().unwrap_or_default();
    let generation = config.metadata.generation;
    let mut report = Report::new(std::mem::take(&mut status.conditions), generation, now);
    if let Some(why) = &progress.paused {
        report.set(Verdict::yes(
            name(Condition_::Paused),
            Reason::Paused,
            why.clone(),
        ));
        status.conditions = report.into_conditions();
        return status;
    }
    report.set(Verdict::no(name(Condition_::Paused), Reason::NotPaused, ""));
    if let Some(problems) = &progress.problems {
        report.set(spec_valid(problems));
    }
    if let Some(verdict) = verdict(
        name(Condition_::CertificatesAvailable),
        &progress.ca,
        Reason::CertificatesAvailable,
    ) {
        report.set(verdict);
    }
    if let Some(data) = &progress.data {
        status.initialization = Some(ConfigInitialization {
            data_secret_created: Some(true),
        });
        status.data_secret_name = Some(data.name.clone());
        if data.figures.is_some() {
            status.bootstrap_data.clone_from(&data.figures);
        }
        report.set(Verdict::yes(
            name(Condition_::DataSecretAvailable),
            Reason::DataSecretAvailable,
            near_limit(status.bootstrap_data.as_ref()).unwrap_or_default(),
        ));
    } else if let Some(problem) = &progress.no_data {
        report.set(Verdict::no(
            name(Condition_::DataSecretAvailable),
            problem.reason,
            problem.message.clone(),
        ));
    }
    if let Some(token) = &progress.token {
        report.set(token_valid(token));
        match token {
            Token::Alive(known) | Token::Ended(known) | Token::Abused { token: known, .. } => {
                status.token = Some(known.clone());
            }
            Token::Removed(_) => status.token = None,
            Token::Unknown(_) => {
                if let Some(known) = &progress.known {
                    status.token = Some(known.clone());
                }
            }
        }
    }
    if let Some(found) = &progress.automatic {
        let before = conditions::get(report.conditions(), name(Condition_::CSRApprovalStrict));
        report.set(strict(found.as_deref(), before));
    }
    if let Some(node) = &progress.node {
        for verdict in node_verdicts(node) {
            report.set(verdict);
        }
        if let Node::Waiting {
            report: Some(report), ..
        } = node
        {
            status.last_report = Some(report.clone());
        }
    }
    report.unsupported(config.spec.unsupported_message());
    report.set(ready(report.conditions()));
    status.conditions = report.into_conditions();
    status.observed_generation = generation;
    status
}

/// Of several bindings the API server names any, another one each time: the message stays the `before` of the same reason.
fn strict(found: Option<&str>, before: Option<&Condition>) -> Verdict {
    let type_ = name(Condition_::CSRApprovalStrict);
    let Some(why) = found else {
        return Verdict::yes(type_, Reason::Strict, "");
    };
    if let Some(before) = before.filter(|before| before.reason == Reason::AutoApprovalBound.as_str()) {
        return Verdict::no(type_, Reason::AutoApprovalBound, before.message.clone());
    }
    let why = if why.is_empty() {
        "by a rule that it does not name"
    } else {
        why
    };
    Verdict::no(
        type_,
        Reason::AutoApprovalBound,
        format!(
            "the workload cluster lets kube-controller-manager approve any node name for bootstrap tokens ({why}): delete that \
             ClusterRoleBinding there, or bind it to a narrower group"
        ),
    )
}

/// What is said about data that is near the size that the infrastructure takes, or above it.
fn near_limit(data: Option<&BootstrapDataStatus>) -> Option<String> {
    let (bytes, limit) = (data?.user_data_bytes?, data?.user_data_limit?);
    delivery::is_near(bytes, limit).then(|| {
        format!(
            "the bootstrap data has {bytes} bytes as the infrastructure counts them, and the infrastructure takes at most {limit}, \
             with the exceptions of its preset: move large files into the machine image"
        )
    })
}

fn spec_valid(problems: &[Problem]) -> Verdict {
    let type_ = name(Condition_::SpecValid);
    match problems.first() {
        None => Verdict::yes(type_, Reason::Valid, ""),
        Some(first) => Verdict::no(type_, first.reason, messages(problems)),
    }
}

/// All problems in one message, cut to 4096 characters.
pub fn messages(problems: &[Problem]) -> String {
    let all: Vec<_> = problems.iter().map(|problem| problem.message.as_str()).collect();
    all.join("; ").chars().take(4096).collect()
}

const ABUSED_AND_DELETED: &str = "the token was used for many requests that were denied or for a flood of reports, so it was \
     deleted in the workload cluster: find out who has it, then delete the Machine to replace it";
const ABUSED_AND_KEPT: &str = "the token was used for many requests that were denied or for a flood of reports, and is not \
     deleted yet: the workload cluster refuses that or does not answer, and it is tried again; find out who has the token, then \
     delete the Machine to replace it";

fn token_valid(token: &Token) -> Verdict {
    let type_ = name(Condition_::BootstrapTokenValid);
    match token {
        Token::Alive(_) => Verdict::yes(type_, Reason::TokenValid, ""),
        Token::Ended(_) => Verdict::no(
            type_,
            Reason::MaxLifetime,
            "the machine did not join within spec.auth.token.maxLifetime: delete the Machine to get a new one",
        ),
        Token::Abused { deleted, .. } => Verdict::no(
            type_,
            Reason::TokenAbused,
            if *deleted {
                ABUSED_AND_DELETED
            } else {
                ABUSED_AND_KEPT
            },
        ),
        Token::Removed(why) => Verdict::yes(type_, Reason::TokenRemoved, why.clone()),
        Token::Unknown(problem) => Verdict::unknown(type_, problem.reason, problem.message.clone()),
    }
}

fn node_verdicts(node: &Node) -> Vec<Verdict> {
    let joined = name(Condition_::NodeJoined);
    match node {
        Node::Gone(node) => vec![Verdict::no(
            joined,
            Reason::WaitingForNode,
            format!(
                "Node {node} joined and was deleted since, and its token has been used: delete the Machine to replace it"
            ),
        )],
        Node::Unsettled(problem) => vec![Verdict::unknown(
            name(Condition_::ProviderIDSet),
            problem.reason,
            problem.message.clone(),
        )],
        Node::Waiting { report, held } => {
            let reported = report
                .as_ref()
                .and_then(|report| Some((report.reason.clone()?, report.message.clone()?)));
            vec![match (held, reported) {
                (Some(problem), _) => Verdict::no(joined, problem.reason, problem.message.clone()),
                (None, Some((reason, message))) => Verdict::no(joined, reason, message),
                (None, None) => Verdict::no(
                    joined,
                    Reason::WaitingForNode,
                    "waiting for the machine to boot and to request its certificate",
                ),
            }]
        }
        Node::Joined {
            name: node,
            version,
            provider_id,
        } => {
            let version_match = name(Condition_::KubeletVersionMatch);
            let id = name(Condition_::ProviderIDSet);
            vec![
                Verdict::yes(joined, Reason::NodeJoined, format!("Node {node}")),
                match version {
                    Ok(version) => Verdict::yes(version_match, Reason::KubeletVersionMatch, version.clone()),
                    Err(why) => Verdict::no(version_match, Reason::KubeletVersionMismatch, why.clone()),
                },
                match provider_id {
                    ProviderId::Set => Verdict::yes(id, Reason::ProviderIDSet, ""),
                    ProviderId::NotOurs => Verdict::yes(
                        id,
                        Reason::NotApplicable,
                        "spec.nodeRegistration.providerID.source leaves it to another component",
                    ),
                    ProviderId::Awaited => Verdict::no(
                        id,
                        Reason::WaitingForProviderID,
                        "waiting for the infrastructure provider to set spec.providerID of the Machine",
                    ),
                    ProviderId::Mismatch(other) => Verdict::no(
                        id,
                        Reason::ProviderIDMismatch,
                        format!(
                            "Node {node} has the provider ID {other}, which is not that of the Machine and cannot be changed: delete the Machine to replace it"
                        ),
                    ),
                    ProviderId::Unknown(problem) => {
                        Verdict::unknown(id, problem.reason, problem.message.clone())
                    }
                },
            ]
        }
    }
}

/// Ready: the data exists, and the machine reported no failure.
fn ready(list: &[Condition]) -> Verdict {
    let type_ = name(Condition_::Ready);
    let data = conditions::get(list, name(Condition_::DataSecretAvailable));
    let Some(data) = data.filter(|data| data.status == "True") else {
        return match data {
            Some(data) => Verdict::no(type_, data.reason.clone(), data.message.clone()),
            None => Verdict::no(type_, Reason::NotReady, "not reconciled yet"),
        };
    };
    let joined = conditions::get(list, name(Condition_::NodeJoined));
    let harmless = [Reason::WaitingForNode.as_str(), Reason::NodeExists.as_str()];
    match joined.filter(|joined| joined.status == "False" && !harmless.contains(&joined.reason.as_str())) {
        Some(failed) => Verdict::no(type_, failed.reason.clone(), failed.message.clone()),
        None => Verdict::yes(type_, Reason::Ready, data.message.clone()),
    }
}

/// Decides which condition reports a problem that stopped the reconcile: that of the data until the data exists, or if it
/// was lost; then that of the token; after the join that of what is left to do.
pub fn stopped(config: &KamajiConfig, progress: &mut Progress, problem: Problem) {
    if has_joined(config) {
        progress.node = Some(Node::Unsettled(problem));
    } else if progress.lost || !(is_announced(config) || progress.data.is_some()) {
        progress.no_data = Some(problem);
    } else if !is_abused(config) {
        progress.token = Some(Token::Unknown(problem));
    }
}

/// The status reported that the data exists.
pub fn is_announced(config: &KamajiConfig) -> bool {
    let status = config.status.as_ref();
    status
        .and_then(|status| status.initialization.as_ref())
        .is_some_and(|done| done.data_secret_created == Some(true))
}

/// The machine joined and its token was deleted. It gets no other token, whatever happens to the Node.
pub fn has_joined(config: &KamajiConfig) -> bool {
    let Some(status) = config.status.as_ref().filter(|_| is_announced(config)) else {
        return false;
    };
    let removed = conditions::get(&status.conditions, name(Condition_::BootstrapTokenValid))
        .is_some_and(|token| token.reason == Reason::TokenRemoved.as_str());
    status.token.is_none()
        && (removed || conditions::is_true(&status.conditions, name(Condition_::NodeJoined)))
}

/// Its token was abused. This is final, whatever else happens.
pub fn is_abused(config: &KamajiConfig) -> bool {
    abused(config).is_some()
}

/// The status reported that its abused token was deleted.
pub fn is_abuse_ended(config: &KamajiConfig) -> bool {
    abused(config).is_some_and(|token| token.message == ABUSED_AND_DELETED)
}

fn abused(config: &KamajiConfig) -> Option<&Condition> {
    let status = config.status.as_ref()?;
    let token = conditions::get(&status.conditions, name(Condition_::BootstrapTokenValid))?;
    (token.reason == Reason::TokenAbused.as_str()).then_some(token)
}

/// What is reported of a denial: what was reported before, if that had the same reason. What varies in the message is up to
/// whoever asks.
pub fn denied_again(config: &KamajiConfig, denied: Problem) -> Problem {
    let status = config.status.as_ref();
    let before = status
        .and_then(|status| conditions::get(&status.conditions, name(Condition_::NodeJoined)))
        .filter(|joined| joined.reason == denied.reason.as_str());
    match before {
        Some(before) => Problem {
            message: before.message.clone(),
            ..denied
        },
        None => denied,
    }
}

/// Why the machine's last request was denied, unless the machine reported something since.
pub fn denied_before(config: &KamajiConfig, report: Option<&NodeReport>) -> Option<Problem> {
    const DENIALS: [Reason; 7] = [
        Reason::MalformedRequest,
        Reason::UnknownToken,
        Reason::NameMismatch,
        Reason::MachineNotEligible,
        Reason::NameClaimed,
        Reason::NodeExists,
        Reason::TooMany,
    ];
    let status = config.status.as_ref()?;
    let joined = conditions::get(&status.conditions, name(Condition_::NodeJoined))?;
    let reason = DENIALS
        .into_iter()
        .find(|reason| reason.as_str() == joined.reason)?;
    (report == status.last_report.as_ref()).then(|| Problem::on_change(reason, joined.message.clone()))
}

/// A time in whole seconds, as the API stores it.
pub fn seconds(time: Timestamp) -> Time {
    Time(Timestamp::from_second(time.as_second()).unwrap_or(time))
}

const fn name(condition: Condition_) -> &'static str {
    condition.as_str()
}

#[cfg(test)]
mod tests;
