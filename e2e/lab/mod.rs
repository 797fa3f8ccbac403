//! Access of the suites to a lab that `hack/quickstart` created: its API servers, machines, logs and state.

pub mod access;
pub mod audit;
pub mod cleanup;
pub mod clusters;
pub mod conditions;
pub mod datastore;
pub mod describe;
pub mod joins;
pub mod logs;
pub mod machine;
pub mod nodes;
pub mod outside;
pub mod pods;
pub mod prober;
pub mod processes;
pub mod replicas;
pub mod snapshot;
pub mod stores;
pub mod tenants;
pub mod topology;
pub mod until;
pub mod webhook;
pub mod workers;
