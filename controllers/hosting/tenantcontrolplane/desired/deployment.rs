//! The Deployment of a tenant. Typed for the fields that the engine sets; the user's opaque fields are merged over it
//! as JSON, so that a field of a newer Kubernetes is kept. Pure.

use std::collections::BTreeMap;

use k8s_openapi::{
    api::{
        apps::v1::{Deployment, DeploymentSpec, DeploymentStrategy, RollingUpdateDeployment},
        core::v1::{PodSpec, PodTemplateSpec, TopologySpreadConstraint},
    },
    apimachinery::pkg::{
        apis::meta::v1::{LabelSelector, ObjectMeta},
        util::intstr::IntOrString,
    },
};
use kamaji_api::{
    addons::KonnectivityServer,
    labels::kamaji,
    tenantcontrolplane::{
        ComponentResources, ComponentSecurityContexts, ComponentVolumeMounts, DeploymentSpec as UserSpec,
        default_strategy,
    },
};
use kube::ResourceExt;
use serde::Serialize;
use serde_json::{Value, json};

use super::{
    Result, containers,
    inputs::Inputs,
    konnectivity, manifest_with,
    metadata::{labels_of, metadata, selector},
    volumes,
};
use crate::{
    hosting::{
        hardened,
        tenantcontrolplane::{
            component::{API_SERVER, CONTROLLER_MANAGER, SCHEDULER},
            konnectivity::SERVER,
        },
    },
    k8s::{manifest::Manifest, merge_patch::merge_patch},
    pki::spec::component,
};

/// Secrets whose change replaces the pods, by component.
const MOUNTED: [&str; 8] = [
    component::API_SERVER,
    component::KUBELET_CLIENT,
    component::CA,
    component::CONTROLLER_MANAGER,
    component::FRONT_PROXY_CA,
    component::FRONT_PROXY_CLIENT,
    component::SERVICE_ACCOUNT,
    component::SCHEDULER,
];

/// The Deployment. Its pods roll when a mounted Secret changes, since the pod template carries the digest of each.
///
/// # Errors
/// See [`Result`].
pub fn render(inputs: &Inputs<'_>) -> Result<Manifest> {
    let Inputs { tenant, .. } = inputs;
    let user = &tenant.spec.control_plane.deployment;
    let deployment = Deployment {
        metadata: metadata(
            tenant,
            &tenant.name_any(),
            "deployment",
            Some(&user.additional_metadata),
        ),
        spec: Some(DeploymentSpec {
            replicas: Some(user.replicas),
            selector: LabelSelector {
                match_labels: Some(selector(tenant)),
                ..LabelSelector::default()
            },
            strategy: Some(strategy()),
            template: PodTemplateSpec {
                metadata: Some(pod_metadata(inputs)),
                spec: Some(pod(inputs)),
            },
            ..DeploymentSpec::default()
        }),
        ..Deployment::default()
    };
    manifest_with(&deployment, |body| {
        overlay(body, user, &selector(tenant));
        if let Some(settings) = &tenant.spec.addons.konnectivity {
            overlay_konnectivity(body, &settings.server);
        }
    })
}

/// One extra pod while rolling, never one less. The field's default in the CRD, which is upstream Kamaji's, counts as
/// unset.
fn strategy() -> DeploymentStrategy {
    DeploymentStrategy {
        type_: Some("RollingUpdate".to_owned()),
        rolling_update: Some(RollingUpdateDeployment {
            max_surge: Some(IntOrString::Int(1)),
            max_unavailable: Some(IntOrString::Int(0)),
        }),
    }
}

fn pod_metadata(inputs: &Inputs<'_>) -> ObjectMeta {
    let tenant = inputs.tenant;
    let extra = &tenant.spec.control_plane.deployment.pod_additional_metadata;
    let mut labels = extra.labels.clone();
    labels.extend(labels_of(tenant, "deployment"));
    let digest = |component: &str| inputs.hashes.get(component).cloned().unwrap_or_default();
    labels.extend(MOUNTED.map(|component| {
        (
            format!("{}{component}", kamaji::COMPONENT_DIGEST_PREFIX),
            digest(component),
        )
    }));
    if tenant.spec.addons.konnectivity.is_some() {
        labels.extend(
            konnectivity::mounted(inputs).map(|(component, digest)| {
                (format!("{}{component}", kamaji::COMPONENT_DIGEST_PREFIX), digest)
            }),
        );
    }
    labels.insert(
        format!("{}datastore", kamaji::COMPONENT_DIGEST_PREFIX),
        inputs.storage.store.to_owned(),
    );
    let mut annotations = extra.annotations.clone();
    annotations.insert(kamaji::STORAGE_CONFIG.to_owned(), inputs.config_hash.to_owned());
    annotations.insert(
        kamaji::STORAGE_CERTIFICATE.to_owned(),
        digest(component::DATASTORE),
    );
    ObjectMeta {
        labels: Some(labels),
        annotations: Some(annotations),
        ..ObjectMeta::default()
    }
}

