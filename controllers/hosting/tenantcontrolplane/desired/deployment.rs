//! The Deployment of a tenant (hosting specification 2.7, 2.8): typed for what is ours, with the user's opaque parts
//! laid over it as JSON, so that no field of a newer Kubernetes is lost.

use std::collections::BTreeMap;
use std::net::IpAddr;

use k8s_openapi::api::apps::v1::{Deployment, DeploymentSpec, DeploymentStrategy, RollingUpdateDeployment};
use k8s_openapi::api::core::v1::{
    PodSecurityContext, PodSpec, PodTemplateSpec, SeccompProfile, TopologySpreadConstraint,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, ObjectMeta};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use kamaji_api::labels::kamaji;
use kamaji_api::tenantcontrolplane::{
    ComponentResources, ComponentSecurityContexts, ComponentVolumeMounts, DeploymentSpec as Asked,
    TenantControlPlane, default_strategy,
};
use kube::ResourceExt;
use serde::Serialize;
use serde_json::{Value, json};

use super::containers::{self, API_SERVER, CONTROLLER_MANAGER, SCHEDULER};
use super::{Result, labels_of, metadata, selector, volumes};
use crate::hosting::tenantcontrolplane::validate::Valid;
use crate::k8s::manifest::Manifest;
use crate::pki::spec::component;

pub use super::volumes::{AuthorityFiles, OUR_AUTHORITY, file};

/// Names of the engine's containers.
pub const CONTAINERS: [&str; 3] = [API_SERVER, SCHEDULER, CONTROLLER_MANAGER];
/// User and group of the hosted processes.
const NOBODY: i64 = 65532;
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

/// The tenant's place in its datastore.
#[derive(Clone, Copy, Debug)]
pub struct Storage<'a> {
    /// Name of the DataStore.
    pub store: &'a str,
    /// Schema: the key prefix.
    pub schema: &'a str,
    /// `host:port` of each member.
    pub endpoints: &'a [String],
}

/// What the Deployment is made from.
#[derive(Clone, Copy)]
pub struct Inputs<'a> {
    /// The tenant.
    pub tenant: &'a TenantControlPlane,
    /// Its spec, checked.
    pub valid: &'a Valid,
    /// Its place in the datastore.
    pub storage: Storage<'a>,
    /// Address that the tenant's `kubernetes` Service leads to.
    pub advertise: Option<IpAddr>,
    /// Which keys `<tcp>-ca` has.
    pub authority: AuthorityFiles,
    /// Digest of each Secret's data, by component.
    pub hashes: &'a BTreeMap<&'static str, String>,
    /// Digest of the place in the datastore.
    pub config_hash: &'a str,
}

