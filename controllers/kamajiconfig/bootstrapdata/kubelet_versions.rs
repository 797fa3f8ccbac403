//! What the kubelet of a minor version knows: fields that the provider may write, and settings of a user with which that
//! kubelet does not start, or which it ignores. Pure. A minor version that the data does not have is not judged, apart from
//! the gates that fields need, which are those of the nearest one.

use std::sync::LazyLock;

use kamaji_api::{
    bootstrap::KamajiConfigSpec,
    kubelets::{EMBEDDED, Kubelet, Kubelets},
};
use semver::Version;
use serde_json::Value;

/// What is known.
static KNOWN: LazyLock<Kubelets> = LazyLock::new(|| serde_json::from_str(EMBEDDED).unwrap_or_default());

/// Fields with which a kubelet does not start while a feature gate is off, unless they are empty or have a value that is
/// harmless. Source: the validation of KubeletConfiguration, `pkg/kubelet/apis/config/validation` of
/// <https://github.com/kubernetes/kubernetes>.
const GATED: [(&str, &str, &str); 13] = [
    ("cpuCFSQuotaPeriod", "CustomCPUCFSQuotaPeriod", "100ms"),
    ("crashLoopBackOff", "KubeletCrashLoopBackOffMax", ""),
    ("enableSystemLogQuery", "NodeLogQuery", ""),
    ("imageMaximumGCAge", "ImageMaximumGCAge", "0s"),
    (
        "imagePullCredentialsVerificationPolicy",
        "KubeletEnsureSecretPulledImages",
        "",
    ),
    ("memoryReservationPolicy", "MemoryQoS", "None"),
    ("memorySwap", "NodeSwap", ""),
    (
        "preloadedImagesVerificationAllowlist",
        "KubeletEnsureSecretPulledImages",
        "",
    ),
    ("serverTLSBootstrap", "RotateKubeletServerCertificate", ""),
    ("shutdownGracePeriod", "GracefulNodeShutdown", "0s"),
    (
        "shutdownGracePeriodByPodPriority",
        "GracefulNodeShutdownBasedOnPodPriority",
        "",
    ),
    ("shutdownGracePeriodCriticalPods", "GracefulNodeShutdown", "0s"),
    ("tracing", "KubeletTracing", ""),
];
/// Gates that set all gates of a stage which are not set by their own names.
const STAGES: [(&str, bool); 2] = [("AllAlpha", true), ("AllBeta", false)];

/// What the kubelet of exactly this minor version knows.
fn of(version: &Version) -> Option<&'static Kubelet> {
    (version.major == 1)
        .then(|| KNOWN.minors.get(&version.minor))
        .flatten()
}

/// What the kubelet of this minor version knows, or of the nearest one.
fn nearest(version: &Version) -> Option<&'static Kubelet> {
    let before = KNOWN.minors.range(..=version.minor).next_back();
    before
        .or_else(|| KNOWN.minors.iter().next())
        .map(|(_, kubelet)| kubelet)
}

/// Whether a feature gate is on in a kubelet of this version with the gates of `spec`. `None` if it depends on the stage of
/// the gate, which the data does not have.
fn is_on(gate: &str, spec: &KamajiConfigSpec, version: &Version) -> Option<bool> {
    let gates = &spec.kubelet.feature_gates;
    if let Some(chosen) = gates.get(gate) {
        return Some(*chosen);
    }
    // A gate that is gone is one that cannot be turned off any more.
    let known = nearest(version).and_then(|kubelet| kubelet.gates.get(gate));
    let default = known.is_none_or(|gate| gate.default());
    let may_be_other = known.is_some_and(|gate| gate.locked().is_none())
        && STAGES
            .iter()
            .any(|(all, value)| gates.get(*all) == Some(value) && default != *value);
    (!may_be_other).then_some(default)
}

/// Removes from the provider's own configuration what the kubelet does not know, or does not start with.
pub fn retain_known(config: &mut Value, spec: &KamajiConfigSpec, version: &Version) {
    let Some(fields) = config.as_object_mut() else {
        return;
    };
    if let Some(kubelet) = of(version) {
        let of_every_object = ["apiVersion", "kind"];
        fields.retain(|field, _| of_every_object.contains(&field.as_str()) || kubelet.fields.contains(field));
    }
    for (field, gate, _) in GATED {
        if is_on(gate, spec, version) != Some(true) {
            fields.remove(field);
        }
    }
}

