//! What every program of this crate does at start and end: logs to stderr, a stop on a signal.

use tokio::signal::unix::{SignalKind, signal};
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
