//! The status of a KamajiConfig from what one pass came to (bootstrap.md 3.2, contract.md 3.1). Pure.

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

use super::{preconditions::Gate, validate::Problem};
use crate::k8s::conditions::{self, Verdict};

/// What one pass came to. What it did not look at keeps its condition.
#[derive(Clone, Debug, Default)]
pub struct Progress {
    /// Why nothing was done.
    pub paused: Option<String>,
    /// Breaches of the spec; `None` when it was not looked at.
    pub problems: Option<Vec<Problem>>,
    /// Why there is no data.
    pub gate: Option<Gate>,
    /// The tenant's CA, or what is wrong with it.
    pub authority: Option<Result<(), Gate>>,
    /// The data, once written.
    pub data: Option<Data>,
    /// The token.
    pub token: Option<Token>,
    /// The token as it was made or found, whatever became of the rest of the pass.
    pub known: Option<TokenStatus>,
    /// The data was announced and its Secret is gone or somebody else's.
    pub lost: bool,
    /// Bindings in the tenant that approve automatically.
    pub automatic: Option<Vec<String>>,
    /// The node.
    pub node: Option<Node>,
}

/// The data as it was written or found.
#[derive(Clone, Debug)]
pub struct Data {
    /// Name of its Secret.
    pub name: String,
    /// Figures, where it was written or read in this pass.
    pub figures: Option<BootstrapDataStatus>,
}

/// The token.
#[derive(Clone, Debug, PartialEq)]
pub enum Token {
    /// It lives in the tenant.
    Alive(TokenStatus),
    /// It is extended no more.
    Ended(TokenStatus),
    /// It is not needed any more.
    Removed(String),
    /// The tenant could not be asked.
    Unknown(Gate),
}

/// The node.
#[derive(Clone, Debug, PartialEq)]
pub enum Node {
    /// Not there yet, with its last report and what holds a request up.
    Waiting {
        /// What the machine said.
        report: Option<NodeReport>,
        /// What a certificate request waits for, or why the last one was denied.
        held: Option<Gate>,
    },
    /// It joined and is not there any more.
    Gone(String),
    /// It joined, and the rest could not be settled.
    Unsettled(Gate),
    /// It registered.
    Joined {
        /// Its name.
        name: String,
        /// Its version is not the Machine's.
        version: Result<String, String>,
        /// Its provider id.
        provider_id: ProviderId,
    },
}

/// The provider id of the node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ProviderId {
    /// It is the Machine's.
    Set,
    /// It is somebody else's to write.
    NotOurs,
    /// The Machine has none yet.
    Awaited,
    /// The node has another one.
    Mismatch(String),
    /// It could not be written.
    Unknown(Gate),
}

