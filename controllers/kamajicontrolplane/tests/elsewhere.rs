//! A control plane of the Go provider whose pods another management cluster runs.

use kamaji_api::labels::{capi, go_provider};
use serde_json::{Value, json};

use super::world::{CONTROL_PLANE, TENANT, World};
use crate::testing::path;

/// What the Go provider left: its finalizer, its status, and the Secrets of the contract.
fn hosted_elsewhere() -> World {
    let world = World::new();
    let reference = json!({
        "deploymentNamespace": "there", "kubeconfigSecretName": "there", "kubeconfigSecretKey": "value",
    });
    world.api.edit(
        CONTROL_PLANE,
        &json!({
            "metadata": { "finalizers": [go_provider::FINALIZER] },
            "spec": {
                "deployment": { "externalClusterReference": reference },
                "controlPlaneEndpoint": { "host": "192.0.2.9", "port": 6443 },
            },
            "status": {
                "ready": true, "version": "v1.35.4", "replicas": 2,
                "initialization": { "controlPlaneInitialized": true },
            },
        }),
    );
    let owner = world.api.get(CONTROL_PLANE).unwrap()["metadata"]["uid"].clone();
    for name in ["alpha-ca", "alpha-kubeconfig"] {
        world.api.edit(
            &path::secret(name),
            &json!({
                "apiVersion": "v1", "kind": "Secret", "type": capi::SECRET_TYPE, "data": { "value": "dGhlaXJz" },
                "metadata": {
                    "name": name, "namespace": "demo", "labels": { capi::CLUSTER_NAME: "alpha" },
                    "ownerReferences": [{
                        "apiVersion": "controlplane.cluster.x-k8s.io/v1alpha2", "kind": "KamajiControlPlane",
                        "name": "alpha", "uid": owner, "controller": true,
                    }],
                },
            }),
        );
    }
    world
}

fn without_status(mut object: Value) -> Value {
    object.as_object_mut().unwrap().remove("status");
    object["metadata"]
        .as_object_mut()
        .unwrap()
        .remove("resourceVersion");
    object
}

#[tokio::test]
async fn a_control_plane_that_is_hosted_elsewhere_is_refused_and_left_as_it_is() {
    let mut world = hosted_elsewhere();
    let secrets = || ["alpha-ca", "alpha-kubeconfig"].map(path::secret);
    let before = secrets().map(|secret| world.api.get(&secret));
    let object = without_status(world.api.get(CONTROL_PLANE).unwrap());
    world.settle().await;

    assert!(world.api.get(TENANT).is_none(), "nothing is hosted here");
    assert_eq!(secrets().map(|secret| world.api.get(&secret)), before);
    assert_eq!(without_status(world.api.get(CONTROL_PLANE).unwrap()), object);
    let (status, reason, message) = world.condition("SpecValid");
    assert_eq!((status.as_str(), reason.as_str()), ("False", "FieldNotSupported"));
    assert!(
        message.contains("spec.deployment.externalClusterReference"),
        "{message}"
    );
    assert_eq!(world.condition("Ready").0, "False");
    let status = world.status();
    assert_eq!(
        (status.version.as_deref(), status.replicas),
        (Some("v1.35.4"), Some(2))
    );
    assert!(world.initialized(), "Cluster API requires that this stays");

    world.api.edit(
        CONTROL_PLANE,
        &json!({ "metadata": { "deletionTimestamp": "2026-01-01T00:00:00Z" } }),
    );
    world.settle().await;
    let finalizers = &world.api.get(CONTROL_PLANE).unwrap()["metadata"]["finalizers"];
    assert_eq!(
        finalizers,
        &json!([go_provider::FINALIZER]),
        "its provider deletes it"
    );
}

#[tokio::test]
async fn the_reference_is_refused_on_a_control_plane_that_is_hosted_here() {
    let mut world = World::new();
    world.settle().await;
    let tenant = world.tenant().spec;
    let kubeconfig = world.secret("alpha-kubeconfig");
    world.api.edit(
        CONTROL_PLANE,
        &json!({ "spec": {
            "replicas": 5,
            "deployment": { "externalClusterReference": {
                "deploymentNamespace": "there", "kubeconfigSecretName": "there", "kubeconfigSecretKey": "value",
            } },
        } }),
    );
    world.settle().await;
    assert_eq!(world.condition("SpecValid").1, "FieldNotSupported");
    assert_eq!(world.tenant().spec, tenant);
    assert_eq!(world.secret("alpha-kubeconfig"), kubeconfig);
    assert_eq!(world.condition("Available").0, "True", "it goes on");
}
