//! Secrets of a tenant: key material as [`crate::pki`] made it, and the place in the datastore
//! (hosting specification 2.2).

use std::collections::BTreeMap;

use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::Secret;
use kamaji_api::labels::{kamaji, ours};
use kamaji_api::tenantcontrolplane::TenantControlPlane;
use kube::ResourceExt;

use super::{Result, metadata};
use crate::k8s::manifest::Manifest;
use crate::pki::issue::{Material, content_hash};
use crate::pki::spec::SecretSpec;

/// Value of the component label of [`datastore_config`].
pub const DATASTORE_CONFIG: &str = "datastore-config";

/// Name of the Secret with the place in the datastore.
pub fn datastore_config_name(tenant: &str) -> String {
    format!("{tenant}-datastore-config")
}

/// A Secret of key material.
pub fn material(tenant: &TenantControlPlane, spec: &SecretSpec, material: &Material) -> Result<Manifest> {
    let mut metadata = metadata(tenant, &spec.name, spec.component, None);
    if let Some(lifecycle) = spec.lifecycle() {
        let labels = metadata.labels.get_or_insert_default();
        labels.insert(kamaji::CERTIFICATE_LIFECYCLE.to_owned(), lifecycle.to_owned());
    }
    let mut annotations = material.annotations.clone();
    if let Some(digest) = annotations.get(ours::CONTENT_HASH).cloned() {
        annotations.insert(kamaji::CHECKSUM.to_owned(), digest);
    }
    metadata.annotations = Some(annotations);
    Manifest::of(&Secret {
        metadata,
        type_: Some(spec.secret_type.to_owned()),
        data: Some(material.to_data()),
        ..Secret::default()
    })
}

/// The place in the datastore under Kamaji's keys. etcd knows its users by certificate, so there is no password,
/// and as in Kamaji no connection string.
pub fn datastore_config(tenant: &TenantControlPlane, schema: &str, user: &str) -> Result<Manifest> {
    let data: BTreeMap<String, ByteString> = [
        ("DB_CONNECTION_STRING", ""),
        ("DB_PASSWORD", ""),
        ("DB_SCHEMA", schema),
        ("DB_USER", user),
    ]
    .map(|(key, value)| (key.to_owned(), ByteString(value.as_bytes().to_vec())))
    .into();
    let hash = content_hash(data.iter().map(|(key, value)| (key.as_str(), value.0.as_slice())));
    let mut metadata = metadata(
        tenant,
        &datastore_config_name(&tenant.name_any()),
        DATASTORE_CONFIG,
        None,
    );
    metadata.annotations = Some(BTreeMap::from([
        (ours::CONTENT_HASH.to_owned(), hash.clone()),
        (kamaji::CHECKSUM.to_owned(), hash),
    ]));
    Manifest::of(&Secret {
        metadata,
        type_: Some("Opaque".to_owned()),
        data: Some(data),
        ..Secret::default()
    })
}
