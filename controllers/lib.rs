//! capi-kamaji: Cluster API control plane and bootstrap provider with an embedded Kamaji hosting engine.

pub mod k8s;
