//! What the join script does to a machine, boot by boot.

use kamaji_api::bootstrap::{ProviderIdSource, VersionCheck};

use super::*;
use machine::{Machine, SECRET};

const TERM: &str = "kill -TERM \"$(cat {root}/pid)\"";

#[test]
fn bootstrap_50_a_machine_joins_once() {
    let machine = Machine::new(|_| {});
    machine.approve();
    let boot = machine.boot();
    machine.assert_joined(&boot);
    assert!(machine.read("var/lib/kamaji/joined").contains("\nnode=m-0\n"));
    let unit = machine.read("etc/systemd/system/kubelet.service.d/90-kamaji.conf");
    assert!(
        unit.contains("--hostname-override=m-0 \\\n") && !unit.contains('@'),
        "{unit}"
    );
    assert_eq!(machine.read("proc/sys/vm/overcommit_memory"), "1");
    assert_eq!(machine.with_secret(), Vec::<String>::new());

    // A kubelet that starts by itself before the reload would use the token with the flags of the image.
    assert!(!boot.called("reload after the token"), "{boot:?}");

    let marker = machine.read("var/lib/kamaji/joined");
    let boot = machine.boot();
    machine.assert_joined(&boot);
    assert!(boot.printed("already joined"), "{boot:?}");
    assert!(
        !boot.called("curl") && !boot.called("systemctl restart"),
        "{boot:?}"
    );
    assert!(
        !boot.called("systemctl start --no-block kamaji-join.timer"),
        "{boot:?}"
    );
    assert_eq!(machine.read("var/lib/kamaji/joined"), marker);
}

#[test]
fn bootstrap_47_a_kubelet_that_restarts_checks_the_api_server_for_the_name_of_the_config() {
    let named = |spec: &mut KamajiConfigSpec| {
        spec.control_plane.tls_server_name = Some("api.example.com".into());
    };
    let machine = Machine::new(named);
    machine.approve();
    let boot = machine.boot();
    machine.assert_joined(&boot);
    assert_eq!(machine.mode("etc/kubernetes/kubelet.conf"), 0o600);
    let kubeconfig: Value = serde_yaml::from_str(&machine.read("etc/kubernetes/kubelet.conf")).unwrap();
    let cluster = &kubeconfig["clusters"][0]["cluster"];
    assert_eq!(cluster["server"], "https://10.88.0.1:31443");
    assert_eq!(cluster["certificate-authority"], "/etc/kubernetes/pki/ca.crt");
    let user = &kubeconfig["users"][0]["user"];
    for file in [&user["client-certificate"], &user["client-key"]] {
        let file = file.as_str().unwrap_or_default();
        assert!(
            file.ends_with("/var/lib/kubelet/pki/kubelet-client-current.pem"),
            "{user}"
        );
    }
    assert_eq!(user.as_object().map(serde_json::Map::len), Some(2));
    let restarts = |boot: &machine::Boot| boot.calls.matches("systemctl restart").count();
    assert_eq!(restarts(&boot), 1, "{boot:?}");
    machine.assert_joined(&machine.boot());

    // It crashed after it got its certificate, before the script wrote the name.
    let machine = Machine::new(named);
    machine.approve();
    machine.write("crashes-once", "");
    let boot = machine.boot();
    machine.assert_joined(&boot);
    assert_eq!(restarts(&boot), 2, "{boot:?}");
}

#[test]
fn bootstrap_53_a_token_staged_again_does_not_join_again() {
    let machine = Machine::new(|_| {});
    machine.approve();
    machine.assert_joined(&machine.boot());
    machine.stage();
    let boot = machine.boot();
    machine.assert_joined(&boot);
    assert!(!boot.called("systemctl restart"), "{boot:?}");
    assert_eq!(machine.with_secret(), Vec::<String>::new());
}

