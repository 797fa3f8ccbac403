//! Convergence of the controller in memory: real reconciles against an API server that forgets nothing. The test
//! plays the Deployment controller, the allocator of Service addresses, the datastore, and the API server of the
//! tenant.

mod addresses;
mod konnectivity;
mod loss;
mod slow;
mod space;
mod trust;
mod tunnel;

use std::sync::Arc;

use k8s_openapi::jiff::Timestamp;
use kamaji_api::{
    conditions::TenantControlPlaneCondition as On,
    datastore::DataStore,
    labels::{capi, field_manager, kamaji, ours},
    tenantcontrolplane::{TenantControlPlane, VersionPhase},
};
use parking_lot::Mutex;
use serde_json::{Value, json};

use super::{context::Context, reconcile::reconcile};
use crate::{
    hosting::{
        driver::{
            Access,
            admin::{Admin, memory::Memory},
        },
        engine::Engine,
        testing::{self, tenant as example, writes},
    },
    k8s::conditions,
    pki::{
        issue,
        kubeconfig::Kubeconfig,
        material::{Ca, Found},
        spec::AltNames,
    },
    runtime::driver::Outcome,
    settings::DefaultDatastore,
    tenant::{Connection, Server},
    testing::{Change, FakeApi, path},
};

const TENANT: &str = "/apis/kamaji.clastix.io/v1alpha1/namespaces/demo/tenantcontrolplanes/alpha";
const STORE: &str = "/apis/kamaji.clastix.io/v1alpha1/datastores/default";
const SERVICE: &str = "/api/v1/namespaces/demo/services/alpha";
const DEPLOYMENT: &str = "/apis/apps/v1/namespaces/demo/deployments/alpha";
const KUBE_SYSTEM: &str = "/api/v1/namespaces/kube-system";
/// Secrets of the trust roots: without them the tenant loses its nodes and tokens.
const ROOTS: [&str; 3] = [
    "alpha-ca",
    "alpha-front-proxy-ca-certificate",
    "alpha-sa-certificate",
];
/// Rounds within which everything has to converge.
const ROUNDS: usize = 20;

struct World {
    api: FakeApi,
    /// The API server of the tenant.
    tenant_api: FakeApi,
    store: Memory,
    engine: Arc<Engine>,
    context: Arc<Context>,
    /// Checks what is written.
    watcher: Mutex<addresses::Watcher>,
}

impl World {
    async fn new() -> Self {
        let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
        let api = FakeApi::default();
        api.edit(
            KUBE_SYSTEM,
            &json!({ "apiVersion": "v1", "kind": "Namespace", "metadata": { "name": "kube-system" } }),
        );
        let pem = json!({ "content": "eA==" });
        api.edit(
            STORE,
            &json!({
                "apiVersion": "kamaji.clastix.io/v1alpha1", "kind": "DataStore",
                "metadata": { "name": "default", "finalizers": [kamaji::DATASTORE_FINALIZER] },
                "spec": {
                    "driver": "etcd", "endpoints": ["etcd:2379"],
                    "tlsConfig": {
                        "certificateAuthority": { "certificate": pem, "privateKey": pem },
                        "clientCertificate": { "certificate": pem, "privateKey": pem },
                    },
                },
                "status": { "ready": true },
            }),
        );
        let mut tenant = example::tenant();
        tenant.metadata.uid = None;
        tenant.metadata.resource_version = None;
        tenant.spec.addons.core_dns = Some(kamaji_api::addons::AddonImage::default());
        let mut body = serde_json::to_value(&tenant).unwrap();
        body["apiVersion"] = json!("kamaji.clastix.io/v1alpha1");
        body["kind"] = json!("TenantControlPlane");
        api.edit(TENANT, &body);
        let (tenant_api, store) = (FakeApi::default(), Memory::default());
        tenant_api.edit("/readyz", &json!({ "metadata": {} }));
        let (engine, context) = start(&api, &tenant_api, &store).await;
        Self {
            api,
            tenant_api,
            store,
            engine,
            context,
            watcher: Mutex::default(),
        }
    }

    /// Starts a new process: everything is listed again.
    async fn restart(&mut self) {
        self.see(&self.api.changes());
        (self.engine, self.context) = start(&self.api, &self.tenant_api, &self.store).await;
    }

    /// Folds what changed and reconciles what is queued; `true` while anything happened.
    async fn round(&self) -> bool {
        play(&self.api);
        self.fold_and_reconcile().await
    }

    /// The same, while pods stay as they are.
    async fn fold_and_reconcile(&self) -> bool {
        let changes = self.api.changes();
        self.see(&changes);
        for change in &changes {
            testing::fold(&self.engine, change);
        }
        self.reconcile_due().await || !changes.is_empty()
    }

    /// Checks what was written.
    fn see(&self, changes: &[Change]) {
        let mut watcher = self.watcher.lock();
        for change in changes {
            watcher.see(change);
        }
        watcher.see_workload_cluster(self.tenant_api.get(addresses::KUBE_PROXY));
    }

    /// Reconciles what is queued; `true` when anything was.
    async fn reconcile_due(&self) -> bool {
        testing::turn(&self.engine.tenant_queue, async |key| {
            reconcile(&self.context, &key).await
        })
        .await
    }

    /// Queues another reconcile without a reason.
    fn wake(&self) {
        self.engine.tenant_queue.add(path::key("alpha"));
    }

    /// Changes the endpoint of the DataStore.
    fn change_endpoint(&self) {
        let elsewhere = json!({ "spec": { "endpoints": ["other:2379"] } });
        self.api.edit(STORE, &elsewhere);
        open(&self.api, &self.engine, &self.store);
    }

    /// Runs rounds until nothing happens any more; returns their number.
    async fn settle(&self) -> usize {
        for number in 0..ROUNDS {
            if !self.round().await {
                return number;
            }
        }
        panic!(
            "it does not converge: {:#?}\n{:#?}",
            self.api.requests(),
            self.api.get(TENANT)
        );
    }

