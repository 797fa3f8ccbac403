//! The hosting engine: TenantControlPlanes as pods, and the DataStores that keep their state.
//!
//! It meets the Cluster API providers only through TenantControlPlane objects (DESIGN 1) and imports none of them.

pub mod datastore;
pub mod engine;
pub mod tenantcontrolplane;
#[cfg(test)]
mod testing;

use tokio::task::JoinSet;

use self::engine::Engine;
use crate::runtime::role::Role;

/// Runs the engine's controllers until the process stops.
///
/// # Errors
/// When one cannot start, or ends before its time.
pub async fn start(role: Role) -> anyhow::Result<()> {
    let engine = Engine::new(&role).await?;
    let mut watches = engine.watch();
    if !role.listed(&mut watches).await {
        return Ok(());
    }
    datastore::prime(&engine);
    let mut controllers = JoinSet::new();
    let shared = engine.clone();
    controllers.spawn(role.drive(
        datastore::CONTROLLER,
        &engine.store_queue,
        datastore::CONCURRENCY,
        move |key| datastore::reconcile(shared.clone(), key),
    ));
    let tenants = tenantcontrolplane::Controller::new(engine.clone());
    controllers.spawn(tenants.clone().sweep(role.stop.clone()));
    controllers.spawn(role.drive(
        tenantcontrolplane::CONTROLLER,
        &engine.tenant_queue,
        role.settings.concurrency,
        move |key| tenants.clone().reconcile(key),
    ));
    role.readiness.set(role.name, true);
    while let Some(ended) = controllers.join_next().await {
        ended?;
        anyhow::ensure!(
            role.stop.is_cancelled(),
            "a controller of the hosting engine ended"
        );
    }
    Ok(())
}
