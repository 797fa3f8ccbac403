//! The ClusterClasses, reconciled by Cluster API: a cluster of a class is the one that the plain template makes, each variable
//! changes what it says, and values out of bounds are refused.

use std::collections::BTreeMap;

use anyhow::{Context as _, Result, ensure};
use e2e::{
    cloud_init::CloudInit,
    clusterctl::{CLUSTER, Clusterctl},
    core_provider::condition,
    lab::until::until,
    objects::{self, documents, missing, text, title},
};
use kube::{Client, api::ListParams};
use serde_json::{Value, json};

use super::{
    bootstrap,
    changes::{Part, rows},
    files::File,
    place::{Place, SOON, within},
    samples,
};

/// What a cluster consists of, as far as a class decides it.
struct Parts {
    objects: BTreeMap<Part, Value>,
    deployment: Value,
    health_check: Value,
}

/// Reads an object that another one refers to. References have no version; the plain template names it.
async fn referred(client: &Client, reference: &Value, versions: &[Value], namespace: &str) -> Result<Value> {
    let kind = &reference["kind"];
    let version = versions
        .iter()
        .find(|object| object["kind"] == *kind)
        .context("no version")?;
    let stub = json!({
        "apiVersion": version["apiVersion"], "kind": kind, "metadata": {"namespace": namespace},
    });
    let api = objects::api(client, &stub).await?;
    Ok(serde_json::to_value(api.get(text(reference, "/name")).await?)?)
}

impl Parts {
    /// Those of a cluster that exist.
    async fn of(client: &Client, name: &str, versions: &[Value], namespace: &str) -> Result<Self> {
        let stub = |kind: &str| json!({"apiVersion": "cluster.x-k8s.io/v1beta2", "kind": kind, "metadata": {"namespace": namespace}});
        let cluster = objects::api(client, &stub("Cluster")).await?.get(name).await?;
        let mine = ListParams::default().labels(&format!("cluster.x-k8s.io/cluster-name={name}"));
        let deployments = objects::api(client, &stub("MachineDeployment"))
            .await?
            .list(&mine)
            .await?;
        // A plain one has the label in its template alone.
        let deployment = if let Some(found) = deployments.items.into_iter().next() {
            found
        } else {
            let api = objects::api(client, &stub("MachineDeployment")).await?;
            api.get(&format!("{name}-md-0")).await?
        };
        let (cluster, deployment) = (serde_json::to_value(cluster)?, serde_json::to_value(deployment)?);
        let check = objects::api(client, &stub("MachineHealthCheck")).await?;
        let check = check.get(text(&deployment, "/metadata/name")).await?;
        let mut objects = BTreeMap::new();
        let machine = &deployment["spec"]["template"]["spec"];
        for (part, reference) in [
            (Part::Infrastructure, &cluster["spec"]["infrastructureRef"]),
            (Part::ControlPlane, &cluster["spec"]["controlPlaneRef"]),
            (Part::Bootstrap, &machine["bootstrap"]["configRef"]),
            (Part::Machine, &machine["infrastructureRef"]),
        ] {
            let object = referred(client, reference, versions, namespace).await;
            objects.insert(part, object.with_context(|| format!("{part:?} {reference}"))?);
        }
        Ok(Self {
            objects,
            deployment,
            health_check: serde_json::to_value(check)?,
        })
    }
}

/// How many objects of the kinds that are made anew for each change of the workers a cluster has.
async fn count(client: &Client, parts: &Parts, namespace: &str) -> Result<BTreeMap<String, usize>> {
    let mine = ListParams::default().labels(&format!("cluster.x-k8s.io/cluster-name={CLUSTER}"));
    let mut found = BTreeMap::new();
    for part in [Part::Bootstrap, Part::Machine] {
        let object = within(parts.objects[&part].clone(), namespace);
        let all = objects::api(client, &object).await?.list(&mine).await?;
        found.insert(text(&object, "/kind").to_owned(), all.items.len());
    }
    Ok(found)
}

/// Applies objects in order.
async fn apply(client: &Client, all: &[Value]) -> Result<()> {
    for object in all {
        objects::apply(client, object, "its-user", false)
            .await
            .with_context(|| title(object))?;
    }
    Ok(())
}

