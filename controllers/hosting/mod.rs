//! The hosting engine: TenantControlPlanes as pods of the management cluster, and the DataStores that hold their state.
//!
//! Cluster API's providers and the engine share only TenantControlPlane objects; neither imports the other, so that
//! upstream Kamaji can replace the engine.

pub mod datastore;
pub mod driver;
pub mod engine;
mod hardened;
mod observe;
mod orphans;
pub mod rbac;
pub mod tenantcontrolplane;
pub mod usage;
pub mod wake;

#[cfg(test)]
mod memory_tests;
#[cfg(test)]
mod testing;

use tokio::task::JoinSet;

use self::{engine::Engine, tenantcontrolplane::context::Context};
use crate::runtime::role::Role;

/// Runs the engine's controllers until the process stops.
///
/// # Errors
/// A controller cannot start, or ends before the process stops.
pub async fn start(role: Role) -> anyhow::Result<()> {
    let engine = Engine::new(&role).await?;
    wake::connect(&engine);
    let mut watches = engine.watch(&role);
    if !role.listed(&mut watches).await? {
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
    let tenants = Context::new(engine.clone());
    // Both controllers of the engine write through one applier.
    role.metrics.applies("hosting", engine.applier.counts());
    let shared = tenants.clone();
    role.metrics
        .connections(tenantcontrolplane::CONTROLLER, move || shared.clients.len());
    controllers.spawn(tenants.clone().sweep(role.stop.clone()));
    controllers.spawn(role.drive(
        tenantcontrolplane::CONTROLLER,
        &engine.tenant_queue,
        role.settings.concurrency,
        move |key| {
            let tenants = tenants.clone();
            async move { tenantcontrolplane::reconcile::reconcile(&tenants, &key).await }
        },
    ));
    role.readiness.set(role.name, true);
    let controllers = async {
        while let Some(ended) = controllers.join_next().await {
            ended?;
            anyhow::ensure!(
                role.stop.is_cancelled(),
                "a controller of the hosting engine ended"
            );
        }
        Ok(())
    };
    watches.during(controllers).await?
}