    fn tenant(&self) -> TenantControlPlane {
        serde_json::from_value(self.api.get(TENANT).unwrap()).unwrap()
    }

    fn phase(&self) -> VersionPhase {
        let resources = self.tenant().status.unwrap().kubernetes_resources.unwrap();
        resources.version.unwrap().status
    }

    fn condition(&self, on: On) -> (String, String, String) {
        let status = self.tenant().status.unwrap();
        let found = conditions::get(&status.conditions, on.as_str()).unwrap();
        (found.status.clone(), found.reason.clone(), found.message.clone())
    }

    /// Paths of the objects that the engine made.
    fn made(&self) -> Vec<String> {
        let objects = self.api.objects();
        objects
            .iter()
            .filter(|o| o["metadata"]["labels"][ours::MANAGED_BY] == field_manager::HOSTING)
            .map(path_of)
            .collect()
    }

    fn assert_ready(&self) {
        assert_eq!(self.phase(), VersionPhase::Ready, "{:#?}", self.tenant().status);
        assert_eq!(
            self.condition(On::Ready).0,
            "True",
            "{:?}",
            self.condition(On::Ready)
        );
    }
}

/// All objects of the management cluster once a default tenant is ready, the tenant among them.
pub(in crate::hosting) async fn ready_objects() -> Vec<Value> {
    let world = World::new().await;
    world.settle().await;
    world.assert_ready();
    world.api.objects()
}

async fn start(api: &FakeApi, tenant_api: &FakeApi, store: &Memory) -> (Arc<Engine>, Arc<Context>) {
    let engine = testing::engine(api, DefaultDatastore::None).await;
    testing::list(&engine, api);
    open(api, &engine, store);
    let tenant_api = tenant_api.clone();
    let connect = move |_: &Kubeconfig, _: Server<'_>| {
        Ok(Connection::from_client(
            tenant_api.client(),
            field_manager::HOSTING,
        ))
    };
    let context = Context::with(engine.clone(), Box::new(connect));
    (engine, context)
}

/// Opens the datastore, as the DataStore controller does.
fn open(api: &FakeApi, engine: &Engine, store: &Memory) {
    let datastore: DataStore = serde_json::from_value(api.get(STORE).unwrap()).unwrap();
    let access = Access {
        id: Some("id".to_owned()),
        admin: Admin::Memory(store.clone()),
        endpoints: vec!["etcd:2379".to_owned()],
        ca: ca(),
    };
    engine.pool.put(&datastore, access);
}

/// The CA of the datastore, the same for every process.
fn ca() -> Ca {
    static PAIR: std::sync::OnceLock<(String, String)> = std::sync::OnceLock::new();
    let (certificate, key) = PAIR.get_or_init(|| {
        let made = issue::ca("etcd", &AltNames::default(), Timestamp::now()).unwrap();
        (made.cert_pem.clone(), made.key_pem.expose().to_owned())
    });
    let found = |text: &'static str, bytes: &'static str| Found {
        location: text.to_owned(),
        bytes: bytes.as_bytes(),
    };
    Ca::from_pem(&found("certificate", certificate), &found("key", key), None).unwrap()
}

/// Does what Kubernetes does: addresses for Services, pods for Deployments.
fn play(api: &FakeApi) {
    if api.get(SERVICE).is_some() {
        let addresses = json!({ "clusterIP": "10.0.0.7", "clusterIPs": ["10.0.0.7"] });
        api.edit(SERVICE, &json!({ "spec": addresses }));
    }
    if let Some(deployment) = api.get(DEPLOYMENT) {
        if deployment["metadata"]["deletionTimestamp"].is_string() {
            // The last pod is gone.
            api.edit(DEPLOYMENT, &json!({ "metadata": { "finalizers": [] } }));
            return;
        }
        let replicas = deployment["spec"]["replicas"].clone();
        api.edit(
            DEPLOYMENT,
            &json!({ "status": {
                "observedGeneration": deployment["metadata"]["generation"],
                "replicas": replicas, "updatedReplicas": replicas,
                "readyReplicas": replicas, "availableReplicas": replicas,
            } }),
        );
    }
}

fn path_of(object: &Value) -> String {
    let plural = match object["kind"].as_str().unwrap() {
        "NetworkPolicy" => "networkpolicies".to_owned(),
        kind => format!("{}s", kind.to_lowercase()),
    };
    let version = object["apiVersion"].as_str().unwrap();
    let root = if version == "v1" { "/api" } else { "/apis" };
    format!(
        "{root}/{version}/namespaces/demo/{plural}/{}",
        object["metadata"]["name"].as_str().unwrap()
    )
}

#[tokio::test]
async fn hosting_beyond_12_a_tenant_becomes_ready_within_its_budget_and_then_sends_no_request() {
    let world = World::new().await;
    let rounds = world.settle().await;
    world.assert_ready();
    let requests = world.api.requests();
    assert!(rounds <= 6, "{rounds} rounds");
    assert!(requests.len() <= 40, "{} requests: {requests:#?}", requests.len());
    let deployment = world.api.get(DEPLOYMENT).unwrap();
    assert_eq!(
        deployment["metadata"]["generation"], 1,
        "one revision for a new tenant"
    );
    assert_eq!(world.store.schemas().len(), 1);

    world.store.calls();
    world.tenant_api.requests();
    world.wake();
    world.settle().await;
    assert_eq!(world.api.requests(), Vec::<String>::new());
    assert_eq!(world.tenant_api.requests(), Vec::<String>::new());
    assert_eq!(world.store.calls(), 0);
}

#[tokio::test]
async fn a_restart_sends_no_write_and_no_request_to_tenant_or_datastore() {
    let mut world = World::new().await;
    world.settle().await;
    world.api.requests();
    world.tenant_api.requests();
    world.store.calls();
    world.restart().await;
    world.settle().await;
    let requests = world.api.requests();
    assert_eq!(requests, ["GET /api/v1/namespaces/kube-system"]);
    assert_eq!(world.tenant_api.requests(), Vec::<String>::new());
    assert_eq!(world.store.calls(), 0);
}

