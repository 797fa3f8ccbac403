//! The pause of a Cluster, and the move that begins with it.

use kamaji_api::labels::{capi, kamaji, ours};
use serde_json::json;

use super::world::{CONTROL_PLANE, TENANT, World};
use crate::testing::path;

fn pause_of(world: &World) -> Option<String> {
    let annotations = world.tenant().metadata.annotations?;
    annotations.get(kamaji::PAUSED).cloned()
}

#[tokio::test]
async fn the_pause_of_a_cluster_reaches_the_engine_and_ends_with_it() {
    let mut world = World::new();
    world.settle().await;
    let cluster = path::cluster("alpha");
    world.api.edit(&cluster, &json!({ "spec": { "paused": true } }));
    world.api.requests();
    world.settle().await;
    assert_eq!(pause_of(&world).as_deref(), Some(ours::PAUSED_WITH_CLUSTER));
    assert_eq!(world.api.requests().len(), 2, "the annotation and the status");
    world.restart();
    world.settle().await;
    assert!(world.api.requests().is_empty());

    world.api.edit(&cluster, &json!({ "spec": { "paused": null } }));
    world.settle().await;
    assert_eq!(pause_of(&world), None);
    assert_eq!(world.api.requests().len(), 2, "the annotation and the status");
}

#[tokio::test]
async fn a_pause_that_a_user_set_on_the_tenant_outlives_that_of_the_cluster() {
    let mut world = World::new();
    world.settle().await;
    let cluster = path::cluster("alpha");
    world.api.edit(
        TENANT,
        &json!({ "metadata": { "annotations": { kamaji::PAUSED: "maintenance" } } }),
    );
    for paused in [true, false] {
        world.api.edit(&cluster, &json!({ "spec": { "paused": paused } }));
        world.settle().await;
        assert_eq!(pause_of(&world).as_deref(), Some("maintenance"));
    }
}

#[tokio::test]
async fn contract_61_a_move_is_blocked_and_the_control_plane_says_why() {
    let mut world = World::new();
    world.settle().await;
    let annotations =
        |world: &World| world.api.get(CONTROL_PLANE).unwrap()["metadata"]["annotations"].clone();
    assert!(annotations(&world).get(capi::BLOCK_MOVE).is_some());
    // What clusterctl does first, before it looks at the annotation.
    world
        .api
        .edit(&path::cluster("alpha"), &json!({ "spec": { "paused": true } }));
    world.settle().await;
    let (status, _, message) = world.condition("Paused");
    assert_eq!(status, "True");
    assert!(message.contains("clusterctl move is blocked"), "{message}");
    assert!(message.contains("spec.paused of the Cluster"), "{message}");
}