/// Waits until a topology is what its class says.
async fn reconciled(client: &Client, cluster: &Value) -> Result<()> {
    let api = objects::api(client, cluster).await?;
    condition(&api, text(cluster, "/metadata/name"), "TopologyReconciled", SOON).await
}

/// The same without fields that hold nothing: patches of a class need what they add to.
fn without_empty(value: &Value) -> Value {
    let Value::Object(fields) = value else {
        return value.clone();
    };
    let fields = fields
        .iter()
        .map(|(key, value)| (key.clone(), without_empty(value)));
    fields.filter(|(_, value)| *value != json!({})).collect()
}

/// Differences between the cluster of a class and the one of the plain template.
fn differences(plain: &Parts, classed: &Parts) -> Vec<String> {
    let mut found = Vec::new();
    let mut compare = |what: String, one: &Value, other: &Value| {
        let (one, other) = (without_empty(one), without_empty(other));
        let ways = [missing(&one, &other, "spec"), missing(&other, &one, "spec")];
        found.extend(ways.into_iter().flatten().map(|path| format!("{what}: {path}")));
    };
    for (part, object) in &plain.objects {
        compare(
            format!("{part:?}"),
            &object["spec"],
            &classed.objects[part]["spec"],
        );
    }
    for pointer in [
        "/spec/replicas",
        "/spec/remediation",
        "/spec/template/spec/version",
        "/spec/template/spec/failureDomain",
    ] {
        let of = |parts: &Parts| parts.deployment.pointer(pointer).cloned().unwrap_or_default();
        compare(format!("MachineDeployment {pointer}"), &of(plain), &of(classed));
    }
    for size in ["min-size", "max-size"] {
        let key = format!("cluster.x-k8s.io/cluster-api-autoscaler-node-group-{size}");
        let of = |parts: &Parts| parts.deployment["metadata"]["annotations"][&key].clone();
        compare(key.clone(), &of(plain), &of(classed));
    }
    for field in ["checks", "remediation"] {
        let of = |parts: &Parts| parts.health_check["spec"][field].clone();
        compare(format!("MachineHealthCheck {field}"), &of(plain), &of(classed));
    }
    found
}

/// The classes that have rows here: that of the local infrastructure is tested with machines.
fn classes(place: &Place) -> Result<Vec<File>> {
    let mut files = place.files()?;
    files.retain(|file| file.is_class() && file.infrastructure != "local");
    Ok(files)
}

/// The objects of the template `name` with its required variables.
async fn generated(
    place: &Place,
    clusterctl: &Clusterctl,
    name: &str,
    namespace: &str,
) -> Result<Vec<Value>> {
    let files = place.files()?;
    let file = files
        .iter()
        .find(|file| file.name == name)
        .with_context(|| format!("no {name}"))?;
    let variables = samples::required(&super::generated::variables(clusterctl, file).await?);
    place.generated(clusterctl, file, &variables, namespace).await
}

/// The Cluster among objects.
fn cluster(objects: &[Value]) -> Result<&Value> {
    objects
        .iter()
        .find(|object| text(object, "/kind") == "Cluster")
        .context("no Cluster")
}