#[tokio::test]
async fn hosting_beyond_10_a_crash_after_any_write_converges() {
    let reference = World::new().await;
    reference.settle().await;
    let expected = reference.made();
    let total = writes(&reference.api.requests()).len();
    for lives in 0..total {
        let mut world = World::new().await;
        world.api.die_after(Some(lives));
        for _ in 0..6 {
            world.round().await;
        }
        let ca = world.api.get(&path::secret("alpha-ca"));
        world.api.die_after(None);
        world.restart().await;
        world.settle().await;
        world.assert_ready();
        assert_eq!(world.made(), expected, "after {lives} writes");
        assert_eq!(world.store.schemas().len(), 1, "one schema after {lives} writes");
        let deployment = world.api.get(DEPLOYMENT).unwrap();
        assert_eq!(
            deployment["metadata"]["generation"], 1,
            "one revision after {lives} writes"
        );
        if let Some(ca) = ca {
            let now = world.api.get(&path::secret("alpha-ca")).unwrap();
            assert_eq!(now["data"], ca["data"], "the CA after {lives} writes");
        }
    }
}

#[tokio::test]
async fn a_power_that_authors_do_not_have_is_refused_and_what_runs_goes_on() {
    let world = World::new().await;
    world.settle().await;
    let deployment = world.api.get(DEPLOYMENT);
    let volumes = |volumes: Value| json!({ "spec": { "controlPlane": { "deployment": { "additionalVolumes": volumes } } } });
    world.api.edit(
        TENANT,
        &volumes(json!([{ "name": "a", "hostPath": { "path": "/" } }])),
    );
    world.settle().await;
    let (status, reason, message) = world.condition(On::SpecValid);
    assert_eq!(
        (status.as_str(), reason.as_str()),
        ("False", "NotAllowed"),
        "{message}"
    );
    assert_eq!(world.api.get(DEPLOYMENT), deployment);
    world.api.edit(TENANT, &volumes(Value::Null));
    world.settle().await;
    world.assert_ready();
}

#[tokio::test]
async fn any_foreign_edit_is_repaired() {
    let world = World::new().await;
    world.settle().await;
    for path in world.made() {
        let before = world.api.get(&path).unwrap();
        let edit = match before["kind"].as_str().unwrap() {
            // A trust root is reported, and not generated again.
            "Secret" if ROOTS.iter().any(|name| path.ends_with(name)) => continue,
            _ if let Some(data) = before["data"].as_object() => {
                let key = data.keys().next().unwrap();
                json!({ "data": { key: "Zm9yZWlnbg==" } })
            }
            "Deployment" => json!({ "spec": { "replicas": 7 } }),
            "PodDisruptionBudget" => json!({ "spec": { "maxUnavailable": 2 } }),
            "NetworkPolicy" => json!({ "spec": { "ingress": [] } }),
            _ => json!({ "spec": { "selector": { "kamaji.clastix.io/name": "other" } } }),
        };
        world.api.edit(&path, &edit);
        world.settle().await;
        let after = world.api.get(&path).unwrap();
        // Data of a Secret may be new, but is not what the edit put there.
        assert!(!after["data"].to_string().contains("Zm9yZWlnbg=="), "{path}");
        assert_eq!(after["spec"], before["spec"], "{path}");
        world.api.delete(&path);
        world.settle().await;
        assert!(world.api.get(&path).is_some(), "{path} was not created again");
    }
    world.assert_ready();
}

#[tokio::test]
async fn what_a_restore_stripped_of_its_owner_is_owned_again() {
    let mut world = World::new().await;
    world.settle().await;
    let uid = json!(world.tenant().metadata.uid.unwrap());
    let made = world.made();
    let orphaned = async |world: &World| {
        for path in &made {
            world
                .api
                .edit(path, &json!({ "metadata": { "ownerReferences": null } }));
        }
    };
    for restarted in [false, true] {
        orphaned(&world).await;
        if restarted {
            world.restart().await;
        }
        world.settle().await;
        for path in &made {
            let owners = world.api.get(path).unwrap()["metadata"]["ownerReferences"].clone();
            assert_eq!(owners[0]["uid"], uid, "{path}, restarted: {restarted}");
        }
        world.assert_ready();
    }
    // Nothing stays behind that had no owner when the deletion began.
    orphaned(&world).await;
    world.api.delete(TENANT);
    world.settle().await;
    assert_eq!(world.made(), Vec::<String>::new());
}

#[tokio::test]
async fn hosting_beyond_01_deletion_leaves_nothing_and_never_touches_an_object_of_a_user() {
    let world = World::new().await;
    let before = world.api.objects().len() - 1;
    world.settle().await;
    world.api.delete(TENANT);
    world.round().await;
    assert_eq!(world.condition(On::Deleting).1, "WaitingForPodsDeletion");
    assert_eq!(
        world.store.schemas().len(),
        1,
        "the data stays while pods write it"
    );
    world.settle().await;
    let left: Vec<Value> = world.api.objects();
    assert_eq!(left.len(), before, "{left:#?}");
    assert!(world.store.schemas().is_empty());
}

#[tokio::test]
async fn the_data_is_deleted_in_the_datastore_that_holds_it_whatever_the_spec_names() {
    let world = World::new().await;
    world.settle().await;
    world
        .api
        .edit(TENANT, &json!({ "spec": { "dataStore": "silver" } }));
    world.settle().await;
    assert_eq!(world.condition(On::DataStoreReady).1, "MigrationNotSupported");
    world.api.delete(TENANT);
    world.settle().await;
    assert!(world.api.get(TENANT).is_none());
    assert!(
        world.store.schemas().is_empty(),
        "nothing is left in the former DataStore"
    );
}