#[test]
fn bootstrap_52_a_failed_command_keeps_the_kubelet_from_starting() {
    let machine = Machine::new(|spec| {
        spec.pre_join_commands = vec!["touch {root}/ran".into(), "[ -e {root}/ok ] || exit 7".into()];
    });
    machine.approve();
    let boot = machine.boot();
    boot.assert_failed("PreJoinFailed", "command 0001 exited with 7");
    assert!(
        machine.has("ran") && !boot.called("systemctl restart"),
        "{boot:?}"
    );
    assert!(!machine.has("var/lib/kubelet/config.yaml") && !machine.has("run/cluster-api"));
    machine.write("ok", "");
    machine.assert_joined(&machine.boot());
}

#[test]
fn a_machine_that_times_out_does_not_join_later() {
    let machine = Machine::new(|_| {});
    machine.write("journal", &format!("cannot use token a1b2c3.{SECRET} 'x'\n"));
    let boot = machine.boot();
    boot.assert_failed(
        "JoinTimeout",
        "no client certificate within joinTimeout (60 s): cannot use",
    );
    assert!(boot.reports.contains("(token)"), "{boot:?}");
    assert!(
        boot.called("systemctl restart") && !machine.has("kubelet-runs"),
        "{boot:?}"
    );
    // Nothing that lets the image's kubelet join at the next boot before the script runs.
    assert!(!machine.has("var/lib/kubelet/config.yaml"));
    assert!(!machine.has("etc/kubernetes/bootstrap-kubelet.conf"));
    assert!(!machine.has("var/lib/kamaji/joined") && !machine.has("run/cluster-api"));
    machine.approve();
    machine.assert_joined(&machine.boot());
}

#[test]
fn a_machine_whose_node_is_refused_has_not_joined() {
    let machine = Machine::new(|_| {});
    machine.approve();
    machine.write("refused", "");
    machine.write("journal", "Unable to register node with API server\n");
    let boot = machine.boot();
    boot.assert_failed(
        "JoinTimeout",
        "the API server has no Node m-0 within joinTimeout (60 s): Unable to register",
    );
    assert!(!machine.has("var/lib/kamaji/joined") && !machine.has("run/cluster-api"));
    machine.remove("refused");
    machine.assert_joined(&machine.boot());
}

#[test]
fn a_name_that_no_node_can_have_is_refused() {
    let machine = Machine::new(|spec| {
        spec.node_registration.name_source = Some(kamaji_api::bootstrap::NameSource::Template);
        spec.node_registration.name_template = Some(format!("a.{}", "b".repeat(62)));
    });
    machine.approve();
    let boot = machine.boot();
    boot.assert_failed("NodeNameInvalid", "of at most 63 characters");
    assert!(!boot.called("systemctl restart"), "{boot:?}");
}

#[test]
fn the_name_of_the_machine_is_added_to_its_hosts() {
    let hosts = |before: &str| {
        let machine = Machine::new(|spec| spec.node_registration.set_hostname = Some(true));
        machine.approve();
        machine.write("etc/hosts", before);
        machine.assert_joined(&machine.boot());
        assert_eq!(machine.read("etc/hostname"), "m-0\n");
        machine.read("etc/hosts")
    };
    for known in ["127.0.1.1 a m-0\n", "127.0.1.1\tm-0 # me\n"] {
        assert_eq!(hosts(known), known);
    }
    for other in ["10.0.0.5 m-0-a m-0.example.com\n", "10.0.0.5 a # m-0\n"] {
        assert_eq!(hosts(other), format!("{other}127.0.1.1 m-0\n"));
    }
}

#[test]
fn a_command_that_does_not_end_is_reported_with_the_field_to_change() {
    let machine = Machine::new(|spec| spec.pre_join_commands = vec!["true".into(), "sleep 400".into()]);
    let boot = machine.boot();
    boot.assert_failed(
        "JoinTimeout",
        "command 0001 did not end within joinTimeout (60 s)",
    );
}

