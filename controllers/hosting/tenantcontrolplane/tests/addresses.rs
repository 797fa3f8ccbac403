//! Addresses of a running tenant that change. Whatever is written, and wherever the process dies: what a kubeconfig or a
//! published endpoint names, the certificate in every pod names too, and the Service has its port.

use std::collections::{BTreeMap, BTreeSet};

use kamaji_api::{
    conditions::TenantControlPlaneCondition as On,
    labels::{field_manager, kamaji, ours},
    service::ServiceType,
};
use serde_json::{Value, json};
use x509_parser::prelude::{FromDer as _, GeneralName, X509Certificate};

use super::{DEPLOYMENT, SERVICE, TENANT, World};
use crate::{
    hosting::testing::writes,
    k8s::host_port::HostPort,
    pki::{kubeconfig::Kubeconfig, spec::component},
    testing::{Change, path},
};

/// Address that nodes of the management cluster have.
const NODE: &str = "203.0.113.4";
/// First address of the load balancer.
const BALANCED: &str = "192.0.2.9";
/// Its address later.
const BALANCED_LATER: &str = "192.0.2.8";
/// Address of the Service.
const INSIDE: &str = "10.0.0.7";

/// Follows what is written, and checks it.
#[derive(Default)]
pub struct Watcher {
    /// Names in the certificates so far, by the digest that pods carry.
    certificates: BTreeMap<String, BTreeSet<String>>,
    /// The certificate that the Secret holds.
    current: BTreeSet<String>,
    /// Names that the certificate of every pod has; none while there are no pods.
    served: Option<BTreeSet<String>>,
    /// Ports on which pods listen.
    listening: BTreeSet<i64>,
    /// Ports of kube-apiserver, as the Service has them.
    ports: Vec<Value>,
    /// Cluster IP of the Service.
    cluster_ip: Option<String>,
}

impl Watcher {
    /// Checks the object of a change.
    pub fn see(&mut self, change: &Change) {
        let is_ours = change.label(ours::MANAGED_BY) == field_manager::HOSTING;
        if change.gone || !(is_ours || change.kind() == "TenantControlPlane") {
            return;
        }
        let object = &change.object;
        let name = object["metadata"]["name"].as_str().unwrap();
        match (change.kind(), name) {
            ("Secret", "alpha-api-server-certificate") => {
                let hash = &object["metadata"]["annotations"][ours::CONTENT_HASH];
                // What is there may be the foreign edit of a test.
                if let (Some(names), Some(hash)) =
                    (names(&bytes(&object["data"]["apiserver.crt"])), hash.as_str())
                {
                    self.certificates.insert(hash.to_owned(), names.clone());
                    self.current = names;
                }
            }
            ("Secret", "alpha-admin-kubeconfig" | "alpha-bootstrap-kubeconfig") => {
                for data in object["data"].as_object().unwrap().values() {
                    self.check_kubeconfig(name, &bytes(data));
                }
            }
            ("TenantControlPlane", _) => {
                for field in ["controlPlaneEndpoint", "workerEndpoint"] {
                    if let Some(text) = object["status"][field].as_str() {
                        self.check(field, &HostPort::parse(text).unwrap());
                    }
                }
            }
            ("Deployment", _) => self.see_pods(object),
            ("Service", _) => self.see_service(object),
            _ => {}
        }
    }

    fn see_pods(&mut self, deployment: &Value) {
        let template = &deployment["spec"]["template"];
        let label = format!("{}{}", kamaji::COMPONENT_DIGEST_PREFIX, component::API_SERVER);
        let hash = template["metadata"]["labels"][label].as_str().unwrap();
        let containers = template["spec"]["containers"].as_array().unwrap();
        let server = containers
            .iter()
            .find(|container| container["name"] == "kube-apiserver");
        let port = server.unwrap()["ports"][0]["containerPort"].as_i64().unwrap();
        let status = &deployment["status"];
        if status["observedGeneration"] == deployment["metadata"]["generation"] {
            self.listening = [port].into();
            self.served = self.certificates.get(hash).cloned();
        } else {
            self.listening.insert(port);
        }
        self.check_ports();
    }

