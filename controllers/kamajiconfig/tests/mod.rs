//! Convergence in memory: the controller against two API servers, the management cluster and the workload cluster. The test
//! plays Cluster API, the infrastructure provider and a kubelet. Every reconcile is real; only the watches are replaced by
//! folding what changed.

mod pool;

use std::{
    collections::{BTreeSet, HashMap},
    convert::Infallible,
    sync::{Arc, LazyLock},
};

use http::{Request, Response};
use k8s_openapi::{
    ByteString,
    api::{
        certificates::v1::CertificateSigningRequest,
        core::v1::{Node, Secret},
    },
    jiff::Timestamp,
};
use kamaji_api::{
    bootstrap::{KamajiConfig, KamajiConfigStatus},
    labels::{capi, ours},
};
use kube::{
    Client,
    api::PartialObjectMeta,
    client::Body,
    runtime::watcher::{self, Event},
};
use serde_json::{Value, json};

use super::{Context, owner::Owner, reconcile::reconcile, tenants::Tenant, token};
use crate::{
    k8s::conditions,
    pki::{issue, spec::AltNames},
    runtime::driver::Outcome,
    tenant::{nodes::Session, too_large},
    testing::{Change, FakeApi, path},
};

fn config_path(name: &str) -> String {
    format!("/apis/bootstrap.cluster.x-k8s.io/v1alpha1/namespaces/demo/kamajiconfigs/{name}")
}

fn token_path(id: &str) -> String {
    format!("/api/v1/namespaces/kube-system/secrets/bootstrap-token-{id}")
}

fn request_path(name: &str) -> String {
    format!("/apis/certificates.k8s.io/v1/certificatesigningrequests/{name}")
}

/// The controller, the two API servers, and what the test plays.
struct World {
    api: FakeApi,
    tenant: FakeApi,
    context: Arc<Context>,
    /// The machine boots as soon as its data exists.
    boots: bool,
    /// The infrastructure provider sets the provider ID of the Machine.
    provider_id: bool,
    /// What the watches of the workload cluster have not listed: `Node` or `Secret`.
    unlisted: Option<&'static str>,
    /// How often certificate requests were listed again.
    lists: u64,
    last: Option<Outcome>,
}

impl World {
    /// A Cluster that is ready, with one Machine `m` and its config. Nothing was reconciled.
    fn new() -> Self {
        let api = FakeApi::default();
        api.edit(
            &path::cluster("alpha"),
            &json!({
                "apiVersion": "cluster.x-k8s.io/v1beta2", "kind": "Cluster",
                "metadata": {"name": "alpha", "namespace": "demo"},
                "spec": {"controlPlaneEndpoint": {"host": "192.0.2.1", "port": 6443}},
                "status": {"initialization": {"infrastructureProvisioned": true, "controlPlaneInitialized": true}},
            }),
        );
        let secret = |path: &str, name: &str, data: Value| {
            let secret = json!({
                "apiVersion": "v1", "kind": "Secret",
                "metadata": {"name": name, "namespace": "demo", "labels": {capi::CLUSTER_NAME: "alpha"}},
                "data": data,
            });
            api.edit(path, &secret);
        };
        secret(&path::secret("alpha-ca"), "alpha-ca", json!({"tls.crt": ca()}));
        secret(
            &path::secret("alpha-kamaji-bootstrap"),
            "alpha-kamaji-bootstrap",
            json!({"value": ""}),
        );
        let world = Self {
            context: fresh(&api),
            api,
            tenant: FakeApi::default(),
            boots: false,
            provider_id: false,
            unlisted: None,
            lists: 0,
            last: None,
        };
        world.machine("m");
        world
    }

    /// A Machine and its config.
    fn machine(&self, name: &str) {
        let labels = json!({capi::CLUSTER_NAME: "alpha"});
        self.api.edit(
            &path::machine(name),
            &json!({
                "apiVersion": "cluster.x-k8s.io/v1beta2", "kind": "Machine",
                "metadata": {"name": name, "namespace": "demo", "labels": labels},
                "spec": {
                    "clusterName": "alpha", "version": "v1.36.3",
                    "bootstrap": {"configRef": {"apiGroup": "bootstrap.cluster.x-k8s.io", "kind": "KamajiConfig", "name": name}},
                },
            }),
        );
        let uid = self.api.get(&path::machine(name)).unwrap()["metadata"]["uid"].clone();
        self.api.edit(
            &config_path(name),
            &json!({
                "apiVersion": "bootstrap.cluster.x-k8s.io/v1alpha1", "kind": "KamajiConfig",
                "metadata": {
                    "name": name, "namespace": "demo", "labels": labels,
                    "ownerReferences": [{
                        "apiVersion": "cluster.x-k8s.io/v1beta2", "kind": "Machine", "name": name, "uid": uid,
                        "controller": true,
                    }],
                },
                "spec": {},
            }),
        );
    }

    /// Opens the workload cluster as the first config that waits does, with the current version of its kubeconfig.
    async fn open(&self) -> Arc<Tenant> {
        let path = &path::secret("alpha-kamaji-bootstrap");
        let version = self.api.get(path).unwrap()["metadata"]["resourceVersion"].clone();
        let version = version.as_str().unwrap().to_owned();
        let key = path::key("alpha");
        if let Some(open) = self.context.tenants.get(&key, &version) {
            return open;
        }
        let uid = self.api.get(&path::cluster("alpha")).unwrap()["metadata"]["uid"].clone();
        let session = Session::of(self.tenant.client(), silent());
        let tenant = self
            .context
            .tenants
            .open(&key, uid.as_str().unwrap(), &version, session);
        // The real watches start, and get no answer.
        breathe().await;
        // What the watches list first.
        for object in self.tenant.objects() {
            observe(&tenant, &Change::listed(object));
        }
        if self.unlisted != Some("Node") {
            self.list_nodes(&tenant);
        }
        if self.unlisted == Some("Secret") {
            return tenant;
        }
        let mut listing = HashMap::new();
        for object in self.tenant.objects().iter().filter(|object| is_token(object)) {
            let secret: PartialObjectMeta<Secret> = serde_json::from_value(object.clone()).unwrap();
            tenant.on_token(Event::InitApply(secret), &mut listing);
        }
        tenant.on_token(Event::InitDone, &mut listing);
        tenant
    }

    /// What the watch of certificate requests lists again.
    fn list_requests(&self, tenant: &Arc<Tenant>) {
        tenant.on_request(Event::Init);
        for object in self.tenant.objects() {
            if object["kind"] == "CertificateSigningRequest" {
                tenant.on_request(Event::InitApply(serde_json::from_value(object).unwrap()));
            }
        }
        tenant.on_request(Event::InitDone);
    }

