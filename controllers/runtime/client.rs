//! Clients of the management cluster: one a role, with its own user agent.

use std::time::Duration;

use http::{HeaderValue, header::USER_AGENT};
use kube::{Client, Config};

use crate::settings::RoleName;

/// A client for `role` from the kubeconfig or the pod's ServiceAccount.
///
/// kube's own retry replays creates for minutes; it is off, reconciles retry by themselves.
///
/// # Errors
/// When no configuration is found or it cannot be used.
pub async fn for_role(role: RoleName) -> anyhow::Result<Client> {
    let mut config = Config::infer().await?;
    config.default_retry = false;
    config.connect_timeout = Some(Duration::from_secs(10));
    let agent = format!("capi-kamaji/{} ({role})", env!("CARGO_PKG_VERSION"));
    config.headers.push((USER_AGENT, HeaderValue::try_from(agent)?));
    Ok(Client::try_from(config)?)
}
