//! The hosted containers: images, probes and security contexts. Pure.

use k8s_openapi::{
    api::core::v1::{Container, ContainerPort, HTTPGetAction, Probe},
    apimachinery::pkg::util::intstr::IntOrString,
};
use kamaji_api::{
    probes::{ControlPlaneProbes, ProbeSet, ProbeSpec},
    tenantcontrolplane::{RegistrySettings, TenantControlPlane},
};

use super::{flags, inputs::Inputs, konnectivity, volumes};
use crate::hosting::{
    hardened,
    tenantcontrolplane::component::{
        API_SERVER, CONTROLLER_MANAGER, CONTROLLER_MANAGER_PORT, HTTPS, SCHEDULER, SCHEDULER_PORT,
    },
};

/// The containers, in the order of upstream Kamaji.
pub(super) fn all(inputs: &Inputs<'_>) -> Vec<Container> {
    let mut all = components(inputs);
    if let Some(settings) = &inputs.tenant.spec.addons.konnectivity {
        if let Some(api_server) = all.iter_mut().find(|container| container.name == API_SERVER) {
            let mounts = api_server.volume_mounts.get_or_insert_default();
            mounts.extend(konnectivity::api_server_mounts());
        }
        all.push(konnectivity::container(inputs, settings));
    }
    all
}

/// The three components of Kubernetes.
fn components(inputs: &Inputs<'_>) -> Vec<Container> {
    let tenant = inputs.tenant;
    let port = i32::from(inputs.valid.network.port);
    let RegistrySettings {
        registry,
        tag_suffix,
        api_server_image,
        controller_manager_image,
        scheduler_image,
    } = &tenant.spec.control_plane.deployment.registry_settings;
    let image = |name: &str| {
        let version = &tenant.spec.kubernetes.version;
        let suffix = tag_suffix.as_deref().unwrap_or_default();
        format!("{registry}/{name}:{version}{suffix}")
    };
    vec![
        Container {
            image: Some(image(api_server_image)),
            args: Some(flags::api_server(
                tenant,
                inputs.valid,
                &inputs.storage,
                inputs.advertise,
            )),
            ports: Some(vec![ContainerPort {
                name: Some(HTTPS.to_owned()),
                container_port: port,
                protocol: Some("TCP".to_owned()),
                ..ContainerPort::default()
            }]),
            // The upstream binary carries this file capability and does not start when the bounding set lacks it.
            security_context: Some(hardened::container(Some("NET_BIND_SERVICE"))),
            ..base(tenant, API_SERVER, port, ["/livez", "/readyz", "/livez"], |p| {
                p.api_server.as_ref()
            })
        },
        Container {
            image: Some(image(scheduler_image)),
            args: Some(flags::scheduler(tenant, inputs.valid)),
            ..base(tenant, SCHEDULER, SCHEDULER_PORT, ["/healthz"; 3], |p| {
                p.scheduler.as_ref()
            })
        },
        Container {
            image: Some(image(controller_manager_image)),
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

/// What they have in common. `paths` are those of the liveness, readiness and startup probes.
fn base(
    tenant: &TenantControlPlane,
    name: &str,
    port: i32,
    paths: [&str; 3],
    of: fn(&ControlPlaneProbes) -> Option<&ProbeSet>,
) -> Container {
    let none = ControlPlaneProbes::default();
    let probes = tenant
        .spec
        .control_plane
        .deployment
        .probes
        .as_ref()
        .unwrap_or(&none);
    let own = of(probes).cloned().unwrap_or_default();
    let [liveness, readiness, startup] = paths;
    Container {
        name: name.to_owned(),
        command: Some(vec![name.to_owned()]),
        image_pull_policy: Some("IfNotPresent".to_owned()),
        liveness_probe: Some(probe(
            liveness,
            port,
            &LIVENESS,
            [&probes.liveness, &own.liveness],
        )),
        readiness_probe: Some(probe(
            readiness,
            port,
            &READINESS,
            [&probes.readiness, &own.readiness],
        )),
        startup_probe: Some(probe(startup, port, &STARTUP, [&probes.startup, &own.startup])),
        security_context: Some(hardened::container(None)),
        volume_mounts: Some(vec![volumes::mount(name)]),
        ..Container::default()
    }
}

/// Default timings: timeout and period in seconds, and the failure threshold.
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
/// Five minutes: on two busy cores an API server needs more than the 30 s of upstream Kamaji.
const STARTUP: ProbeSpec = timings(5, 3, 100);

/// The default timings, overridden by `layers` in their order: first the setting for all components, then that of this
/// component.
fn probe(path: &str, port: i32, defaults: &ProbeSpec, layers: [&Option<ProbeSpec>; 2]) -> Probe {
    let ProbeSpec {
        initial_delay_seconds,
        timeout_seconds,
        period_seconds,
        success_threshold,
        failure_threshold,
    } = layers
        .into_iter()
        .flatten()
        .fold(defaults.clone(), |under, over| under.overlaid(over));
    Probe {
        http_get: Some(HTTPGetAction {
            path: Some(path.to_owned()),
            port: IntOrString::Int(port),
            scheme: Some("HTTPS".to_owned()),
            ..HTTPGetAction::default()
        }),
        initial_delay_seconds,
        timeout_seconds,
        period_seconds,
        success_threshold,
        failure_threshold,
        ..Probe::default()
    }
}
