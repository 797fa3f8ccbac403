//! Workload clusters that answer slowly.

use std::time::Duration;

use k8s_openapi::jiff::Timestamp;
use kamaji_api::conditions::TenantControlPlaneCondition as On;
use tokio::time::Instant;

use super::{ROUNDS, World};
use crate::{k8s::conditions, testing::path};

/// Each answer is in time, and all of them together are not.
const SLOW: Duration = Duration::from_secs(9);

#[tokio::test(start_paused = true)]
async fn a_workload_cluster_that_answers_slowly_is_told_so_and_is_set_up_in_parts() {
    let world = World::new().await;
    world.tenant_api.slow_down(SLOW);
    let mut reported = Vec::new();
    for _ in 0..ROUNDS {
        world.round().await;
        let status = world.tenant().status.unwrap_or_default();
        let found = conditions::get(&status.conditions, On::TenantRBACReady.as_str());
        reported.extend(found.map(|found| (found.reason.clone(), found.message.clone())));
    }
    let slow = |(reason, message): &(String, String)| {
        reason == "APIServerUnhealthy" && message.contains("within 30 s")
    };
    assert!(reported.iter().any(slow), "{reported:?}");
    world.assert_ready();
}

#[tokio::test(start_paused = true)]
async fn an_audit_that_takes_long_holds_no_worker_for_long_and_leaves_a_running_cluster_ready() {
    let world = World::new().await;
    world.settle().await;
    world.assert_ready();
    let path = "/apis/apps/v1/namespaces/kube-system/deployments/coredns";
    world.tenant_api.delete(path);
    world.tenant_api.slow_down(SLOW);
    world.context.set_audit(&path::key("alpha"), Timestamp::now());
    for number in 0..16 {
        world.wake();
        let began = Instant::now();
        world.reconcile_due().await;
        let took = began.elapsed().as_secs();
        assert!(number > 0 || (30..32).contains(&took), "{took} s");
        world.assert_ready();
    }
    assert!(world.tenant_api.get(path).is_some(), "it is repaired");
    world.tenant_api.requests();
    world.wake();
    world.settle().await;
    assert_eq!(world.tenant_api.requests(), Vec::<String>::new(), "it has ended");
}

#[tokio::test(start_paused = true)]
async fn only_some_workers_ask_workload_clusters_at_the_same_time() {
    let world = World::new().await;
    let turn = world.context.turn().await;
    assert!(turn.is_some(), "the only worker may");
    let began = Instant::now();
    assert!(world.context.turn().await.is_none());
    assert!(began.elapsed() < Duration::from_secs(1), "nobody waits long");
    drop(turn);
    assert!(world.context.turn().await.is_some());
}
