//! The endpoint and the infrastructure object of the Cluster, with the provider and Cluster API played by the test.

use kamaji_api::labels::capi;
use serde_json::{Value, json};

use super::world::{TENANT, World};
use crate::{kamajicontrolplane::reconcile::reconcile, runtime::driver::Outcome, testing::path};

const OBJECT: &str = "/apis/i.example/v1/namespaces/demo/thatclusters/alpha";
const HOST: &str = "192.0.2.1";

/// How the infrastructure provider behaves.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Provider {
    /// It waits for an endpoint.
    Waits,
    /// It provisions at once, and has no endpoint of its own.
    DoesNotCare,
    /// It takes an address of its own where there is none, and is provisioned then.
    Allocates,
    /// It leaves the object alone.
    Absent,
}

fn definition(labels: &Value) -> Value {
    let integer_and_string = json!({"host": {"type": "string"}, "port": {"type": "integer"}});
    let boolean = json!({"type": "boolean"});
    json!({
        "apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
        "metadata": {"name": "thatclusters.i.example", "labels": labels},
        "spec": {
            "group": "i.example", "scope": "Namespaced",
            "names": {"kind": "ThatCluster", "plural": "thatclusters"},
            "versions": [{"name": "v1", "served": true, "storage": true, "schema": {"openAPIV3Schema": {
                "type": "object",
                "properties": {
                    "spec": {"type": "object", "properties": {"controlPlaneEndpoint": {
                        "type": "object", "properties": integer_and_string,
                    }}},
                    "status": {"type": "object", "properties": {
                        "initialization": {"type": "object", "properties": {"provisioned": boolean}},
                    }},
                },
            }}}],
        },
    })
}

/// A Cluster whose infrastructure is `ThatCluster alpha`, which has `over` beside what each has.
fn world(over: &Value) -> World {
    let world = World::new();
    let reference = json!({"apiGroup": "i.example", "kind": "ThatCluster", "name": "alpha"});
    world.api.edit(
        &path::cluster("alpha"),
        &json!({"spec": {"infrastructureRef": reference}}),
    );
    let labels = json!({capi::CONTRACT: "v1", capi::CONTRACT_V1BETA1: "v0"});
    world
        .api
        .edit(&path::definition("thatclusters.i.example"), &definition(&labels));
    make(&world, over);
    world
}

fn make(world: &World, over: &Value) {
    let object = json!({
        "apiVersion": "i.example/v1", "kind": "ThatCluster",
        "metadata": {"name": "alpha", "namespace": "demo"}, "spec": {},
    });
    world.api.edit(OBJECT, &object);
    world.api.edit(OBJECT, over);
}

/// What provider and Cluster API write next; nothing when both are done.
fn play(world: &World, provider: Provider) -> bool {
    let Some(object) = world.api.get(OBJECT) else {
        return false;
    };
    let endpoint = &object["spec"]["controlPlaneEndpoint"];
    let is_provisioned = |object: &Value| object["status"]["initialization"]["provisioned"] == true;
    let provisioned = json!({"status": {"initialization": {"provisioned": true}}});
    let has_host = endpoint["host"].is_string();
    if provider == Provider::Allocates && !has_host {
        let fields = json!({"f:spec": {"f:controlPlaneEndpoint": {"f:host": {}, "f:port": {}}}});
        let owner = json!([{"manager": "that-manager", "operation": "Update", "fieldsV1": fields}]);
        let own = json!({"controlPlaneEndpoint": {"host": "198.51.100.9", "port": 443}});
        world.api.edit(
            OBJECT,
            &json!({"metadata": {"managedFields": owner}, "spec": own}),
        );
        return true;
    }
    let provisions = match provider {
        Provider::Waits | Provider::Allocates => has_host,
        Provider::DoesNotCare => true,
        Provider::Absent => false,
    };
    if provisions && !is_provisioned(&object) {
        world.api.edit(OBJECT, &provisioned);
        return true;
    }
    let cluster = world.api.get(&path::cluster("alpha")).unwrap();
    let known = cluster["status"]["initialization"]["infrastructureProvisioned"] == true;
    if is_provisioned(&object) && !known {
        let status = json!({"initialization": {"infrastructureProvisioned": true}});
        world
            .api
            .edit(&path::cluster("alpha"), &json!({"status": status}));
        return true;
    }
    let own = world
        .control_plane()
        .spec
        .control_plane_endpoint
        .filter(|_| world.initialized());
    let source = if known && has_host {
        endpoint.clone()
    } else {
        json!(own)
    };
    if cluster["spec"]["controlPlaneEndpoint"].is_null() && !source.is_null() {
        world.api.edit(
            &path::cluster("alpha"),
            &json!({"spec": {"controlPlaneEndpoint": source}}),
        );
        return true;
    }
    false
}