/// The same Cluster with another value of a variable.
fn with_variable(mut cluster: Value, name: &str, value: &Value) -> Value {
    if let Some(variables) = cluster
        .pointer_mut("/spec/topology/variables")
        .and_then(Value::as_array_mut)
    {
        variables.retain(|variable| variable["name"] != name);
        variables.push(json!({"name": name, "value": value}));
    }
    cluster
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cluster_of_a_class_is_that_of_the_plain_template() -> Result<()> {
    let (Some(place), Some(clusterctl)) = (Place::shared().await?, Clusterctl::find()?) else {
        return Ok(());
    };
    let client = place.client()?;
    let mut wrong = Vec::new();
    for class in classes(&place)? {
        let infrastructure = &class.infrastructure;
        let (of_plain, of_class) = (
            format!("plain-{infrastructure}"),
            format!("class-{infrastructure}"),
        );
        place.server().namespace(&of_plain).await?;
        place.namespace(&of_class).await?;
        let plain = generated(
            &place,
            &clusterctl,
            &format!("cluster-template-{infrastructure}"),
            &of_plain,
        )
        .await?;
        let classed = generated(
            &place,
            &clusterctl,
            &format!("cluster-template-{infrastructure}-class"),
            &of_class,
        )
        .await?;
        apply(&client, &plain).await?;
        apply(&client, &classed).await?;
        reconciled(&client, cluster(&classed)?).await?;
        let one = Parts::of(&client, CLUSTER, &plain, &of_plain).await?;
        let other = Parts::of(&client, CLUSTER, &plain, &of_class).await?;
        wrong.extend(
            differences(&one, &other)
                .into_iter()
                .map(|line| format!("{}: {line}", class.name)),
        );
        // What both templates hold themselves is the same too.
        for object in &classed {
            let same = |other: &&Value| title(other) == title(object);
            let Some(twin) = plain
                .iter()
                .find(same)
                .filter(|_| text(object, "/kind") != "Cluster")
            else {
                continue;
            };
            for key in ["spec", "data", "stringData", "type"] {
                if twin[key] != object[key] {
                    wrong.push(format!("{}: {} of {} differs", class.name, key, title(object)));
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn each_variable_of_a_class_changes_what_it_says() -> Result<()> {
    let (Some(place), Some(clusterctl)) = (Place::shared().await?, Clusterctl::find()?) else {
        return Ok(());
    };
    let (client, cloud_init) = (place.client()?, CloudInit::find()?);
    let mut wrong = Vec::new();
    for class in classes(&place)? {
        let infrastructure = &class.infrastructure;
        let namespace = format!("changed-{infrastructure}");
        place.namespace(&namespace).await?;
        let (changes, _) = rows(infrastructure).with_context(|| format!("no rows for {}", class.name))?;
        for object in documents(&class.text)?
            .iter()
            .filter(|object| text(object, "/kind") == "ClusterClass")
        {
            for variable in object["spec"]["variables"].as_array().into_iter().flatten() {
                let name = text(variable, "/name");
                ensure!(
                    changes.iter().any(|(known, ..)| *known == name),
                    "{}: no row for {name}",
                    class.name
                );
            }
        }
        let versions = generated(
            &place,
            &clusterctl,
            &format!("cluster-template-{infrastructure}"),
            &namespace,
        )
        .await?;
        let name = format!("cluster-template-{infrastructure}-class");
        let objects = generated(&place, &clusterctl, &name, &namespace).await?;
        let before = cluster(&objects)?.clone();
        apply(&client, std::slice::from_ref(&before)).await?;
        reconciled(&client, &before).await?;
        let start = Parts::of(&client, CLUSTER, &versions, &namespace).await?;
        let after = changes.iter().fold(before.clone(), |cluster, (name, value, _)| {
            with_variable(cluster, name, value)
        });
        apply(&client, std::slice::from_ref(&after)).await?;
        reconciled(&client, &after).await?;
        let end = Parts::of(&client, CLUSTER, &versions, &namespace).await?;
        // What the patches add for the workers makes bootstrap data.
        let settings = &end.objects[&Part::Bootstrap]["spec"]["template"]["spec"];
        let machine = text(&end.objects[&Part::Machine], "/kind");
        if let Err(error) = bootstrap::checked(cloud_init.as_ref(), &class.name, (machine, true), settings) {
            wrong.push(format!("{}: {error:#}", class.name));
        }
        for (variable, _, shows) in &changes {
            for (part, pointer, expected) in shows {
                let at = |parts: &Parts| parts.objects[part].pointer(pointer).cloned();
                let found = at(&end);
                if found.as_ref() != Some(expected) {
                    wrong.push(format!(
                        "{}: {variable}: {part:?} {pointer} is {found:?}",
                        class.name
                    ));
                }
                let is_kept = pointer.ends_with("/dhcp4");
                if !is_kept && at(&start).as_ref() == Some(expected) {
                    wrong.push(format!(
                        "{}: {variable}: {part:?} {pointer} was {expected} before",
                        class.name
                    ));
                }
            }
        }
        // One change of the topology is one new template each, however many variables it has.
        for part in [Part::Bootstrap, Part::Machine] {
            let name = |parts: &Parts| text(&parts.objects[&part], "/metadata/name").to_owned();
            assert_ne!(
                name(&start),
                name(&end),
                "{}: {part:?} was edited in place",
                class.name
            );
        }
        let number = count(&client, &end, &namespace).await?;
        assert!(
            number.values().all(|number| *number <= 2),
            "{}: {number:?}",
            class.name
        );
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dry_run_of_a_cluster_shows_the_variable_that_is_refused() -> Result<()> {
    let (Some(place), Some(clusterctl)) = (Place::shared().await?, Clusterctl::find()?) else {
        return Ok(());
    };
    let client = place.client()?;
    let mut wrong = Vec::new();
    for class in classes(&place)? {
        let infrastructure = &class.infrastructure;
        let name = format!("cluster-template-{infrastructure}-class");
        let objects = generated(&place, &clusterctl, &name, e2e::clusterctl::NAMESPACE).await?;
        let good = cluster(&objects)?;
        objects::apply(&client, good, "its-user", true).await?;
        let (_, refusals) = rows(infrastructure).with_context(|| format!("no rows for {}", class.name))?;
        let required = documents(&class.text)?;
        let required = required
            .iter()
            .flat_map(|object| object["spec"]["variables"].as_array().into_iter().flatten());
        let absent = required
            .filter(|variable| variable["required"] == true)
            .map(|variable| {
                let name = text(variable, "/name").to_owned();
                let mut cluster = good.clone();
                if let Some(variables) = cluster
                    .pointer_mut("/spec/topology/variables")
                    .and_then(Value::as_array_mut)
                {
                    variables.retain(|variable| variable["name"] != name.as_str());
                }
                (name, cluster)
            });
        let out_of_bounds = refusals
            .iter()
            .map(|(name, value)| ((*name).to_owned(), with_variable(good.clone(), name, value)));
        for (variable, bad) in absent.chain(out_of_bounds) {
            match objects::apply(&client, &bad, "its-user", true).await {
                Ok(_) => wrong.push(format!("{}: {variable} is accepted", class.name)),
                Err(error) if error.to_string().contains(&variable) => {}
                Err(error) => wrong.push(format!("{}: {variable} is not named: {error}", class.name)),
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cluster_of_a_class_at_rest_is_left_alone() -> Result<()> {
    let (Some(place), Some(clusterctl)) = (Place::shared().await?, Clusterctl::find()?) else {
        return Ok(());
    };
    let client = place.client()?;
    for class in classes(&place)? {
        let infrastructure = &class.infrastructure;
        let namespace = format!("rest-{infrastructure}");
        place.namespace(&namespace).await?;
        let versions = generated(
            &place,
            &clusterctl,
            &format!("cluster-template-{infrastructure}"),
            &namespace,
        )
        .await?;
        let name = format!("cluster-template-{infrastructure}-class");
        let objects = generated(&place, &clusterctl, &name, &namespace).await?;
        let cluster = cluster(&objects)?;
        apply(&client, std::slice::from_ref(cluster)).await?;
        reconciled(&client, cluster).await?;
        let before = Parts::of(&client, CLUSTER, &versions, &namespace).await?;
        let number = count(&client, &before, &namespace).await?;
        // A label of the control plane shows when all was computed once more. What a first pass rotates shows at the latest after
        // the second.
        for again in ["1", "2"] {
            let mut labelled = cluster.clone();
            labelled["spec"]["topology"]["controlPlane"]["metadata"] =
                json!({"labels": {"example.org/again": again}});
            apply(&client, std::slice::from_ref(&labelled)).await?;
            until("the label", SOON, async || {
                let parts = Parts::of(&client, CLUSTER, &versions, &namespace).await?;
                let label = text(
                    &parts.objects[&Part::ControlPlane],
                    "/metadata/labels/example.org~1again",
                );
                Ok((label == again).then_some(()))
            })
            .await?;
            // The workers come after the control plane, so the label alone does not say that they were computed.
            reconciled(&client, &labelled).await?;
            let after = Parts::of(&client, CLUSTER, &versions, &namespace).await?;
            for (part, object) in &before.objects {
                let same = |pointer: &str| object.pointer(pointer) == after.objects[part].pointer(pointer);
                assert!(
                    same("/spec") && same("/metadata/name"),
                    "{}: {part:?}",
                    class.name
                );
            }
            assert_eq!(
                count(&client, &after, &namespace).await?,
                number,
                "{}",
                class.name
            );
        }
    }
    Ok(())
}
