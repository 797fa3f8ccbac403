//! What every controller needs of Kubernetes: watched objects in memory, writes, conditions and names.
//!
//! Only [`apply`], [`finalizer`], [`root`] and [`status`] write to the management cluster; each controller reads in its `observe`.
//! No controller is imported here. What is specific to this product are the annotation prefixes that [`row`] keeps, the
//! table of the engine's child kinds in [`children`], and the labels by which [`manifest`] recognizes Kamaji's objects.
//! See *Architecture* in `docs/src/architecture.md`.

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
mod packed;
pub mod pod;
pub mod problem;
pub mod ready;
pub mod report;
pub mod root;
pub mod routes;
pub mod row;
pub mod status;
pub mod store;
pub mod undecodable;
pub mod version;
