//! The world of the convergence tests: the controller, an API server in memory, and the parts that the test plays.

use std::sync::Arc;

use futures::future::FutureExt as _;
use k8s_openapi::api::core::v1::Secret;
use kamaji_api::{
    controlplane::{KamajiControlPlane, KamajiControlPlaneStatus},
    labels::{capi, kamaji, ours},
    tenantcontrolplane::{CertificatesStatus, SecretStatus, TenantControlPlane},
};
use kube::{ResourceExt, api::PartialObjectMeta};
use parking_lot::Mutex;
use serde_json::{Value, json};

use crate::{
    capi::{machine::Machine, machine_pool::MachinePool, quirks},
    k8s::{conditions, error::Class},
    kamajicontrolplane::{Context, example, handoff::Infrastructure, reach::Ask, reconcile::reconcile},
    pki::{kubeconfig::Kubeconfig, material::PrivateKeyPem, spec::component},
    runtime::driver::Failure,
    settings::Hosting,
    tenant::who_answers::Answer,
    testing::{Change, FakeApi, path},
};

pub const CONTROL_PLANE: &str =
    "/apis/controlplane.cluster.x-k8s.io/v1alpha2/namespaces/demo/kamajicontrolplanes/alpha";
pub const TENANT: &str = "/apis/kamaji.clastix.io/v1alpha1/namespaces/demo/tenantcontrolplanes/alpha";

/// The controller, the API server, and what the test plays.
pub struct World {
    pub api: FakeApi,
    pub context: Arc<Context>,
    /// The engine is played.
    pub engine: bool,
    /// Whose engine it is.
    pub hosting: Hosting,
    /// Address that the engine reports for a tenant.
    pub address: &'static str,
    /// Where endpoints lead.
    pub network: Arc<Mutex<Network>>,
    /// Nothing is handed over to infrastructure objects.
    pub skip_infrastructure: bool,
}

/// What the controller finds out about endpoints.
pub struct Network {
    /// Who answers at every endpoint.
    pub answer: Answer,
    /// The URLs that were asked for.
    pub asked: Vec<String>,
}

impl World {
    /// A Cluster and its control plane, nothing reconciled.
    pub fn new() -> Self {
        Self::of("alpha", Hosting::Embedded)
    }

    /// The control plane `alpha` of a Cluster of any name.
    pub fn of(cluster: &str, hosting: Hosting) -> Self {
        let api = FakeApi::default();
        let value = |object: Value, kind: &str, version: &str| {
            let mut object = object;
            object["kind"] = json!(kind);
            object["apiVersion"] = json!(version);
            object
        };
        let mut object = value(
            serde_json::to_value(example::cluster()).unwrap(),
            "Cluster",
            "cluster.x-k8s.io/v1beta2",
        );
        object["metadata"]["name"] = json!(cluster);
        api.edit(&path::cluster(cluster), &object);
        let mut object = value(
            serde_json::to_value(example::control_plane()).unwrap(),
            "KamajiControlPlane",
            "controlplane.cluster.x-k8s.io/v1alpha2",
        );
        object["metadata"]["labels"][capi::CLUSTER_NAME] = json!(cluster);
        object["metadata"]["ownerReferences"][0]["name"] = json!(cluster);
        api.edit(CONTROL_PLANE, &object);
        let network = Arc::new(Mutex::new(Network {
            answer: Answer::Ours,
            asked: Vec::new(),
        }));
        let context = fresh(&api, hosting, &network, false);
        Self {
            api,
            context,
            engine: true,
            hosting,
            address: "192.0.2.1:6443",
            network,
            skip_infrastructure: false,
        }
    }

    /// A new process: everything is listed again.
    pub fn restart(&mut self) {
        self.api.changes();
        self.context = fresh(&self.api, self.hosting, &self.network, self.skip_infrastructure);
        for object in self.api.objects() {
            fold(&self.context, &Change::listed(object));
        }
    }

