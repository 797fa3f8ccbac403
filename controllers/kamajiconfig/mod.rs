//! The `KamajiConfig` controller.

pub mod cloudinit;
pub mod csr;
pub mod join;
pub mod kubelet;
pub mod plan;
pub mod report;
pub mod rights;
pub mod tenants;
pub mod token;

use crate::runtime::role::Role;

/// Runs the controller until the process stops.
///
/// # Errors
/// When it cannot start.
pub async fn start(role: Role) -> anyhow::Result<()> {
    role.readiness.set(role.name, true);
    role.stop.cancelled().await;
    Ok(())
}