#[test]
fn a_command_that_hangs_is_ended() {
    let machine = Machine::new(|spec| {
        spec.join_timeout = Some(Duration::from_secs(1).into());
        spec.pre_join_commands = vec!["exec sleep 600".into()];
    });
    machine.use_real_time();
    machine
        .boot()
        .assert_failed("JoinTimeout", "command 0000 did not end within joinTimeout (1 s)");
}

#[test]
fn a_join_that_is_stopped_reports_why() {
    let machine = Machine::new(|spec| spec.pre_join_commands = vec![TERM.into()]);
    machine.boot().assert_failed("JoinTimeout", "joinTimeout is 60 s");
    machine.write("system", "stopping\n");
    let boot = machine.boot();
    assert_eq!(
        (boot.code, boot.reports.as_str()),
        (Some(1), ""),
        "a shutdown: {boot:?}"
    );
}

#[test]
fn reasons_of_the_api_server_and_of_the_runtime() {
    let machine = Machine::new(|_| {});
    machine.write("unreachable", "");
    machine
        .boot()
        .assert_failed("APIServerUnreachable", "https://10.88.0.1:31443");
    let machine = Machine::new(|_| {});
    machine.remove("run/containerd/containerd.sock");
    machine
        .boot()
        .assert_failed("RuntimeUnavailable", "containerd.sock");
}

#[test]
fn an_unexpected_failure_is_reported_too() {
    let machine = Machine::new(|_| {});
    machine.write("etc/kubernetes", "a file where a folder should be");
    machine
        .boot()
        .assert_failed("JoinFailed", "journalctl -u kamaji-join");
}

#[test]
fn a_certificate_without_token_and_marker_completes_the_join() {
    let machine = Machine::new(|spec| spec.post_join_commands = vec!["touch {root}/ran".into()]);
    machine.approve();
    machine.assert_joined(&machine.boot());
    machine.remove("var/lib/kamaji/joined");
    machine.remove("var/lib/kamaji/post.d.0000");
    machine.remove("ran");
    machine.assert_joined(&machine.boot());
    assert!(machine.has("ran"), "commands after the join");
    machine.remove("var/lib/kubelet/pki/kubelet-client-current.pem");
    let boot = machine.boot();
    assert!(
        boot.printed("failed: TokenMissing: neither a token nor a valid certificate: delete the Machine"),
        "{boot:?}"
    );
    assert!(
        machine.has("var/lib/kubelet/config.yaml"),
        "the kubelet may have another credential"
    );
}

#[test]
fn a_crash_at_any_step_ends_in_a_join() {
    let steps = {
        let machine = Machine::new(|_| {});
        machine.approve();
        machine.assert_joined(&machine.boot());
        machine.steps()
    };
    assert!(steps > 10, "{steps}");
    // Every step from where the kubelet is started; a sample before, where steps are all alike.
    for step in (1..=steps).filter(|step| step % 5 == 0 || step + 9 > steps) {
        let machine = Machine::new(|spec| {
            spec.post_join_commands = vec!["echo ran >>{root}/ran".into()];
            spec.control_plane.tls_server_name = Some("api.example.com".into());
        });
        machine.approve();
        machine.crash_at(step);
        assert_eq!(machine.boot().code, None, "step {step}");
        machine.crash_at(0);
        let boot = machine.boot();
        machine.assert_joined(&boot);
        assert_eq!(machine.read("ran"), "ran\n", "step {step}");
        assert_eq!(machine.with_secret(), Vec::<String>::new(), "step {step}");
    }
}

#[test]
fn commands_after_the_join_go_on_where_one_failed() {
    let machine = Machine::new(|spec| {
        spec.post_join_commands = vec![
            "echo a >>{root}/ran".into(),
            "[ -e {root}/ok ]".into(),
            "echo c >>{root}/ran".into(),
        ];
    });
    machine.approve();
    let boot = machine.boot();
    assert_eq!(boot.code, Some(1), "{boot:?}");
    assert!(
        boot.printed("failed: PostJoinFailed: command 0001 exited with 1"),
        "{boot:?}"
    );
    assert!(boot.reports.is_empty(), "no token, no report");
    assert!(
        machine.has("kubelet-runs") && machine.has("run/cluster-api"),
        "it is a node"
    );
    assert_eq!(machine.boot().code, Some(1), "not forgotten");
    machine.write("ok", "");
    for _ in 0..2 {
        machine.assert_joined(&machine.boot());
        assert_eq!(machine.read("ran"), "a\nc\n");
    }
}

