//! A paused Cluster: neither Cluster API nor we carry out a change of its topology.

use std::time::Duration;

use anyhow::{Result, ensure};
use e2e::lab::{
    access::Lab,
    cleanup::afterwards,
    topology::{PATIENCE, edit, made, set_variable, settled},
    until::until,
};
use kube::ResourceExt as _;
use serde_json::json;

use crate::{WORKERS, cluster};

#[tokio::test]
async fn contract_14_a_change_of_a_paused_topology_waits_until_the_pause_ends() -> Result<()> {
    let lab = Lab::open().await?;
    let cluster = cluster(&lab).await?;
    let paused = async {
        edit(&lab, &cluster, |spec| spec["paused"] = json!(true)).await?;
        cluster.condition(&lab, "Paused", "True").await?;
        let before = made(&lab, &cluster).await?;
        let tier = format!("paused-{:06x}", rand::random::<u32>() & 0x00ff_ffff);
        edit(&lab, &cluster, |spec| {
            set_variable(spec, "controlPlaneLabels", json!({ "tier": tier }));
        })
        .await?;
        // Not a wait for an event: that nothing happens is the test.
        tokio::time::sleep(Duration::from_secs(5)).await;
        assert_eq!(
            before,
            made(&lab, &cluster).await?,
            "something was changed while paused"
        );

        edit(&lab, &cluster, |spec| spec["paused"] = json!(false)).await?;
        cluster.condition(&lab, "Paused", "False").await?;
        until("the change to be carried out", PATIENCE, async || {
            let pods = cluster.control_plane_pods(&lab).await?;
            ensure!(
                !pods.is_empty() && pods.iter().all(|pod| pod.labels().get("tier") == Some(&tier)),
                "not yet"
            );
            Ok(Some(()))
        })
        .await
    };
    afterwards(Box::pin(paused), async || {
        edit(&lab, &cluster, |spec| spec["paused"] = json!(false)).await?;
        settled(&lab, &cluster, WORKERS).await
    })
    .await
}
