//! What the `ClusterResourceSet` of a template puts into the workload cluster: every field is known and kept, it runs on new
//! nodes, and Cluster API applies it.

use anyhow::{Context as _, Result, ensure};
use e2e::{
    clusterctl::{CLUSTER, Clusterctl, NAMESPACE},
    core_provider::condition,
    objects::{self, documents, text, title},
};
use serde_json::{Value, json};

use super::{
    generated,
    objects::kept,
    place::{Place, SOON},
    samples,
};

/// The manifests that a `ClusterResourceSet` applies to the workload cluster.
fn manifests(objects: &[Value]) -> Result<Vec<Value>> {
    let mut manifests = Vec::new();
    for set in objects
        .iter()
        .filter(|object| text(object, "/kind") == "ClusterResourceSet")
    {
        for resource in set["spec"]["resources"].as_array().into_iter().flatten() {
            let named = |object: &&Value| {
                object["kind"] == resource["kind"] && object["metadata"]["name"] == resource["name"]
            };
            let found = objects
                .iter()
                .find(named)
                .with_context(|| format!("no {resource}"))?;
            for key in ["data", "stringData"] {
                for value in found[key]
                    .as_object()
                    .into_iter()
                    .flat_map(serde_json::Map::values)
                {
                    manifests.extend(documents(value.as_str().unwrap_or_default())?);
                }
            }
        }
    }
    Ok(manifests)
}

/// Whether the pods among manifests get at a Secret: one of them mounts it, or a `ClusterRole` lets all Secrets be watched. A
/// right in one namespace is not enough for programs that watch in all of them.
fn is_read(secret: &str, manifests: &[Value]) -> bool {
    manifests.iter().any(|object| {
        let mut volumes = values(object, "/spec/template/spec/volumes");
        let mut rules = values(object, "/rules").filter(|_| text(object, "/kind") == "ClusterRole");
        let has = |rule: &Value, key: &str, value: &str| values(rule, key).any(|one| one == value);
        volumes.any(|volume| text(volume, "/secret/secretName") == secret)
            || rules.any(|rule| {
                has(rule, "/resources", "secrets")
                    && ["list", "watch"].iter().all(|verb| has(rule, "/verbs", verb))
            })
    })
}

/// The items of a list in an object.
fn values<'a>(object: &'a Value, pointer: &str) -> impl Iterator<Item = &'a Value> {
    let list = object.pointer(pointer).and_then(Value::as_array);
    list.into_iter().flatten()
}

/// Taints of nodes before a cloud controller manager has initialized them, one of a user's own among them.
const EARLY: [(&str, &str); 5] = [
    ("node.cloudprovider.kubernetes.io/uninitialized", "NoSchedule"),
    ("node.cluster.x-k8s.io/uninitialized", "NoSchedule"),
    ("node.kubernetes.io/not-ready", "NoSchedule"),
    ("node.kubernetes.io/not-ready", "NoExecute"),
    ("example.org/own", "NoSchedule"),
];

