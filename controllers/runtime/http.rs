//! `/healthz`, `/readyz` and `/metrics`.

use std::{collections::BTreeMap, net::SocketAddr, sync::Arc};

use axum::{Router, extract::State, http::StatusCode, routing::get};
use parking_lot::Mutex;
use tokio_util::sync::CancellationToken;

use super::metrics::Metrics;

/// Which roles are ready: standing by for the lease, or leading with all kinds listed.
#[derive(Clone, Default)]
pub struct Readiness {
    roles: Arc<Mutex<BTreeMap<&'static str, bool>>>,
}

impl Readiness {
    /// Says whether `role` is ready.
    pub fn set(&self, role: &'static str, ready: bool) {
        self.roles.lock().insert(role, ready);
    }

    fn waiting(&self) -> Vec<&'static str> {
        self.roles
            .lock()
            .iter()
            .filter(|(_, ready)| !**ready)
            .map(|(role, _)| *role)
            .collect()
    }
}

/// Serves the probes until `stop`.
///
/// # Errors
/// When the address cannot be bound.
pub async fn serve(
    address: SocketAddr,
    readiness: Readiness,
    metrics: Metrics,
    stop: CancellationToken,
) -> anyhow::Result<()> {
    let router = Router::new()
        .route("/healthz", get(|| async { "ok" }))
        .route("/readyz", get(readyz).with_state(readiness))
        .route("/metrics", get(text).with_state(metrics));
    let listener = tokio::net::TcpListener::bind(address).await?;
    axum::serve(listener, router)
        .with_graceful_shutdown(stop.cancelled_owned())
        .await?;
    Ok(())
}

async fn readyz(State(readiness): State<Readiness>) -> (StatusCode, String) {
    let waiting = readiness.waiting();
    if waiting.is_empty() {
        (StatusCode::OK, "ok".to_owned())
    } else {
        (
            StatusCode::SERVICE_UNAVAILABLE,
            format!("not ready: {}", waiting.join(", ")),
        )
    }
}

async fn text(State(metrics): State<Metrics>) -> Result<String, StatusCode> {
    metrics.text().map_err(|_| StatusCode::INTERNAL_SERVER_ERROR)
}
