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
    api::{Patch, PatchParams},
};
use serde_json::{Value, json};

/// A name that every certificate of an API server has.
const SERVER_NAME: &str = "kubernetes.default.svc";
/// Certificate of a kubelet, with its key.
const CERTIFICATE: &str = "/var/lib/kubelet/pki/kubelet-client-current.pem";

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
    with_worker(
        lab,
        cluster,
        json!({ "controlPlane": { "tlsServerName": SERVER_NAME } }),
    )
    .await?;
    cluster.nodes_ready(lab, 1).await?;
    restart_everything(lab, cluster).await
}

/// Creates the cluster and one worker, whose config has these fields.
async fn with_worker(lab: &Lab, cluster: &Cluster, config: Value) -> Result<()> {
    cluster.create(lab, 0).await?;
    let templates = Api::<KamajiConfigTemplate>::namespaced(lab.management.clone(), &cluster.namespace);
    let patch = Patch::Merge(json!({ "spec": { "template": { "spec": config } } }));
    templates
        .patch(&cluster.workers(), &PatchParams::default(), &patch)
        .await?;
    cluster.scale_workers(lab, 1).await
}

#[tokio::test]
async fn a_machine_whose_disk_joined_another_cluster_joins_its_own() -> Result<()> {
    let lab = Lab::open().await?;
    let cluster = Cluster::new("default", "reused");
    afterwards(Box::pin(reused(&lab, &cluster)), async || {
        cluster.delete(&lab).await
    })
    .await
}

/// What a node keeps on its disk of the cluster that it joined.
const KEPT: &str = "etc/kubernetes var/lib/kubelet/pki var/lib/kubelet/config.yaml var/lib/kubelet/cpu_manager_state \
                    var/lib/kamaji";

async fn reused(lab: &Lab, cluster: &Cluster) -> Result<()> {
    // The machine does not join before the file is there, which gives time to bring the data of the other one.
    let waits = json!({ "preJoinCommands": ["test -e /etc/disk-has-its-data"] });
    with_worker(lab, cluster, waits).await?;
    let inside = until("the first attempt to join", PATIENCE, async || {
        let machines = cluster.machines(lab).await?;
        let local = machines
            .first()
            .and_then(capi::local_machine)
            .context("no infrastructure")?;
        let inside = Inside::of(&cluster.namespace, local).await?;
        let log = inside
            .run(&["journalctl", "--unit=kamaji-join", "--output=cat"])
            .await?;
        ensure!(log.contains("failed: PreJoinFailed"), "{log}");
        Ok(Some(inside))
    })
    .await?;

    let other = QUICKSTART.client(lab).await?;
    let before = uids(&other).await?;
    let machines = QUICKSTART.machines(lab).await?;
    let machine = machines.first().context("no machine")?;
    let local = capi::local_machine(machine).context("no infrastructure")?;
    let earlier = Inside::of(&QUICKSTART.namespace, local).await?;
    let archive = format!("tar --create --directory=/ {KEPT} | base64 --wrap=0");
    let data = earlier.run(&["sh", "-c", &archive]).await?;
    let extract = format!(
        "echo {data} | base64 --decode | tar --extract --directory=/ && touch /etc/disk-has-its-data && sync"
    );
    inside.run(&["sh", "-c", &extract]).await?;
    let of = async |inside: &Inside| {
        let subject = [
            "openssl",
            "x509",
            "-noout",
            "-subject",
            "-issuer",
            "-in",
            CERTIFICATE,
        ];
        inside.run(&subject).await
    };
    assert_eq!(
        of(&earlier).await?,
        of(&inside).await?,
        "it has that of the other cluster"
    );

    let inside = inside.reboot().await?;
    cluster.nodes_ready(lab, 1).await?;
    let own = uids(&cluster.client(lab).await?).await?;
    let node = own.keys().next().context("no node")?;
    joined(&inside, node).await?;
    let (mine, theirs) = (of(&inside).await?, of(&earlier).await?);
    ensure!(mine.contains(&format!("system:node:{node}")), "{mine}");
    ensure!(!theirs.contains(node.as_str()), "{theirs}");
    assert_eq!(before, uids(&other).await?, "Nodes of the other cluster");
    // A kubelet that still had the state of the other would not start after a restart either.
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