    /// Folds the changes, plays the engine, reconciles what is due. Returns whether anything happened.
    pub async fn round(&mut self) -> Result<bool, Failure> {
        let changes = self.api.changes();
        for change in &changes {
            fold(&self.context, change);
        }
        if self.engine {
            play_engine(&self.api, self.hosting, self.address);
        }
        let mut worked = !changes.is_empty();
        while !self.context.queue.is_empty() {
            let key = self.context.queue.next().await;
            let result = Box::pin(reconcile(&self.context, &key)).await;
            self.context.queue.done(key.clone(), None);
            match result {
                Ok(_) => worked = true,
                // Somebody wrote at the same time: reconcile again after the changes are folded.
                Err(failure) if failure.class == Class::Conflict => {
                    self.context.queue.add(key);
                    return Ok(true);
                }
                Err(failure) => return Err(failure),
            }
        }
        Ok(worked)
    }

    /// Runs rounds until nothing happens any more. A failed reconcile fails the test.
    pub async fn settle(&mut self) {
        for _ in 0..30 {
            if !self.round().await.unwrap() {
                return;
            }
        }
        panic!("no fixpoint: {:#?}", self.api.requests());
    }

    pub fn control_plane(&self) -> KamajiControlPlane {
        serde_json::from_value(self.api.get(CONTROL_PLANE).unwrap()).unwrap()
    }

    pub fn status(&self) -> KamajiControlPlaneStatus {
        self.control_plane().status.unwrap_or_default()
    }

    pub fn tenant(&self) -> TenantControlPlane {
        serde_json::from_value(self.api.get(TENANT).unwrap()).unwrap()
    }

    pub fn secret(&self, name: &str) -> Option<Secret> {
        self.api
            .get(&path::secret(name))
            .map(|secret| serde_json::from_value(secret).unwrap())
    }

    pub fn condition(&self, type_: &str) -> (String, String, String) {
        let status = self.status();
        let found = conditions::get(&status.conditions, type_).unwrap();
        (found.status.clone(), found.reason.clone(), found.message.clone())
    }

    pub fn initialized(&self) -> bool {
        self.status()
            .initialization
            .is_some_and(|known| known.control_plane_initialized == Some(true))
    }

    /// All objects without times, versions and UIDs.
    pub fn snapshot(&self) -> Vec<Value> {
        let mut objects = self.api.objects();
        for object in &mut objects {
            let metadata = object["metadata"].as_object_mut().unwrap();
            for key in ["uid", "resourceVersion", "ownerReferences", "generation"] {
                metadata.remove(key);
            }
            if let Some(annotations) = metadata.get_mut("annotations").and_then(Value::as_object_mut) {
                annotations.remove(ours::DIGEST);
            }
            if let Some(list) = object
                .pointer_mut("/status/conditions")
                .and_then(Value::as_array_mut)
            {
                for condition in list {
                    let condition = condition.as_object_mut().unwrap();
                    condition.remove("lastTransitionTime");
                    condition.remove("observedGeneration");
                }
            }
            if let Some(status) = object.get_mut("status").and_then(Value::as_object_mut) {
                status.remove("observedGeneration");
            }
        }
        objects
    }
}

fn fresh(api: &FakeApi, hosting: Hosting, network: &Arc<Mutex<Network>>, skip: bool) -> Arc<Context> {
    let network = network.clone();
    let ask: Ask = Arc::new(move |server, _| {
        let mut network = network.lock();
        network.asked.push(server);
        std::future::ready(Ok(network.answer.clone())).boxed()
    });
    let infrastructure = Infrastructure::new(api.client(), quirks::embedded().unwrap(), skip);
    Context::new(api.client(), None, hosting, ask, infrastructure, |_| true)
}

