//! Snapshots of the objects of a tenant, and what a user's settings change in them.

use std::collections::BTreeMap;

use kamaji_api::tenantcontrolplane::TenantControlPlane;
use serde_json::{Value, json};

use super::{deployment, inputs::Inputs, konnectivity, networkpolicy, pdb, secrets, service};
use crate::{
    hosting::{
        tenantcontrolplane::{component::GENERATED_CA, names::Names},
        testing::tenant as example,
    },
    k8s::manifest::Manifest,
    pki::spec::component,
};

fn deployment_of(tenant: &TenantControlPlane) -> Value {
    let valid = example::valid(tenant);
    let hashes = BTreeMap::from([
        (component::CA, "ca-digest".to_owned()),
        (component::API_SERVER, "api-server-digest".to_owned()),
    ]);
    let inputs = Inputs {
        tenant,
        valid: &valid,
        storage: example::storage(),
        advertise: Some("10.0.0.7".parse().unwrap()),
        ca_secret: "alpha-ca",
        ca_keys: GENERATED_CA,
        hashes: &hashes,
        config_hash: "config-digest",
    };
    deployment::render(&inputs).unwrap().body().clone()
}

/// The object without the annotation that holds its digest.
fn shown(body: &Value) -> Value {
    let mut body = body.clone();
    if let Some(annotations) = body
        .pointer_mut("/metadata/annotations")
        .and_then(Value::as_object_mut)
    {
        annotations.remove(crate::k8s::digest::ANNOTATION);
    }
    body
}

fn snapshot(name: &str, manifest: &Manifest) {
    insta::assert_yaml_snapshot!(name, shown(manifest.body()));
}

#[test]
fn objects_of_a_default_tenant() {
    let tenant = example::tenant();
    let names = Names {
        schema: "schema".to_owned(),
        user: "user".to_owned(),
        adopted: false,
    };
    snapshot("service", &service::render(&tenant, None).unwrap());
    snapshot(
        "networkpolicy",
        &networkpolicy::render(&tenant, None).unwrap().unwrap(),
    );
    snapshot("pdb", &pdb::render(&tenant).unwrap().unwrap());
    snapshot(
        "datastore-config",
        &secrets::datastore_config(&tenant, &names).unwrap(),
    );
    insta::assert_yaml_snapshot!("deployment", shown(&deployment_of(&tenant)));
}

#[test]
fn hosting_beyond_06_only_kube_controller_manager_gets_the_private_key_of_the_ca() {
    let body = deployment_of(&example::tenant());
    let pod = &body["spec"]["template"]["spec"];
    let with_key: Vec<&str> = pod["volumes"]
        .as_array()
        .unwrap()
        .iter()
        .filter(|volume| {
            let items = volume.to_string();
            items.contains("\"tls.key\"") || items.contains("ca.key\"")
        })
        .filter_map(|volume| volume["name"].as_str())
        .collect();
    assert_eq!(with_key, ["kube-controller-manager"]);
    for container in pod["containers"].as_array().unwrap() {
        let mounts = container["volumeMounts"].as_array().unwrap();
        assert_eq!(mounts.len(), 1, "one volume for each container");
        assert_eq!(mounts[0]["name"], container["name"]);
    }
}

#[test]
fn one_replica_needs_no_budget() {
    let mut tenant = example::tenant();
    tenant.spec.control_plane.deployment.replicas = 1;
    assert!(pdb::render(&tenant).unwrap().is_none());
}

#[test]
fn objects_with_konnectivity() {
    let tenant = example::with(&json!({ "addons": { "konnectivity": {} } }));
    snapshot(
        "konnectivity-service",
        &service::render(&tenant, Some(8132)).unwrap(),
    );
    snapshot("konnectivity-egress", &konnectivity::egress(&tenant).unwrap());
    snapshot(
        "konnectivity-kubeconfig",
        &konnectivity::kubeconfig(&tenant).unwrap(),
    );
    insta::assert_yaml_snapshot!("konnectivity-deployment", shown(&deployment_of(&tenant)));
    let one = example::with(&json!({
        "addons": { "konnectivity": {} }, "controlPlane": { "deployment": { "replicas": 1 } },
    }));
    insta::assert_yaml_snapshot!("konnectivity-deployment-single", shown(&deployment_of(&one)));
}

