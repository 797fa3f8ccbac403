//! The machine host: boots machines of the local infrastructure as systemd-nspawn containers on this host.
//!
//! Owns the address pool, the machines' roots, cgroup subtrees, routes and their records on disk. It has no
//! access to any Kubernetes API: all it learns about a machine is a name, user-data and a pod range, so what
//! boots is what the bootstrap provider rendered and nothing else. Flags and traps: the lab's notes on
//! systemd-nspawn machines (section 3.1).

pub mod addresses;
pub mod cgroups;
pub mod client;
pub mod host;
pub mod nspawn;
pub mod record;
pub mod routes;
pub mod seed;
pub mod server;
pub mod wire;
