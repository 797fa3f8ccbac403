//! What a role of the process gets: client, settings, metrics, the stop token.

use std::sync::Arc;

use kube::Client;
use tokio_util::sync::CancellationToken;

use super::{http::Readiness, metrics::Metrics};
use crate::args::Settings;

/// One role of the process, leading.
#[derive(Clone)]
pub struct Role {
    /// `control-plane`, `bootstrap` or `hosting`.
    pub name: &'static str,
    /// Client with the role's user agent.
    pub client: Client,
    /// Validated flags.
    pub settings: Arc<Settings>,
    /// The process's metrics.
    pub metrics: Metrics,
    /// Where the role says that it is ready.
    pub readiness: Readiness,
    /// Fires on SIGTERM.
    pub stop: CancellationToken,
}

impl Role {
    /// Name of the pod, for events; `None` outside a pod.
    pub fn instance(&self) -> Option<String> {
        self.settings.pod_name.clone()
    }
}
