//! Trouble that passes, attempts after a failure, and disks with an earlier life.

use super::machine::{Boot, Machine, SECRET};

const TIMER_STARTS: &str = "systemctl start --no-block kamaji-join.timer";
const TIMER_STOPS: &str = "systemctl stop --no-block kamaji-join.timer";
const CERTIFICATE: &str = "var/lib/kubelet/pki/kubelet-client-current.pem";

#[test]
fn a_clock_that_is_set_late_in_the_boot_does_not_end_the_join() {
    let machine = Machine::new(|_| {});
    machine.approve();
    machine.write("clock-wrong-until", "120\n");
    machine.assert_joined(&machine.boot());
}

#[test]
fn bootstrap_56_a_clock_that_stays_wrong_is_reported_before_the_join_ends() {
    let machine = Machine::new(|_| {});
    machine.approve();
    machine.write("clock-wrong-until", "1000\n");
    let boot = machine.boot();
    boot.assert_failed("ClockSkew", " s off that of the API server");
    let reported = boot.calls.find("/events").unwrap();
    assert!(boot.calls[reported..].contains("/healthz"), "{boot:?}");
}

#[test]
fn bootstrap_56_a_certificate_of_another_ca_is_waited_for_and_then_reported() {
    let machine = Machine::new(|_| {});
    machine.approve();
    machine.write("untrusted-until", "130\n");
    machine.assert_joined(&machine.boot());

    let machine = Machine::new(|_| {});
    machine.write("untrusted-until", "1000\n");
    let boot = machine.boot();
    boot.assert_failed("CertificateUntrusted", "is not signed by a CA of the cluster");
    let unchecked = |line: &&str| line.starts_with("curl ") && line.contains(" -k ");
    let mut lines = boot.calls.lines().filter(unchecked).peekable();
    assert!(
        lines.peek().is_some() && lines.all(|line| !line.contains(" -K ")),
        "{boot:?}"
    );
}

#[test]
fn the_machine_looks_often_at_first_and_then_less_often() {
    let machine = Machine::new(|_| {});
    let boot = machine.boot();
    boot.assert_failed("JoinTimeout", "no client certificate");
    let pauses: Vec<_> = boot
        .calls
        .lines()
        .filter_map(|line| line.strip_prefix("sleep "))
        .collect();
    let often = pauses.iter().take_while(|pause| **pause == "0.2").count();
    assert_eq!(often, 50, "{pauses:?}");
    assert!(pauses[often..].iter().all(|pause| *pause == "1"), "{pauses:?}");
}

#[test]
fn the_join_is_tried_again_until_it_succeeds() {
    let machine = Machine::new(|_| {});
    let boot = machine.boot();
    boot.assert_failed("JoinTimeout", "no client certificate");
    assert!(boot.called(TIMER_STARTS) && !boot.called(TIMER_STOPS), "{boot:?}");
    let timer = machine.read("run/systemd/system/kamaji-join.timer");
    assert_eq!(timer, "[Timer]\nOnUnitInactiveSec=5min\n");

    let again = machine.run();
    assert_eq!(
        (again.code, again.reports.as_str()),
        (Some(1), ""),
        "said already: {again:?}"
    );
    machine.write("unreachable", "");
    machine
        .run()
        .assert_failed("APIServerUnreachable", "https://10.88.0.1:31443");
    machine.remove("unreachable");

    machine.approve();
    let boot = machine.run();
    machine.assert_joined(&boot);
    assert!(boot.called(TIMER_STOPS), "{boot:?}");
}

#[test]
fn a_token_that_ended_ends_the_attempts() {
    let machine = Machine::new(|_| {});
    machine.write("token-ended", "");
    let boot = machine.boot();
    assert_eq!(boot.code, Some(1), "{boot:?}");
    assert!(
        boot.printed("failed: TokenMissing: the API server no longer accepts the token: delete the Machine"),
        "{boot:?}"
    );
    assert!(
        boot.called(TIMER_STOPS) && !boot.called("systemctl restart"),
        "{boot:?}"
    );
    assert!(
        !boot.console.contains(SECRET) && !boot.calls.contains(SECRET),
        "{boot:?}"
    );
}

#[test]
fn a_machine_with_a_certificate_needs_no_token_any_more() {
    let machine = Machine::new(|_| {});
    machine.approve();
    machine.write("refused", "");
    machine
        .boot()
        .assert_failed("JoinTimeout", "the API server has no Node");
    machine.remove("refused");
    machine.write("token-ended", "");
    machine.assert_joined(&machine.boot());
}

/// The disk gets the data of another config, as where a machine is installed anew and keeps `/var`.
fn reused(machine: &Machine) -> Boot {
    machine.remove("node");
    machine.remove("ran");
    machine.be("another-uid");
    machine.boot()
}

#[test]
fn a_disk_with_an_earlier_life_joins_anew() {
    let machine = Machine::new(|spec| spec.post_join_commands = vec!["echo ran >>{root}/ran".into()]);
    machine.approve();
    machine.assert_joined(&machine.boot());
    for state in ["cpu_manager_state", "memory_manager_state"] {
        machine.write(&format!("var/lib/kubelet/{state}"), "{}");
    }
    machine.write(CERTIFICATE, "of another cluster");
    let boot = reused(&machine);
    machine.assert_joined(&boot);
    assert!(
        boot.printed("joined as m-0") && boot.called("systemctl stop kubelet.service"),
        "{boot:?}"
    );
    assert_eq!(machine.read("ran"), "ran\n", "commands after the join");
    assert_eq!(machine.read(CERTIFICATE), "pem\n");
    for state in ["cpu_manager_state", "memory_manager_state"] {
        assert!(!machine.has(&format!("var/lib/kubelet/{state}")), "{state}");
    }
    assert!(
        machine
            .read("var/lib/kamaji/joined")
            .contains("config=another-uid\n")
    );
    assert!(machine.boot().printed("already joined"));
}

#[test]
fn a_machine_made_from_the_disk_of_another_node_joins_with_a_certificate_of_its_own() {
    let machine = Machine::new(|_| {});
    machine.write(
        "etc/kubernetes/kubelet.conf",
        "client-certificate: of another cluster",
    );
    machine.write(CERTIFICATE, "of another cluster");
    let boot = machine.boot();
    boot.assert_failed("JoinTimeout", "no client certificate");
    machine.approve();
    machine.assert_joined(&machine.run());
    assert_eq!(machine.read(CERTIFICATE), "pem\n");
}
