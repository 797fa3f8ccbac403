//! Who decides on replicas: the topology where it names a number, and somebody else where it does not.

use anyhow::{Context as _, Result, ensure};
use e2e::lab::{
    access::Lab,
    cleanup::afterwards,
    clusters::Cluster,
    conditions::contains_all,
    topology::{PATIENCE, edit, refusal, settled, workers},
    until::until,
};
use kube::ResourceExt as _;
use serde_json::{Value, json};

use crate::{WORKERS, cluster};

const MIN: &str = "cluster.x-k8s.io/cluster-api-autoscaler-node-group-min-size";
const MAX: &str = "cluster.x-k8s.io/cluster-api-autoscaler-node-group-max-size";

/// Makes the topology controller look again, by an annotation of what it makes.
async fn look_again(lab: &Lab, cluster: &Cluster, workers: usize) -> Result<()> {
    let mark = format!("{:08x}", rand::random::<u32>());
    edit(lab, cluster, |spec| {
        spec["topology"]["controlPlane"]["metadata"]["annotations"] = json!({ "example.org/look": mark });
    })
    .await?;
    settled(lab, cluster, workers).await
}

fn forget(spec: &mut Value, field: &str) {
    if let Some(object) = spec.as_object_mut() {
        object.remove(field);
    }
}

#[tokio::test]
async fn the_number_of_workers_is_an_autoscalers_where_the_topology_names_none() -> Result<()> {
    let lab = Lab::open().await?;
    let cluster = cluster(&lab).await?;
    let deployments = cluster.machine_deployments(&lab);
    let sizes = |most: &str| json!({ MIN: "1", MAX: most });
    let scaled = async {
        let template = deployments.get(&cluster.workers()).await?;
        assert_eq!(
            template.annotations().get(MIN).map(String::as_str),
            Some("1"),
            "of the template"
        );
        cluster.scale_workers(&lab, 2).await?;
        until("a second Machine", PATIENCE, async || {
            Ok((cluster.machines(&lab).await?.len() == 2).then_some(()))
        })
        .await?;
        edit(&lab, &cluster, |spec| {
            workers(spec)["metadata"]["annotations"] = sizes("4");
        })
        .await?;
        until("the topology to be carried out", PATIENCE, async || {
            let workers = deployments.get(&cluster.workers()).await?;
            ensure!(
                workers.annotations().get(MAX).map(String::as_str) == Some("4"),
                "{:?}",
                workers.annotations()
            );
            assert_eq!(
                workers.data["spec"]["replicas"], 2,
                "the topology has set the number of workers"
            );
            Ok(Some(()))
        })
        .await?;
        cluster.scale_workers(&lab, 1).await?;
        settled(&lab, &cluster, WORKERS).await?;

        // A number in the topology is kept; it may not be there beside sizes.
        let both = refusal(&lab, &cluster, |spec| workers(spec)["replicas"] = json!(1)).await?;
        contains_all(
            &both,
            &["machineDeployments[md-0].replicas", "autoscaler annotations"],
        );
        edit(&lab, &cluster, |spec| {
            forget(&mut workers(spec)["metadata"], "annotations");
            workers(spec)["replicas"] = json!(1);
        })
        .await?;
        settled(&lab, &cluster, WORKERS).await?;
        cluster.scale_workers(&lab, 2).await?;
        until("the topology's number again", PATIENCE, async || {
            let workers = deployments.get(&cluster.workers()).await?;
            Ok((workers.data["spec"]["replicas"] == 1).then_some(()))
        })
        .await
    };
    afterwards(Box::pin(scaled), async || {
        edit(&lab, &cluster, |spec| {
            forget(workers(spec), "replicas");
            workers(spec)["metadata"]["annotations"] = sizes("1");
        })
        .await?;
        cluster.scale_workers(&lab, 1).await?;
        settled(&lab, &cluster, WORKERS).await
    })
    .await
}

#[tokio::test]
async fn the_number_of_pods_is_the_topologys_where_it_names_one_and_zero_is_sleep() -> Result<()> {
    let lab = Lab::open().await?;
    let cluster = cluster(&lab).await?;
    let replicas = async || {
        let spec = cluster.control_planes(&lab).get(&cluster.name).await?.spec;
        Ok::<_, anyhow::Error>(spec.replicas)
    };
    let scaled = async {
        // Sleep by the scale subresource is undone: the topology says 1.
        cluster.scale(&lab, 0).await?;
        until("the topology's number again", PATIENCE, async || {
            Ok((replicas().await? == 1).then_some(()))
        })
        .await?;
        settled(&lab, &cluster, WORKERS).await?;

        edit(&lab, &cluster, |spec| {
            spec["topology"]["controlPlane"]["replicas"] = json!(0);
        })
        .await?;
        until("sleep by the topology", PATIENCE, async || {
            let asleep = cluster.control_plane_pods(&lab).await?.is_empty();
            let object = cluster.control_planes(&lab).get(&cluster.name).await?;
            let status = object.status.context("no status")?;
            let reason = status
                .conditions
                .iter()
                .find(|c| c.type_ == "Available")
                .map(|c| c.reason.clone());
            ensure!(asleep && reason.as_deref() == Some("Sleeping"), "{reason:?}");
            ensure!(!status.versions.is_empty(), "no versions are reported");
            Ok(Some(()))
        })
        .await?;
        until(
            "the topology to be reconciled while asleep",
            PATIENCE,
            async || {
                let object = e2e::lab::topology::clusters(&lab, &cluster)
                    .get(&cluster.name)
                    .await?;
                let reconciled =
                    e2e::lab::topology::condition(&object, "TopologyReconciled").context("no condition")?;
                ensure!(reconciled["status"] == "True", "{reconciled}");
                Ok(Some(()))
            },
        )
        .await
    };
    afterwards(Box::pin(scaled), async || {
        edit(&lab, &cluster, |spec| {
            spec["topology"]["controlPlane"]["replicas"] = json!(1);
        })
        .await?;
        settled(&lab, &cluster, WORKERS).await
    })
    .await
}

#[tokio::test]
async fn the_number_of_pods_is_nobodys_where_the_topology_names_none() -> Result<()> {
    let lab = Lab::open().await?;
    let cluster = cluster(&lab).await?;
    let free = async {
        edit(&lab, &cluster, |spec| {
            forget(&mut spec["topology"], "controlPlane");
        })
        .await?;
        // What the topology gives up gets the default of the definition.
        cluster.scaled(&lab, 2).await?;
        cluster.scale(&lab, 1).await?;
        cluster.scaled(&lab, 1).await?;
        look_again(&lab, &cluster, WORKERS).await?;
        cluster.scaled(&lab, 1).await
    };
    afterwards(Box::pin(free), async || {
        edit(&lab, &cluster, |spec| {
            spec["topology"]["controlPlane"] = json!({ "replicas": 1 });
        })
        .await?;
        settled(&lab, &cluster, WORKERS).await
    })
    .await
}
