//! The objects that the templates make: every field is known and kept, a second apply changes nothing, what is wrong is
//! refused, and the endpoint can be handed over.

use std::process::Stdio;

use anyhow::{Context as _, Result, ensure};
use capi_kamaji::{
    capi::{cluster::Reference, quirks},
    kamajicontrolplane::handoff::{Infrastructure, Target},
};
use e2e::{
    clusterctl::{Clusterctl, NAMESPACE},
    etcd::tools,
    objects::{self, documents, missing, text, title},
};
use kamaji_api::{conditions::Reason, controlplane::Endpoint};
use kube::Client;
use serde_json::Value;

use super::{
    generated,
    place::{Place, within},
    samples,
};

/// A list of named values as a map.
fn by_name(list: &Value) -> Value {
    let entries = list.as_array().into_iter().flatten();
    entries
        .map(|entry| (text(entry, "/name").to_owned(), entry["value"].clone()))
        .collect()
}

/// Applies an object as a dry run: it is accepted, and every field is kept.
pub async fn kept(client: &Client, object: &Value) -> Result<()> {
    let applied = objects::apply(client, object, "test", true)
        .await
        .with_context(|| title(object))?;
    let mut expected = object.clone();
    if text(object, "/kind") == "Secret" {
        // It is written as text and read in base64.
        expected.as_object_mut().map(|fields| fields.remove("stringData"));
    }
    let mut applied = serde_json::to_value(applied)?;
    // Those with defaults are added; the order is that of the class.
    for object in [&mut expected, &mut applied] {
        if let Some(variables) = object.pointer_mut("/spec/topology/variables") {
            *variables = by_name(variables);
        }
    }
    match missing(&expected, &applied, "") {
        Some(path) => anyhow::bail!("{}: {path} is not kept", title(object)),
        None => Ok(()),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_field_of_every_template_is_known_and_kept() -> Result<()> {
    let (Some(place), Some(clusterctl)) = (Place::shared().await?, Clusterctl::find()?) else {
        return Ok(());
    };
    let client = place.client()?;
    let (mut wrong, mut seen) = (Vec::new(), 0);
    for file in &place.files()? {
        if file.is_class() {
            for object in documents(&file.text)? {
                seen += 1;
                if let Err(error) = kept(&client, &within(object, NAMESPACE)).await {
                    wrong.push(format!("{}: {error:#}", file.name));
                }
            }
            continue;
        }
        let variables = generated::variables(&clusterctl, file).await?;
        let required = samples::required(&variables);
        let mut sets = vec![(String::from("no variable"), required.clone())];
        for (name, value) in samples::optional(&variables) {
            let mut more = required.clone();
            more.insert(name.clone(), value.clone());
            sets.push((format!("{name}={value}"), more));
        }
        sets.push(("every variable".to_owned(), samples::every(&variables)));
        let mut accepted: Vec<Value> = Vec::new();
        for (what, set) in sets {
            for object in place.generated(&clusterctl, file, &set, NAMESPACE).await? {
                if accepted.contains(&object) {
                    continue;
                }
                seen += 1;
                match kept(&client, &object).await {
                    Ok(()) => accepted.push(object),
                    Err(error) => wrong.push(format!("{} with {what}: {error:#}", file.name)),
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

/// Runs kubectl: whether it succeeded, and all that it printed.
async fn kubectl(place: &Place, arguments: &[&str]) -> Result<(bool, String)> {
    let output = tokio::process::Command::new(tools().join("kubectl"))
        .arg("--kubeconfig")
        .arg(place.server().kubeconfig()?)
        .args(arguments)
        .stdin(Stdio::null())
        .output()
        .await?;
    let said = [output.stdout, output.stderr].map(|bytes| String::from_utf8_lossy(&bytes).into_owned());
    Ok((output.status.success(), said.concat()))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dry_run_of_a_control_plane_shows_what_is_refused() -> Result<()> {
    let (Some(place), Some(clusterctl)) = (Place::shared().await?, Clusterctl::find()?) else {
        return Ok(());
    };
    let files = place.files()?;
    let file = files
        .iter()
        .find(|file| file.name == "local")
        .context("no template")?;
    let set = samples::required(&generated::variables(&clusterctl, file).await?);
    let objects = place.generated(&clusterctl, file, &set, NAMESPACE).await?;
    let is_control_plane = |object: &&Value| text(object, "/kind") == "KamajiControlPlane";
    let mut object = objects
        .iter()
        .find(is_control_plane)
        .context("no control plane")?
        .clone();
    object["spec"]["network"]["serviceAddress"] = "api.example.org".into();
    let folder = place
        .server()
        .kubeconfig()?
        .parent()
        .context("no folder")?
        .to_owned();
    let manifest = folder.join("refused.json").display().to_string();
    std::fs::write(&manifest, object.to_string())?;
    let (accepted, said) = kubectl(&place, &["apply", "--dry-run=server", "-f", &manifest]).await?;
    assert!(
        !accepted && said.contains("must be an IP address such as 192.0.2.10, not a name"),
        "{said}"
    );
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn kubectl_diff_after_kubectl_apply_prints_nothing() -> Result<()> {
    let (Some(place), Some(clusterctl)) = (Place::shared().await?, Clusterctl::find()?) else {
        return Ok(());
    };
    let folder = place
        .server()
        .kubeconfig()?
        .parent()
        .context("no folder")?
        .to_owned();
    let mut wrong = Vec::new();
    for (name, objects) in to_apply(&place, &clusterctl).await? {
        let manifest = folder.join(format!("{name}.json"));
        // One document after the other: kubectl checks the items of a List by itself.
        let stream: Vec<_> = objects.iter().map(Value::to_string).collect();
        std::fs::write(&manifest, stream.join("\n"))?;
        let manifest = manifest.display().to_string();
        let (applied, said) = kubectl(&place, &["apply", "-f", &manifest]).await?;
        if !applied {
            wrong.push(format!("{name}: {said}"));
            continue;
        }
        for workers in objects.iter().filter(|object| has_sizes(object)) {
            if let Some(said) = number_after_second_apply(&place, &manifest, workers).await? {
                wrong.push(format!("{name}: {said}"));
            }
        }
        let (same, said) = kubectl(&place, &["diff", "-f", &manifest]).await?;
        if !same || !said.is_empty() {
            wrong.push(format!("{name}: {said}"));
        }
    }
    ensure!(wrong.is_empty(), "{}", wrong.join("\n"));
    Ok(())
}

/// What users apply, each in a namespace of its own: the classes, and every template with its required variables and with all.
async fn to_apply(place: &Place, clusterctl: &Clusterctl) -> Result<Vec<(String, Vec<Value>)>> {
    let mut all = Vec::new();
    for file in &place.files()? {
        if file.is_class() {
            let namespace = format!("diff-{}", file.name);
            place.server().namespace(&namespace).await?;
            let objects = documents(&file.text)?.into_iter();
            let objects = objects.map(|object| within(object, &namespace)).collect();
            all.push((file.name.clone(), objects));
            continue;
        }
        let variables = generated::variables(clusterctl, file).await?;
        for (what, set) in [
            ("required", samples::required(&variables)),
            ("every", samples::every(&variables)),
        ] {
            let namespace = format!("diff-{}-{what}", file.name);
            if file.name.ends_with("-class") {
                place.namespace(&namespace).await?;
            } else {
                place.server().namespace(&namespace).await?;
            }
            let objects = place.generated(clusterctl, file, &set, &namespace).await?;
            all.push((format!("{}-{what}", file.name), objects));
        }
    }
    Ok(all)
}

/// Whether an object is a number of workers with sizes for the Cluster Autoscaler.
fn has_sizes(object: &Value) -> bool {
    let size = "/metadata/annotations/cluster.x-k8s.io~1cluster-api-autoscaler-node-group-max-size";
    text(object, "/kind") == "MachineDeployment" && object.pointer(size).is_some()
}

/// Scales workers as an autoscaler or a user does, and applies the manifest again. What is wrong if the number changes.
async fn number_after_second_apply(place: &Place, manifest: &str, workers: &Value) -> Result<Option<String>> {
    let name = text(workers, "/metadata/name");
    let of = [
        "--namespace",
        text(workers, "/metadata/namespace"),
        "machinedeployment",
        name,
    ];
    let (scaled, said) = kubectl(place, &[&["scale", "--replicas=9"], &of[..]].concat()).await?;
    ensure!(scaled, "{said}");
    let (applied, said) = kubectl(place, &["apply", "-f", manifest]).await?;
    ensure!(applied, "{said}");
    let (_, number) = kubectl(
        place,
        &[&["get", "-o=jsonpath={.spec.replicas}"], &of[..]].concat(),
    )
    .await?;
    Ok((number != "9").then(|| format!("{name} had 9 replicas, and {number} when applied again")))
}

#[tokio::test(flavor = "multi_thread")]
async fn every_infrastructure_cluster_takes_the_endpoint() -> Result<()> {
    let (Some(place), Some(clusterctl)) = (Place::shared().await?, Clusterctl::find()?) else {
        return Ok(());
    };
    let client = place.client()?;
    let infrastructure = Infrastructure::new(client.clone(), quirks::embedded()?, false);
    let mut wrong = Vec::new();
    for file in place.files()?.iter().filter(|file| !file.is_class()) {
        let variables = generated::variables(&clusterctl, file).await?;
        let namespace = format!("endpoint-{}", file.name);
        place.server().namespace(&namespace).await?;
        let objects = place
            .generated(&clusterctl, file, &samples::required(&variables), &namespace)
            .await?;
        let cluster = objects
            .iter()
            .find(|object| text(object, "/kind") == "Cluster")
            .context("no Cluster")?;
        let reference = &cluster["spec"]["infrastructureRef"];
        let Some(object) = objects.iter().find(|object| reference["kind"] == object["kind"]) else {
            // A topology makes it from the class, which is compared with the plain template.
            continue;
        };
        objects::apply(&client, object, "its-user", false).await?;
        let reference = Reference {
            api_group: text(reference, "/apiGroup").to_owned(),
            kind: text(reference, "/kind").to_owned(),
            name: text(reference, "/name").to_owned(),
        };
        let port = object
            .pointer("/spec/controlPlaneEndpoint/port")
            .and_then(Value::as_u64);
        let host = text(object, "/spec/controlPlaneEndpoint/host");
        let endpoint = Endpoint {
            host: if host.is_empty() { "192.0.2.1" } else { host }.to_owned(),
            port: u16::try_from(port.unwrap_or(6443))?.into(),
        };
        let target = Target {
            namespace: &namespace,
            reference: &reference,
            endpoint: &endpoint,
            of_cluster: None,
        };
        let (reason, message) = match infrastructure.hand_over(target, false).await {
            Ok(given) => given.reported(),
            Err(problem) => (problem.reason, problem.message),
        };
        println!("{}: {message}", file.name);
        // LocalCluster has no such field: it takes the endpoint of the Cluster.
        if reason != Reason::Patched && file.infrastructure != "local" {
            wrong.push(format!("{}: {reason:?}: {message}", file.name));
        }
    }
    ensure!(wrong.is_empty(), "{}", wrong.join("\n"));
    Ok(())
}
