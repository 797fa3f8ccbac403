//! Conditions and status of a KamajiConfig, by what a reconcile found.

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
        no_data: Some(Problem::on_change(Reason::WaitingForInfrastructure, "w")),
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
fn after_the_join_all_conditions_are_healthy_and_the_token_is_not_reported() {
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
        ca: Step::Done,
        data: Some(data()),
        token: Some(Token::Removed("Node m joined".to_owned())),
        automatic: Some(None),
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
        let healthy = if kamaji_api::conditions::is_negative(&condition.type_) {
            "False"
        } else {
            "True"
        };
        assert_eq!(condition.status, healthy, "{}", condition.type_);
    }
    config.status = Some(done.clone());
    assert_eq!(
        status(&config, &progress, at(99)),
        done,
        "a second reconcile changes nothing"
    );
}

fn stopped_by(config: &KamajiConfig, problem: &Problem) -> KamajiConfigStatus {
    let mut progress = Progress::default();
    stopped(config, &mut progress, problem.clone());
    status(config, &progress, at(1))
}

fn reported(progress: &Progress) -> KamajiConfig {
    KamajiConfig {
        status: Some(status(&KamajiConfig::default(), progress, at(1))),
        ..KamajiConfig::default()
    }
}

#[test]
fn a_wait_is_reported_by_the_condition_that_it_holds_up() {
    let problem = Problem::on_change(Reason::TenantUnreachable, "no answer");
    let new = stopped_by(&KamajiConfig::default(), &problem);
    assert_eq!(
        reason(&new, "DataSecretAvailable"),
        ("False", "TenantUnreachable")
    );
    assert_eq!(reason(&new, "Ready"), ("False", "TenantUnreachable"));

    let known = TokenStatus {
        id: Some("abc123".to_owned()),
        ..TokenStatus::default()
    };
    let waiting = reported(&Progress {
        data: Some(data()),
        token: Some(Token::Alive(known.clone())),
        ..Progress::default()
    });
    let stuck = stopped_by(&waiting, &problem);
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
    stopped(&waiting, &mut progress, problem.clone());
    let lost = status(&waiting, &progress, at(2));
    assert_eq!(
        reason(&lost, "DataSecretAvailable"),
        ("False", "TenantUnreachable")
    );
    assert_eq!(lost.data_secret_name.as_deref(), Some("m"), "reported for good");

    let mut progress = Progress {
        data: Some(data()),
        known: Some(known.clone()),
        ..Progress::default()
    };
    stopped(&KamajiConfig::default(), &mut progress, problem);
    let first = status(&KamajiConfig::default(), &progress, at(1));
    assert_eq!(reason(&first, "BootstrapTokenValid").0, "Unknown");
    assert_eq!(first.token, Some(known), "the age of the token is kept");
}

#[test]
fn a_used_token_stays_used() {
    let config = reported(&Progress {
        data: Some(data()),
        token: Some(Token::Removed("Node m joined".to_owned())),
        node: Some(Node::Joined {
            name: "m".to_owned(),
            version: Ok("v1.36.3".to_owned()),
            provider_id: ProviderId::Awaited,
        }),
        ..Progress::default()
    });
    assert!(has_joined(&config) && !has_joined(&KamajiConfig::default()));
    let stuck = stopped_by(
        &config,
        &Problem::on_change(Reason::TenantUnreachable, "no answer"),
    );
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
    assert!(has_joined(&gone), "also when its Node is deleted");
}

#[test]
fn a_denial_is_reported_until_the_machine_reports_something_new() {
    let config = reported(&Progress {
        data: Some(data()),
        node: Some(Node::Waiting {
            report: None,
            held: Some(Problem::on_change(Reason::NameMismatch, "the token is for m")),
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
fn a_pause_changes_no_other_condition() {
    let progress = Progress {
        paused: Some("annotation".to_owned()),
        ..Progress::default()
    };
    let paused = status(&KamajiConfig::default(), &progress, at(1));
    assert_eq!(reason(&paused, "Paused"), ("True", "Paused"));
    assert_eq!(paused.conditions.len(), 1);
}

#[test]
fn of_two_bindings_that_approve_the_first_that_was_found_stays_reported() {
    let found = |why: Option<&str>| Progress {
        automatic: Some(why.map(str::to_owned)),
        ..Progress::default()
    };
    let config = reported(&found(Some("ClusterRoleBinding one")));
    let before = config.status.clone().unwrap();
    let again = status(&config, &found(Some("ClusterRoleBinding two")), at(2));
    assert_eq!(again, before, "the API server names them in no order");
    let strict = KamajiConfig {
        status: Some(status(&config, &found(None), at(3))),
        ..KamajiConfig::default()
    };
    assert_eq!(
        reason(strict.status.as_ref().unwrap(), "CSRApprovalStrict"),
        ("True", "Strict")
    );
    let anew = status(&strict, &found(Some("ClusterRoleBinding two")), at(4));
    let message = &conditions::get(&anew.conditions, "CSRApprovalStrict")
        .unwrap()
        .message;
    assert!(message.contains("ClusterRoleBinding two"), "{message}");
}
