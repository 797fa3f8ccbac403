//! Snapshots of the objects of a tenant, and what a user's settings change in them.

use std::collections::BTreeMap;

use kamaji_api::{labels::ours, service::ServiceType, tenantcontrolplane::TenantControlPlane};
use serde_json::{Value, json};

use super::{
    deployment, flags,
    inputs::Inputs,
    konnectivity, networkpolicy, pdb, secrets,
    service::{self, AgentsPort},
};
use crate::{
    hosting::{
        tenantcontrolplane::{component::GENERATED_CA, names::Names},
        testing::tenant as example,
    },
    k8s::manifest::Manifest,
    pki::spec::component,
};

const AGENTS: AgentsPort = AgentsPort {
    port: 8132,
    on_nodes: false,
};
const ON_NODES: AgentsPort = AgentsPort {
    port: 30132,
    on_nodes: true,
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
    snapshot(
        "service",
        &service::render(&tenant, ServiceType::ClusterIp, None).unwrap(),
    );
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
fn hosting_beyond_07_flags_and_dns_follow_families_domain_and_dns_addresses() {
    let lists = |text: &[&str]| text.iter().map(|text| (*text).to_owned()).collect::<Vec<_>>();
    for (services, pods, dns, domain, bind, resolver) in [
        (
            &["10.96.0.0/16"][..],
            &["10.244.0.0/16"][..],
            &[][..],
            "cluster.local",
            "0.0.0.0",
            &["10.96.0.10"][..],
        ),
        (
            &["10.96.0.0/16", "fd00:96::/112"],
            &["10.244.0.0/16", "fd00:244::/56"],
            &[],
            "cluster.local",
            "0.0.0.0",
            &["10.96.0.10", "fd00:96::a"],
        ),
        (
            &["fd00:96::/112", "10.96.0.0/16"],
            &["fd00:244::/56", "10.244.0.0/16"],
            &[],
            "cluster.local",
            "::",
            &["fd00:96::a", "10.96.0.10"],
        ),
        (
            &["fd00:96::/112"],
            &["fd00:244::/56"],
            &[],
            "cluster.local",
            "::",
            &["fd00:96::a"],
        ),
        (
            &["10.96.0.0/16"],
            &["10.244.0.0/16"],
            &["10.96.0.53"],
            "corp.example",
            "0.0.0.0",
            &["10.96.0.53"],
        ),
    ] {
        let mut tenant = example::tenant();
        let profile = &mut tenant.spec.network_profile;
        (profile.service_cidrs, profile.pod_cidrs) = (lists(services), lists(pods));
        (profile.dns_service_ips, profile.cluster_domain) = (lists(dns), domain.to_owned());
        let valid = example::valid(&tenant);
        let server = flags::api_server(&tenant, &valid, &example::storage(), None);
        let manager = flags::controller_manager(&tenant, &valid);
        let scheduler = flags::scheduler(&tenant, &valid);
        let has = |flags: &[String], flag: String| assert!(flags.contains(&flag), "{flag}: {flags:?}");
        has(
            &server,
            format!("--service-account-issuer=https://kubernetes.default.svc.{domain}"),
        );
        for flags in [&server, &manager] {
            has(
                flags,
                format!("--service-cluster-ip-range={}", services.join(",")),
            );
        }
        has(&manager, format!("--cluster-cidr={}", pods.join(",")));
        for flags in [&manager, &scheduler] {
            has(flags, format!("--bind-address={bind}"));
        }
        let found: Vec<String> = valid.network.dns.iter().map(ToString::to_string).collect();
        assert_eq!(found, resolver, "the addresses of kube-dns");
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
        &service::render(&tenant, ServiceType::ClusterIp, Some(AGENTS)).unwrap(),
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
    let service = service::render(&tenant, ServiceType::NodePort, Some(ON_NODES)).unwrap();
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
fn agents_of_a_former_node_port_keep_it_until_they_have_the_new_endpoint() {
    let mut tenant = example::tenant();
    let node_port = |tenant: &TenantControlPlane, agents: AgentsPort| {
        let service = service::render(tenant, ServiceType::ClusterIp, Some(agents)).unwrap();
        service.body()["spec"]["ports"][1]["nodePort"].as_i64()
    };
    tenant.spec.control_plane.service.service_type = ServiceType::NodePort;
    assert_eq!(node_port(&tenant, ON_NODES), None, "no endpoint needs it");

    let annotations = tenant.metadata.annotations.get_or_insert_default();
    annotations.insert(
        ours::FORMER_ENDPOINTS.to_owned(),
        "203.0.113.4:30002/NodePort".to_owned(),
    );
    assert_eq!(node_port(&tenant, ON_NODES), Some(30132));
    // The range of node ports is not known: a port that the Service has there is in it.
    assert_eq!(node_port(&tenant, AGENTS), None);

    tenant.spec.control_plane.service.service_type = ServiceType::ClusterIp;
    assert_eq!(
        node_port(&tenant, ON_NODES),
        None,
        "no port of this type is on the nodes"
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
fn a_former_port_is_served_and_leads_to_pods_before_and_after_the_move() {
    let mut tenant = example::tenant();
    tenant.spec.network_profile.port = 7443;
    let listed = "10.0.0.7:6443,192.0.2.1:7443,203.0.113.4:30002/NodePort,10.0.0.7:9000";
    let annotations = tenant.metadata.annotations.get_or_insert_default();
    annotations.insert(ours::FORMER_ENDPOINTS.to_owned(), listed.to_owned());
    tenant.spec.control_plane.service.service_type = ServiceType::NodePort;
    let metrics = json!({ "name": "metrics", "port": 9000, "targetPort": "metrics" });
    tenant.spec.control_plane.service.additional_ports = vec![serde_json::from_value(metrics).unwrap()];
    let ports = |tenant: &TenantControlPlane| {
        let service = service::render(tenant, ServiceType::NodePort, None)
            .unwrap()
            .body()
            .clone();
        let ports = service["spec"]["ports"].as_array().unwrap().clone();
        let shown = ports.iter().map(|port| {
            let number = |field: &str| port[field].as_i64();
            (
                number("port").unwrap(),
                number("nodePort"),
                port["targetPort"].clone(),
            )
        });
        shown.collect::<Vec<_>>()
    };
    let https = json!("https");
    assert_eq!(
        ports(&tenant),
        [
            (7443, Some(7443), https.clone()),
            (9000, None, json!("metrics")),
            (6443, None, https.clone()),
            (30002, Some(30002), https),
        ],
        "a port of the user comes before a former one"
    );
    let policy = networkpolicy::render(&tenant, None)
        .unwrap()
        .unwrap()
        .body()
        .to_string();
    assert!(policy.contains("6443") && policy.contains("30002"), "{policy}");
    // A container of the user has that name.
    let side = json!({ "name": "side", "ports": [{ "name": "https", "containerPort": 8443 }] });
    tenant.spec.control_plane.deployment.additional_containers = vec![side.into()];
    assert_eq!(ports(&tenant)[0].2, json!(7443));
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