    fn see_service(&mut self, service: &Value) {
        let spec = &service["spec"];
        let ports = spec["ports"].as_array().unwrap().iter();
        let ports = ports.filter(|port| port["name"].as_str().unwrap().starts_with("kube-apiserver"));
        self.ports = ports.cloned().collect();
        if let Some(now) = spec["clusterIP"].as_str() {
            assert_eq!(
                self.cluster_ip.get_or_insert_with(|| now.to_owned()),
                now,
                "it is kept"
            );
        }
        self.check_ports();
    }

    /// Every port of the Service leads to every pod.
    fn check_ports(&self) {
        for port in &self.ports {
            let target = &port["targetPort"];
            let leads = |listening: &i64| *target == json!("https") || target.as_i64() == Some(*listening);
            assert!(
                self.listening.iter().all(leads),
                "{port}, and pods listen on {:?}",
                self.listening
            );
        }
    }

    fn check_kubeconfig(&self, what: &str, text: &[u8]) {
        let Ok(Kubeconfig { server, .. }) = Kubeconfig::parse(text) else {
            return;
        };
        let endpoint = server.strip_prefix("https://").unwrap();
        self.check(what, &HostPort::parse(endpoint).unwrap());
    }

    /// What names this endpoint can use it.
    fn check(&self, what: &str, endpoint: &HostPort) {
        for names in [Some(&self.current), self.served.as_ref()].into_iter().flatten() {
            assert!(
                names.contains(&endpoint.host),
                "{what} names {}, and the certificate {names:?}",
                endpoint.host
            );
        }
        let serves = |port: &Value| {
            let on_nodes = endpoint.host != NODE || port["nodePort"] == endpoint.port;
            port["port"] == endpoint.port && on_nodes
        };
        assert!(
            self.ports.iter().any(serves),
            "{what} names {endpoint}, and the Service has {:?}",
            self.ports
        );
    }

    /// kube-proxy in the workload cluster can reach the API server.
    pub fn see_workload_cluster(&self, kube_proxy: Option<Value>) {
        let Some(config) = kube_proxy else { return };
        let text = config["data"]["kubeconfig.conf"].as_str().unwrap();
        let document: Value = serde_yaml::from_str(text).unwrap();
        let server = document["clusters"][0]["cluster"]["server"].as_str().unwrap();
        let endpoint = HostPort::parse(server.strip_prefix("https://").unwrap()).unwrap();
        self.check("kube-proxy", &endpoint);
    }
}

fn bytes(data: &Value) -> Vec<u8> {
    let data: Option<k8s_openapi::ByteString> = serde_json::from_value(data.clone()).unwrap();
    data.map(|data| data.0).unwrap_or_default()
}

/// DNS names and addresses of a certificate.
fn names(pem: &[u8]) -> Option<BTreeSet<String>> {
    let (_, pem) = x509_parser::pem::parse_x509_pem(pem).ok()?;
    let (_, certificate) = X509Certificate::from_der(&pem.contents).unwrap();
    let names = certificate.subject_alternative_name().unwrap().unwrap();
    let names = names.value.general_names.iter().filter_map(|name| match name {
        GeneralName::DNSName(name) => Some((*name).to_owned()),
        GeneralName::IPAddress(bytes) => match <[u8; 4]>::try_from(*bytes) {
            Ok(four) => Some(std::net::IpAddr::from(four).to_string()),
            Err(_) => Some(std::net::IpAddr::from(<[u8; 16]>::try_from(*bytes).unwrap()).to_string()),
        },
        _ => None,
    });
    Some(names.collect())
}

/// The spec of a Service of this type, and the endpoint that it gives.
fn exposed(service_type: ServiceType) -> (Value, String) {
    let (port, address, host) = match service_type {
        ServiceType::ClusterIp => (6443, None, INSIDE),
        ServiceType::NodePort => (30002, Some(NODE), NODE),
        ServiceType::LoadBalancer => (443, None, BALANCED),
    };
    let spec = json!({
        "controlPlane": { "service": { "serviceType": service_type.as_str() } },
        "networkProfile": { "port": port, "address": address },
    });
    (spec, format!("{host}:{port}"))
}

