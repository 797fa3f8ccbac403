//! What an author of a TenantControlPlane may ask of the management cluster through the engine, whose rights are wider than
//! the author's: fields of the pods, and external addresses. Pure.
//!
//! `baseline` refuses what the Pod Security Standard of that name refuses,
//! <https://kubernetes.io/docs/concepts/security/pod-security-standards/>, whatever the namespace enforces.

use std::net::IpAddr;

use ipnet::IpNet;
use kamaji_api::{
    addons::KonnectivityServer,
    conditions::Reason,
    tenantcontrolplane::{ComponentSecurityContexts, DeploymentSpec, TenantControlPlane},
};
use serde_json::Value;

use crate::{k8s::problem::Problem, settings::PodOverrides};

/// Capabilities that a container may add.
const CAPABILITIES: [&str; 13] = [
    "AUDIT_WRITE",
    "CHOWN",
    "DAC_OVERRIDE",
    "FOWNER",
    "FSETID",
    "KILL",
    "MKNOD",
    "NET_BIND_SERVICE",
    "SETFCAP",
    "SETGID",
    "SETPCAP",
    "SETUID",
    "SYS_CHROOT",
];
/// Types of `SELinux` that a container may have.
const SELINUX_TYPES: [&str; 5] = [
    "",
    "container_t",
    "container_init_t",
    "container_kvm_t",
    "container_engine_t",
];
/// Kernel settings that are the pod's own.
const SYSCTLS: [&str; 12] = [
    "kernel.shm_rmid_forced",
    "net.ipv4.ip_local_port_range",
    "net.ipv4.ip_unprivileged_port_start",
    "net.ipv4.tcp_syncookies",
    "net.ipv4.ping_group_range",
    "net.ipv4.ip_local_reserved_ports",
    "net.ipv4.tcp_keepalive_time",
    "net.ipv4.tcp_fin_timeout",
    "net.ipv4.tcp_keepalive_intvl",
    "net.ipv4.tcp_keepalive_probes",
    "net.ipv4.tcp_rmem",
    "net.ipv4.tcp_wmem",
];
/// Annotation of a pod that sets the `AppArmor` profile of a container.
const APPARMOR: &str = "container.apparmor.security.beta.kubernetes.io/";

/// Checks the fields that pass through the engine's rights.
///
/// # Errors
/// The first field that this installation does not allow, and the flag that would.
pub fn check(
    tenant: &TenantControlPlane,
    overrides: PodOverrides,
    external: &[IpNet],
) -> Result<(), Problem> {
    let refused = match overrides {
        PodOverrides::Any => None,
        PodOverrides::Baseline => fields(tenant).iter().find_map(Field::above_baseline),
        PodOverrides::None => fields(tenant).first().map(|field| (field.path.clone(), "is set")),
    };
    if let Some((path, what)) = refused {
        return Err(Problem::on_change(
            Reason::NotAllowed,
            format!(
                "{path} {what}, which this installation does not allow (--pod-overrides={}); remove it, or ask its \
                 administrator",
                overrides.as_str()
            ),
        ));
    }
    external_address(tenant, external)
}

/// An external address takes the traffic to it from the whole management cluster.
fn external_address(tenant: &TenantControlPlane, allowed: &[IpNet]) -> Result<(), Problem> {
    let profile = &tenant.spec.network_profile;
    let address = profile
        .address
        .as_deref()
        .and_then(|text| text.parse::<IpAddr>().ok());
    let Some(address) = address.filter(|_| profile.allow_address_as_external_ip) else {
        return Ok(());
    };
    if allowed.iter().any(|range| range.contains(&address)) {
        return Ok(());
    }
    Err(Problem::on_change(
        Reason::NotAllowed,
        format!(
            "spec.networkProfile.allowAddressAsExternalIP: {address} is in no range that this installation allows \
             (--external-ips); set it to false, or ask its administrator"
        ),
    ))
}

/// A field of the pods that the author set.
struct Field<'a> {
    path: String,
    value: Set<'a>,
}

