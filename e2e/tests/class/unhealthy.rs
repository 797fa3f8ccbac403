//! The `MachineHealthCheck` of the class.

use anyhow::{Context as _, Result, ensure};
use e2e::lab::{
    access::Lab,
    cleanup::afterwards,
    clusters::nodes,
    machine::{Inside, records},
    topology::{PATIENCE, edit, settled, workers},
    until::until,
};
use kube::ResourceExt as _;
use serde_json::json;

use crate::{WORKERS, cluster};

#[tokio::test]
async fn a_dead_machine_is_replaced_by_the_health_check_of_the_class() -> Result<()> {
    let lab = Lab::open().await?;
    let cluster = cluster(&lab).await?;
    let replaced = async {
        // The class waits for minutes, in case a node comes back. This one does not.
        edit(&lab, &cluster, |spec| {
            workers(spec)["healthCheck"] = json!({ "checks": {
                "nodeStartupTimeoutSeconds": 600,
                "unhealthyNodeConditions": [{ "type": "Ready", "status": "Unknown", "timeoutSeconds": 1 }],
            } });
        })
        .await?;
        settled(&lab, &cluster, WORKERS).await?;
        let machines = cluster.machines(&lab).await?;
        let dead = machines.first().context("no Machine")?.name_any();
        Inside::of(&cluster.namespace, &dead).await?.kill().await?;

        until("another machine in its place", PATIENCE, async || {
            let machines = cluster.machines(&lab).await?;
            ensure!(
                machines.iter().all(|machine| machine.name_any() != dead),
                "{dead} is still there"
            );
            Ok(Some(()))
        })
        .await?;
        settled(&lab, &cluster, WORKERS).await?;
        let names: Vec<_> = nodes(&cluster.client(&lab).await?)
            .await?
            .iter()
            .map(kube::ResourceExt::name_any)
            .collect();
        ensure!(
            names.len() == WORKERS && !names.contains(&dead),
            "nodes: {names:?}"
        );
        let left = records().await?.into_iter().any(|record| record.name == dead);
        ensure!(!left, "the host still has {dead}");
        Ok(())
    };
    afterwards(Box::pin(replaced), async || {
        edit(&lab, &cluster, |spec| {
            if let Some(workers) = workers(spec).as_object_mut() {
                workers.remove("healthCheck");
            }
        })
        .await?;
        settled(&lab, &cluster, WORKERS).await
    })
    .await
}
