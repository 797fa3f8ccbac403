//! capi-kamaji: Cluster API control plane and bootstrap provider with an embedded Kamaji hosting engine.
//!
//! `api` ← [`k8s`] ← [`capi`] ← controllers. The controllers never import each other: they meet through objects
//! alone, so that `--hosting=external` leaves the hosting to an upstream Kamaji. Only this file knows all of
//! them.

pub mod args;
pub mod capi;
pub mod hosting;
pub mod k8s;
pub mod kamajiconfig;
pub mod kamajicontrolplane;
pub mod pki;
pub mod print;
#[cfg(test)]
mod reference;
pub mod runtime;
pub mod settings;
pub mod tenant;
#[cfg(test)]
mod testing;

/// The allocator of the binary, so that tests measure what it takes.
#[cfg(all(test, target_os = "linux"))]
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

use std::sync::Arc;

use anyhow::Context as _;
use tokio::task::{JoinError, JoinSet};
use tokio_util::sync::CancellationToken;

use args::RunArgs;
use runtime::{client, http, leader::Candidate, metrics::Metrics, role::Role, telemetry};
use settings::RoleName;

/// Runs the roles that `args` names until SIGTERM or SIGINT. Any task that ends early ends the process.
///
/// # Errors
/// When a role cannot start, loses its lease or ends; when upstream Kamaji or the Go provider holds its Lease.
pub async fn run(args: RunArgs) -> anyhow::Result<()> {
    telemetry::install(args.log_format, &args.log_level)?;
    telemetry::log_panics();
    let names = args.roles()?;
    let stop = CancellationToken::new();
    let readiness = http::Readiness::default();
    let metrics = Metrics::default();
    let settings = Arc::new(args.settings());
    let mut roles = Vec::with_capacity(names.len());
    for name in names {
        readiness.set(name, false);
        let role = Role {
            name,
            client: client::for_role(name, &metrics)
                .await
                .context("no management cluster: set KUBECONFIG, or run as a pod with a ServiceAccount")?,
            settings: settings.clone(),
            metrics: metrics.clone(),
            readiness: readiness.clone(),
            stop: stop.clone(),
        };
        roles.push(role);
    }
    let listener = http::bind(args.diagnostics_address).await?;
    let mut tasks: JoinSet<anyhow::Result<()>> = JoinSet::new();
    tasks.spawn(http::serve(listener, readiness, metrics, stop.clone()));
    // Checked for all roles before any of them starts: upstream Kamaji would reconcile what the control plane role
    // applies.
    for role in &roles {
        runtime::peers::refuse_beside(role.name, &role.client).await?;
    }
    for role in roles {
        tasks.spawn(lead(role, args.leader_elect));
    }
    supervise(tasks, stop, terminated()).await
}

/// Waits for `signal` or the first task that ends, then stops all and waits for them: each finishes what is in flight
/// and gives its lease back, whatever happened to another one.
async fn supervise(
    mut tasks: JoinSet<anyhow::Result<()>>,
    stop: CancellationToken,
    signal: impl Future<Output = std::io::Result<()>>,
) -> anyhow::Result<()> {
    let mut result = tokio::select! {
        signal = signal => signal.map_err(anyhow::Error::from),
        ended = tasks.join_next() => outcome(ended).and_then(|()| anyhow::bail!("a task of the process ended")),
    };
    tracing::info!("stopping");
    stop.cancel();
    while let Some(ended) = tasks.join_next().await {
        let ended = outcome(Some(ended));
        match (&result, &ended) {
            (Ok(()), _) => result = ended,
            (Err(_), Err(error)) => tracing::error!(error = format!("{error:#}"), "failed while stopping"),
            (Err(_), Ok(())) => {}
        }
    }
    result
}

fn outcome(ended: Option<Result<anyhow::Result<()>, JoinError>>) -> anyhow::Result<()> {
    ended.unwrap_or(Ok(Ok(())))?
}

