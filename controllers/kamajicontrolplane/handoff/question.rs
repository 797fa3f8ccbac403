//! Whether the infrastructure object of a Cluster has to be asked now. Pure; the time is an argument.

use std::time::{Duration, Instant};

use kamaji_api::{
    conditions::{KamajiControlPlaneCondition as Own, Reason},
    controlplane::{Endpoint, KamajiControlPlane},
};

use super::{
    Handoff,
    memory::{Asked, Known},
};
use crate::{
    capi::{
        cluster::{Cluster, Reference},
        infrastructure::text,
    },
    k8s::{conditions, problem::Problem},
};

/// Messages about a Cluster that had nothing to hand over to, or an installation that handed nothing over.
const WITHOUT: &str = "the Cluster has no infrastructureRef";
const SKIPPED: &str = "the feature gate SkipInfraClusterPatch leaves infrastructure clusters alone";
/// The first wait while an object does not have the endpoint. Each is twice as long as the one before.
const FIRST: Duration = Duration::from_secs(15);
/// The longest one.
const LONGEST: Duration = Duration::from_mins(5);
/// The wait where nothing depends on the answer any more.
const SETTLED: Duration = Duration::from_mins(30);

/// What to do about the infrastructure object.
#[derive(Debug, PartialEq, Eq)]
pub enum Question {
    /// Nothing: this is known.
    Answered(Handoff),
    /// Ask after this time. Nothing is known in memory, and the condition says enough until then.
    Later(Asked, Duration),
    /// Ask it now.
    Ask(Asked),
}

/// Decides about the infrastructure object. `is_skipped`: this installation hands nothing over.
pub fn question(
    control_plane: &KamajiControlPlane,
    cluster: &Cluster,
    known: Option<&Known>,
    is_skipped: bool,
    now: Instant,
) -> Question {
    let reference = match &cluster.spec.infrastructure_ref {
        Some(reference) if is_skipped => return Question::Answered(skipped(cluster, reference)),
        Some(reference) => reference,
        None => return Question::Answered(without(cluster)),
    };
    let own = control_plane.spec.control_plane_endpoint.as_ref();
    // What the Cluster has counts for machines; an endpoint that moved is not in it.
    let Some(endpoint) = cluster.endpoint().or_else(|| own.filter(|own| own.is_valid())) else {
        let message = format!(
            "the control plane has no endpoint yet that {} could get",
            reference.text()
        );
        return Question::Answered(waits(Reason::WaitingForEndpoint, message));
    };
    if cluster.infrastructure_is_missing() {
        let message = format!("{} does not exist", reference.text());
        return Question::Answered(waits(Reason::WaitingForInfrastructure, message));
    }
    let asked = Asked {
        reference: reference.clone(),
        endpoint: endpoint.clone(),
    };
    if let Some(known) = known.filter(|known| known.asked == asked) {
        let left = known
            .wait
            .map(|wait| wait.saturating_sub(now.saturating_duration_since(known.at)));
        return match left {
            Some(Duration::ZERO) => Question::Ask(asked),
            left => Question::Answered(Handoff::Known(left)),
        };
    }
    match reported(control_plane, endpoint) {
        Reported::Settled if is_over(cluster) => Question::Answered(Handoff::Known(None)),
        Reported::Open if is_over(cluster) => Question::Later(asked, SETTLED),
        Reported::Settled | Reported::Open | Reported::Nothing => Question::Ask(asked),
    }
}

/// Infrastructure and Cluster have what they need: nothing depends on the hand-off any more.
fn is_over(cluster: &Cluster) -> bool {
    cluster.infrastructure_provisioned() && cluster.endpoint().is_some()
}

/// The wait after this one.
pub fn next_wait(cluster: &Cluster, before: Option<Duration>) -> Duration {
    if is_over(cluster) {
        return SETTLED;
    }
    before.map_or(FIRST, |before| (before * 2).clamp(FIRST, LONGEST))
}

fn waits(reason: Reason, message: String) -> Handoff {
    Handoff::Open(Problem::on_change(reason, message), None)
}

