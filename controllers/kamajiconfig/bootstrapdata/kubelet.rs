//! The KubeletConfiguration of a node: the provider's, with the user's fields merged over it, and which fields a user may
//! not change. Pure. Fields: <https://kubernetes.io/docs/reference/config-api/kubelet-config.v1beta1/>.

use k8s_openapi::jiff::SignedDuration;
use kamaji_api::{
    bootstrap::{CgroupV1, KamajiConfigSpec, Swap, Taint, TaintEffect},
    labels::capi,
};
use semver::Version;
use serde::Serialize;
use serde_json::{Map, Value, json};

use super::{
    inputs::{DEFAULT_CRI_SOCKET, Target},
    kubelet_versions,
};
use crate::k8s::merge_patch::merge_patch;

/// The taint of a Node that its cloud controller manager has not initialized
/// (<https://kubernetes.io/docs/reference/labels-annotations-taints/>).
const CLOUD_TAINT: &str = "node.cloudprovider.kubernetes.io/uninitialized";

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
#[expect(clippy::struct_excessive_bools, reason = "the fields are the kubelet's")]
struct KubeletConfiguration<'a> {
    api_version: &'static str,
    kind: &'static str,
    authentication: Value,
    authorization: Value,
    rotate_certificates: bool,
    read_only_port: u16,
    #[serde(rename = "clusterDNS")]
    cluster_dns: &'a [String],
    cluster_domain: &'a str,
    container_runtime_endpoint: &'a str,
    cgroup_driver: &'static str,
    register_with_taints: Vec<Value>,
    #[serde(rename = "tlsMinVersion")]
    tls_min_version: &'static str,
    tls_cipher_suites: [&'static str; 6],
    fail_swap_on: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    memory_swap: Option<Value>,
    #[serde(skip_serializing_if = "Option::is_none")]
    fail_cgroup_v1: Option<bool>,
    seccomp_default: bool,
    protect_kernel_defaults: bool,
    shutdown_grace_period: &'static str,
    shutdown_grace_period_critical_pods: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    logging: Option<Value>,
    #[serde(skip_serializing_if = "Option::is_none")]
    feature_gates: Option<Value>,
}

/// The configuration that the node gets, with the user's fields merged in.
pub fn configuration(spec: &KamajiConfigSpec, version: &Version, target: &Target) -> Value {
    let mut value = defaults(spec, version, target);
    kubelet_versions::retain_known(&mut value, spec, version);
    give_way(&mut value, &spec.kubelet.config);
    merge_patch(&mut value, &Value::Object(spec.kubelet.config.clone()));
    value
}

/// Removes the grace periods with which a kubelet refuses those of the user: it takes none beside one for each priority, and
/// none for critical pods that is longer than the whole.
fn give_way(value: &mut Value, user: &Map<String, Value>) {
    let Some(fields) = value.as_object_mut() else {
        return;
    };
    let by_priority = user
        .get("shutdownGracePeriodByPodPriority")
        .and_then(Value::as_array);
    if by_priority.is_some_and(|list| !list.is_empty()) {
        fields.remove("shutdownGracePeriod");
        fields.remove("shutdownGracePeriodCriticalPods");
    }
    let period = |fields: &Map<String, Value>, name: &str| -> Option<SignedDuration> {
        fields.get(name)?.as_str()?.parse().ok()
    };
    let critical = period(fields, "shutdownGracePeriodCriticalPods");
    if period(user, "shutdownGracePeriod").is_some_and(|whole| critical > Some(whole)) {
        fields.remove("shutdownGracePeriodCriticalPods");
    }
}

