//! Whether the published endpoint leads to this control plane, where it is not the address of the tenant's own Service: a
//! name or an address that a user preset, or that an infrastructure provider chose. Nobody else would notice before the
//! first machine that cannot join. It is asked until this control plane answers there, and then no more: the answer is in
//! the condition `EndpointReachable`.
//!
//! The question is a request without credentials to an address that an author of Clusters chooses, so it is asked seldom,
//! and a condition tells nothing about a server that is not this control plane's.

use std::{
    collections::HashMap,
    sync::Arc,
    time::{Duration, Instant},
};

use futures::future::BoxFuture;
use kamaji_api::{
    conditions::{KamajiControlPlaneCondition as Own, Reason},
    controlplane::{Endpoint, KamajiControlPlane},
    tenantcontrolplane::TenantControlPlane,
};
use parking_lot::Mutex;

use super::{
    endpoint::{self, Choice},
    tenant::{Health, health},
};
use crate::{
    k8s::{
        conditions::{self, Verdict},
        key::RootKey,
        problem::Problem,
        report::Known,
    },
    tenant::{Error, who_answers::Answer},
};

/// Asks who answers at a URL: the URL, and the CA that has to have signed the certificate.
pub type Ask = Arc<dyn Fn(String, String) -> BoxFuture<'static, Result<Answer, Error>> + Send + Sync>;

/// What is known about the endpoint.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Reach {
    /// Nothing new: what was reported before stays.
    #[default]
    NotAsked,
    /// The endpoint is the address of the tenant's Service, which the engine asks.
    OwnService,
    /// Somebody answered, or nobody, and when it is asked again: never, if this control plane answered.
    Asked(Endpoint, Answer, Option<Duration>),
}

impl Reach {
    /// An answer that just came.
    pub fn asked(endpoint: Endpoint, answer: Answer) -> Self {
        let again = pause(&answer);
        Self::Asked(endpoint, answer, again)
    }

    /// This control plane cannot be used through the endpoint.
    pub fn problem(&self) -> Option<Problem> {
        let Self::Asked(endpoint, answer, _) = self else {
            return None;
        };
        let at = endpoint::text(endpoint);
        let message = match answer {
            Answer::Ours | Answer::Silence => return None,
            Answer::OtherNames => format!(
                "the certificate of this control plane is not for {at}, where it answers; add the host to \
                 spec.network.certSANs"
            ),
            Answer::Another => format!(
                "another server answers at {at}; let the endpoint lead to the Service of this control plane. Machines \
                 cannot join before"
            ),
        };
        Some(Problem::unwatched(Reason::EndpointMismatch, message))
    }

    /// When it is worth asking again; `None` where nothing is open.
    pub fn again(&self) -> Option<Duration> {
        match self {
            Self::Asked(_, _, again) => *again,
            Self::NotAsked | Self::OwnService => None,
        }
    }

    /// The condition; `None` where there is nothing new to report.
    pub fn verdict(&self) -> Option<Verdict> {
        let condition = Own::EndpointReachable.as_str();
        if let Some(problem) = self.problem() {
            return Some(Verdict::no(condition, problem.reason, problem.message));
        }
        match self {
            Self::Asked(endpoint, Answer::Ours, _) => {
                Some(Verdict::yes(condition, Reason::Reachable, answered(endpoint)))
            }
            Self::Asked(endpoint, Answer::Silence, _) => Some(Verdict::unknown(
                condition,
                Reason::EndpointNotAnswering,
                format!(
                    "nobody answers at {} when the management cluster asks; if the machines reach it, all is well",
                    endpoint::text(endpoint)
                ),
            )),
            Self::Asked(_, Answer::Another | Answer::OtherNames, _) | Self::NotAsked | Self::OwnService => {
                None
            }
        }
    }
}

/// How long an endpoint is not asked again, whatever wakes the control plane. Where nobody answers the management cluster,
/// that may be as it should be.
fn pause(answer: &Answer) -> Option<Duration> {
    match answer {
        Answer::Ours => None,
        Answer::Another | Answer::OtherNames => Some(Duration::from_mins(1)),
        Answer::Silence => Some(Duration::from_mins(30)),
    }
}