    fn list_nodes(&self, tenant: &Tenant) {
        let mut listing = HashMap::new();
        for object in self
            .tenant
            .objects()
            .iter()
            .filter(|object| object["kind"] == "Node")
        {
            let node = serde_json::from_value(object.clone()).unwrap();
            tenant.on_node(Event::InitApply(node), &mut listing);
        }
        tenant.on_node(Event::InitDone, &mut listing);
    }

    /// Starts a new process: everything is listed again.
    async fn restart(&mut self) {
        self.api.changes();
        self.tenant.changes();
        self.context = fresh(&self.api);
        self.lists = 0;
        for object in self.api.objects() {
            fold(&self.context, &Change::listed(object));
        }
        self.open().await;
    }

    /// Plays the other components, folds what changed, reconciles what is due. Returns whether anything happened.
    async fn round(&mut self) -> bool {
        self.play();
        let changes = self.api.changes();
        for change in &changes {
            fold(&self.context, change);
        }
        let tenant = self.open().await;
        let in_tenant = self.tenant.changes();
        for change in &in_tenant {
            observe(&tenant, change);
        }
        let mut worked = !changes.is_empty() || !in_tenant.is_empty();
        while !self.context.queue.is_empty() {
            let key = self.context.queue.next().await;
            self.open().await;
            let result = reconcile(&self.context, &key).await;
            self.context.queue.done(key, None);
            let Ok(outcome) = result else {
                return false;
            };
            self.last = Some(outcome);
            worked = true;
        }
        // Tasks of the workload cluster, such as deleting tokens without a config.
        breathe().await;
        let open = self.context.tenants.any(&path::key("alpha"));
        if let Some(tenant) = open.filter(|tenant| tenant.lists() != self.lists) {
            self.lists = tenant.lists();
            self.list_requests(&tenant);
            worked = true;
        }
        worked
    }

    /// Rounds until nothing happens any more.
    async fn settle(&mut self) {
        for _ in 0..30 {
            if !self.round().await {
                return;
            }
        }
        panic!(
            "no fixpoint: {:#?} {:#?}",
            self.api.requests(),
            self.tenant.requests()
        );
    }

    /// Another reconcile, without any reason.
    async fn wake(&mut self, name: &str) {
        self.context.queue.add(path::key(name));
        self.settle().await;
    }

    /// Cluster API copies the name of the data, the infrastructure provider boots the machine, its kubelet requests a
    /// certificate and joins.
    fn play(&self) {
        let Some(status) = self.try_config("m").and_then(|config| config.status) else {
            return;
        };
        let machine = path::machine("m");
        if let Some(name) = &status.data_secret_name {
            self.api.edit(
                &machine,
                &json!({"spec": {"bootstrap": {"dataSecretName": name}}}),
            );
        }
        if self.provider_id {
            self.api
                .edit(&machine, &json!({"spec": {"providerID": "test:///m"}}));
        }
        if !self.boots || status.data_secret_name.is_none() {
            return;
        }
        let path = request_path("csr-m");
        if self.tenant.get(&path).is_none() {
            self.ask("csr-m", "m", &self.token("m"));
        }
        let approved = self.tenant.get(&path).unwrap()["status"]["conditions"][0]["type"] == "Approved";
        if approved && self.tenant.get("/api/v1/nodes/m").is_none() {
            self.node("m");
        }
    }

    fn node(&self, name: &str) {
        self.tenant.edit(
            &format!("/api/v1/nodes/{name}"),
            &json!({
                "apiVersion": "v1", "kind": "Node", "metadata": {"name": name},
                "spec": {}, "status": {"nodeInfo": {
                    "kubeletVersion": "v1.36.3", "architecture": "", "bootID": "", "containerRuntimeVersion": "",
                    "kernelVersion": "", "kubeProxyVersion": "", "machineID": "", "operatingSystem": "", "osImage": "",
                    "systemUUID": "",
                }},
            }),
        );
    }

    /// Creates the request of a kubelet that has this token.
    fn ask(&self, request: &str, node: &str, token: &str) {
        let id = token.split('.').next().unwrap();
        self.tenant.edit(
            &request_path(request),
            &json!({
                "apiVersion": "certificates.k8s.io/v1", "kind": "CertificateSigningRequest",
                "metadata": {"name": request, "creationTimestamp": Timestamp::now().to_string()},
                "spec": {
                    "signerName": "kubernetes.io/kube-apiserver-client-kubelet",
                    "username": format!("system:bootstrap:{id}"), "groups": [ours::NODE_BOOTSTRAP_GROUP],
                    "usages": ["digital signature", "client auth"],
                    "request": ByteString(pem(node).into_bytes()),
                },
            }),
        );
    }

    /// Type and reason of the answer to a request.
    fn answer(&self, request: &str) -> Option<(String, String)> {
        let request: CertificateSigningRequest =
            serde_json::from_value(self.tenant.get(&request_path(request))?).unwrap();
        let first = request.status?.conditions?.into_iter().next()?;
        Some((first.type_, first.reason.unwrap()))
    }

    fn try_config(&self, name: &str) -> Option<KamajiConfig> {
        let object = self.api.get(&config_path(name))?;
        Some(serde_json::from_value(object).unwrap())
    }

    fn status(&self, name: &str) -> KamajiConfigStatus {
        self.try_config(name).unwrap().status.unwrap_or_default()
    }

    fn condition(&self, type_: &str) -> (String, String, String) {
        self.condition_of("m", type_)
    }

    fn condition_of(&self, name: &str, type_: &str) -> (String, String, String) {
        let status = self.status(name);
        let found = conditions::get(&status.conditions, type_).unwrap_or_else(|| panic!("no {type_}"));
        (found.status.clone(), found.reason.clone(), found.message.clone())
    }

    /// The token in the data of a machine.
    fn token(&self, name: &str) -> String {
        let secret: Secret = serde_json::from_value(self.api.get(&path::secret(name)).unwrap()).unwrap();
        String::from_utf8(secret.data.unwrap()["token"].0.clone()).unwrap()
    }

    /// IDs of the tokens in the workload cluster.
    fn tokens(&self) -> Vec<String> {
        let objects = self.tenant.objects();
        let names = objects.iter().filter(|object| is_token(object));
        names
            .filter_map(|object| object["metadata"]["name"].as_str())
            .map(|name| name.trim_start_matches("bootstrap-token-").to_owned())
            .collect()
    }

