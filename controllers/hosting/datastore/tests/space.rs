//! A DataStore whose etcd fills.

use kamaji_api::conditions::{DataStoreCondition as On, Reason};
use serde_json::json;

use super::{TENANT, World, a_tenant, drain, writes};
use crate::hosting::{
    datastore::{connection, status::usable},
    driver::Space,
};

impl World {
    /// So many percent are used.
    async fn fill(&self, percent: u64, full: bool) {
        self.etcd.fill(Space {
            used: percent << 20,
            quota: 100 << 20,
            full,
        });
        self.again().await;
    }
}

#[tokio::test]
async fn a_datastore_that_fills_tells_its_tenants_and_is_silent_between() {
    let world = World::new().await;
    world.api.edit(TENANT, &a_tenant());
    world.settle().await;
    world.fill(10, false).await;
    assert_eq!(world.condition(On::SpaceAvailable).0, "True");
    drain(&world.engine.tenant_queue).await;

    world.fill(81, false).await;
    let (status, reason, message) = world.condition(On::SpaceAvailable);
    assert_eq!((status.as_str(), reason.as_str()), ("False", "DataStoreFilling"));
    assert!(message.contains("80 % of its quota of 100 MiB"), "{message}");
    world.assert_ready();
    assert_eq!(drain(&world.engine.tenant_queue).await.len(), 1);
    world.api.requests();
    for percent in [82, 79, 95, 76, 99] {
        world.fill(percent, false).await;
        let requests = world.api.requests();
        assert_eq!(writes(&requests), Vec::<&String>::new(), "{percent} %");
    }

    world.fill(100, true).await;
    for on in [On::SpaceAvailable, On::Ready] {
        assert_eq!(world.condition(on).1, "DataStoreFull");
    }
    assert_eq!(drain(&world.engine.tenant_queue).await.len(), 1);
    assert_eq!(usable(&world.store()).unwrap_err().reason, Reason::DataStoreFull);

    world.fill(20, false).await;
    assert_eq!(world.condition(On::SpaceAvailable).0, "True");
    world.assert_ready();
}

#[tokio::test]
async fn a_full_datastore_of_an_earlier_version_is_open_and_gets_its_id_once_there_is_room() {
    let mut world = World::new().await;
    world.settle().await;
    world.strip_id();
    world.restart().await;
    world.fill(100, true).await;
    for on in [On::SpaceAvailable, On::Ready] {
        assert_eq!(world.condition(on).1, "DataStoreFull");
    }
    assert_eq!(world.condition(On::Reachable).0, "True");
    assert!(world.recorded().is_null() && world.store().status.unwrap().store_id.is_none());
    let open = connection::access(&world.engine, &world.store()).await;
    assert!(open.is_ok(), "a tenant can be deleted: {open:?}");
    world.fill(20, false).await;
    world.assert_ready();
    let id = world.etcd.id(None).unwrap();
    assert_eq!(world.recorded(), json!(id));
}
