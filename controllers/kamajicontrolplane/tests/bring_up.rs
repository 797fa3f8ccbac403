//! From the owner to the published endpoint, edits, scaling, and takeovers.

use kamaji_api::{
    conditions::TenantControlPlaneCondition as Tenant,
    controlplane::Endpoint,
    labels::{capi, go_provider, ours},
};
use kube::ResourceExt;
use serde_json::{Value, json};

use super::world::{CONTROL_PLANE, TENANT, World, fold};
use crate::{
    k8s::key::RootKey,
    kamajicontrolplane::{example, reconcile::reconcile},
    runtime::driver::Outcome,
    tenant::who_answers::Answer,
    testing::path,
};

#[tokio::test]
async fn a_control_plane_is_initialized_and_then_nothing_is_written() {
    let mut world = World::new();
    world.settle().await;
    assert!(world.initialized(), "{:#?}", world.status());
    let endpoint = Endpoint {
        host: "192.0.2.1".into(),
        port: 6443,
    };
    assert_eq!(world.control_plane().spec.control_plane_endpoint, Some(endpoint));
    assert_eq!(world.condition("Ready").0, "True");
    for condition in &world.status().conditions {
        let healthy = if kamaji_api::conditions::is_negative(&condition.type_) {
            "False"
        } else {
            "True"
        };
        assert_eq!(condition.status, healthy, "{condition:?}");
    }
    let requests = world.api.requests();
    assert!(
        requests.len() <= 20,
        "requests for a new control plane: {requests:#?}"
    );
    // The same again, warm and after a restart.
    world.context.queue.add(path::key("alpha"));
    world.settle().await;
    world.restart();
    world.settle().await;
    assert_eq!(world.api.requests(), Vec::<String>::new());
}

#[tokio::test]
async fn contract_28_a_crash_after_any_write_converges_to_the_same() {
    let mut reference = World::new();
    reference.settle().await;
    let expected = reference.snapshot();
    for writes in 1..20 {
        let mut world = World::new();
        world.api.die_after(Some(writes));
        // Failures are expected: the process is dead.
        for _ in 0..10 {
            let _ = world.round().await;
        }
        world.api.die_after(None);
        world.restart();
        world.settle().await;
        assert_json_diff::assert_json_eq!(json!(world.snapshot()), json!(expected));
    }
}

#[tokio::test]
async fn contract_08_secrets_and_endpoint_exist_before_initialized_is_reported() {
    let mut world = World::new();
    let mut history = Vec::new();
    for _ in 0..30 {
        let changes = world.api.changes();
        for change in &changes {
            fold(&world.context, change);
        }
        history.extend(changes.into_iter().map(|change| change.object));
        if !world.round().await.unwrap() {
            break;
        }
    }
    let first = |holds: &dyn Fn(&Value) -> bool| history.iter().position(holds);
    let is =
        |object: &Value, kind: &str, name: &str| object["kind"] == kind && object["metadata"]["name"] == name;
    let labelled = |object: &Value| object["metadata"]["labels"][capi::CLUSTER_NAME] == "alpha";
    let initialized = first(&|object| {
        is(object, "KamajiControlPlane", "alpha")
            && object["status"]["initialization"]["controlPlaneInitialized"] == true
    });
    let before = [
        first(&|object| is(object, "Secret", "alpha-ca") && labelled(object)),
        first(&|object| is(object, "Secret", "alpha-kubeconfig") && labelled(object)),
        first(&|object| {
            is(object, "KamajiControlPlane", "alpha")
                && object["spec"]["controlPlaneEndpoint"]["port"] == 6443
        }),
    ];
    for earlier in before {
        assert!(
            earlier.is_some() && earlier < initialized,
            "{earlier:?} of {before:?} is not before {initialized:?}"
        );
    }
}

#[tokio::test]
async fn contract_03_nothing_is_created_until_a_cluster_owns_the_control_plane() {
    let mut world = World::new();
    let owners = world.api.get(CONTROL_PLANE).unwrap()["metadata"]["ownerReferences"].clone();
    world
        .api
        .edit(CONTROL_PLANE, &json!({"metadata": {"ownerReferences": null}}));
    world.settle().await;
    assert!(world.api.get(TENANT).is_none());
    assert_eq!(world.condition("Available").1, "WaitingForOwner");
    assert_eq!(
        world.status().external_managed_control_plane,
        Some(true),
        "contract_06"
    );
    world
        .api
        .edit(CONTROL_PLANE, &json!({"metadata": {"ownerReferences": owners}}));
    world.settle().await;
    assert!(world.initialized());
}