/// A Cluster without an infrastructure object is legal, and Cluster API takes its infrastructure for provisioned.
fn without(cluster: &Cluster) -> Handoff {
    if cluster.spec.topology.is_some() {
        let message = "the topology of the Cluster has made no infrastructure cluster yet".to_owned();
        return waits(Reason::WaitingForInfrastructure, message);
    }
    Handoff::Settled(Reason::NotApplicable, WITHOUT.to_owned())
}

fn skipped(cluster: &Cluster, reference: &Reference) -> Handoff {
    let (what, endpoint) = (reference.text(), cluster.endpoint().map(text));
    match endpoint {
        Some(endpoint) if !cluster.infrastructure_provisioned() => waits(
            Reason::WaitingForInfrastructure,
            format!(
                "{what} is not provisioned, although the Cluster has the endpoint {endpoint}; if it waits for the endpoint in \
                 its own spec.controlPlaneEndpoint, set it there: the feature gate SkipInfraClusterPatch keeps the control \
                 plane provider from it"
            ),
        ),
        Some(_) | None => Handoff::Settled(Reason::NotApplicable, SKIPPED.to_owned()),
    }
}

/// What the condition says.
enum Reported {
    /// Nothing, or something about another endpoint.
    Nothing,
    /// Nothing is left to do.
    Settled,
    /// The object does not have the endpoint.
    Open,
}

