//! `clusterctl move` of a cluster whose control plane is hosted here, to another management cluster: it is refused, nothing
//! is harmed, and the cluster goes on after one documented step. Slow, since clusterctl tries for minutes.

use std::time::Instant;

use anyhow::{Context as _, Result, ensure};
use e2e::{
    apiserver::{Options, TestApiServer},
    infra::capi,
    lab::{
        access::Lab,
        cleanup::afterwards,
        clusters::Cluster,
        conditions::{PATIENCE, contains_all},
        until::until,
    },
};
use k8s_openapi::{
    api::core::v1::{ConfigMap, Secret},
    apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition,
};
use kamaji_api::controlplane::KamajiControlPlane;
use kube::{
    Api, Client, ResourceExt as _,
    api::{ApiResource, DynamicObject, GroupVersionKind, Patch, PatchParams, PostParams},
    core::crd::CustomResourceExt as _,
};
use serde_json::json;

const NAMESPACE: &str = "default";

fn providers() -> ApiResource {
    ApiResource::from_gvk(&GroupVersionKind::gvk(
        "clusterctl.cluster.x-k8s.io",
        "v1alpha3",
        "Provider",
    ))
}

/// Makes `target` a management cluster with the providers of the lab, as far as clusterctl looks: their inventory.
async fn like_the_lab(lab: &Lab, target: &TestApiServer) -> Result<()> {
    target.install_definitions().await?;
    target.install_cluster_api().await?;
    let client = target.client()?;
    let definition = format!("{}.clusterctl.cluster.x-k8s.io", providers().plural);
    let definitions = Api::<CustomResourceDefinition>::all(lab.management.clone());
    let mut found = definitions.get(&definition).await?;
    found.metadata.resource_version = None;
    let definitions = Api::<CustomResourceDefinition>::all(client.clone());
    definitions.create(&PostParams::default(), &found).await?;
    let inventory = Api::<DynamicObject>::all_with(lab.management.clone(), &providers());
    for mut provider in inventory.list(&kube::api::ListParams::default()).await?.items {
        let namespace = provider.namespace().context("a provider without a namespace")?;
        target.namespace(&namespace).await?;
        provider.metadata.resource_version = None;
        provider.metadata.uid = None;
        let there = Api::<DynamicObject>::namespaced_with(client.clone(), &namespace, &providers());
        until("the definition of the inventory", PATIENCE, async || {
            Ok(there.create(&PostParams::default(), &provider).await.ok())
        })
        .await?;
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn contract_61_clusterctl_move_is_refused_and_harms_nothing() -> Result<()> {
    let lab = Lab::open().await?;
    let Some(target) = TestApiServer::start(&Options::default()).await? else {
        return Ok(());
    };
    like_the_lab(&lab, &target).await?;
    let cluster = Cluster::new(NAMESPACE, "moved");
    afterwards(Box::pin(moved(&lab, &cluster, &target)), async || {
        cluster.delete(&lab).await
    })
    .await
}

async fn moved(lab: &Lab, cluster: &Cluster, target: &TestApiServer) -> Result<()> {
    cluster.create(lab, 0).await?;
    cluster.condition(lab, "Ready", "True").await?;
    let written = Api::<ConfigMap>::namespaced(cluster.client(lab).await?, NAMESPACE);
    let value = serde_json::from_value(json!({ "metadata": { "name": "kept" }, "data": { "a": "b" } }))?;
    written.create(&PostParams::default(), &value).await?;
    let uid = cluster.tenant(lab).await?.uid();

    let began = Instant::now();
    let kubeconfig = target.kubeconfig()?.display().to_string();
    let arguments = ["move", "--namespace", NAMESPACE, "--to-kubeconfig", &kubeconfig];
    let refused = lab.tool("clusterctl", &arguments).await;
    let Err(refused) = refused else {
        anyhow::bail!("the cluster was moved");
    };
    let refused = refused.to_string();
    eprintln!(
        "clusterctl move gave up after {} s: {refused}",
        began.elapsed().as_secs()
    );
    contains_all(&refused, &["block-move", "KamajiControlPlane", &cluster.name]);

    nothing_came(&target.client()?, cluster).await?;
    let control_planes = cluster.control_planes(lab);
    let paused = until("the control plane to say why", PATIENCE, async || {
        let control_plane = control_planes.get(&cluster.name).await?;
        let conditions = control_plane.status.unwrap_or_default().conditions;
        let paused = conditions.into_iter().find(|known| known.type_ == "Paused");
        Ok(paused
            .filter(|known| known.status == "True")
            .map(|known| known.message))
    })
    .await?;
    eprintln!("Paused: {paused}");
    contains_all(
        &paused,
        &[
            "clusterctl move is blocked",
            "set spec.paused of the Cluster to false",
        ],
    );
    written
        .get("kept")
        .await
        .context("the API server answers while its Cluster is paused")?;

    // The step that the condition names.
    let clusters =
        Api::<DynamicObject>::namespaced_with(lab.management.clone(), NAMESPACE, &capi::clusters());
    for item in clusters.list(&kube::api::ListParams::default()).await?.items {
        let patch = Patch::Merge(json!({ "spec": { "paused": false } }));
        clusters
            .patch(&item.name_any(), &PatchParams::default(), &patch)
            .await?;
    }
    cluster.scale(lab, 2).await?;
    cluster.scaled(lab, 2).await?;
    cluster.condition(lab, "Ready", "True").await?;
    ensure!(
        cluster.tenant(lab).await?.uid() == uid,
        "the tenant was created again"
    );
    written.get("kept").await.context("the data is gone")?;
    Ok(())
}

/// Neither the Cluster, nor its control plane, nor a Secret was copied.
async fn nothing_came(target: &Client, cluster: &Cluster) -> Result<()> {
    let list = &kube::api::ListParams::default();
    let clusters = Api::<DynamicObject>::namespaced_with(target.clone(), NAMESPACE, &capi::clusters());
    ensure!(
        clusters.list(list).await?.items.is_empty(),
        "Clusters at the target"
    );
    let control_planes = Api::<KamajiControlPlane>::namespaced(target.clone(), NAMESPACE);
    let name = KamajiControlPlane::crd_name();
    ensure!(
        control_planes.list(list).await?.items.is_empty(),
        "{name} at the target"
    );
    let secrets = Api::<Secret>::namespaced(target.clone(), NAMESPACE)
        .list(list)
        .await?
        .items;
    let copied: Vec<_> = secrets.iter().map(kube::ResourceExt::name_any).collect();
    ensure!(
        copied.iter().all(|secret| !secret.starts_with(&cluster.name)),
        "{copied:?}"
    );
    Ok(())
}