impl World {
    /// A ready tenant with kube-proxy and a Service of this type.
    async fn at(service_type: ServiceType) -> Self {
        let world = Self::new().await;
        let (mut spec, endpoint) = exposed(service_type);
        spec["addons"] = json!({ "kubeProxy": {} });
        world.api.edit(TENANT, &json!({ "spec": spec }));
        world.settle().await;
        if service_type == ServiceType::LoadBalancer {
            world.balance(BALANCED);
            world.settle().await;
        }
        world.assert_ready();
        assert_eq!(world.endpoint(), endpoint);
        world
    }

    /// The load balancer gets this address.
    fn balance(&self, address: &str) {
        let ingress = match address.parse::<std::net::IpAddr>() {
            Ok(_) => json!([{ "ip": address }]),
            Err(_) => json!([{ "hostname": address }]),
        };
        let status = json!({ "status": { "loadBalancer": { "ingress": ingress } } });
        self.api.edit(SERVICE, &status);
    }

    /// Edits the spec, and permits the move to this endpoint.
    fn move_to(&self, spec: &Value, endpoint: &str) {
        let annotations = json!({ ours::MOVE_ENDPOINT: endpoint });
        let edit = json!({ "metadata": { "annotations": annotations }, "spec": spec });
        self.api.edit(TENANT, &edit);
    }

    /// Takes all former endpoints from the list.
    fn release(&self) {
        let annotations = json!({ ours::FORMER_ENDPOINTS: null });
        self.api
            .edit(TENANT, &json!({ "metadata": { "annotations": annotations } }));
    }

    /// The endpoint that the status reports.
    fn endpoint(&self) -> String {
        self.tenant().status.unwrap().control_plane_endpoint.unwrap()
    }

    /// The endpoint for nodes that the status reports.
    fn nodes(&self) -> String {
        self.tenant().status.unwrap().worker_endpoint.unwrap()
    }

    fn former(&self) -> String {
        let annotations = self.tenant().metadata.annotations.unwrap();
        annotations
            .get(ours::FORMER_ENDPOINTS)
            .cloned()
            .unwrap_or_default()
    }

    /// `server` of a kubeconfig of the admin.
    fn server(&self, file: &str) -> String {
        let secret = self.api.get(&path::secret("alpha-admin-kubeconfig")).unwrap();
        Kubeconfig::parse(&bytes(&secret["data"][file])).unwrap().server
    }

    /// Names in the certificate.
    fn names(&self) -> BTreeSet<String> {
        let secret = self
            .api
            .get(&path::secret("alpha-api-server-certificate"))
            .unwrap();
        names(&bytes(&secret["data"]["apiserver.crt"])).unwrap()
    }

    /// `server` of kube-proxy's kubeconfig.
    fn kube_proxy(&self) -> String {
        let config = self.tenant_api.get(KUBE_PROXY).unwrap();
        config["data"]["kubeconfig.conf"].as_str().unwrap().to_owned()
    }

    fn service(&self) -> Value {
        self.api.get(SERVICE).unwrap()["spec"].clone()
    }

    /// It is ready at this endpoint, and everything names it.
    fn assert_at(&self, endpoint: &str) {
        self.assert_ready();
        assert_eq!(self.endpoint(), endpoint);
        assert_eq!(self.server("admin.conf"), format!("https://{endpoint}"));
        assert!(
            self.kube_proxy()
                .contains(&format!("server: https://{}", self.nodes())),
            "{}",
            self.kube_proxy()
        );
    }
}

pub const KUBE_PROXY: &str = "/api/v1/namespaces/kube-system/configmaps/kube-proxy";

