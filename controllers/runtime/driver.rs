//! Runs one controller: takes due keys from its queue, reconciles them with bounded concurrency, backs off per key.

use std::{collections::HashMap, error::Error, fmt, panic::AssertUnwindSafe, sync::Arc, time::Duration};

use futures::{FutureExt as _, future::BoxFuture};
use parking_lot::Mutex;
use tokio::{task::JoinSet, time::Instant};
use tokio_util::sync::CancellationToken;
use tracing::Instrument as _;

use super::{metrics::Metrics, queue::Queue};
use crate::k8s::{
    backoff,
    error::{ApiError, Class},
    key::RootKey,
    problem::{Problem, Retry},
};

/// How a reconcile ended well.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub enum Outcome {
    /// Nothing to do until something changes. Waiting for a watched event is `Done` too.
    Done,
    /// Run again after this time at the latest: a computed time (expiry), never a poll of what can be watched.
    After(Duration),
    /// Something in another system that no watch reports does not exist yet: run again with backoff.
    Waiting,
}

impl Outcome {
    /// The same; where nothing would run it again, it runs again after `wait`.
    pub fn or_after(self, wait: Duration) -> Self {
        match self {
            Self::Done => Self::After(wait),
            Self::After(_) | Self::Waiting => self,
        }
    }
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

impl Failure {
    /// The reason of a problem, else the class. One of few, for metrics.
    fn reason(&self) -> &'static str {
        if self.source.is::<Panicked>() {
            return "Panicked";
        }
        match (self.source.downcast_ref::<Problem>(), self.class) {
            (Some(problem), _) => problem.reason.as_str(),
            (None, Class::Transient) => "Transient",
            (None, Class::Conflict) => "Conflict",
            (None, Class::Invalid) => "Invalid",
            (None, Class::Denied) => "Denied",
            (None, Class::Foreign) => "Foreign",
        }
    }
}

/// A reconcile that panicked. The panic hook logs where; see [`super::telemetry::log_panics`].
#[derive(Debug, thiserror::Error)]
#[error("the reconcile panicked; the line before in the log says where")]
struct Panicked;

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