#[tokio::test]
async fn a_datastore_that_is_down_is_reported_and_blocks_nothing() {
    let world = World::new().await;
    world.settle().await;
    let ready = |ready: bool| json!({ "status": { "ready": ready } });
    world.api.edit(STORE, &ready(false));
    world.round().await;
    world.wake();
    world.settle().await;
    let (status, reason, message) = world.condition(On::DataStoreReady);
    assert_eq!((status.as_str(), reason.as_str()), ("False", "DataStoreNotReady"));
    assert!(message.contains("\"default\""), "{message}");
    assert_eq!(world.condition(On::Available).0, "True", "its pods serve");
    world.api.delete(DEPLOYMENT);
    world.settle().await;
    assert!(
        world.api.get(DEPLOYMENT).is_some(),
        "what does not need the datastore is still reconciled"
    );
    world.api.edit(STORE, &ready(true));
    world.round().await;
    world.wake();
    world.settle().await;
    world.assert_ready();
}

#[tokio::test]
async fn in_a_datastore_that_lost_the_data_no_empty_schema_is_created() {
    let world = World::new().await;
    world.settle().await;
    let held = world.store.empty();
    let deployment = world.api.get(DEPLOYMENT);
    world.change_endpoint();
    let look = async || {
        world.wake();
        some_rounds(&world).await;
    };
    look().await;
    let (status, reason, message) = world.condition(On::DataStoreReady);
    assert_eq!((status.as_str(), reason.as_str()), ("False", "DataMissing"));
    assert!(
        message.contains("set spec.endpoints of DataStore default to the datastore that holds it"),
        "{message}"
    );
    assert!(world.store.schemas().is_empty(), "nothing was created there");
    assert_eq!(
        world.api.get(DEPLOYMENT),
        deployment,
        "the pods still use the former endpoint"
    );
    world.store.restore(held);
    look().await;
    world.settle().await;
    world.assert_ready();
}

#[tokio::test]
async fn a_tenant_that_comes_back_with_its_keys_and_without_its_status_gets_no_empty_schema() {
    let mut world = World::new().await;
    world.settle().await;
    let held = world.store.empty();
    // A backup has no status, and neither has what clusterctl creates at the target of a move.
    world.api.edit(TENANT, &json!({ "status": null }));
    world.restart().await;
    world.wake();
    some_rounds(&world).await;
    let (status, reason, message) = world.condition(On::DataStoreReady);
    assert_eq!(
        (status.as_str(), reason.as_str()),
        ("False", "DataMissing"),
        "{message}"
    );
    assert!(message.contains("alpha-sa-certificate"), "{message}");
    assert!(message.contains("delete these Secrets"), "{message}");
    assert!(world.store.schemas().is_empty(), "nothing was created there");
    world.store.restore(held);
    world.wake();
    some_rounds(&world).await;
    world.settle().await;
    world.assert_ready();
}

#[tokio::test]
async fn a_tenant_whose_pods_fail_because_its_data_is_lost_reports_it() {
    let world = World::new().await;
    world.settle().await;
    let held = world.store.empty();
    let pods = async |ready: usize| {
        let status = json!({ "readyReplicas": ready, "availableReplicas": ready, "updatedReplicas": 2, "replicas": 2 });
        world.api.edit(DEPLOYMENT, &json!({ "status": status }));
        for change in world.api.changes() {
            testing::fold(&world.engine, &change);
        }
        // Every failure of a container wakes the tenant.
        world.wake();
        open(&world.api, &world.engine, &world.store);
        world.reconcile_due().await;
    };
    for again in 0..3 {
        pods(0).await;
        let reported = world.condition(On::DataStoreReady);
        assert_eq!(
            (reported.0.as_str(), reported.1.as_str()),
            ("False", "DataMissing"),
            "{again}"
        );
    }
    assert!(world.store.schemas().is_empty(), "nothing was created there");
    world.store.restore(held);
    pods(0).await;
    assert_eq!(
        world.condition(On::DataStoreReady).0,
        "True",
        "a backup was restored"
    );
    world.store.calls();
    pods(0).await;
    assert_eq!(world.store.calls(), 0, "the datastore is not asked any more");
    world.settle().await;
    world.assert_ready();
}

#[tokio::test]
async fn a_datastore_with_holes_takes_no_new_tenant_until_it_is_upgraded_or_accepted() {
    let accept = json!({ "metadata": { "annotations": { ours::ACCEPT_ETCD_VERSION: "3.6.5" } } });
    for accepted in [false, true] {
        let world = World::new().await;
        world.store.upgrade("3.6.5");
        world.settle().await;
        let (status, reason, message) = world.condition(On::DataStoreReady);
        assert_eq!(
            (status.as_str(), reason.as_str()),
            ("False", "DataStoreVersionUnsafe")
        );
        assert!(message.contains("upgrade etcd to 3.6.14 or newer"), "{message}");
        assert!(world.store.schemas().is_empty(), "nothing was created there");
        assert!(world.api.get(DEPLOYMENT).is_none());
        if accepted {
            world.api.edit(STORE, &accept);
            open(&world.api, &world.engine, &world.store);
        } else {
            world.store.upgrade("3.6.14");
        }
        world.wake();
        world.settle().await;
        world.assert_ready();
    }
}

#[tokio::test]
async fn the_datastore_is_told_when_it_does_not_serve_a_tenant() {
    let world = World::new().await;
    world.store.refuse_tenants(true);
    world.settle().await;
    world.assert_ready();
    let mut queued = Vec::new();
    while !world.engine.store_queue.is_empty() {
        let key = world.engine.store_queue.next().await;
        world.engine.store_queue.done(key.clone(), None);
        queued.push(key.name);
    }
    assert_eq!(queued, ["default"]);
}

#[tokio::test]
async fn tenants_of_a_datastore_with_holes_go_on() {
    let mut world = World::new().await;
    world.settle().await;
    world.store.upgrade("3.6.5");
    world.restart().await;
    world.settle().await;
    world.assert_ready();
    world.api.delete(DEPLOYMENT);
    world.settle().await;
    world.assert_ready();
    // Schema and user are created again.
    world.change_endpoint();
    world.wake();
    world.settle().await;
    world.assert_ready();
    world.api.delete(TENANT);
    world.settle().await;
    assert!(world.store.schemas().is_empty());
}

