//! What a role of the process gets: client, settings, metrics, the stop token.

use std::sync::Arc;

use kube::Client;
use tokio_util::sync::CancellationToken;

use super::driver::{self, Reconciled};
use super::{http::Readiness, metrics::Metrics, queue::Queue};
use crate::{
    k8s::key::RootKey,
    settings::{RoleName, Settings},
};

/// One role of the process, leading.
#[derive(Clone)]
pub struct Role {
    /// Which one.
    pub name: RoleName,
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

    /// Runs one controller until the process stops: `reconcile` for each due key of `queue`, `concurrency` at once.
    pub fn drive<F, Work>(
        &self,
        controller: &'static str,
        queue: &Arc<Queue>,
        concurrency: usize,
        reconcile: F,
    ) -> impl Future<Output = ()> + use<F, Work>
    where
        F: Fn(RootKey) -> Work,
        Work: Future<Output = Reconciled> + Send + 'static,
    {
        let (queue, metrics, stop) = (queue.clone(), self.metrics.clone(), self.stop.clone());
        driver::drive(controller, queue, concurrency, metrics, stop, move |key| {
            Box::pin(reconcile(key))
        })
    }
}
