//! Computes `status.kubernetesResources.version.status`, the nine phases of upstream Kamaji, from what is observed
//! now and never from the previous phase. Pure.
//!
//! Two phases differ from upstream Kamaji: a tenant that never ran is `Provisioning` instead of `NotReady`, and `Ready`
//! requires that the API server answered.

use kamaji_api::{conditions::Reason, tenantcontrolplane::VersionPhase};

use crate::k8s::{
    problem::Problem,
    row::{DeploymentFacts, Facts, Row},
};

/// What the phase depends on.
#[derive(Clone, Copy, Debug)]
pub struct Inputs<'a> {
    /// Replicas in the spec.
    pub replicas: i32,
    /// Row of the Deployment.
    pub deployment: Option<&'a Row>,
    /// Version of the last complete rollout.
    pub installed: Option<&'a str>,
    /// Version that the Deployment was rendered for.
    pub rendered: Option<&'a str>,
    /// The API server answered, and the RBAC rules in the workload cluster are in place.
    pub answered: bool,
}

/// The phase.
pub fn phase(inputs: Inputs<'_>) -> VersionPhase {
    let Inputs {
        replicas,
        deployment,
        installed,
        rendered,
        answered,
    } = inputs;
    let down = if installed.is_none() {
        VersionPhase::Provisioning
    } else {
        VersionPhase::NotReady
    };
    if replicas == 0 {
        return VersionPhase::Sleeping;
    }
    let Some(row) = deployment else {
        return down;
    };
    if !is_serving(row) {
        return down;
    }
    if complete(row) {
        return if answered { VersionPhase::Ready } else { down };
    }
    match (installed, rendered) {
        (None, _) => VersionPhase::Provisioning,
        (Some(installed), Some(rendered)) if installed != rendered => VersionPhase::Upgrading,
        (Some(_), _) => VersionPhase::Unknown,
    }
}

/// The facts of a Deployment.
pub fn facts(row: &Row) -> Option<&DeploymentFacts> {
    match &row.facts {
        Facts::Deployment(facts) => Some(facts),
        _ => None,
    }
}

/// At least one pod is ready.
pub fn is_serving(row: &Row) -> bool {
    facts(row).is_some_and(|facts| facts.status.ready_replicas.unwrap_or(0) > 0)
}

/// Every desired pod is of the current template and available, and no other pod is left.
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

/// Checks that pods can be created and become ready, by the conditions of the Deployment.
///
/// # Errors
/// `PodsRejected` or `PodsFailing`.
pub fn check_pods(row: &Row) -> Result<(), Problem> {
    let conditions = facts(row).and_then(|facts| facts.status.conditions.as_ref());
    let find = |type_: &str, status: &str, reason: Option<&str>| {
        conditions
            .into_iter()
            .flatten()
            .find(|c| {
                c.type_ == type_ && c.status == status && (reason.is_none() || c.reason.as_deref() == reason)
            })
            .map(|c| c.message.clone().unwrap_or_default())
    };
    if let Some(message) = find("ReplicaFailure", "True", None) {
        return Err(Problem::on_change(
            Reason::PodsRejected,
            format!("the pods could not be created: {message}"),
        ));
    }
    if let Some(message) = find("Progressing", "False", Some("ProgressDeadlineExceeded")) {
        return Err(Problem::on_change(
            Reason::PodsFailing,
            format!("the pods do not become ready: {message}; see kubectl describe pods of the tenant"),
        ));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use k8s_openapi::{
        api::apps::v1::{Deployment, DeploymentSpec, DeploymentStatus},
        apimachinery::pkg::apis::meta::v1::ObjectMeta,
    };

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
    fn the_phase_follows_from_replicas_pods_versions_and_the_answer() {
        let table = [
            // replicas, pods, installed, answered, phase
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
        for (number, (replicas, deployment, installed, answered, expected)) in table.into_iter().enumerate() {
            let inputs = Inputs {
                replicas,
                deployment: deployment.as_ref(),
                installed,
                rendered: Some("a"),
                answered,
            };
            assert_eq!(phase(inputs), expected, "row {number}");
        }
    }
}