#[tokio::test]
async fn hosting_peer_30_a_changed_node_port_reaches_status_and_kubeconfig_and_the_former_ones_are_served() {
    let world = World::at(ServiceType::NodePort).await;
    let mut former = Vec::new();
    for (before, port) in [(30002, 30003), (30003, 30004)] {
        let endpoint = format!("{NODE}:{port}");
        world.move_to(&json!({ "networkProfile": { "port": port } }), &endpoint);
        world.settle().await;
        world.assert_at(&endpoint);
        former.push(before);
        let served: Vec<_> = world.service()["ports"].as_array().unwrap().clone();
        assert_eq!(served[0]["nodePort"], port);
        let others: Vec<_> = served[1..].iter().map(|port| port["nodePort"].clone()).collect();
        assert_eq!(json!(others), json!(former), "nodes that joined before go on");
        assert_eq!(
            world.condition(On::FormerEndpointsServed).0,
            "Unknown",
            "who routes to the node?"
        );
    }
    world.release();
    world.settle().await;
    world.assert_at(&format!("{NODE}:30004"));
    let ports = &world.service()["ports"];
    assert_eq!(ports.as_array().unwrap().len(), 1);
    assert_eq!(ports[0]["targetPort"], 30004);
    let status = world.tenant().status.unwrap();
    let on = On::FormerEndpointsServed.as_str();
    assert!(status.conditions.iter().all(|known| known.type_ != on));
}

#[tokio::test]
async fn hosting_beyond_08_the_service_type_changes_in_every_direction() {
    for from in ServiceType::ALL {
        for to in ServiceType::ALL {
            if from == to {
                continue;
            }
            let case = format!("{from:?} to {to:?}");
            let world = World::at(from).await;
            let (_, before) = exposed(from);
            let (spec, endpoint) = exposed(to);
            let service = world.service();
            world.api.edit(TENANT, &json!({ "spec": spec }));
            world.settle().await;
            if to == ServiceType::LoadBalancer {
                // It shows its address first.
                assert_eq!(world.service()["type"], "LoadBalancer", "{case}");
                world.balance(BALANCED);
                world.settle().await;
            } else {
                assert_eq!(world.service(), service, "{case}: nothing is taken away");
            }
            assert_eq!(world.endpoint(), before, "{case}");
            let (status, reason, message) = world.condition(On::EndpointReady);
            assert_eq!(
                (status.as_str(), reason.as_str()),
                ("False", "EndpointChanged"),
                "{case}"
            );
            assert!(
                message.contains(&format!("move-endpoint to {endpoint}")),
                "{message}"
            );
            world.move_to(&json!({}), &endpoint);
            world.settle().await;
            world.assert_at(&endpoint);
            assert_eq!(world.service()["type"], from.wider(to).as_str(), "{case}");
            assert!(
                world
                    .names()
                    .contains(HostPort::parse(&before).unwrap().host.as_str())
            );
            world.release();
            world.settle().await;
            world.assert_at(&endpoint);
            assert_eq!(world.service()["type"], to.as_str(), "{case}");
            assert_eq!(world.service()["clusterIP"], INSIDE, "{case}");
        }
    }
}

#[tokio::test]
async fn a_load_balancer_that_is_kept_stays_as_closed_as_it_was() {
    let world = World::at(ServiceType::LoadBalancer).await;
    let closed = |spec: Value, annotations: Value| {
        json!({
            "networkProfile": spec,
            "controlPlane": { "service": { "additionalMetadata": { "annotations": annotations } } },
        })
    };
    let settings =
        json!({ "loadBalancerSourceRanges": ["192.0.2.0/24"], "loadBalancerClass": "example.org/a" });
    let spec = closed(settings, json!({ "cloud.example/internal": "true" }));
    world.api.edit(TENANT, &json!({ "spec": spec }));
    world.settle().await;
    world.assert_ready();
    let before = world.api.get(SERVICE).unwrap();
    let mut spec = closed(
        json!({ "loadBalancerSourceRanges": null, "loadBalancerClass": null, "port": 6443 }),
        json!({ "cloud.example/internal": null }),
    );
    spec["controlPlane"]["service"]["serviceType"] = json!("ClusterIP");
    for permitted in [false, true] {
        if permitted {
            world.move_to(&json!({}), &format!("{INSIDE}:6443"));
        } else {
            world.api.edit(TENANT, &json!({ "spec": spec }));
        }
        world.settle().await;
        let after = world.api.get(SERVICE).unwrap();
        for field in ["type", "loadBalancerSourceRanges", "loadBalancerClass"] {
            assert_eq!(after["spec"][field], before["spec"][field], "{permitted}");
        }
        assert_eq!(after["metadata"]["annotations"]["cloud.example/internal"], "true");
    }
    world.release();
    world.settle().await;
    world.assert_at(&format!("{INSIDE}:6443"));
    let after = world.api.get(SERVICE).unwrap();
    assert_eq!(after["spec"]["type"], "ClusterIP");
    assert!(after["spec"].get("loadBalancerClass").is_none());
    assert!(
        after["metadata"]["annotations"]
            .get("cloud.example/internal")
            .is_none()
    );
}

