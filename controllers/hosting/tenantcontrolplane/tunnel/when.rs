//! When to ask the kubelets: after a rollout, when the number of ready workers changes or what the tunnel is made of, when a
//! request of the engine failed because the API server did not reach the nodes; else once a day. While the answer is bad or
//! nobody was there to answer, again and again, each time after as long as it has been so: a new tenant without nodes after
//! 30 s, a minute, two minutes. Pure.
//!
//! One bad answer is not believed: the node may just have joined, with an agent that connects in a moment, or be about to
//! go. [`Unconfirmed`] counts how often it was the same.

use std::time::Duration;

use k8s_openapi::{apimachinery::pkg::apis::meta::v1::Condition, jiff::Timestamp};
use kamaji_api::conditions::Reason;

/// Shortest time between two questions about one tenant.
const APART: Duration = Duration::from_secs(5);
/// Time until a bad answer is tried again, at first.
const AGAIN: Duration = Duration::from_secs(10);
/// How long after its start a control plane without known workers is asked first.
const FIRST: Duration = Duration::from_secs(30);
/// A tenant of this age has started long ago.
const OLD: Duration = Duration::from_mins(10);
/// The first questions of a new process about tenants that run are spread over this time.
const SPREAD: Duration = Duration::from_hours(1);
/// Longest time until a bad answer is asked again.
const LONGEST: Duration = Duration::from_hours(6);
/// Bad answers in a row that are believed.
const ENOUGH: u8 = 3;

/// What the last question was about, and when it was asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Asked {
    /// Digest of what the answer depends on.
    pub about: String,
    /// When.
    pub at: Timestamp,
    /// When a good answer is tried again.
    pub audit: Timestamp,
    /// Bad answers that are not reported yet.
    pub unconfirmed: Unconfirmed,
}

/// Bad answers in a row that are not reported yet.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Unconfirmed(u8);

impl Asked {
    /// Nothing that counts now was asked yet.
    pub fn never() -> Self {
        Self {
            about: String::new(),
            at: Timestamp::UNIX_EPOCH,
            audit: Timestamp::UNIX_EPOCH,
            unconfirmed: Unconfirmed::default(),
        }
    }
}

impl Unconfirmed {
    /// After one more, for this reason. `None` once it is to be reported: there were enough, or the condition has the reason.
    pub fn one_more(self, reason: &str, condition: Option<&Condition>) -> Option<Self> {
        let Self(before) = self;
        let is_known = condition.is_some_and(|condition| condition.reason == reason);
        (!is_known && before + 1 < ENOUGH).then_some(Self(before + 1))
    }
}

/// What decides.
#[derive(Clone, Copy, Debug)]
pub struct Inputs<'a> {
    /// The condition `TunnelReady`.
    pub condition: Option<&'a Condition>,
    /// The last question of this process.
    pub last: Option<&'a Asked>,
    /// Digest of what the answer depends on now.
    pub about: &'a str,
    /// Generation of the spec.
    pub generation: Option<i64>,
    /// Workers are known to be ready.
    pub has_workers: bool,
    /// Time since the tenant was created.
    pub age: Duration,
    /// Now.
    pub now: Timestamp,
    /// From 0 to 1, different for each tenant and process.
    pub random: f64,
}

/// What to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Due {
    /// Ask at this time, which may be over.
    At(Timestamp),
    /// What the condition says is believed, as after every restart, and tried with the audit.
    Believe,
}

/// When to ask.
pub fn due(inputs: Inputs<'_>) -> Due {
    let Inputs {
        condition,
        last,
        about,
        generation,
        has_workers,
        age,
        now,
        random,
    } = inputs;
    let after = |from: Timestamp, delay: Duration| from.checked_add(delay).unwrap_or(from);
    let is_good = condition.is_some_and(|condition| {
        condition.status == "True" && condition.reason != Reason::AgentsNotRunning.as_str()
    });
    let slept = condition.is_some_and(|condition| condition.reason == Reason::Sleeping.as_str());
    // The spec was not edited while no process ran.
    let is_current = condition.is_some_and(|condition| condition.observed_generation == generation);
    let lasts = condition.map_or(age, |condition| {
        let seconds = now.as_second() - condition.last_transition_time.0.as_second();
        Duration::from_secs(u64::try_from(seconds).unwrap_or(0))
    });
    match (last, condition) {
        (Some(last), _) if last.about != about => Due::At(after(last.at, APART)),
        (Some(last), _) if last.unconfirmed != Unconfirmed::default() => Due::At(after(last.at, AGAIN)),
        (Some(last), Some(_)) if is_good => Due::At(last.audit),
        (Some(last), _) => {
            // How long it had been so when it was asked: what it has been by now would move the time on for ever.
            let since = Duration::try_from(now.duration_since(last.at)).unwrap_or_default();
            Due::At(after(last.at, lasts.saturating_sub(since).clamp(AGAIN, LONGEST)))
        }
        (None, Some(_)) if is_good && is_current => Due::Believe,
        (None, Some(_)) if slept => Due::At(now),
        (None, Some(_)) => Due::At(after(now, SPREAD.min(lasts).mul_f64(random))),
        (None, None) if age > OLD => Due::At(after(now, SPREAD.mul_f64(random))),
        (None, None) if has_workers => Due::At(now),
        (None, None) => Due::At(after(now, FIRST)),
    }
}

#[cfg(test)]
mod tests {
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

    use super::*;