#[test]
fn commands_after_the_join_have_their_own_time() {
    let machine = Machine::new(|spec| {
        spec.pre_join_commands = vec!["sleep 50".into()];
        spec.post_join_commands = vec!["sleep 50".into(), "sleep 50".into()];
    });
    machine.approve();
    let boot = machine.boot();
    assert!(
        boot.printed("failed: JoinTimeout: post.d: command 0001 did not end"),
        "{boot:?}"
    );
    assert!(
        machine.has("kubelet-runs") && machine.has("run/cluster-api"),
        "it is a node"
    );
}

const SWAPS: &str = "Filename Type Size Used Priority\n/dev/sda2 partition 1 0 -2\n";
const UNITS: &str =
    "dev-sda2.swap loaded active active /dev/sda2\ndev-disk-by\\x2dlabel-a.swap loaded active active x\n";

#[test]
fn swap_is_turned_off_for_good_at_every_boot() {
    let machine = Machine::new(|_| {});
    machine.approve();
    machine.write(
        "etc/fstab",
        "/dev/sda1 / ext4 defaults 0 1\n/dev/sda2 none swap sw 0 0\n",
    );
    for _ in 0..2 {
        machine.write("proc/swaps", SWAPS);
        machine.write("swap-units", UNITS);
        let boot = machine.boot();
        machine.assert_joined(&boot);
        let calls = [
            "systemctl mask dev-sda2.swap",
            r"systemctl mask dev-disk-by\x2dlabel-a.swap",
            "swapoff -a",
        ]
        .map(|call| boot.calls.lines().position(|line| line == call));
        assert!(calls[0].is_some() && calls.is_sorted(), "{boot:?}");
        let fstab = "/dev/sda1 / ext4 defaults 0 1\n# kamaji: /dev/sda2 none swap sw 0 0\n";
        assert_eq!(machine.read("etc/fstab"), fstab);
    }
}

#[test]
fn swap_that_cannot_be_turned_off_is_reported() {
    let machine = Machine::new(|_| {});
    machine.approve();
    machine.write("proc/swaps", SWAPS);
    machine.write("swap-stays", "");
    machine.boot().assert_failed("SwapOn", "set os.swap: Keep");
}

#[test]
fn swap_stays_on_where_the_spec_keeps_it() {
    let machine = Machine::new(|spec| spec.os.swap = kamaji_api::bootstrap::Swap::Keep);
    machine.approve();
    machine.write("proc/swaps", SWAPS);
    let boot = machine.boot();
    machine.assert_joined(&boot);
    assert!(
        !boot.called("swapoff") && !boot.called("systemctl mask"),
        "{boot:?}"
    );
}

#[test]
fn a_kubelet_that_fails_on_control_groups_v1_is_not_started() {
    let machine = Machine::new(|spec| spec.kubelet.cgroup_v1 = kamaji_api::bootstrap::CgroupV1::Fail);
    machine.write("cgroup", "tmpfs\n");
    machine
        .boot()
        .assert_failed("CgroupV1", "kubelet.cgroupV1: Allow");
}

