//! How the process lives: leases, watches, queues, probes, metrics, shutdown. Knows no controller.
//!
//! The driver is our own keyed queue over kube's watchers instead of `kube::runtime::Controller`: it needs no
//! unstable feature, deletes of children wake owners, each key backs off by itself, and a conflict is not a failure.

pub mod client;
pub mod driver;
pub mod guard;
pub mod http;
pub mod leader;
pub mod metrics;
pub mod peers;
pub mod queue;
pub mod role;
pub mod telemetry;
pub mod watch;