/// The container of the konnectivity server.
fn server(body: &Value) -> Value {
    let containers = body["spec"]["template"]["spec"]["containers"].as_array().unwrap();
    containers.last().unwrap().clone()
}

#[test]
fn hosting_beyond_06_the_konnectivity_server_has_the_serving_pair_and_no_key_that_signs() {
    let tenant = example::with(&json!({ "addons": { "konnectivity": {} } }));
    let body = deployment_of(&tenant);
    let volumes = body["spec"]["template"]["spec"]["volumes"].as_array().unwrap();
    let own = volumes
        .iter()
        .find(|volume| volume["name"] == "konnectivity-server")
        .unwrap();
    let sources = own["projected"]["sources"].as_array().unwrap();
    let keys: Vec<&str> = sources
        .iter()
        .flat_map(|source| source["secret"]["items"].as_array().unwrap())
        .filter_map(|item| item["path"].as_str())
        .collect();
    assert_eq!(
        keys,
        [
            "ca.crt",
            "apiserver.crt",
            "apiserver.key",
            "konnectivity-server.crt",
            "konnectivity-server.key",
            "konnectivity-server.conf"
        ]
    );
    let server = server(&body);
    let mounts: Vec<&str> = server["volumeMounts"]
        .as_array()
        .unwrap()
        .iter()
        .filter_map(|mount| mount["name"].as_str())
        .collect();
    assert_eq!(mounts, ["konnectivity-server", "konnectivity-uds"]);
    assert_eq!(server["readinessProbe"]["httpGet"]["path"], "/healthz");
}

#[test]
fn the_users_settings_of_the_konnectivity_server_have_an_effect_and_owned_flags_stay() {
    let tenant = example::with(&json!({ "addons": { "konnectivity": { "server": {
        "port": 30132, "image": "mirror.example.org/server", "version": "v0.34.0",
        "resources": { "requests": { "cpu": "50m" } }, "securityContext": { "runAsUser": 7 },
        "extraArgs": ["--keepalive-time=1m", "--agent_port=1", "--v=4"],
    } } } }));
    let server = server(&deployment_of(&tenant));
    assert_eq!(server["image"], "mirror.example.org/server:v0.34.0");
    assert_eq!(server["resources"]["requests"]["cpu"], "50m");
    assert_eq!(server["securityContext"]["runAsUser"], 7);
    assert_eq!(server["securityContext"]["readOnlyRootFilesystem"], true);
    let args = server["args"].as_array().unwrap();
    for expected in ["--agent-port=30132", "--keepalive-time=1m", "--v=4"] {
        assert!(args.contains(&json!(expected)), "{expected}: {args:?}");
    }
    for dropped in ["--keepalive-time=10s", "--agent_port=1"] {
        assert!(!args.contains(&json!(dropped)), "{dropped}: {args:?}");
    }
    assert_eq!(
        konnectivity::ignored(&tenant),
        ["spec.addons.konnectivity.server.extraArgs (the engine sets --agent-port itself)"]
    );
}

#[test]
fn a_node_port_of_konnectivity_is_its_port_and_comes_before_the_additional_ones() {
    let tenant = example::with(&json!({ "controlPlane": { "service": {
        "serviceType": "NodePort", "additionalPorts": [{ "name": "first", "port": 1, "targetPort": 2 }],
    } } }));
    let service = service::render(&tenant, Some(30132)).unwrap();
    let ports: Vec<(&str, Option<i64>)> = service.body()["spec"]["ports"]
        .as_array()
        .unwrap()
        .iter()
        .map(|port| (port["name"].as_str().unwrap(), port["nodePort"].as_i64()))
        .collect();
    assert_eq!(
        ports,
        [
            ("kube-apiserver", Some(6443)),
            ("konnectivity-server", Some(30132)),
            ("first", None)
        ]
    );
}

