//! Bad input, by row of bootstrap.md 7.

use kamaji_api::{
    bootstrap::{KamajiConfigSpec, KubeletArg},
    conditions::Reason,
};
use rstest::rstest;
use semver::Version;
use serde_json::{Value, json};

use super::{skew, spec, version};

fn of(value: Value) -> KamajiConfigSpec {
    serde_json::from_value(value).unwrap()
}

#[test]
fn the_default_and_the_examples_are_valid() {
    assert_eq!(spec(&KamajiConfigSpec::default()), []);
    let example = of(json!({
        "nodeRegistration": {
            "taints": [{"key": "dedicated", "value": "edge", "effect": "NoSchedule"}],
            "labels": {"example.com/site": "tallinn", "topology.kubernetes.io/zone": "a"},
            "kubeletExtraArgs": [{"name": "v", "value": "4"}],
            "criSocket": "unix:///run/containerd/containerd.sock",
            "nodeIP": {"address": "10.0.0.1,fd00::1"},
        },
        "kubelet": {"config": {"maxPods": 60, "failCgroupV1": false, "protectKernelDefaults": false}},
        "users": [{"name": "ops", "sudo": "ALL=(ALL) NOPASSWD:ALL", "sshAuthorizedKeys": ["ssh-ed25519 AAAA ops"]}],
        "files": [{"path": "/opt/a", "content": "x", "permissions": "0640", "owner": "root:root"}],
        "preJoinCommands": ["test -b /dev/vdb"],
        "joinTimeout": "20m",
    }));
    assert_eq!(spec(&example), []);
}

#[rstest]
#[case::role(json!({"nodeRegistration": {"labels": {"node-role.kubernetes.io/worker": ""}}}), Reason::LabelNotAllowed, "set it on the Machine")]
#[case::restriction(json!({"nodeRegistration": {"labels": {"a.node-restriction.kubernetes.io/b": ""}}}), Reason::LabelNotAllowed, "set it on the Machine")]
#[case::k8s(json!({"nodeRegistration": {"labels": {"foo.k8s.io/x": "y"}}}), Reason::LabelNotAllowed, "foo.k8s.io/x")]
#[case::anonymous(json!({"kubelet": {"config": {"authentication": {"anonymous": {"enabled": true}}}}}), Reason::ProtectedSetting, "kubelet.config.authentication.anonymous.enabled")]
#[case::always_allow(json!({"kubelet": {"config": {"authorization": {"mode": "AlwaysAllow"}}}}), Reason::ProtectedSetting, "allowUnsafeOverrides")]
#[case::read_only_port(json!({"kubelet": {"config": {"readOnlyPort": 10255}}}), Reason::ProtectedSetting, "readOnlyPort")]
#[case::taints_in_config(json!({"kubelet": {"config": {"registerWithTaints": []}}}), Reason::InvalidSpec, "use nodeRegistration.taints")]
#[case::reserved(json!({"files": [{"path": "/etc/kamaji/bootstrap/join.sh", "content": ""}]}), Reason::ReservedPath, "files[0].path")]
#[case::reserved_sentinel(json!({"files": [{"path": "/run/cluster-api/bootstrap-success.complete", "content": ""}]}), Reason::ReservedPath, "files[0]")]
#[case::reserved_drop_in(json!({"files": [{"path": "/etc/kubernetes/kubelet.conf.d/99-x.conf", "content": ""}]}), Reason::ReservedPath, "use kubelet.config")]
#[case::relative(json!({"files": [{"path": "etc/x", "content": ""}]}), Reason::InvalidSpec, "absolute")]
#[case::dots(json!({"files": [{"path": "/opt/../etc/kamaji/x", "content": ""}]}), Reason::InvalidSpec, "absolute")]
#[case::duplicate(json!({"files": [{"path": "/a", "content": ""}, {"path": "/a", "content": ""}]}), Reason::InvalidSpec, "twice")]
#[case::both(json!({"files": [{"path": "/a", "content": "", "contentFrom": {"secret": {"name": "a", "key": "b"}}}]}), Reason::InvalidSpec, "either content or contentFrom")]
#[case::neither(json!({"files": [{"path": "/a"}]}), Reason::InvalidSpec, "either content or contentFrom")]
#[case::mode(json!({"files": [{"path": "/a", "content": "", "permissions": "0999"}]}), Reason::InvalidSpec, "octal")]
#[case::unbalanced(json!({"files": [{"path": "/a", "content": "{{ x", "contentFormat": "Jinja"}]}), Reason::InvalidSpec, "not closed")]
#[case::ignition(json!({"format": "ignition"}), Reason::FieldNotSupported, "cloud-config")]
#[case::template_without_source(json!({"nodeRegistration": {"nameTemplate": "x"}}), Reason::InvalidSpec, "nameSource: Template")]
#[case::ttl(json!({"auth": {"token": {"ttl": "1m"}}}), Reason::InvalidSpec, "auth.token.ttl must be from 5m to 1440m")]
#[case::join_timeout(json!({"joinTimeout": "2h"}), Reason::InvalidSpec, "joinTimeout")]
#[case::address(json!({"nodeRegistration": {"nodeIP": {"address": "example.com"}}}), Reason::InvalidSpec, "nodeIP")]
#[case::taint_twice(json!({"nodeRegistration": {"taints": [{"key": "a", "effect": "NoSchedule"}, {"key": "a", "value": "b", "effect": "NoSchedule"}]}}), Reason::InvalidSpec, "twice")]
#[case::module(json!({"os": {"modules": ["a b"]}}), Reason::InvalidSpec, "os.modules")]
#[case::sysctl(json!({"os": {"sysctls": {"../x": "1"}}}), Reason::InvalidSpec, "os.sysctls")]
#[case::user(json!({"users": [{"name": "a b"}]}), Reason::InvalidSpec, "users[0].name")]
#[case::carriage_return(json!({"preJoinCommands": ["a\r\nb"]}), Reason::InvalidSpec, "preJoinCommands[0]")]
fn bootstrap_31_to_41_bad_input_names_field_and_fix(
    #[case] value: Value,
    #[case] reason: Reason,
    #[case] text: &str,
) {
    let problems = spec(&of(value));
    assert!(
        problems
            .iter()
            .any(|problem| problem.reason == reason && problem.message.contains(text)),
        "{problems:?}"
    );
}

