//! End-to-end harness of capi-kamaji: machines, the local infrastructure provider and suites.

pub mod certs;
pub mod etcd;
pub mod infra;
pub mod lab;
pub mod machines;
pub mod run;