fn pod(inputs: &Inputs<'_>) -> PodSpec {
    let tenant = inputs.tenant;
    let user = &tenant.spec.control_plane.deployment;
    let name = tenant.name_any();
    let mut volumes = vec![
        volumes::projected(
            API_SERVER,
            volumes::api_server(&name, inputs.ca_secret, inputs.ca_keys),
        ),
        volumes::projected(
            CONTROLLER_MANAGER,
            volumes::controller_manager(&name, inputs.ca_secret, inputs.ca_keys),
        ),
        volumes::projected(SCHEDULER, volumes::scheduler(&name)),
    ];
    if tenant.spec.addons.konnectivity.is_some() {
        volumes.extend(konnectivity::volumes(inputs));
    }
    PodSpec {
        automount_service_account_token: Some(user.automount_service_account_token.unwrap_or(false)),
        service_account_name: Some(user.service_account_name.clone()),
        enable_service_links: Some(false),
        node_selector: Some(user.node_selector.clone()).filter(|map| !map.is_empty()),
        runtime_class_name: user.runtime_class_name.clone(),
        security_context: Some(hardened::pod()),
        containers: containers::all(inputs),
        volumes: Some(volumes),
        // With one replica too, so that scaling replaces no pod.
        topology_spread_constraints: Some(vec![TopologySpreadConstraint {
            max_skew: 1,
            topology_key: "kubernetes.io/hostname".to_owned(),
            when_unsatisfiable: "ScheduleAnyway".to_owned(),
            label_selector: Some(LabelSelector {
                match_labels: Some(selector(tenant)),
                ..LabelSelector::default()
            }),
            ..TopologySpreadConstraint::default()
        }]),
        ..PodSpec::default()
    }
}

/// Merges the user's opaque fields over the Deployment. Every field of the user's spec is named here: the ones that
/// the typed part renders are ignored.
fn overlay(body: &mut Value, user: &UserSpec, selector: &BTreeMap<String, String>) {
    let UserSpec {
        registry_settings: _,
        replicas: _,
        node_selector: _,
        runtime_class_name: _,
        extra_args: _,
        additional_metadata: _,
        pod_additional_metadata: _,
        probes: _,
        service_account_name: _,
        automount_service_account_token: _,
        strategy,
        affinity,
        tolerations,
        topology_spread_constraints,
        pod_security_context,
        resources,
        container_security_contexts,
        additional_volume_mounts,
        additional_containers,
        additional_init_containers,
        additional_volumes,
    } = user;
    if *strategy != default_strategy()
        && let Some(spec) = body.pointer_mut("/spec")
    {
        spec["strategy"] = strategy.0.clone();
    }
    let Some(pod) = body.pointer_mut("/spec/template/spec") else {
        return;
    };
    if let Some(affinity) = affinity {
        pod["affinity"] = affinity.0.clone();
    }
    if !tolerations.is_empty() {
        pod["tolerations"] = list(tolerations);
    }
    if !topology_spread_constraints.is_empty() {
        let mut constraints = list(topology_spread_constraints);
        for constraint in constraints.as_array_mut().into_iter().flatten() {
            if let Some(map) = constraint.as_object_mut() {
                map.entry("labelSelector")
                    .or_insert_with(|| json!({ "matchLabels": selector }));
            }
        }
        pod["topologySpreadConstraints"] = constraints;
    }
    if let Some(context) = pod_security_context {
        merge_patch(&mut pod["securityContext"], &context.0);
    }
    let ComponentResources {
        api_server,
        controller_manager,
        scheduler,
        kine: _,
    } = resources;
    for (name, resources) in [
        (API_SERVER, api_server),
        (CONTROLLER_MANAGER, controller_manager),
        (SCHEDULER, scheduler),
    ] {
        if let (Some(container), Some(resources)) = (container(pod, name), resources) {
            container["resources"] = resources.0.clone();
        }
    }
    let ComponentSecurityContexts {
        api_server,
        controller_manager,
        scheduler,
    } = container_security_contexts;
    for (name, context) in [
        (API_SERVER, api_server),
        (CONTROLLER_MANAGER, controller_manager),
        (SCHEDULER, scheduler),
    ] {
        if let (Some(container), Some(context)) = (container(pod, name), context) {
            merge_patch(&mut container["securityContext"], &context.0);
        }
    }
    let ComponentVolumeMounts {
        api_server,
        controller_manager,
        scheduler,
    } = additional_volume_mounts;
    for (name, mounts) in [
        (API_SERVER, api_server),
        (CONTROLLER_MANAGER, controller_manager),
        (SCHEDULER, scheduler),
    ] {
        if let Some(container) = container(pod, name) {
            prepend(container, "volumeMounts", mounts);
        }
    }
    prepend(pod, "containers", additional_containers);
    prepend(pod, "initContainers", additional_init_containers);
    prepend(pod, "volumes", additional_volumes);
}

/// Merges the user's opaque fields of the konnectivity server over its container.
fn overlay_konnectivity(body: &mut Value, server: &KonnectivityServer) {
    let KonnectivityServer {
        port: _,
        image: _,
        version: _,
        extra_args: _,
        resources,
        security_context,
    } = server;
    let pod = body.pointer_mut("/spec/template/spec");
    let Some(container) = pod.and_then(|pod| container(pod, SERVER)) else {
        return;
    };
    if let Some(resources) = resources {
        container["resources"] = resources.0.clone();
    }
    if let Some(context) = security_context {
        merge_patch(&mut container["securityContext"], &context.0);
    }
}

fn container<'a>(pod: &'a mut Value, name: &str) -> Option<&'a mut Value> {
    pod.get_mut("containers")?
        .as_array_mut()?
        .iter_mut()
        .find(|container| container["name"] == name)
}

fn list<T: Serialize>(items: &[T]) -> Value {
    serde_json::to_value(items).unwrap_or_default()
}

/// Puts the user's entries before the engine's, as upstream Kamaji does.
fn prepend<T: Serialize>(parent: &mut Value, field: &str, items: &[T]) {
    if items.is_empty() {
        return;
    }
    let Value::Array(mut all) = list(items) else {
        return;
    };
    if let Some(Value::Array(own)) = parent.get_mut(field).map(Value::take) {
        all.extend(own);
    }
    parent[field] = Value::Array(all);
}
