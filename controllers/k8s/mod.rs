//! What every controller needs of Kubernetes: the index of children, the one way to write, conditions and names.
//!
//! Reads live in each controller's `observe`; the only writes to the management cluster are in [`apply`],
//! [`finalizer`] and [`status`] (style.md 3.3, rule 2). Nothing here knows a controller.

pub mod apply;
pub mod backoff;
pub mod cache;
pub mod child;
pub mod children;
pub mod conditions;
pub mod digest;
pub mod error;
pub mod events;
pub mod finalizer;
pub mod host_port;
pub mod index;
pub mod key;
pub mod kind;
pub mod manifest;
pub mod merge_patch;
pub mod meta;
pub mod names;
pub mod notes;
pub mod pod;
pub mod problem;
pub mod report;
pub mod routes;
pub mod row;
pub mod status;
pub mod store;
pub mod undecodable;
pub mod version;
