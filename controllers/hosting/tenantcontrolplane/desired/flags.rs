//! Command-line flags of the hosted components. Pure.
//!
//! One rule of precedence for all three: a flag of the user replaces the engine's flag of the same name. The
//! exception are flags that other parts have to agree with: etcd, certificates, ports, addresses and the list of
//! admission plugins. The engine owns them ([`OWNED`]); the user's are dropped, and [`ignored`] names them. The
//! engine's flags come first, sorted by name. The user's follow in their order, since a flag may repeat.

use std::{collections::BTreeMap, net::IpAddr};

use kamaji_api::{
    admission::AdmissionPlugin,
    tenantcontrolplane::{ComponentArgs, KubeletSpec, KubernetesSpec, TenantControlPlane},
};
use kube::ResourceExt;

use super::{inputs::Storage, switch::Switch};
use crate::hosting::tenantcontrolplane::{component::file, konnectivity, validate::Valid};

/// Flags of kube-apiserver that the engine owns.
pub const OWNED: [&str; 24] = [
    "advertise-address",
    "client-ca-file",
    "enable-admission-plugins",
    "etcd-cafile",
    "etcd-certfile",
    "etcd-compaction-interval",
    "etcd-keyfile",
    "etcd-prefix",
    "etcd-servers",
    "etcd-servers-overrides",
    "kubelet-client-certificate",
    "kubelet-client-key",
    "kubelet-preferred-address-types",
    "proxy-client-cert-file",
    "proxy-client-key-file",
    "requestheader-allowed-names",
    "requestheader-client-ca-file",
    "secure-port",
    "service-account-key-file",
    "service-account-signing-key-file",
    "service-cluster-ip-range",
    "tls-cert-file",
    "tls-private-key-file",
    "egress-selector-config-file",
];

/// Flags by name.
pub(super) type Flags = BTreeMap<&'static str, String>;

/// Describes what the user set but has no effect: flags of kube-apiserver that the engine owns, and switches with an
/// unknown value.
pub fn ignored(tenant: &TenantControlPlane) -> Vec<String> {
    let extra = &tenant.spec.control_plane.deployment.extra_args.api_server;
    extra
        .iter()
        .map(|flag| name(flag))
        .filter(|name| OWNED.contains(&name.as_str()))
        .map(|name| {
            format!("spec.controlPlane.deployment.extraArgs.apiServer (the engine sets --{name} itself)")
        })
        .chain(Switch::unknown(tenant))
        .collect()
}

