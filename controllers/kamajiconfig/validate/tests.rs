//! Invalid specs: each problem has its reason, its field and the fix.

use kamaji_api::{
    bootstrap::{
        DENIED_FLAG_WORDS, DENIED_FLAGS, KUBELET_LABEL_DOMAINS, KUBELET_LABELS, KamajiConfigSpec, KubeletArg,
        RESERVED_PATHS,
    },
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
            "taints": [
                {"key": "dedicated", "value": "edge", "effect": "NoSchedule"},
                {"key": "node.cluster.x-k8s.io/uninitialized", "effect": "NoSchedule"},
            ],
            "labels": {"example.com/site": "tallinn", "topology.kubernetes.io/zone": "a"},
            "kubeletExtraArgs": [{"name": "v", "value": "4"}],
            "criSocket": "unix:///run/containerd/containerd.sock",
            "nodeIP": {"address": "10.0.0.1,fd00::1"},
        },
        "kubelet": {"config": {"maxPods": 60, "failCgroupV1": false, "protectKernelDefaults": false}},
        "users": [{"name": "ops", "sudo": "ALL=(ALL) NOPASSWD:ALL", "sshAuthorizedKeys": ["ssh-ed25519 AAAA ops"]}],
        "files": [{"path": "/opt/a", "content": "x", "permissions": "0640", "owner": "root:root"}],
        "preJoinCommands": ["test -b /dev/vdb", "crictl inspect -o go-template --template '{{ .status.state }}' x"],
        "joinTimeout": "20m",
    }));
    assert_eq!(spec(&example), []);
}

