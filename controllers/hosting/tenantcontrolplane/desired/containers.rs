//! The hosted containers: images, probes, security contexts (hosting specification 2.8, DESIGN 2.7).

use k8s_openapi::api::core::v1::{
    Capabilities, Container, ContainerPort, HTTPGetAction, Probe, SecurityContext,
};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use kamaji_api::probes::{ControlPlaneProbes, ProbeSet, ProbeSpec};
use kamaji_api::tenantcontrolplane::TenantControlPlane;

use super::{deployment::Inputs, flags, volumes};

/// kube-apiserver.
pub const API_SERVER: &str = "kube-apiserver";
/// kube-controller-manager.
pub const CONTROLLER_MANAGER: &str = "kube-controller-manager";
/// kube-scheduler.
pub const SCHEDULER: &str = "kube-scheduler";

const CONTROLLER_MANAGER_PORT: i32 = 10257;
const SCHEDULER_PORT: i32 = 10259;

/// The three, in Kamaji's order.
pub(super) fn all(inputs: &Inputs<'_>) -> Vec<Container> {
    let tenant = inputs.tenant;
    let port = i32::from(inputs.valid.network.port);
    let registry = &tenant.spec.control_plane.deployment.registry_settings;
    let image = |name: &str| {
        format!(
            "{}/{name}:{}{}",
            registry.registry,
            tenant.spec.kubernetes.version,
            registry.tag_suffix.as_deref().unwrap_or_default()
        )
    };
    vec![
        Container {
            image: Some(image(&registry.api_server_image)),
            args: Some(flags::api_server(
                tenant,
                inputs.valid,
                &inputs.storage,
                inputs.advertise,
            )),
            ports: Some(vec![ContainerPort {
                name: Some("https".to_owned()),
                container_port: port,
                protocol: Some("TCP".to_owned()),
                ..ContainerPort::default()
            }]),
            // The upstream binary carries this file capability and does not start where it is out of bounds.
            security_context: Some(security_context(Some("NET_BIND_SERVICE"))),
            ..base(tenant, API_SERVER, port, ["/livez", "/readyz", "/livez"], |p| {
                p.api_server.as_ref()
            })
        },
        Container {
            image: Some(image(&registry.scheduler_image)),
            args: Some(flags::scheduler(tenant, inputs.valid)),
            ..base(tenant, SCHEDULER, SCHEDULER_PORT, ["/healthz"; 3], |p| {
                p.scheduler.as_ref()
            })
        },
        Container {
            image: Some(image(&registry.controller_manager_image)),
            args: Some(flags::controller_manager(tenant, inputs.valid)),
            ..base(
                tenant,
                CONTROLLER_MANAGER,
                CONTROLLER_MANAGER_PORT,
                ["/healthz"; 3],
                |p| p.controller_manager.as_ref(),
            )
        },
    ]
}

/// What the three have in common. `paths` are those of liveness, readiness and startup.
fn base(
    tenant: &TenantControlPlane,
    name: &str,
    port: i32,
    paths: [&str; 3],
    of: fn(&ControlPlaneProbes) -> Option<&ProbeSet>,
) -> Container {
    let none = ControlPlaneProbes::default();
    let asked = tenant
        .spec
        .control_plane
        .deployment
        .probes
        .as_ref()
        .unwrap_or(&none);
    let own = of(asked).cloned().unwrap_or_default();
    let [liveness, readiness, startup] = paths;
    Container {
        name: name.to_owned(),
        command: Some(vec![name.to_owned()]),
        image_pull_policy: Some("IfNotPresent".to_owned()),
        liveness_probe: Some(probe(liveness, port, &LIVENESS, [&asked.liveness, &own.liveness])),
        readiness_probe: Some(probe(
            readiness,
            port,
            &READINESS,
            [&asked.readiness, &own.readiness],
        )),
        startup_probe: Some(probe(startup, port, &STARTUP, [&asked.startup, &own.startup])),
        security_context: Some(security_context(None)),
        volume_mounts: Some(vec![volumes::mount(name)]),
        ..Container::default()
    }
}

/// The engine's timings, as (timeout, period, failures).
const fn timings(timeout: i32, period: i32, failures: i32) -> ProbeSpec {
    ProbeSpec {
        initial_delay_seconds: None,
        timeout_seconds: Some(timeout),
        period_seconds: Some(period),
        success_threshold: Some(1),
        failure_threshold: Some(failures),
    }
}

const LIVENESS: ProbeSpec = timings(15, 10, 8);
const READINESS: ProbeSpec = timings(5, 5, 3);
/// Five minutes: two busy cores need more than Kamaji's 30 s for an API server.
const STARTUP: ProbeSpec = timings(5, 3, 100);

/// The engine's timings, the setting for all above them, the component's own above that.
fn probe(path: &str, port: i32, engine: &ProbeSpec, layers: [&Option<ProbeSpec>; 2]) -> Probe {
    let timing = layers
        .into_iter()
        .flatten()
        .fold(engine.clone(), |under, over| under.overlaid(over));
    Probe {
        http_get: Some(HTTPGetAction {
            path: Some(path.to_owned()),
            port: IntOrString::Int(port),
            scheme: Some("HTTPS".to_owned()),
            ..HTTPGetAction::default()
        }),
        initial_delay_seconds: timing.initial_delay_seconds,
        timeout_seconds: timing.timeout_seconds,
        period_seconds: timing.period_seconds,
        success_threshold: timing.success_threshold,
        failure_threshold: timing.failure_threshold,
        ..Probe::default()
    }
}

fn security_context(capability: Option<&str>) -> SecurityContext {
    SecurityContext {
        allow_privilege_escalation: Some(false),
        read_only_root_filesystem: Some(true),
        capabilities: Some(Capabilities {
            drop: Some(vec!["ALL".to_owned()]),
            add: capability.map(|name| vec![name.to_owned()]),
        }),
        ..SecurityContext::default()
    }
}
