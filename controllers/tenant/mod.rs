//! Clients of tenant API servers: connections, probes, add-ons. The only module that talks to them.

pub mod bootstrap_role;
