//! The objects of one tenant, one file for each kind. Pure: a validated TenantControlPlane goes in, manifests come out.
//!
//! Names, keys, labels and the etcd prefix are those of upstream Kamaji, so that its tenants can be adopted. Beyond it,
//! pods run as non-root with a read-only root filesystem, Secrets are projected key by key, and a NetworkPolicy and a
//! PodDisruptionBudget protect the pods.

pub mod containers;
pub mod deployment;
pub mod flags;
pub mod inputs;
pub mod konnectivity;
pub mod metadata;
pub mod networkpolicy;
pub mod pdb;
pub mod secrets;
pub mod service;
pub mod switch;
pub mod volumes;

#[cfg(test)]
mod tests;

use k8s_openapi::api::{networking::v1::NetworkPolicy, policy::v1::PodDisruptionBudget};
use kamaji_api::tenantcontrolplane::TenantControlPlane;
use serde::Serialize;
use serde_json::Value;

use super::names::Names;
use crate::k8s::{children::Listed, kind::Kind, manifest::Manifest};

/// A manifest, or the error of serialising an object that was just built. No Kubernetes type causes that error.
pub type Result<T> = std::result::Result<T, serde_json::Error>;

/// The manifest of an object. A kind that is not in the table of [`crate::k8s::children`] does not compile.
fn manifest<K: Listed + Serialize>(object: &K) -> Result<Manifest> {
    Manifest::of(object)
}

/// The manifest of an object, with `overlay` merged over its JSON.
fn manifest_with<K: Listed + Serialize>(object: &K, overlay: impl FnOnce(&mut Value)) -> Result<Manifest> {
    Manifest::with_overlay(object, overlay)
}

/// An object that is applied between the Service and the Deployment.
pub enum Companion {
    /// The tenant has it.
    Present(Manifest),
    /// The tenant has no object of this kind under its own name.
    Absent(Kind),
}

impl Companion {
    fn optional<K: Listed>(manifest: Option<Manifest>) -> Self {
        manifest.map_or_else(|| Self::Absent(Kind::of::<K>()), Self::Present)
    }
}

/// The objects of `tenant` beside its Service, key material and Deployment, in the order in which they are applied.
/// `agents`: see [`service::render`].
///
/// # Errors
/// See [`Result`].
pub fn companions(tenant: &TenantControlPlane, names: &Names, agents: Option<i32>) -> Result<Vec<Companion>> {
    let mut all = Vec::new();
    let policy = networkpolicy::render(tenant, agents)?;
    // The adoption of a tenant of upstream Kamaji closes no port that was open.
    if policy.is_none() || !names.adopted {
        all.push(Companion::optional::<NetworkPolicy>(policy));
    }
    all.push(Companion::optional::<PodDisruptionBudget>(pdb::render(tenant)?));
    all.push(Companion::Present(secrets::datastore_config(tenant, names)?));
    // They are deleted later than the Deployment stops mounting them.
    if tenant.spec.addons.konnectivity.is_some() {
        all.push(Companion::Present(konnectivity::egress(tenant)?));
        all.push(Companion::Present(konnectivity::kubeconfig(tenant)?));
    }
    Ok(all)
}
