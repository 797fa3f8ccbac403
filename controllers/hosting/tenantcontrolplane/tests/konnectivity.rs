//! Konnectivity turned on and off: at creation and at run time, with crashes, edits and deletions in between.

use std::collections::BTreeSet;

use k8s_openapi::jiff::Timestamp;
use kamaji_api::{conditions::TenantControlPlaneCondition as On, labels::ours};
use serde_json::{Value, json};

use super::{DEPLOYMENT, SERVICE, TENANT, World};
use crate::{
    hosting::testing::{self, writes},
    testing::path,
};

const AGENTS: &str = "/apis/apps/v1/namespaces/kube-system/daemonsets/konnectivity-agent";
const EGRESS: &str = "/api/v1/namespaces/demo/configmaps/alpha-konnectivity-egress-selector-configuration";
const POLICY: &str = "/apis/networking.k8s.io/v1/namespaces/demo/networkpolicies/alpha";

/// A tenant with an additional port, before anything is made.
async fn world(on: bool) -> World {
    let world = World::new().await;
    let ports = json!([{ "name": "metrics", "port": 9000, "targetPort": 9000 }]);
    world.api.edit(
        TENANT,
        &json!({ "spec": { "controlPlane": { "service": { "additionalPorts": ports } } } }),
    );
    if on {
        turn(&world, true);
    }
    world
}

fn turn(world: &World, on: bool) {
    let settings = if on { json!({}) } else { Value::Null };
    world.api.edit(
        TENANT,
        &json!({ "spec": { "addons": { "konnectivity": settings } } }),
    );
}

/// Names and ports of the Service.
fn ports(world: &World) -> Vec<(String, u64)> {
    let service = world.api.get(SERVICE).unwrap();
    let ports = service["spec"]["ports"].as_array().unwrap();
    ports
        .iter()
        .map(|port| {
            (
                port["name"].as_str().unwrap().to_owned(),
                port["port"].as_u64().unwrap(),
            )
        })
        .collect()
}

fn named(ports: &[(&str, u64)]) -> Vec<(String, u64)> {
    ports
        .iter()
        .map(|(name, port)| ((*name).to_owned(), *port))
        .collect()
}

/// Secrets and ConfigMaps that pods of this Deployment mount.
fn mounted(deployment: &Value) -> BTreeSet<String> {
    let volumes = deployment["spec"]["template"]["spec"]["volumes"].as_array();
    let of = |volume: &Value| {
        let mut paths = Vec::new();
        for source in volume["projected"]["sources"].as_array().into_iter().flatten() {
            paths.extend(source["secret"]["name"].as_str().map(path::secret));
        }
        let map = volume["configMap"]["name"].as_str();
        paths.extend(map.map(|name| format!("/api/v1/namespaces/demo/configmaps/{name}")));
        paths
    };
    volumes.into_iter().flatten().flat_map(of).collect()
}

/// Every object that a pod mounts exists: a pod of the template that was applied, or of `former` ones while the rollout is
/// not complete.
fn assert_mounts(world: &World, former: &BTreeSet<String>, when: &str) {
    let Some(deployment) = world.api.get(DEPLOYMENT) else {
        return;
    };
    let mut needed = mounted(&deployment);
    if deployment["status"]["observedGeneration"] != deployment["metadata"]["generation"] {
        needed.extend(former.iter().cloned());
    }
    for path in needed {
        assert!(
            world.api.get(&path).is_some(),
            "{path} is mounted and gone, {when}"
        );
    }
}

/// One round in which no pod is replaced.
async fn round_without_rollout(world: &World) {
    for change in world.api.changes() {
        testing::fold(&world.engine, &change);
    }
    world.reconcile_due().await;
}

fn reported(world: &World) -> Value {
    let status = serde_json::to_value(world.tenant().status).unwrap();
    status["addons"]["konnectivity"].clone()
}

