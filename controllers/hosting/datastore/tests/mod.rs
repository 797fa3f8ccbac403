//! Convergence of a managed DataStore against an API server in memory. The test stands in for the StatefulSet controller,
//! the volume provisioner and etcd.

mod identity;
mod space;

use std::{cell::Cell, sync::Arc};

use k8s_openapi::jiff::Timestamp;
use kamaji_api::{
    conditions::DataStoreCondition as On,
    datastore::DataStore,
    labels::{field_manager, ours},
};
use serde_json::{Value, json};

use super::{prime, reconcile};
use crate::{
    hosting::{
        driver::admin::memory::Memory,
        engine::Engine,
        testing::{self, tenant as example, writes},
    },
    k8s::{conditions, key::RootKey},
    pki::{issue, spec::AltNames},
    runtime::{driver::Outcome, queue::Queue},
    settings::DefaultDatastore,
    testing::FakeApi,
};

const STORE: &str = "/apis/kamaji.clastix.io/v1alpha1/datastores/default";
const TENANT: &str = "/apis/kamaji.clastix.io/v1alpha1/namespaces/demo/tenantcontrolplanes/alpha";
const CLASSES: &str = "/apis/storage.k8s.io/v1/storageclasses";
const CA: &str = "/api/v1/namespaces/capi-kamaji-datastores/secrets/default-etcd-ca";
const SERVER: &str = "/api/v1/namespaces/capi-kamaji-datastores/secrets/default-etcd-server";
const ROOT: &str = "/api/v1/namespaces/capi-kamaji-datastores/secrets/default-etcd-root";
const SERVICE: &str = "/api/v1/namespaces/capi-kamaji-datastores/services/default";
const POLICY: &str = "/apis/networking.k8s.io/v1/namespaces/capi-kamaji-datastores/networkpolicies/default";
const SET: &str = "/apis/apps/v1/namespaces/capi-kamaji-datastores/statefulsets/default";
const CLAIM: &str = "/api/v1/namespaces/capi-kamaji-datastores/persistentvolumeclaims/data-default-0";
const START: &str = "/api/v1/namespaces/capi-kamaji-datastores/secrets/default-etcd-start";
const POD: &str = "/api/v1/namespaces/capi-kamaji-datastores/pods/default-0";
/// Rounds within which everything has to converge.
const ROUNDS: usize = 20;

struct World {
    api: FakeApi,
    etcd: Memory,
    engine: Arc<Engine>,
    /// The provisioner provides volumes.
    volumes: bool,
    /// The volume holds no data yet.
    blank: Cell<bool>,
}

impl World {
    async fn new() -> Self {
        let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
        let api = FakeApi::default();
        api.edit(
            "/api/v1/namespaces/kube-system",
            &json!({ "apiVersion": "v1", "kind": "Namespace", "metadata": { "name": "kube-system" } }),
        );
        let etcd = Memory::default();
        let engine = start(&api, &etcd).await;
        Self {
            api,
            etcd,
            engine,
            volumes: true,
            blank: Cell::new(true),
        }
    }

    /// A new process: everything is listed again.
    async fn restart(&mut self) {
        self.engine = start(&self.api, &self.etcd).await;
    }

    /// Applies changes to the index and reconciles what is queued; `true` while anything happened.
    async fn round(&self) -> bool {
        self.play();
        let changes = self.api.changes();
        for change in &changes {
            testing::fold(&self.engine, change);
        }
        let worked = testing::turn(&self.engine.store_queue, async |key| {
            reconcile(self.engine.clone(), key).await
        });
        worked.await || !changes.is_empty()
    }

    /// Rounds until nothing happens any more; returns their number.
    async fn settle(&self) -> usize {
        for number in 0..ROUNDS {
            if !self.round().await {
                return number;
            }
        }
        panic!(
            "no convergence: {:#?}\n{:#?}",
            self.api.requests(),
            self.api.get(STORE)
        );
    }

    /// Reconciles once more, as after a backoff.
    async fn again(&self) {
        self.engine.store_queue.add(RootKey::new("", "default"));
        self.settle().await;
    }

