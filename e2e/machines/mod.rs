//! The machine host: boots machines of the local infrastructure on this host, as containers of systemd-nspawn or virtual
//! machines of QEMU.
//!
//! Owns the address pool, the images, cgroup subtrees and routes of the machines, networks outside of the lab, and the records
//! of all that on disk. It has no access to any Kubernetes API. All that it receives about a machine is a name, user-data and
//! a pod range, so a machine boots from what the bootstrap provider generated and from nothing else.

pub mod addresses;
pub mod cgroups;
pub mod client;
pub mod files;
pub mod host;
pub mod images;
pub mod ledger;
pub mod nat;
pub mod nspawn;
pub mod outside;
pub mod qemu;
pub mod record;
pub mod routes;
pub mod seed;
pub mod server;
pub mod wire;