#[tokio::test]
async fn a_datastore_whose_deletion_waits_still_serves_its_tenants() {
    let world = World::new().await;
    world.settle().await;
    world
        .api
        .edit(STORE, &json!({ "metadata": { "finalizers": ["tenants"] } }));
    world.api.delete(STORE);
    open(&world.api, &world.engine, &world.store);
    world.settle().await;
    world.api.delete(DEPLOYMENT);
    world.settle().await;
    assert!(world.api.get(DEPLOYMENT).is_some());
    world.assert_ready();
    // The connection was dropped while no pod was ready.
    open(&world.api, &world.engine, &world.store);
    world.api.delete(TENANT);
    world.settle().await;
    assert!(world.api.get(TENANT).is_none());
    assert!(world.store.schemas().is_empty());
}

#[tokio::test]
async fn an_edit_of_the_datastore_does_not_block_a_deletion_that_waits_for_objects() {
    let world = World::new().await;
    world.settle().await;
    let held_by = |finalizers: Value| json!({ "metadata": { "finalizers": finalizers } });
    world.api.edit(SERVICE, &held_by(json!(["load-balancer"])));
    world.api.delete(TENANT);
    some_rounds(&world).await;
    assert!(world.store.schemas().is_empty());
    assert_eq!(world.condition(On::Deleting).1, "WaitingForObjectsDeletion");
    world.change_endpoint();
    some_rounds(&world).await;
    world.api.edit(SERVICE, &held_by(json!([])));
    some_rounds(&world).await;
    assert!(
        world.api.get(TENANT).is_none(),
        "{:#?}",
        world.condition(On::Deleting)
    );
}

#[tokio::test]
async fn data_that_the_datastore_does_not_hold_does_not_count_as_deleted() {
    let world = World::new().await;
    world.settle().await;
    let held = world.store.empty();
    world.change_endpoint();
    world.api.delete(TENANT);
    some_rounds(&world).await;
    let (_, reason, message) = world.condition(On::Deleting);
    assert_eq!(reason, "DataMissing");
    assert!(
        message.contains("spec.endpoints of DataStore default")
            && message.contains("capi-kamaji.io/abandon-data"),
        "{message}"
    );
    world.store.restore(held);
    for _ in 0..6 {
        world.round().await;
    }
    assert!(world.api.get(TENANT).is_none());
    assert!(
        world.store.schemas().is_empty(),
        "deleted in the datastore that holds it"
    );
}

#[tokio::test]
async fn a_tenant_that_waits_for_a_change_still_checks_its_certificates() {
    let world = World::new().await;
    world.settle().await;
    world.api.edit(
        TENANT,
        &json!({ "spec": { "kubernetes": { "version": "v1.38.0" } } }),
    );
    world.round().await;
    let key = path::key("alpha");
    let outcome = reconcile(&world.context, &key).await.unwrap();
    assert!(matches!(outcome, Outcome::After(_)), "{outcome:?}");
}

#[tokio::test]
async fn hosting_beyond_11_deletion_names_the_datastore_it_waits_for_until_the_data_is_abandoned() {
    let world = World::new().await;
    world.settle().await;
    world.store.down(true);
    world.api.delete(TENANT);
    for _ in 0..4 {
        // A failed connection was dropped.
        open(&world.api, &world.engine, &world.store);
        world.round().await;
    }
    let (status, reason, message) = world.condition(On::Deleting);
    assert_eq!(
        (status.as_str(), reason.as_str()),
        ("True", "WaitingForDataStore")
    );
    assert!(message.contains("capi-kamaji.io/abandon-data"), "{message}");
    assert!(
        world.api.get(&path::secret("alpha-ca")).is_some(),
        "the objects are kept as long as the data"
    );
    world.api.edit(
        TENANT,
        &json!({ "metadata": { "annotations": { ours::ABANDON_DATA: "true" } } }),
    );
    for _ in 0..6 {
        world.round().await;
    }
    assert!(world.api.get(TENANT).is_none());
    assert_eq!(world.store.schemas().len(), 1, "the data was left behind");
}

#[tokio::test]
async fn hosting_peer_10_sleep_keeps_everything_and_wake_changes_nothing() {
    let world = World::new().await;
    world.settle().await;
    let made = world.made();
    let ca = world.api.get(&path::secret("alpha-ca")).unwrap();
    let scale =
        |replicas: i32| json!({ "spec": { "controlPlane": { "deployment": { "replicas": replicas } } } });
    world.api.edit(TENANT, &scale(0));
    world.settle().await;
    assert_eq!(world.phase(), VersionPhase::Sleeping);
    assert_eq!(world.condition(On::Available).1, "Sleeping");
    // A tenant with 0 replicas cannot skip a minor.
    let to = |version: &str| json!({ "spec": { "kubernetes": { "version": version } } });
    world.api.edit(TENANT, &to("v1.37.0"));
    world.settle().await;
    assert_eq!(world.condition(On::SpecValid).0, "True");
    world.api.edit(TENANT, &to("v1.38.0"));
    world.settle().await;
    assert_eq!(world.condition(On::SpecValid).1, "VersionStepTooLarge");
    world.api.edit(TENANT, &to("v1.36.3"));
    world.api.edit(TENANT, &scale(2));
    world.settle().await;
    world.assert_ready();
    assert_eq!(world.made(), made);
    assert_eq!(
        world.api.get(&path::secret("alpha-ca")).unwrap()["data"],
        ca["data"]
    );
}

