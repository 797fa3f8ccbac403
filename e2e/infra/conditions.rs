//! Setting conditions: pure, keeps the transition time unless the status flips.

use k8s_openapi::{
    apimachinery::pkg::apis::meta::v1::{Condition, Time},
    jiff::Timestamp,
};

/// What is to be said about one condition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verdict {
    /// Whether it holds.
    pub status: bool,
    /// Machine-readable reason.
    pub reason: &'static str,
    /// What is waited for, or what is wrong; empty when all is well.
    pub message: String,
}

impl Verdict {
    /// It holds.
    pub fn holds(reason: &'static str) -> Self {
        Self {
            status: true,
            reason,
            message: String::new(),
        }
    }

    /// It does not.
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
