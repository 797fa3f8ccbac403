//! End-to-end test harness of capi-kamaji: machines, the local infrastructure provider, and suites.

pub mod apiserver;
pub mod bootstrap;
pub mod certs;
pub mod cloud_init;
pub mod clusterctl;
pub mod conformance;
pub mod core_provider;
pub mod csr;
pub mod etcd;
pub mod infra;
pub mod lab;
pub mod machines;
pub mod objects;
pub mod port;
pub mod provider_definitions;
pub mod run;

/// Reports a skipped test on standard error, which the test harness does not capture.
pub fn skip(why: &str) {
    use std::io::Write as _;
    // A line of its own, whatever the harness has begun; standard error is gone only when nobody listens.
    let _ = writeln!(std::io::stderr(), "\nskipped: {why}");
}