/// Fields of the configuration that the kubelet of this version does not know, each with the fix. It logs and ignores them.
pub fn unknown_fields(spec: &KamajiConfigSpec, version: &Version) -> Vec<String> {
    let Some(kubelet) = of(version).filter(|_| !spec.kubelet.allow_unsafe_overrides) else {
        return Vec::new();
    };
    let written = spec.kubelet.config.iter().filter(|(_, value)| !value.is_null());
    let unknown = written.filter(|(field, _)| !kubelet.fields.contains(*field));
    unknown
        .map(|(field, _)| {
            let by = minors(|kubelet| kubelet.fields.contains(field));
            let known = if by.is_empty() {
                format!("unknown to kubelets of {}", minors(|_| true))
            } else {
                format!("known to kubelets of {by} alone")
            };
            format!("spec.kubelet.config.{field} is {known}, and v{version} ignores it: check its spelling, or remove it")
        })
        .collect()
}

/// Settings with which the kubelet of this version does not start, each with the fix. `whose` is the field
/// with the version, and its object.
pub fn problems(spec: &KamajiConfigSpec, whose: &str, version: &Version) -> Vec<String> {
    let mut problems = Vec::new();
    let patched = spec.kubelet.allow_unsafe_overrides;
    if let Some(kubelet) = of(version) {
        for (name, value) in &spec.kubelet.feature_gates {
            let setting = format!("kubelet.featureGates.{name}");
            match kubelet.gates.get(name).map(|gate| gate.locked()) {
                None if patched => {}
                None => {
                    let by = minors(|kubelet| kubelet.gates.contains_key(name));
                    problems.push(unknown(&setting, &by, whose, version));
                }
                Some(Some(only)) if only != *value => problems.push(format!(
                    "{setting} is locked to {only} in kubelets of 1.{}, which do not start with another value: remove it",
                    version.minor
                )),
                Some(_) => {}
            }
        }
    }
    for (field, gate, harmless) in GATED {
        let value = spec.kubelet.config.get(field).filter(|value| !value.is_null());
        if value.is_some_and(|value| !is_harmless(value, harmless))
            && is_on(gate, spec, version) == Some(false)
        {
            let by = minors(|kubelet| kubelet.gates.get(gate).is_some_and(|gate| gate.default()));
            let or = if by.is_empty() {
                String::new()
            } else {
                format!(", which is on by default in {by}")
            };
            problems.push(format!(
                "kubelet.config.{field} needs the feature gate {gate}{or}: set kubelet.featureGates.{gate}: true, or remove \
                 the field; v{version}, the {whose}, does not start with it"
            ));
        }
    }
    problems
}

fn is_harmless(value: &Value, harmless: &str) -> bool {
    match value {
        Value::Bool(is_set) => !is_set,
        Value::String(text) => text.is_empty() || text == harmless,
        Value::Array(items) => items.is_empty(),
        Value::Object(fields) => fields.is_empty(),
        Value::Null | Value::Number(_) => false,
    }
}

fn unknown(setting: &str, by: &str, whose: &str, version: &Version) -> String {
    let (known, fix) = if by.is_empty() {
        let known = format!("is unknown to kubelets of {}", minors(|_| true));
        (known, "check its spelling, remove it")
    } else {
        let known = format!("is known to kubelets of {by}, and not to v{version}, the {whose}");
        let fix = "remove it, use another KamajiConfigTemplate for machines of that version";
        (known, fix)
    };
    format!(
        "{setting} {known}: {fix}, or set kubelet.allowUnsafeOverrides: true if the kubelet of your image knows it"
    )
}

/// Minor versions for people, such as `1.33, 1.34`.
fn minors(which: impl Fn(&Kubelet) -> bool) -> String {
    let found: Vec<_> = KNOWN
        .minors
        .iter()
        .filter(|(_, kubelet)| which(kubelet))
        .map(|(minor, _)| format!("1.{minor}"))
        .collect();
    found.join(", ")
}

#[cfg(test)]
mod tests {
    use kamaji_api::bootstrap::{CgroupV1, Swap};
    use rstest::rstest;
    use serde_json::json;

    use super::*;
    use crate::kamajiconfig::bootstrapdata::{inputs::Target, kubelet};

    fn spec(kubelet: Value) -> KamajiConfigSpec {
        KamajiConfigSpec {
            kubelet: serde_json::from_value(kubelet).unwrap(),
            ..KamajiConfigSpec::default()
        }
    }

    fn found(minor: u64, kubelet: Value) -> Vec<String> {
        problems(
            &spec(kubelet),
            "spec.version of Machine m",
            &Version::new(1, minor, 1),
        )
    }