#[test]
fn systemd_reads_back_the_value() {
    assert_eq!(argument("x", r#"a"b\c%d$e f"#), r#""--x=a\"b\\c%%d$$e f""#);
}

#[test]
fn the_shell_reads_back_the_value() {
    assert_eq!(shell("a-b.c/d:1"), "a-b.c/d:1");
    assert_eq!(shell(""), "''");
    assert_eq!(shell("it's $HOME `x`"), r"'it'\''s $HOME `x`'");
}

#[test]
fn the_unit_waits_for_every_stage() {
    let seconds = |commands_after| {
        let unit = join_unit(Duration::from_mins(10), commands_after).unwrap();
        let line = unit.lines().find(|line| line.starts_with("TimeoutStartSec="));
        line.unwrap().to_owned()
    };
    assert_eq!(seconds(false), "TimeoutStartSec=720");
    assert_eq!(seconds(true), "TimeoutStartSec=1320");
}

#[test]
fn the_script_has_the_parts_that_its_config_needs() {
    let parts = |names: &'static [&str]| {
        let script: Vec<_> = bare_script(|name| names.contains(&name)).collect();
        ["tls-server-name", "/etc/hostname", "ip -o "]
            .map(|part| script.iter().any(|line| line.contains(part)))
    };
    assert_eq!(parts(&[]), [false; 3]);
    assert_eq!(
        parts(&["TLS_NAME", "SET_HOSTNAME", "NODE_IP_INTERFACE"]),
        [true; 3]
    );
    assert_eq!(parts(&["SET_HOSTNAME"]), [false, true, false]);
}

#[test]
fn the_script_on_the_machine_has_no_comments_and_never_traces() {
    let script: Vec<_> = bare_script(|_| true).collect();
    let script = script.join("\n");
    assert!(script.starts_with("#!/bin/sh\nset -eu\n"));
    assert!(!script.lines().skip(1).any(|line| line.starts_with('#')));
    assert!(!script.contains("set -x") && !script.contains("kubeadm"));
}

/// A machine whose label comes from this text in the place of what cloud-init evaluates.
fn labelled(text: &str) -> Machine {
    let template = text.to_owned();
    Machine::new(move |spec| {
        let registration = &mut spec.node_registration;
        registration.labels.insert("example.com/site".into(), "a".into());
        let templates = &mut registration.label_templates;
        templates.insert("metal3.io/uuid".into(), template);
        templates.insert("example.com/rack".into(), "r-7".into());
    })
}

#[test]
fn labels_that_only_the_machine_knows_are_flags_of_the_kubelet() {
    let machine = labelled("0b0d1c2e-3f4a-4b5c-8d6e-7f8091a2b3c4");
    machine.approve();
    machine.assert_joined(&machine.boot());
    let unit = machine.read("etc/systemd/system/kubelet.service.d/90-kamaji.conf");
    let labels =
        "  --node-labels=example.com/rack=r-7,metal3.io/uuid=0b0d1c2e-3f4a-4b5c-8d6e-7f8091a2b3c4 \\\n";
    assert!(unit.contains(labels), "{unit}");
    assert!(
        unit.contains("\"--node-labels=example.com/site=a\" \\\n"),
        "{unit}"
    );
}

#[test]
fn bootstrap_46_metadata_without_the_value_of_a_label_ends_the_join() {
    let boot = labelled("CI_MISSING_JINJA_VAR/uuid").boot();
    boot.assert_failed(
        "NodeLabelInvalid",
        "lacks a value of nodeRegistration.labelTemplates for metal3.io/uuid",
    );
    for text in [
        "",
        "a b",
        "x,node-role.kubernetes.io/y=",
        "a|e",
        "a&b",
        "$(id)",
        &"a".repeat(64),
    ] {
        let boot = labelled(text).boot();
        boot.assert_failed(
            "NodeLabelInvalid",
            "nodeRegistration.labelTemplates for metal3.io/uuid give",
        );
        assert!(!boot.called("systemctl restart"), "{boot:?}");
    }
}

#[test]
fn metadata_of_several_lines_is_no_further_fact() {
    let path = "etc/kamaji/bootstrap/node.facts";
    let machine = labelled("{{ ds.meta_data.uuid }}");
    machine.approve();
    let facts = machine.read(path);
    for value in [
        "u\nlabel1=mine",
        "u\nx|e id\n",
        "u\nnodename=other",
        "u\n",
        "u\nlabel0=v",
    ] {
        machine.write(path, &facts.replace("{{ ds.meta_data.uuid }}", value));
        let boot = machine.boot();
        assert!(
            boot.printed("failed: NodeNameInvalid: the instance metadata gives a value of several lines"),
            "{boot:?}"
        );
        assert!(!boot.called("systemctl restart"), "{boot:?}");
        // Another failure would not be reported twice.
        machine.write("run/kamaji-join", "");
    }
    machine.write(path, &facts.replace("{{ ds.meta_data.uuid }}", "u"));
    machine.assert_joined(&machine.boot());
    let unit = machine.read("etc/systemd/system/kubelet.service.d/90-kamaji.conf");
    assert!(
        unit.contains("--node-labels=example.com/rack=r-7,metal3.io/uuid=u \\\n"),
        "{unit}"
    );
}

#[test]
fn bootstrap_46_metadata_without_the_provider_id_ends_the_join() {
    let machine = Machine::new(|spec| {
        spec.node_registration.provider_id.source = ProviderIdSource::Template;
        spec.node_registration.provider_id.template =
            Some("proxmox://CI_MISSING_JINJA_VAR/instance_id".into());
    });
    let boot = machine.boot();
    boot.assert_failed(
        "NodeNameInvalid",
        "lacks a value of nodeRegistration.providerID.template",
    );
    assert!(!boot.called("systemctl restart"), "{boot:?}");
}

#[test]
fn bootstrap_54_a_kubelet_of_another_minor_is_reported_and_one_of_another_patch_joins() {
    let with = |version: &str, check: Option<VersionCheck>| {
        let machine = Machine::new(|spec| spec.version_check = check);
        machine.write(
            "usr/bin/kubelet",
            &format!("#!/bin/sh\necho Kubernetes {version}\n"),
        );
        machine.approve();
        let boot = machine.boot();
        (machine, boot)
    };
    let both = "the kubelet is 1.35.4, spec.version of the Machine is 1.36.3";
    let (_, boot) = with("v1.35.4", None);
    boot.assert_failed("KubeletVersionMismatch", both);
    assert!(!boot.called("systemctl restart"), "{boot:?}");
    let (machine, boot) = with("v1.36.1", None);
    machine.assert_joined(&boot);
    assert!(boot.printed("warning: the kubelet is 1.36.1"), "{boot:?}");
    for other in ["1.36.1", "1.36.3-custom+1"] {
        let (_, boot) = with(&format!("v{other}"), Some(VersionCheck::Exact));
        boot.assert_failed(
            "KubeletVersionMismatch",
            &format!("the kubelet is {other}, spec.version of the Machine is 1.36.3: use an image"),
        );
        assert!(boot.reports.contains("versionCheck: Minor"), "{boot:?}");
    }
    let (machine, boot) = with("v1.36.3", Some(VersionCheck::Exact));
    machine.assert_joined(&boot);
    let (machine, boot) = with("v1.35.4", Some(VersionCheck::Off));
    machine.assert_joined(&boot);
}

#[test]
fn bootstrap_55_a_missing_kubelet_or_container_runtime_is_reported_at_once() {
    let machine = Machine::new(|_| {});
    machine.approve();
    machine.remove("usr/bin/kubelet");
    let boot = machine.boot();
    boot.assert_failed("ComponentMissing", "/opt/kamaji/bin/kubelet");
    assert!(!boot.called("systemctl restart"), "{boot:?}");

    let machine = Machine::new(|_| {});
    machine.approve();
    machine.write("no-containerd", "");
    machine.remove("run/containerd/containerd.sock");
    let before = machine.read("proc/uptime");
    let boot = machine.boot();
    boot.assert_failed("ComponentMissing", "no containerd.service");
    assert!(!boot.called("systemctl restart"), "{boot:?}");
    assert_eq!(machine.read("proc/uptime"), before, "it waited");

    // A runtime that the image has, and that is slow, is waited for.
    machine.remove("no-containerd");
    machine
        .run()
        .assert_failed("RuntimeUnavailable", "no container runtime answers");
}