#[tokio::test]
async fn hosting_beyond_08_12_konnectivity_from_the_start_is_one_revision_within_the_budget() {
    let world = world(true).await;
    world.settle().await;
    world.assert_ready();
    let requests = world.api.requests();
    assert!(requests.len() <= 40, "{} requests: {requests:#?}", requests.len());
    let deployment = world.api.get(DEPLOYMENT).unwrap();
    assert_eq!(deployment["metadata"]["generation"], 1, "one revision");
    let expected = [
        ("kube-apiserver", 6443),
        ("konnectivity-server", 8132),
        ("metrics", 9000),
    ];
    assert_eq!(ports(&world), named(&expected));
    let agents = world.tenant_api.get(AGENTS).unwrap();
    let args = &agents["spec"]["template"]["spec"]["containers"][0]["args"];
    let args = args.to_string();
    assert!(
        args.contains("--proxy-server-host=10.0.0.7") && args.contains("--proxy-server-port=8132"),
        "{args}"
    );
    let reported = reported(&world);
    for (pointer, value) in [
        ("/enabled", json!(true)),
        (
            "/configMap/name",
            json!("alpha-konnectivity-egress-selector-configuration"),
        ),
        ("/certificate/secretName", json!("alpha-konnectivity-certificate")),
        ("/kubeconfig/secretName", json!("alpha-konnectivity-kubeconfig")),
        ("/sa/name", json!("konnectivity-agent")),
        ("/clusterrolebinding/name", json!("system:konnectivity-server")),
        ("/agent/mode", json!("DaemonSet")),
        ("/service/port", json!(8132)),
    ] {
        assert_eq!(reported.pointer(pointer), Some(&value), "{pointer}: {reported}");
    }
    world.tenant_api.requests();
    world.wake();
    world.settle().await;
    assert_eq!(world.api.requests(), Vec::<String>::new());
    assert_eq!(world.tenant_api.requests(), Vec::<String>::new());
}

#[tokio::test]
async fn hosting_beyond_08_konnectivity_is_turned_on_off_and_on_again_and_no_pod_misses_a_volume() {
    let world = world(false).await;
    world.settle().await;
    let (made, inside) = (world.made(), world.tenant_api.objects());
    let names = |objects: &[Value]| {
        let of = |object: &Value| format!("{}/{}", object["kind"], object["metadata"]["name"]);
        objects.iter().map(of).collect::<BTreeSet<_>>()
    };
    for again in [false, true] {
        turn(&world, true);
        world.settle().await;
        world.assert_ready();
        assert!(world.tenant_api.get(AGENTS).is_some(), "again: {again}");
        assert_eq!(
            ports(&world)[1..],
            named(&[("konnectivity-server", 8132), ("metrics", 9000)])
        );
        let policy = world.api.get(POLICY).unwrap()["spec"].to_string();
        assert!(policy.contains("8132"), "{policy}");

        let former = mounted(&world.api.get(DEPLOYMENT).unwrap());
        turn(&world, false);
        for round in 0..3 {
            round_without_rollout(&world).await;
            world.wake();
            assert_mounts(&world, &former, &format!("round {round}"));
        }
        // Pods of the former template still serve agents.
        assert_eq!(ports(&world)[1], ("konnectivity-server".to_owned(), 8132));
        assert!(
            world.api.get(POLICY).unwrap()["spec"]
                .to_string()
                .contains("8132")
        );
        assert!(world.tenant_api.get(AGENTS).is_some());
        let deployment = world.api.get(DEPLOYMENT).unwrap().to_string();
        assert!(
            !deployment.contains("konnectivity-server\""),
            "the Deployment goes first"
        );
        world.settle().await;
        world.assert_ready();
        assert_eq!(world.made(), made);
        assert_eq!(names(&world.tenant_api.objects()), names(&inside));
        assert_eq!(
            ports(&world),
            named(&[("kube-apiserver", 6443), ("metrics", 9000)])
        );
        assert!(
            !world.api.get(POLICY).unwrap()["spec"]
                .to_string()
                .contains("8132")
        );
        assert_eq!(reported(&world), json!({ "enabled": false }));
        world.api.requests();
        world.wake();
        world.settle().await;
        assert_eq!(world.api.requests(), Vec::<String>::new(), "quiet again");
    }
}