#[rstest]
#[case::denied("config", "x", Reason::ProtectedSetting)]
#[case::dashes("--v", "4", Reason::InvalidSpec)]
#[case::newline("v", "4\n5", Reason::InvalidSpec)]
#[case::typed("node-ip", "10.0.0.1", Reason::ProtectedSetting)]
#[case::anonymous("anonymous-auth", "true", Reason::ProtectedSetting)]
fn bootstrap_33_flags_that_are_ours_or_malformed(
    #[case] name: &str,
    #[case] value: &str,
    #[case] reason: Reason,
) {
    let mut config = KamajiConfigSpec::default();
    config.node_registration.kubelet_extra_args = vec![KubeletArg {
        name: name.to_owned(),
        value: value.to_owned(),
    }];
    assert_eq!(spec(&config).first().map(|problem| problem.reason), Some(reason));
}

#[test]
fn bootstrap_32_unsafe_settings_pass_when_they_are_asked_for() {
    let config = of(json!({"kubelet": {"config": {"readOnlyPort": 10255}, "allowUnsafeOverrides": true}}));
    assert_eq!(spec(&config), []);
}

#[test]
fn versions_that_do_not_fit_are_named() {
    let at = |minor| Version::new(1, minor, 3);
    assert!(skew(&at(36), &at(36)).is_none() && skew(&at(33), &at(36)).is_none());
    assert_eq!(skew(&at(36), &at(35)).unwrap().reason, Reason::VersionSkew);
    assert_eq!(skew(&at(32), &at(36)).unwrap().reason, Reason::VersionSkew);
    assert_eq!(
        version(&KamajiConfigSpec::default(), &at(29))[0].reason,
        Reason::VersionNotSupported
    );
    assert_eq!(version(&KamajiConfigSpec::default(), &at(30)), []);
}
