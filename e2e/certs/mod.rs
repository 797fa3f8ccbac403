//! Stand-in for cert-manager in the lab: issues self-signed serving certificates and injects them as CA bundles.
//!
//! It serves as much of `cert-manager.io/v1` as Cluster API's own components use: `Issuer` with `selfSigned`,
//! `Certificate` with DNS names, and the annotation `cert-manager.io/inject-ca-from` on CRDs and on both kinds of
//! webhook configurations. Certificates live ten years and are not renewed: the lab does not live that long. The
//! product itself needs none of this.

pub mod api;
pub mod injection;
pub mod issuing;
pub mod serving;
