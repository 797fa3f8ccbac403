//! Metadata that the objects of a tenant have in common. Pure.

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kamaji_api::{
    labels::{field_manager, kamaji, ours},
    metadata::AdditionalMetadata,
    tenantcontrolplane::TenantControlPlane,
};
use kube::ResourceExt;

use crate::k8s::meta::controller_of;

/// Metadata of the object `name` of `tenant`. The user's labels do not override the engine's.
pub fn metadata(
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

/// Labels of every object of `tenant`; `component` is the role of the object.
pub fn labels_of(tenant: &TenantControlPlane, component: &str) -> BTreeMap<String, String> {
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

/// Labels by which Service, Deployment, NetworkPolicy and PodDisruptionBudget select the pods.
pub fn selector(tenant: &TenantControlPlane) -> BTreeMap<String, String> {
    BTreeMap::from([(kamaji::NAME.to_owned(), tenant.name_any())])
}