#[rstest]
#[case::role(json!({"nodeRegistration": {"labels": {"node-role.kubernetes.io/worker": ""}}}), Reason::LabelNotAllowed, "set it on the Machine")]
#[case::restriction(json!({"nodeRegistration": {"labels": {"a.node-restriction.kubernetes.io/b": ""}}}), Reason::LabelNotAllowed, "set it on the Machine")]
#[case::machine(json!({"nodeRegistration": {"labels": {"node.cluster.x-k8s.io/pool": "a"}}}), Reason::LabelNotAllowed, "this provider leaves labels of node.cluster.x-k8s.io to Cluster API; set it on the Machine")]
#[case::failure_domain(json!({"nodeRegistration": {"labels": {"failure-domain.kubernetes.io/zone": "a"}}}), Reason::LabelNotAllowed, "a kubelet may not set")]
#[case::k8s(json!({"nodeRegistration": {"labels": {"foo.k8s.io/x": "y"}}}), Reason::LabelNotAllowed, "foo.k8s.io/x")]
#[case::anonymous(json!({"kubelet": {"config": {"authentication": {"anonymous": {"enabled": true}}}}}), Reason::ProtectedSetting, "kubelet.config.authentication.anonymous.enabled")]
#[case::always_allow(json!({"kubelet": {"config": {"authorization": {"mode": "AlwaysAllow"}}}}), Reason::ProtectedSetting, "allowUnsafeOverrides")]
#[case::read_only_port(json!({"kubelet": {"config": {"readOnlyPort": 10255}}}), Reason::ProtectedSetting, "readOnlyPort")]
#[case::taints_in_config(json!({"kubelet": {"config": {"registerWithTaints": []}}}), Reason::InvalidSpec, "use nodeRegistration.taints")]
#[case::reserved(json!({"files": [{"path": "/etc/kamaji/bootstrap/join.sh", "content": ""}]}), Reason::ReservedPath, "files[0].path")]
#[case::reserved_sentinel(json!({"files": [{"path": "/run/cluster-api/bootstrap-success.complete", "content": ""}]}), Reason::ReservedPath, "files[0]")]
#[case::reserved_drop_in(json!({"files": [{"path": "/etc/kubernetes/kubelet.conf.d/99-x.conf", "content": ""}]}), Reason::ReservedPath, "kubelet.config")]
#[case::reserved_unit(json!({"files": [{"path": "/etc/systemd/system/kubelet.service", "content": ""}]}), Reason::ReservedPath, "files[0].path")]
#[case::expression_in_a_path(json!({"files": [{"path": "/{{ x }}", "content": ""}, {"path": "/a", "content": "", "contentFormat": "Jinja"}]}), Reason::InvalidSpec, "files[0].path holds {{")]
#[case::not_base64(json!({"files": [{"path": "/a", "content": "a b!", "encoding": "base64"}]}), Reason::InvalidSpec, "files[0].content is not base64")]
#[case::not_gzip(json!({"files": [{"path": "/a", "content": "x", "encoding": "gzip"}]}), Reason::InvalidSpec, "files[0].content is not compressed with gzip")]
#[case::relative(json!({"files": [{"path": "etc/x", "content": ""}]}), Reason::InvalidSpec, "absolute")]
#[case::dots(json!({"files": [{"path": "/opt/../etc/kamaji/x", "content": ""}]}), Reason::InvalidSpec, "absolute")]
#[case::duplicate(json!({"files": [{"path": "/a", "content": ""}, {"path": "/a", "content": ""}]}), Reason::InvalidSpec, "twice")]
#[case::both(json!({"files": [{"path": "/a", "content": "", "contentFrom": {"secret": {"name": "a", "key": "b"}}}]}), Reason::InvalidSpec, "either content or contentFrom")]
#[case::neither(json!({"files": [{"path": "/a"}]}), Reason::InvalidSpec, "either content or contentFrom")]
#[case::mode(json!({"files": [{"path": "/a", "content": "", "permissions": "0999"}]}), Reason::InvalidSpec, "octal")]
#[case::unbalanced(json!({"files": [{"path": "/a", "content": "{{ x", "contentFormat": "Jinja"}]}), Reason::InvalidSpec, "not closed")]
#[case::ignition(json!({"format": "ignition"}), Reason::FieldNotSupported, "cloud-config")]
#[case::template_without_source(json!({"nodeRegistration": {"nameTemplate": "x"}}), Reason::InvalidSpec, "nameSource: Template")]
#[case::ttl(json!({"auth": {"token": {"ttl": "1m"}}}), Reason::InvalidSpec, "auth.token.ttl must be between 5m and 24h")]
#[case::longest_life(json!({"auth": {"token": {"maxLifetime": "169h"}}}), Reason::InvalidSpec, "auth.token.maxLifetime must be between 15m and 168h")]
#[case::longest_life_below_life(json!({"auth": {"token": {"ttl": "2h", "maxLifetime": "1h"}}}), Reason::InvalidSpec, "auth.token.maxLifetime must be between 2h and 168h")]
#[case::join_timeout(json!({"joinTimeout": "2h"}), Reason::InvalidSpec, "joinTimeout")]
#[case::address(json!({"nodeRegistration": {"nodeIP": {"address": "example.com"}}}), Reason::InvalidSpec, "nodeIP")]
#[case::taint_twice(json!({"nodeRegistration": {"taints": [{"key": "a", "effect": "NoSchedule"}, {"key": "a", "value": "b", "effect": "NoSchedule"}]}}), Reason::InvalidSpec, "twice")]
#[case::taint_that_stays(json!({"nodeRegistration": {"taints": [{"key": "node.cluster.x-k8s.io/uninitialized", "effect": "NoExecute"}]}}), Reason::InvalidSpec, "node.cluster.x-k8s.io/uninitialized:NoExecute would stay on the Node")]
#[case::unregistered(json!({"kubelet": {"config": {"registerNode": false}}}), Reason::InvalidSpec, "kubelet.config.registerNode")]
#[case::module(json!({"os": {"modules": ["a b"]}}), Reason::InvalidSpec, "os.modules")]
#[case::sysctl(json!({"os": {"sysctls": {"../x": "1"}}}), Reason::InvalidSpec, "os.sysctls")]
#[case::user(json!({"users": [{"name": "a b"}]}), Reason::InvalidSpec, "users[0].name")]
#[case::template_in_a_command(json!({"preJoinCommands": ["true", "hostnamectl set-hostname \"{{ ds.meta_data.hostname }}\""]}), Reason::InvalidSpec, "preJoinCommands[1] reads ds.meta_data.hostname in a template, and commands are not templates: write $(cloud-init query ds.meta_data.hostname)")]
#[case::template_in_a_later_command(json!({"postJoinCommands": ["echo {{ v1.instance_id }}"]}), Reason::InvalidSpec, "postJoinCommands[0] reads v1.instance_id")]
#[case::template_in_a_raw_file(json!({"files": [{"path": "/a", "content": "{{ ds.meta_data.local_ipv4 }}"}]}), Reason::InvalidSpec, "files[0].content reads ds.meta_data.local_ipv4 in a template, and nothing evaluates it: set contentFormat: Jinja")]
#[case::template_in_a_flag(json!({"nodeRegistration": {"kubeletExtraArgs": [{"name": "address", "value": "{{ ds.meta_data.local_ipv4 }}"}]}}), Reason::InvalidSpec, "kubeletExtraArgs[0].value reads ds.meta_data.local_ipv4")]
#[case::template_in_the_configuration(json!({"kubelet": {"config": {"address": "{{ ds.meta_data.local_ipv4 }}"}}}), Reason::InvalidSpec, "kubelet.config reads ds.meta_data.local_ipv4")]
#[case::template_in_a_sysctl(json!({"os": {"sysctls": {"kernel.domainname": "{{ v1.region }}"}}}), Reason::InvalidSpec, "os.sysctls: kernel.domainname reads v1.region")]
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
fn bootstrap_33_flags_that_are_reserved_or_malformed(
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

/// What the CRD refuses, the controller refuses.
#[test]
fn bootstrap_41_the_controller_has_the_rules_of_the_crd() {
    let first = |value: Value| spec(&of(value)).first().map(|problem| problem.reason);
    for path in RESERVED_PATHS {
        let inside = if path.ends_with('/') { "x" } else { "" };
        let file = json!({"files": [{"path": format!("{path}{inside}"), "content": ""}]});
        assert_eq!(first(file), Some(Reason::ReservedPath), "{path}");
    }
    let further = DENIED_FLAG_WORDS.iter().map(|word| format!("{word}-x"));
    for name in DENIED_FLAGS.iter().map(|name| (*name).to_owned()).chain(further) {
        let registration = json!({"kubeletExtraArgs": [{"name": name, "value": "x"}]});
        assert_eq!(
            first(json!({"nodeRegistration": registration})),
            Some(Reason::ProtectedSetting),
            "{name}"
        );
    }
    for key in KUBELET_LABELS {
        assert_eq!(
            first(json!({"nodeRegistration": {"labels": {*key: "a"}}})),
            None,
            "{key}"
        );
    }
    for domain in KUBELET_LABEL_DOMAINS {
        let labels = json!({format!("x.{domain}/y"): "a"});
        assert_eq!(
            first(json!({"nodeRegistration": {"labels": labels}})),
            None,
            "{domain}"
        );
    }
    for (least, most) in [("5m", "24h"), ("24h", "24h")] {
        assert_eq!(
            first(json!({"auth": {"token": {"ttl": least, "maxLifetime": most}}})),
            None
        );
    }
}

#[test]
fn bootstrap_32_unsafe_settings_are_valid_with_allow_unsafe_overrides() {
    let config = of(json!({"kubelet": {"config": {"readOnlyPort": 10255}, "allowUnsafeOverrides": true}}));
    assert_eq!(spec(&config), []);
}

#[test]
fn unsupported_versions_and_version_skew_are_named() {
    let at = |minor| Version::new(1, minor, 3);
    let skew = |kubelet, control_plane| skew("spec.version of Machine m-0", &at(kubelet), &at(control_plane));
    assert!(skew(36, 36).is_none() && skew(33, 36).is_none());
    for (kubelet, control_plane) in [(36, 35), (37, 36), (32, 36)] {
        let problem = skew(kubelet, control_plane).unwrap();
        assert_eq!(problem.reason, Reason::VersionSkew);
        let named = format!("spec.version of Machine m-0 is v1.{kubelet}.3, ");
        assert!(problem.message.starts_with(&named), "{}", problem.message);
        let other = format!("than the control plane's v1.{control_plane}.3: ");
        assert!(problem.message.contains(&other), "{}", problem.message);
    }
    let old = &version(
        &KamajiConfigSpec::default(),
        "spec.version of Machine m-0",
        &at(29),
    )[0];
    assert_eq!(old.reason, Reason::VersionNotSupported);
    assert!(
        old.message
            .starts_with("spec.version of Machine m-0 is v1.29.3, "),
        "{}",
        old.message
    );
    assert_eq!(version(&KamajiConfigSpec::default(), "m-0", &at(30)), []);
}
