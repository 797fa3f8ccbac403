//! The peer's nine words for the state of a tenant (hosting specification 1.2), from what is seen now and never from
//! our own previous word. Pure.
//!
//! Against the peer: a tenant that never ran is `Provisioning`, not `NotReady`; `Ready` means that the API answered
//! too (DESIGN 2.3).

use kamaji_api::conditions::Reason;
use kamaji_api::tenantcontrolplane::VersionPhase;

use super::problem::Problem;
use crate::k8s::row::{DeploymentFacts, Facts, Row};

/// What the phase depends on.
#[derive(Clone, Copy, Debug)]
pub struct Sight<'a> {
    /// Replicas asked for.
    pub replicas: i32,
    /// Row of the Deployment.
    pub deployment: Option<&'a Row>,
    /// Version last rolled out in full.
    pub installed: Option<&'a str>,
    /// Version of the Deployment as it stands.
    pub asked: Option<&'a str>,
    /// The API answered and the rights inside are in place.
    pub answered: bool,
}

/// The phase.
pub fn phase(sight: Sight<'_>) -> VersionPhase {
    let first = sight.installed.is_none();
    let down = if first {
        VersionPhase::Provisioning
    } else {
        VersionPhase::NotReady
    };
    if sight.replicas == 0 {
        return VersionPhase::Sleeping;
    }
    let Some(row) = sight.deployment else {
        return down;
    };
    if facts(row).is_none_or(|facts| facts.status.ready_replicas.unwrap_or(0) == 0) {
        return down;
    }
    if complete(row) {
        return if sight.answered { VersionPhase::Ready } else { down };
    }
    match (sight.installed, sight.asked) {
        (None, _) => VersionPhase::Provisioning,
        (Some(installed), Some(asked)) if installed != asked => VersionPhase::Upgrading,
        (Some(_), _) => VersionPhase::Unknown,
    }
}

/// The Deployment's facts.
pub fn facts(row: &Row) -> Option<&DeploymentFacts> {
    match &row.facts {
        Facts::Deployment(facts) => Some(facts),
        _ => None,
    }
}

/// Every pod asked for is of the current template and available, and no other is left.
pub fn complete(row: &Row) -> bool {
    facts(row).is_some_and(|DeploymentFacts { desired, status }| {
        let all = |count: Option<i32>| count.unwrap_or(0) == *desired;
        status.observed_generation == row.generation
            && status.unavailable_replicas.unwrap_or(0) == 0
            && all(status.replicas)
            && all(status.updated_replicas)
            && all(status.ready_replicas)
            && all(status.available_replicas)
    })
}

/// Pods that cannot be created or do not come up, as the Deployment controller tells it.
pub fn rejected(row: &Row) -> Option<Problem> {
    let status = &facts(row)?.status;
    let find = |kind: &str, status_is: &str, reason: Option<&str>| {
        status
            .conditions
            .iter()
            .flatten()
            .find(|c| {
                c.type_ == kind
                    && c.status == status_is
                    && (reason.is_none() || c.reason.as_deref() == reason)
            })
            .map(|c| c.message.clone().unwrap_or_default())
    };
    if let Some(message) = find("ReplicaFailure", "True", None) {
        return Some(Problem::wait(
            Reason::PodsRejected,
            format!("the pods could not be created: {message}"),
        ));
    }
    let message = find("Progressing", "False", Some("ProgressDeadlineExceeded"))?;
    Some(Problem::wait(
        Reason::PodsFailing,
        format!("the pods do not become ready: {message}; see kubectl describe pods of the tenant"),
    ))
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::apps::v1::{Deployment, DeploymentSpec, DeploymentStatus};
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

    use super::*;
    use crate::k8s::child::Child;

    fn row(desired: i32, total: i32, updated: i32, ready: i32) -> Row {
        Deployment {
            metadata: ObjectMeta {
                generation: Some(2),
                ..ObjectMeta::default()
            },
            spec: Some(DeploymentSpec {
                replicas: Some(desired),
                ..DeploymentSpec::default()
            }),
            status: Some(DeploymentStatus {
                observed_generation: Some(2),
                replicas: Some(total),
                updated_replicas: Some(updated),
                ready_replicas: Some(ready),
                available_replicas: Some(ready),
                unavailable_replicas: Some(total - ready).filter(|count| *count > 0),
                ..DeploymentStatus::default()
            }),
        }
        .row()
    }

    #[test]
    fn the_words() {
        let table = [
            // replicas, pods, installed, asked, answered, word
            (1, None, None, false, VersionPhase::Provisioning),
            (1, None, Some("a"), false, VersionPhase::NotReady),
            (0, Some(row(0, 0, 0, 0)), Some("a"), false, VersionPhase::Sleeping),
            (1, Some(row(1, 1, 1, 0)), None, false, VersionPhase::Provisioning),
            (1, Some(row(1, 1, 1, 0)), Some("a"), false, VersionPhase::NotReady),
            (1, Some(row(1, 1, 1, 1)), None, false, VersionPhase::Provisioning),
            (1, Some(row(1, 1, 1, 1)), None, true, VersionPhase::Ready),
            (1, Some(row(1, 1, 1, 1)), Some("a"), false, VersionPhase::NotReady),
            (
                2,
                Some(row(2, 3, 1, 3)),
                Some("old"),
                true,
                VersionPhase::Upgrading,
            ),
            (2, Some(row(2, 3, 1, 3)), Some("a"), true, VersionPhase::Unknown),
            (2, Some(row(2, 2, 2, 1)), None, true, VersionPhase::Provisioning),
        ];
        for (number, (replicas, deployment, installed, answered, word)) in table.into_iter().enumerate() {
            let sight = Sight {
                replicas,
                deployment: deployment.as_ref(),
                installed,
                asked: Some("a"),
                answered,
            };
            assert_eq!(phase(sight), word, "row {number}");
        }
    }
}
