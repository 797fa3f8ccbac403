//! Clusters of a ClusterClass: changed through `spec.topology`, and looked at for what Cluster API makes of it.

use std::{collections::BTreeMap, time::Duration};

use anyhow::{Context as _, Result, bail, ensure};
use k8s_openapi::api::apps::v1::Deployment;
use kube::{
    Api, Client, ResourceExt as _,
    api::{ApiResource, DynamicObject, GroupVersionKind, ListParams, PostParams},
};
use serde_json::{Value, json};

use super::{access::Lab, clusters::Cluster, until::until};
use crate::infra::capi;

/// Time for a change of a topology, with a machine that boots, on a busy machine.
pub const PATIENCE: Duration = Duration::from_mins(5);

/// The kinds that Cluster API makes for a Cluster of a class: group, version, kind, plural.
const MADE: [(&str, &str, &str, &str); 6] = [
    (
        "controlplane.cluster.x-k8s.io",
        "v1alpha2",
        "KamajiControlPlane",
        "kamajicontrolplanes",
    ),
    (
        "infrastructure.cluster.x-k8s.io",
        "v1alpha1",
        "LocalCluster",
        "localclusters",
    ),
    (
        "bootstrap.cluster.x-k8s.io",
        "v1alpha1",
        "KamajiConfigTemplate",
        "kamajiconfigtemplates",
    ),
    (
        "infrastructure.cluster.x-k8s.io",
        "v1alpha1",
        "LocalMachineTemplate",
        "localmachinetemplates",
    ),
    (capi::GROUP, "v1beta2", "MachineDeployment", "machinedeployments"),
    (capi::GROUP, "v1beta2", "MachineSet", "machinesets"),
];

/// Objects of one kind in the namespace of a cluster.
pub fn objects(
    client: &Client,
    namespace: &str,
    (group, version, kind, plural): (&str, &str, &str, &str),
) -> Api<DynamicObject> {
    let kind = GroupVersionKind::gvk(group, version, kind);
    let resource = ApiResource::from_gvk_with_plural(&kind, plural);
    Api::namespaced_with(client.clone(), namespace, &resource)
}

/// The ClusterClasses of the cluster's namespace.
pub fn classes(lab: &Lab, cluster: &Cluster) -> Api<DynamicObject> {
    let kind = (capi::GROUP, "v1beta2", "ClusterClass", "clusterclasses");
    objects(&lab.management, &cluster.namespace, kind)
}

/// The Clusters of the cluster's namespace.
pub fn clusters(lab: &Lab, cluster: &Cluster) -> Api<DynamicObject> {
    Api::namespaced_with(lab.management.clone(), &cluster.namespace, &capi::clusters())
}

/// Changes the Cluster's spec as `kubectl edit` does: reads it, changes it, and writes it again, once more if somebody else
/// has written in between.
///
/// # Errors
/// When the API server refuses the change.
pub async fn edit(lab: &Lab, cluster: &Cluster, change: impl Fn(&mut Value)) -> Result<()> {
    for _ in 0..10 {
        match write(lab, cluster, &change, false).await {
            Err(kube::Error::Api(status)) if status.code == 409 => {}
            other => return other.map_err(Into::into),
        }
    }
    bail!("somebody else writes Cluster {} all the time", cluster.name)
}

/// The words in which the API server refuses such a change, which is only tried.
///
/// # Errors
/// When it does not refuse it.
pub async fn refusal(lab: &Lab, cluster: &Cluster, change: impl Fn(&mut Value)) -> Result<String> {
    for _ in 0..10 {
        match write(lab, cluster, &change, true).await {
            // Somebody else has written in between.
            Err(kube::Error::Api(status)) if status.code == 409 => {}
            Err(kube::Error::Api(status)) => return Ok(status.message),
            Err(error) => return Err(error.into()),
            Ok(()) => bail!("it was not refused"),
        }
    }
    bail!("somebody else writes Cluster {} all the time", cluster.name)
}

