//! Clusters of ClusterClasses that need no worker, or none that boots: ten at rest, one whose Machines wait for versions, one
//! of a class that asks for Machines of the control plane. Needs the lab; makes clusters of its own.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use e2e::lab::{
    access::Lab,
    audit,
    cleanup::{afterwards, gone},
    clusters::{Cluster, VERSION},
    conditions::{contains_all, message},
    tenants::PATIENCE,
    topology::{classes, clusters, edit, made, objects, set_variable, settled},
    until::until,
};
use futures::future::try_join_all;
use kube::api::PostParams;
use serde_json::json;

/// How long nothing of ours asks the management cluster for anything.
const QUIET: Duration = Duration::from_mins(1);
/// The class of the local infrastructure, as clusterctl installs it.
const CLASS: &str = include_str!("../../templates/cluster/clusterclass-kamaji-local.yaml");
/// Clusters at rest.
const CLUSTERS: usize = 10;

#[tokio::test]
async fn contract_32_ten_clusters_of_a_class_are_quiet() -> Result<()> {
    let lab = Lab::open().await?;
    let crowd: Vec<_> = (0..CLUSTERS)
        .map(|number| Cluster::new("default", &format!("crowd-{number}")))
        .collect();
    let quiet = async {
        for cluster in &crowd {
            cluster.create_of_class(&lab, VERSION, (1, 0), &[]).await?;
        }
        let mut before = Vec::new();
        for cluster in &crowd {
            settled(&lab, cluster, 0).await?;
            before.push(made(&lab, cluster).await?);
        }
        audit::rest(&lab, QUIET, 5 * QUIET).await?;
        for (cluster, before) in crowd.iter().zip(before) {
            assert_eq!(before, made(&lab, cluster).await?, "generations of what was made");
        }
        Ok(())
    };
    afterwards(Box::pin(quiet), async || {
        try_join_all(crowd.iter().map(|cluster| cluster.delete(&lab)))
            .await
            .map(drop)
    })
    .await
}

#[tokio::test]
async fn contract_38_machines_are_made_once_versions_are_reported_and_also_while_asleep() -> Result<()> {
    let lab = Lab::open().await?;
    let cluster = Cluster::new("default", "early");
    let early = async {
        // The host has no such image, so no machine boots.
        cluster
            .create_of_class(&lab, VERSION, (1, 1), &[("MACHINE_IMAGE", "none")])
            .await?;
        until("a Machine", PATIENCE, async || {
            // In this order: versions that are missing now were missing when the Machine was made.
            let machines = cluster.machines(&lab).await?.len();
            let control_plane = cluster.control_planes(&lab).get_opt(&cluster.name).await?;
            let versions = control_plane
                .and_then(|object| object.status)
                .map(|status| status.versions);
            let reported = versions.is_some_and(|versions| !versions.is_empty());
            assert!(
                machines == 0 || reported,
                "a Machine before the control plane reports a version"
            );
            Ok((machines == 1).then_some(()))
        })
        .await?;

        edit(&lab, &cluster, |spec| {
            spec["topology"]["controlPlane"]["replicas"] = json!(0);
        })
        .await?;
        until("sleep", PATIENCE, async || {
            ensure!(
                cluster.control_plane_pods(&lab).await?.is_empty(),
                "there are pods"
            );
            Ok(Some(()))
        })
        .await?;
        cluster.scale_workers(&lab, 2).await?;
        until("a second Machine while asleep", PATIENCE, async || {
            Ok((cluster.machines(&lab).await?.len() == 2).then_some(()))
        })
        .await?;
        let object = cluster.control_planes(&lab).get(&cluster.name).await?;
        ensure!(
            !object.status.context("no status")?.versions.is_empty(),
            "no versions while asleep"
        );
        Ok(())
    };
    afterwards(Box::pin(early), async || cluster.delete(&lab).await).await
}

/// A value of each variable that templates get only while it is set, and the template with the text that shows it.
const OPTIONAL: [(&str, &str, &str); 5] = [
    ("nodeLabels", "kamajiconfigtemplates", "site-a"),
    ("nodeTaints", "kamajiconfigtemplates", "taint-a"),
    ("controlPlaneLabels", "kamajicontrolplanes", "tier-a"),
    ("image", "localmachinetemplates", "image-a"),
    ("serviceAddress", "kamajicontrolplanes", "192.0.2.1"),
];

