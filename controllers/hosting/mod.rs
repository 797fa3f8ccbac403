//! The hosting engine: TenantControlPlanes as pods, and the DataStores that keep their state.
//!
//! It meets the Cluster API providers only through TenantControlPlane objects (DESIGN 1) and imports none of them.

pub mod datastore;

use crate::runtime::role::Role;

/// Runs the engine's controllers until the process stops.
///
/// # Errors
/// When one cannot start.
pub async fn start(role: Role) -> anyhow::Result<()> {
    role.readiness.set(role.name, true);
    role.stop.cancelled().await;
    Ok(())
}