#[tokio::test]
async fn what_a_tenants_admin_deletes_is_restored_by_the_daily_audit_and_not_before() {
    let world = World::new().await;
    world.settle().await;
    let key = path::key("alpha");
    let path = "/apis/rbac.authorization.k8s.io/v1/clusterrolebindings/kubeadm:cluster-admins";
    let before = world.tenant_api.get(path).unwrap();
    world.tenant_api.delete(path);
    world.engine.tenant_queue.add(key.clone());
    world.settle().await;
    assert!(
        world.tenant_api.get(path).is_none(),
        "a tenant without changes is not asked"
    );
    world.context.set_audit(&key, Timestamp::now());
    world.api.requests();
    world.engine.tenant_queue.add(key.clone());
    world.settle().await;
    assert_eq!(
        world.tenant_api.get(path).unwrap()["subjects"],
        before["subjects"]
    );
    assert_eq!(
        world.api.requests(),
        Vec::<String>::new(),
        "there is nothing to report"
    );
    let next = world.context.audit_at(&key, Timestamp::now());
    let hours = (next.as_second() - Timestamp::now().as_second()) / 3600;
    assert!((21..=27).contains(&hours), "again after a day: {hours} h");
}

#[tokio::test]
async fn the_cause_of_failing_pods_stays_reported_between_two_restarts() {
    let world = World::new().await;
    world.settle().await;
    // The new pod of a rollout has no image. The Deployment itself reports it after ten minutes.
    let rolling = json!({ "status": { "updatedReplicas": 0, "readyReplicas": 1, "replicas": 2 } });
    let pod = |state: Value| {
        json!({
            "apiVersion": "v1", "kind": "Pod",
            "metadata": {
                "name": "alpha-1", "namespace": "demo",
                "labels": { ours::MANAGED_BY: field_manager::HOSTING, "kamaji.clastix.io/name": "alpha" },
            },
            "status": { "containerStatuses": [{
                "name": "kube-apiserver", "image": "r/apiserver:v9", "imageID": "", "ready": false, "restartCount": 0,
                "state": state,
            }] },
        })
    };
    let round = async |state: Value| {
        world
            .api
            .edit("/api/v1/namespaces/demo/pods/alpha-1", &pod(state));
        world.api.edit(DEPLOYMENT, &rolling);
        for change in world.api.changes() {
            testing::fold(&world.engine, &change);
        }
        world.reconcile_due().await;
    };
    round(json!({ "waiting": { "reason": "ImagePullBackOff" } })).await;
    let reported = world.condition(On::DeploymentReady);
    assert_eq!(
        (reported.0.as_str(), reported.1.as_str()),
        ("False", "PodsFailing")
    );
    assert!(
        reported.2.contains("kube-apiserver") && reported.2.contains("r/apiserver:v9"),
        "{}",
        reported.2
    );
    assert_eq!(world.condition(On::Ready).1, "PodsFailing");
    world.api.requests();
    round(json!({ "waiting": null, "running": {} })).await;
    assert_eq!(
        world.condition(On::DeploymentReady),
        reported,
        "it only looks healthy"
    );
    assert_eq!(writes(&world.api.requests()), Vec::<&String>::new());
    world.settle().await;
    world.assert_ready();
}

#[tokio::test]
async fn a_complete_upgrade_is_reported_and_a_refused_one_changes_nothing() {
    let world = World::new().await;
    world.settle().await;
    let to = |version: &str| json!({ "spec": { "kubernetes": { "version": version } } });
    world.api.edit(TENANT, &to("v1.38.0"));
    world.settle().await;
    assert_eq!(world.condition(On::SpecValid).1, "VersionStepTooLarge");
    assert_eq!(world.phase(), VersionPhase::Ready);
    let image = |world: &World| {
        let pod = &world.api.get(DEPLOYMENT).unwrap()["spec"]["template"]["spec"];
        pod["containers"][0]["image"].as_str().unwrap().to_owned()
    };
    assert!(image(&world).ends_with(":v1.36.3"));
    world.api.edit(TENANT, &to("v1.37.0"));
    world.settle().await;
    world.assert_ready();
    assert!(image(&world).ends_with(":v1.37.0"));
    let status = world.tenant().status.unwrap();
    let version = status.kubernetes_resources.unwrap().version.unwrap().version;
    assert_eq!(version.as_deref(), Some("v1.37.0"));
}

#[tokio::test]
async fn a_ca_that_the_user_provides_is_used_never_owned_and_outlives_the_tenant() {
    let world = World::new().await;
    let made = issue::ca("corp", &AltNames::default(), Timestamp::now()).unwrap();
    let other = issue::ca("other", &AltNames::default(), Timestamp::now()).unwrap();
    let encode = |text: &str| {
        use base64::Engine as _;
        base64::engine::general_purpose::STANDARD.encode(text)
    };
    let secret = |key: &str| {
        json!({
            "apiVersion": "v1", "kind": "Secret",
            "metadata": { "name": "alpha-ca", "namespace": "demo" },
            "data": { "tls.crt": encode(&made.cert_pem), "tls.key": encode(key) },
        })
    };
    let path = path::secret("alpha-ca");
    world.api.edit(&path, &secret(other.key_pem.expose()));
    for _ in 0..4 {
        world.round().await;
    }
    let (_, reason, message) = world.condition(On::CertificatesAvailable);
    assert_eq!(reason, "CertificateAuthorityKeyMismatch");
    assert!(
        message.contains("demo/alpha-ca") && message.contains("tls.key"),
        "{message}"
    );

    world.api.edit(&path, &secret(made.key_pem.expose()));
    let before = world.api.get(&path).unwrap();
    world.settle().await;
    world.assert_ready();
    let body = world.api.get(DEPLOYMENT).unwrap().to_string();
    assert!(
        !body.contains("\"ca.key\",\"path\""),
        "the Secret has only Cluster API's keys"
    );
    world.api.delete(TENANT);
    world.settle().await;
    assert_eq!(world.api.get(&path).unwrap(), before, "it was not touched");
}

#[tokio::test]
async fn the_source_cluster_of_a_move_keeps_the_data() {
    let world = World::new().await;
    world.settle().await;
    let moved = capi::DELETE_FOR_MOVE;
    world
        .api
        .edit(TENANT, &json!({ "metadata": { "annotations": { moved: "" } } }));
    world.api.delete(TENANT);
    world.settle().await;
    assert!(world.api.get(TENANT).is_none());
    assert_eq!(world.store.schemas().len(), 1);
}

