//! Cluster API as we read it: projections of Cluster and Machine, ownership, pause.
//!
//! Only the fields that some controller reads are declared, so the rest of these objects is never allocated. Nothing
//! here writes: Cluster API's objects are its own (contract.md 0, rule 8).

pub mod cluster;
pub mod machine;
pub mod owner;
pub mod paused;