enum Set<'a> {
    Container(&'a Value),
    Volume(&'a Value),
    /// Of a container of the engine.
    SecurityContext(&'a Value),
    PodSecurityContext(&'a Value),
    /// A volume mount or another field without power of its own.
    Harmless,
    /// Its value.
    Annotation(&'a str),
}

fn fields(tenant: &TenantControlPlane) -> Vec<Field<'_>> {
    const AT: &str = "spec.controlPlane.deployment";
    // Without `..`, so that a new field does not compile before it is judged.
    let DeploymentSpec {
        additional_init_containers,
        additional_containers,
        additional_volumes,
        additional_volume_mounts,
        container_security_contexts,
        pod_security_context,
        pod_additional_metadata,
        // A power too, and the author's own: see the page on operations.
        service_account_name: _,
        automount_service_account_token: _,
        registry_settings: _,
        replicas: _,
        node_selector: _,
        runtime_class_name: _,
        tolerations: _,
        affinity: _,
        topology_spread_constraints: _,
        strategy: _,
        resources: _,
        extra_args: _,
        additional_metadata: _,
        probes: _,
    } = &tenant.spec.control_plane.deployment;
    let ComponentSecurityContexts {
        api_server,
        controller_manager,
        scheduler,
    } = container_security_contexts;
    let mut fields = Vec::new();
    for (list, name) in [
        (additional_init_containers, "additionalInitContainers"),
        (additional_containers, "additionalContainers"),
    ] {
        for (at, container) in list.iter().enumerate() {
            fields.push(Field {
                path: format!("{AT}.{name}[{at}]"),
                value: Set::Container(&container.0),
            });
        }
    }
    for (at, volume) in additional_volumes.iter().enumerate() {
        fields.push(Field {
            path: format!("{AT}.additionalVolumes[{at}]"),
            value: Set::Volume(&volume.0),
        });
    }
    if !additional_volume_mounts.is_empty() {
        fields.push(Field {
            path: format!("{AT}.additionalVolumeMounts"),
            value: Set::Harmless,
        });
    }
    for (name, context) in [
        ("apiServer", api_server),
        ("controllerManager", controller_manager),
        ("scheduler", scheduler),
    ] {
        let Some(context) = context else { continue };
        fields.push(Field {
            path: format!("{AT}.containerSecurityContexts.{name}"),
            value: Set::SecurityContext(&context.0),
        });
    }
    if let Some(settings) = &tenant.spec.addons.konnectivity {
        let KonnectivityServer {
            security_context,
            port: _,
            image: _,
            version: _,
            resources: _,
            extra_args: _,
        } = &settings.server;
        fields.extend(security_context.as_ref().map(|context| Field {
            path: "spec.addons.konnectivity.server.securityContext".to_owned(),
            value: Set::SecurityContext(&context.0),
        }));
    }
    if let Some(context) = pod_security_context {
        fields.push(Field {
            path: format!("{AT}.podSecurityContext"),
            value: Set::PodSecurityContext(&context.0),
        });
    }
    let annotations = pod_additional_metadata.annotations.iter();
    fields.extend(
        annotations
            .filter(|(key, _)| key.starts_with(APPARMOR))
            .map(|(key, value)| Field {
                path: format!("{AT}.podAdditionalMetadata.annotations[{key}]"),
                value: Set::Annotation(value),
            }),
    );
    fields
}

type Refused = Option<(String, &'static str)>;

impl Field<'_> {
    /// The path below this field that baseline refuses, and what is wrong with it.
    fn above_baseline(&self) -> Refused {
        let below = |(path, what): (String, &'static str)| (format!("{}{path}", self.path), what);
        match self.value {
            Set::Container(container) => of_container(container).map(below),
            Set::Volume(volume) => {
                let host = !volume["hostPath"].is_null();
                host.then(|| below((".hostPath".to_owned(), "mounts a path of the node")))
            }
            Set::SecurityContext(context) => of_context(context).map(below),
            Set::PodSecurityContext(context) => {
                of_context(context).or_else(|| of_sysctls(context)).map(below)
            }
            Set::Annotation(value) => {
                let safe = value == "runtime/default" || value.starts_with("localhost/");
                (!safe).then(|| below((String::new(), "turns AppArmor off")))
            }
            Set::Harmless => None,
        }
    }
}

fn of_container(container: &Value) -> Refused {
    let ports = container["ports"].as_array().into_iter().flatten();
    for (at, port) in ports.enumerate() {
        if port["hostPort"].as_i64().is_some_and(|port| port != 0) {
            return Some((format!(".ports[{at}].hostPort"), "takes a port of the node"));
        }
    }
    for action in [
        "livenessProbe",
        "readinessProbe",
        "startupProbe",
        "lifecycle.postStart",
        "lifecycle.preStop",
    ] {
        let action_of = action.split('.').fold(container, |value, key| &value[key]);
        for kind in ["httpGet", "tcpSocket"] {
            if action_of[kind]["host"]
                .as_str()
                .is_some_and(|host| !host.is_empty())
            {
                return Some((
                    format!(".{action}.{kind}.host"),
                    "makes the node connect to another host",
                ));
            }
        }
    }
    of_context(&container["securityContext"]).map(|(path, what)| (format!(".securityContext{path}"), what))
}

/// What containers and pods have in common in their security contexts, and what containers have alone.
fn of_context(context: &Value) -> Refused {
    let text = |pointer: &str| {
        context
            .pointer(pointer)
            .and_then(Value::as_str)
            .unwrap_or_default()
    };
    let refuse = |path: &str, what| Some((path.to_owned(), what));
    if context["privileged"] == true {
        return refuse(".privileged", "makes the container privileged");
    }
    if context["windowsOptions"]["hostProcess"] == true {
        return refuse(".windowsOptions.hostProcess", "runs on the node itself");
    }
    let added = context["capabilities"]["add"].as_array().into_iter().flatten();
    let mut added = added.filter_map(Value::as_str);
    if added.any(|capability| !CAPABILITIES.contains(&capability)) {
        return refuse(
            ".capabilities.add",
            "adds a capability that a container does not have by itself",
        );
    }
    if !["", "Default"].contains(&text("/procMount")) {
        return refuse(".procMount", "unmasks /proc");
    }
    if text("/seccompProfile/type") == "Unconfined" {
        return refuse(".seccompProfile.type", "turns seccomp off");
    }
    if text("/appArmorProfile/type") == "Unconfined" {
        return refuse(".appArmorProfile.type", "turns AppArmor off");
    }
    let changed = !SELINUX_TYPES.contains(&text("/seLinuxOptions/type"))
        || !text("/seLinuxOptions/user").is_empty()
        || !text("/seLinuxOptions/role").is_empty();
    if changed {
        return refuse(".seLinuxOptions", "leaves the confinement of SELinux");
    }
    None
}

fn of_sysctls(context: &Value) -> Refused {
    let sysctls = context["sysctls"].as_array().into_iter().flatten();
    let mut names = sysctls.filter_map(|sysctl| sysctl["name"].as_str());
    names.any(|name| !SYSCTLS.contains(&name)).then(|| {
        (
            ".sysctls".to_owned(),
            "has a kernel setting that is not the pod's own",
        )
    })
}

#[cfg(test)]
mod tests {
    use rstest::rstest;
    use serde_json::json;

    use super::*;
    use crate::hosting::testing::tenant as example;

    fn with(deployment: &Value) -> TenantControlPlane {
        let mut tenant = serde_json::to_value(example::tenant()).unwrap();
        let merged = &mut tenant["spec"]["controlPlane"]["deployment"];
        for (key, value) in deployment.as_object().unwrap() {
            merged[key] = value.clone();
        }
        serde_json::from_value(tenant).unwrap()
    }

    #[rstest]
    #[case(json!({"additionalVolumes": [{"name": "a", "hostPath": {"path": "/"}}]}), "additionalVolumes[0].hostPath")]
    #[case(json!({"additionalContainers": [{"name": "a", "securityContext": {"privileged": true}}]}),
        "additionalContainers[0].securityContext.privileged")]
    #[case(json!({"additionalInitContainers": [{"name": "a"}, {"name": "b", "ports": [{"hostPort": 80}]}]}),
        "additionalInitContainers[1].ports[0].hostPort")]
    #[case(json!({"additionalContainers": [{"name": "a", "livenessProbe": {"httpGet": {"host": "10.0.0.1"}}}]}),
        "additionalContainers[0].livenessProbe.httpGet.host")]
    #[case(json!({"additionalContainers": [{"name": "a", "lifecycle": {"preStop": {"tcpSocket": {"host": "h"}}}}]}),
        "additionalContainers[0].lifecycle.preStop.tcpSocket.host")]
    #[case(json!({"containerSecurityContexts": {"apiServer": {"capabilities": {"add": ["SYS_ADMIN"]}}}}),
        "containerSecurityContexts.apiServer.capabilities.add")]
    #[case(json!({"containerSecurityContexts": {"scheduler": {"procMount": "Unmasked"}}}),
        "containerSecurityContexts.scheduler.procMount")]
    #[case(json!({"podSecurityContext": {"seccompProfile": {"type": "Unconfined"}}}), "podSecurityContext.seccompProfile.type")]
    #[case(json!({"podSecurityContext": {"appArmorProfile": {"type": "Unconfined"}}}), "podSecurityContext.appArmorProfile.type")]
    #[case(json!({"podSecurityContext": {"seLinuxOptions": {"type": "spc_t"}}}), "podSecurityContext.seLinuxOptions")]
    #[case(json!({"podSecurityContext": {"windowsOptions": {"hostProcess": true}}}), "podSecurityContext.windowsOptions.hostProcess")]
    #[case(json!({"podSecurityContext": {"sysctls": [{"name": "kernel.msgmax", "value": "1"}]}}), "podSecurityContext.sysctls")]
    #[case(json!({"podAdditionalMetadata": {"annotations": {"container.apparmor.security.beta.kubernetes.io/kube-apiserver": "unconfined"}}}),
        "podAdditionalMetadata.annotations")]
    fn what_baseline_refuses_is_refused_by_its_path(#[case] deployment: Value, #[case] path: &str) {
        let tenant = with(&deployment);
        let problem = check(&tenant, PodOverrides::Baseline, &[]).unwrap_err();
        assert_eq!(problem.reason, Reason::NotAllowed);
        let start = format!("spec.controlPlane.deployment.{path}");
        assert!(problem.message.starts_with(&start), "{}", problem.message);
        assert!(
            problem.message.contains("--pod-overrides=baseline"),
            "{}",
            problem.message
        );
        check(&tenant, PodOverrides::Any, &[]).unwrap();
        check(&tenant, PodOverrides::None, &[]).unwrap_err();
    }

    #[test]
    fn the_security_context_of_the_konnectivity_server_is_judged_like_the_others() {
        let of = |context: Value| {
            example::with(&json!({ "addons": { "konnectivity": { "server": {
            "port": 8132, "securityContext": context,
        } } } }))
        };
        let problem = check(&of(json!({ "privileged": true })), PodOverrides::Baseline, &[]).unwrap_err();
        let start = "spec.addons.konnectivity.server.securityContext.privileged";
        assert!(problem.message.starts_with(start), "{}", problem.message);
        let harmless = of(json!({ "runAsUser": 7 }));
        check(&harmless, PodOverrides::Baseline, &[]).unwrap();
        check(&harmless, PodOverrides::None, &[]).unwrap_err();
    }

    #[test]
    fn what_baseline_allows_is_refused_only_where_nothing_is_allowed() {
        let tenant = with(&json!({
            "additionalVolumes": [{"name": "a", "configMap": {"name": "a"}}],
            "additionalContainers": [{
                "name": "a", "image": "i", "ports": [{"containerPort": 80}],
                "securityContext": {"capabilities": {"add": ["NET_BIND_SERVICE"], "drop": ["ALL"]}},
                "readinessProbe": {"httpGet": {"path": "/", "port": 80}},
            }],
            "podSecurityContext": {"fsGroup": 1, "sysctls": [{"name": "net.ipv4.tcp_syncookies", "value": "1"}]},
        }));
        check(&tenant, PodOverrides::Baseline, &[]).unwrap();
        let problem = check(&tenant, PodOverrides::None, &[]).unwrap_err();
        assert!(
            problem.message.contains("--pod-overrides=none"),
            "{}",
            problem.message
        );
        check(&example::tenant(), PodOverrides::None, &[]).unwrap();
    }

    #[test]
    fn an_external_address_needs_a_range_that_allows_it() {
        let mut tenant = example::tenant();
        tenant.spec.network_profile.address = Some("192.0.2.7".into());
        check(&tenant, PodOverrides::Baseline, &[]).unwrap();
        tenant.spec.network_profile.allow_address_as_external_ip = true;
        let problem = check(&tenant, PodOverrides::Any, &["198.51.100.0/24".parse().unwrap()]).unwrap_err();
        assert!(problem.message.contains("--external-ips"), "{}", problem.message);
        check(
            &tenant,
            PodOverrides::Baseline,
            &["192.0.2.0/24".parse().unwrap()],
        )
        .unwrap();
    }
}
