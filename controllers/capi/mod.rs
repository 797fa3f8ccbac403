//! Cluster API's objects, read only: the fields of Cluster, Machine and MachinePool that a controller uses, ownership, pause; and what
//! its contract says about infrastructure objects of kinds that are known at run time alone.
//!
//! Other fields are not declared, so they are never allocated. Nothing here writes: providers do not change objects of
//! Cluster API core.

pub mod cluster;
pub mod contract;
pub mod infrastructure;
pub mod machine;
pub mod machine_pool;
pub mod owner;
pub mod paused;
#[cfg(test)]
mod provider_tests;
pub mod quirks;