    /// Writes since the last call: to the management cluster, and of tokens.
    fn writes(&self) -> Vec<String> {
        let mut all = self.api.requests();
        let in_tenant = self.tenant.requests();
        all.extend(
            in_tenant
                .into_iter()
                .filter(|request| request.contains("/kube-system/secrets")),
        );
        all.retain(|request| !request.starts_with("GET") && !request.contains("/events"));
        all
    }

    /// Writes to the management cluster since the last call, Events included.
    fn all_writes(&self) -> Vec<String> {
        let mut all = self.api.requests();
        all.retain(|request| !request.starts_with("GET"));
        all
    }

    /// All objects, without what is generated or counted.
    fn picture(&self) -> Value {
        let data = self.api.get(&path::secret("m"));
        let id = data.map(|_| self.token("m")).unwrap_or_default();
        let mut objects = self.api.objects();
        objects.extend(self.tenant.objects());
        objects.retain(|object| object["kind"] != "CertificateSigningRequest");
        for object in &mut objects {
            let metadata = object["metadata"].as_object_mut().unwrap();
            for key in [
                "uid",
                "resourceVersion",
                "ownerReferences",
                "generation",
                "annotations",
            ] {
                metadata.remove(key);
            }
            metadata
                .entry("labels")
                .or_insert_with(|| json!({}))
                .as_object_mut()
                .unwrap()
                .retain(|key, _| ![ours::OWNER_UID, ours::CLUSTER_UID].contains(&key.as_str()));
            if let Some(data) = object.get_mut("data").and_then(Value::as_object_mut) {
                data.values_mut().for_each(|value| *value = Value::Null);
            }
            let Some(status) = object.get_mut("status").and_then(Value::as_object_mut) else {
                continue;
            };
            for key in ["observedGeneration", "bootstrapData", "token"] {
                status.remove(key);
            }
            if let Some(node) = status.get_mut("node").and_then(Value::as_object_mut) {
                node.remove("claimedAt");
                // UIDs and times. The number of approvals has to be the same.
                node.remove("recentApprovals");
            }
            for condition in status
                .get_mut("conditions")
                .and_then(Value::as_array_mut)
                .into_iter()
                .flatten()
            {
                let condition = condition.as_object_mut().unwrap();
                condition.remove("lastTransitionTime");
                condition.remove("observedGeneration");
            }
        }
        let text = serde_json::to_string_pretty(&objects).unwrap();
        let text = text.replace(
            id.split('.').next().filter(|id| !id.is_empty()).unwrap_or("none"),
            "ID",
        );
        serde_json::from_str(&text).unwrap()
    }
}

/// Runs the tasks of the workload cluster as far as they go without time passing.
async fn breathe() {
    for _ in 0..50 {
        tokio::task::yield_now().await;
    }
}

/// A client for the real watches, which get no answer.
fn silent() -> Client {
    let service =
        tower::service_fn(|_: Request<Body>| std::future::pending::<Result<Response<Body>, Infallible>>());
    Client::new(service, "default")
}

fn ca() -> Value {
    static PEM: LazyLock<String> = LazyLock::new(|| {
        let now = "2026-03-01T11:00:00Z".parse::<Timestamp>().unwrap();
        issue::ca("tenant", &AltNames::default(), now).unwrap().cert_pem
    });
    json!(ByteString(PEM.clone().into_bytes()))
}

fn pem(node: &str) -> String {
    let mut params = rcgen::CertificateParams::default();
    params.distinguished_name = rcgen::DistinguishedName::new();
    params
        .distinguished_name
        .push(rcgen::DnType::CommonName, format!("system:node:{node}"));
    params
        .distinguished_name
        .push(rcgen::DnType::OrganizationName, "system:nodes");
    let key = rcgen::KeyPair::generate().unwrap();
    params.serialize_request(&key).unwrap().pem().unwrap()
}

fn is_token(object: &Value) -> bool {
    let name = object["metadata"]["name"].as_str().unwrap_or_default();
    object["kind"] == "Secret" && name.starts_with("bootstrap-token-")
}

fn fresh(api: &FakeApi) -> Arc<Context> {
    Context::new(api.client(), "bootstrap", None, |_| true)
}

/// What the watches of the management cluster do.
fn fold(context: &Context, change: &Change) {
    match change.kind() {
        "KamajiConfig" => context.configs.fold(change.event()),
        "Machine" => context.machines.fold(change.event()),
        "MachinePool" => context.pools.fold(change.event()),
        "Cluster" => context.clusters.fold(change.event()),
        "Secret" if change.label(capi::CLUSTER_NAME).is_null() => {}
        "Secret" => change.fold_child::<PartialObjectMeta<Secret>>(&context.index, true),
        other => panic!("{other} is not watched"),
    }
}

/// What the watches of the workload cluster do.
fn observe(tenant: &Arc<Tenant>, change: &Change) {
    match change.kind() {
        "CertificateSigningRequest" => tenant.on_request(change.event()),
        "Node" => tenant.on_node(change.event(), &mut HashMap::new()),
        "Event" => tenant.on_report(change.event(), &mut BTreeSet::new()),
        _ if is_token(&change.object) => tenant.on_token(change.event(), &mut HashMap::new()),
        _ => {}
    }
}

#[tokio::test]
async fn a_machine_joins_and_then_nothing_is_written() {
    let mut world = World::new();
    world.settle().await;
    assert_eq!(world.condition("NodeJoined").1, "WaitingForNode");
    assert_eq!(world.tokens(), [world.token("m").split('.').next().unwrap()]);
    // Nothing is written for a machine that waits either.
    world.writes();
    world.wake("m").await;
    world.restart().await;
    world.settle().await;
    assert_eq!(world.writes(), Vec::<String>::new());

    (world.boots, world.provider_id) = (true, true);
    world.settle().await;
    for condition in &world.status("m").conditions {
        let healthy = if kamaji_api::conditions::is_negative(&condition.type_) {
            "False"
        } else {
            "True"
        };
        assert_eq!(condition.status, healthy, "{condition:?}");
    }
    assert_eq!(world.answer("csr-m").unwrap().1, "KamajiTokenBound");
    assert_eq!(world.tokens(), Vec::<String>::new());
    world.writes();
    world.wake("m").await;
    world.restart().await;
    world.settle().await;
    assert_eq!(world.writes(), Vec::<String>::new());
}