#[tokio::test]
async fn contract_14_edits_while_paused_are_applied_when_the_pause_ends() {
    for pause in [
        (
            path::cluster("alpha").as_str(),
            json!({"spec": {"paused": true}}),
            json!({"spec": {"paused": null}}),
        ),
        (
            CONTROL_PLANE,
            json!({"metadata": {"annotations": {capi::PAUSED: ""}}}),
            json!({"metadata": {"annotations": {capi::PAUSED: null}}}),
        ),
    ] {
        let mut world = World::new();
        world.settle().await;
        world.api.edit(pause.0, &pause.1);
        world.settle().await;
        assert_eq!(world.condition("Paused").0, "True");
        world.api.edit(CONTROL_PLANE, &json!({"spec": {"replicas": 3}}));
        world.settle().await;
        assert_eq!(world.tenant().spec.control_plane.deployment.replicas, 2);
        world.api.edit(pause.0, &pause.2);
        world.settle().await;
        assert_eq!(world.condition("Paused").0, "False");
        assert_eq!(world.tenant().spec.control_plane.deployment.replicas, 3);
    }
}

#[tokio::test]
async fn an_edit_that_would_move_a_published_endpoint_is_reported_and_not_applied() {
    for (path, edit, named) in [
        (
            path::cluster("alpha").as_str(),
            json!({"spec": {"clusterNetwork": {"apiServerPort": 443}}}),
            "apiServerPort",
        ),
        (
            CONTROL_PLANE,
            json!({"spec": {"network": {"serviceType": "ClusterIP"}}}),
            "serviceType",
        ),
        (
            CONTROL_PLANE,
            json!({"spec": {"network": {"serviceAddress": "192.0.2.77"}}}),
            "serviceAddress",
        ),
    ] {
        let mut world = World::new();
        world.settle().await;
        let before = world.tenant().spec;
        world.api.edit(path, &edit);
        world.api.edit(CONTROL_PLANE, &json!({"spec": {"replicas": 3}}));
        world.settle().await;
        let (status, reason, message) = world.condition("ControlPlaneEndpointPatched");
        assert_eq!(
            (status.as_str(), reason.as_str()),
            ("False", "EndpointChanged"),
            "{named}"
        );
        assert!(message.contains(named), "{message}");
        let mut after = world.tenant().spec;
        assert_eq!(
            after.control_plane.deployment.replicas, 3,
            "every other edit is applied"
        );
        after.control_plane.deployment.replicas = before.control_plane.deployment.replicas;
        assert_eq!(after, before, "{named}");
    }
}

#[tokio::test]
async fn a_preset_endpoint_that_the_user_also_names_in_the_certificate_stays_preset() {
    for crash in [false, true] {
        let mut world = World::new();
        world.api.edit(
            CONTROL_PLANE,
            &json!({"spec": {
                "controlPlaneEndpoint": {"host": "api.example.org", "port": 443},
                "network": {"certSANs": ["api.example.org"]},
            }}),
        );
        if crash {
            // The finalizer, the record of the endpoint, the TenantControlPlane; then the process dies.
            world.api.die_after(Some(3));
            while world.round().await.is_ok_and(|worked| worked) {}
            world.api.die_after(None);
            world.restart();
        }
        world.settle().await;
        let annotations = world.control_plane().metadata.annotations.unwrap();
        assert_eq!(annotations[ours::ENDPOINT_ORIGIN], "preset");
        assert_eq!(world.condition("ControlPlaneEndpointPatched").0, "True");
        assert_eq!(world.condition("Ready").0, "True");
    }
}

#[tokio::test]
async fn what_a_policy_refused_is_tried_again() {
    for running in [false, true] {
        let mut world = World::new();
        if running {
            world.settle().await;
        }
        world.api.deny(Some(TENANT));
        world.api.edit(CONTROL_PLANE, &json!({"spec": {"replicas": 3}}));
        world.settle().await;
        let (status, reason, message) = world.condition("SpecValid");
        assert_eq!((status.as_str(), reason.as_str()), ("False", "InvalidSpec"));
        assert!(message.contains("policy.example"), "{message}");
        let key = RootKey::new("demo", "alpha");
        let outcome = reconcile(&world.context, &key).await.unwrap();
        assert_eq!(outcome, Outcome::Waiting, "nothing reports that a policy changed");
        world.api.deny(None);
        world.context.queue.add(key);
        world.settle().await;
        assert_eq!(world.condition("SpecValid").0, "True");
        assert_eq!(world.tenant().spec.control_plane.deployment.replicas, 3);
    }
}

#[tokio::test]
async fn contract_20_initialized_is_kept_when_the_pods_die() {
    let mut world = World::new();
    world.settle().await;
    let mut broken = world.tenant();
    example::report(
        &mut broken,
        Tenant::Available,
        "False",
        "APIServerUnreachable",
        "no answer",
    );
    world.engine = false;
    world.api.edit(TENANT, &json!({"status": broken.status}));
    world.settle().await;
    assert_eq!(world.condition("Available").1, "APIServerUnreachable");
    assert!(world.initialized());
}