    const NOW: i64 = 1_000_000;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    fn condition(status: &str, age: i64) -> Condition {
        Condition {
            status: status.to_owned(),
            last_transition_time: Time(at(NOW - age)),
            message: String::new(),
            reason: String::new(),
            type_: String::new(),
            observed_generation: Some(1),
        }
    }

    fn inputs<'a>(condition: Option<&'a Condition>, last: Option<&'a Asked>) -> Inputs<'a> {
        Inputs {
            condition,
            last,
            about: "b",
            generation: Some(1),
            has_workers: false,
            age: Duration::from_mins(1),
            now: at(NOW),
            random: 0.5,
        }
    }

    /// Seconds until the question.
    fn ask(
        condition: Option<&Condition>,
        last: Option<(&str, i64)>,
        change: impl Fn(&mut Inputs<'_>),
    ) -> Option<i64> {
        let last = last.map(|(about, ago)| Asked {
            about: about.to_owned(),
            at: at(NOW - ago),
            audit: at(NOW + 80_000),
            unconfirmed: Unconfirmed::default(),
        });
        let mut inputs = inputs(condition, last.as_ref());
        change(&mut inputs);
        match due(inputs) {
            Due::At(time) => Some(time.as_second() - NOW),
            Due::Believe => None,
        }
    }

    #[test]
    fn it_is_asked_after_a_change_and_else_once_a_day() {
        let good = condition("True", 50);
        assert_eq!(ask(Some(&good), Some(("b", 50)), |_| {}), Some(80_000));
        assert_eq!(ask(Some(&good), Some(("a", 50)), |_| {}), Some(-45), "at once");
        assert_eq!(
            ask(Some(&good), Some(("a", 1)), |_| {}),
            Some(4),
            "not twice a second"
        );
    }

    #[test]
    fn a_bad_answer_is_asked_again_after_as_long_as_it_has_been_bad() {
        for status in ["False", "Unknown"] {
            assert_eq!(ask(Some(&condition(status, 0)), Some(("b", 0)), |_| {}), Some(10));
            assert_eq!(
                ask(Some(&condition(status, 300)), Some(("b", 0)), |_| {}),
                Some(300)
            );
            assert_eq!(
                ask(Some(&condition(status, 9_000_000)), Some(("b", 0)), |_| {}),
                Some(21_600)
            );
        }
    }

    #[test]
    fn the_time_of_the_next_question_comes() {
        // Bad for 40 s when it was asked, and that 15 s, 40 s and 60 s ago.
        for (ago, due_in) in [(15, 25), (40, 0), (60, -20)] {
            let bad = condition("False", 40 + ago);
            assert_eq!(ask(Some(&bad), Some(("b", ago)), |_| {}), Some(due_in));
            let nobody = ask(None, Some(("b", ago)), |inputs| {
                inputs.age = Duration::from_secs(u64::try_from(40 + ago).unwrap());
            });
            assert_eq!(nobody, Some(due_in));
        }
    }

    #[test]
    fn a_new_process_believes_a_good_answer_and_spreads_its_questions() {
        assert_eq!(ask(Some(&condition("True", 50)), None, |_| {}), None);
        assert_eq!(ask(Some(&condition("False", 100)), None, |_| {}), Some(50));
        assert_eq!(ask(Some(&condition("False", 100_000)), None, |_| {}), Some(1800));
        assert_eq!(
            ask(None, None, |inputs| inputs.age = Duration::from_hours(1)),
            Some(1800)
        );
    }

    #[test]
    fn a_new_process_does_not_believe_what_is_about_another_spec_or_about_sleep() {
        let good = condition("True", 100_000);
        let edited = |inputs: &mut Inputs<'_>| inputs.generation = Some(2);
        assert_eq!(ask(Some(&good), None, edited), Some(1800));
        let mut asleep = condition("Unknown", 100_000);
        asleep.reason = "Sleeping".to_owned();
        assert_eq!(ask(Some(&asleep), None, |_| {}), Some(0), "it woke");
    }

    #[test]
    fn only_the_third_bad_answer_in_a_row_is_reported() {
        let (good, mut bad) = (condition("True", 50), condition("False", 50));
        bad.reason = "Bad".to_owned();
        let first = Unconfirmed::default();
        assert_eq!(first.one_more("Bad", Some(&bad)), None, "it is known");
        for known in [None, Some(&good)] {
            let once = first.one_more("Bad", known).unwrap();
            let twice = once.one_more("Bad", known).unwrap();
            assert_eq!(twice.one_more("Bad", known), None);
            let last = Asked {
                about: "b".to_owned(),
                at: at(NOW),
                audit: at(NOW + 80_000),
                unconfirmed: once,
            };
            let soon = Due::At(at(NOW + 10));
            assert_eq!(due(inputs(known, Some(&last))), soon);
        }
    }

    #[test]
    fn a_tenant_without_nodes_is_asked_less_and_less_often() {
        for (age, next) in [(30, 30), (60, 60), (7200, 7200), (900_000, 21_600)] {
            let asked = ask(None, Some(("b", 0)), |inputs| {
                inputs.age = Duration::from_secs(age);
            });
            assert_eq!(asked, Some(next), "{age} s old");
        }
    }

    #[test]
    fn a_new_tenant_is_asked_when_its_workers_are_ready_or_after_a_while() {
        assert_eq!(ask(None, None, |_| {}), Some(30));
        assert_eq!(ask(None, None, |inputs| inputs.has_workers = true), Some(0));
    }
}
