//! Values and versions that a class refuses, in words that say why.

use anyhow::{Context as _, Result};
use e2e::lab::{
    access::Lab,
    cleanup::{afterwards, gone},
    clusters::Cluster,
    conditions::contains_all,
    tenants::PATIENCE,
    topology::{classes, clusters, edit, refusal, set_variable, set_workers_variable},
};
use kube::api::{DeleteParams, PostParams};
use serde_json::json;

use crate::cluster;

#[tokio::test]
async fn a_variable_out_of_its_bounds_is_refused_and_named() -> Result<()> {
    let lab = Lab::open().await?;
    let cluster = cluster(&lab).await?;
    for (name, value, words) in [
        ("kubelet", json!({ "maxPods": 251 }), "less than or equal to 250"),
        (
            "serviceType",
            json!("Ingress"),
            "supported values: \"ClusterIP\", \"NodePort\", \"LoadBalancer\"",
        ),
        ("dataStore", json!("Not A Name"), "should match"),
        (
            "nodeTaints",
            json!([{ "key": "a", "effect": "Never" }]),
            "supported values: \"NoSchedule\"",
        ),
        ("konnectivity", json!("yes"), "must be of type boolean"),
        ("noSuchVariable", json!(1), "variable is not defined"),
    ] {
        let message = refusal(&lab, &cluster, |spec| set_variable(spec, name, value.clone())).await?;
        contains_all(&message, &[name, words]);
    }
    let labels = json!({ "site": "not a label" });
    let message = refusal(&lab, &cluster, |spec| {
        set_workers_variable(spec, "nodeLabels", labels.clone());
    })
    .await?;
    contains_all(&message, &["machineDeployments", "nodeLabels", "should match"]);
    Ok(())
}

#[tokio::test]
async fn a_version_that_the_class_has_not_and_a_jump_of_three_minors_are_refused() -> Result<()> {
    let lab = Lab::open().await?;
    let cluster = cluster(&lab).await?;
    for (version, words) in [
        (
            "v1.39.0",
            "version must match one of the versions defined in the ClusterClass",
        ),
        ("v1.35.4", "version cannot be decreased"),
    ] {
        let message = refusal(&lab, &cluster, |spec| {
            spec["topology"]["version"] = json!(version);
        })
        .await?;
        contains_all(&message, &["spec.topology.version", words]);
    }

    // A class without a list of versions takes one minor version at a time.
    let open = Cluster::new("default", "open");
    let classes = classes(&lab, &open);
    let jump = async {
        let mut class = classes.get("kamaji-local").await?;
        class.metadata = serde_json::from_value(json!({ "name": "kamaji-local-open" }))?;
        let spec = class.data["spec"].as_object_mut().context("no spec")?;
        spec.remove("kubernetesVersions");
        if let Some(object) = class.data.as_object_mut() {
            object.remove("status");
        }
        classes.create(&PostParams::default(), &class).await?;
        // Paused: nothing is made for it.
        let paused = serde_json::from_value(json!({
            "apiVersion": "cluster.x-k8s.io/v1beta2", "kind": "Cluster", "metadata": { "name": open.name },
            "spec": { "paused": true, "topology": { "classRef": { "name": "kamaji-local-open" }, "version": "v1.33.0" } },
        }))?;
        clusters(&lab, &open)
            .create(&PostParams::default(), &paused)
            .await?;
        let message = refusal(&lab, &open, |spec| spec["topology"]["version"] = json!("v1.36.3")).await?;
        contains_all(
            &message,
            &["version cannot be increased from \"1.33.0\" to \"1.36.3\""],
        );
        Ok(())
    };
    afterwards(Box::pin(jump), async || {
        let clusters = clusters(&lab, &open);
        if clusters.get_opt(&open.name).await?.is_some() {
            clusters.delete(&open.name, &DeleteParams::default()).await?;
            // While it is paused, nobody removes its finalizers.
            if clusters.get_opt(&open.name).await?.is_some() {
                edit(&lab, &open, |spec| spec["paused"] = json!(false)).await?;
            }
        }
        open.delete(&lab).await?;
        gone(&classes, "kamaji-local-open", PATIENCE).await
    })
    .await
}