/// The status after the pass.
pub fn status(config: &KamajiConfig, progress: &Progress, now: Timestamp) -> KamajiConfigStatus {
    let mut status = config.status.clone().unwrap_or_default();
    let generation = config.metadata.generation;
    let mut list = std::mem::take(&mut status.conditions);
    let mut set = |verdict: Verdict| conditions::set(&mut list, verdict, generation, now);
    if let Some(why) = &progress.paused {
        set(Verdict::yes(
            name(Condition_::Paused),
            Reason::Paused,
            why.clone(),
        ));
        status.conditions = list;
        return status;
    }
    set(Verdict::no(name(Condition_::Paused), Reason::NotPaused, ""));
    if let Some(problems) = &progress.problems {
        set(spec_valid(problems));
    }
    if let Some(authority) = &progress.authority {
        let type_ = name(Condition_::CertificatesAvailable);
        set(match authority {
            Ok(()) => Verdict::yes(type_, Reason::CertificatesAvailable, ""),
            Err(gate) => Verdict::no(type_, gate.reason, gate.message.clone()),
        });
    }
    if let Some(data) = &progress.data {
        status.initialization = Some(ConfigInitialization {
            data_secret_created: Some(true),
        });
        status.data_secret_name = Some(data.name.clone());
        if data.figures.is_some() {
            status.bootstrap_data.clone_from(&data.figures);
        }
        set(Verdict::yes(
            name(Condition_::DataSecretAvailable),
            Reason::DataSecretAvailable,
            "",
        ));
    } else if let Some(gate) = &progress.gate {
        set(Verdict::no(
            name(Condition_::DataSecretAvailable),
            gate.reason,
            gate.message.clone(),
        ));
    }
    if let Some(token) = &progress.token {
        set(token_valid(token));
        match token {
            Token::Alive(known) | Token::Ended(known) => status.token = Some(known.clone()),
            Token::Removed(_) => status.token = None,
            Token::Unknown(_) => {
                if let Some(known) = &progress.known {
                    status.token = Some(known.clone());
                }
            }
        }
    }
    if let Some(found) = &progress.automatic {
        set(strict(found));
    }
    if let Some(node) = &progress.node {
        for verdict in node_verdicts(node) {
            set(verdict);
        }
        if let Node::Waiting {
            report: Some(report), ..
        } = node
        {
            status.last_report = Some(report.clone());
        }
    }
    match config.spec.unsupported_message() {
        Some(message) => conditions::set(
            &mut list,
            Verdict::yes(
                name(Condition_::FieldNotSupported),
                Reason::FieldNotSupported,
                message,
            ),
            generation,
            now,
        ),
        None => conditions::remove(&mut list, name(Condition_::FieldNotSupported)),
    }
    let ready = ready(&list);
    conditions::set(&mut list, ready, generation, now);
    status.conditions = list;
    status.observed_generation = generation;
    status
}

fn strict(found: &[String]) -> Verdict {
    let type_ = name(Condition_::CSRApprovalStrict);
    if found.is_empty() {
        return Verdict::yes(type_, Reason::Strict, "");
    }
    Verdict::no(
        type_,
        Reason::AutoApprovalBound,
        format!(
            "ClusterRoleBinding {} in the tenant lets kube-controller-manager approve any node name for bootstrap \
             tokens: delete it, or bind it to a narrower group",
            found.join(", ")
        ),
    )
}

fn spec_valid(problems: &[Problem]) -> Verdict {
    let type_ = name(Condition_::SpecValid);
    match problems.first() {
        None => Verdict::yes(type_, Reason::Valid, ""),
        Some(first) => Verdict::no(type_, first.reason, messages(problems)),
    }
}

/// All breaches in one message, as far as there is room.
pub fn messages(problems: &[Problem]) -> String {
    let all: Vec<_> = problems.iter().map(|problem| problem.message.as_str()).collect();
    all.join("; ").chars().take(4096).collect()
}

fn token_valid(token: &Token) -> Verdict {
    let type_ = name(Condition_::BootstrapTokenValid);
    match token {
        Token::Alive(_) => Verdict::yes(type_, Reason::TokenValid, ""),
        Token::Ended(_) => Verdict::no(
            type_,
            Reason::MaxLifetime,
            "the machine did not join within auth.token.maxLifetime: delete the Machine to get a new one",
        ),
        Token::Removed(why) => Verdict::yes(type_, Reason::TokenRemoved, why.clone()),
        Token::Unknown(gate) => Verdict::unknown(type_, gate.reason, gate.message.clone()),
    }
}