/// Everybody works until nothing is left to do.
async fn live(world: &mut World, provider: Provider) {
    for _ in 0..20 {
        world.settle().await;
        if !play(world, provider) {
            return;
        }
    }
    panic!("no end: {:#?}", world.api.requests());
}

fn patched(world: &World) -> (String, String, String) {
    world.condition("InfrastructureClusterPatched")
}

fn reason(world: &World) -> (String, String) {
    let (status, reason, _) = patched(world);
    (status, reason)
}

fn is(status: &str, reason: &str) -> (String, String) {
    (status.to_owned(), reason.to_owned())
}

fn endpoint(world: &World) -> Value {
    world.api.get(OBJECT).unwrap()["spec"]["controlPlaneEndpoint"].clone()
}

fn ours() -> Value {
    json!({"host": HOST, "port": 6443})
}

/// The requests about infrastructure, as the verb and the last part of the path.
fn asked(world: &World) -> Vec<String> {
    let all = world.api.requests().into_iter();
    let about = all
        .filter(|request| request.contains("/i.example/") || request.contains("customresourcedefinitions"));
    about
        .map(|request| {
            let (verb, path) = request.split_once(' ').unwrap();
            format!("{verb} {}", path.rsplit('/').next().unwrap())
        })
        .collect()
}

/// Lets the wait before the next try pass.
async fn again(world: &mut World) {
    world.context.handoffs.forget(&path::key("alpha"));
    world.context.queue.add(path::key("alpha"));
    world.settle().await;
}

#[tokio::test]
async fn contract_31_an_unknown_kind_gets_the_endpoint_once_and_is_never_asked_again() {
    for provider in [Provider::Waits, Provider::DoesNotCare] {
        let mut world = world(&json!({}));
        live(&mut world, provider).await;
        assert_eq!(endpoint(&world), ours());
        assert_eq!(
            patched(&world),
            (
                "True".into(),
                "Patched".into(),
                "ThatCluster alpha has the endpoint 192.0.2.1:6443".into()
            )
        );
        let cluster = world.api.get(&path::cluster("alpha")).unwrap();
        assert_eq!(cluster["spec"]["controlPlaneEndpoint"], ours());
        assert!(world.initialized());
        assert_eq!(
            asked(&world),
            ["GET thatclusters.i.example", "GET alpha", "PATCH alpha"]
        );
        world.context.queue.add(path::key("alpha"));
        world.settle().await;
        world.restart();
        world.settle().await;
        assert_eq!(
            world.api.requests(),
            Vec::<String>::new(),
            "a new process reads no infrastructure"
        );
    }
}

#[tokio::test]
async fn a_kind_without_the_field_costs_one_request_a_process() {
    let mut world = world(&json!({}));
    let without = json!({"spec": {"versions": [{
        "name": "v1", "served": true, "storage": true,
        "schema": {"openAPIV3Schema": {"type": "object", "properties": {"spec": {"type": "object"}}}},
    }]}});
    world
        .api
        .edit(&path::definition("thatclusters.i.example"), &without);
    live(&mut world, Provider::DoesNotCare).await;
    let (status, reason, message) = patched(&world);
    assert_eq!((status, reason), is("True", "NotApplicable"));
    assert!(
        message.contains("ThatCluster has no spec.controlPlaneEndpoint"),
        "{message}"
    );
    assert_eq!(asked(&world), ["GET thatclusters.i.example"]);
    world.restart();
    world.settle().await;
    assert_eq!(asked(&world), Vec::<String>::new());
}

