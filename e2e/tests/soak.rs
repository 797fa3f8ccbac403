//! Slow tests in the lab, which `hack/test full` runs: a cluster at rest for many minutes, and ten tenants created at
//! once.

use std::{collections::BTreeMap, time::Duration};

use anyhow::{Context as _, Result, ensure};
use e2e::lab::{
    access::Lab,
    audit::{self, Mark, OURS},
    clusters::{QUICKSTART, VERSION},
    tenants::Scope,
};
use k8s_openapi::api::core::v1::Pod;
use kube::{Api, ResourceExt as _, api::ListParams};
use serde_json::json;

/// How long a cluster at rest is observed. Longer than the ten minutes after which idle watches are opened anew.
const REST: Duration = Duration::from_mins(11);
/// How long nothing is requested once work is done.
const QUIET: Duration = Duration::from_mins(1);
/// Management API requests that bring one TenantControlPlane to Ready, at most.
const TENANT_BUDGET: usize = 40;
/// Requests for a tenant when ten are created at once, measured with the release before.
const TENANT_BEFORE: usize = 30;
/// Tenants created at once.
const TENANTS: usize = 10;

#[tokio::test]
async fn a_cluster_at_rest_causes_no_request_and_restarts_nothing() -> Result<()> {
    let lab = Lab::open().await?;
    QUICKSTART.nodes_ready(&lab, 2).await?;
    audit::rest(&lab, QUIET, 5 * QUIET).await?;
    let before = restarts(&lab).await?;
    let mark = Mark::now(&lab).await?;
    // A fixed time on purpose: the test is that nothing happens during it.
    tokio::time::sleep(REST).await;
    let requests = mark.requests(&OURS).await?;
    ensure!(requests.is_empty(), "\n{}", audit::summary(&requests));
    assert_eq!(
        before,
        restarts(&lab).await?,
        "pods and restarts of their containers"
    );
    QUICKSTART.nodes_ready(&lab, 2).await
}

/// Restarts of the containers of our pods and of the cluster's control plane, by pod.
async fn restarts(lab: &Lab) -> Result<BTreeMap<String, i32>> {
    let mut pods = QUICKSTART.control_plane_pods(lab).await?;
    for namespace in OURS {
        let ours = Api::<Pod>::namespaced(lab.management.clone(), namespace);
        pods.extend(ours.list(&ListParams::default()).await?);
    }
    pods.iter()
        .map(|pod| {
            let containers = pod.status.as_ref().and_then(|s| s.container_statuses.as_ref());
            let containers = containers.with_context(|| format!("{} has no status", pod.name_any()))?;
            Ok((pod.name_any(), containers.iter().map(|c| c.restart_count).sum()))
        })
        .collect()
}

#[tokio::test]
async fn ten_tenants_created_at_once_stay_within_the_request_budget_and_are_then_quiet() -> Result<()> {
    let lab = Lab::open().await?;
    Scope::run(&lab, "crowd", async |scope| {
        audit::rest(&lab, Duration::from_secs(10), Duration::from_mins(2)).await?;
        let mark = Mark::now(&lab).await?;
        let names: Vec<_> = (0..TENANTS).map(|number| format!("crowd-{number}")).collect();
        for name in &names {
            scope.create(name, VERSION, json!({})).await?;
        }
        for name in &names {
            scope.reaches(name, "Ready", VERSION).await?;
        }
        audit::rest(&lab, QUIET, 5 * QUIET).await?;
        let requests = mark.requests(&OURS).await?;
        println!(
            "{TENANTS} TenantControlPlanes at once: {} requests (before: {}, budget: {})",
            requests.len(),
            TENANTS * TENANT_BEFORE,
            TENANTS * TENANT_BUDGET
        );
        println!("{}", audit::summary(&requests));
        audit::within(&requests, TENANTS * TENANT_BUDGET)
    })
    .await
}