fn node_verdicts(node: &Node) -> Vec<Verdict> {
    let joined = name(Condition_::NodeJoined);
    match node {
        Node::Gone(node) => vec![Verdict::no(
            joined,
            Reason::WaitingForNode,
            format!(
                "Node {node} joined and is gone from the tenant: its token is spent, delete the Machine to replace it"
            ),
        )],
        Node::Unsettled(gate) => vec![Verdict::unknown(
            name(Condition_::ProviderIDSet),
            gate.reason,
            gate.message.clone(),
        )],
        Node::Waiting { report, held } => {
            let reported = report
                .as_ref()
                .and_then(|report| Some((report.reason.clone()?, report.message.clone()?)));
            vec![match (held, reported) {
                (Some(gate), _) => Verdict::no(joined, gate.reason, gate.message.clone()),
                (None, Some((reason, message))) => Verdict::no(joined, reason, message),
                (None, None) => Verdict::no(
                    joined,
                    Reason::WaitingForNode,
                    "waiting for the machine to boot and to ask for its certificate",
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
                        "spec.providerID.source leaves it to others",
                    ),
                    ProviderId::Awaited => Verdict::no(
                        id,
                        Reason::WaitingForProviderID,
                        "waiting for the infrastructure to give the Machine its provider id",
                    ),
                    ProviderId::Mismatch(other) => Verdict::no(
                        id,
                        Reason::ProviderIDMismatch,
                        format!(
                            "Node {node} has the provider id {other}, which is not the Machine's, and keeps it"
                        ),
                    ),
                    ProviderId::Unknown(gate) => Verdict::unknown(id, gate.reason, gate.message.clone()),
                },
            ]
        }
    }
}

/// Data is there, and the machine did not report a failure.
fn ready(list: &[Condition]) -> Verdict {
    let type_ = name(Condition_::Ready);
    let data = conditions::get(list, name(Condition_::DataSecretAvailable));
    let Some(data) = data.filter(|data| data.status == "True") else {
        return match data {
            Some(data) => Verdict::no(type_, data.reason.clone(), data.message.clone()),
            None => Verdict::no(type_, Reason::NotReady, "the spec was not looked at yet"),
        };
    };
    let joined = conditions::get(list, name(Condition_::NodeJoined));
    let harmless = [Reason::WaitingForNode.as_str(), Reason::NodeExists.as_str()];
    match joined.filter(|joined| joined.status == "False" && !harmless.contains(&joined.reason.as_str())) {
        Some(failed) => Verdict::no(type_, failed.reason.clone(), failed.message.clone()),
        None => Verdict::yes(type_, Reason::Ready, data.message.clone()),
    }
}

/// Where a gate that ended the pass is said: it holds the data up while that is not announced, or lost; then the
/// token; and after the join only what is still to be settled.
pub fn close(config: &KamajiConfig, progress: &mut Progress, gate: Gate) {
    if joined_once(config) {
        progress.node = Some(Node::Unsettled(gate));
    } else if progress.lost || !(announced(config) || progress.data.is_some()) {
        progress.gate = Some(gate);
    } else {
        progress.token = Some(Token::Unknown(gate));
    }
}

/// The data was announced.
pub fn announced(config: &KamajiConfig) -> bool {
    let status = config.status.as_ref();
    status
        .and_then(|status| status.initialization.as_ref())
        .is_some_and(|done| done.data_secret_created == Some(true))
}

/// The machine joined and its token was ended: it is never made again, whatever happens to the node.
pub fn joined_once(config: &KamajiConfig) -> bool {
    let Some(status) = config.status.as_ref().filter(|_| announced(config)) else {
        return false;
    };
    let removed = conditions::get(&status.conditions, name(Condition_::BootstrapTokenValid))
        .is_some_and(|token| token.reason == Reason::TokenRemoved.as_str());
    status.token.is_none()
        && (removed || conditions::is_true(&status.conditions, name(Condition_::NodeJoined)))
}

/// Why the machine's last request was denied, as long as it said nothing new since.
pub fn denied_before(config: &KamajiConfig, report: Option<&NodeReport>) -> Option<Gate> {
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
    (report == status.last_report.as_ref()).then(|| Gate::closed(reason, joined.message.clone()))
}

/// A time as the API keeps it: whole seconds.
pub fn seconds(time: Timestamp) -> Time {
    Time(Timestamp::from_second(time.as_second()).unwrap_or(time))
}