#[tokio::test]
async fn what_a_restore_stripped_of_its_owner_is_owned_again() {
    // Waiting, joined and complete, joined and without a provider ID.
    for (boots, provider_id) in [(false, false), (true, true), (true, false)] {
        let mut world = World::new();
        (world.boots, world.provider_id) = (boots, provider_id);
        world.settle().await;
        let data = world.token("m");
        let path = path::secret("m");
        let uid = world.api.get(&config_path("m")).unwrap()["metadata"]["uid"].clone();
        for restarted in [false, true] {
            let case = format!("boots: {boots}, provider ID: {provider_id}, restarted: {restarted}");
            world
                .api
                .edit(&path, &json!({"metadata": {"ownerReferences": null}}));
            if restarted {
                world.restart().await;
                world.wake("m").await;
            }
            world.settle().await;
            let owner = &world.api.get(&path).unwrap()["metadata"]["ownerReferences"][0]["uid"];
            assert_eq!(owner, &uid, "{case}");
            assert_eq!(world.token("m"), data, "the machine has this token");
            assert_eq!(world.condition("DataSecretAvailable").0, "True", "{case}");
            world.api.requests();
            world.wake("m").await;
            assert_eq!(world.api.requests(), Vec::<String>::new(), "{case}");
        }
    }
}

#[tokio::test]
async fn bootstrap_03_a_crash_after_any_write_converges_to_the_same() {
    let mut reference = World::new();
    (reference.boots, reference.provider_id) = (true, true);
    reference.settle().await;
    let expected = reference.picture();
    let crashes = [(false, None), (true, None), (false, Some("/approval"))];
    for ((in_tenant, refused), writes) in crashes
        .into_iter()
        .flat_map(|crash| (0..14).map(move |writes| (crash, writes)))
    {
        let mut world = World::new();
        (world.boots, world.provider_id) = (true, true);
        let side = if in_tenant { &world.tenant } else { &world.api }.clone();
        world.tenant.refuse(refused);
        side.die_after(Some(writes));
        for _ in 0..12 {
            world.round().await;
        }
        side.die_after(None);
        world.tenant.refuse(None);
        world.restart().await;
        world.settle().await;
        // A config that waits for a workload cluster is reconciled again with backoff.
        world.wake("m").await;
        assert_json_diff::assert_json_eq!(world.picture(), expected);
    }
}

#[tokio::test]
async fn bootstrap_14_what_others_delete_is_back_with_the_same_token() {
    let mut world = World::new();
    world.settle().await;
    let token = world.token("m");
    let expected = world.picture();
    world.tenant.delete(&token_path(token.split('.').next().unwrap()));
    world.settle().await;
    assert_json_diff::assert_json_eq!(world.picture(), expected);
    world.api.delete(&path::secret("m"));
    world.settle().await;
    assert_eq!((world.token("m"), world.picture()), (token, expected));
}

#[tokio::test]
async fn bootstrap_13_a_used_token_is_never_created_again() {
    let mut world = World::new();
    world.boots = true;
    world.settle().await;
    assert_eq!(world.condition("ProviderIDSet").1, "WaitingForProviderID");
    assert_eq!(world.tokens(), Vec::<String>::new());
    let reported = world.picture();
    world.writes();
    world.wake("m").await;
    world.unlisted = Some("Node");
    world.restart().await;
    world.settle().await;
    world.wake("m").await;
    assert_eq!(world.writes(), Vec::<String>::new());
    assert_eq!(
        world.picture(),
        reported,
        "nothing new is reported of Nodes that were not listed"
    );
    world.unlisted = None;
    let tenant = world.open().await;
    world.list_nodes(&tenant);
    world.settle().await;
    assert_eq!(world.writes(), Vec::<String>::new());
    // Not even if its Node is deleted.
    world.tenant.delete("/api/v1/nodes/m");
    world.boots = false;
    world.settle().await;
    world.wake("m").await;
    assert_eq!(world.tokens(), Vec::<String>::new());
    let (_, reason, message) = world.condition("NodeJoined");
    assert!(
        reason == "WaitingForNode" && message.contains("Node m joined and was deleted since"),
        "{message}"
    );
    world.boots = true;
    world.provider_id = true;
    world.settle().await;
    assert_eq!(world.condition("ProviderIDSet").1, "ProviderIDSet");
}

#[tokio::test]
async fn bootstrap_08_deletion_leaves_nothing() {
    let mut world = World::new();
    world.settle().await;
    assert_eq!(world.tokens().len(), 1);
    world.api.delete(&config_path("m"));
    world.settle().await;
    assert!(world.api.get(&path::secret("m")).is_none());
    assert_eq!(world.tokens(), Vec::<String>::new());
}

#[tokio::test]
async fn bootstrap_08_tokens_of_configs_that_were_deleted_unobserved_are_deleted_and_those_that_moved_are_not()
 {
    let mut world = World::new();
    world.machine("other");
    world.settle().await;
    let kept = world.token("other").split('.').next().unwrap().to_owned();
    // A token that another management cluster took over.
    let moved = token::Token::parse("moved0.0123456789abcdef").unwrap();
    let holder = token::Holder {
        uid: "elsewhere",
        namespace: "demo",
        owner: Owner::Machine("moved"),
        cluster: "alpha",
        cluster_uid: "elsewhere",
    };
    let secret = moved.to_secret(&holder, "2026-03-01T12:00:00Z".parse().unwrap());
    world
        .tenant
        .edit(&token_path(moved.id()), &serde_json::to_value(&secret).unwrap());
    assert_eq!(world.tokens().len(), 3);
    world.api.delete(&config_path("m"));
    world.restart().await;
    world.settle().await;
    let mut expected = [kept, "moved0".to_owned()];
    expected.sort();
    assert_eq!(world.tokens(), expected);

    // Deleted while it was paused: it does not wait in the workload cluster.
    let pause = json!({"metadata": {"annotations": {capi::PAUSED: ""}}});
    world.machine("third");
    world.settle().await;
    world.api.edit(&config_path("third"), &pause);
    world.restart().await;
    world.settle().await;
    assert_eq!(world.tokens().len(), 3);
    world.api.delete(&config_path("third"));
    world.settle().await;
    assert_eq!(world.tokens(), expected);
}