    /// What Kubernetes and etcd do: a claim, a volume and a pod for the StatefulSet. On a blank volume etcd starts only where
    /// it may begin.
    fn play(&self) {
        let Some(set) = self.api.get(SET) else {
            return;
        };
        if self.api.get(CLAIM).is_none() {
            self.etcd.empty();
            self.blank.set(true);
            let template = &set["spec"]["volumeClaimTemplates"][0];
            let labels = &template["metadata"]["labels"];
            self.api.edit(
                CLAIM,
                &json!({
                    "apiVersion": "v1", "kind": "PersistentVolumeClaim",
                    "metadata": { "name": "data-default-0", "namespace": "capi-kamaji-datastores", "labels": labels },
                    "spec": { "storageClassName": "local" },
                }),
            );
        }
        let start = self
            .api
            .get(START)
            .map(|secret| secret["data"]["initial-cluster-state"].clone());
        let serves = self.volumes && (!self.blank.get() || start == Some(json!(encode("new"))));
        self.blank.set(self.blank.get() && !serves);
        self.etcd.down(!serves);
        let phase = if self.volumes { "Bound" } else { "Pending" };
        let ready = i32::from(serves);
        self.api.edit(CLAIM, &json!({ "status": { "phase": phase } }));
        let generation = &set["metadata"]["generation"];
        let status = json!({ "replicas": 1, "observedGeneration": generation, "readyReplicas": ready });
        self.api.edit(SET, &json!({ "status": status }));
    }

    fn condition(&self, on: On) -> (String, String, String) {
        let store: DataStore = serde_json::from_value(self.api.get(STORE).unwrap()).unwrap();
        let status = store.status.unwrap();
        let found = conditions::get(&status.conditions, on.as_str()).unwrap();
        (found.status.clone(), found.reason.clone(), found.message.clone())
    }

    fn data(&self, path: &str) -> Value {
        self.api.get(path).unwrap()["data"].clone()
    }

    fn assert_ready(&self) {
        assert_eq!(
            self.condition(On::Ready).0,
            "True",
            "{:?}",
            self.condition(On::Ready)
        );
        for path in [CA, SERVER, ROOT, START, SERVICE, POLICY, SET, CLAIM] {
            let object = self.api.get(path).unwrap();
            assert_eq!(
                object["metadata"]["labels"][ours::MANAGED_BY],
                field_manager::HOSTING,
                "{path}"
            );
            let owners = object["metadata"]["ownerReferences"].as_array().unwrap();
            assert_eq!(owners.len(), 1, "{path} is garbage-collected with the DataStore");
        }
    }
}

async fn start(api: &FakeApi, etcd: &Memory) -> Arc<Engine> {
    let engine = testing::engine(api, DefaultDatastore::Managed).await;
    *engine.pool.memory.lock() = Some(etcd.clone());
    testing::list(&engine, api);
    prime(&engine);
    engine
}

fn encode(text: &str) -> String {
    use base64::Engine as _;
    base64::engine::general_purpose::STANDARD.encode(text)
}

async fn drain(queue: &Queue) -> Vec<RootKey> {
    let mut keys = Vec::new();
    while !queue.is_empty() {
        let key = queue.next().await;
        queue.done(key.clone(), None);
        keys.push(key);
    }
    keys
}

/// A tenant that uses the DataStore.
fn a_tenant() -> Value {
    let mut tenant = example::tenant();
    tenant.metadata.uid = None;
    tenant.metadata.resource_version = None;
    let mut body = serde_json::to_value(&tenant).unwrap();
    body["apiVersion"] = json!("kamaji.clastix.io/v1alpha1");
    body["kind"] = json!("TenantControlPlane");
    body
}

fn unlabelled() -> Value {
    json!({ "metadata": { "labels": { ours::MANAGED_BY: null } } })
}

#[tokio::test]
async fn what_a_restore_stripped_of_its_owner_is_owned_again() {
    let mut world = World::new().await;
    world.settle().await;
    for restarted in [false, true] {
        for path in [CA, SERVER, ROOT, SERVICE, POLICY, SET, CLAIM] {
            world
                .api
                .edit(path, &json!({ "metadata": { "ownerReferences": null } }));
        }
        if restarted {
            world.restart().await;
        }
        world.settle().await;
        world.assert_ready();
    }
}

#[tokio::test]
async fn the_default_datastore_becomes_ready_and_then_needs_no_requests() {
    let mut world = World::new().await;
    let rounds = world.settle().await;
    world.assert_ready();
    assert!(rounds <= 6, "{rounds} rounds");
    let set = world.api.get(SET).unwrap();
    assert_eq!(set["metadata"]["generation"], 1, "one revision");
    world.api.requests();
    world.again().await;
    assert_eq!(world.api.requests(), Vec::<String>::new());

    world.restart().await;
    world.settle().await;
    let requests = world.api.requests();
    assert_eq!(writes(&requests), Vec::<&String>::new(), "{requests:#?}");
}