/// Folds a change as the watches do.
pub fn fold(context: &Context, change: &Change) {
    let index = &context.index;
    match change.kind() {
        "KamajiControlPlane" => context.control_planes.fold(change.event()),
        "Cluster" => context.clusters.fold(change.event()),
        "TenantControlPlane" => context.tenants.fold(change.event()),
        "Machine" => change.fold_child::<PartialObjectMeta<Machine>>(index, true),
        "MachinePool" => change.fold_child::<PartialObjectMeta<MachinePool>>(index, true),
        "Secret" => {
            if !change.label(capi::CLUSTER_NAME).is_null() {
                change.fold_child::<PartialObjectMeta<Secret>>(index, true);
            }
            let parts = [component::CA, component::ADMIN, component::BOOTSTRAP];
            if change
                .label(kamaji::COMPONENT)
                .as_str()
                .is_some_and(|part| parts.contains(&part))
            {
                change.fold_child::<PartialObjectMeta<Secret>>(&context.engine, true);
            }
        }
        "CustomResourceDefinition" => {}
        _ if change.object["apiVersion"] == "i.example/v1" => {}
        other => panic!("{other} is not watched"),
    }
}

/// Plays the engine: creates the Secrets, then reports everything as healthy. Does nothing where both are done.
fn play_engine(api: &FakeApi, hosting: Hosting, address: &str) {
    let Some(object) = api.get(TENANT) else { return };
    let tenant: TenantControlPlane = serde_json::from_value(object).unwrap();
    let name = tenant.name_any();
    let secret = |part: &str, suffix: &str, data: Value| {
        let path = path::secret(&format!("{name}{suffix}"));
        if api.get(&path).is_some() {
            return;
        }
        api.edit(
            &path,
            &json!({
                "apiVersion": "v1", "kind": "Secret", "type": "Opaque",
                "metadata": {
                    "name": format!("{name}{suffix}"), "namespace": "demo",
                    "labels": { kamaji::COMPONENT: part },
                    "annotations": { ours::CONTENT_HASH: format!("hash-of-{suffix}") },
                    "ownerReferences": [{
                        "apiVersion": "kamaji.clastix.io/v1alpha1", "kind": "TenantControlPlane",
                        "name": name, "uid": tenant.uid(), "controller": true,
                    }],
                },
                "data": data,
            }),
        );
    };
    let kubeconfig = |user: &str| {
        let text = Kubeconfig {
            cluster: name.clone(),
            user: user.into(),
            server: "https://192.0.2.1:6443".into(),
            ca_pem: "CA".into(),
            certificate_pem: "CERT".into(),
            key_pem: PrivateKeyPem::new("KEY".into()),
        };
        json!(k8s_openapi::ByteString(
            text.to_yaml().unwrap().as_bytes().to_vec()
        ))
    };
    secret(
        component::CA,
        "-ca",
        json!({"ca.crt": "QQ==", "ca.key": "Qg==", "tls.crt": "QQ==", "tls.key": "Qg=="}),
    );
    secret(
        component::ADMIN,
        "-admin-kubeconfig",
        json!({"admin.conf": kubeconfig("kubernetes-admin")}),
    );
    if hosting == Hosting::Embedded {
        secret(
            component::BOOTSTRAP,
            "-bootstrap-kubeconfig",
            json!({"value": kubeconfig("kamaji-bootstrap:controller")}),
        );
    }
    let replicas = tenant.spec.control_plane.deployment.replicas;
    let mut healthy = example::running(&tenant.spec.kubernetes.version).status.unwrap();
    healthy.control_plane_endpoint = Some(address.to_owned());
    healthy.observed_generation = tenant.metadata.generation;
    healthy.certificates = Some(CertificatesStatus {
        ca: Some(SecretStatus {
            secret_name: Some(format!("{name}-ca")),
            ..SecretStatus::default()
        }),
        ..CertificatesStatus::default()
    });
    let resources = healthy.kubernetes_resources.as_mut().unwrap();
    let pods = resources.deployment.as_mut().unwrap();
    (pods.replicas, pods.updated_replicas) = (Some(replicas), Some(replicas));
    (pods.ready_replicas, pods.available_replicas) = (Some(replicas), Some(replicas));
    let reported = tenant.status.as_ref().map(|status| status.conditions.clone());
    if reported
        .as_ref()
        .is_some_and(|list| list.iter().any(|c| c.status == "False"))
    {
        return;
    }
    let status = json!({ "status": healthy });
    if tenant.status.as_ref() != Some(&healthy) {
        api.edit(TENANT, &status);
    }
}