/// Flags of kube-apiserver.
pub fn api_server(
    tenant: &TenantControlPlane,
    valid: &Valid,
    storage: &Storage<'_>,
    advertise: Option<IpAddr>,
) -> Vec<String> {
    let ComponentArgs {
        api_server,
        controller_manager: _,
        scheduler: _,
        kine: _,
    } = &tenant.spec.control_plane.deployment.extra_args;
    let user: Vec<String> = api_server
        .iter()
        .filter(|flag| !OWNED.contains(&name(flag).as_str()))
        .cloned()
        .collect();
    let KubernetesSpec {
        version: _,
        kubelet:
            KubeletSpec {
                preferred_address_types,
                cgroupfs: _,
                configuration_json_patches: _,
            },
        admission_controllers,
    } = &tenant.spec.kubernetes;
    let domain = &tenant.spec.network_profile.cluster_domain;
    let servers: Vec<String> = storage
        .endpoints
        .iter()
        .map(|endpoint| format!("https://{endpoint}"))
        .collect();
    let address_types: Vec<&str> = preferred_address_types.iter().map(|kind| kind.as_str()).collect();
    let mut flags: Flags = [
        ("allow-privileged", "true".to_owned()),
        ("authorization-mode", "Node,RBAC".to_owned()),
        ("client-ca-file", file::CA.to_owned()),
        (
            "enable-admission-plugins",
            admission(tenant, admission_controllers, &user),
        ),
        ("enable-bootstrap-token-auth", "true".to_owned()),
        ("etcd-cafile", file::ETCD_CA.to_owned()),
        ("etcd-certfile", file::ETCD_CERTIFICATE.to_owned()),
        // The DataStore compacts itself: a tenant has no access to the key by which API servers coordinate compaction.
        ("etcd-compaction-interval", "0".to_owned()),
        ("etcd-keyfile", file::ETCD_KEY.to_owned()),
        ("etcd-prefix", format!("/{}", storage.schema)),
        ("etcd-servers", servers.join(",")),
        (
            "kubelet-client-certificate",
            file::KUBELET_CLIENT_CERTIFICATE.to_owned(),
        ),
        ("kubelet-client-key", file::KUBELET_CLIENT_KEY.to_owned()),
        ("kubelet-preferred-address-types", address_types.join(",")),
        ("profiling", "false".to_owned()),
        ("proxy-client-cert-file", file::FRONT_PROXY_CERTIFICATE.to_owned()),
        ("proxy-client-key-file", file::FRONT_PROXY_KEY.to_owned()),
        ("requestheader-allowed-names", "front-proxy-client".to_owned()),
        ("requestheader-client-ca-file", file::FRONT_PROXY_CA.to_owned()),
        ("requestheader-extra-headers-prefix", "X-Remote-Extra-".to_owned()),
        ("requestheader-group-headers", "X-Remote-Group".to_owned()),
        ("requestheader-username-headers", "X-Remote-User".to_owned()),
        ("secure-port", valid.network.port.to_string()),
        (
            "service-account-issuer",
            format!("https://kubernetes.default.svc.{domain}"),
        ),
        ("service-account-key-file", file::SA_PUBLIC.to_owned()),
        ("service-account-signing-key-file", file::SA_KEY.to_owned()),
        ("service-cluster-ip-range", joined(&valid.network.service_cidrs)),
        // Load balancers and kube-proxies notice that the pod terminates before it stops answering.
        ("shutdown-delay-duration", "10s".to_owned()),
        ("tls-cert-file", file::API_SERVER_CERTIFICATE.to_owned()),
        ("tls-private-key-file", file::API_SERVER_KEY.to_owned()),
    ]
    .into();
    if let Some(address) = advertise {
        flags.insert("advertise-address", address.to_string());
    }
    if Switch::VerifyKubelets.is_set(tenant) {
        // The CA of the tenant signs the serving certificates of its kubelets.
        flags.insert("kubelet-certificate-authority", file::CA.to_owned());
    }
    if konnectivity::of(tenant).is_some() {
        flags.insert(
            "egress-selector-config-file",
            konnectivity::EGRESS_FILE.to_owned(),
        );
    }
    if user.iter().any(|flag| name(flag) == "authorization-config") {
        flags.remove("authorization-mode");
    }
    merged(flags, &user)
}

/// Flags of kube-controller-manager.
pub fn controller_manager(tenant: &TenantControlPlane, valid: &Valid) -> Vec<String> {
    let flags: Flags = [
        ("allocate-node-cidrs", "true".to_owned()),
        (
            "authentication-kubeconfig",
            file::CONTROLLER_MANAGER_KUBECONFIG.to_owned(),
        ),
        (
            "authorization-kubeconfig",
            file::CONTROLLER_MANAGER_KUBECONFIG.to_owned(),
        ),
        ("bind-address", any_address(valid)),
        ("client-ca-file", file::CA.to_owned()),
        ("cluster-cidr", joined(&valid.network.pod_cidrs)),
        ("cluster-name", tenant.name_any()),
        ("cluster-signing-cert-file", file::SIGNING_CERTIFICATE.to_owned()),
        ("cluster-signing-key-file", file::SIGNING_KEY.to_owned()),
        ("controllers", "*,bootstrapsigner,tokencleaner".to_owned()),
        ("kubeconfig", file::CONTROLLER_MANAGER_KUBECONFIG.to_owned()),
        ("leader-elect", "true".to_owned()),
        ("profiling", "false".to_owned()),
        ("requestheader-client-ca-file", file::FRONT_PROXY_CA.to_owned()),
        ("root-ca-file", file::CA.to_owned()),
        ("service-account-private-key-file", file::SA_KEY.to_owned()),
        ("service-cluster-ip-range", joined(&valid.network.service_cidrs)),
        ("use-service-account-credentials", "true".to_owned()),
    ]
    .into();
    merged(
        flags,
        &tenant.spec.control_plane.deployment.extra_args.controller_manager,
    )
}