#[tokio::test]
async fn a_crash_after_any_write_converges_to_one_ca() {
    let reference = World::new().await;
    reference.settle().await;
    let total = writes(&reference.api.requests()).len();
    for lives in 0..total {
        let mut world = World::new().await;
        world.api.die_after(Some(lives));
        for _ in 0..6 {
            world.round().await;
        }
        let ca = world.api.get(CA);
        world.api.die_after(None);
        world.restart().await;
        world.settle().await;
        world.assert_ready();
        let set = world.api.get(SET).unwrap();
        assert_eq!(
            set["metadata"]["generation"], 1,
            "one revision after {lives} writes"
        );
        if let Some(ca) = ca {
            assert_eq!(world.data(CA), ca["data"], "after {lives} writes");
        }
    }
}

#[tokio::test]
async fn a_datastore_that_is_deleted_before_it_has_its_claim_leaves_no_claim_behind() {
    let key = RootKey::new("", "default");
    let reconcile_alone = async |world: &World| {
        for change in &world.api.changes() {
            testing::fold(&world.engine, change);
        }
        reconcile(world.engine.clone(), key.clone()).await.unwrap()
    };
    for claim_comes in [true, false] {
        let world = World::new().await;
        while world.api.get(SET).is_none() {
            world.round().await;
        }
        assert!(world.api.get(CLAIM).is_none());
        world.api.delete(STORE);
        let deleted = |at: String| {
            world
                .api
                .edit(STORE, &json!({ "metadata": { "deletionTimestamp": at } }));
        };
        deleted(Timestamp::now().to_string());
        let waits = reconcile_alone(&world).await;
        assert!(matches!(waits, Outcome::After(_)), "{waits:?}");
        assert!(world.api.get(STORE).is_some(), "the claim may still come");
        if claim_comes {
            world.play();
        } else {
            deleted("2026-01-01T00:00:00Z".to_owned());
        }
        let last = reconcile_alone(&world).await;
        assert!(world.api.get(STORE).is_none(), "{last:?}");
        assert!(world.api.get(CLAIM).is_none(), "garbage-collected with its owner");
    }
}

#[tokio::test]
async fn any_foreign_edit_is_repaired() {
    let mut world = World::new().await;
    world.settle().await;
    for (path, edit) in [
        (SERVICE, json!({ "spec": { "ports": [] } })),
        (POLICY, json!({ "spec": { "ingress": [] } })),
        (SET, json!({ "spec": { "replicas": 0 } })),
    ] {
        let before = world.api.get(path).unwrap();
        world.api.edit(path, &edit);
        world.settle().await;
        assert_eq!(world.api.get(path).unwrap()["spec"], before["spec"], "{path}");
        world.api.delete(path);
        world.settle().await;
        world.assert_ready();
    }
    for path in [SERVER, ROOT, START] {
        world.api.delete(path);
        world.settle().await;
        world.assert_ready();
    }
    // An object that lost our label is adopted, at once and after a restart.
    let ca = world.data(CA);
    for path in [CA, SERVER, ROOT, START, SERVICE, POLICY, SET] {
        world.api.edit(path, &unlabelled());
        world.settle().await;
        world.assert_ready();
        world.api.edit(path, &unlabelled());
        world.restart().await;
        world.settle().await;
        world.assert_ready();
    }
    let no_record = json!({ "metadata": { "annotations": { ours::CA_FINGERPRINT: null } } });
    world.api.edit(CA, &no_record);
    world.settle().await;
    world.assert_ready();
    assert_eq!(world.data(CA), ca);
    assert_eq!(world.api.get(SET).unwrap()["spec"]["replicas"], 1);
}

#[tokio::test]
async fn a_ca_that_is_deleted_has_to_be_restored_and_is_never_replaced() {
    let mut world = World::new().await;
    world.settle().await;
    let backup = world.api.get(CA).unwrap();
    let (server, set) = (world.data(SERVER), world.api.get(SET).unwrap());
    // Whatever else is deleted, and after a restart too.
    for gone in [&[][..], &[SERVER, ROOT], &[SET]] {
        world.api.delete(CA);
        for path in gone {
            world.api.delete(path);
        }
        world.settle().await;
        world.restart().await;
        world.settle().await;
        assert!(world.api.get(CA).is_none(), "{gone:?}");
        for on in [On::CertificatesAvailable, On::Ready] {
            let (status, reason, message) = world.condition(on);
            assert_eq!((status.as_str(), reason.as_str()), ("False", "SecretNotFound"));
            assert!(
                message.contains("Secret capi-kamaji-datastores/default-etcd-ca")
                    && message.contains("restore the Secret from a backup"),
                "{message}"
            );
        }
        if gone.is_empty() {
            assert_eq!(world.data(SERVER), server);
            assert_eq!(world.api.get(SET).unwrap()["spec"], set["spec"]);
        }
        // Backups come without UIDs and versions, and some without labels.
        let metadata = json!({
            "name": "default-etcd-ca", "namespace": "capi-kamaji-datastores",
            "annotations": backup["metadata"]["annotations"],
        });
        let restored = json!({
            "apiVersion": "v1", "kind": "Secret", "metadata": metadata, "data": backup["data"],
        });
        world.api.edit(CA, &restored);
        world.again().await;
        world.assert_ready();
        assert_eq!(world.data(CA), backup["data"]);
    }
}