#[tokio::test]
async fn requests_of_a_paused_config_wait_and_those_with_an_unknown_token_are_denied() {
    let mut world = World::new();
    world.settle().await;
    let token = world.token("m");
    let id = token.split('.').next().unwrap();
    world.api.edit(
        &config_path("m"),
        &json!({"metadata": {"annotations": {capi::PAUSED: ""}}}),
    );
    world.settle().await;
    world.ask("csr-m", "m", &token);
    world.ask("csr-x", "x", "nobody.0123456789abcdef");
    world.restart().await;
    world.settle().await;
    let tenant = world.open().await;
    tenant.deny_unknown(id, "csr-m").await;
    tenant.deny_unknown("nobody", "csr-x").await;
    world.settle().await;
    assert_eq!(world.answer("csr-m"), None);
    assert_eq!(
        world.answer("csr-x").unwrap(),
        ("Denied".to_owned(), "UnknownToken".to_owned())
    );
    world.api.edit(
        &config_path("m"),
        &json!({"metadata": {"annotations": {capi::PAUSED: null}}}),
    );
    world.settle().await;
    assert_eq!(world.answer("csr-m").unwrap().0, "Approved");
}

#[tokio::test]
async fn a_denial_is_reported_until_a_request_is_approved() {
    let mut world = World::new();
    world.settle().await;
    let token = world.token("m");
    world.ask("csr-wrong", "another", &token);
    world.settle().await;
    let (status, reason, message) = world.condition("NodeJoined");
    assert_eq!((status.as_str(), reason.as_str()), ("False", "NameMismatch"));
    assert_eq!(
        message,
        "a certificate request with the token was denied: the token is for m"
    );
    assert_eq!(world.condition("Ready").1, "NameMismatch");
    world.writes();
    world.restart().await;
    world.settle().await;
    world.wake("m").await;
    assert_eq!(world.condition("NodeJoined").1, "NameMismatch");
    assert_eq!(world.writes(), Vec::<String>::new());
    world.ask("csr-m", "m", &token);
    world.settle().await;
    assert_eq!(world.condition("NodeJoined").1, "WaitingForNode");
    assert_eq!(world.condition("Ready").0, "True");
}

#[tokio::test(start_paused = true)]
async fn another_denied_request_writes_nothing_to_the_management_cluster() {
    let mut world = World::new();
    world.settle().await;
    let token = world.token("m");
    world.ask("csr-0", "another", &token);
    world.settle().await;
    assert_eq!(world.condition("NodeJoined").1, "NameMismatch");
    world.all_writes();
    for number in 1..5 {
        world.ask(&format!("csr-{number}"), &format!("another{number}"), &token);
        world.settle().await;
        assert_eq!(world.answer(&format!("csr-{number}")).unwrap().0, "Denied");
    }
    assert_eq!(world.all_writes(), Vec::<String>::new());
}

#[tokio::test(start_paused = true)]
async fn a_token_that_is_used_for_hostile_requests_is_ended_and_no_longer_answered() {
    let mut world = World::new();
    world.settle().await;
    let token = world.token("m");
    for number in 0..12 {
        world.ask(&format!("csr-{number:02}"), "another", &token);
    }
    world.settle().await;
    let (status, reason, message) = world.condition("BootstrapTokenValid");
    assert_eq!((status.as_str(), reason.as_str()), ("False", "TokenAbused"));
    assert!(message.contains("delete the Machine"), "{message}");
    assert_eq!(world.tokens(), Vec::<String>::new());
    let denied = (0..12).filter(|number| world.answer(&format!("csr-{number:02}")).is_some());
    assert_eq!(denied.count(), 10);

    // Whatever comes after it, also if the tenant is down for a while and another process goes on.
    world.all_writes();
    world.ask("csr-m", "m", &token);
    world.settle().await;
    world.restart().await;
    world.settle().await;
    world.tenant.die_after(Some(0));
    world.wake("m").await;
    world.tenant.die_after(None);
    world.wake("m").await;
    assert_eq!(world.answer("csr-m"), None);
    assert_eq!(world.condition("BootstrapTokenValid").1, "TokenAbused");
    assert_eq!(world.tokens(), Vec::<String>::new());
    assert_eq!(world.all_writes(), Vec::<String>::new());
    // Somebody brings the token back in the workload cluster.
    let mut secret = token::Token::parse(&token).unwrap().to_secret(
        &token::Holder {
            uid: "u",
            namespace: "demo",
            owner: Owner::Machine("m"),
            cluster: "alpha",
            cluster_uid: "",
        },
        Timestamp::now(),
    );
    secret.metadata.resource_version = None;
    let id = token.split('.').next().unwrap();
    world
        .tenant
        .edit(&token_path(id), &serde_json::to_value(&secret).unwrap());
    world.settle().await;
    world.wake("m").await;
    assert_eq!(world.tokens(), Vec::<String>::new());

    // Its certificate may be older than the abuse: the Node is not overlooked.
    world.node("m");
    let claim = json!({"status": {"node": {"name": "m"}}});
    world.api.edit(&config_path("m"), &claim);
    world.settle().await;
    assert_eq!(world.condition("NodeJoined").1, "NodeJoined");
}

#[tokio::test(start_paused = true)]
async fn an_abused_token_that_the_tenant_keeps_is_not_reported_as_deleted_and_is_deleted_in_the_end() {
    let mut world = World::new();
    world.settle().await;
    let token = world.token("m");
    world.tenant.deny(Some("/api/v1/namespaces/kube-system/secrets/"));
    for number in 0..12 {
        world.ask(&format!("csr-{number:02}"), "another", &token);
    }
    world.settle().await;
    let (status, reason, kept) = world.condition("BootstrapTokenValid");
    assert_eq!((status.as_str(), reason.as_str()), ("False", "TokenAbused"));
    assert_eq!(world.tokens().len(), 1);
    assert!(
        kept.contains("not deleted yet") && kept.contains("delete the Machine"),
        "{kept}"
    );
    assert_eq!(world.last, Some(Outcome::Waiting), "it is tried again");
    world.all_writes();
    for restarted in [false, true] {
        if restarted {
            world.restart().await;
        }
        world.wake("m").await;
        assert_eq!(world.last, Some(Outcome::Waiting), "restarted: {restarted}");
        assert_eq!(world.all_writes(), Vec::<String>::new(), "restarted: {restarted}");
    }
    world.tenant.deny(None);
    world.wake("m").await;
    let (status, reason, message) = world.condition("BootstrapTokenValid");
    assert_eq!((status.as_str(), reason.as_str()), ("False", "TokenAbused"));
    assert!(message.contains("so it was deleted"), "{message}");
    assert_eq!(world.tokens(), Vec::<String>::new());
    assert_eq!(world.last, Some(Outcome::Done));
}

