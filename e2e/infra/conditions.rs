//! Sets conditions. Pure; the transition time changes only with the status.

use k8s_openapi::{
    apimachinery::pkg::apis::meta::v1::{Condition, Time},
    jiff::Timestamp,
};

/// Status, reason and message of a condition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verdict {
    /// Whether the status is `True`.
    pub status: bool,
    /// Reason of the condition.
    pub reason: &'static str,
    /// What is missing or wrong; empty if the condition is healthy.
    pub message: String,
}

impl Verdict {
    /// A condition with status `True`.
    pub fn holds(reason: &'static str) -> Self {
        Self {
            status: true,
            reason,
            message: String::new(),
        }
    }

    /// A condition with status `False`.
    pub fn fails(reason: &'static str, message: impl Into<String>) -> Self {
        Self {
            status: false,
            reason,
            message: message.into(),
        }
    }
}

/// Sets one condition in the list, which stays sorted by type.
pub fn set(
    list: &mut Vec<Condition>,
    kind: &str,
    verdict: &Verdict,
    generation: Option<i64>,
    now: Timestamp,
) {
    let status = if verdict.status { "True" } else { "False" };
    let known = list
        .iter()
        .find(|condition| condition.type_ == kind && condition.status == status);
    let since = known.map_or_else(|| Time(now), |condition| condition.last_transition_time.clone());
    list.retain(|condition| condition.type_ != kind);
    list.push(Condition {
        type_: kind.to_owned(),
        status: status.to_owned(),
        reason: verdict.reason.to_owned(),
        message: verdict.message.clone(),
        observed_generation: generation,
        last_transition_time: since,
    });
    list.sort_by(|left, right| left.type_.cmp(&right.type_));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn time_moves_only_when_the_status_flips() {
        let at = |second| Timestamp::from_second(second).unwrap();
        let mut list = Vec::new();
        set(
            &mut list,
            "Ready",
            &Verdict::fails("WaitingForBootstrapData", "a"),
            None,
            at(1),
        );
        set(
            &mut list,
            "Ready",
            &Verdict::fails("MachineHostUnavailable", "b"),
            None,
            at(2),
        );
        assert_eq!((list.len(), list[0].last_transition_time.0), (1, at(1)));
        assert_eq!(list[0].reason, "MachineHostUnavailable");
        set(&mut list, "Ready", &Verdict::holds("Ready"), None, at(3));
        assert_eq!(list[0].last_transition_time.0, at(3));
        set(&mut list, "Paused", &Verdict::fails("NotPaused", ""), None, at(3));
        assert_eq!(list[0].type_, "Paused");
    }
}
