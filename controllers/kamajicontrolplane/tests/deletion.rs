//! Deletion, alone and for a move.

use kamaji_api::labels::{capi, kamaji};
use kube::ResourceExt;
use serde_json::json;

use super::world::{CONTROL_PLANE, TENANT, World};
use crate::testing::path;

#[tokio::test]
async fn contract_15_a_paused_deletion_deletes_nothing() {
    let mut world = World::new();
    world.settle().await;
    world
        .api
        .edit(&path::cluster("alpha"), &json!({"spec": {"paused": true}}));
    world.api.delete(CONTROL_PLANE);
    world.settle().await;
    assert!(world.api.get(TENANT).is_some());
    world
        .api
        .edit(&path::cluster("alpha"), &json!({"spec": {"paused": false}}));
    world.settle().await;
    assert!(world.api.get(CONTROL_PLANE).is_none() && world.api.get(TENANT).is_none());
}

#[tokio::test]
async fn contract_21_22_deletion_waits_for_workers_then_for_the_tenant_and_leaves_nothing() {
    let mut world = World::new();
    world.settle().await;
    world.api.edit(
        &path::machine("m0"),
        &json!({
            "apiVersion": "cluster.x-k8s.io/v1beta2", "kind": "Machine",
            "metadata": {"name": "m0", "namespace": "demo", "labels": {capi::CLUSTER_NAME: "alpha"}},
        }),
    );
    world
        .api
        .edit(TENANT, &json!({"metadata": {"finalizers": [kamaji::FINALIZER]}}));
    world.api.delete(CONTROL_PLANE);
    world.settle().await;
    assert_eq!(
        world.condition("Deleting"),
        (
            "True".into(),
            "WaitingForWorkersDeletion".into(),
            "the API server keeps serving until these are gone: Machine/m0".into()
        )
    );
    assert!(world.tenant().metadata.deletion_timestamp.is_none());
    world.api.delete(&path::machine("m0"));
    world.settle().await;
    assert!(world.tenant().metadata.deletion_timestamp.is_some());
    assert_eq!(
        world.condition("Deleting").1,
        "WaitingForTenantControlPlaneDeletion"
    );
    world.api.edit(TENANT, &json!({"metadata": {"finalizers": []}}));
    world.settle().await;
    let left: Vec<_> = world.api.objects().iter().map(|o| o["kind"].clone()).collect();
    assert_eq!(left, ["Cluster"]);
}

#[tokio::test]
async fn contract_30_a_deletion_for_a_move_keeps_the_tenant_and_its_data() {
    let mut world = World::new();
    world.settle().await;
    world.api.edit(
        CONTROL_PLANE,
        &json!({"metadata": {"annotations": {capi::DELETE_FOR_MOVE: ""}}}),
    );
    world.api.delete(CONTROL_PLANE);
    world.settle().await;
    assert!(world.api.get(CONTROL_PLANE).is_none());
    let tenant = world.tenant();
    assert!(tenant.metadata.deletion_timestamp.is_none() && tenant.owner_references().is_empty());
}

#[tokio::test]
async fn a_deletion_continues_when_the_cluster_is_gone_before_the_last_machine() {
    let mut world = World::new();
    world.settle().await;
    world.api.edit(
        &path::machine("m0"),
        &json!({
            "apiVersion": "cluster.x-k8s.io/v1beta2", "kind": "Machine",
            "metadata": {"name": "m0", "namespace": "demo", "labels": {capi::CLUSTER_NAME: "alpha"}},
        }),
    );
    world.api.delete(CONTROL_PLANE);
    world.api.delete(&path::cluster("alpha"));
    world.settle().await;
    assert_eq!(world.condition("Deleting").1, "WaitingForWorkersDeletion");
    world.api.delete(&path::machine("m0"));
    world.settle().await;
    assert!(world.api.objects().is_empty(), "{:#?}", world.api.objects());
}