fn defaults(spec: &KamajiConfigSpec, version: &Version, target: &Target) -> Value {
    let registration = &spec.node_registration;
    let keep_swap = spec.os.swap == Swap::Keep;
    // The API server refuses a Node that has a taint twice. With an external cloud provider, the kubelet sets the second.
    let external = registration.cloud_provider.is_some();
    let set_anyway = |taint: &Taint| {
        taint.effect == TaintEffect::NoSchedule
            && (taint.key == capi::UNINITIALIZED_TAINT || (external && taint.key == CLOUD_TAINT))
    };
    let mut taints: Vec<Value> = registration
        .taints
        .iter()
        .filter(|taint| !set_anyway(taint))
        .map(|taint| match &taint.value {
            Some(text) => json!({"key": taint.key, "value": text, "effect": taint.effect.as_str()}),
            None => json!({"key": taint.key, "effect": taint.effect.as_str()}),
        })
        .collect();
    // Cluster API removes it once the Node has its labels.
    taints.push(json!({"key": capi::UNINITIALIZED_TAINT, "effect": "NoSchedule"}));
    let configuration = KubeletConfiguration {
        api_version: "kubelet.config.k8s.io/v1beta1",
        kind: "KubeletConfiguration",
        authentication: json!({
            "anonymous": {"enabled": false},
            "webhook": {"enabled": true},
            "x509": {"clientCAFile": "/etc/kubernetes/pki/ca.crt"},
        }),
        authorization: json!({"mode": "Webhook"}),
        rotate_certificates: true,
        read_only_port: 0,
        cluster_dns: &target.cluster_dns,
        cluster_domain: &target.cluster_domain,
        container_runtime_endpoint: registration.cri_socket.as_deref().unwrap_or(DEFAULT_CRI_SOCKET),
        cgroup_driver: "systemd",
        register_with_taints: taints,
        tls_min_version: "VersionTLS12",
        tls_cipher_suites: [
            "TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256",
            "TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384",
            "TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256",
            "TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256",
            "TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384",
            "TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256",
        ],
        fail_swap_on: !keep_swap,
        memory_swap: keep_swap.then(|| json!({"swapBehavior": "NoSwap"})),
        fail_cgroup_v1: match spec.kubelet.cgroup_v1 {
            // The field exists since Kubernetes 1.31.
            CgroupV1::Fail if version.minor >= 31 => Some(true),
            CgroupV1::Allow if version.minor >= 31 => Some(false),
            CgroupV1::Auto | CgroupV1::Fail | CgroupV1::Allow => None,
        },
        seccomp_default: true,
        protect_kernel_defaults: true,
        shutdown_grace_period: "60s",
        shutdown_grace_period_critical_pods: "20s",
        logging: spec.kubelet.verbosity.map(|level| json!({"verbosity": level})),
        feature_gates: (!spec.kubelet.feature_gates.is_empty()).then(|| json!(spec.kubelet.feature_gates)),
    };
    serde_json::to_value(configuration).unwrap_or_default()
}

/// What the join script does on a machine with cgroup v1: `fail` or `allow`. A kubelet older than 1.31 has no such
/// setting, so that only the script refuses.
pub fn cgroup_v1(config: &Value, setting: CgroupV1, version: &Version) -> &'static str {
    let fails = config
        .get("failCgroupV1")
        .and_then(Value::as_bool)
        .unwrap_or(match setting {
            CgroupV1::Auto => version.minor >= 35,
            CgroupV1::Fail => true,
            CgroupV1::Allow => false,
        });
    if fails { "fail" } else { "allow" }
}

/// Settings without which the kubelet's API is open to others. Another value requires `allowUnsafeOverrides`.
const PROTECTED: [&str; 7] = [
    "/authentication/anonymous/enabled",
    "/authentication/webhook/enabled",
    "/authentication/x509/clientCAFile",
    "/authorization/mode",
    "/rotateCertificates",
    "/serverTLSBootstrap",
    "/readOnlyPort",
];
/// Settings that do not belong into `kubelet.config`, and the fix.
const ELSEWHERE: [(&str, &str); 6] = [
    ("apiVersion", "remove it: this provider sets it"),
    ("kind", "remove it: this provider sets it"),
    ("registerWithTaints", "use nodeRegistration.taints"),
    ("providerID", "use nodeRegistration.providerID"),
    ("featureGates", "use kubelet.featureGates"),
    ("containerRuntimeEndpoint", "use nodeRegistration.criSocket"),
];
/// Paths in `kubelet.config` that change a protected setting.
pub fn unsafe_overrides(spec: &KamajiConfigSpec) -> Vec<String> {
    let version = Version::new(1, 36, 0);
    let target = Target::default();
    let (before, after) = (
        defaults(spec, &version, &target),
        configuration(spec, &version, &target),
    );
    PROTECTED
        .iter()
        .filter(|path| before.pointer(path) != after.pointer(path))
        .map(|path| format!("kubelet.config{}", path.replace('/', ".")))
        .collect()
}

