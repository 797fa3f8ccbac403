//! Whether the API servers of a tenant reach its nodes, through konnectivity or without it: the condition `TunnelReady`.
//! Logs, exec, port-forward, admission webhooks and aggregated APIs depend on it, and readiness of the control plane does
//! not: a new cluster has no nodes, and the agents of the tunnel need the control plane first. Pure.
//!
//! - [`when`]: when to ask. Nothing is asked of a quiet tenant whose answer was good.
//! - [`servers`]: where each API server is asked.
//! - [`found`]: what the answers mean.

pub mod found;
pub mod servers;
pub mod when;
