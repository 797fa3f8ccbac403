//! Whether the API servers reach the nodes: when it is tried, and what is reported.

use k8s_openapi::jiff::Timestamp;
use kamaji_api::{conditions::TenantControlPlaneCondition as On, labels::ours};
use serde_json::json;

use super::{TENANT, World, some_rounds};
use crate::{hosting::tenantcontrolplane::tunnel::when::Asked, k8s::conditions, testing::path};

const HEALTHZ: &str = "/api/v1/nodes/worker-0/proxy/healthz";
const AGENT: &str = "/api/v1/namespaces/kube-system/pods/new";
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

/// Status, reason and message of the condition.
fn tunnel(world: &World) -> Option<(String, String, String)> {
    let status = world.tenant().status.unwrap();
    let found = conditions::get(&status.conditions, On::TunnelReady.as_str())?;
    Some((found.status.clone(), found.reason.clone(), found.message.clone()))
}

/// The condition has this status and reason. Returns its message.
#[track_caller]
fn assert_tunnel(world: &World, status: &str, reason: &str) -> String {
    let (found, why, message) = tunnel(world).unwrap();
    assert_eq!((found.as_str(), why.as_str()), (status, reason), "{message}");
    message
}

/// Requests to the tenant that ask kubelets.
fn asked(world: &World) -> usize {
    let requests = world.tenant_api.requests();
    requests
        .iter()
        .filter(|request| request.ends_with("/healthz"))
        .count()
}

/// Changes what is known of the last question.
fn change_last(world: &World, change: impl FnOnce(&mut Asked)) {
    let key = path::key("alpha");
    let mut last = world.context.tunnel_asked(&key).unwrap();
    change(&mut last);
    world.context.set_tunnel_asked(&key, last);
}

/// The last question is long ago, so that the next occasion is one.
fn asked_long_ago(world: &World) {
    change_last(world, |last| last.at = Timestamp::UNIX_EPOCH);
}

/// Time passes without an occasion.
async fn time_passes(world: &World) {
    asked_long_ago(world);
    change_last(world, |last| last.audit = Timestamp::UNIX_EPOCH);
    world.wake();
    some_rounds(world).await;
}

/// Lets time pass until bad answers are believed.
async fn stays_bad(world: &World) {
    time_passes(world).await;
    time_passes(world).await;
}

/// A control plane whose API server reaches a node, as reported.
async fn reached() -> World {
    let world = World::new().await;
    world.settle().await;
    add_worker(&world);
    world.settle().await;
    assert_tunnel(&world, "True", "NodesReachable");
    world
}

#[tokio::test]
async fn kubelets_are_asked_when_workers_are_ready_and_then_no_more() {
    let world = World::new().await;
    world.settle().await;
    world.assert_ready();
    assert_eq!(tunnel(&world), None, "there was no occasion");
    add_worker(&world);
    world.settle().await;
    let message = assert_tunnel(&world, "True", "NodesReachable");
    assert_eq!(message, "the API server reaches the kubelet of worker-0");
    assert_eq!(asked(&world), 1);
    world.api.requests();
    world.wake();
    world.settle().await;
    assert_eq!(world.tenant_api.requests(), Vec::<String>::new());
    assert_eq!(world.api.requests(), Vec::<String>::new());
}

#[tokio::test]
async fn a_good_answer_is_tried_again_every_day_after_the_add_ons() {
    let world = reached().await;
    world.tenant_api.delete(HEALTHZ);
    world
        .context
        .set_audit(&path::key("alpha"), Timestamp::UNIX_EPOCH);
    time_passes(&world).await;
    stays_bad(&world).await;
    assert_tunnel(&world, "False", "NodesNotReachable");
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
    assert_eq!(tunnel(&world), None, "it may have joined a moment ago");
    stays_bad(&world).await;
    let message = assert_tunnel(&world, "False", "NodesNotReachable");
    assert!(message.contains("worker-0"), "{message}");
    assert!(message.contains("set spec.addons.konnectivity"), "{message}");
    world.assert_ready();
    add_node(&world);
    time_passes(&world).await;
    assert_tunnel(&world, "True", "NodesReachable");
}

#[tokio::test]
async fn an_agent_that_does_not_run_beside_one_that_does_is_named_until_it_is_mended() {
    let world = reached().await;
    let konnectivity = json!({ "spec": { "addons": { "konnectivity": {} } } });
    world.api.edit(TENANT, &konnectivity);
    world.settle().await;
    let waiting = json!({ "waiting": { "reason": "ErrImagePull" } });
    let container = json!({
        "name": "konnectivity-agent", "image": "a", "imageID": "", "ready": false, "restartCount": 0, "state": waiting,
    });
    world.tenant_api.edit(
        AGENT,
        &json!({
            "apiVersion": "v1", "kind": "Pod",
            "metadata": { "name": "new", "namespace": "kube-system", "labels": { "k8s-app": "konnectivity-agent" } },
            "status": { "containerStatuses": [container] },
        }),
    );
    for _ in 0..2 {
        time_passes(&world).await;
        assert_tunnel(&world, "True", "NodesReachable");
    }
    time_passes(&world).await;
    let message = assert_tunnel(&world, "True", "AgentsNotRunning");
    assert!(
        message.contains("1 of 1 konnectivity agents do not run; kube-system/new: "),
        "{message}"
    );
    world.assert_ready();
    world.tenant_api.delete(AGENT);
    // It is asked again without an audit.
    asked_long_ago(&world);
    world.wake();
    some_rounds(&world).await;
    assert_tunnel(&world, "True", "NodesReachable");
}

