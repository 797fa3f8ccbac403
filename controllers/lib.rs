//! capi-kamaji: Cluster API control plane and bootstrap provider with an embedded Kamaji hosting engine.
//!
//! `api` ← [`k8s`] ← [`capi`] ← controllers. The controllers never import each other: they meet through objects
//! alone, so that `--hosting=external` leaves the hosting to an upstream Kamaji (DESIGN 1). Only this file knows
//! them all.

pub mod args;
pub mod capi;
pub mod hosting;
pub mod k8s;
pub mod kamajiconfig;
pub mod kamajicontrolplane;
pub mod pki;
pub mod print;
pub mod runtime;
pub mod tenant;
#[cfg(test)]
mod testing;

use std::sync::Arc;

use anyhow::Context as _;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use args::{Hosting, RoleName, RunArgs, Settings};
use runtime::{client, http, leader, metrics::Metrics, role::Role, telemetry};

/// Runs the roles that `args` names until SIGTERM or SIGINT. Any task that ends early ends the process.
///
/// # Errors
/// When a role cannot start, loses its lease or ends; when a peer engine holds its lease.
pub async fn run(args: RunArgs) -> anyhow::Result<()> {
    telemetry::install(args.log_format, &args.log_level)?;
    let stop = CancellationToken::new();
    let readiness = http::Readiness::default();
    let metrics = Metrics::default();
    let mut tasks: JoinSet<anyhow::Result<()>> = JoinSet::new();
    tasks.spawn(http::serve(
        args.diagnostics_address,
        readiness.clone(),
        metrics.clone(),
        stop.clone(),
    ));
    let settings = Arc::new(Settings::new(&args));
    for name in roles(&args) {
        let role = Role {
            name: name.as_str(),
            client: client::for_role(name.as_str())
                .await
                .context("no management cluster")?,
            settings: settings.clone(),
            metrics: metrics.clone(),
            readiness: readiness.clone(),
            stop: stop.clone(),
        };
        tasks.spawn(lead(name, role, args.leader_elect));
    }
    let ended = tokio::select! {
        signal = terminated() => { signal?; None }
        ended = tasks.join_next() => ended,
    };
    tracing::info!("stopping");
    stop.cancel();
    if let Some(ended) = ended {
        ended??;
        anyhow::bail!("a task of the process ended");
    }
    while let Some(ended) = tasks.join_next().await {
        ended??;
    }
    Ok(())
}

/// The roles to run: with an external engine, hosting is nobody's.
fn roles(args: &RunArgs) -> Vec<RoleName> {
    let mut roles = args.controllers.clone();
    roles.sort_unstable();
    roles.dedup();
    roles.retain(|role| *role != RoleName::Hosting || args.hosting == Hosting::Embedded);
    roles
}

/// Holds the role's lease and runs its controllers.
async fn lead(name: RoleName, role: Role, elect: bool) -> anyhow::Result<()> {
    runtime::peers::refuse_beside(name, &role.client).await?;
    if !elect {
        return start(name, role).await;
    }
    // Standing by is ready: a Deployment with two replicas has one leader.
    role.readiness.set(role.name, true);
    let identity = role
        .settings
        .pod_name
        .clone()
        .unwrap_or_else(|| format!("pid-{}", std::process::id()));
    let lease = format!("capi-kamaji-{}", role.name);
    let held = leader::acquire(
        role.client.clone(),
        &role.settings.own_namespace,
        &lease,
        &identity,
        role.stop.clone(),
    )
    .await?;
    if role.stop.is_cancelled() {
        return held.await;
    }
    role.readiness.set(role.name, false);
    let stop = role.stop.clone();
    tokio::select! {
        lost = held => lost,
        // The lease is given back after the last write, when the process stops.
        ended = start(name, role) => {
            anyhow::ensure!(stop.is_cancelled(), "the {} role ended", name.as_str());
            ended
        }
    }
}

async fn start(name: RoleName, role: Role) -> anyhow::Result<()> {
    match name {
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