async fn write(
    lab: &Lab,
    cluster: &Cluster,
    change: &impl Fn(&mut Value),
    dry_run: bool,
) -> Result<(), kube::Error> {
    let clusters = clusters(lab, cluster);
    let mut object = clusters.get(&cluster.name).await?;
    change(&mut object.data["spec"]);
    let how = PostParams {
        dry_run,
        ..PostParams::default()
    };
    clusters.replace(&cluster.name, &how, &object).await?;
    Ok(())
}

/// Sets a variable of the class for the whole Cluster.
pub fn set_variable(spec: &mut Value, name: &str, value: Value) {
    set(&mut spec["topology"]["variables"], name, value);
}

/// Sets a variable of the class for the workers of the template.
pub fn set_workers_variable(spec: &mut Value, name: &str, value: Value) {
    set(&mut workers(spec)["variables"]["overrides"], name, value);
}

/// The workers of the template in `spec`.
pub fn workers(spec: &mut Value) -> &mut Value {
    &mut spec["topology"]["workers"]["machineDeployments"][0]
}

fn set(list: &mut Value, name: &str, value: Value) {
    if !list.is_array() {
        *list = json!([]);
    }
    let entry = Value::from_iter([("name", Value::from(name)), ("value", value)]);
    if let Some(list) = list.as_array_mut() {
        match list.iter_mut().find(|known| known["name"] == name) {
            Some(known) => *known = entry,
            None => list.push(entry),
        }
    }
}

/// Waits until Cluster API has nothing left to do for the cluster, and the control plane and this many workers are as the
/// topology asks for.
///
/// # Errors
/// When the time is over, with what is missing.
pub async fn settled(lab: &Lab, cluster: &Cluster, workers: usize) -> Result<()> {
    until(
        &format!("the topology of {} to be reconciled", cluster.name),
        PATIENCE,
        async || {
            let object = clusters(lab, cluster).get(&cluster.name).await?;
            is(&object, "TopologyReconciled", "True")?;
            if object.data["spec"]["topology"]["controlPlane"]["replicas"] != 0 {
                is(&object, "ControlPlaneAvailable", "True")?;
            }
            let name = object.data["spec"]["controlPlaneRef"]["name"].as_str();
            let control_planes = objects(&lab.management, &cluster.namespace, MADE[0]);
            let control_plane = control_planes.get(name.context("no control plane")?).await?;
            for type_ in ["RollingOut", "ScalingUp", "ScalingDown"] {
                is(&control_plane, type_, "False")?;
            }
            let machines = cluster.machines(lab).await?;
            let nodes = machines.iter().filter(|machine| {
                machine.data["status"]["nodeRef"]["name"].is_string()
                    && condition(machine, "Ready").is_some_and(|ready| ready["status"] == "True")
                    && condition(machine, "UpToDate").is_some_and(|new| new["status"] == "True")
            });
            let ready = nodes.count();
            ensure!(
                ready == workers && machines.len() == workers,
                "{ready} of {} Machines are up to date and Ready",
                machines.len()
            );
            Ok(Some(()))
        },
    )
    .await
}

/// A condition of an object, of any kind.
pub fn condition<'a>(object: &'a DynamicObject, type_: &str) -> Option<&'a Value> {
    let conditions = object.data.pointer("/status/conditions")?.as_array()?;
    conditions.iter().find(|condition| condition["type"] == type_)
}

/// Whether a condition has this status and is about the spec of today.
fn is(object: &DynamicObject, type_: &str, status: &str) -> Result<()> {
    let found = condition(object, type_).with_context(|| format!("no condition {type_}"))?;
    ensure!(
        found["status"] == status && found["observedGeneration"].as_i64() == object.metadata.generation,
        "{found}"
    );
    Ok(())
}

/// What Cluster API and the engine have made for the cluster, each with its generation. It stays the same while nothing
/// is rolled out.
///
/// # Errors
/// When a kind cannot be listed.
pub async fn made(lab: &Lab, cluster: &Cluster) -> Result<BTreeMap<String, i64>> {
    let mut made = BTreeMap::new();
    for kind in MADE {
        let of_cluster = ListParams::default().labels(&format!(
            "{}={}",
            kamaji_api::labels::capi::CLUSTER_NAME,
            cluster.name
        ));
        let api = objects(&lab.management, &cluster.namespace, kind);
        for object in api.list(&of_cluster).await?.items {
            let generation = object.metadata.generation.unwrap_or_default();
            made.insert(format!("{} {}", kind.2, object.name_any()), generation);
        }
    }
    let hosted = cluster.tenant(lab).await?.metadata;
    made.insert(
        "TenantControlPlane".to_owned(),
        hosted.generation.unwrap_or_default(),
    );
    let deployments = Api::<Deployment>::namespaced(lab.management.clone(), &cluster.namespace);
    let pods = deployments.get(&cluster.name).await?.metadata;
    made.insert("Deployment".to_owned(), pods.generation.unwrap_or_default());
    Ok(made)
}

