//! Runs one controller: takes due keys from its queue, reconciles them with bounded concurrency, backs off per key.

use std::{collections::HashMap, error::Error, fmt, sync::Arc, time::Duration};

use futures::future::BoxFuture;
use parking_lot::Mutex;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::{metrics::Metrics, queue::Queue};
use crate::k8s::{
    backoff,
    error::{ApiError, Class},
    key::RootKey,
};

/// How a reconcile ended well.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub enum Outcome {
    /// Nothing to do until something changes. Waiting for a watched event is `Done` too.
    Done,
    /// Run again after this time at the latest: a computed time (expiry), never a poll of what can be watched.
    After(Duration),
    /// Something that no watch tells of is not there yet (a foreign system): run again with backoff.
    Waiting,
}

/// How a reconcile failed.
#[derive(Debug)]
pub struct Failure {
    /// How to retry.
    pub class: Class,
    source: Box<dyn Error + Send + Sync>,
}

impl Failure {
    /// A failure of `class` because of `source`.
    pub fn new(class: Class, source: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        Self {
            class,
            source: source.into(),
        }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.source.fmt(f)
    }
}

impl From<ApiError> for Failure {
    fn from(error: ApiError) -> Self {
        Self::new(error.class(), error)
    }
}

/// What a reconcile returns.
pub type Reconciled = Result<Outcome, Failure>;

/// Longest time a reconcile may take before it is given up and retried.
const LIMIT: Duration = Duration::from_mins(2);
/// Conflicts in a row of one key that are retried at once.
const PATIENT_CONFLICTS: u32 = 3;
/// How long running reconciles may finish after a stop.
const DRAIN: Duration = Duration::from_secs(20);

/// Runs `reconcile` for each due key of `queue` until `stop`, at most `concurrency` at a time.
pub async fn drive<F>(
    controller: &'static str,
    queue: Arc<Queue>,
    concurrency: usize,
    metrics: Metrics,
    stop: CancellationToken,
    reconcile: F,
) where
    F: Fn(RootKey) -> BoxFuture<'static, Reconciled>,
{
    let failures: Arc<Mutex<HashMap<RootKey, u32>>> = Arc::default();
    let mut running = JoinSet::new();
    loop {
        while running.len() >= concurrency {
            running.join_next().await;
        }
        let key = tokio::select! {
            () = stop.cancelled() => break,
            Some(_) = running.join_next() => continue,
            key = queue.next() => key,
        };
        let work = reconcile(key.clone());
        let (queue, failures, metrics) = (queue.clone(), failures.clone(), metrics.clone());
        running.spawn(async move {
            let started = tokio::time::Instant::now();
            let result = tokio::time::timeout(LIMIT, work).await.unwrap_or_else(|_| {
                Err(Failure::new(
                    Class::Transient,
                    format!("gave up after {} s", LIMIT.as_secs()),
                ))
            });
            metrics.reconciled(controller, outcome_label(&result), started.elapsed());
            let again = next_run(controller, &key, result, &mut failures.lock());
            queue.done(key, again);
        });
    }
    let drained = async { while running.join_next().await.is_some() {} };
    if tokio::time::timeout(DRAIN, drained).await.is_err() {
        tracing::warn!(controller, "reconciles were cut off by the stop");
    }
}

fn outcome_label(result: &Reconciled) -> &'static str {
    match result {
        Ok(Outcome::Done | Outcome::After(_)) => "done",
        Ok(Outcome::Waiting) => "waiting",
        Err(Failure {
            class: Class::Conflict,
            ..
        }) => "conflict",
        Err(_) => "error",
    }
}

/// When the key runs next. Logs the first failure of a row at warn, the others at debug.
fn next_run(
    controller: &'static str,
    key: &RootKey,
    result: Reconciled,
    failures: &mut HashMap<RootKey, u32>,
) -> Option<Duration> {
    let unit: f64 = rand::random();
    let failure = match result {
        Ok(Outcome::Done) => {
            failures.remove(key);
            return None;
        }
        Ok(Outcome::After(wait)) => {
            failures.remove(key);
            return Some(wait);
        }
        Ok(Outcome::Waiting) => None,
        // The first conflicts are somebody else's writes; one that stays is trouble like any other.
        Err(failure)
            if failure.class == Class::Conflict
                && failures.get(key).copied().unwrap_or(0) < PATIENT_CONFLICTS =>
        {
            *failures.entry(key.clone()).or_insert(0) += 1;
            tracing::debug!(controller, object = %key, %failure, "conflict, starting over");
            return Some(Duration::from_millis(100).mul_f64(0.5 + unit));
        }
        Err(failure) => Some(failure),
    };
    let count = failures.entry(key.clone()).or_insert(0);
    *count = count.saturating_add(1);
    let mut wait = backoff::wait(*count, unit);
    match failure {
        None => tracing::debug!(controller, object = %key, wait_seconds = wait.as_secs(), "waiting"),
        Some(failure) => {
            if matches!(failure.class, Class::Denied | Class::Invalid) {
                wait = wait.max(Duration::from_secs(30));
            }
            if *count == 1 || (failure.class == Class::Conflict && *count == PATIENT_CONFLICTS + 1) {
                tracing::warn!(controller, object = %key, %failure, "reconcile failed, will retry");
            } else {
                tracing::debug!(controller, object = %key, %failure, tries = *count, "reconcile failed again");
            }
        }
    }
    Some(wait)
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};

    use super::*;

    #[test]
    fn a_conflict_that_stays_backs_off() {
        let mut failures = HashMap::new();
        let key = RootKey::new("ns", "a");
        let mut waited = Duration::ZERO;
        for _ in 0..12 {
            let failure = Failure::new(Class::Conflict, "taken");
            waited += next_run("test", &key, Err(failure), &mut failures).unwrap();
        }
        assert!(waited > Duration::from_mins(5), "{waited:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn failures_back_off_per_key_and_success_clears_them() {
        let queue = Arc::new(Queue::default());
        let tries = Arc::new(AtomicU32::new(0));
        let stop = CancellationToken::new();
        let (count, done) = (tries.clone(), stop.clone());
        queue.add(RootKey::new("ns", "a"));
        let started = tokio::time::Instant::now();
        drive("test", queue, 4, Metrics::default(), stop, move |_| {
            let (count, done) = (count.clone(), done.clone());
            Box::pin(async move {
                if count.fetch_add(1, Ordering::SeqCst) < 3 {
                    return Err(Failure::new(Class::Transient, "down"));
                }
                done.cancel();
                Ok(Outcome::Done)
            })
        })
        .await;
        assert_eq!(tries.load(Ordering::SeqCst), 4);
        let waited = started.elapsed().as_secs_f64();
        assert!(
            (3.5..=7.1).contains(&waited),
            "1 + 2 + 4 s with jitter, was {waited}"
        );
    }
}