fn reported(control_plane: &KamajiControlPlane, endpoint: &Endpoint) -> Reported {
    let conditions = control_plane
        .status
        .as_ref()
        .map(|status| status.conditions.as_slice());
    let known = conditions::get(
        conditions.unwrap_or_default(),
        Own::InfrastructureClusterPatched.as_str(),
    );
    let Some(known) = known else {
        return Reported::Nothing;
    };
    let is_named = [Reason::Patched, Reason::ManagedByIgnored]
        .iter()
        .any(|reason| reason.as_str() == known.reason);
    let has = known.message.split(';').next().unwrap_or_default();
    let is_about_another = (is_named && !has.ends_with(&format!(" {}", text(endpoint))))
        || [WITHOUT, SKIPPED].contains(&known.message.as_str());
    match known.status.as_str() {
        "True" if !is_about_another => Reported::Settled,
        "False" if !known.reason.starts_with("WaitingFor") => Reported::Open,
        _ => Reported::Nothing,
    }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;
    use serde_json::json;

    use super::*;
    use crate::{
        k8s::{conditions::Verdict, report::Report},
        kamajicontrolplane::example,
    };

    const THIS: &str = "ThatCluster a has the endpoint 192.0.2.1:6443";

    fn endpoint() -> Endpoint {
        Endpoint {
            host: "192.0.2.1".into(),
            port: 6443,
        }
    }

    /// A Cluster whose infrastructure is `ThatCluster a`; with its endpoint and provisioned once all is over.
    fn cluster(is_over: bool) -> Cluster {
        let mut cluster = example::cluster();
        cluster.spec.infrastructure_ref = Some(Reference {
            api_group: "i.example".into(),
            kind: "ThatCluster".into(),
            name: "a".into(),
        });
        if is_over {
            cluster.spec.control_plane_endpoint = Some(endpoint());
            let status = json!({"initialization": {"infrastructureProvisioned": true}});
            cluster.status = Some(serde_json::from_value(status).unwrap());
        }
        cluster
    }

    fn published() -> KamajiControlPlane {
        let mut control_plane = example::control_plane();
        control_plane.spec.control_plane_endpoint = Some(endpoint());
        control_plane
    }

    fn reporting(status: &str, reason: Reason, message: &str) -> KamajiControlPlane {
        let mut control_plane = published();
        let type_ = Own::InfrastructureClusterPatched.as_str();
        let verdict = match status {
            "True" => Verdict::yes(type_, reason, message),
            _ => Verdict::no(type_, reason, message),
        };
        let mut report = Report::new(Vec::new(), None, k8s_openapi::jiff::Timestamp::UNIX_EPOCH);
        report.set(verdict);
        control_plane.status.get_or_insert_default().conditions = report.into_conditions();
        control_plane
    }

    fn ask(control_plane: &KamajiControlPlane, cluster: &Cluster, known: Option<&Known>) -> Question {
        question(control_plane, cluster, known, false, Instant::now())
    }

    fn asked() -> Asked {
        Asked {
            reference: cluster(false).spec.infrastructure_ref.unwrap(),
            endpoint: endpoint(),
        }
    }

    #[rstest]
    #[case::done("True", Reason::Patched, THIS, true, Question::Answered(Handoff::Known(None)))]
    #[case::takes_none(
        "True",
        Reason::NotApplicable,
        "any words",
        true,
        Question::Answered(Handoff::Known(None))
    )]
    #[case::failed("False", Reason::Forbidden, "m", true, Question::Later(asked(), SETTLED))]
    #[case::still_waits("True", Reason::Patched, THIS, false, Question::Ask(asked()))]
    #[case::failed_and_waits("False", Reason::Forbidden, "m", false, Question::Ask(asked()))]
    #[case::had_none("True", Reason::NotApplicable, WITHOUT, true, Question::Ask(asked()))]
    #[case::was_skipped("True", Reason::NotApplicable, SKIPPED, true, Question::Ask(asked()))]
    #[case::waited("False", Reason::WaitingForEndpoint, "m", true, Question::Ask(asked()))]
    #[case::of_another(
        "True",
        Reason::Patched,
        "ThatCluster a has the endpoint 192.0.2.1:64431",
        true,
        Question::Ask(asked())
    )]
    #[case::with_a_note(
        "True",
        Reason::ManagedByIgnored,
        "ThatCluster a has the endpoint 192.0.2.1:6443; n",
        true,
        Question::Answered(Handoff::Known(None))
    )]
    fn a_new_process_asks_only_where_something_depends_on_it(
        #[case] status: &str,
        #[case] reason: Reason,
        #[case] message: &str,
        #[case] is_over: bool,
        #[case] expected: Question,
    ) {
        assert_eq!(
            ask(&reporting(status, reason, message), &cluster(is_over), None),
            expected
        );
    }

    #[test]
    fn a_new_control_plane_asks_and_then_waits_longer_and_longer() {
        let waiting = cluster(false);
        assert_eq!(ask(&published(), &waiting, None), Question::Ask(asked()));
        let mut wait = None;
        let mut waits = Vec::new();
        for _ in 0..7 {
            wait = Some(next_wait(&waiting, wait));
            waits.extend(wait.map(|wait| wait.as_secs()));
        }
        assert_eq!(waits, [15, 30, 60, 120, 240, 300, 300]);
        assert_eq!(next_wait(&cluster(true), None), SETTLED);
    }

    #[test]
    fn what_was_asked_is_not_asked_again_before_its_time() {
        let now = Instant::now();
        let known = |wait| Known {
            asked: asked(),
            wait,
            at: now,
        };
        let after = |known: &Known, seconds| {
            question(
                &published(),
                &cluster(false),
                Some(known),
                false,
                now + Duration::from_secs(seconds),
            )
        };
        let open = known(Some(Duration::from_mins(1)));
        let left = Handoff::Known(Some(Duration::from_secs(20)));
        assert_eq!(after(&open, 40), Question::Answered(left));
        assert_eq!(after(&open, 60), Question::Ask(asked()));
        assert_eq!(
            after(&known(None), 6000),
            Question::Answered(Handoff::Known(None))
        );
        let mut other = known(None);
        other.asked.endpoint.port = 443;
        assert_eq!(after(&other, 0), Question::Ask(asked()), "another endpoint");
    }

    #[test]
    fn the_endpoint_of_the_cluster_is_the_one_to_hand_over() {
        let mut moved = published();
        moved.spec.control_plane_endpoint = Some(Endpoint {
            host: "192.0.2.9".into(),
            port: 6443,
        });
        assert_eq!(ask(&moved, &cluster(true), None), Question::Ask(asked()));
    }
}
