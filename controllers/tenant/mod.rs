//! Clients of tenant API servers: connections, probes, add-ons. The only module that talks to them.
//!
//! A tenant may be gone, asleep or hostile: every request is bounded in time, every error says what it means in one
//! short line (its text ends up in conditions of the management cluster), and no more is read than was asked for. Clients are kept while they are used, 256 at most.

pub mod addons;
pub mod bootstrap_role;
pub mod bundle;
pub mod coredns;
pub mod kubeproxy;
pub mod nodes;
pub mod rbac;

mod clients;

use std::time::Duration;

pub use clients::Clients;
use http::{HeaderValue, Request, header::USER_AGENT};
use kube::{Client, Config, config::AuthInfo};

use crate::{k8s::conditions::quoted, pki::kubeconfig::Kubeconfig};

/// Longest time to wait for one answer.
const PATIENCE: Duration = Duration::from_secs(10);

/// Why a tenant did not do what it was asked.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// Nobody answers.
    #[error("the API server does not answer: {0}")]
    Unreachable(String),
    /// It answers and says that it is not well.
    #[error("the API server is not healthy: {0}")]
    Unhealthy(String),
    /// It answered no.
    #[error("{0}")]
    Refused(String),
    /// The kubeconfig cannot be used.
    #[error("the kubeconfig cannot be used: {0}")]
    Credentials(String),
}

impl Error {
    /// What `error` means, while doing `action`.
    pub fn of(action: &str, error: &kube::Error) -> Self {
        match error {
            kube::Error::Api(status) if status.code >= 500 => {
                Self::Unhealthy(format!("{action}: {}", quoted(&status.message)))
            }
            kube::Error::Api(status) => Self::Refused(format!("{action}: {}", quoted(&status.message))),
            other => Self::Unreachable(format!("{action}: {}", quoted(&cause(other)))),
        }
    }
}

/// The innermost cause: the outer ones only repeat that a request failed.
fn cause(error: &dyn std::error::Error) -> String {
    let mut last = error;
    while let Some(source) = last.source() {
        last = source;
    }
    last.to_string()
}

/// A client with the identity of `kubeconfig` that connects to `address` (`host:port`), which the server's
/// certificate must name. No request is sent.
///
/// # Errors
/// When the kubeconfig cannot be used.
pub fn connect(kubeconfig: &Kubeconfig, address: &str) -> Result<Client, Error> {
    use base64::{Engine as _, engine::general_purpose::STANDARD as BASE64};
    let unusable = |error: &dyn std::error::Error| Error::Credentials(error.to_string());
    let uri: http::Uri = format!("https://{address}").parse().map_err(|e| unusable(&e))?;
    let mut config = Config::new(uri);
    let place = crate::pki::material::Found {
        location: "certificate authority of the kubeconfig".to_owned(),
        bytes: kubeconfig.ca_pem.as_bytes(),
    };
    let authorities = crate::pki::material::certificates(&place).map_err(|e| unusable(&e))?;
    config.root_cert = Some(authorities.iter().map(|der| der.to_vec()).collect());
    config.auth_info = AuthInfo {
        client_certificate_data: Some(BASE64.encode(&kubeconfig.certificate_pem)),
        client_key_data: Some(BASE64.encode(kubeconfig.key_pem.expose()).into()),
        ..AuthInfo::default()
    };
    config.default_retry = false;
    config.connect_timeout = Some(Duration::from_secs(5));
    config.read_timeout = Some(PATIENCE);
    config.write_timeout = Some(PATIENCE);
    config.proxy_url = None;
    let agent = format!("capi-kamaji/{} (tenant)", env!("CARGO_PKG_VERSION"));
    config.headers.push((
        USER_AGENT,
        HeaderValue::try_from(agent).map_err(|e| unusable(&e))?,
    ));
    Client::try_from(config).map_err(|e| unusable(&e))
}

/// Sees `/readyz` answer an authenticated request.
///
/// # Errors
/// When it does not answer, or not well.
pub async fn probe(client: &Client) -> Result<(), Error> {
    let request = Request::get("/readyz")
        .body(Vec::new())
        .map_err(|error| Error::Credentials(error.to_string()))?;
    within("ask /readyz", client.request_text(request)).await?;
    Ok(())
}

/// Bounds one request in time.
pub(crate) async fn within<T>(
    action: &str,
    request: impl Future<Output = Result<T, kube::Error>>,
) -> Result<T, Error> {
    match tokio::time::timeout(PATIENCE, request).await {
        Ok(answer) => answer.map_err(|error| Error::of(action, &error)),
        Err(_) => Err(Error::Unreachable(format!(
            "{action}: no answer within {} s",
            PATIENCE.as_secs()
        ))),
    }
}

#[cfg(test)]
mod tests {
    use kube::core::Status;

    use super::*;

    #[test]
    fn what_a_tenant_says_is_one_short_line() {
        for code in [403, 503] {
            let status = Status {
                code,
                message: format!("no\u{1b}[2J\n{}", "x".repeat(100_000)),
                ..Status::default()
            };
            let error = Error::of("apply ConfigMap coredns", &kube::Error::Api(Box::new(status)));
            let text = error.to_string();
            assert!(text.contains("apply ConfigMap coredns: no [2J x"), "{text}");
            assert!(text.chars().count() < 600 && !text.contains(char::is_control));
        }
    }
}