/// The last answers that were not this control plane's, in memory.
#[derive(Default)]
pub struct Answers(Mutex<HashMap<RootKey, (Endpoint, Answer, Instant)>>);

impl Answers {
    /// The answer for this endpoint, while it is not asked again, and for how long.
    pub fn recent(&self, key: &RootKey, endpoint: &Endpoint, now: Instant) -> Option<Reach> {
        let known = self.0.lock();
        let (_, answer, at) = known.get(key).filter(|(asked, ..)| asked == endpoint)?;
        let left = pause(answer)?.checked_sub(now.duration_since(*at))?;
        Some(Reach::Asked(endpoint.clone(), answer.clone(), Some(left)))
    }

    /// Remembers an answer.
    pub fn keep(&self, key: &RootKey, endpoint: &Endpoint, answer: &Answer, now: Instant) {
        let entry = (endpoint.clone(), answer.clone(), now);
        self.0.lock().insert(key.clone(), entry);
    }

    /// The control plane is gone.
    pub fn forget(&self, key: &RootKey) {
        self.0.lock().remove(key);
    }
}

/// What to find out.
#[derive(Debug, PartialEq, Eq)]
pub enum Question {
    /// Nothing: the endpoint is the Service's own.
    OwnService,
    /// Nothing now: it was asked before, or nobody can answer yet.
    None,
    /// Who answers there.
    WhoAnswers(Endpoint),
}

/// Decides what to find out about the endpoint `choice`.
pub fn question(
    control_plane: &KamajiControlPlane,
    tenant: Option<&TenantControlPlane>,
    choice: Option<&Choice>,
) -> Question {
    let (Some(tenant), Some(choice)) = (tenant, choice) else {
        return Question::None;
    };
    let Some(reported) = endpoint::reported(tenant) else {
        return Question::None;
    };
    if reported == choice.endpoint {
        return Question::OwnService;
    }
    if health(tenant) != Health::Up || has_answered(control_plane, &choice.endpoint) {
        return Question::None;
    }
    Question::WhoAnswers(choice.endpoint.clone())
}

/// Nothing is known against the endpoint.
///
/// # Errors
/// Another server answers, or did when it was asked last; `None` while nobody was asked yet.
pub fn fits(
    control_plane: &KamajiControlPlane,
    tenant: Option<&TenantControlPlane>,
    choice: Option<&Choice>,
    reach: &Reach,
) -> Known {
    match reach {
        Reach::OwnService => Ok(()),
        Reach::Asked(..) => reach.problem().map_or(Ok(()), |problem| Err(Some(problem))),
        Reach::NotAsked => match (question(control_plane, tenant, choice), reported(control_plane)) {
            (Question::OwnService, _) | (Question::None, None) => Ok(()),
            (Question::WhoAnswers(_) | Question::None, problem) => Err(problem),
        },
    }
}

/// The problem that the condition reports.
fn reported(control_plane: &KamajiControlPlane) -> Option<Problem> {
    let conditions = &control_plane.status.as_ref()?.conditions;
    let known = conditions::get(conditions, Own::EndpointReachable.as_str())?;
    (known.status == "False").then(|| Problem::unwatched(Reason::EndpointMismatch, known.message.clone()))
}

/// The condition says that this control plane answered at this endpoint.
fn has_answered(control_plane: &KamajiControlPlane, endpoint: &Endpoint) -> bool {
    let status = control_plane.status.as_ref();
    let known =
        status.and_then(|status| conditions::get(&status.conditions, Own::EndpointReachable.as_str()));
    known.is_some_and(|known| known.status == "True" && known.message == answered(endpoint))
}

