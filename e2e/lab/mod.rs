//! What the suites see of a lab that `hack/quickstart` brought up: its API servers, machines, audit log and state.

pub mod access;
pub mod audit;
pub mod clusters;
pub mod datastore;
pub mod machine;
pub mod snapshot;
pub mod tenants;
pub mod until;