#[tokio::test]
async fn one_bad_answer_among_good_ones_changes_nothing() {
    let world = reached().await;
    world.tenant_api.delete(HEALTHZ);
    for _ in 0..2 {
        time_passes(&world).await;
        assert_tunnel(&world, "True", "NodesReachable");
    }
    add_node(&world);
    time_passes(&world).await;
    world.tenant_api.delete(HEALTHZ);
    stays_bad(&world).await;
    assert_tunnel(&world, "True", "NodesReachable");
    time_passes(&world).await;
    assert_tunnel(&world, "False", "NodesNotReachable");
}

#[tokio::test]
async fn an_api_server_that_does_not_answer_is_no_broken_tunnel() {
    let world = reached().await;
    // Its own health and that of the kubelet.
    world.tenant_api.refuse(Some("z"));
    time_passes(&world).await;
    stays_bad(&world).await;
    let message = assert_tunnel(&world, "Unknown", "ProbeFailed");
    assert!(message.contains("/readyz"), "{message}");
}

#[tokio::test]
async fn an_add_on_that_is_not_admitted_does_not_hide_the_tunnel_that_it_needs() {
    let world = reached().await;
    world.tenant_api.delete(HEALTHZ);
    world
        .tenant_api
        .deny(Some("/api/v1/namespaces/kube-system/configmaps"));
    world
        .context
        .set_audit(&path::key("alpha"), Timestamp::UNIX_EPOCH);
    time_passes(&world).await;
    stays_bad(&world).await;
    assert_eq!(world.condition(On::AddonsReady).0, "False");
    assert_tunnel(&world, "False", "NodesNotReachable");
}

#[tokio::test]
async fn whatever_the_endpoint_waits_for_the_tunnel_is_looked_at() {
    let world = reached().await;
    let port = json!({ "spec": { "networkProfile": { "port": 7443 } } });
    world.api.edit(TENANT, &port);
    world.settle().await;
    assert_eq!(world.condition(On::Ready).0, "False");
    world.tenant_api.requests();
    asked_long_ago(&world);
    ready_workers(&world, "2");
    world.settle().await;
    assert_eq!(asked(&world), 1);
}

#[tokio::test]
async fn another_setting_of_the_agents_is_an_occasion_and_their_trouble_is_named() {
    let world = reached().await;
    let agent =
        |image: &str| json!({ "spec": { "addons": { "konnectivity": { "agent": { "image": image } } } } });
    world.api.edit(TENANT, &agent("mirror.example.org/agent"));
    world.settle().await;
    world.tenant_api.requests();
    world.tenant_api.delete(HEALTHZ);
    world.tenant_api.edit(
        "/api/v1/namespaces/kube-system/pods/konnectivity-agent-x",
        &json!({
            "apiVersion": "v1", "kind": "Pod",
            "metadata": { "name": "konnectivity-agent-x", "namespace": "kube-system" },
        }),
    );
    asked_long_ago(&world);
    world.api.edit(TENANT, &agent("mirror.example.org/typo"));
    world.settle().await;
    assert_eq!(asked(&world), 1);
    stays_bad(&world).await;
    let message = assert_tunnel(&world, "False", "NodesNotReachable");
    assert!(
        message.contains(
            "of the agent of worker-0, kube-system/konnectivity-agent-x: it is not ready; its node has to reach"
        ),
        "{message}"
    );
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
    let message = assert_tunnel(&world, "True", "NodesReachable");
    assert_eq!(message, "each of 2 API servers reaches the kubelet of worker-0");
    assert_eq!(asked(&world), 2);
}

#[tokio::test]
async fn a_new_process_believes_what_was_reported() {
    let mut world = reached().await;
    // A field that the tunnel does not depend on.
    let image = json!({ "spec": { "addons": { "coreDNS": { "imageTag": "v1.13.0" } } } });
    world.api.edit(TENANT, &image);
    world.settle().await;
    world.restart().await;
    world.tenant_api.requests();
    world.settle().await;
    assert_eq!(world.tenant_api.requests(), Vec::<String>::new());
    // And notices what changes then.
    asked_long_ago(&world);
    ready_workers(&world, "2");
    world.settle().await;
    assert_eq!(asked(&world), 1);
}

#[tokio::test]
async fn a_new_process_asks_through_the_pods_that_it_replaced() {
    let mut world = reached().await;
    world.tenant_api.requests();
    let konnectivity = json!({ "spec": { "addons": { "konnectivity": {} } } });
    world.api.edit(TENANT, &konnectivity);
    world.restart().await;
    world.settle().await;
    assert_eq!(asked(&world), 1);
}

#[tokio::test]
async fn a_control_plane_that_sleeps_has_no_tunnel() {
    for restarted in [false, true] {
        let mut world = reached().await;
        replicas(&world, 0);
        world.settle().await;
        assert_tunnel(&world, "Unknown", "Sleeping");
        if restarted {
            world.restart().await;
        }
        replicas(&world, 1);
        world.settle().await;
        // The status that reports the wake-up comes first.
        world.wake();
        world.settle().await;
        assert_tunnel(&world, "True", "NodesReachable");
    }
}