#[tokio::test]
async fn a_secret_of_somebody_else_is_not_written_and_is_named() {
    let world = World::new().await;
    let foreign = |name: &str, data: Value| {
        json!({
            "apiVersion": "v1", "kind": "Secret", "data": data,
            "metadata": { "name": name, "namespace": "capi-kamaji-datastores" },
        })
    };
    let refused = |name: &str| {
        let (status, reason, message) = world.condition(On::CertificatesAvailable);
        assert_eq!((status.as_str(), reason.as_str()), ("False", "OwnedByAnother"));
        assert!(
            message.starts_with(&format!("Secret capi-kamaji-datastores/{name} was not created")),
            "{message}"
        );
        message
    };
    let pair = issue::ca("corp", &AltNames::default(), Timestamp::now()).unwrap();
    let data = json!({ "ca.crt": encode(&pair.cert_pem), "ca.key": encode(pair.key_pem.expose()) });
    world.api.edit(CA, &foreign("default-etcd-ca", data.clone()));
    world.api.edit(SERVER, &foreign("default-etcd-server", json!({})));
    world.settle().await;
    let message = refused("default-etcd-ca");
    let advice = format!(
        "annotate it with capi-kamaji.io/ca-fingerprint={}",
        pair.fingerprint
    );
    assert!(message.contains(&advice), "{message}");
    // The admin annotates it, as the message says.
    let annotated = json!({ "metadata": { "annotations": { ours::CA_FINGERPRINT: pair.fingerprint } } });
    world.api.edit(CA, &annotated);
    world.again().await;
    assert_eq!(world.data(CA), data);
    refused("default-etcd-server");
    world.api.delete(SERVER);
    world.again().await;
    world.assert_ready();
}

#[tokio::test]
async fn a_volume_that_waits_for_its_pod_reports_the_problem_of_the_pod() {
    let mut world = World::new().await;
    world.volumes = false;
    world.api.edit(
        CLASSES,
        &json!({
            "apiVersion": "storage.k8s.io/v1", "kind": "StorageClassList", "metadata": { "name": "" },
            "items": [{ "metadata": { "name": "local" }, "provisioner": "x" }],
        }),
    );
    world.api.edit(
        POD,
        &json!({
            "apiVersion": "v1", "kind": "Pod",
            "metadata": {
                "name": "default-0", "namespace": "capi-kamaji-datastores",
                "labels": { ours::MANAGED_BY: field_manager::HOSTING, ours::DATASTORE: "default" },
            },
            "status": { "conditions": [{
                "type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": "Insufficient cpu",
            }] },
        }),
    );
    world.settle().await;
    let (_, reason, message) = world.condition(On::Ready);
    assert_eq!(reason, "StorageUnavailable");
    assert!(
        message.ends_with("no node takes the pod: Insufficient cpu"),
        "{message}"
    );
    world.volumes = true;
    world.settle().await;
    world.assert_ready();
}

#[tokio::test]
async fn a_tenant_created_first_is_reconciled_after_each_change_of_its_datastore() {
    let mut world = World::new().await;
    world.api.edit(TENANT, &a_tenant());
    world.volumes = false;
    world.api.edit(
        CLASSES,
        &json!({
            "apiVersion": "storage.k8s.io/v1", "kind": "StorageClassList", "metadata": { "name": "" }, "items": [],
        }),
    );
    // The DataStore is created, then reconciled for the first time: not ready before, not ready after.
    world.round().await;
    drain(&world.engine.tenant_queue).await;
    world.settle().await;
    assert_eq!(world.condition(On::Ready).0, "False");
    assert_eq!(
        drain(&world.engine.tenant_queue).await,
        [RootKey::new("demo", "alpha")]
    );
    world.volumes = true;
    world.settle().await;
    world.assert_ready();
    assert_eq!(drain(&world.engine.tenant_queue).await.len(), 1, "ready");
    // A change of the spec: another endpoint, say.
    world
        .api
        .edit(STORE, &json!({ "spec": { "managed": { "version": "3.6.15" } } }));
    world.settle().await;
    assert_eq!(
        drain(&world.engine.tenant_queue).await.len(),
        1,
        "another generation"
    );
    world.again().await;
    assert_eq!(drain(&world.engine.tenant_queue).await, []);
}

