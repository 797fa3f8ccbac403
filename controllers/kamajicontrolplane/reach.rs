//! Whether the published endpoint leads to this control plane, where it is not the address of the tenant's own Service: a
//! name or an address that a user preset, or that an infrastructure provider chose. Nobody else would notice before the
//! first machine that cannot join. Asked once: the answer is in the condition `EndpointReachable`.
//!
//! The question is a request without credentials to an address that an author of Clusters chooses. A condition therefore
//! says who does not answer, and nothing about how a connection fails.

use std::sync::Arc;

use futures::future::BoxFuture;
use kamaji_api::{
    conditions::{KamajiControlPlaneCondition as Own, Reason},
    controlplane::{Endpoint, KamajiControlPlane},
    tenantcontrolplane::TenantControlPlane,
};

use super::{
    endpoint::{self, Choice},
    tenant::{Health, health},
};
use crate::{
    k8s::{
        conditions::{self, Verdict},
        problem::Problem,
    },
    tenant::{Error, endpoint::Answer},
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
    /// Somebody answered, or nobody.
    Asked(Endpoint, Answer),
}

impl Reach {
    /// Another server answers: this control plane cannot be used through the endpoint.
    pub fn problem(&self) -> Option<Problem> {
        let Self::Asked(endpoint, Answer::Another(why)) = self else {
            return None;
        };
        Some(Problem::unwatched(
            Reason::EndpointMismatch,
            format!(
                "another server answers at {}: {why}; let the endpoint lead to the Service of this control plane. Machines \
                 cannot join before",
                endpoint::text(endpoint)
            ),
        ))
    }

    /// It is worth asking again later.
    pub fn is_open(&self) -> bool {
        matches!(self, Self::Asked(_, Answer::Another(_) | Answer::Silence))
    }

    /// The condition; `None` where there is nothing new to report.
    pub fn verdict(&self) -> Option<Verdict> {
        let condition = Own::EndpointReachable.as_str();
        if let Some(problem) = self.problem() {
            return Some(Verdict::no(condition, problem.reason, problem.message));
        }
        match self {
            Self::Asked(endpoint, Answer::Ours) => {
                Some(Verdict::yes(condition, Reason::Reachable, answered(endpoint)))
            }
            Self::Asked(endpoint, Answer::Silence) => Some(Verdict::unknown(
                condition,
                Reason::EndpointNotAnswering,
                format!(
                    "nobody answers at {} when the management cluster asks; if the machines reach it, all is well",
                    endpoint::text(endpoint)
                ),
            )),
            Self::Asked(_, Answer::Another(_)) | Self::NotAsked | Self::OwnService => None,
        }
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
        report.set(Reach::Asked(at("a").endpoint, Answer::Ours).verdict().unwrap());
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
    fn only_another_server_is_a_problem() {
        let asked = |answer| Reach::Asked(at("api.example.org").endpoint, answer);
        let verdict = |reach: &Reach| {
            let verdict = reach.verdict().unwrap();
            (verdict.status, verdict.reason)
        };
        let other = asked(Answer::Another("its certificate is of another CA".to_owned()));
        assert!(
            other
                .problem()
                .unwrap()
                .message
                .contains("at api.example.org:6443: its certificate is of another CA;")
        );
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
        assert!(silent.is_open() && other.is_open() && !asked(Answer::Ours).is_open());
        assert_eq!(
            Reach::NotAsked.verdict().is_none(),
            Reach::OwnService.verdict().is_none()
        );
    }
}
