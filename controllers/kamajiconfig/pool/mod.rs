//! What is special about a config that a MachinePool owns: one config, one Secret, any number of Nodes. Pure.
//!
//! [`intent`] names the Secret, [`rotation`] replaces the token in it before it expires, [`claims`] reserves names for Nodes
//! within the size of the pool, and [`instances`] is what the infrastructure reports of the machines.

pub mod claims;
pub mod instances;
pub mod intent;
pub mod rotation;