impl Problem {
    /// How a reconcile ends that this stopped.
    ///
    /// # Errors
    /// Where it is a failure.
    pub fn settle(self) -> Reconciled {
        match self.retry {
            Retry::OnChange => Ok(Outcome::Done),
            Retry::Unwatched => Ok(Outcome::Waiting),
            Retry::Backoff(class) => Err(Failure::new(class, self)),
        }
    }
}

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
    metrics.queue(controller, &queue);
    let failures: Arc<Mutex<HashMap<RootKey, Failing>>> = Arc::default();
    let mut running = JoinSet::new();
    loop {
        let key = tokio::select! {
            biased;
            () = stop.cancelled() => break,
            Some(_) = running.join_next() => continue,
            key = queue.next(), if running.len() < concurrency => key,
        };
        // Every line that a reconcile logs carries controller and object.
        let span = tracing::info_span!("reconcile", controller, object = %key);
        // What panics for one object must not end the others: it backs off like any failure. The future is dropped, and
        // no lock of ours stays poisoned.
        let work = AssertUnwindSafe(reconcile(key.clone()).instrument(span)).catch_unwind();
        let (queue, failures, metrics) = (queue.clone(), failures.clone(), metrics.clone());
        running.spawn(async move {
            let started = Instant::now();
            let result = match tokio::time::timeout(LIMIT, work).await {
                Ok(Ok(result)) => result,
                Ok(Err(_)) => Err(Failure::new(Class::Transient, Panicked)),
                Err(_) => Err(Failure::new(
                    Class::Transient,
                    format!("gave up after {} s", LIMIT.as_secs()),
                )),
            };
            metrics.reconciled(controller, outcome_label(&result), started.elapsed());
            if let Err(failure) = &result {
                metrics.failed(controller, failure.reason());
            }
            let again = next_run(controller, &key, result, started, &mut failures.lock());
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

/// A key whose last runs failed.
#[derive(Clone, Copy)]
struct Failing {
    /// Failures in a row, not counting runs that events caused before their time.
    times: u32,
    /// When it runs again by itself.
    not_before: Instant,
}

/// When a key that ran since `started` runs next. Backoff grows with time, not with events: a run that an event caused
/// while the key was waiting changes nothing when it fails too. Logs the first failure of a row at warn, the others at
/// debug.
fn next_run(
    controller: &'static str,
    key: &RootKey,
    result: Reconciled,
    started: Instant,
    failures: &mut HashMap<RootKey, Failing>,
) -> Option<Duration> {
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
        Err(failure) => Some(failure),
    };
    let before = failures.get(key).copied();
    if let Some(before) = before.filter(|before| started < before.not_before) {
        if let Some(failure) = failure {
            tracing::debug!(controller, object = %key, %failure, "reconcile failed again, ahead of its time");
        }
        return Some(before.not_before.saturating_duration_since(Instant::now()));
    }
    let times = before.map_or(0, |before| before.times).saturating_add(1);
    let unit: f64 = rand::random();
    let class = failure.as_ref().map(|failure| failure.class);
    let wait = match class {
        // The first conflicts come from writes of somebody else; a conflict that persists is handled as any failure.
        Some(Class::Conflict) if times <= PATIENT_CONFLICTS => Duration::from_millis(100).mul_f64(0.5 + unit),
        Some(Class::Denied | Class::Invalid) => backoff::wait(times, unit).max(Duration::from_secs(30)),
        _ => backoff::wait(times, unit),
    };
    // The failure that is logged as a warning; those after it are logged at debug level.
    let warned = if class == Some(Class::Conflict) {
        PATIENT_CONFLICTS + 1
    } else {
        1
    };
    match failure {
        None => tracing::debug!(controller, object = %key, wait_seconds = wait.as_secs(), "waiting"),
        Some(failure) if times == warned => {
            tracing::warn!(controller, object = %key, %failure, "reconcile failed, will retry");
        }
        Some(failure) => {
            tracing::debug!(controller, object = %key, %failure, tries = times, "reconcile failed again");
        }
    }
    let not_before = Instant::now() + wait;
    failures.insert(key.clone(), Failing { times, not_before });
    Some(wait)
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};

    use super::*;

    /// Lets the key fail, and waits for the backoff.
    async fn fail(failures: &mut HashMap<RootKey, Failing>, class: Class) -> Duration {
        let failure = Failure::new(class, "down");
        let started = Instant::now();
        let wait = next_run("test", &RootKey::new("ns", "a"), Err(failure), started, failures).unwrap();
        tokio::time::advance(wait).await;
        wait
    }

    #[tokio::test(start_paused = true)]
    async fn a_conflict_that_stays_backs_off() {
        let mut failures = HashMap::new();
        let started = Instant::now();
        for _ in 0..12 {
            fail(&mut failures, Class::Conflict).await;
        }
        assert!(
            started.elapsed() > Duration::from_mins(5),
            "{:?}",
            started.elapsed()
        );
    }

    #[tokio::test(start_paused = true)]
    async fn backoff_grows_with_time_and_not_with_events() {
        let mut failures = HashMap::new();
        for _ in 0..4 {
            fail(&mut failures, Class::Transient).await;
        }
        let key = RootKey::new("ns", "a");
        let planned = failures[&key].not_before + Duration::from_secs(8);
        failures.get_mut(&key).unwrap().not_before = planned;
        for _ in 0..20 {
            tokio::time::advance(Duration::from_millis(100)).await;
            let failure = Failure::new(Class::Transient, "down");
            let wait = next_run("test", &key, Err(failure), Instant::now(), &mut failures);
            assert_eq!(
                Instant::now() + wait.unwrap(),
                planned,
                "an event does not move the next run"
            );
        }
        assert_eq!(failures[&key].times, 4);
        tokio::time::sleep_until(planned).await;
        let wait = fail(&mut failures, Class::Transient).await;
        assert!((8..=16).contains(&wait.as_secs()), "the fifth: {wait:?}");
        next_run("test", &key, Ok(Outcome::Done), Instant::now(), &mut failures);
        assert!(failures.is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn a_stop_is_heard_while_all_places_are_taken() {
        let queue = Arc::new(Queue::default());
        for name in ["a", "b"] {
            queue.add(RootKey::new("ns", name));
        }
        let stop = CancellationToken::new();
        let ran = Arc::new(AtomicU32::new(0));
        let (count, stopped) = (ran.clone(), stop.clone());
        let started = Instant::now();
        drive("test", queue, 1, Metrics::default(), stop, move |_| {
            count.fetch_add(1, Ordering::SeqCst);
            let stopped = stopped.clone();
            Box::pin(async move {
                stopped.cancel();
                tokio::time::sleep(Duration::from_mins(1)).await;
                Ok(Outcome::Done)
            })
        })
        .await;
        assert_eq!(
            started.elapsed(),
            DRAIN,
            "what runs has the time to end, and no more"
        );
        assert_eq!(ran.load(Ordering::SeqCst), 1, "nothing new begins");
    }

    #[tokio::test(start_paused = true)]
    async fn failures_back_off_per_key_and_success_clears_them() {
        let queue = Arc::new(Queue::default());
        let tries = Arc::new(AtomicU32::new(0));
        let stop = CancellationToken::new();
        let (count, done) = (tries.clone(), stop.clone());
        queue.add(RootKey::new("ns", "a"));
        let started = Instant::now();
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

    #[tokio::test(start_paused = true)]
    async fn a_reconcile_that_panics_is_counted_backs_off_and_ends_nothing_else() {
        let queue = Arc::new(Queue::default());
        let (metrics, stop) = (Metrics::default(), CancellationToken::new());
        let tries = Arc::new(AtomicU32::new(0));
        let (count, done) = (tries.clone(), stop.clone());
        queue.add(RootKey::new("ns", "panics"));
        queue.add(RootKey::new("ns", "works"));
        drive("test", queue, 4, metrics.clone(), stop, move |key| {
            let (count, done) = (count.clone(), done.clone());
            Box::pin(async move {
                if key.name == "works" {
                    return Ok(Outcome::Done);
                }
                assert!(count.fetch_add(1, Ordering::SeqCst) > 0, "the first time");
                done.cancel();
                Ok(Outcome::Done)
            })
        })
        .await;
        assert_eq!(tries.load(Ordering::SeqCst), 2, "it is tried again");
        let text = metrics.text().unwrap();
        for sample in [
            "reconcile_errors_total{controller=\"test\",reason=\"Panicked\"} 1",
            "reconciles_total{controller=\"test\",outcome=\"done\"} 2",
        ] {
            assert!(text.contains(sample), "no {sample}: {text}");
        }
    }
}
