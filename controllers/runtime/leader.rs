//! One Lease a role; a leader that loses it ends the process, so two never write at once.

use kube::Client;
use kube_lease_manager::LeaseManagerBuilder;
use tokio_util::sync::CancellationToken;

/// Seconds a lease is valid after its last renewal.
const DURATION: u64 = 30;
/// Seconds before expiry at which it is renewed.
const GRACE: u64 = 15;

/// Waits for the lease `name` in `namespace`, then returns a future that ends when the lease is lost or `stop` fires
/// (then the lease is given back).
///
/// # Errors
/// When the lease cannot be read or created.
pub async fn acquire(
    client: Client,
    namespace: &str,
    name: &str,
    identity: &str,
    stop: CancellationToken,
) -> anyhow::Result<impl Future<Output = anyhow::Result<()>> + use<>> {
    let lease = LeaseManagerBuilder::new(client, name)
        .with_namespace(namespace)
        .with_identity(identity)
        .with_duration(DURATION)
        .with_grace(GRACE)
        .build()
        .await?;
    let (mut held, task) = lease.watch().await;
    tracing::info!(lease = name, namespace, "waiting for the lease");
    tokio::select! {
        held = held.wait_for(|held| *held) => { held?; }
        () = stop.cancelled() => {}
    }
    tracing::info!(lease = name, namespace, identity, "leading");
    let name = name.to_owned();
    Ok(async move {
        let lost = tokio::select! {
            _ = held.wait_for(|held| !*held) => true,
            () = stop.cancelled() => false,
        };
        if lost {
            anyhow::bail!("lease {name} was lost");
        }
        drop(held);
        task.await??;
        Ok(())
    })
}
