//! Nodes after their first join: where a kubelet restarts or a machine reboots, the same Node comes back. Runs on the cluster
//! that `hack/quickstart` created, and on one whose machines check the API server for another name than that of its
//! endpoint.

use anyhow::{Context as _, Result, ensure};
use e2e::{
    infra::capi,
    lab::{
        access::Lab,
        cleanup::afterwards,
        clusters::{Cluster, QUICKSTART},
        machine::Inside,
        nodes::{heartbeat_since, uids},
        tenants::PATIENCE,
        until::until,
    },
};
use k8s_openapi::jiff::Timestamp;
use kamaji_api::bootstrap::KamajiConfigTemplate;
use kube::{
    Api, ResourceExt as _,
    api::{ApiResource, DynamicObject, GroupVersionKind, Patch, PatchParams},
};
use serde_json::json;

/// A name that every certificate of an API server has.
const SERVER_NAME: &str = "kubernetes.default.svc";

#[tokio::test]
async fn bootstrap_53_kubelets_that_restart_and_machines_that_reboot_stay_the_same_nodes() -> Result<()> {
    let lab = Lab::open().await?;
    restart_everything(&lab, &QUICKSTART).await
}

#[tokio::test]
async fn bootstrap_47_nodes_that_check_the_api_server_for_a_given_name_survive_restarts() -> Result<()> {
    let lab = Lab::open().await?;
    let cluster = Cluster::new("default", "named");
    afterwards(Box::pin(named(&lab, &cluster)), async || {
        cluster.delete(&lab).await
    })
    .await
}

async fn named(lab: &Lab, cluster: &Cluster) -> Result<()> {
    cluster.create(lab, 0).await?;
    let machines = format!("{}-md-0", cluster.name);
    let templates = Api::<KamajiConfigTemplate>::namespaced(lab.management.clone(), &cluster.namespace);
    let patch =
        json!({ "spec": { "template": { "spec": { "controlPlane": { "tlsServerName": SERVER_NAME } } } } });
    templates
        .patch(&machines, &PatchParams::default(), &Patch::Merge(patch))
        .await?;
    let kind = ApiResource::from_gvk(&GroupVersionKind::gvk(
        capi::GROUP,
        "v1beta2",
        "MachineDeployment",
    ));
    let deployments =
        Api::<DynamicObject>::namespaced_with(lab.management.clone(), &cluster.namespace, &kind);
    let patch = Patch::Merge(json!({ "spec": { "replicas": 1 } }));
    deployments
        .patch(&machines, &PatchParams::default(), &patch)
        .await?;
    cluster.nodes_ready(lab, 1).await?;
    restart_everything(lab, cluster).await
}

/// Restarts each kubelet, then reboots each machine.
async fn restart_everything(lab: &Lab, cluster: &Cluster) -> Result<()> {
    let tenant = cluster.client(lab).await?;
    let before = uids(&tenant).await?;
    ensure!(!before.is_empty(), "there are no nodes");
    for machine in cluster.machines(lab).await? {
        let node = machine.name_any();
        let local = capi::local_machine(&machine).context("no infrastructure")?;
        let inside = Inside::of(&cluster.namespace, local).await?;
        // A Node is Ready before its machine has finished to join; a machine that reboots then joins once more.
        joined(&inside, &node).await?;
        // The command ends when the new process runs: what is renewed later, it renews.
        inside.run(&["systemctl", "restart", "kubelet"]).await?;
        heartbeat_since(&tenant, Timestamp::now(), &node).await?;

        let inside = inside.reboot().await?;
        heartbeat_since(&tenant, Timestamp::now(), &node).await?;
        joined(&inside, &node).await?;
        // The journal of the new boot comes after the sentinel file.
        until(&format!("{node} to say what it did"), PATIENCE, async || {
            let log = inside
                .run(&["journalctl", "--unit=kamaji-join", "--output=cat"])
                .await?;
            let last = log.lines().rev().find(|line| line.starts_with("kamaji-join: "));
            ensure!(
                last == Some("kamaji-join: already joined"),
                "{node} joined again: {log}"
            );
            Ok(Some(()))
        })
        .await?;
    }
    cluster.nodes_ready(lab, before.len()).await?;
    assert_eq!(before, uids(&tenant).await?, "UIDs of the Nodes");
    Ok(())
}

/// Waits for the file by which a machine says that it has joined since its boot.
async fn joined(inside: &Inside, node: &str) -> Result<()> {
    until(&format!("the sentinel file of {node}"), PATIENCE, async || {
        let sentinel = "/run/cluster-api/bootstrap-success.complete";
        Ok((inside.run(&["cat", sentinel]).await? == "success\n").then_some(()))
    })
    .await
}