/// Flags of kube-scheduler.
pub fn scheduler(tenant: &TenantControlPlane, valid: &Valid) -> Vec<String> {
    let flags: Flags = [
        ("authentication-kubeconfig", file::SCHEDULER_KUBECONFIG.to_owned()),
        ("authorization-kubeconfig", file::SCHEDULER_KUBECONFIG.to_owned()),
        ("bind-address", any_address(valid)),
        ("kubeconfig", file::SCHEDULER_KUBECONFIG.to_owned()),
        ("leader-elect", "true".to_owned()),
        ("profiling", "false".to_owned()),
    ]
    .into();
    merged(flags, &tenant.spec.control_plane.deployment.extra_args.scheduler)
}

/// The unspecified address in the family of the first Service range: the kubelet probes the address of the pod.
fn any_address(valid: &Valid) -> String {
    let six = valid
        .network
        .service_cidrs
        .first()
        .is_some_and(|cidr| cidr.addr().is_ipv6());
    if six { "::" } else { "0.0.0.0" }.to_owned()
}

/// The `enabled` plugins and NodeRestriction. The annotation removes NodeRestriction, and
/// `--disable-admission-plugins` removes any plugin.
fn admission(tenant: &TenantControlPlane, enabled: &[AdmissionPlugin], user: &[String]) -> String {
    let mut disabled: Vec<&str> = user
        .iter()
        .filter(|flag| name(flag) == "disable-admission-plugins")
        .filter_map(|flag| flag.split_once('='))
        .flat_map(|(_, list)| list.split(','))
        .collect();
    let mut plugins: Vec<&str> = enabled.iter().map(|plugin| plugin.as_str()).collect();
    let node_restriction = AdmissionPlugin::NodeRestriction.as_str();
    if Switch::NodeRestriction.is_set(tenant) {
        disabled.push(node_restriction);
    }
    if !plugins.contains(&node_restriction) {
        plugins.push(node_restriction);
    }
    plugins.retain(|plugin| !disabled.contains(plugin));
    plugins.join(",")
}

/// The engine's flags without those that the user replaces, then the user's.
pub(super) fn merged(mut engine: Flags, user: &[String]) -> Vec<String> {
    for flag in user {
        engine.remove(name(flag).as_str());
    }
    engine
        .into_iter()
        .map(|(flag, value)| format!("--{flag}={value}"))
        .chain(user.iter().cloned())
        .collect()
}

/// Name of a flag. Kubernetes accepts `_` for `-`.
pub(super) fn name(flag: &str) -> String {
    flag.trim()
        .trim_start_matches('-')
        .split('=')
        .next()
        .unwrap_or_default()
        .replace('_', "-")
}