#[tokio::test]
async fn an_edit_while_paused_takes_no_load_balancer_of_an_earlier_release_away() {
    let mut world = World::at(ServiceType::LoadBalancer).await;
    let service = world.service();
    let (mut edit, _) = exposed(ServiceType::ClusterIp);
    edit["networkProfile"]["port"] = json!(443);
    // Releases before this one did not record what is published.
    let paused = json!({ kamaji::PAUSED: "true", ours::PUBLISHED_ENDPOINT: null });
    let edit = json!({ "metadata": { "annotations": paused }, "spec": edit });
    world.api.edit(TENANT, &edit);
    world.restart().await;
    world.settle().await;
    let goes_on = json!({ "metadata": { "annotations": { kamaji::PAUSED: null } } });
    world.api.edit(TENANT, &goes_on);
    world.settle().await;
    assert_eq!(world.service(), service);
    assert_eq!(world.endpoint(), format!("{BALANCED}:443"));
    let (status, reason, message) = world.condition(On::EndpointReady);
    assert_eq!((status.as_str(), reason.as_str()), ("False", "EndpointChanged"));
    assert!(message.contains("serviceType changed"), "{message}");
}

#[tokio::test]
async fn an_additional_port_does_not_take_the_place_of_the_port_in_effect() {
    let world = World::at(ServiceType::ClusterIp).await;
    let mine = json!({ "name": "mine", "port": 6443, "targetPort": 9000 });
    let spec = json!({
        "networkProfile": { "port": 7443 },
        "controlPlane": { "service": { "additionalPorts": [mine] } },
    });
    let service = world.service();
    world.api.edit(TENANT, &json!({ "spec": spec }));
    world.settle().await;
    assert_eq!(world.service(), service, "6443/TCP is there once");
    let (_, reason, message) = world.condition(On::EndpointReady);
    assert_eq!(reason, "EndpointChanged");
    assert!(
        message.contains("until then mine of spec.controlPlane.service.additionalPorts is left out"),
        "{message}"
    );
}

#[tokio::test]
async fn hosting_beyond_09_addresses_reach_kubeconfigs_and_certificates() {
    let world = World::at(ServiceType::LoadBalancer).await;
    // The load balancer gets another address.
    world.balance(BALANCED_LATER);
    world.settle().await;
    assert_eq!(world.endpoint(), format!("{BALANCED}:443"));
    assert_eq!(world.condition(On::EndpointReady).1, "EndpointChanged");
    world.move_to(&json!({}), &format!("{BALANCED_LATER}:443"));
    world.settle().await;
    world.assert_at(&format!("{BALANCED_LATER}:443"));
    assert!(world.names().contains(BALANCED), "for nodes that joined before");
    assert_eq!(world.former(), format!("{BALANCED}:443/LoadBalancer"));
    assert_eq!(world.condition(On::FormerEndpointsServed).0, "Unknown");

    // Nodes get an address of their own, then another one.
    for advertised in ["198.51.100.1", "198.51.100.2"] {
        let spec = json!({ "networkProfile": { "advertiseAddress": advertised } });
        world.api.edit(TENANT, &json!({ "spec": spec }));
        world.settle().await;
        world.assert_at(&format!("{BALANCED_LATER}:443"));
        assert_eq!(world.nodes(), format!("{advertised}:443"));
        let deployment = world.api.get(DEPLOYMENT).unwrap().to_string();
        assert!(deployment.contains(&format!("--advertise-address={advertised}")));
    }
    assert!(world.names().contains("198.51.100.1"));
    assert!(
        world.former().contains("198.51.100.1:443/LoadBalancer"),
        "{}",
        world.former()
    );

    // A name, in the certificate and as the address.
    let spec = json!({ "networkProfile": { "certSANs": ["api.example.org"] } });
    world.api.edit(TENANT, &json!({ "spec": spec }));
    world.settle().await;
    assert!(world.names().contains("api.example.org"));
    world.balance("lb.example.org");
    world.move_to(&json!({}), "lb.example.org:443");
    world.settle().await;
    world.assert_at("lb.example.org:443");
    assert_eq!(world.nodes(), "198.51.100.2:443");
}