#[test]
fn hosting_peer_12_13_14_the_users_fields_are_merged_over_the_engines() {
    let mut tenant = example::tenant();
    let user = &mut tenant.spec.control_plane.deployment;
    user.pod_additional_metadata.labels = [("team".to_owned(), "blue".to_owned())].into();
    user.strategy = json!({ "type": "Recreate" }).into();
    user.pod_security_context = Some(json!({ "fsGroup": 7, "someNewField": true }).into());
    user.container_security_contexts.scheduler = Some(json!({ "runAsUser": 1000 }).into());
    user.resources.api_server = Some(json!({ "requests": { "cpu": "1" } }).into());
    user.additional_containers = vec![json!({ "name": "side", "image": "x" }).into()];
    user.additional_volumes = vec![json!({ "name": "mine", "emptyDir": {} }).into()];
    user.additional_volume_mounts.api_server = vec![json!({ "name": "mine", "mountPath": "/mine" }).into()];
    user.topology_spread_constraints = vec![json!({ "maxSkew": 2, "topologyKey": "zone" }).into()];
    let body = deployment_of(&tenant);
    assert_eq!(body["spec"]["strategy"], json!({ "type": "Recreate" }));
    let pod = &body["spec"]["template"]["spec"];
    assert_eq!(body["spec"]["template"]["metadata"]["labels"]["team"], "blue");
    assert_eq!(pod["securityContext"]["fsGroup"], 7);
    assert_eq!(pod["securityContext"]["someNewField"], true);
    assert_eq!(
        pod["securityContext"]["runAsNonRoot"], true,
        "the other fields of the engine stay"
    );
    let names: Vec<&str> = pod["containers"]
        .as_array()
        .unwrap()
        .iter()
        .filter_map(|container| container["name"].as_str())
        .collect();
    assert_eq!(
        names,
        [
            "side",
            "kube-apiserver",
            "kube-scheduler",
            "kube-controller-manager"
        ]
    );
    assert_eq!(pod["containers"][1]["resources"]["requests"]["cpu"], "1");
    assert_eq!(pod["containers"][1]["volumeMounts"][0]["mountPath"], "/mine");
    assert_eq!(pod["containers"][2]["securityContext"]["runAsUser"], 1000);
    assert_eq!(
        pod["containers"][2]["securityContext"]["allowPrivilegeEscalation"],
        false
    );
    assert_eq!(pod["volumes"][0]["name"], "mine");
    assert_eq!(
        pod["topologySpreadConstraints"][0]["labelSelector"]["matchLabels"],
        json!({ "kamaji.clastix.io/name": "alpha" })
    );
}

#[test]
fn scaling_replaces_no_pod() {
    let template = |tenant: &TenantControlPlane| deployment_of(tenant)["spec"]["template"].clone();
    let konnectivity = json!({ "addons": { "konnectivity": {} } });
    for tenant in [example::tenant(), example::with(&konnectivity)] {
        let before = template(&tenant);
        for replicas in [0, 1, 3] {
            let mut scaled = tenant.clone();
            scaled.spec.control_plane.deployment.replicas = replicas;
            assert_eq!(before, template(&scaled), "{replicas} replicas");
        }
    }
    // Servers of this version are counted by a flag.
    let old = json!({ "addons": { "konnectivity": { "server": { "port": 8132, "version": "v0.31.4" } } } });
    let args = server(&deployment_of(&example::with(&old)))["args"].clone();
    assert!(
        args.as_array().unwrap().contains(&json!("--server-count=2")),
        "{args}"
    );
}
