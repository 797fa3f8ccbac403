//! `/healthz`, `/readyz` and `/metrics`.

use std::{collections::BTreeMap, net::SocketAddr, sync::Arc};

use anyhow::Context as _;
use axum::{Router, extract::State, http::StatusCode, routing::get};
use parking_lot::Mutex;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use super::metrics::Metrics;
use crate::settings::RoleName;

/// Which roles are ready: standing by for the lease, or leading with all kinds listed.
#[derive(Clone, Default)]
pub struct Readiness {
    roles: Arc<Mutex<BTreeMap<RoleName, bool>>>,
}

impl Readiness {
    /// Says whether `role` is ready.
    pub fn set(&self, role: RoleName, ready: bool) {
        self.roles.lock().insert(role, ready);
    }

    fn waiting(&self) -> Vec<&'static str> {
        self.roles
            .lock()
            .iter()
            .filter(|(_, ready)| !**ready)
            .map(|(role, _)| role.as_str())
            .collect()
    }
}

/// Listens on `address`.
///
/// # Errors
/// Names the address and the flag that sets it.
pub async fn bind(address: SocketAddr) -> anyhow::Result<TcpListener> {
    TcpListener::bind(address)
        .await
        .with_context(|| format!("cannot listen on {address}: choose another --diagnostics-address"))
}

/// Serves the probes until `stop`.
///
/// # Errors
/// When accepting connections fails.
pub async fn serve(
    listener: TcpListener,
    readiness: Readiness,
    metrics: Metrics,
    stop: CancellationToken,
) -> anyhow::Result<()> {
    let router = Router::new()
        .route("/healthz", get(|| async { "ok" }))
        .route("/readyz", get(readyz).with_state(readiness))
        .route("/metrics", get(text).with_state(metrics));
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

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_role_is_not_ready_before_it_says_so() {
        let readiness = Readiness::default();
        readiness.set(RoleName::Hosting, false);
        readiness.set(RoleName::Bootstrap, true);
        let (code, text) = readyz(State(readiness.clone())).await;
        assert_eq!(
            (code, text.as_str()),
            (StatusCode::SERVICE_UNAVAILABLE, "not ready: hosting")
        );
        readiness.set(RoleName::Hosting, true);
        assert_eq!(readyz(State(readiness)).await.0, StatusCode::OK);
    }

    #[tokio::test]
    async fn a_taken_port_is_named_with_its_flag() {
        let first = bind("127.0.0.1:0".parse().unwrap()).await.unwrap();
        let address = first.local_addr().unwrap();
        let error = bind(address).await.unwrap_err().to_string();
        assert!(
            error.contains(&address.to_string()) && error.contains("--diagnostics-address"),
            "{error}"
        );
    }
}