fn joined(cidrs: &[ipnet::IpNet]) -> String {
    cidrs
        .iter()
        .map(ToString::to_string)
        .collect::<Vec<_>>()
        .join(",")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hosting::testing::tenant as example;

    fn of(change: impl FnOnce(&mut TenantControlPlane)) -> (TenantControlPlane, Valid) {
        let mut tenant = example::tenant();
        change(&mut tenant);
        let valid = example::valid(&tenant);
        (tenant, valid)
    }

    fn api_server_of(change: impl FnOnce(&mut TenantControlPlane)) -> Vec<String> {
        let (tenant, valid) = of(change);
        api_server(&tenant, &valid, &example::storage(), None)
    }

    #[test]
    fn a_flag_of_the_user_replaces_the_engines() {
        let (tenant, valid) = of(|t| {
            t.spec.control_plane.deployment.extra_args.controller_manager =
                vec!["--allocate-node-cidrs=false".to_owned(), "--v=4".to_owned()];
        });
        let flags = controller_manager(&tenant, &valid);
        let about: Vec<_> = flags.iter().filter(|flag| flag.contains("allocate")).collect();
        assert_eq!(about, ["--allocate-node-cidrs=false"]);
        assert_eq!(flags.last().map(String::as_str), Some("--v=4"));
    }

    #[test]
    fn a_flag_that_the_engine_owns_is_dropped_and_named() {
        let change = |t: &mut TenantControlPlane| {
            t.spec.control_plane.deployment.extra_args.api_server =
                vec!["--etcd_prefix=/other".to_owned(), "--audit-log-path=-".to_owned()];
        };
        let flags = api_server_of(change);
        assert!(flags.contains(&"--etcd-prefix=/demo_alpha_bcdfghjk".to_owned()));
        assert!(flags.contains(&"--audit-log-path=-".to_owned()));
        assert!(!flags.iter().any(|flag| flag.contains("/other")));
        let (tenant, _) = of(change);
        assert_eq!(
            ignored(&tenant),
            ["spec.controlPlane.deployment.extraArgs.apiServer (the engine sets --etcd-prefix itself)"]
        );
    }

    #[test]
    fn node_restriction_is_on_unless_the_user_opts_out() {
        let plugins = |flags: &[String]| {
            flags
                .iter()
                .find_map(|flag| {
                    flag.strip_prefix("--enable-admission-plugins=")
                        .map(str::to_owned)
                })
                .unwrap()
        };
        assert!(plugins(&api_server_of(|_| {})).ends_with(",NodeRestriction"));
        let out = api_server_of(|t| {
            t.spec.control_plane.deployment.extra_args.api_server =
                vec!["--disable-admission-plugins=NodeRestriction,Priority".to_owned()];
        });
        assert!(!plugins(&out).contains("NodeRestriction") && !plugins(&out).contains("Priority"));
        let annotated = |value: &str| {
            let annotations = [("capi-kamaji.io/node-restriction".to_owned(), value.to_owned())];
            api_server_of(|t| t.metadata.annotations = Some(annotations.into()))
        };
        assert!(!plugins(&annotated("disabled")).contains("NodeRestriction"));
        assert!(plugins(&annotated("enabled")).contains("NodeRestriction"));
    }

    #[test]
    fn kubelets_are_verified_when_the_annotation_enables_it() {
        let about = |flags: Vec<String>| {
            flags
                .into_iter()
                .find(|flag| flag.contains("kubelet-certificate-authority"))
        };
        assert_eq!(about(api_server_of(|_| {})), None);
        let annotations = [("capi-kamaji.io/verify-kubelets".to_owned(), "enabled".to_owned())];
        let flag = about(api_server_of(|t| {
            t.metadata.annotations = Some(annotations.into());
        }));
        assert_eq!(
            flag,
            Some(format!("--kubelet-certificate-authority={}", file::CA))
        );
    }

    #[test]
    fn a_switch_with_an_unknown_value_is_named() {
        let annotations = [("capi-kamaji.io/network-policy".to_owned(), "off".to_owned())];
        let (tenant, _) = of(|t| t.metadata.annotations = Some(annotations.into()));
        assert_eq!(
            ignored(&tenant),
            ["annotation capi-kamaji.io/network-policy (\"off\" is neither enabled nor disabled)"]
        );
    }

    #[test]
    fn an_authorization_configuration_of_the_user_replaces_the_modes() {
        let flags = api_server_of(|t| {
            t.spec.control_plane.deployment.extra_args.api_server =
                vec!["--authorization-config=/x".to_owned()];
        });
        assert!(!flags.iter().any(|flag| flag.starts_with("--authorization-mode")));
    }
}
