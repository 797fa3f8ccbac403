//! Cluster API's objects, read only: the fields of Cluster and Machine that a controller uses, ownership, pause.
//!
//! Other fields are not declared, so they are never allocated. Nothing here writes: providers do not change objects of
//! Cluster API core.

pub mod cluster;
pub mod machine;
pub mod owner;
pub mod paused;