#[tokio::test(flavor = "multi_thread")]
async fn what_goes_into_the_workload_cluster_is_known_kept_and_runs_on_new_nodes() -> Result<()> {
    let (Some(place), Some(clusterctl)) = (Place::shared().await?, Clusterctl::find()?) else {
        return Ok(());
    };
    let client = place.client()?;
    let (mut wrong, mut seen) = (Vec::new(), 0);
    for file in place.files()?.iter().filter(|file| !file.is_class()) {
        let variables = generated::variables(&clusterctl, file).await?;
        for set in [samples::required(&variables), samples::every(&variables)] {
            let objects = place.generated(&clusterctl, file, &set, NAMESPACE).await?;
            let manifests = manifests(&objects)?;
            let is_external = objects.iter().any(|object| {
                let pointer = "/spec/template/spec/nodeRegistration/cloudProvider";
                text(object, pointer) == "external"
            });
            let has_manager = manifests
                .iter()
                .any(|object| text(object, "/kind") == "Deployment");
            let is_class = objects
                .iter()
                .any(|object| object.pointer("/spec/topology").is_some());
            if !is_class && is_external != has_manager {
                wrong.push(format!(
                    "{}: cloudProvider and cloud controller manager differ",
                    file.name
                ));
            }
            for object in &manifests {
                seen += 1;
                if let Err(error) = kept(&client, object).await {
                    wrong.push(format!("{}: {error:#}", file.name));
                }
                if text(object, "/kind") == "Secret" && !is_read(text(object, "/metadata/name"), &manifests) {
                    wrong.push(format!("{}: no pod reads {}", file.name, title(object)));
                }
                let Some(pod) = object.pointer("/spec/template/spec") else {
                    continue;
                };
                let tolerations = pod["tolerations"].as_array().cloned().unwrap_or_default();
                let tolerates = |(key, effect): (&str, &str)| {
                    let is = |value: &Value, wanted: &str| value.is_null() || value == wanted;
                    let mut all = tolerations.iter();
                    all.any(|one| {
                        one["operator"] == "Exists" && is(&one["key"], key) && is(&one["effect"], effect)
                    })
                };
                if pod["hostNetwork"] != true || !EARLY.into_iter().all(tolerates) {
                    wrong.push(format!(
                        "{}: {} does not run on new nodes",
                        file.name,
                        title(object)
                    ));
                }
                if pod.get("nodeSelector").is_some() || pod.pointer("/affinity/nodeAffinity").is_some() {
                    wrong.push(format!("{}: {} wants certain nodes", file.name, title(object)));
                }
            }
        }
    }
    ensure!(
        wrong.is_empty(),
        "{} of {seen}:\n{}",
        wrong.len(),
        wrong.join("\n")
    );
    println!("{seen} objects");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn cluster_api_applies_the_add_ons_of_every_template() -> Result<()> {
    let (Some(place), Some(clusterctl)) = (Place::shared().await?, Clusterctl::find()?) else {
        return Ok(());
    };
    let client = place.client()?;
    // The workload cluster is this API server too.
    let kubeconfig = std::fs::read_to_string(place.server().kubeconfig()?)?;
    let mut clusters = Vec::new();
    for file in place.files()?.iter().filter(|file| !file.is_class()) {
        let set = samples::required(&generated::variables(&clusterctl, file).await?);
        let namespace = format!("addons-{}", file.name);
        place.server().namespace(&namespace).await?;
        let all = place.generated(&clusterctl, file, &set, &namespace).await?;
        let of_kind = |kind: &str| all.iter().find(|object| text(object, "/kind") == kind);
        let Some(addons) = of_kind("ClusterResourceSet") else {
            continue;
        };
        let used = ["ClusterResourceSet", "ConfigMap", "Secret"];
        for object in all.iter().filter(|object| used.contains(&text(object, "/kind"))) {
            objects::apply(&client, object, "its-user", false).await?;
        }
        let secret = json!({
            "apiVersion": "v1", "kind": "Secret", "type": "cluster.x-k8s.io/secret",
            "metadata": {
                "name": format!("{CLUSTER}-kubeconfig"), "namespace": namespace,
                "labels": {"cluster.x-k8s.io/cluster-name": CLUSTER},
            },
            "stringData": {"value": kubeconfig},
        });
        objects::apply(&client, &secret, "test", false).await?;
        // A cluster without infrastructure counts as provisioned, and is connected to.
        let mut cluster = of_kind("Cluster").context("no Cluster")?.clone();
        cluster["spec"] = json!({
            "clusterNetwork": cluster["spec"]["clusterNetwork"],
            "controlPlaneEndpoint": {"host": "192.0.2.1", "port": 6443},
            "controlPlaneRef": {
                "apiGroup": "controlplane.cluster.x-k8s.io", "kind": "KamajiControlPlane", "name": CLUSTER,
            },
        });
        objects::apply(&client, &cluster, "its-user", false).await?;
        clusters.push((file.name.clone(), addons.clone(), manifests(&all)?));
    }
    for (name, addons, manifests) in clusters {
        let sets = objects::api(&client, &addons).await?;
        condition(&sets, text(&addons, "/metadata/name"), "ResourcesApplied", SOON)
            .await
            .with_context(|| name.clone())?;
        for manifest in manifests {
            let api = objects::api(&client, &manifest).await?;
            let found = api.get_opt(text(&manifest, "/metadata/name")).await?;
            ensure!(found.is_some(), "{name}: {} was not applied", title(&manifest));
        }
    }
    Ok(())
}
