//! A replacement of cert-manager for the lab: issues self-signed serving certificates and injects them as CA bundles.
//!
//! It implements the part of `cert-manager.io/v1` that Cluster API's components use: `Issuer` with `selfSigned`,
//! `Certificate` with DNS names, and the annotation `cert-manager.io/inject-ca-from` on CRDs and on both kinds of webhook
//! configurations. Certificates are valid for ten years and are not renewed, because a lab does not live that long. The
//! product does not need cert-manager.

pub mod api;
pub mod injection;
pub mod issuing;
pub mod serving;
