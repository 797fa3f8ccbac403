//! Whether the API servers reach the nodes: when it is tried, and what is reported.

use k8s_openapi::jiff::Timestamp;
use kamaji_api::{conditions::TenantControlPlaneCondition as On, labels::ours};
use serde_json::json;

use super::{TENANT, World};
use crate::{k8s::conditions, testing::path};

const HEALTHZ: &str = "/api/v1/nodes/worker-0/proxy/healthz";
const SLICE: &str = "/apis/discovery.k8s.io/v1/namespaces/demo/endpointslices/alpha-x";

/// A node whose kubelet answers, and a ready worker Machine, for a control plane with one replica.
fn add_worker(world: &World) {
    replicas(world, 1);
    add_node(world);
    ready_workers(world, "1");
}

fn replicas(world: &World, count: i32) {
    let deployment = json!({ "deployment": { "replicas": count } });
    world
        .api
        .edit(TENANT, &json!({ "spec": { "controlPlane": deployment } }));
}

fn add_node(world: &World) {
    world.tenant_api.edit(
        "/api/v1/nodes/worker-0",
        &json!({
            "apiVersion": "v1", "kind": "Node", "metadata": { "name": "worker-0" },
            "status": { "conditions": [{ "type": "Ready", "status": "True" }] },
        }),
    );
    world.tenant_api.edit(HEALTHZ, &json!({ "metadata": {} }));
}

/// Sets the number of ready workers of a young tenant.
fn ready_workers(world: &World, count: &str) {
    let annotations = json!({ ours::READY_WORKERS: count });
    let created = Timestamp::now().to_string();
    let metadata = json!({ "annotations": annotations, "creationTimestamp": created });
    world.api.edit(TENANT, &json!({ "metadata": metadata }));
}

fn tunnel(world: &World) -> Option<(String, String, String)> {
    let status = world.tenant().status.unwrap();
    let found = conditions::get(&status.conditions, On::TunnelReady.as_str())?;
    Some((found.status.clone(), found.reason.clone(), found.message.clone()))
}

/// Requests to the tenant that ask kubelets.
fn asked(world: &World) -> usize {
    let requests = world.tenant_api.requests();
    requests
        .iter()
        .filter(|request| request.ends_with("/healthz"))
        .count()
}

#[tokio::test]
async fn kubelets_are_asked_when_workers_are_ready_and_then_no_more() {
    let world = World::new().await;
    world.settle().await;
    world.assert_ready();
    assert_eq!(tunnel(&world), None, "there was no occasion");
    add_worker(&world);
    world.settle().await;
    let (status, reason, message) = tunnel(&world).unwrap();
    assert_eq!((status.as_str(), reason.as_str()), ("True", "NodesReachable"));
    assert_eq!(message, "the API server reaches the kubelet of worker-0");
    assert_eq!(asked(&world), 1);
    world.api.requests();
    world.wake();
    world.settle().await;
    assert_eq!(world.tenant_api.requests(), Vec::<String>::new());
    assert_eq!(world.api.requests(), Vec::<String>::new());
}

#[tokio::test]
async fn a_tenant_without_nodes_is_quiet() {
    let world = World::new().await;
    world.settle().await;
    replicas(&world, 1);
    // A worker that has no Node yet: an occasion to look.
    ready_workers(&world, "1");
    world.settle().await;
    let looked = world.tenant_api.requests();
    assert!(
        looked
            .iter()
            .any(|request| request.starts_with("GET /api/v1/nodes")),
        "{looked:?}"
    );
    assert_eq!(tunnel(&world), None, "there is nothing to report");
    world.api.requests();
    world.wake();
    world.settle().await;
    assert_eq!(world.api.requests(), Vec::<String>::new());
    assert_eq!(world.tenant_api.requests(), Vec::<String>::new());
}

#[tokio::test]
async fn a_kubelet_that_is_not_reached_is_named_and_the_control_plane_stays_ready() {
    let world = World::new().await;
    world.settle().await;
    add_worker(&world);
    world.tenant_api.delete(HEALTHZ);
    world.settle().await;
    let (status, reason, message) = tunnel(&world).unwrap();
    assert_eq!((status.as_str(), reason.as_str()), ("False", "NodesNotReachable"));
    assert!(message.contains("worker-0"), "{message}");
    assert!(message.contains("set spec.addons.konnectivity"), "{message}");
    world.assert_ready();
}

#[tokio::test]
async fn each_of_several_api_servers_is_asked_at_its_pod() {
    let world = World::new().await;
    world.settle().await;
    replicas(&world, 2);
    let pod = |name: &str, address: &str| json!({ "addresses": [address], "conditions": { "ready": true }, "targetRef": { "name": name } });
    world.api.edit(
        SLICE,
        &json!({
            "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "addressType": "IPv4",
            "metadata": { "name": "alpha-x", "labels": { "kubernetes.io/service-name": "alpha" } },
            "ports": [{ "name": "kube-apiserver", "port": 6443 }],
            "endpoints": [pod("alpha-a", "10.1.0.2"), pod("alpha-b", "10.1.0.3")],
        }),
    );
    add_node(&world);
    ready_workers(&world, "1");
    world.settle().await;
    let (status, _, message) = tunnel(&world).unwrap();
    assert_eq!(status, "True");
    assert_eq!(message, "each of 2 API servers reaches the kubelet of worker-0");
    assert_eq!(asked(&world), 2);
}

#[tokio::test]
async fn a_new_process_believes_what_was_reported() {
    let mut world = World::new().await;
    world.settle().await;
    add_worker(&world);
    world.settle().await;
    world.restart().await;
    world.tenant_api.requests();
    world.settle().await;
    assert_eq!(world.tenant_api.requests(), Vec::<String>::new());
    // And notices what changes then.
    ready_workers(&world, "2");
    world.settle().await;
    let planned = world.context.tunnel_asked(&path::key("alpha"));
    assert!(planned.is_some());
}

#[tokio::test]
async fn a_control_plane_that_sleeps_has_no_tunnel() {
    let world = World::new().await;
    world.settle().await;
    add_worker(&world);
    world.settle().await;
    replicas(&world, 0);
    world.settle().await;
    let (status, reason, _) = tunnel(&world).unwrap();
    assert_eq!((status.as_str(), reason.as_str()), ("Unknown", "Sleeping"));
}
