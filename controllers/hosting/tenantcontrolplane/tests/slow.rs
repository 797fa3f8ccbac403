//! Workload clusters that answer slowly.

use std::time::Duration;

use k8s_openapi::jiff::Timestamp;
use kamaji_api::conditions::TenantControlPlaneCondition as On;
use tokio::time::Instant;

use super::World;
use crate::testing::path;

#[tokio::test(start_paused = true)]
async fn a_workload_cluster_that_answers_slowly_holds_no_worker_for_long() {
    let world = World::new().await;
    world.settle().await;
    world.assert_ready();
    // Each answer is in time, and all of them together are not.
    world.tenant_api.slow_down(Duration::from_secs(9));
    world.context.set_audit(&path::key("alpha"), Timestamp::now());
    world.wake();
    let began = Instant::now();
    world.reconcile_due().await;
    let took = began.elapsed().as_secs();
    assert!((30..32).contains(&took), "{took} s");
    let (status, reason, message) = world.condition(On::TenantRBACReady);
    assert_eq!(
        (status.as_str(), reason.as_str()),
        ("False", "APIServerUnhealthy")
    );
    assert!(message.contains("within 30 s"), "{message}");
    assert_eq!(world.condition(On::Available).0, "True", "it answers");
    world.tenant_api.slow_down(Duration::ZERO);
    world.settle().await;
    world.assert_ready();
}

#[tokio::test(start_paused = true)]
async fn only_some_workers_ask_workload_clusters_at_the_same_time() {
    let world = World::new().await;
    let mut turns = Vec::new();
    while let Some(turn) = world.context.turn().await {
        turns.push(turn);
    }
    assert_eq!(turns.len(), 16);
    let began = Instant::now();
    assert!(world.context.turn().await.is_none());
    assert!(began.elapsed() < Duration::from_secs(1), "nobody waits long");
    turns.pop();
    assert!(world.context.turn().await.is_some());
}