/// Settings that do not belong into `kubelet.config`, each with the fix.
pub fn misplaced(spec: &KamajiConfigSpec) -> Vec<(&'static str, &'static str)> {
    ELSEWHERE
        .into_iter()
        .filter(|(key, _)| spec.kubelet.config.contains_key(*key))
        .collect()
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    fn with(config: Value) -> KamajiConfigSpec {
        let mut spec = KamajiConfigSpec::default();
        let Value::Object(config) = config else {
            panic!("not an object");
        };
        spec.kubelet.config = config;
        spec
    }

    #[rstest]
    #[case(json!({"authentication": {"anonymous": {"enabled": true}}}), "kubelet.config.authentication.anonymous.enabled")]
    #[case(json!({"authentication": null}), "kubelet.config.authentication.anonymous.enabled")]
    #[case(json!({"authorization": {"mode": "AlwaysAllow"}}), "kubelet.config.authorization.mode")]
    #[case(json!({"readOnlyPort": 10255}), "kubelet.config.readOnlyPort")]
    #[case(json!({"serverTLSBootstrap": true}), "kubelet.config.serverTLSBootstrap")]
    fn bootstrap_32_settings_that_open_the_node_are_found(#[case] config: Value, #[case] path: &str) {
        assert!(unsafe_overrides(&with(config)).iter().any(|found| found == path));
    }

    #[test]
    fn other_settings_are_merged() {
        let spec = with(
            json!({"maxPods": 60, "authentication": {"webhook": {"cacheTTL": "1m"}}, "protectKernelDefaults": false}),
        );
        assert_eq!(unsafe_overrides(&spec), Vec::<String>::new());
        let made = configuration(&spec, &Version::new(1, 36, 3), &Target::default());
        assert_eq!(made["maxPods"], 60);
        assert_eq!(
            made["authentication"]["webhook"],
            json!({"enabled": true, "cacheTTL": "1m"})
        );
        assert_eq!(made["protectKernelDefaults"], false);
        assert_eq!(
            made["registerWithTaints"][0]["key"],
            "node.cluster.x-k8s.io/uninitialized"
        );
    }

    #[rstest]
    #[case(30, CgroupV1::Allow, None, "allow")]
    #[case(31, CgroupV1::Allow, Some(false), "allow")]
    #[case(36, CgroupV1::Allow, Some(false), "allow")]
    #[case(30, CgroupV1::Fail, None, "fail")]
    #[case(31, CgroupV1::Fail, Some(true), "fail")]
    #[case(36, CgroupV1::Fail, Some(true), "fail")]
    #[case(34, CgroupV1::Auto, None, "allow")]
    #[case(35, CgroupV1::Auto, None, "fail")]
    fn bootstrap_48_control_groups_v1_per_minor(
        #[case] minor: u64,
        #[case] setting: CgroupV1,
        #[case] field: Option<bool>,
        #[case] word: &str,
    ) {
        let mut spec = KamajiConfigSpec::default();
        spec.kubelet.cgroup_v1 = setting;
        let version = Version::new(1, minor, 0);
        let made = configuration(&spec, &version, &Target::default());
        assert_eq!(made.get("failCgroupV1").and_then(Value::as_bool), field);
        assert_eq!(cgroup_v1(&made, setting, &version), word);
    }

    #[rstest]
    #[case(json!({}), Some("60s"), Some("20s"))]
    #[case(json!({"shutdownGracePeriod": "1m30s"}), Some("1m30s"), Some("20s"))]
    #[case(json!({"shutdownGracePeriod": "10s"}), Some("10s"), None)]
    #[case(json!({"shutdownGracePeriod": "0s"}), Some("0s"), None)]
    #[case(json!({"shutdownGracePeriod": "10s", "shutdownGracePeriodCriticalPods": "5s"}), Some("10s"), Some("5s"))]
    #[case(json!({"shutdownGracePeriodByPodPriority": [{"priority": 0, "shutdownGracePeriodSeconds": 3}]}), None, None)]
    #[case(json!({"shutdownGracePeriodByPodPriority": []}), Some("60s"), Some("20s"))]
    fn grace_periods_of_the_provider_give_way_to_those_of_users(
        #[case] config: Value,
        #[case] whole: Option<&str>,
        #[case] critical: Option<&str>,
    ) {
        let made = configuration(&with(config), &Version::new(1, 36, 0), &Target::default());
        let text = |field: &str| made.get(field).and_then(Value::as_str);
        assert_eq!(text("shutdownGracePeriod"), whole);
        assert_eq!(text("shutdownGracePeriodCriticalPods"), critical);
    }

    #[test]
    fn taints_that_are_set_anyway_are_set_once() {
        let mut spec = KamajiConfigSpec::default();
        let taint = |key: &str| Taint {
            key: key.to_owned(),
            value: None,
            effect: TaintEffect::NoSchedule,
        };
        spec.node_registration.taints = ["dedicated", capi::UNINITIALIZED_TAINT, CLOUD_TAINT]
            .map(taint)
            .into();
        let keys = |spec: &KamajiConfigSpec| -> Vec<String> {
            let made = configuration(spec, &Version::new(1, 36, 3), &Target::default());
            let taints = made["registerWithTaints"].as_array().unwrap();
            taints
                .iter()
                .map(|taint| taint["key"].as_str().unwrap().to_owned())
                .collect()
        };
        assert_eq!(keys(&spec), ["dedicated", CLOUD_TAINT, capi::UNINITIALIZED_TAINT]);
        spec.node_registration.cloud_provider = Some(kamaji_api::bootstrap::CloudProvider::External);
        assert_eq!(keys(&spec), ["dedicated", capi::UNINITIALIZED_TAINT]);
    }

    #[test]
    fn pods_do_not_use_swap_that_stays_on() {
        let mut spec = KamajiConfigSpec::default();
        spec.os.swap = Swap::Keep;
        let made = configuration(&spec, &Version::new(1, 36, 3), &Target::default());
        assert_eq!(made["failSwapOn"], false);
        assert_eq!(made["memorySwap"]["swapBehavior"], "NoSwap");
    }
}
