//! Kubernetes' conformance tests against a cluster of the lab: which of them run, what their report says, and what the
//! book says about it. The suite `conformance` runs them.

pub mod choice;
pub mod page;
pub mod report;
