//! The objects of one tenant as we want them, one file a kind. Pure: a checked tenant goes in, manifests come out.
//!
//! Names, keys, labels and the etcd prefix are Kamaji's (hosting specification 2.2, 2.3, 2.7–2.9, 8); what is
//! hardened against it is DESIGN 2.7.

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kamaji_api::labels::{field_manager, kamaji, ours};
use kamaji_api::metadata::AdditionalMetadata;
use kamaji_api::tenantcontrolplane::TenantControlPlane;
use kube::ResourceExt;

use crate::k8s::meta::controller_of;

pub mod containers;
pub mod deployment;
pub mod flags;
pub mod networkpolicy;
pub mod pdb;
pub mod secrets;
pub mod service;
pub mod volumes;

#[cfg(test)]
pub(super) mod example;

/// Failure to serialise what was just built; no Kubernetes type does that.
pub type Result<T> = std::result::Result<T, serde_json::Error>;

/// Metadata of an object of `tenant`; what the user adds loses against the engine's own.
pub(super) fn metadata(
    tenant: &TenantControlPlane,
    name: &str,
    component: &str,
    extra: Option<&AdditionalMetadata>,
) -> ObjectMeta {
    let mut labels = extra.map(|extra| extra.labels.clone()).unwrap_or_default();
    labels.extend(labels_of(tenant, component));
    let annotations = extra.map(|extra| extra.annotations.clone()).unwrap_or_default();
    ObjectMeta {
        name: Some(name.to_owned()),
        namespace: tenant.namespace(),
        labels: Some(labels),
        annotations: Some(annotations),
        owner_references: Some(vec![controller_of(tenant)]),
        ..ObjectMeta::default()
    }
}

/// Labels of every object of `tenant`.
pub(super) fn labels_of(tenant: &TenantControlPlane, component: &str) -> BTreeMap<String, String> {
    let mut labels = selector(tenant);
    labels.extend(
        [
            (kamaji::PROJECT, kamaji::PROJECT_VALUE),
            (kamaji::COMPONENT, component),
            (ours::MANAGED_BY, field_manager::HOSTING),
        ]
        .map(|(key, value)| (key.to_owned(), value.to_owned())),
    );
    labels
}

/// What Service, Deployment, NetworkPolicy and PodDisruptionBudget find the pods by.
pub fn selector(tenant: &TenantControlPlane) -> BTreeMap<String, String> {
    BTreeMap::from([(kamaji::NAME.to_owned(), tenant.name_any())])
}