const fn name(condition: Condition_) -> &'static str {
    condition.as_str()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    fn reason<'a>(status: &'a KamajiConfigStatus, type_: &str) -> (&'a str, &'a str) {
        let found = conditions::get(&status.conditions, type_).unwrap();
        (found.status.as_str(), found.reason.as_str())
    }

    fn data() -> Data {
        Data {
            name: "m".to_owned(),
            figures: None,
        }
    }

    #[test]
    fn contract_41_name_and_created_come_together() {
        let progress = Progress {
            gate: Some(Gate::closed(Reason::WaitingForInfrastructure, "w")),
            ..Progress::default()
        };
        let waiting = status(&KamajiConfig::default(), &progress, at(1));
        assert!(waiting.data_secret_name.is_none() && waiting.initialization.is_none());
        assert_eq!(reason(&waiting, "Ready"), ("False", "WaitingForInfrastructure"));
        let progress = Progress {
            data: Some(data()),
            ..Progress::default()
        };
        let done = status(&KamajiConfig::default(), &progress, at(1));
        assert_eq!(done.data_secret_name.as_deref(), Some("m"));
        assert_eq!(done.initialization.unwrap().data_secret_created, Some(true));
    }

    #[test]
    fn bootstrap_52_a_reported_failure_makes_the_config_not_ready_and_waiting_does_not() {
        let mut progress = Progress {
            data: Some(data()),
            node: Some(Node::Waiting {
                report: None,
                held: None,
            }),
            ..Progress::default()
        };
        let waiting = status(&KamajiConfig::default(), &progress, at(1));
        assert_eq!(reason(&waiting, "NodeJoined"), ("False", "WaitingForNode"));
        assert_eq!(reason(&waiting, "Ready"), ("True", "Ready"));
        progress.node = Some(Node::Waiting {
            report: Some(NodeReport {
                reason: Some("PreJoinFailed".to_owned()),
                message: Some("command 0000 exited with 3".to_owned()),
                ..NodeReport::default()
            }),
            held: None,
        });
        let failed = status(&KamajiConfig::default(), &progress, at(1));
        assert_eq!(reason(&failed, "NodeJoined"), ("False", "PreJoinFailed"));
        assert_eq!(reason(&failed, "Ready"), ("False", "PreJoinFailed"));
    }

    #[test]
    fn after_the_join_everything_is_true_and_the_token_is_shown_no_more() {
        let mut config = KamajiConfig {
            status: Some(KamajiConfigStatus {
                token: Some(TokenStatus {
                    id: Some("abc123".to_owned()),
                    ..TokenStatus::default()
                }),
                ..KamajiConfigStatus::default()
            }),
            ..KamajiConfig::default()
        };
        let progress = Progress {
            problems: Some(Vec::new()),
            authority: Some(Ok(())),
            data: Some(data()),
            token: Some(Token::Removed("Node m joined".to_owned())),
            automatic: Some(Vec::new()),
            node: Some(Node::Joined {
                name: "m".to_owned(),
                version: Ok("v1.36.3".to_owned()),
                provider_id: ProviderId::Set,
            }),
            ..Progress::default()
        };
        let done = status(&config, &progress, at(1));
        assert!(done.token.is_none());
        for condition in &done.conditions {
            let wanted = if kamaji_api::conditions::is_negative(&condition.type_) {
                "False"
            } else {
                "True"
            };
            assert_eq!(condition.status, wanted, "{}", condition.type_);
        }
        config.status = Some(done.clone());
        assert_eq!(
            status(&config, &progress, at(99)),
            done,
            "a second pass changes nothing"
        );
    }

    fn waits(config: &KamajiConfig, gate: &Gate) -> KamajiConfigStatus {
        let mut progress = Progress::default();
        close(config, &mut progress, gate.clone());
        status(config, &progress, at(1))
    }

    fn told(progress: &Progress) -> KamajiConfig {
        KamajiConfig {
            status: Some(status(&KamajiConfig::default(), progress, at(1))),
            ..KamajiConfig::default()
        }
    }

    #[test]
    fn a_wait_is_said_where_it_is_felt() {
        let gate = Gate::closed(Reason::TenantUnreachable, "no answer");
        let new = waits(&KamajiConfig::default(), &gate);
        assert_eq!(
            reason(&new, "DataSecretAvailable"),
            ("False", "TenantUnreachable")
        );
        assert_eq!(reason(&new, "Ready"), ("False", "TenantUnreachable"));

        let known = TokenStatus {
            id: Some("abc123".to_owned()),
            ..TokenStatus::default()
        };
        let waiting = told(&Progress {
            data: Some(data()),
            token: Some(Token::Alive(known.clone())),
            ..Progress::default()
        });
        let stuck = waits(&waiting, &gate);
        assert_eq!(
            reason(&stuck, "BootstrapTokenValid"),
            ("Unknown", "TenantUnreachable")
        );
        assert_eq!(reason(&stuck, "DataSecretAvailable").0, "True");
        assert_eq!(stuck.token, Some(known.clone()));

        let mut progress = Progress {
            lost: true,
            ..Progress::default()
        };
        close(&waiting, &mut progress, gate.clone());
        let lost = status(&waiting, &progress, at(2));
        assert_eq!(
            reason(&lost, "DataSecretAvailable"),
            ("False", "TenantUnreachable")
        );
        assert_eq!(lost.data_secret_name.as_deref(), Some("m"), "announced for good");

        let mut progress = Progress {
            data: Some(data()),
            known: Some(known.clone()),
            ..Progress::default()
        };
        close(&KamajiConfig::default(), &mut progress, gate);
        let first = status(&KamajiConfig::default(), &progress, at(1));
        assert_eq!(reason(&first, "BootstrapTokenValid").0, "Unknown");
        assert_eq!(first.token, Some(known), "the age of the token is kept");
    }

    #[test]
    fn a_spent_token_stays_spent() {
        let config = told(&Progress {
            data: Some(data()),
            token: Some(Token::Removed("Node m joined".to_owned())),
            node: Some(Node::Joined {
                name: "m".to_owned(),
                version: Ok("v1.36.3".to_owned()),
                provider_id: ProviderId::Awaited,
            }),
            ..Progress::default()
        });
        assert!(joined_once(&config) && !joined_once(&KamajiConfig::default()));
        let stuck = waits(&config, &Gate::closed(Reason::TenantUnreachable, "no answer"));
        assert_eq!(reason(&stuck, "ProviderIDSet"), ("Unknown", "TenantUnreachable"));
        assert_eq!(reason(&stuck, "BootstrapTokenValid"), ("True", "TokenRemoved"));
        let progress = Progress {
            node: Some(Node::Gone("m".to_owned())),
            ..Progress::default()
        };
        let gone = KamajiConfig {
            status: Some(status(&config, &progress, at(2))),
            ..KamajiConfig::default()
        };
        assert!(joined_once(&gone), "also when its Node is gone");
    }

    #[test]
    fn a_denial_is_said_until_the_machine_says_something_new() {
        let config = told(&Progress {
            data: Some(data()),
            node: Some(Node::Waiting {
                report: None,
                held: Some(Gate::closed(Reason::NameMismatch, "the token is for m")),
            }),
            ..Progress::default()
        });
        let before = config.status.clone().unwrap();
        assert_eq!(reason(&before, "Ready"), ("False", "NameMismatch"));
        let again = denied_before(&config, None).unwrap();
        assert_eq!(
            (again.reason, again.message.as_str()),
            (Reason::NameMismatch, "the token is for m")
        );
        assert_eq!(denied_before(&config, Some(&NodeReport::default())), None);
        assert_eq!(denied_before(&KamajiConfig::default(), None), None);
    }

    #[test]
    fn a_pause_says_so_and_touches_nothing_else() {
        let progress = Progress {
            paused: Some("annotation".to_owned()),
            ..Progress::default()
        };
        let paused = status(&KamajiConfig::default(), &progress, at(1));
        assert_eq!(reason(&paused, "Paused"), ("True", "Paused"));
        assert_eq!(paused.conditions.len(), 1);
    }
}
