//! Metrics in Prometheus' text format. Labels hold controllers, roles, kinds and outcomes, never names of objects.
//!
//! Callers increment counters. A state, such as the length of a queue or the number of open connections, is computed when
//! the metrics are read. `cargo xtask docs` makes a page of the registrations below.

use std::{
    fmt,
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use parking_lot::Mutex;
use prometheus_client::{
    encoding::{EncodeLabelSet, text::encode},
    metrics::{counter::Counter, family::Family, gauge::Gauge, histogram::Histogram},
    registry::Registry,
};

use super::queue::Queue;
use crate::{k8s::apply::Counts, settings::RoleName};

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Outcome {
    controller: &'static str,
    outcome: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Problem {
    controller: &'static str,
    reason: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Controller {
    controller: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Role {
    role: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Kind {
    kind: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Request {
    role: &'static str,
    verb: &'static str,
    code: u16,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Apply {
    controller: &'static str,
    result: &'static str,
}

/// Brings a metric up to date.
type State = Box<dyn Fn() + Send>;

/// The process's metrics. Cloning shares them.
#[derive(Clone)]
pub struct Metrics {
    registry: Arc<Mutex<Registry>>,
    /// What has to be asked for its state.
    asked: Arc<Mutex<Vec<State>>>,
    reconciles: Family<Outcome, Counter>,
    errors: Family<Problem, Counter>,
    seconds: Family<Controller, Histogram>,
    depth: Family<Controller, Gauge>,
    oldest: Family<Controller, Gauge>,
    watch_restarts: Family<Kind, Counter>,
    watch_errors: Family<Kind, Counter>,
    undecodable: Family<Kind, Gauge>,
    applies: Family<Apply, Counter>,
    requests: Family<Request, Counter>,
    leader: Family<Role, Gauge>,
    connections: Family<Controller, Gauge>,
}

impl Default for Metrics {
    fn default() -> Self {
        let seconds = Family::<Controller, Histogram>::new_with_constructor(|| {
            Histogram::new([0.001, 0.01, 0.1, 0.5, 1.0, 5.0, 30.0, 120.0])
        });
        let made = Self {
            registry: Arc::new(Mutex::new(Registry::with_prefix("capi_kamaji"))),
            asked: Arc::default(),
            reconciles: Family::default(),
            errors: Family::default(),
            seconds,
            depth: Family::default(),
            oldest: Family::default(),
            watch_restarts: Family::default(),
            watch_errors: Family::default(),
            undecodable: Family::default(),
            applies: Family::default(),
            requests: Family::default(),
            leader: Family::default(),
            connections: Family::default(),
        };
        made.register();
        made
    }
}

impl Metrics {
    #[rustfmt::skip]
    fn register(&self) {
        let mut registry = self.registry.lock();
        registry.register("reconciles", "Reconciles by controller and outcome", self.reconciles.clone());
        registry.register("reconcile_errors", "Failed reconciles by controller and reason", self.errors.clone());
        registry.register("reconcile_seconds", "Duration of reconciles in seconds", self.seconds.clone());
        registry.register("queue_depth", "Objects that wait to be reconciled, due or not", self.depth.clone());
        registry.register("queue_oldest_due_seconds", "Seconds that the longest waiting object has been due", self.oldest.clone());
        registry.register("watch_restarts", "Lists that a watch began after its first one, by kind", self.watch_restarts.clone());
        registry.register("watch_errors", "Failed lists and watches by kind", self.watch_errors.clone());
        registry.register("undecodable_objects", "Objects that do not decode and are skipped, by kind", self.undecodable.clone());
        registry.register("applies", "Applies that were sent, and that were skipped because nothing differs", self.applies.clone());
        registry.register("api_requests", "Requests to the management cluster by role, verb and HTTP status code; 0 without an answer", self.requests.clone());
        registry.register("leader", "1 while this process leads the role, else 0", self.leader.clone());
        registry.register("tenant_connections", "Connections to the API servers of tenants that are kept open", self.connections.clone());
    }

    /// Counts one reconcile.
    pub fn reconciled(&self, controller: &'static str, outcome: &'static str, took: Duration) {
        self.reconciles
            .get_or_create(&Outcome { controller, outcome })
            .inc();
        self.seconds
            .get_or_create(&Controller { controller })
            .observe(took.as_secs_f64());
    }

    /// Counts a reconcile that failed for `reason`.
    pub fn failed(&self, controller: &'static str, reason: &'static str) {
        self.errors.get_or_create(&Problem { controller, reason }).inc();
    }

    /// Shows the state of a controller's queue.
    pub fn queue(&self, controller: &'static str, queue: &Arc<Queue>) {
        let depth = self.depth.get_or_create_owned(&Controller { controller });
        let oldest = self.oldest.get_or_create_owned(&Controller { controller });
        let queue = queue.clone();
        self.ask(move || {
            depth.set(rounded(queue.len()));
            let due = queue.oldest_due().unwrap_or_default();
            oldest.set(i64::try_from(due.as_secs()).unwrap_or(i64::MAX));
        });
    }

    /// Shows how many connections to tenants a controller keeps.
    pub fn connections(&self, controller: &'static str, count: impl Fn() -> usize + Send + 'static) {
        let open = self.connections.get_or_create_owned(&Controller { controller });
        self.ask(move || {
            open.set(rounded(count()));
        });
    }

    /// Shows the applies of a controller.
    pub fn applies(&self, controller: &'static str, counts: &Arc<Counts>) {
        let of = |result| self.applies.get_or_create_owned(&Apply { controller, result });
        let (sent, skipped, counts) = (of("sent"), of("skipped"), counts.clone());
        self.ask(move || {
            sent.inner().store(counts.sent(), Ordering::Relaxed);
            skipped.inner().store(counts.skipped(), Ordering::Relaxed);
        });
    }

    /// Counts a watch that lists again.
    pub fn watch_restarted(&self, kind: &'static str) {
        self.watch_restarts.get_or_create(&Kind { kind }).inc();
    }

    /// Counts a list or a watch that failed.
    pub fn watch_failed(&self, kind: &'static str) {
        self.watch_errors.get_or_create(&Kind { kind }).inc();
    }

    /// So many objects of a kind do not decode now.
    pub fn undecodable(&self, kind: &'static str, objects: usize) {
        self.undecodable
            .get_or_create(&Kind { kind })
            .set(rounded(objects));
    }

    /// Counts a request to the management cluster; `code` 0 means no answer.
    pub fn requested(&self, role: RoleName, verb: &'static str, code: u16) {
        let role = role.as_str();
        self.requests.get_or_create(&Request { role, verb, code }).inc();
    }

    /// Whether this process leads a role.
    pub fn leads(&self, role: RoleName, leads: bool) {
        let role = role.as_str();
        self.leader.get_or_create(&Role { role }).set(i64::from(leads));
    }

    fn ask(&self, state: impl Fn() + Send + 'static) {
        self.asked.lock().push(Box::new(state));
    }

    /// All metrics as text.
    ///
    /// # Errors
    /// When formatting fails, which a `String` does not.
    pub fn text(&self) -> Result<String, fmt::Error> {
        self.asked.lock().iter().for_each(|state| state());
        let mut out = String::new();
        encode(&mut out, &self.registry.lock())?;
        Ok(out)
    }
}

fn rounded(count: usize) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::k8s::key::RootKey;

    /// Every metric, by name and type.
    const ALL: [(&str, &str); 12] = [
        ("api_requests", "counter"),
        ("applies", "counter"),
        ("leader", "gauge"),
        ("queue_depth", "gauge"),
        ("queue_oldest_due_seconds", "gauge"),
        ("reconcile_errors", "counter"),
        ("reconcile_seconds", "histogram"),
        ("reconciles", "counter"),
        ("tenant_connections", "gauge"),
        ("undecodable_objects", "gauge"),
        ("watch_errors", "counter"),
        ("watch_restarts", "counter"),
    ];

    fn all_used() -> String {
        let metrics = Metrics::default();
        let queue = Arc::new(Queue::default());
        queue.add(RootKey::new("ns", "an-object"));
        metrics.reconciled("c", "done", Duration::from_secs(1));
        metrics.failed("c", "Conflict");
        metrics.queue("c", &queue);
        metrics.connections("c", || 3);
        metrics.applies("c", &Arc::new(Counts::default()));
        metrics.watch_restarted("Secret");
        metrics.watch_failed("Secret");
        metrics.undecodable("Secret", 1);
        metrics.requested(RoleName::Hosting, "get", 200);
        metrics.leads(RoleName::Hosting, true);
        metrics.text().unwrap()
    }

    #[tokio::test]
    async fn every_metric_has_a_help_text_and_none_is_forgotten_here() {
        let text = all_used();
        let mut found: Vec<_> = text
            .lines()
            .filter_map(|line| line.strip_prefix("# TYPE capi_kamaji_")?.split_once(' '))
            .collect();
        found.sort_unstable();
        assert_eq!(found, ALL);
        for (name, _) in ALL {
            let help = format!("# HELP capi_kamaji_{name} ");
            let help = text
                .lines()
                .find_map(|line| line.strip_prefix(&help))
                .unwrap_or_default();
            assert!(help.len() > 10, "{name}: {help:?}");
        }
    }

    #[tokio::test]
    async fn states_are_asked_for_and_no_label_names_an_object() {
        let text = all_used();
        for line in [
            "capi_kamaji_queue_depth{controller=\"c\"} 1",
            "capi_kamaji_tenant_connections{controller=\"c\"} 3",
            "capi_kamaji_leader{role=\"hosting\"} 1",
            "capi_kamaji_api_requests_total{role=\"hosting\",verb=\"get\",code=\"200\"} 1",
        ] {
            assert!(text.contains(line), "{line} in {text}");
        }
        assert!(!text.contains("an-object"));
    }
}