#[tokio::test]
async fn an_edit_or_deletion_by_somebody_else_is_repaired() {
    let mut world = World::new();
    world.settle().await;
    let expected = world.snapshot();
    world.api.edit(
        &path::secret("alpha-kubeconfig"),
        &json!({"data": {"value": "aGE="}}),
    );
    world.api.delete(&path::secret("alpha-kamaji-bootstrap"));
    world
        .api
        .edit(TENANT, &json!({"spec": {"networkProfile": {"port": 1}}}));
    world.settle().await;
    assert_json_diff::assert_json_eq!(json!(world.snapshot()), json!(expected));
}

#[tokio::test]
async fn a_tenant_of_somebody_else_is_left_alone() {
    let mut world = World::new();
    world.engine = false;
    world.api.edit(
        TENANT,
        &json!({
            "apiVersion": "kamaji.clastix.io/v1alpha1", "kind": "TenantControlPlane",
            "metadata": {"name": "alpha", "namespace": "demo"},
            "spec": serde_json::to_value(&example::tenant().spec).unwrap(),
        }),
    );
    let before = world.api.get(TENANT);
    world.settle().await;
    assert_eq!(world.condition("TenantControlPlaneCreated").1, "OwnedByAnother");
    world.api.delete(CONTROL_PLANE);
    world.settle().await;
    assert!(world.api.get(CONTROL_PLANE).is_none());
    assert_eq!(world.api.get(TENANT), before);
}

#[tokio::test]
async fn contract_29_after_a_restore_with_another_uid_the_tenant_is_kept() {
    let mut world = World::new();
    world.settle().await;
    let (tenant, ca) = (world.tenant().uid(), world.secret("alpha-ca").unwrap().data);
    world.api.edit(
        CONTROL_PLANE,
        &json!({"metadata": {"uid": "another-uid"}, "status": null}),
    );
    world.restart();
    world.settle().await;
    assert!(world.initialized());
    assert_eq!(world.tenant().uid(), tenant);
    assert_eq!(world.secret("alpha-ca").unwrap().data, ca);
    for owned in [
        world.tenant().owner_references().to_vec(),
        world
            .secret("alpha-kubeconfig")
            .unwrap()
            .owner_references()
            .to_vec(),
    ] {
        assert_eq!(owned.len(), 1);
        assert_eq!(owned[0].uid, "another-uid");
    }
}

#[tokio::test]
async fn what_a_restore_stripped_of_its_owner_is_owned_again() {
    let mut world = World::new();
    world.settle().await;
    let uid = json!(world.control_plane().uid());
    let paths = [
        TENANT.to_owned(),
        path::secret("alpha-kubeconfig"),
        path::secret("alpha-kamaji-bootstrap"),
    ];
    for restarted in [false, true] {
        for path in &paths {
            world
                .api
                .edit(path, &json!({"metadata": {"ownerReferences": null}}));
        }
        if restarted {
            world.restart();
        }
        world.settle().await;
        for path in &paths {
            let owner = &world.api.get(path).unwrap()["metadata"]["ownerReferences"][0]["uid"];
            assert_eq!(owner, &uid, "{path}, restarted: {restarted}");
        }
        assert_eq!(world.condition("TenantControlPlaneCreated").0, "True");
    }
    // A deletion that begins meanwhile deletes the tenant too.
    world
        .api
        .edit(TENANT, &json!({"metadata": {"ownerReferences": null}}));
    world.api.delete(CONTROL_PLANE);
    world.settle().await;
    assert_eq!(world.api.get(TENANT), None);
}

#[tokio::test]
async fn an_endpoint_that_leads_elsewhere_is_reported_before_a_machine_trusts_it() {
    let mut world = World::new();
    let endpoint = json!({"spec": {"controlPlaneEndpoint": {"host": "api.example.org", "port": 6443}}});
    world.api.edit(&path::cluster("alpha"), &endpoint);
    world.network.lock().answer = Answer::Another;
    world.settle().await;
    assert_eq!(world.condition("EndpointReachable").1, "EndpointMismatch");
    assert_eq!(world.condition("Ready").0, "False");
    assert!(!world.initialized(), "no machine is made for it");
    // Nor while a reconcile ends before the question, and whatever wakes it.
    let asked = world.network.lock().asked.len();
    world
        .api
        .edit(CONTROL_PLANE, &json!({"spec": {"version": "v1.0.0"}}));
    world.settle().await;
    assert!(!world.initialized());
    world
        .api
        .edit(CONTROL_PLANE, &json!({"spec": {"version": "v1.36.3"}}));
    world.settle().await;
    assert!(!world.initialized());
    assert_eq!(world.network.lock().asked.len(), asked, "it is asked seldom");
    world.restart();
    // Nobody answers the management cluster: machines may still reach it.
    world.network.lock().answer = Answer::Silence;
    world.context.queue.add(path::key("alpha"));
    world.settle().await;
    assert_eq!(world.condition("EndpointReachable").1, "EndpointNotAnswering");
    assert_eq!(world.condition("Ready").0, "True");
    assert!(world.initialized());
    // Once it led here it is not asked again, after a restart neither.
    world.network.lock().answer = Answer::Ours;
    world.restart();
    world.context.queue.add(path::key("alpha"));
    world.settle().await;
    assert_eq!(world.condition("EndpointReachable").0, "True");
    let asked = std::mem::take(&mut world.network.lock().asked);
    assert!(
        asked.iter().all(|url| url == "https://api.example.org:6443"),
        "{asked:?}"
    );
    world.restart();
    world.context.queue.add(path::key("alpha"));
    world.settle().await;
    assert_eq!(world.network.lock().asked, Vec::<String>::new());
}