    #[test]
    fn the_data_has_every_minor_version_that_is_supported() {
        let minors: Vec<_> = KNOWN.minors.keys().copied().collect();
        assert_eq!(minors, [33, 34, 35, 36]);
    }

    #[rstest]
    fn bootstrap_48_no_field_is_rendered_that_the_kubelet_does_not_know(
        #[values(33, 34, 35, 36)] minor: u64,
        #[values(Swap::Off, Swap::Keep)] swap: Swap,
        #[values(CgroupV1::Auto, CgroupV1::Allow)] cgroup_v1: CgroupV1,
    ) {
        let mut spec = spec(json!({"verbosity": 4, "featureGates": {"NodeSwap": true}}));
        spec.os.swap = swap;
        spec.kubelet.cgroup_v1 = cgroup_v1;
        let version = Version::new(1, minor, 0);
        let made = kubelet::configuration(&spec, &version, &Target::default());
        let known = &KNOWN.minors[&minor].fields;
        for field in made.as_object().unwrap().keys() {
            let of_every_object = ["apiVersion", "kind"].contains(&field.as_str());
            assert!(of_every_object || known.contains(field), "{minor}: {field}");
        }
        assert_eq!(found(minor, json!({})), Vec::<String>::new());
    }

    #[test]
    fn bootstrap_48_what_a_kubelet_does_not_know_is_left_out() {
        let mut config = json!({"kind": "KubeletConfiguration", "maxPods": 1, "tlsCurvePreferences": []});
        retain_known(&mut config, &spec(json!({})), &Version::new(1, 35, 0));
        assert_eq!(config, json!({"kind": "KubeletConfiguration", "maxPods": 1}));
        let mut config = json!({"tlsCurvePreferences": []});
        retain_known(&mut config, &spec(json!({})), &Version::new(1, 36, 0));
        retain_known(&mut config, &spec(json!({})), &Version::new(1, 37, 0));
        assert_eq!(config, json!({"tlsCurvePreferences": []}));
    }

    #[test]
    fn bootstrap_48_what_needs_a_gate_that_is_off_is_left_out() {
        let made = |gates: Value| {
            let mut spec = spec(json!({"featureGates": gates}));
            spec.os.swap = Swap::Keep;
            kubelet::configuration(&spec, &Version::new(1, 33, 0), &Target::default())
        };
        let usual = made(json!({}));
        assert!(usual.get("memorySwap").is_some() && usual.get("shutdownGracePeriod").is_some());
        let off = made(json!({"NodeSwap": false, "GracefulNodeShutdown": false}));
        assert!(off.get("memorySwap").is_none() && off.get("shutdownGracePeriod").is_none());
    }

    #[test]
    fn bootstrap_48_gates_of_a_whole_stage_leave_open_what_they_turn_on_and_off() {
        let made = |gates: Value| {
            let mut spec = spec(json!({"featureGates": gates}));
            spec.os.swap = Swap::Keep;
            kubelet::configuration(&spec, &Version::new(1, 33, 0), &Target::default())
        };
        assert!(made(json!({"AllBeta": false})).get("memorySwap").is_none());
        for on in [
            json!({"AllBeta": true}),
            json!({"AllAlpha": true}),
            json!({"AllBeta": false, "NodeSwap": true}),
        ] {
            assert!(made(on.clone()).get("memorySwap").is_some(), "{on}");
        }
        let config = json!({"crashLoopBackOff": {"maxContainerRestartPeriod": "2s"}});
        let set = |gates: Value| found(33, json!({"config": config, "featureGates": gates}));
        assert_eq!(set(json!({"AllAlpha": true})), Vec::<String>::new());
        assert_eq!(set(json!({"AllAlpha": false})).len(), 1);
        assert_eq!(
            set(json!({"AllAlpha": true, "KubeletCrashLoopBackOffMax": false})).len(),
            1
        );
    }

    #[test]
    fn bootstrap_48_a_kubelet_that_is_not_upstreams_is_judged_by_its_user() {
        let mut set = json!({"config": {"ofOurs": 1}, "featureGates": {"OfOurs": true, "NodeSwap": false}});
        let wrong = found(36, set.clone());
        let ignored = |set: &Value| unknown_fields(&spec(set.clone()), &Version::new(1, 36, 1)).len();
        assert_eq!((wrong.len(), ignored(&set)), (2, 1), "{wrong:?}");
        let of_ours = wrong.iter().filter(|text| text.contains("fOurs is unknown"));
        assert_eq!(
            of_ours
                .filter(|text| text.contains("allowUnsafeOverrides: true"))
                .count(),
            1,
            "{wrong:?}"
        );
        set["allowUnsafeOverrides"] = json!(true);
        assert_eq!(ignored(&set), 0);
        let wrong = found(36, set);
        assert_eq!(wrong.len(), 1, "{wrong:?}");
        assert!(wrong[0].contains("NodeSwap is locked"), "{wrong:?}");
    }

