//! Common parts of the programs of this crate: logs on stderr, a stop on signals, one way to report and retry errors.

use std::{sync::Arc, time::Duration};

use kube::runtime::{
    controller::{self, Action},
    reflector::{Lookup, ObjectRef},
};
use tokio::signal::unix::{SignalKind, signal};
use tracing::warn;
use tracing_subscriber::EnvFilter;

/// Writes logs to stderr; `RUST_LOG` filters them.
pub fn log() {
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info,kube=warn"));
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(false)
        .init();
}

/// Returns on SIGTERM or SIGINT; at once if they cannot be listened to.
pub async fn stopped() {
    let (Ok(mut term), Ok(mut int)) = (signal(SignalKind::terminate()), signal(SignalKind::interrupt()))
    else {
        return;
    };
    tokio::select! {
        _ = term.recv() => {}
        _ = int.recv() => {}
    }
}

/// Makes aws-lc the one TLS provider of this program.
pub fn crypto() {
    // An error means that it has been installed before: nothing to do.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
}

/// Logs the error of a reconcile, except conflicts, which the next event resolves.
pub fn report<K, W>(kind: &str, outcome: Result<(ObjectRef<K>, Action), controller::Error<kube::Error, W>>)
where
    K: Lookup,
    K::DynamicType: std::fmt::Debug,
    W: std::error::Error + 'static,
{
    match outcome {
        Ok(_) | Err(controller::Error::ObjectNotFound(_)) => {}
        Err(controller::Error::ReconcilerFailed(kube::Error::Api(status), _)) if status.code == 409 => {}
        Err(error) => warn!(kind, %error, "will be tried again"),
    }
}

/// When to retry: soon after a conflict.
pub fn retry<K, C>(_: Arc<K>, error: &kube::Error, _: Arc<C>) -> Action {
    match error {
        kube::Error::Api(status) if status.code == 409 => Action::requeue(Duration::from_millis(200)),
        _ => Action::requeue(Duration::from_secs(5)),
    }
}