/// Names of the objects of a kind in what [`made`] returned.
pub fn names(made: &BTreeMap<String, i64>, kind: &str) -> Vec<String> {
    let prefix = format!("{kind} ");
    made.keys()
        .filter_map(|key| key.strip_prefix(&prefix))
        .map(str::to_owned)
        .collect()
}

#[cfg(test)]
mod tests {
    use serde::Deserialize as _;

    use super::*;
    use crate::lab::clusters::{OLDER, OLDEST, VERSION};

    #[test]
    fn a_variable_is_replaced_or_added() {
        let mut spec = json!({ "topology": { "variables": [{ "name": "a", "value": 1 }] } });
        set_variable(&mut spec, "a", json!(2));
        set_variable(&mut spec, "b", json!({ "c": true }));
        assert_eq!(
            spec["topology"]["variables"],
            json!([{ "name": "a", "value": 2 }, { "name": "b", "value": { "c": true } }])
        );
        let mut spec = json!({ "topology": { "workers": { "machineDeployments": [{ "name": "md-0" }] } } });
        set_workers_variable(&mut spec, "a", json!([]));
        assert_eq!(
            workers(&mut spec)["variables"]["overrides"],
            json!([{ "name": "a", "value": [] }])
        );
    }

    /// The class of the local infrastructure, as it is installed.
    fn class() -> Value {
        let text = include_str!("../../templates/cluster/clusterclass-kamaji-local.yaml");
        let mut documents = serde_yaml::Deserializer::from_str(text);
        Value::deserialize(documents.next().unwrap()).unwrap()
    }

    #[test]
    fn the_class_has_the_versions_that_the_lab_builds() {
        let listed = &class()["spec"]["kubernetesVersions"];
        assert_eq!(*listed, json!([OLDEST, OLDER, VERSION]));
    }

    #[test]
    fn every_variable_of_the_class_has_a_description_a_default_and_bounds() {
        let class = class();
        let variables = class["spec"]["variables"].as_array().unwrap();
        for variable in variables {
            let schema = &variable["schema"]["openAPIV3Schema"];
            assert!(
                schema["description"].is_string() && !schema["default"].is_null(),
                "{variable}"
            );
            let bound = match schema["type"].as_str().unwrap() {
                "string" => ["enum", "maxLength"].iter().any(|key| !schema[*key].is_null()),
                "array" => schema["maxItems"].is_u64(),
                "object" => schema["maxProperties"].is_u64() || schema["properties"].is_object(),
                kind => kind == "boolean",
            };
            assert!(bound, "{variable}");
            let name = variable["name"].as_str().unwrap();
            let patches = class["spec"]["patches"].to_string();
            let used = [format!("\"variable\":\"{name}"), format!(".{name} ")];
            assert!(
                used.iter().any(|text| patches.contains(text)),
                "{name} has no effect"
            );
        }
        assert!(variables.len() > 5);
    }

    #[test]
    fn a_condition_counts_for_the_generation_that_it_names() {
        let object: DynamicObject = serde_json::from_value(json!({
            "apiVersion": "v1", "kind": "Kind", "metadata": { "name": "a", "generation": 2 },
            "status": { "conditions": [
                { "type": "Old", "status": "True", "observedGeneration": 1 },
                { "type": "New", "status": "True", "observedGeneration": 2 },
            ] },
        }))
        .unwrap();
        is(&object, "New", "True").unwrap();
        for (type_, status) in [("New", "False"), ("Old", "True"), ("None", "True")] {
            assert!(is(&object, type_, status).is_err(), "{type_}");
        }
    }
}