#[tokio::test]
async fn a_variable_can_be_set_and_taken_back() -> Result<()> {
    let lab = Lab::open().await?;
    let cluster = Cluster::new("default", "varied");
    let varied = async {
        cluster.create_of_class(&lab, VERSION, (1, 0), &[]).await?;
        settled(&lab, &cluster, 0).await?;
        for (name, kind, text) in OPTIONAL {
            let (value, nothing) = match name {
                "nodeLabels" | "controlPlaneLabels" => (json!({ "a": text }), json!({})),
                "nodeTaints" => (json!([{ "key": text, "effect": "NoSchedule" }]), json!([])),
                _ => (json!(text), json!("")),
            };
            for (value, shown) in [(value, true), (nothing, false)] {
                edit(&lab, &cluster, |spec| set_variable(spec, name, value.clone())).await?;
                until(&format!("{name} {value}"), PATIENCE, async || {
                    let found = specs(&lab, &cluster, kind).await?.contains(text);
                    ensure!(found == shown, "{found}");
                    Ok(Some(()))
                })
                .await?;
                settled(&lab, &cluster, 0)
                    .await
                    .with_context(|| format!("{name} {value}"))?;
            }
        }
        Ok(())
    };
    afterwards(Box::pin(varied), async || cluster.delete(&lab).await).await
}

/// The specs that Cluster API uses for the cluster, of a kind: those of the control plane, or of the templates to which its
/// MachineDeployment refers.
async fn specs(lab: &Lab, cluster: &Cluster, kind: &str) -> Result<String> {
    if kind == "kamajicontrolplanes" {
        let object = cluster.control_planes(lab).get(&cluster.name).await?;
        return Ok(serde_json::to_string(&object.spec)?);
    }
    let deployment = cluster.machine_deployments(lab).get(&cluster.workers()).await?;
    let spec = &deployment.data["spec"]["template"]["spec"];
    let bootstrap = "bootstrap.cluster.x-k8s.io";
    let (reference, kind) = if kind == "kamajiconfigtemplates" {
        (
            &spec["bootstrap"]["configRef"],
            (bootstrap, "v1alpha1", "KamajiConfigTemplate", kind),
        )
    } else {
        let infrastructure = "infrastructure.cluster.x-k8s.io";
        (
            &spec["infrastructureRef"],
            (infrastructure, "v1alpha1", "LocalMachineTemplate", kind),
        )
    };
    let name = reference["name"].as_str().context("no template")?;
    let template = objects(&lab.management, &cluster.namespace, kind)
        .get(name)
        .await?;
    Ok(template.data["spec"].to_string())
}

#[tokio::test]
async fn machines_that_a_class_asks_for_are_not_made_and_the_control_plane_says_so() -> Result<()> {
    let lab = Lab::open().await?;
    let cluster = Cluster::new("default", "machined");
    let classes = classes(&lab, &cluster);
    let machined = async {
        cluster.apply(&lab, CLASS).await?;
        let mut class = classes.get("kamaji-local").await?;
        class.metadata = serde_json::from_value(json!({ "name": "kamaji-local-machines" }))?;
        class.data["spec"]["controlPlane"]["machineInfrastructure"] = json!({ "templateRef": {
            "apiVersion": "infrastructure.cluster.x-k8s.io/v1alpha1", "kind": "LocalMachineTemplate",
            "name": "kamaji-local-default-worker",
        } });
        if let Some(object) = class.data.as_object_mut() {
            object.remove("status");
        }
        classes.create(&PostParams::default(), &class).await?;
        let topology = json!({
            "classRef": { "name": "kamaji-local-machines" }, "version": VERSION, "controlPlane": { "replicas": 1 },
        });
        let of_class = serde_json::from_value(json!({
            "apiVersion": "cluster.x-k8s.io/v1beta2", "kind": "Cluster", "metadata": { "name": cluster.name },
            "spec": { "topology": topology },
        }))?;
        until("the cluster to be taken", PATIENCE, async || {
            let made = clusters(&lab, &cluster)
                .create(&PostParams::default(), &of_class)
                .await;
            made.map(Some).map_err(Into::into)
        })
        .await?;
        let said = message(&cluster.control_planes(&lab), &cluster.name, "FieldNotSupported").await?;
        contains_all(
            &said,
            &["spec.machineTemplate.spec.infrastructureRef", "has no Machines"],
        );
        settled(&lab, &cluster, 0).await
    };
    afterwards(Box::pin(machined), async || {
        cluster.delete(&lab).await?;
        ensure!(
            clusters(&lab, &cluster).get_opt(&cluster.name).await?.is_none(),
            "still there"
        );
        gone(&classes, "kamaji-local-machines", PATIENCE).await
    })
    .await
}