/// Runs a few rounds, where a reconcile fails for ever.
async fn some_rounds(world: &World) {
    for _ in 0..5 {
        world.round().await;
    }
}

#[tokio::test]
async fn an_object_of_somebody_else_under_our_name_is_kept_and_reported() {
    let reference = World::new().await;
    reference.settle().await;
    // One that no watch selects, and one that the watch of provided CAs does.
    let labels = [json!({ "app": "web" }), json!({ capi::CLUSTER_NAME: "alpha" })];
    for (path, labels) in reference
        .made()
        .into_iter()
        .flat_map(|path| labels.clone().map(|labels| (path.clone(), labels)))
    {
        if path.ends_with("/alpha-ca") {
            // A CA that the user provides is used.
            continue;
        }
        let ours = reference.api.get(&path).unwrap();
        let world = World::new().await;
        let theirs = json!({
            "apiVersion": ours["apiVersion"], "kind": ours["kind"],
            "metadata": { "name": ours["metadata"]["name"], "namespace": "demo", "labels": labels },
            "spec": { "selector": { "app": "web" }, "clusterIP": "10.0.0.7", "clusterIPs": ["10.0.0.7"] },
        });
        world.api.edit(&path, &theirs);
        let about = |world: &World| {
            let object = world.api.get(&path).unwrap();
            let meta = object["metadata"].clone();
            [
                meta["uid"].clone(),
                meta["labels"].clone(),
                meta["ownerReferences"].clone(),
                meta["annotations"].clone(),
                object["spec"].clone(),
                object["data"].clone(),
            ]
        };
        let before = about(&world);
        some_rounds(&world).await;
        assert_eq!(about(&world), before, "{path}");
        let conditions = world.tenant().status.unwrap().conditions;
        let reported = conditions.iter().find(|c| c.reason == "OwnedByAnother").unwrap();
        let name = format!(
            "{} demo/{}",
            ours["kind"].as_str().unwrap(),
            path.rsplit('/').next().unwrap()
        );
        assert!(
            reported.message.contains(&format!(
                "{name} exists and does not belong to this TenantControlPlane"
            )),
            "{}",
            reported.message
        );
        world.api.delete(TENANT);
        some_rounds(&world).await;
        assert!(world.api.get(TENANT).is_none(), "{path}");
        assert_eq!(about(&world), before, "{path} outlives the tenant");
    }
}

#[tokio::test]
async fn an_object_of_upstream_kamaji_without_an_owner_is_adopted() {
    let world = World::new().await;
    world.api.edit(
        SERVICE,
        &json!({
            "apiVersion": "v1", "kind": "Service",
            "metadata": { "name": "alpha", "namespace": "demo", "labels": {
                "kamaji.clastix.io/project": "kamaji", "kamaji.clastix.io/name": "alpha",
            } },
        }),
    );
    world.settle().await;
    world.assert_ready();
    let service = world.api.get(SERVICE).unwrap();
    assert_eq!(service["metadata"]["ownerReferences"][0]["name"], "alpha");
}

/// Digest of a trust root, as the status records it.
fn checksum(world: &World, root: &str) -> String {
    let made = world.tenant().status.unwrap().certificates.unwrap();
    let entry = match root {
        "alpha-ca" => made.ca,
        "alpha-sa-certificate" => made.sa,
        _ => made.front_proxy_ca,
    };
    entry.unwrap().checksum.unwrap()
}

#[tokio::test]
async fn a_trust_root_is_never_replaced_unless_the_user_gives_it_up() {
    for root in ROOTS {
        let mut world = World::new().await;
        world.settle().await;
        let path = path::secret(root);
        let before = world.api.get(&path).unwrap();
        let runs = |world: &World| {
            let leaves = world.made().into_iter().filter(|p| !p.ends_with(root));
            let of = |path: String| {
                let object = world.api.get(&path).unwrap();
                [object["spec"].clone(), object["data"].clone()]
            };
            leaves.map(of).collect::<Vec<_>>()
        };
        let running = runs(&world);
        let hash = checksum(&world, root);
        let assert_reported = |world: &World, what: &str| {
            let (status, reason, message) = world.condition(On::CertificatesAvailable);
            assert_eq!(
                (status.as_str(), reason.as_str()),
                ("False", "CertificateAuthorityLost"),
                "{root}: {message}"
            );
            assert!(
                message.starts_with(&format!("Secret demo/{root} {what}"))
                    && message.contains(&format!("{}={hash}", ours::ACCEPT_NEW_IDENTITY)),
                "{message}"
            );
            assert_eq!(world.condition(On::Available).0, "True", "its pods serve");
            assert_eq!(runs(world), running, "{root} {what}: nothing else changed");
        };

        let key = before["data"].as_object().unwrap().keys().next().unwrap();
        world.api.edit(&path, &json!({ "data": { key: "Zm9yZWlnbg==" } }));
        some_rounds(&world).await;
        assert_reported(&world, "was modified");
        world.restart().await;
        some_rounds(&world).await;
        assert_reported(&world, "was modified");
        world.api.edit(&path, &before);
        world.settle().await;
        world.assert_ready();

        world.api.delete(&path);
        some_rounds(&world).await;
        assert_reported(&world, "is gone");
        assert!(world.api.get(&path).is_none());
        // A backup with upstream Kamaji's labels, but without our label and without an owner.
        let mut backup = before.clone();
        backup["metadata"]["labels"]
            .as_object_mut()
            .unwrap()
            .remove(ours::MANAGED_BY);
        backup["metadata"]["ownerReferences"] = json!([]);
        world.api.edit(&path, &backup);
        world.settle().await;
        world.assert_ready();
        let back = world.api.get(&path).unwrap();
        assert_eq!(back["data"], before["data"]);
        assert_eq!(back["metadata"]["labels"], before["metadata"]["labels"]);
        assert_eq!(
            back["metadata"]["ownerReferences"],
            before["metadata"]["ownerReferences"]
        );
        assert_eq!(runs(&world), running, "{root} came back");

        world.api.delete(&path);
        some_rounds(&world).await;
        let given_up =
            json!({ "metadata": { "annotations": { ours::ACCEPT_NEW_IDENTITY: format!("x, {hash}") } } });
        world.api.edit(TENANT, &given_up);
        world.settle().await;
        world.assert_ready();
        assert_ne!(world.api.get(&path).unwrap()["data"], before["data"], "a new one");
        // The next loss is reported again.
        world.api.delete(&path);
        some_rounds(&world).await;
        assert_eq!(
            world.condition(On::CertificatesAvailable).1,
            "CertificateAuthorityLost"
        );
    }
}

