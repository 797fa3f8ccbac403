//! Asks an API server all the time, and counts what fails meanwhile.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use http::Request;
use kube::config::Kubeconfig;
use tokio::time::{Instant, MissedTickBehavior, interval, timeout};
use tokio_util::task::AbortOnDropHandle;

use super::access::client;

/// Pace of the requests.
const EVERY: Duration = Duration::from_millis(100);
/// Time for one answer.
const ANSWER: Duration = Duration::from_secs(5);
/// Errors that are kept.
const KEPT: usize = 10;

/// What was seen since the last report.
#[derive(Clone, Debug, Default)]
pub struct Seen {
    /// Requests, each on a connection of its own.
    pub tried: u32,
    /// Those without an answer.
    pub failed: u32,
    /// Time that the failed ones took, at least the time until the next one each.
    pub down: Duration,
    /// The first errors.
    pub errors: Vec<String>,
}

/// Asks an API server ten times a second until it is dropped.
pub struct Prober {
    seen: Arc<Mutex<Seen>>,
    _task: AbortOnDropHandle<()>,
}

impl Prober {
    /// Starts to ask for the version.
    pub fn start(kubeconfig: Kubeconfig) -> Self {
        Self::start_at(kubeconfig, "/version".to_owned())
    }

    /// Starts to ask for `path`.
    pub fn start_at(kubeconfig: Kubeconfig, path: String) -> Self {
        let seen = Arc::<Mutex<Seen>>::default();
        let task = tokio::spawn(ask(kubeconfig, path, seen.clone()));
        Self {
            seen,
            _task: AbortOnDropHandle::new(task),
        }
    }

    /// How many requests have ended since the last report.
    pub fn tried(&self) -> u32 {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner).tried
    }

    /// What was seen since the last report. It is printed too, after `what`.
    pub fn report(&self, what: &str) -> Seen {
        let seen = std::mem::take(&mut *self.seen.lock().unwrap_or_else(PoisonError::into_inner));
        eprintln!(
            "{what}: {} fresh connections, {} failed, {:.2} s in all {:?}",
            seen.tried,
            seen.failed,
            seen.down.as_secs_f64(),
            seen.errors
        );
        seen
    }
}

async fn ask(kubeconfig: Kubeconfig, path: String, seen: Arc<Mutex<Seen>>) {
    let mut ticks = interval(EVERY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        let started = Instant::now();
        let answer = timeout(ANSWER, async {
            let fresh = client(kubeconfig.clone()).await?;
            let request = Request::get(&path).body(Vec::new())?;
            Ok::<_, anyhow::Error>(fresh.request_text(request).await?)
        })
        .await;
        let error = match answer {
            Ok(Ok(_)) => None,
            Ok(Err(error)) => Some(format!("{error:#}")),
            Err(_) => Some(format!("no answer in {} s", ANSWER.as_secs())),
        };
        let mut seen = seen.lock().unwrap_or_else(PoisonError::into_inner);
        seen.tried += 1;
        if let Some(error) = error {
            seen.failed += 1;
            seen.down += started.elapsed().max(EVERY);
            if seen.errors.len() < KEPT {
                seen.errors.push(error);
            }
        }
    }
}