#[tokio::test]
async fn hosting_beyond_08_10_a_crash_after_any_write_of_turning_it_on_or_off_converges() {
    for on in [true, false] {
        let reference = world(!on).await;
        reference.settle().await;
        reference.api.requests();
        turn(&reference, on);
        reference.settle().await;
        let expected = reference.made();
        let total = writes(&reference.api.requests()).len();
        assert!(total > 3, "{total} writes");
        for lives in 0..total {
            let mut world = world(!on).await;
            world.settle().await;
            let former = mounted(&world.api.get(DEPLOYMENT).unwrap());
            turn(&world, on);
            world.api.die_after(Some(lives));
            for _ in 0..6 {
                world.round().await;
                assert_mounts(&world, &former, &format!("on: {on}, after {lives} writes"));
            }
            world.api.die_after(None);
            world.restart().await;
            world.settle().await;
            world.assert_ready();
            assert_eq!(world.made(), expected, "on: {on}, after {lives} writes");
            assert_eq!(world.tenant_api.get(AGENTS).is_some(), on, "after {lives} writes");
        }
    }
}

#[tokio::test]
async fn while_a_tenant_is_asleep_the_tunnel_goes_and_what_is_inside_follows_when_it_wakes() {
    let world = world(true).await;
    world.settle().await;
    let scale =
        |replicas: i32| json!({ "spec": { "controlPlane": { "deployment": { "replicas": replicas } } } });
    world.api.edit(TENANT, &scale(0));
    world.settle().await;
    turn(&world, false);
    world.settle().await;
    assert!(world.api.get(EGRESS).is_none());
    assert_eq!(reported(&world)["enabled"], true, "agents are still there");
    world.api.edit(TENANT, &scale(2));
    world.settle().await;
    world.assert_ready();
    assert!(world.tenant_api.get(AGENTS).is_none());
    assert_eq!(reported(&world), json!({ "enabled": false }));
}

#[tokio::test]
async fn the_first_agents_start_with_the_rollout_and_not_after_it() {
    let world = world(false).await;
    world.settle().await;
    turn(&world, true);
    round_without_rollout(&world).await;
    let deployment = world.api.get(DEPLOYMENT).unwrap();
    assert_ne!(
        deployment["status"]["observedGeneration"],
        deployment["metadata"]["generation"]
    );
    assert!(world.tenant_api.get(AGENTS).is_some());
}

#[tokio::test]
async fn what_belongs_to_konnectivity_is_repaired_after_an_edit_or_a_deletion_and_goes_with_the_tenant() {
    let world = world(true).await;
    let before = world.api.objects().len() - 1;
    world.settle().await;
    let made = world.made();
    let own: Vec<&String> = made.iter().filter(|path| path.contains("konnectivity")).collect();
    assert_eq!(own.len(), 3, "{own:?}");
    for path in own {
        let data = world.api.get(path).unwrap()["data"].clone();
        let key = data.as_object().unwrap().keys().next().unwrap();
        world.api.edit(path, &json!({ "data": { key: "Zm9yZWlnbg==" } }));
        world.settle().await;
        let after = world.api.get(path).unwrap()["data"].to_string();
        assert!(!after.contains("Zm9yZWlnbg=="), "{path}");
        world.api.delete(path);
        world.settle().await;
        assert!(world.api.get(path).is_some(), "{path} was not created again");
    }
    world.assert_ready();
    world.api.delete(TENANT);
    world.settle().await;
    let left = world.api.objects();
    assert_eq!(left.len(), before, "{left:#?}");
}