/// Holds the role's lease and runs its controllers.
async fn lead(role: Role, elect: bool) -> anyhow::Result<()> {
    if !elect {
        role.metrics.leads(role.name, true);
        return until_stopped(role).await;
    }
    // Standing by is ready: a Deployment with two replicas has one leader.
    role.readiness.set(role.name, true);
    role.metrics.leads(role.name, false);
    let candidate = Candidate::new(
        role.client.clone(),
        &role.settings.own_namespace,
        &format!("capi-kamaji-{}", role.name),
        &identity(role.settings.pod_name.as_deref()),
    );
    let Some(held) = candidate.acquire(&role.stop).await? else {
        return Ok(());
    };
    role.readiness.set(role.name, false);
    role.metrics.leads(role.name, true);
    // Checked again, since another engine may have started during the wait.
    held.during(async {
        runtime::peers::refuse_beside(role.name, &role.client).await?;
        until_stopped(role).await
    })
    .await
}

/// Who leads. Outside a pod with a name every process must still differ: in a container all have the same process id.
fn identity(pod_name: Option<&str>) -> String {
    pod_name.map_or_else(
        || format!("pid-{}-{:08x}", std::process::id(), rand::random::<u32>()),
        str::to_owned,
    )
}

async fn until_stopped(role: Role) -> anyhow::Result<()> {
    let (name, stop) = (role.name, role.stop.clone());
    start(role).await?;
    anyhow::ensure!(stop.is_cancelled(), "the {name} role ended");
    Ok(())
}

async fn start(role: Role) -> anyhow::Result<()> {
    match role.name {
        RoleName::ControlPlane => kamajicontrolplane::start(role).await,
        RoleName::Bootstrap => kamajiconfig::start(role).await,
        RoleName::Hosting => hosting::start(role).await,
    }
}

async fn terminated() -> std::io::Result<()> {
    use tokio::signal::unix::{SignalKind, signal};
    let mut term = signal(SignalKind::terminate())?;
    let mut int = signal(SignalKind::interrupt())?;
    tokio::select! {
        _ = term.recv() => {}
        _ = int.recv() => {}
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::{
        future::{pending, ready},
        sync::atomic::{AtomicBool, Ordering},
        time::Duration,
    };

    use super::*;

    /// A task that needs 20 s to finish what it was at, and says so.
    fn careful(
        stop: &CancellationToken,
    ) -> (Arc<AtomicBool>, impl Future<Output = anyhow::Result<()>> + use<>) {
        let (finished, stop) = (Arc::new(AtomicBool::new(false)), stop.clone());
        let done = finished.clone();
        let work = async move {
            stop.cancelled().await;
            tokio::time::sleep(Duration::from_secs(20)).await;
            done.store(true, Ordering::SeqCst);
            Ok(())
        };
        (finished, work)
    }

    #[tokio::test(start_paused = true)]
    async fn a_stop_waits_for_what_is_in_flight() {
        let stop = CancellationToken::new();
        let (finished, work) = careful(&stop);
        let mut tasks = JoinSet::new();
        tasks.spawn(work);
        supervise(tasks, stop, ready(Ok(()))).await.unwrap();
        assert!(finished.load(Ordering::SeqCst));
    }

    #[tokio::test(start_paused = true)]
    async fn a_role_that_fails_ends_the_process_but_cuts_no_other_role_off() {
        let stop = CancellationToken::new();
        let (finished, work) = careful(&stop);
        let mut tasks = JoinSet::new();
        tasks.spawn(work);
        tasks.spawn(ready(Err(anyhow::anyhow!("lease lost"))));
        let error = supervise(tasks, stop, pending()).await.unwrap_err();
        assert_eq!(error.to_string(), "lease lost");
        assert!(finished.load(Ordering::SeqCst));
    }

    #[tokio::test(start_paused = true)]
    async fn a_task_that_just_ends_is_an_error() {
        let mut tasks = JoinSet::new();
        tasks.spawn(ready(Ok(())));
        let ended = supervise(tasks, CancellationToken::new(), pending()).await;
        ended.unwrap_err();
    }

    #[test]
    fn processes_without_a_pod_name_differ() {
        assert_eq!(identity(Some("pod-1")), "pod-1");
        assert_ne!(identity(None), identity(None));
    }
}