#[tokio::test]
async fn a_trust_root_that_only_lost_its_label_is_labelled_again_and_no_key_is_generated() {
    let world = World::new().await;
    world.settle().await;
    for root in ROOTS {
        let path = path::secret(root);
        let before = world.api.get(&path).unwrap();
        let unlabelled = json!({ "metadata": { "labels": { ours::MANAGED_BY: null } } });
        world.api.edit(&path, &unlabelled);
        world.settle().await;
        let after = world.api.get(&path).unwrap();
        assert_eq!(after["data"], before["data"], "{root}");
        assert_eq!(
            after["metadata"]["labels"], before["metadata"]["labels"],
            "{root}"
        );
        // When its content changed as well, it does not count as the former one.
        let key = before["data"].as_object().unwrap().keys().next().unwrap();
        let notes = json!({ ours::CONTENT_HASH: null, "kamaji.clastix.io/checksum": null });
        let other = json!({ "data": { key: "Zm9yZWlnbg==" }, "metadata": { "annotations": notes } });
        world.api.edit(&path, &other);
        world.api.edit(&path, &unlabelled);
        some_rounds(&world).await;
        let (_, reason, message) = world.condition(On::CertificatesAvailable);
        assert_eq!(reason, "CertificateAuthorityLost", "{root}: {message}");
        world.api.edit(&path, &before);
        world.settle().await;
        world.assert_ready();
    }
}

#[tokio::test]
async fn a_modified_trust_root_is_used_once_the_user_gives_up_the_former_one() {
    let world = World::new().await;
    world.settle().await;
    let hash = checksum(&world, "alpha-ca");
    let made = issue::ca("corp", &AltNames::default(), Timestamp::now()).unwrap();
    let encode = |text: &str| {
        use base64::Engine as _;
        base64::engine::general_purpose::STANDARD.encode(text)
    };
    let (certificate, key) = (encode(&made.cert_pem), encode(made.key_pem.expose()));
    let path = path::secret("alpha-ca");
    world.api.edit(
        &path,
        &json!({ "data": { "ca.crt": certificate, "ca.key": key, "tls.crt": certificate, "tls.key": key } }),
    );
    let given_up = json!({ "metadata": { "annotations": { ours::ACCEPT_NEW_IDENTITY: hash } } });
    world.api.edit(TENANT, &given_up);
    world.settle().await;
    world.assert_ready();
    let secret = world.api.get(&path).unwrap();
    assert_eq!(secret["data"]["tls.crt"], json!(certificate));
    assert_eq!(
        secret["metadata"]["annotations"][ours::CA_FINGERPRINT],
        made.fingerprint
    );
    let leaf = world
        .api
        .get(&path::secret("alpha-api-server-certificate"))
        .unwrap();
    assert_eq!(
        leaf["metadata"]["annotations"][ours::CA_FINGERPRINT],
        made.fingerprint
    );
    assert_ne!(checksum(&world, "alpha-ca"), hash);
}

#[tokio::test]
async fn an_expired_ca_is_reported_with_its_secret() {
    let world = World::new().await;
    let long_ago: Timestamp = "2010-01-01T00:00:00Z".parse().unwrap();
    let made = issue::ca("corp", &AltNames::default(), long_ago).unwrap();
    let encode = |text: &str| {
        use base64::Engine as _;
        base64::engine::general_purpose::STANDARD.encode(text)
    };
    world.api.edit(
        &path::secret("alpha-ca"),
        &json!({
            "apiVersion": "v1", "kind": "Secret",
            "metadata": { "name": "alpha-ca", "namespace": "demo" },
            "data": { "tls.crt": encode(&made.cert_pem), "tls.key": encode(made.key_pem.expose()) },
        }),
    );
    some_rounds(&world).await;
    let (_, reason, message) = world.condition(On::CertificatesAvailable);
    assert_eq!(reason, "CertificateAuthorityExpired");
    assert!(
        message.contains("Secret demo/alpha-ca") && message.contains("2020-01-01"),
        "{message}"
    );
}

#[tokio::test]
async fn the_network_policy_follows_its_annotation() {
    let world = World::new().await;
    world.settle().await;
    let path = "/apis/networking.k8s.io/v1/namespaces/demo/networkpolicies/alpha";
    let switch = |value: &str| json!({ "metadata": { "annotations": { ours::NETWORK_POLICY: value } } });
    assert!(world.api.get(path).is_some());
    world.api.edit(TENANT, &switch("disabled"));
    world.settle().await;
    assert!(world.api.get(path).is_none());
    world.assert_ready();
    world.api.edit(TENANT, &switch("enabled"));
    world.settle().await;
    assert!(world.api.get(path).is_some());
}

#[tokio::test]
async fn what_is_applied_for_a_default_tenant_is_as_released() {
    let world = World::new().await;
    // Generated otherwise.
    let names = json!({ "spec": { "dataStoreSchema": "demo_alpha", "dataStoreUsername": "demo_alpha" } });
    world.api.edit(TENANT, &names);
    world.settle().await;
    world.assert_ready();
    let hosted = world.api.objects();
    let hosted = hosted
        .into_iter()
        .filter(|object| object["metadata"]["labels"][ours::MANAGED_BY] == field_manager::HOSTING);
    let of_cluster = world.tenant_api.objects();
    let of_cluster = of_cluster.into_iter().filter(|object| object["kind"].is_string());
    crate::testing::goldens::check("tenantcontrolplane", hosted.chain(of_cluster));
}