    #[test]
    fn bootstrap_48_a_field_of_another_minor_is_a_warning_with_the_minors_that_know_it() {
        let found = |minor, kubelet| unknown_fields(&spec(kubelet), &Version::new(1, minor, 1));
        let newer = json!({"config": {"tlsCurvePreferences": ["X25519"]}});
        assert_eq!(found(36, newer.clone()), Vec::<String>::new());
        assert_eq!(super::tests::found(35, newer.clone()), Vec::<String>::new());
        let problems = found(35, newer);
        assert_eq!(problems.len(), 1, "{problems:?}");
        assert!(
            problems[0].starts_with(
                "spec.kubelet.config.tlsCurvePreferences is known to kubelets of 1.36 alone, and v1.35.1 ignores it"
            ),
            "{problems:?}"
        );
        let wrong = found(36, json!({"config": {"maxPodz": 3}}));
        assert!(
            wrong[0].contains("kubelet.config.maxPodz is unknown to kubelets of 1.33, 1.34, 1.35, 1.36"),
            "{wrong:?}"
        );
        assert_eq!(
            found(36, json!({"config": {"maxPodz": null}})),
            Vec::<String>::new()
        );
        assert_eq!(found(37, json!({"config": {"maxPodz": 3}})), Vec::<String>::new());
    }

    #[test]
    fn bootstrap_48_a_gate_that_the_kubelet_does_not_know_or_has_locked_is_refused() {
        let wrong = found(36, json!({"featureGates": {"NoSuchGate": true}}));
        assert!(wrong[0].contains("is unknown to kubelets of"), "{wrong:?}");
        let swap = |minor, value: bool| found(minor, json!({"featureGates": {"NodeSwap": value}}));
        assert_eq!(swap(33, false), Vec::<String>::new());
        assert_eq!(swap(34, true), Vec::<String>::new());
        let locked = swap(34, false);
        assert!(
            locked[0].contains("NodeSwap is locked to true in kubelets of 1.34"),
            "{locked:?}"
        );
        let gone = |value: bool| found(36, json!({"featureGates": {"GitRepoVolumeDriver": value}}));
        assert_eq!(gone(false), Vec::<String>::new());
        assert!(gone(true)[0].contains("is locked to false in kubelets of 1.36"));
        for gate in ["AllAlpha", "AllBeta", "ContextualLogging", "WatchListClient"] {
            for minor in [33, 34, 35, 36] {
                let set = json!({"featureGates": {gate: false}});
                let wrong = found(minor, set);
                assert!(
                    wrong.iter().all(|text| text.contains("locked")),
                    "{gate}: {wrong:?}"
                );
            }
        }
    }

    #[test]
    fn bootstrap_48_fields_behind_a_gate_are_errors_before_their_minor() {
        let set = json!({"config": {"crashLoopBackOff": {"maxContainerRestartPeriod": "2s"}}});
        let problems = found(34, set.clone());
        assert_eq!(problems.len(), 1, "{problems:?}");
        assert!(
            problems[0].contains("KubeletCrashLoopBackOffMax, which is on by default in 1.35, 1.36"),
            "{problems:?}"
        );
        assert_eq!(found(35, set.clone()).len(), 0);
        assert_eq!(found(32, set.clone()).len(), 1);
        let mut with_gate = set;
        with_gate["featureGates"] = json!({"KubeletCrashLoopBackOffMax": true});
        assert_eq!(found(34, with_gate).len(), 0);
        for harmless in [
            json!({"enableSystemLogQuery": false}),
            json!({"cpuCFSQuotaPeriod": "100ms"}),
            json!({"preloadedImagesVerificationAllowlist": []}),
            json!({"crashLoopBackOff": {}}),
        ] {
            assert_eq!(found(33, json!({"config": harmless})), Vec::<String>::new());
        }
        for fatal in [
            json!({"config": {"cpuCFSQuotaPeriod": "10ms"}}),
            json!({"config": {"tracing": {"samplingRatePerMillion": 1}}, "featureGates": {"KubeletTracing": false}}),
        ] {
            assert_eq!(found(33, fatal.clone()).len(), 1, "{fatal}");
        }
    }
}