#[tokio::test]
async fn a_version_with_holes_is_reported_until_it_is_upgraded_or_accepted() {
    let mut world = World::new().await;
    world.settle().await;
    assert_eq!(world.condition(On::VersionSafe).0, "True");
    world.api.edit(TENANT, &a_tenant());
    world.settle().await;
    world.etcd.upgrade("3.6.5");
    world.restart().await;
    world.settle().await;
    let (status, reason, message) = world.condition(On::VersionSafe);
    assert_eq!(
        (status.as_str(), reason.as_str()),
        ("False", "DataStoreVersionUnsafe")
    );
    assert!(message.contains("3.6.14 or newer"), "{message}");
    world.assert_ready();
    // Tenants that wait for it are told of each change.
    let accept = |version: Option<&str>| json!({ "metadata": { "annotations": { ours::ACCEPT_ETCD_VERSION: version } } });
    drain(&world.engine.tenant_queue).await;
    world.api.edit(STORE, &accept(Some("3.6.5")));
    world.settle().await;
    assert_eq!(world.condition(On::VersionSafe).1, "DataStoreVersionAccepted");
    assert_eq!(drain(&world.engine.tenant_queue).await.len(), 1);
    world.api.edit(STORE, &accept(None));
    world.settle().await;
    assert_eq!(world.condition(On::VersionSafe).1, "DataStoreVersionUnsafe");
    drain(&world.engine.tenant_queue).await;
    world.etcd.upgrade("3.6.14");
    world.again().await;
    assert_eq!(world.condition(On::VersionSafe).1, "DataStoreVersionSafe");
    assert_eq!(drain(&world.engine.tenant_queue).await.len(), 1);
}

#[tokio::test]
async fn a_status_that_is_refused_to_tenants_is_reported_as_soon_as_there_is_one() {
    let mut world = World::new().await;
    world.etcd.refuse_tenants(true);
    world.settle().await;
    assert_eq!(world.condition(On::VersionSafe).0, "True", "nobody to ask as");
    let mut tenant = a_tenant();
    tenant["status"] = json!({
        "storage": { "dataStoreName": "default", "setup": { "schema": "a", "user": "a" } },
    });
    world.api.edit(TENANT, &tenant);
    world.settle().await;
    for _ in 0..2 {
        let (status, reason, _) = world.condition(On::VersionSafe);
        assert_eq!(
            (status.as_str(), reason.as_str()),
            ("False", "DataStoreStatusRefused")
        );
        world.assert_ready();
        world.restart().await;
        world.settle().await;
    }
    world.etcd.refuse_tenants(false);
    world.again().await;
    assert_eq!(world.condition(On::VersionSafe).0, "True");
}

#[tokio::test]
async fn a_managed_datastore_runs_no_version_with_holes() {
    let world = World::new().await;
    world.settle().await;
    let image = || world.api.get(SET).unwrap()["spec"]["template"]["spec"]["containers"][0]["image"].clone();
    let before = image();
    world
        .api
        .edit(STORE, &json!({ "spec": { "managed": { "version": "3.6.5" } } }));
    world.settle().await;
    let (status, reason, message) = world.condition(On::Validation);
    assert_eq!((status.as_str(), reason.as_str()), ("False", "InvalidSpec"));
    assert!(
        message.starts_with("spec.managed.version: etcd 3.6.5 "),
        "{message}"
    );
    assert_eq!(image(), before);
    world
        .api
        .edit(STORE, &json!({ "spec": { "managed": { "version": "3.6.14" } } }));
    world.settle().await;
    world.assert_ready();
    assert_ne!(image(), before);
}

#[tokio::test]
async fn what_is_applied_for_a_managed_datastore_is_as_released() {
    let world = World::new().await;
    world.settle().await;
    world.assert_ready();
    let objects = world.api.objects();
    let applied = objects
        .into_iter()
        .filter(|object| object["metadata"]["labels"][ours::MANAGED_BY] == field_manager::HOSTING);
    // The claim is the StatefulSet controller's.
    crate::testing::goldens::check(
        "datastore",
        applied.filter(|object| object["kind"] != "PersistentVolumeClaim"),
    );
}