#[tokio::test]
async fn a_move_that_is_given_up_leaves_everything_where_it_was() {
    let world = World::at(ServiceType::ClusterIp).await;
    let port = |port: i32| json!({ "networkProfile": { "port": port } });
    world.move_to(&port(7443), &format!("{INSIDE}:7443"));
    // The pods are being replaced.
    world.fold_and_reconcile().await;
    let ports = world.service()["ports"].clone();
    assert_eq!(
        (&ports[0]["port"], &ports[1]["port"]),
        (&json!(7443), &json!(6443))
    );
    assert_eq!(world.endpoint(), format!("{INSIDE}:6443"));
    assert_eq!(world.condition(On::EndpointReady).1, "EndpointMoving");
    world.move_to(&port(6443), "");
    world.settle().await;
    world.assert_at(&format!("{INSIDE}:6443"));
    world.release();
    world.settle().await;
    let ports = world.service()["ports"].clone();
    assert_eq!(
        ports,
        json!([{
            "name": "kube-apiserver", "port": 6443, "protocol": "TCP", "targetPort": 6443,
        }])
    );
}

#[tokio::test]
async fn hosting_beyond_10_a_move_that_is_cut_anywhere_converges() {
    let spec = json!({ "networkProfile": {
        "port": 7443, "advertiseAddress": "198.51.100.1", "certSANs": ["api.example.org"],
    } });
    let endpoint = format!("{INSIDE}:7443");
    let reference = World::at(ServiceType::ClusterIp).await;
    reference.api.requests();
    reference.move_to(&spec, &endpoint);
    reference.settle().await;
    reference.assert_at(&endpoint);
    let total = writes(&reference.api.requests()).len();
    for lives in 0..total {
        let mut world = World::at(ServiceType::ClusterIp).await;
        world.move_to(&spec, &endpoint);
        world.api.die_after(Some(lives));
        for _ in 0..6 {
            world.round().await;
        }
        world.api.die_after(None);
        world.restart().await;
        world.settle().await;
        world.assert_at(&endpoint);
        assert_eq!(world.former(), reference.former(), "after {lives} writes");
        assert_eq!(world.nodes(), "198.51.100.1:7443");
        assert_eq!(world.service(), reference.service(), "after {lives} writes");
        world.api.requests();
        world.restart().await;
        world.settle().await;
        let requests = world.api.requests();
        assert_eq!(
            writes(&requests),
            Vec::<&String>::new(),
            "it is quiet after {lives} writes"
        );
    }
}

#[tokio::test]
async fn what_is_published_survives_the_loss_of_the_status() {
    let mut world = World::at(ServiceType::ClusterIp).await;
    let spec = json!({ "networkProfile": { "port": 7443 } });
    world.api.edit(TENANT, &json!({ "spec": spec, "status": null }));
    world.restart().await;
    world.settle().await;
    assert_eq!(world.endpoint(), format!("{INSIDE}:6443"));
    assert_eq!(world.condition(On::EndpointReady).1, "EndpointChanged");
}
