//! A DataStore, its data and its tenants: neither the loss of one nor the deletion of the other goes unnoticed.

use k8s_openapi::jiff::Timestamp;
use kamaji_api::{
    conditions::{DataStoreCondition as On, Reason},
    datastore::DataStore,
    labels::{kamaji, ours},
};
use serde_json::{Value, json};

use super::{CLAIM, SET, START, STORE, TENANT, World, a_tenant, drain, encode, writes};
use crate::{
    hosting::datastore::status::usable,
    pki::{issue, spec::AltNames},
};

impl World {
    pub(super) fn store(&self) -> DataStore {
        serde_json::from_value(self.api.get(STORE).unwrap()).unwrap()
    }

    fn note(&self, key: &str, value: Option<&str>) {
        self.api
            .edit(STORE, &json!({ "metadata": { "annotations": { key: value } } }));
    }

    pub(super) fn recorded(&self) -> Value {
        self.api.get(STORE).unwrap()["metadata"]["annotations"][ours::STORE_ID].clone()
    }

    /// As an earlier version left it: neither the datastore nor the DataStore has an id.
    pub(super) fn strip_id(&self) {
        self.etcd.empty();
        for key in [ours::STORE_ID, ours::STORE_CLAIM] {
            self.note(key, None);
        }
        let published = json!({ "storeID": null, "managed": { "claimUID": null } });
        self.api.edit(STORE, &json!({ "status": published }));
    }

    fn start(&self) -> Value {
        self.api.get(START).unwrap()["data"]["initial-cluster-state"].clone()
    }

    /// Looks twice, the second time as a new process.
    async fn assert_lost(&mut self, reported: &str) {
        for _ in 0..2 {
            let (status, reason, message) = self.condition(On::Ready);
            assert_eq!((status.as_str(), reason.as_str()), ("False", "DataLost"));
            assert!(message.contains(reported), "{message}");
            let refused = usable(&self.store()).unwrap_err();
            assert_eq!(refused.reason, Reason::DataLost, "{refused}");
            self.restart().await;
            self.settle().await;
        }
    }
}

#[tokio::test]
async fn a_managed_datastore_that_lost_its_volume_does_not_serve_empty_until_that_is_accepted() {
    let mut world = World::new().await;
    world.api.edit(TENANT, &a_tenant());
    world.settle().await;
    world.assert_ready();
    let id = world.etcd.id(None).unwrap();
    assert_eq!(world.recorded(), json!(id));
    assert_eq!(world.start(), json!(encode("existing")));
    drain(&world.engine.tenant_queue).await;

    world.api.delete(CLAIM);
    world.settle().await;
    assert_eq!(
        drain(&world.engine.tenant_queue).await.len(),
        1,
        "tenants are told"
    );
    let way_out = format!("capi-kamaji.io/accept-data-loss={id}");
    world
        .assert_lost("PersistentVolumeClaim capi-kamaji-datastores/data-default-0 is not the one")
        .await;
    world.assert_lost(&way_out).await;
    assert_eq!(world.etcd.id(None), None, "nothing was begun");
    world.note(ours::ACCEPT_DATA_LOSS, Some("another"));
    world.settle().await;
    world.assert_lost(&way_out).await;

    drain(&world.engine.tenant_queue).await;
    world.note(ours::ACCEPT_DATA_LOSS, Some(&id));
    world.settle().await;
    world.assert_ready();
    assert_eq!(
        drain(&world.engine.tenant_queue).await.len(),
        1,
        "tenants are told"
    );
    let next = world.etcd.id(None).unwrap();
    assert_ne!(next, id);
    assert_eq!(world.recorded(), json!(next));
    // The acceptance ended with the id.
    assert_eq!(world.start(), json!(encode("existing")));
    world.api.delete(CLAIM);
    world.settle().await;
    world
        .assert_lost(&format!("capi-kamaji.io/accept-data-loss={next}"))
        .await;
    let set = world.api.get(SET).unwrap();
    assert_eq!(set["metadata"]["generation"], 1, "no member was restarted for it");
}

/// A managed datastore whose claim was deleted, and the id of the data that is gone with it.
async fn without_volume() -> (World, String) {
    let mut world = World::new().await;
    world.settle().await;
    let id = world.etcd.id(None).unwrap();
    world.api.delete(CLAIM);
    world.settle().await;
    world.assert_lost("PersistentVolumeClaim").await;
    (world, id)
}

#[tokio::test]
async fn a_volume_that_is_restored_into_a_new_claim_is_the_one_with_the_data() {
    let (world, id) = without_volume().await;
    world.etcd.id(Some(&id));
    world.blank.set(false);
    world.settle().await;
    world.assert_ready();
    assert_eq!(world.recorded(), json!(id));
    let uid = world.api.get(CLAIM).unwrap()["metadata"]["uid"].clone();
    let store = world.api.get(STORE).unwrap();
    assert_eq!(store["metadata"]["annotations"][ours::STORE_CLAIM], uid);
    assert_eq!(store["status"]["managed"]["claimUID"], uid);
}

#[tokio::test]
async fn a_loss_that_was_accepted_and_did_not_happen_is_accepted_no_more() {
    let (mut world, id) = without_volume().await;
    // The volume is restored and the loss accepted at the same time.
    world.etcd.id(Some(&id));
    world.blank.set(false);
    world.note(ours::ACCEPT_DATA_LOSS, Some(&id));
    world.settle().await;
    world.assert_ready();
    assert_eq!(world.recorded(), json!(id));
    assert_eq!(world.start(), json!(encode("existing")));
    let notes = world.api.get(STORE).unwrap()["metadata"]["annotations"].clone();
    assert!(notes[ours::ACCEPT_DATA_LOSS].is_null(), "{notes}");
    world.api.delete(CLAIM);
    world.settle().await;
    world.assert_lost("PersistentVolumeClaim").await;
}