/// The Deployment.
pub fn render(inputs: &Inputs<'_>) -> Result<Manifest> {
    let Inputs { tenant, .. } = inputs;
    let asked = &tenant.spec.control_plane.deployment;
    let deployment = Deployment {
        metadata: metadata(
            tenant,
            &tenant.name_any(),
            "deployment",
            Some(&asked.additional_metadata),
        ),
        spec: Some(DeploymentSpec {
            replicas: Some(asked.replicas),
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
    Manifest::with_overlay(&deployment, |body| {
        overlay(body, asked, &selector(tenant));
    })
}

/// One pod more, none less; Kamaji's default of the field means «not chosen».
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
    let asked = &tenant.spec.control_plane.deployment;
    let name = tenant.name_any();
    PodSpec {
        automount_service_account_token: Some(asked.automount_service_account_token.unwrap_or(false)),
        service_account_name: Some(asked.service_account_name.clone()),
        enable_service_links: Some(false),
        node_selector: Some(asked.node_selector.clone()).filter(|map| !map.is_empty()),
        runtime_class_name: asked.runtime_class_name.clone(),
        security_context: Some(PodSecurityContext {
            run_as_non_root: Some(true),
            run_as_user: Some(NOBODY),
            run_as_group: Some(NOBODY),
            fs_group: Some(NOBODY),
            seccomp_profile: Some(SeccompProfile {
                type_: "RuntimeDefault".to_owned(),
                ..SeccompProfile::default()
            }),
            ..PodSecurityContext::default()
        }),
        containers: containers::all(inputs),
        volumes: Some(vec![
            volumes::projected(API_SERVER, volumes::api_server(&name, inputs.authority)),
            volumes::projected(
                CONTROLLER_MANAGER,
                volumes::controller_manager(&name, inputs.authority),
            ),
            volumes::projected(SCHEDULER, volumes::scheduler(&name)),
        ]),
        topology_spread_constraints: (asked.replicas > 1).then(|| {
            vec![TopologySpreadConstraint {
                max_skew: 1,
                topology_key: "kubernetes.io/hostname".to_owned(),
                when_unsatisfiable: "ScheduleAnyway".to_owned(),
                label_selector: Some(LabelSelector {
                    match_labels: Some(selector(tenant)),
                    ..LabelSelector::default()
                }),
                ..TopologySpreadConstraint::default()
            }]
        }),
        ..PodSpec::default()
    }
}

/// Lays the user's parts over the Deployment.
fn overlay(body: &mut Value, asked: &Asked, selector: &BTreeMap<String, String>) {
    if asked.strategy != default_strategy()
        && let Some(spec) = body.pointer_mut("/spec")
    {
        spec["strategy"] = asked.strategy.0.clone();
    }
    let Some(pod) = body.pointer_mut("/spec/template/spec") else {
        return;
    };
    if let Some(affinity) = &asked.affinity {
        pod["affinity"] = affinity.0.clone();
    }
    if !asked.tolerations.is_empty() {
        pod["tolerations"] = list(&asked.tolerations);
    }
    if !asked.topology_spread_constraints.is_empty() {
        let mut constraints = list(&asked.topology_spread_constraints);
        for constraint in constraints.as_array_mut().into_iter().flatten() {
            if let Some(map) = constraint.as_object_mut() {
                map.entry("labelSelector")
                    .or_insert_with(|| json!({ "matchLabels": selector }));
            }
        }
        pod["topologySpreadConstraints"] = constraints;
    }
    if let Some(context) = &asked.pod_security_context {
        merge(&mut pod["securityContext"], &context.0);
    }
    let ComponentResources {
        api_server,
        controller_manager,
        scheduler,
        kine: _,
    } = &asked.resources;
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
    } = &asked.container_security_contexts;
    for (name, context) in [
        (API_SERVER, api_server),
        (CONTROLLER_MANAGER, controller_manager),
        (SCHEDULER, scheduler),
    ] {
        if let (Some(container), Some(context)) = (container(pod, name), context) {
            merge(&mut container["securityContext"], &context.0);
        }
    }
    let ComponentVolumeMounts {
        api_server,
        controller_manager,
        scheduler,
    } = &asked.additional_volume_mounts;
    for (name, mounts) in [
        (API_SERVER, api_server),
        (CONTROLLER_MANAGER, controller_manager),
        (SCHEDULER, scheduler),
    ] {
        if let Some(container) = container(pod, name) {
            prepend(container, "volumeMounts", mounts);
        }
    }
    prepend(pod, "containers", &asked.additional_containers);
    prepend(pod, "initContainers", &asked.additional_init_containers);
    prepend(pod, "volumes", &asked.additional_volumes);
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

/// Puts the user's entries before the engine's, where Kamaji puts them.
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

/// Lays `over` on `under`: fields of the user win, the engine's others stay.
fn merge(under: &mut Value, over: &Value) {
    match (under, over) {
        (Value::Object(under), Value::Object(over)) => {
            for (key, value) in over {
                merge(under.entry(key.as_str()).or_insert(Value::Null), value);
            }
        }
        (under, over) => *under = over.clone(),
    }
}
