//! Steps, conditions and transitions.

use super::*;

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(second).unwrap()
}

fn report() -> Report {
    Report::new(Vec::new(), Some(1), at(1))
}

fn failed(reason: Reason) -> Step {
    Problem::on_change(reason, "why").into()
}

fn shown(report: &Report, type_: &str) -> (String, String, String) {
    let found = report.get(type_).unwrap();
    (found.status.clone(), found.reason.clone(), found.message.clone())
}

fn is(status: &str, reason: &str, message: &str) -> (String, String, String) {
    (status.into(), reason.into(), message.into())
}

#[test]
fn a_step_that_was_not_reached_keeps_its_condition() {
    let mut report = report();
    report.step("SpecValid", &Step::NotReached, Reason::Valid);
    assert_eq!(shown(&report, "SpecValid").0, "Unknown");
    report.step("SpecValid", &failed(Reason::InvalidSpec), Reason::Valid);
    assert_eq!(shown(&report, "SpecValid"), is("False", "InvalidSpec", "why"));
    report.step("SpecValid", &Step::NotReached, Reason::Valid);
    assert_eq!(shown(&report, "SpecValid"), is("False", "InvalidSpec", "why"));
    report.step("SpecValid", &Step::Done, Reason::Valid);
    assert_eq!(shown(&report, "SpecValid"), is("True", "Valid", ""));
}

#[test]
fn field_not_supported_exists_only_while_it_is_true() {
    let mut report = report();
    report.unsupported(Some("spec.x".to_owned()));
    assert_eq!(
        shown(&report, FIELD_NOT_SUPPORTED),
        is("True", "FieldNotSupported", "spec.x")
    );
    report.unsupported(None);
    assert!(report.conditions().is_empty());
}

#[test]
fn a_step_depends_on_others_by_question_mark() {
    let both = |one: Step, two: Result<(), Problem>| -> Step {
        let known = || -> Known {
            one.known()?;
            two?;
            Ok(())
        };
        known().into()
    };
    let no = || Problem::on_change(Reason::InvalidSpec, "no");
    assert_eq!(both(Step::Done, Ok(())), Step::Done);
    assert_eq!(both(Step::NotReached, Err(no())), Step::NotReached);
    assert_eq!(both(Step::Done, Err(no())), Step::Failed(no()));
    assert_eq!(Step::of(&Ok::<_, Problem>(7)), Step::Done);
    assert_eq!(Step::from(None::<Result<(), Problem>>), Step::NotReached);
}

const RULES: [Rule; 3] = [
    Rule {
        conditions: &["Available", "DataStoreReady", "RollingOut"],
        when: When::Unhealthy,
        except: &[
            Except::Reasons(&[Reason::RollingOut]),
            Except::StartUp {
                until: "Available",
                reason: Reason::APIServerUnreachable,
            },
        ],
    },
    Rule {
        conditions: &["BootstrapTokenValid"],
        when: When::NotHealthy,
        except: &[],
    },
    Rule {
        conditions: &["Ready"],
        when: When::Healthy {
            reason: Reason::Initialized,
            message: "it serves",
        },
        except: &[],
    },
];

fn of(verdicts: impl IntoIterator<Item = Verdict>) -> Vec<Condition> {
    let mut report = report();
    for verdict in verdicts {
        report.set(verdict);
    }
    report.into_conditions()
}

fn reasons(old: &[Condition], new: &[Condition]) -> Vec<String> {
    transitions(old, new, &RULES)
        .into_iter()
        .map(|event| event.reason)
        .collect()
}

#[test]
fn a_condition_that_became_unhealthy_is_a_warning_once() {
    let lost = of([Verdict::no("DataStoreReady", Reason::DataMissing, "why")]);
    assert_eq!(reasons(&[], &lost), ["DataMissing"]);
    assert!(reasons(&lost, &lost).is_empty(), "it was reported before");
    let other = of([Verdict::no("DataStoreReady", Reason::DataStoreUnreachable, "why")]);
    assert_eq!(reasons(&lost, &other), ["DataStoreUnreachable"], "another reason");
    let unknown = of([Verdict::unknown("DataStoreReady", Reason::Pending, "")]);
    assert!(reasons(&lost, &unknown).is_empty());
    let token = of([Verdict::unknown(
        "BootstrapTokenValid",
        Reason::TenantUnreachable,
        "",
    )]);
    assert_eq!(reasons(&[], &token), ["TenantUnreachable"], "Unknown counts too");
    let unlisted = of([Verdict::no("SpecValid", Reason::InvalidSpec, "why")]);
    assert!(reasons(&[], &unlisted).is_empty());
}

#[test]
fn what_belongs_to_a_normal_start_is_no_event() {
    let starting = of([
        Verdict::no("Available", Reason::APIServerUnreachable, "why"),
        Verdict::yes("RollingOut", Reason::RollingOut, "why"),
    ]);
    assert!(reasons(&[], &starting).is_empty());
    let serving = of([Verdict::yes("Available", Reason::Available, "")]);
    assert_eq!(reasons(&serving, &starting), ["APIServerUnreachable"]);
}

#[test]
fn every_wait_can_be_excepted() {
    let rules = [Rule {
        conditions: &["Ready"],
        when: When::Unhealthy,
        except: &[Except::Waits],
    }];
    let waiting = of([Verdict::no("Ready", Reason::WaitingForOwner, "why")]);
    assert!(transitions(&[], &waiting, &rules).is_empty());
    let wrong = of([Verdict::no("Ready", Reason::InvalidSpec, "why")]);
    assert_eq!(transitions(&waiting, &wrong, &rules).len(), 1);
}

#[test]
fn the_same_reason_and_message_is_one_event() {
    let new = of([
        Verdict::no("Available", Reason::DataMissing, "why"),
        Verdict::no("DataStoreReady", Reason::DataMissing, "why"),
    ]);
    assert_eq!(reasons(&[], &new), ["DataMissing"]);
}

#[test]
fn what_became_healthy_is_a_normal_event_with_its_own_words() {
    let ready = of([Verdict::yes("Ready", Reason::Ready, "")]);
    let events = transitions(&[], &ready, &RULES);
    let expected = Transition {
        warning: false,
        reason: "Initialized".into(),
        message: "it serves".into(),
    };
    assert_eq!(events, [expected]);
    assert!(transitions(&ready, &ready, &RULES).is_empty());
}