#[tokio::test]
async fn an_endpoint_that_the_provider_took_first_is_adopted_and_left_alone() {
    let mut world = world(&json!({}));
    while play(&world, Provider::Allocates) {}
    live(&mut world, Provider::Allocates).await;
    assert_eq!(endpoint(&world)["host"], "198.51.100.9");
    assert_eq!(reason(&world), is("True", "Patched"));
    assert!(!asked(&world).contains(&"PATCH alpha".to_owned()));
}

#[tokio::test]
async fn an_object_that_was_handed_over_is_reported_as_provisioned() {
    for (manager, provisioned) in [("kamaji", true), ("terraform", false)] {
        let mut world = world(&json!({"metadata": {"annotations": {capi::MANAGED_BY: manager}}}));
        live(&mut world, Provider::Absent).await;
        assert_eq!(endpoint(&world), ours());
        let object = world.api.get(OBJECT).unwrap();
        assert_eq!(
            object["status"]["initialization"]["provisioned"] == true,
            provisioned,
            "{manager}"
        );
        let (status, reason, message) = patched(&world);
        assert_eq!((status, reason), is("True", "Patched"));
        assert_eq!(
            message.contains("has to report it as provisioned"),
            !provisioned,
            "{message}"
        );
        assert!(world.initialized());
    }
}

#[tokio::test]
async fn a_refusal_is_quoted_tried_again_and_holds_nothing_else_up() {
    let mut world = world(&json!({}));
    world.api.deny(Some("/apis/i.example/"));
    live(&mut world, Provider::Waits).await;
    let (status, reason, message) = patched(&world);
    assert_eq!((status, reason), is("False", "EndpointRejected"));
    assert!(
        message.starts_with("ThatCluster alpha does not take the endpoint: "),
        "{message}"
    );
    assert!(
        message.contains("admission webhook \"policy.example\" denied the request: not today"),
        "{message}"
    );
    assert!(
        world.initialized(),
        "the control plane waits for no infrastructure"
    );
    assert_eq!(world.condition("Ready").0, "True");
    let tries = asked(&world).len();
    let outcome = reconcile(&world.context, &path::key("alpha")).await.unwrap();
    assert!(
        matches!(outcome, Outcome::After(wait) if wait.as_secs() <= 15),
        "{outcome:?}"
    );
    assert_eq!(asked(&world).len(), 0, "{tries} before: not at each event");
    world.api.deny(None);
    again(&mut world).await;
    assert_eq!((reason_of(&world), endpoint(&world)), ("Patched".into(), ours()));
}

fn reason_of(world: &World) -> String {
    reason(world).1
}

#[tokio::test]
async fn a_write_that_was_accepted_and_changed_or_dropped_is_told() {
    for (change, words) in [
        (json!({"spec": {"controlPlaneEndpoint": null}}), "dropped it"),
        (
            json!({"spec": {"controlPlaneEndpoint": {"port": 443}}}),
            "has 192.0.2.1:443: a webhook changes it",
        ),
    ] {
        let mut world = world(&json!({}));
        world.api.amend(Some("/apis/i.example/"), change);
        world.settle().await;
        let (status, reason, message) = patched(&world);
        assert_eq!((status, reason), is("False", "WriteHadNoEffect"));
        assert!(message.contains(words), "{message}");
        world.api.amend(None, Value::Null);
        again(&mut world).await;
        let expected = if words == "dropped it" {
            "Patched"
        } else {
            "EndpointConflict"
        };
        assert_eq!(reason_of(&world), expected);
    }
}

