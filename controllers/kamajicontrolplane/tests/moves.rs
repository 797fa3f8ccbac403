//! A published endpoint that moves with its TenantControlPlane.

use kamaji_api::{controlplane::Endpoint, labels::ours};
use serde_json::{Value, json};

use super::world::{CONTROL_PLANE, TENANT, World};
use crate::{pki::kubeconfig::Kubeconfig, testing::path};

const BEFORE: &str = "192.0.2.1:6443";
const AFTER: &str = "192.0.2.1:7443";

fn endpoint(port: i32) -> Endpoint {
    Endpoint {
        host: "192.0.2.1".to_owned(),
        port,
    }
}

/// A control plane that is published, in its Cluster too, and whose engine recorded that.
async fn published() -> World {
    let mut world = World::new();
    world.settle().await;
    let noted = json!({ ours::PUBLISHED_ENDPOINT: format!("endpoint={BEFORE},service=LoadBalancer") });
    world
        .api
        .edit(TENANT, &json!({ "metadata": { "annotations": noted } }));
    of_cluster(&world, &json!({ "controlPlaneEndpoint": endpoint(6443) }));
    world.settle().await;
    world
}

fn of_cluster(world: &World, spec: &Value) {
    world.api.edit(&path::cluster("alpha"), &json!({ "spec": spec }));
}

/// The user edits the port and permits the move.
fn edit(world: &World) {
    of_cluster(world, &json!({ "clusterNetwork": { "apiServerPort": 7443 } }));
    let annotations = json!({ ours::MOVE_ENDPOINT: AFTER });
    world.api.edit(
        CONTROL_PLANE,
        &json!({ "metadata": { "annotations": annotations } }),
    );
}

/// The engine moves once it is told to. Returns whether it did.
fn play_move(world: &mut World) -> bool {
    let tenant = world.tenant();
    let reported = tenant.metadata.annotations.unwrap_or_default();
    let moves = tenant.spec.network_profile.port == 7443
        && reported
            .get(ours::MOVE_ENDPOINT)
            .is_some_and(|endpoint| endpoint == AFTER)
        && world.address != AFTER;
    if moves {
        world.address = AFTER;
        world.context.queue.add(path::key("alpha"));
    }
    moves
}

async fn settle(world: &mut World) {
    world.settle().await;
    while play_move(world) {
        world.settle().await;
    }
}

fn server(world: &World) -> String {
    let data = world.secret("alpha-kubeconfig").unwrap().data.unwrap();
    Kubeconfig::parse(&data["value"].0).unwrap().server
}

fn assert_moved(world: &World) {
    let moved = world.control_plane();
    assert_eq!(moved.spec.control_plane_endpoint, Some(endpoint(7443)));
    assert_eq!(server(world), format!("https://{AFTER}"));
    let tenant = world.tenant();
    assert_eq!(tenant.spec.network_profile.port, 7443);
    let annotations = tenant.metadata.annotations.unwrap();
    assert_eq!(annotations[ours::MOVE_ENDPOINT], AFTER, "the engine is told");
    let recorded = moved.metadata.annotations.unwrap();
    assert_eq!(recorded[ours::PUBLISHED_SERVICE], "LoadBalancer:7443");
    let (status, reason, message) = world.condition("ControlPlaneEndpointPatched");
    assert_eq!((status.as_str(), reason.as_str()), ("True", "EndpointMoved"));
    assert!(
        message.starts_with("Cluster alpha still has 192.0.2.1:6443"),
        "{message}"
    );
    assert_eq!(
        world.status().worker_endpoint,
        Some(endpoint(7443)),
        "for machines that join"
    );
    assert_eq!(world.condition("Ready").0, "True");
}

#[tokio::test]
async fn hosting_beyond_09_a_move_reaches_kubeconfig_endpoint_and_new_machines_and_survives_a_crash() {
    let mut reference = Box::pin(published()).await;
    reference.api.requests();
    edit(&reference);
    settle(&mut reference).await;
    assert_moved(&reference);
    let requests = reference.api.requests();
    let last = |path: &str| requests.iter().rposition(|r| r.ends_with(path)).unwrap();
    assert!(
        last("secrets/alpha-kubeconfig") < last("kamajicontrolplanes/alpha"),
        "the kubeconfig has it before the endpoint: {requests:#?}"
    );
    let expected = reference.snapshot();
    let total = requests
        .iter()
        .filter(|request| !request.starts_with("GET"))
        .count();
    for lives in 0..total {
        let mut world = Box::pin(published()).await;
        edit(&world);
        world.api.die_after(Some(lives));
        while world.round().await.is_ok_and(|worked| worked) || play_move(&mut world) {}
        world.api.die_after(None);
        world.restart();
        settle(&mut world).await;
        assert_moved(&world);
        assert_json_diff::assert_json_eq!(json!(world.snapshot()), json!(expected));
    }
}

#[tokio::test]
async fn the_engine_gets_an_edit_that_would_move_the_endpoint_and_the_endpoint_stays() {
    let mut world = Box::pin(published()).await;
    of_cluster(&world, &json!({ "clusterNetwork": { "apiServerPort": 7443 } }));
    world.settle().await;
    assert_eq!(world.tenant().spec.network_profile.port, 7443, "it decides");
    assert_eq!(
        world.control_plane().spec.control_plane_endpoint,
        Some(endpoint(6443))
    );
    assert_eq!(server(&world), format!("https://{BEFORE}"));
}

#[tokio::test]
async fn a_cluster_that_the_user_edited_after_the_move_shows_the_new_endpoint() {
    let mut world = Box::pin(published()).await;
    edit(&world);
    settle(&mut world).await;
    of_cluster(&world, &json!({ "controlPlaneEndpoint": endpoint(7443) }));
    world.settle().await;
    assert_eq!(world.condition("ControlPlaneEndpointPatched").1, "Patched");
    assert_eq!(world.status().worker_endpoint, None);
    // What is left of the annotation permits nothing else.
    world.address = "192.0.2.7:7443";
    world.context.queue.add(path::key("alpha"));
    world.settle().await;
    assert_eq!(
        world.condition("ControlPlaneEndpointPatched").1,
        "EndpointChanged"
    );
    assert_eq!(
        world.control_plane().spec.control_plane_endpoint,
        Some(endpoint(7443))
    );
}