#[tokio::test]
async fn an_external_datastore_that_lost_its_data_is_not_reported_as_unprotected() {
    let mut world = World::new().await;
    let ca = issue::ca("etcd", &AltNames::default(), Timestamp::now()).unwrap();
    let pair = json!({
        "certificate": { "content": encode(&ca.cert_pem) },
        "privateKey": { "content": encode(ca.key_pem.expose()) },
    });
    world.api.edit(
        STORE,
        &json!({
            "apiVersion": "kamaji.clastix.io/v1alpha1", "kind": "DataStore",
            "metadata": { "name": "default" },
            "spec": {
                "driver": "etcd", "endpoints": ["etcd:2379"],
                "tlsConfig": { "certificateAuthority": pair, "clientCertificate": pair },
            },
        }),
    );
    world.settle().await;
    assert_eq!(
        world.condition(On::Ready).0,
        "True",
        "{:?}",
        world.condition(On::Ready)
    );
    let id = world.etcd.id(None).unwrap();
    // A fresh one has no users, and authentication off.
    world.etcd.empty();
    world.etcd.unprotect(true);
    world.restart().await;
    world.settle().await;
    world.assert_lost("has no id").await;
    world.note(ours::ACCEPT_DATA_LOSS, Some(&id));
    world.settle().await;
    assert_eq!(world.condition(On::Ready).1, "DataStoreAuthenticationDisabled");
    assert_eq!(
        world.etcd.id(None),
        None,
        "nothing is written where anybody may write"
    );
    world.etcd.unprotect(false);
    world.again().await;
    assert_eq!(world.condition(On::Ready).0, "True");
    assert_ne!(world.etcd.id(None), Some(id));
}

#[tokio::test]
async fn a_datastore_with_another_id_or_none_is_not_used() {
    let mut world = World::new().await;
    world.settle().await;
    let id = world.etcd.id(None).unwrap();
    for (found, reported) in [(Some("other"), "has the id other"), (None, "has no id")] {
        world.etcd.empty();
        world.etcd.id(found);
        world.restart().await;
        world.settle().await;
        world.assert_lost(reported).await;
        assert_eq!(world.etcd.id(None).as_deref(), found, "nothing was written");
        world.etcd.id(Some(&id));
        world.again().await;
        world.assert_ready();
    }
}

#[tokio::test]
async fn a_datastore_of_an_earlier_version_gets_an_id_without_an_alarm() {
    let mut world = World::new().await;
    world.settle().await;
    let since = |world: &World| {
        let ready = world.store().status.unwrap().conditions;
        let ready = ready.into_iter().find(|on| on.type_ == "Ready").unwrap();
        (ready.status, ready.last_transition_time)
    };
    let before = since(&world);
    for found in [None, Some("theirs")] {
        world.strip_id();
        world.etcd.id(found);
        world.restart().await;
        world.settle().await;
        world.assert_ready();
        assert_eq!(since(&world), before);
        let id = world.etcd.id(None).unwrap();
        assert_eq!(world.recorded(), json!(id));
        assert!(
            found.is_none_or(|found| found == id),
            "the one that it has is kept"
        );
        assert_eq!(world.store().status.unwrap().store_id, Some(id));
        assert_eq!(world.start(), json!(encode("existing")));
    }
}

#[tokio::test]
async fn a_datastore_that_is_paused_or_deleted_in_its_first_minute_does_not_go_under_its_tenants() {
    let reference = World::new().await;
    reference.settle().await;
    let total = writes(&reference.api.requests()).len();
    for lives in 0..=total {
        for pause in [false, true] {
            let mut world = World::new().await;
            world.api.die_after(Some(lives));
            for _ in 0..6 {
                world.round().await;
            }
            world.api.die_after(None);
            if world.api.get(STORE).is_none() {
                continue;
            }
            if pause {
                world.note(kamaji::PAUSED, Some("true"));
                world.restart().await;
                world.settle().await;
            }
            // A tenant that it took can no longer lose it.
            let took = usable(&world.store()).is_ok();
            world.api.edit(TENANT, &a_tenant());
            world.restart().await;
            world.api.delete(STORE);
            let left = world.api.get(STORE);
            assert!(left.is_some() || !took, "after {lives} writes, paused: {pause}");
            assert!(left.is_some() || !pause, "after {lives} writes");
            if left.is_some() {
                world.restart().await;
                world.settle().await;
                let left = world.api.get(STORE).unwrap();
                assert!(left["metadata"]["deletionTimestamp"].is_string(), "{lives}");
            }
        }
    }
}

#[tokio::test]
async fn a_datastore_without_its_finalizer_takes_nobody() {
    let world = World::new().await;
    world.settle().await;
    let mut store = world.store();
    assert!(usable(&store).is_ok());
    store.metadata.finalizers = None;
    let refused = usable(&store).unwrap_err();
    assert_eq!(refused.reason, Reason::DataStoreNotReady);
    // Where a process finds one, it adds the finalizer and tells those who wait.
    world.api.edit(TENANT, &a_tenant());
    world
        .api
        .edit(STORE, &json!({ "metadata": { "finalizers": null } }));
    drain(&world.engine.tenant_queue).await;
    world.again().await;
    assert!(usable(&world.store()).is_ok());
    assert_eq!(drain(&world.engine.tenant_queue).await.len(), 1);
}