#[tokio::test]
async fn a_writer_at_the_same_time_is_met_by_reading_again() {
    let mut world = world(&json!({}));
    world
        .api
        .overtake(OBJECT, Some(json!({"metadata": {"labels": {"a": "b"}}})));
    live(&mut world, Provider::Waits).await;
    assert_eq!((reason_of(&world), endpoint(&world)), ("Patched".into(), ours()));
    let requests = asked(&world);
    assert_eq!(
        requests[1..],
        ["GET alpha", "PATCH alpha", "GET alpha", "PATCH alpha"]
    );
}

#[tokio::test]
async fn an_object_that_goes_in_between_is_not_made_again() {
    let mut world = world(&json!({}));
    world.api.overtake(OBJECT, None);
    world.settle().await;
    assert!(world.api.get(OBJECT).is_none());
    let (status, reason, message) = patched(&world);
    assert_eq!((status, reason), is("False", "WaitingForInfrastructure"));
    assert_eq!(message, "ThatCluster alpha does not exist");
    make(&world, &json!({}));
    again(&mut world).await;
    assert_eq!((reason_of(&world), endpoint(&world)), ("Patched".into(), ours()));
}

#[tokio::test]
async fn an_object_that_is_made_anew_before_it_is_provisioned_gets_the_endpoint_too() {
    let mut world = world(&json!({}));
    world.settle().await;
    assert_eq!(endpoint(&world), ours());
    let core_says = |world: &World, reason: &str| {
        let conditions = json!([{"type": "InfrastructureReady", "status": "False", "reason": reason}]);
        world.api.edit(
            &path::cluster("alpha"),
            &json!({"status": {"conditions": conditions}}),
        );
    };
    world.api.delete(OBJECT);
    core_says(&world, "ObjectDoesNotExist");
    world.settle().await;
    assert_eq!(reason(&world), is("False", "WaitingForInfrastructure"));
    make(&world, &json!({}));
    core_says(&world, "NotReady");
    world.settle().await;
    assert_eq!((reason_of(&world), endpoint(&world)), ("Patched".into(), ours()));
}

#[tokio::test]
async fn an_endpoint_of_somebody_else_stays_before_and_after() {
    let theirs = json!({"spec": {"controlPlaneEndpoint": {"host": "198.51.100.9", "port": 443}}});
    let mut world = world(&theirs);
    world.settle().await;
    let (status, reason, message) = patched(&world);
    assert_eq!((status, reason), is("False", "EndpointConflict"));
    assert!(
        message.contains("has the endpoint 198.51.100.9:443, set by somebody"),
        "{message}"
    );
    assert!(world.initialized());
    world
        .api
        .edit(OBJECT, &json!({"spec": {"controlPlaneEndpoint": null}}));
    again(&mut world).await;
    assert_eq!(reason_of(&world), "Patched");
    world.api.edit(OBJECT, &theirs);
    world.restart();
    world.settle().await;
    assert_eq!(
        reason_of(&world),
        "EndpointConflict",
        "a new process looks while the infrastructure waits"
    );
    assert_eq!(endpoint(&world)["port"], 443);
}

#[tokio::test]
async fn a_paused_object_is_left_alone_until_it_goes_on() {
    let mut world = world(&json!({"metadata": {"annotations": {capi::PAUSED: ""}}}));
    world.settle().await;
    assert_eq!(
        (reason(&world), endpoint(&world)),
        (is("False", "Paused"), Value::Null)
    );
    world
        .api
        .edit(OBJECT, &json!({"metadata": {"annotations": null}}));
    again(&mut world).await;
    assert_eq!((reason_of(&world), endpoint(&world)), ("Patched".into(), ours()));

    let mut world = self::world(&json!({}));
    world
        .api
        .edit(&path::cluster("alpha"), &json!({"spec": {"paused": true}}));
    world.settle().await;
    assert_eq!(asked(&world), Vec::<String>::new());
}