fn answered(endpoint: &Endpoint) -> String {
    format!("this control plane answers at {}", endpoint::text(endpoint))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kamajicontrolplane::example;

    fn at(host: &str) -> Choice {
        Choice {
            endpoint: Endpoint {
                host: host.to_owned(),
                port: 6443,
            },
            origin: endpoint::Origin::Preset,
            write: false,
            drift: None,
            moved: None,
        }
    }

    #[test]
    fn an_endpoint_that_is_not_the_services_own_is_asked_once() {
        let mut control_plane = example::control_plane();
        let tenant = example::running("v1.36.3");
        let own = endpoint::reported(&tenant).unwrap();
        let ask = |control_plane: &KamajiControlPlane, choice: &Choice| {
            question(control_plane, Some(&tenant), Some(choice))
        };
        assert_eq!(question(&control_plane, None, Some(&at("a"))), Question::None);
        let same = Choice {
            endpoint: own,
            ..at("a")
        };
        assert_eq!(ask(&control_plane, &same), Question::OwnService);
        assert_eq!(
            ask(&control_plane, &at("a")),
            Question::WhoAnswers(at("a").endpoint)
        );
        let mut report =
            crate::k8s::report::Report::new(Vec::new(), None, k8s_openapi::jiff::Timestamp::UNIX_EPOCH);
        report.set(Reach::asked(at("a").endpoint, Answer::Ours).verdict().unwrap());
        control_plane.status.get_or_insert_default().conditions = report.into_conditions();
        assert_eq!(ask(&control_plane, &at("a")), Question::None);
        assert_eq!(
            ask(&control_plane, &at("b")),
            Question::WhoAnswers(at("b").endpoint)
        );
        let mut down = tenant.clone();
        example::report(
            &mut down,
            kamaji_api::conditions::TenantControlPlaneCondition::Available,
            "False",
            "NotAvailable",
            "no answer",
        );
        assert_eq!(
            question(&control_plane, Some(&down), Some(&at("b"))),
            Question::None
        );
    }

    #[test]
    fn an_answer_is_kept_for_a_while_whatever_wakes_the_control_plane() {
        let (answers, key, start) = (Answers::default(), RootKey::new("demo", "alpha"), Instant::now());
        let (a, b) = (at("a").endpoint, at("b").endpoint);
        answers.keep(&key, &a, &Answer::Silence, start);
        let after = |minutes| start + Duration::from_mins(minutes);
        let left = answers.recent(&key, &a, after(10));
        let minutes = Duration::from_mins(20);
        assert_eq!(
            left,
            Some(Reach::Asked(a.clone(), Answer::Silence, Some(minutes)))
        );
        assert_eq!(answers.recent(&key, &b, after(10)), None, "another endpoint");
        assert_eq!(answers.recent(&key, &a, after(31)), None);
        answers.keep(&key, &a, &Answer::Another, start);
        assert_eq!(answers.recent(&key, &a, after(2)), None);
        answers.forget(&key);
        assert_eq!(answers.recent(&key, &a, start), None);
    }

    #[test]
    fn only_another_server_is_a_problem() {
        let asked = |answer| Reach::asked(at("api.example.org").endpoint, answer);
        let verdict = |reach: &Reach| {
            let verdict = reach.verdict().unwrap();
            (verdict.status, verdict.reason)
        };
        let other = asked(Answer::Another);
        let message = other.problem().unwrap().message;
        assert!(
            message.starts_with("another server answers at api.example.org:6443;"),
            "{message}"
        );
        let names = asked(Answer::OtherNames).problem().unwrap().message;
        assert!(names.contains("spec.network.certSANs"), "{names}");
        assert_eq!(
            verdict(&other),
            (conditions::Status::False, "EndpointMismatch".to_owned())
        );
        let silent = asked(Answer::Silence);
        assert_eq!(silent.problem(), None);
        assert_eq!(
            verdict(&silent),
            (conditions::Status::Unknown, "EndpointNotAnswering".to_owned())
        );
        assert!(silent.again() > other.again() && other.again().is_some());
        assert_eq!(asked(Answer::Ours).again(), None);
        assert_eq!(
            Reach::NotAsked.verdict().is_none(),
            Reach::OwnService.verdict().is_none()
        );
    }
}