#[tokio::test(start_paused = true)]
async fn bootstrap_60_a_flood_of_reports_is_a_handful_of_writes_and_ends_the_token() {
    let mut world = World::new();
    world.settle().await;
    let token = world.token("m");
    let id = token.split('.').next().unwrap();
    world.all_writes();
    for number in 0..1000 {
        let time = Timestamp::from_second(2_000_000_000 + number)
            .unwrap()
            .to_string();
        world.tenant.edit(
            &format!("/api/v1/namespaces/kamaji-bootstrap/events/{id}.{number}"),
            &json!({
                "apiVersion": "v1", "kind": "Event",
                "metadata": {"name": format!("{id}.{number}"), "creationTimestamp": time},
                "reason": "PreJoinFailed", "message": format!("try {number}"), "involvedObject": {},
            }),
        );
    }
    world.settle().await;
    assert_eq!(world.condition("BootstrapTokenValid").1, "TokenAbused");
    assert_eq!(world.tokens(), Vec::<String>::new());
    let writes = world.all_writes();
    assert!(writes.len() <= 5, "{writes:?}");
}

#[tokio::test]
async fn a_token_that_is_put_back_expires_when_it_did_and_writes_no_status() {
    let mut world = World::new();
    world.settle().await;
    let soon = Timestamp::from_second(Timestamp::now().as_second() + 11 * 60).unwrap();
    world.api.edit(
        &config_path("m"),
        &json!({"status": {"token": {"expiration": soon.to_string()}}}),
    );
    world.settle().await;
    world.all_writes();
    let id = world.tokens().remove(0);
    world.tenant.delete(&token_path(&id));
    world.settle().await;
    assert_eq!(world.tokens(), [id.as_str()]);
    let secret: Secret = serde_json::from_value(world.tenant.get(&token_path(&id)).unwrap()).unwrap();
    assert_eq!(
        secret.data.unwrap()["expiration"].0,
        soon.to_string().into_bytes()
    );
    assert_eq!(world.all_writes(), Vec::<String>::new());
}

#[tokio::test]
async fn bootstrap_25_an_answer_that_is_refused_ten_times_is_one_approval() {
    let mut world = World::new();
    world.settle().await;
    world.tenant.refuse(Some("/approval"));
    world.ask("csr-m", "m", &world.token("m"));
    for _ in 0..10 {
        world.context.queue.add(path::key("m"));
        world.round().await;
    }
    assert_eq!(world.answer("csr-m"), None);
    world.tenant.refuse(None);
    world.wake("m").await;
    assert_eq!(
        world.answer("csr-m"),
        Some(("Approved".to_owned(), "KamajiTokenBound".to_owned()))
    );
    assert_eq!(world.status("m").node.unwrap().approvals, Some(1));
}

#[tokio::test]
async fn bootstrap_09_a_tenant_that_stops_answering_is_reported() {
    let mut world = World::new();
    world.settle().await;
    world.tenant.die_after(Some(0));
    world.machine("late");
    world.round().await;
    world.round().await;
    let late = world.status("late");
    let data = conditions::get(&late.conditions, "DataSecretAvailable").unwrap();
    assert_eq!(
        (data.status.as_str(), data.reason.as_str()),
        ("False", "TenantUnreachable")
    );
    assert_eq!(world.last, Some(Outcome::Waiting));
    // The token is due: the status has an expiration long ago.
    let long_ago = json!({"status": {"token": {"expiration": "2026-03-01T11:15:00Z"}}});
    world.api.edit(&config_path("m"), &long_ago);
    world.round().await;
    world.context.queue.add(path::key("m"));
    world.round().await;
    assert_eq!(world.condition("BootstrapTokenValid").0, "Unknown");
    assert_eq!(world.condition("BootstrapTokenValid").1, "TenantUnreachable");
    world.tenant.die_after(None);
    world.wake("m").await;
    world.wake("late").await;
    assert_eq!(world.condition("BootstrapTokenValid").1, "TokenValid");
    assert!(world.status("late").data_secret_name.is_some());
}

/// The watch of Nodes meets one that is too large to be read.
fn large_node(tenant: &Tenant) {
    let listed = watcher::Error::InitialListFailed(too_large());
    tenant.note_error("Nodes", &listed);
}

const LARGE_NODE: &str =
    "watch Nodes of the workload cluster: an object has more than 10 MiB: make it smaller, or delete it";

#[tokio::test(start_paused = true)]
async fn a_machine_whose_node_is_not_seen_for_the_size_of_another_says_so_until_it_is() {
    let mut world = World::new();
    world.settle().await;
    let tenant = world.open().await;
    large_node(&tenant);
    world.settle().await;
    let (status, reason, message) = world.condition("NodeJoined");
    assert_eq!((status.as_str(), reason.as_str()), ("False", "ObjectTooLarge"));
    assert_eq!(message, LARGE_NODE);
    assert_eq!(world.condition("Ready").1, "ObjectTooLarge");
    world.all_writes();
    large_node(&tenant);
    tenant.note_event::<Node>("Nodes", &Event::Init);
    tenant.note_event::<Node>("CertificateSigningRequests", &Event::InitDone);
    world.settle().await;
    assert_eq!(world.all_writes(), Vec::<String>::new(), "nothing has changed");
    tenant.note_event::<Node>("Nodes", &Event::InitDone);
    world.settle().await;
    assert_eq!(world.condition("NodeJoined").1, "WaitingForNode");
    assert_eq!(world.condition("Ready").0, "True");
}

#[tokio::test(start_paused = true)]
async fn a_joined_machine_whose_node_is_not_seen_for_the_size_of_another_says_so_until_it_is() {
    let mut world = World::new();
    world.boots = true;
    world.settle().await;
    let reported = world.picture();
    world.unlisted = Some("Node");
    world.restart().await;
    let tenant = world.open().await;
    large_node(&tenant);
    world.settle().await;
    let (status, reason, message) = world.condition("ProviderIDSet");
    assert_eq!((status.as_str(), reason.as_str()), ("Unknown", "ObjectTooLarge"));
    assert_eq!(message, LARGE_NODE);
    tenant.note_event::<Node>("Nodes", &Event::InitDone);
    world.list_nodes(&tenant);
    world.settle().await;
    assert_eq!(world.picture(), reported);
}

#[tokio::test(start_paused = true)]
async fn a_certificate_request_that_is_too_large_to_be_looked_at_is_reported() {
    let mut world = World::new();
    world.settle().await;
    world.ask("csr-m", "m", &world.token("m"));
    let annotations = json!({"metadata": {"annotations": {"a": "x".repeat(20_000)}}});
    world.tenant.edit(&request_path("csr-m"), &annotations);
    world.settle().await;
    let (status, reason, message) = world.condition("NodeJoined");
    assert_eq!((status.as_str(), reason.as_str()), ("False", "ObjectTooLarge"));
    assert!(message.contains("more than 16 KiB"), "{message}");
    assert_eq!(world.answer("csr-m"), None);
    world.tenant.delete(&request_path("csr-m"));
    world.settle().await;
    assert_eq!(world.condition("NodeJoined").1, "WaitingForNode");
}