#[tokio::test]
async fn what_is_wrong_with_the_kind_is_told() {
    let definition_path = path::definition("thatclusters.i.example");
    let mut world = world(&json!({}));
    world.api.delete(&definition_path);
    world.settle().await;
    let (_, reason, message) = patched(&world);
    assert_eq!(reason, "InfrastructureNotInstalled");
    assert!(
        message.contains("no CustomResourceDefinition thatclusters.i.example"),
        "{message}"
    );

    let mut world = self::world(&json!({}));
    world.api.delete(&definition_path);
    world.api.edit(&definition_path, &definition(&json!({"a": "b"})));
    world.settle().await;
    assert_eq!(reason_of(&world), "NoContractLabel");

    let mut world = self::world(&json!({}));
    world.api.forbid(Some(OBJECT));
    world.settle().await;
    let (_, reason, message) = patched(&world);
    assert_eq!(reason, "Forbidden");
    assert!(message.contains("\"kind\":\"ClusterRole\""), "{message}");
    world.api.forbid(None);
    again(&mut world).await;
    assert_eq!(reason_of(&world), "Patched");
}

#[tokio::test]
async fn without_an_object_or_an_endpoint_nothing_is_asked() {
    let mut world = World::new();
    world.settle().await;
    assert_eq!(reason(&world), is("True", "NotApplicable"));
    let topology = json!({"spec": {"topology": {"version": "v1.36.3"}}});
    world.api.edit(&path::cluster("alpha"), &topology);
    world.settle().await;
    assert_eq!(reason(&world), is("False", "WaitingForInfrastructure"));

    // As where a NodePort has no address.
    let mut world = self::world(&json!({}));
    world.engine = false;
    world.settle().await;
    assert!(world.api.get(TENANT).is_some());
    let (status, reason, message) = patched(&world);
    assert_eq!((status, reason), is("False", "WaitingForEndpoint"));
    assert!(message.contains("ThatCluster alpha"), "{message}");
    assert_eq!(asked(&world), Vec::<String>::new());
}

#[tokio::test]
async fn an_endpoint_that_the_user_set_on_the_cluster_is_handed_over_at_once() {
    let mut world = world(&json!({}));
    let preset = json!({"host": "api.example.org", "port": 443});
    world.api.edit(
        &path::cluster("alpha"),
        &json!({"spec": {"controlPlaneEndpoint": preset}}),
    );
    world.engine = false;
    live(&mut world, Provider::Waits).await;
    assert_eq!((reason_of(&world), endpoint(&world)), ("Patched".into(), preset));
}

#[tokio::test]
async fn a_crash_after_any_write_ends_with_the_endpoint_handed_over() {
    for writes in 1..20 {
        let mut world = world(&json!({"metadata": {"annotations": {capi::MANAGED_BY: "kamaji"}}}));
        world.api.die_after(Some(writes));
        for _ in 0..10 {
            let _ = world.round().await;
        }
        world.api.die_after(None);
        world.restart();
        live(&mut world, Provider::Absent).await;
        assert_eq!(
            (reason(&world), endpoint(&world)),
            (is("True", "Patched"), ours()),
            "{writes}"
        );
        let object = world.api.get(OBJECT).unwrap();
        assert_eq!(
            object["status"]["initialization"]["provisioned"], true,
            "{writes}"
        );
    }
}

#[tokio::test]
async fn with_the_feature_gate_nothing_is_asked_and_an_infrastructure_that_waits_is_named() {
    let mut world = world(&json!({}));
    world.skip_infrastructure = true;
    world.restart();
    world.settle().await;
    assert_eq!(reason(&world), is("True", "NotApplicable"));
    world.api.edit(
        &path::cluster("alpha"),
        &json!({"spec": {"controlPlaneEndpoint": ours()}}),
    );
    world.settle().await;
    let (status, reason, message) = patched(&world);
    assert_eq!((status, reason), is("False", "WaitingForInfrastructure"));
    assert!(
        message.starts_with("ThatCluster alpha is not provisioned"),
        "{message}"
    );
    assert_eq!(asked(&world), Vec::<String>::new());
    world.skip_infrastructure = false;
    world.restart();
    world.settle().await;
    assert_eq!((reason_of(&world), endpoint(&world)), ("Patched".into(), ours()));
}
