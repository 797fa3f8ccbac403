//! A tenant whose DataStore lost its data.

use kamaji_api::conditions::TenantControlPlaneCondition as On;
use serde_json::{Value, json};

use super::{DEPLOYMENT, STORE, World, some_rounds};

/// What the DataStore reports.
async fn report(world: &World, ready: bool, reason: &str) {
    let condition = json!({
        "type": "Ready", "status": if ready { "True" } else { "False" }, "reason": reason, "message": "why",
        "lastTransitionTime": "2026-11-27T12:00:00Z",
    });
    let status = json!({ "status": { "ready": ready, "conditions": [condition] } });
    world.api.edit(STORE, &status);
    world.wake();
    some_rounds(world).await;
}

#[tokio::test]
async fn a_tenant_whose_datastore_lost_its_data_reports_it_and_gets_no_empty_place() {
    let world = World::new().await;
    world.settle().await;
    let spec = || -> Value { world.api.get(DEPLOYMENT).unwrap()["spec"].clone() };
    let (before, held) = (spec(), world.store.empty());
    report(&world, false, "DataLost").await;
    let (status, reason, message) = world.condition(On::DataStoreReady);
    assert_eq!((status.as_str(), reason.as_str()), ("False", "DataLost"));
    assert!(message.contains("why"), "{message}");
    // The loss is accepted, and the datastore begins anew.
    for _ in 0..2 {
        report(&world, true, "Ready").await;
        let (status, reason, _) = world.condition(On::DataStoreReady);
        assert_eq!((status.as_str(), reason.as_str()), ("False", "DataMissing"));
    }
    assert!(world.store.schemas().is_empty(), "nothing was created there");
    assert_eq!(spec(), before, "its pods stay as they are");
    assert_eq!(world.condition(On::Available).0, "True");
    world.store.restore(held);
    world.wake();
    world.settle().await;
    world.assert_ready();
}