#[tokio::test]
async fn an_endpoint_of_the_own_service_is_not_asked() {
    let mut world = World::new();
    world.settle().await;
    assert!(world.initialized());
    assert_eq!(world.network.lock().asked, Vec::<String>::new());
    let conditions = world.status().conditions;
    assert!(conditions.iter().all(|known| known.type_ != "EndpointReachable"));
}

#[tokio::test]
async fn contract_16_scaling_is_reported_and_versions_are_kept() {
    let mut world = World::new();
    world.settle().await;
    for (replicas, up, down) in [(3, "True", "False"), (1, "False", "True"), (0, "False", "True")] {
        world.engine = false;
        world
            .api
            .edit(CONTROL_PLANE, &json!({"spec": {"replicas": replicas}}));
        world.settle().await;
        assert_eq!(world.condition("ScalingUp").0, up, "to {replicas}");
        assert_eq!(world.condition("ScalingDown").0, down, "to {replicas}");
        world.engine = true;
        world.context.queue.add(path::key("alpha"));
        world.settle().await;
        assert_eq!(world.status().replicas, Some(replicas));
        assert_eq!(world.condition("ScalingDown").0, "False");
        assert_eq!(world.status().version.as_deref(), Some("v1.36.3"));
        assert!(world.initialized());
    }
    assert_eq!(world.condition("Available").1, "Sleeping");
}

#[tokio::test]
async fn a_published_endpoint_that_drifted_is_reported_also_for_a_tenant_that_was_created_again() {
    let mut world = World::new();
    world.settle().await;
    let published = world.control_plane().spec.control_plane_endpoint;
    world.address = "192.0.2.9:6443";
    world.api.delete(TENANT);
    world.settle().await;
    let (status, reason, message) = world.condition("ControlPlaneEndpointPatched");
    assert_eq!((status.as_str(), reason.as_str()), ("False", "EndpointChanged"));
    assert!(message.contains("192.0.2.9:6443 now"), "{message}");
    assert_eq!(world.control_plane().spec.control_plane_endpoint, published);
    assert!(world.tenant().spec.network_profile.cert_sans.is_empty());
    world.address = "192.0.2.1:6443";
    world.context.queue.add(path::key("alpha"));
    world.settle().await;
    assert_eq!(world.condition("ControlPlaneEndpointPatched").0, "True");
}

#[tokio::test]
async fn contract_31a_fields_of_the_spec_that_the_go_provider_owns_are_taken_over_once() {
    let mut world = World::new();
    let entry = |manager: &str, operation: &str, fields: Value| {
        json!({
            "manager": manager, "operation": operation, "fieldsType": "FieldsV1", "fieldsV1": fields,
            "apiVersion": "controlplane.cluster.x-k8s.io/v1alpha2",
        })
    };
    world.api.edit(
        CONTROL_PLANE,
        &json!({
            "metadata": {
                "finalizers": [go_provider::FINALIZER],
                "managedFields": [
                    entry("manager", "Update", json!({"f:metadata": {"f:finalizers": {}}, "f:spec": {"f:kine": {}}})),
                    entry("capi-topology", "Apply", json!({"f:spec": {"f:version": {}}})),
                ],
            },
            "spec": {"controlPlaneEndpoint": {"host": "192.0.2.1", "port": 6443}},
        }),
    );
    let before = world.control_plane().spec;
    world.settle().await;
    let fields = world.api.get(CONTROL_PLANE).unwrap()["metadata"]["managedFields"].clone();
    assert_eq!(fields[0]["fieldsV1"], json!({"f:metadata": {"f:finalizers": {}}}));
    assert_eq!(fields[1]["fieldsV1"], json!({"f:spec": {"f:version": {}}}));
    assert_eq!(world.control_plane().spec, before, "the values are kept");
    assert!(world.initialized());
    world.api.requests();
    world.restart();
    world.settle().await;
    assert_eq!(world.api.requests(), Vec::<String>::new());
}
