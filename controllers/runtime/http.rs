//! `/healthz`, `/readyz` and `/metrics`.

use std::{
    collections::BTreeMap,
    io,
    net::{Ipv4Addr, Ipv6Addr, SocketAddr},
    sync::Arc,
};

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
    let listener = match TcpListener::bind(address).await {
        Err(error) => match without_ipv6(address, &error) {
            Some(address) => TcpListener::bind(address).await,
            None => Err(error),
        },
        bound => bound,
    };
    listener.with_context(|| format!("cannot listen on {address}: choose another --diagnostics-address"))
}

/// Reads `IP:PORT`, or `:PORT` as Go's flags have it for every address: `[::]` accepts IPv4 as well.
///
/// # Errors
/// What is wrong with it.
pub fn listen_address(text: &str) -> Result<SocketAddr, String> {
    let every = text.strip_prefix(':').and_then(|port| port.parse().ok());
    match every {
        Some(port) => Ok((Ipv6Addr::UNSPECIFIED, port).into()),
        None => text.parse().map_err(|_| {
            format!("{text:?} is neither IP:PORT nor :PORT, for example 127.0.0.1:8080, [::1]:8080 or :8080")
        }),
    }
}

/// What to listen on where the kernel has no IPv6; `None` when that is not the cause.
fn without_ipv6(address: SocketAddr, error: &io::Error) -> Option<SocketAddr> {
    /// `EAFNOSUPPORT` of Linux: no socket of this address family.
    const NO_FAMILY: i32 = 97;
    let absent = error.kind() == io::ErrorKind::AddrNotAvailable || error.raw_os_error() == Some(NO_FAMILY);
    (absent && address.ip() == Ipv6Addr::UNSPECIFIED).then(|| (Ipv4Addr::UNSPECIFIED, address.port()).into())
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

    #[test]
    fn an_address_is_read_with_and_without_an_ip_address() {
        for (text, address) in [
            (":8080", "[::]:8080"),
            ("127.0.0.1:1", "127.0.0.1:1"),
            ("[::1]:1", "[::1]:1"),
        ] {
            assert_eq!(listen_address(text), Ok(address.parse().unwrap()));
        }
        for text in ["8080", ":", ":70000", "localhost:1", "::1:1:"] {
            assert!(listen_address(text).unwrap_err().contains("[::1]:8080"), "{text}");
        }
    }

    #[tokio::test]
    async fn every_address_is_ipv4_and_ipv6_or_ipv4_alone() {
        let listener = bind(listen_address(":0").unwrap()).await.unwrap();
        let port = listener.local_addr().unwrap().port();
        tokio::net::TcpStream::connect((Ipv4Addr::LOCALHOST, port))
            .await
            .unwrap();
        let every: SocketAddr = "[::]:8080".parse().unwrap();
        let no_family = io::Error::from_raw_os_error(97);
        assert_eq!(
            without_ipv6(every, &no_family),
            Some("0.0.0.0:8080".parse().unwrap())
        );
        assert_eq!(without_ipv6("[::1]:8080".parse().unwrap(), &no_family), None);
        assert_eq!(
            without_ipv6(every, &io::Error::from(io::ErrorKind::AddrInUse)),
            None
        );
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