#[tokio::test]
async fn a_config_whose_owner_is_set_again_reports_what_it_did_before() {
    for joined in [false, true] {
        let mut world = World::new();
        (world.boots, world.provider_id) = (joined, joined);
        world.settle().await;
        let before = world.picture();
        let path = config_path("m");
        let config = world.api.get(&path).unwrap();
        let edit = |world: &World, references: &Value| {
            let change = json!({"metadata": {"ownerReferences": references}});
            world.api.edit(&path, &change);
        };
        edit(&world, &Value::Null);
        world.settle().await;
        let reported = if joined {
            "ProviderIDSet"
        } else {
            "BootstrapTokenValid"
        };
        let (status, reason, _) = world.condition(reported);
        assert_eq!((status.as_str(), reason.as_str()), ("Unknown", "WaitingForOwner"));
        assert_eq!(world.condition("Ready").0, "True", "the data is there");
        edit(&world, &config["metadata"]["ownerReferences"]);
        world.settle().await;
        assert_json_diff::assert_json_eq!(world.picture(), before);

        // As an earlier release left it.
        let mut conditions = config["status"]["conditions"].clone();
        for condition in conditions.as_array_mut().unwrap() {
            if condition["type"] == "DataSecretAvailable" || condition["type"] == "Ready" {
                condition["status"] = json!("False");
                condition["reason"] = json!("WaitingForOwner");
            }
        }
        world
            .api
            .edit(&path, &json!({"status": {"conditions": conditions}}));
        world.wake("m").await;
        assert_json_diff::assert_json_eq!(world.picture(), before);
    }
}

#[tokio::test]
async fn preconditions_are_checked_before_lost_data_is_created_again() {
    let mut world = World::new();
    world.settle().await;
    let bad = json!({"spec": {"nodeRegistration": {"labels": {"node-role.kubernetes.io/worker": ""}}}});
    world.api.edit(&config_path("m"), &bad);
    world.settle().await;
    assert_eq!(
        world.condition("DataSecretAvailable").0,
        "True",
        "data that exists stays"
    );
    world.api.delete(&path::secret("m"));
    world.settle().await;
    assert!(world.api.get(&path::secret("m")).is_none());
    assert_eq!(world.condition("DataSecretAvailable").1, "LabelNotAllowed");
    world
        .api
        .edit(&config_path("m"), &json!({"spec": {"nodeRegistration": null}}));
    world.settle().await;
    assert!(world.api.get(&path::secret("m")).is_some());
    assert_eq!(world.condition("DataSecretAvailable").0, "True");
}

#[tokio::test]
async fn a_named_ca_is_awaited_and_looked_for_again() {
    let mut world = World::new();
    let named = json!({"spec": {"controlPlane": {"caSecretRef": {"name": "mine"}}}});
    world.api.edit(&config_path("m"), &named);
    world.settle().await;
    let (_, reason, message) = world.condition("DataSecretAvailable");
    assert_eq!(reason, "WaitingForCertificates");
    assert!(
        message.contains("controlPlane.caSecretRef") && message.contains("Secret mine"),
        "{message}"
    );
    assert_eq!(world.last, Some(Outcome::Waiting));
    world.api.edit(
        &path::secret("mine"),
        &json!({
            "apiVersion": "v1", "kind": "Secret", "metadata": {"name": "mine", "namespace": "demo"},
            "data": {"tls.crt": ca()},
        }),
    );
    world.wake("m").await;
    assert_eq!(world.condition("CertificatesAvailable").0, "True");
    assert!(world.status("m").data_secret_name.is_some());
}

#[tokio::test]
async fn with_another_approver_there_is_no_data_and_no_answer_to_requests() {
    let mut world = World::new();
    let external = json!({"spec": {"csrApproval": {"client": "External"}}});
    world.api.edit(&config_path("m"), &external);
    world.settle().await;
    assert!(world.api.get(&path::secret("m")).is_none());
    let (_, reason, message) = world.condition("DataSecretAvailable");
    assert_eq!(reason, "FieldNotSupported");
    assert!(message.contains("spec.csrApproval.client=External"), "{message}");
    assert_eq!(world.condition("FieldNotSupported").0, "True");
    // Set after the data was created.
    let mut world = World::new();
    world.settle().await;
    world.api.edit(&config_path("m"), &external);
    world.boots = true;
    world.settle().await;
    assert_eq!(world.answer("csr-m"), None);
}

#[tokio::test]
async fn bootstrap_44_data_above_the_limit_makes_no_machine_and_data_near_it_is_an_event() {
    let mut world = World::new();
    world.settle().await;
    let bytes = world.status("m").bootstrap_data.unwrap().bytes.unwrap();
    assert_eq!(world.condition("DataSecretAvailable").2, "");

    let mut world = World::new();
    let limit = |bytes: i64| json!({"spec": {"output": {"maxBytes": bytes}}});
    world.api.edit(&config_path("m"), &limit(bytes - 1));
    world.settle().await;
    let (status, reason, message) = world.condition("DataSecretAvailable");
    assert_eq!((status.as_str(), reason.as_str()), ("False", "TooLarge"));
    assert!(
        message.contains(&format!("{bytes} bytes, at most {}", bytes - 1))
            && message.contains("largest entries: /etc/kamaji/bootstrap/join.sh ("),
        "{message}"
    );
    assert!(world.api.get(&path::secret("m")).is_none());
    let machine = world.api.get(&path::machine("m")).unwrap();
    assert_eq!(machine["spec"]["bootstrap"]["dataSecretName"], Value::Null);

    let events = |world: &World| {
        let writes = world.all_writes();
        writes.iter().filter(|write| write.contains("/events")).count()
    };
    events(&world);
    world.api.edit(&config_path("m"), &limit(bytes));
    world.settle().await;
    assert_eq!(
        events(&world),
        2,
        "that the data is ready, and that it is near the limit"
    );
    world.wake("m").await;
    assert_eq!(events(&world), 0);
    assert!(world.api.get(&path::secret("m")).is_some());
    let figures = world.status("m").bootstrap_data.unwrap();
    assert_eq!(
        (figures.user_data_bytes, figures.user_data_limit),
        (Some(bytes), Some(bytes))
    );
    let (status, _, message) = world.condition("DataSecretAvailable");
    assert_eq!(status, "True");
    assert!(
        message.contains(&format!("the infrastructure takes at most {bytes}")),
        "{message}"
    );
}