#[tokio::test]
async fn hosting_beyond_14_agents_and_permissions_that_an_admin_deletes_come_back_with_the_daily_audit() {
    let world = world(true).await;
    world.settle().await;
    let key = path::key("alpha");
    let deleted = [
        AGENTS,
        "/api/v1/namespaces/kube-system/serviceaccounts/konnectivity-agent",
        "/apis/rbac.authorization.k8s.io/v1/clusterrolebindings/system:konnectivity-server",
        "/apis/rbac.authorization.k8s.io/v1/namespaces/kube-system/roles/system:konnectivity-agent",
        "/apis/rbac.authorization.k8s.io/v1/namespaces/kube-system/rolebindings/system:konnectivity-agent",
    ];
    for path in deleted {
        world.tenant_api.delete(path);
    }
    world.wake();
    world.settle().await;
    assert!(world.tenant_api.get(AGENTS).is_none(), "nothing is asked before");
    world.context.set_audit(&key, Timestamp::now());
    world.api.requests();
    world.wake();
    world.settle().await;
    for path in deleted {
        assert!(world.tenant_api.get(path).is_some(), "{path}");
    }
    assert_eq!(world.api.requests(), Vec::<String>::new(), "nothing is reported");
}

#[tokio::test]
async fn a_change_of_the_mode_replaces_the_agents() {
    let world = world(true).await;
    world.settle().await;
    let mode = json!({ "spec": { "addons": { "konnectivity": { "agent": { "mode": "Deployment" } } } } });
    world.api.edit(TENANT, &mode);
    world.settle().await;
    world.assert_ready();
    assert!(world.tenant_api.get(AGENTS).is_none());
    let deployment = AGENTS.replace("daemonsets", "deployments");
    assert_eq!(world.tenant_api.get(&deployment).unwrap()["spec"]["replicas"], 2);
    assert_eq!(reported(&world)["agent"]["mode"], "Deployment");
    let deployment = world.api.get(DEPLOYMENT).unwrap();
    assert_eq!(deployment["metadata"]["generation"], 1, "the servers stay");
}

#[tokio::test]
async fn a_port_that_does_not_fit_is_reported_and_what_runs_goes_on() {
    let world = world(true).await;
    world.settle().await;
    let deployment = world.api.get(DEPLOYMENT);
    let port =
        |port: i32| json!({ "spec": { "addons": { "konnectivity": { "server": { "port": port } } } } });
    world.api.edit(TENANT, &port(9000));
    world.settle().await;
    let (status, reason, message) = world.condition(On::SpecValid);
    assert_eq!((status.as_str(), reason.as_str()), ("False", "PortConflict"));
    assert!(
        message.starts_with("spec.addons.konnectivity.server.port: 9000")
            && message.contains("spec.controlPlane.service.additionalPorts[0]"),
        "{message}"
    );
    assert_eq!(world.api.get(DEPLOYMENT), deployment);
    world.api.edit(TENANT, &port(8132));
    world.settle().await;
    world.assert_ready();
}

#[tokio::test]
async fn turning_it_off_closes_no_port_of_an_adopted_tenant() {
    let world = world(true).await;
    world.settle().await;
    // Upstream Kamaji keeps the names in status alone, and has no NetworkPolicy.
    let names = json!({ ours::SCHEMA: null, ours::USER: null });
    world
        .api
        .edit(TENANT, &json!({ "metadata": { "annotations": names } }));
    world.api.delete(POLICY);
    world.settle().await;
    assert!(world.api.get(POLICY).is_none());
    turn(&world, false);
    world.settle().await;
    world.assert_ready();
    assert_eq!(ports(&world).len(), 2, "the port of the agents is closed");
    assert!(world.api.get(POLICY).is_none());
}

#[tokio::test]
async fn the_port_of_a_former_endpoint_is_no_port_of_the_tunnel() {
    let world = world(true).await;
    world.settle().await;
    let service = world.api.get(SERVICE).unwrap()["spec"]["ports"].clone();
    let moved = json!({ ours::FORMER_ENDPOINTS: "10.0.0.7:7443" });
    let settings = json!({ "konnectivity": { "server": { "port": 7443 } } });
    world.api.edit(
        TENANT,
        &json!({ "metadata": { "annotations": moved }, "spec": { "addons": settings } }),
    );
    world.settle().await;
    let (status, reason, message) = world.condition(On::SpecValid);
    assert_eq!(
        (status.as_str(), reason.as_str()),
        ("False", "PortConflict"),
        "{message}"
    );
    assert_eq!(world.api.get(SERVICE).unwrap()["spec"]["ports"], service);
}
