//! capi-kamaji: Cluster API control plane and bootstrap provider with an embedded Kamaji hosting engine.

pub mod hosting;
pub mod k8s;
pub mod pki;