fn on_infrastructure(kind: &str, name: &str) -> Value {
    json!({"spec": {"infrastructureRef": {
        "apiGroup": "infrastructure.cluster.x-k8s.io", "kind": kind, "name": name,
    }}})
}

#[tokio::test]
async fn bootstrap_46_names_and_templates_that_do_not_fit_the_infrastructure_make_no_machine() {
    let mut world = World::new();
    world
        .api
        .edit(&path::machine("m"), &on_infrastructure("HarvesterMachine", "m"));
    let template = json!({"source": "Template", "template": "harvester://{{ ds.meta_data.uid }}"});
    let template = json!({"spec": {"nodeRegistration": {"providerID": template}}});
    world.api.edit(&config_path("m"), &template);
    world.settle().await;
    assert_eq!(world.condition("SpecValid").1, "InvalidSpec");
    assert!(world.api.get(&path::secret("m")).is_none());

    // The name of a Machine of 64 characters fits where the host name gives the name.
    let long = "a".repeat(64);
    for (preset, reason) in [("Proxmox", "NodeNameInvalid"), ("AWS", "DataSecretAvailable")] {
        let mut world = World::new();
        world.machine(&long);
        world
            .api
            .edit(&config_path(&long), &json!({"spec": {"infraPreset": preset}}));
        world.settle().await;
        let status = world.status(&long);
        let data = conditions::get(&status.conditions, "DataSecretAvailable").unwrap();
        assert_eq!(data.reason, reason, "{}", data.message);
    }
}

/// The infrastructure reports a name of the machine in its own DNS.
fn with_dns_name() -> Value {
    json!({"status": {"addresses": [{"type": "InternalDNS", "address": "ip-10-0-0-1.ec2.internal"}]}})
}

#[tokio::test]
async fn a_machine_with_data_from_before_joins_by_the_name_that_its_data_has() {
    // Rendered without a preset, as by a version that knew none; a preset is named since.
    let mut world = World::new();
    let machine = path::machine("m");
    world.api.edit(&machine, &on_infrastructure("AWSMachine", "m"));
    world.api.edit(&machine, &with_dns_name());
    world.settle().await;
    let secret = world.api.get(&path::secret("m")).unwrap();
    assert_eq!(secret["metadata"]["annotations"][ours::NAME_SOURCE], Value::Null);
    world
        .api
        .edit(&config_path("m"), &json!({"spec": {"infraPreset": "AWS"}}));
    for lost in [false, true] {
        if lost {
            world
                .api
                .edit(&config_path("m"), &json!({"status": {"bootstrapData": null}}));
        }
        world.settle().await;
        let request = format!("csr-{lost}");
        world.ask(&request, "m", &world.token("m"));
        world.settle().await;
        assert_eq!(world.answer(&request).unwrap().0, "Approved");
    }
}

#[tokio::test]
async fn a_machine_whose_data_takes_the_host_name_keeps_to_it() {
    let mut world = World::new();
    let preset = |name: &str| json!({"spec": {"infraPreset": name}});
    world.api.edit(&path::machine("m"), &with_dns_name());
    world.api.edit(&config_path("m"), &preset("AWS"));
    world.settle().await;
    let secret = world.api.get(&path::secret("m")).unwrap();
    assert_eq!(secret["metadata"]["annotations"][ours::NAME_SOURCE], "Hostname");
    world.api.edit(&config_path("m"), &preset("None"));
    world.settle().await;
    world.ask("csr-dns", "ip-10-0-0-1.ec2.internal", &world.token("m"));
    world.settle().await;
    assert_eq!(world.answer("csr-dns").unwrap().0, "Approved");
}

#[tokio::test]
async fn bootstrap_54_the_check_of_the_version_is_that_of_the_topology_and_settings_are_those_of_the_version()
{
    // The Node of the test has v1.36.3.
    let topology = json!({"spec": {"topology": {"version": "v1.36.1"}}});
    let version = json!({"spec": {"version": "v1.36.1"}});
    for (exact, matches) in [(false, "True"), (true, "False")] {
        let mut world = World::new();
        world.api.edit(&path::machine("m"), &version);
        if exact {
            world.api.edit(&path::cluster("alpha"), &topology);
        }
        (world.boots, world.provider_id) = (true, true);
        world.settle().await;
        let (status, _, message) = world.condition("KubeletVersionMatch");
        assert_eq!(status, matches, "{message}");
        if exact {
            assert!(
                message.contains("v1.36.3") && message.contains("v1.36.1"),
                "{message}"
            );
        }
    }
    let mut world = World::new();
    let older = json!({"spec": {"version": "v1.35.4"}});
    world.api.edit(&path::machine("m"), &older);
    let newer = json!({"spec": {"kubelet": {"featureGates": {"NoSuchGate": true}}}});
    world.api.edit(&config_path("m"), &newer);
    world.settle().await;
    let (_, reason, message) = world.condition("SpecValid");
    assert_eq!(reason, "InvalidSpec");
    assert!(
        message.contains("NoSuchGate is unknown to kubelets of"),
        "{message}"
    );
    assert!(world.api.get(&path::secret("m")).is_none());
    world.api.requests();

    // A field that the kubelet ignores makes an Event, and a machine.
    let newer = json!({"spec": {"kubelet": {
        "featureGates": {"NoSuchGate": null}, "config": {"tlsCurvePreferences": ["X25519"]},
    }}});
    world.api.edit(&config_path("m"), &newer);
    world.settle().await;
    assert!(world.api.get(&path::secret("m")).is_some());
    let writes = world.api.requests();
    assert!(writes.iter().any(|write| write.contains("/events")), "{writes:?}");
}

#[tokio::test]
async fn claims_stay_one_at_a_time_when_the_kubeconfig_is_replaced() {
    let mut world = World::new();
    world.settle().await;
    let before = world.open().await;
    let path = &path::secret("alpha-kamaji-bootstrap");
    world.api.edit(path, &json!({"data": {"value": "bmV3"}}));
    let after = world.open().await;
    assert!(!Arc::ptr_eq(&before, &after) && Arc::ptr_eq(&before.claims, &after.claims));
}

#[tokio::test]
async fn the_bootstrap_data_of_a_default_config_is_as_released() {
    let mut world = World::new();
    world.settle().await;
    let data = world
        .api
        .get(&path::secret("m"))
        .expect("the Secret with the bootstrap data");
    crate::testing::goldens::check("kamajiconfig", [data]);
}
