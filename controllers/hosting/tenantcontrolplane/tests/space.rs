//! A tenant whose DataStore fills.

use kamaji_api::conditions::TenantControlPlaneCondition as On;
use serde_json::json;

use super::{STORE, World};

#[tokio::test]
async fn a_tenant_tells_that_its_datastore_fills_and_that_it_is_full() {
    let world = World::new().await;
    world.settle().await;
    let reported = async |ready: bool, on: &str, reason: &str| {
        let condition = json!({
            "type": on, "status": "False", "reason": reason, "message": "more than most of it",
            "lastTransitionTime": "2026-11-27T12:00:00Z",
        });
        let status = json!({ "status": { "ready": ready, "conditions": [condition] } });
        world.api.edit(STORE, &status);
        world.wake();
        world.settle().await;
        world.condition(On::DataStoreReady)
    };
    let (status, reason, message) = reported(true, "SpaceAvailable", "DataStoreFilling").await;
    assert_eq!((status.as_str(), reason.as_str()), ("True", "DataStoreFilling"));
    assert_eq!(message, "DataStore \"default\": more than most of it");
    world.assert_ready();
    let (status, reason, _) = reported(false, "Ready", "DataStoreFull").await;
    assert_eq!((status.as_str(), reason.as_str()), ("False", "DataStoreFull"));
    let (status, reason, _) = reported(true, "SpaceAvailable", "SpaceAvailable").await;
    assert_eq!((status.as_str(), reason.as_str()), ("True", "DataStoreReady"));
}
