//! Secrets of a tenant: key material, and schema and user in its DataStore. Pure.

use std::collections::BTreeMap;

use k8s_openapi::{ByteString, api::core::v1::Secret};
use kamaji_api::{
    labels::{kamaji, ours},
    tenantcontrolplane::TenantControlPlane,
};
use kube::ResourceExt;

use super::{Result, manifest, metadata::metadata};
use crate::{
    hosting::tenantcontrolplane::names::Names,
    k8s::manifest::Manifest,
    pki::{
        issue::{Material, content_hash},
        spec::SecretSpec,
    },
};

/// Value of the component label of [`datastore_config`].
pub const DATASTORE_CONFIG: &str = "datastore-config";

/// Name of the Secret with schema and user of `tenant` in its DataStore.
pub fn datastore_config_name(tenant: &str) -> String {
    format!("{tenant}-datastore-config")
}

/// A Secret of key material. Its annotations record the digest of its data under our key and under upstream Kamaji's.
///
/// # Errors
/// See [`Result`].
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
    manifest(&Secret {
        metadata,
        type_: Some(spec.secret_type.to_owned()),
        data: Some(material.to_data()),
        // What all else rests on: kubelets do not read it again, and an edit is refused.
        immutable: spec.signer().is_none().then_some(true),
        ..Secret::default()
    })
}

/// Value of the component label of [`ca_copy`].
pub const CA_COPY: &str = "ca-copy";

/// Name of the copy of a CA with this digest.
pub fn ca_copy_name(tenant: &str, hash: &str) -> String {
    format!("{tenant}-ca-{}", hash.get(..8).unwrap_or(hash))
}

/// The copy of a CA that a user provides, for the pods.
///
/// # Errors
/// See [`Result`].
pub fn ca_copy(
    tenant: &TenantControlPlane,
    hash: &str,
    data: BTreeMap<String, ByteString>,
) -> Result<Manifest> {
    let name = ca_copy_name(&tenant.name_any(), hash);
    let mut metadata = metadata(tenant, &name, CA_COPY, None);
    metadata.annotations = Some(BTreeMap::from([(ours::CONTENT_HASH.to_owned(), hash.to_owned())]));
    manifest(&Secret {
        metadata,
        type_: Some("Opaque".to_owned()),
        data: Some(data),
        immutable: Some(true),
        ..Secret::default()
    })
}

/// The Secret with schema and user, under the keys of upstream Kamaji. etcd authenticates users by certificate, so the
/// password is empty, and so is the connection string, as in upstream Kamaji.
///
/// # Errors
/// See [`Result`].
pub fn datastore_config(tenant: &TenantControlPlane, names: &Names) -> Result<Manifest> {
    let name = datastore_config_name(&tenant.name_any());
    rendered(tenant, &name, DATASTORE_CONFIG, datastore_config_data(names))
}

/// Digest of the data of [`datastore_config`].
pub fn datastore_config_hash(names: &Names) -> String {
    digest(&datastore_config_data(names))
}

/// A Secret whose data follows from the tenant. Its annotations record the digest of its data, as those of key material do.
///
/// # Errors
/// See [`Result`].
pub fn rendered(
    tenant: &TenantControlPlane,
    name: &str,
    component: &str,
    data: BTreeMap<String, ByteString>,
) -> Result<Manifest> {
    let digest = digest(&data);
    let mut metadata = metadata(tenant, name, component, None);
    metadata.annotations = Some(BTreeMap::from([
        (ours::CONTENT_HASH.to_owned(), digest.clone()),
        (kamaji::CHECKSUM.to_owned(), digest),
    ]));
    manifest(&Secret {
        metadata,
        type_: Some("Opaque".to_owned()),
        data: Some(data),
        ..Secret::default()
    })
}

/// Digest of the data of a [`rendered`] Secret.
pub fn digest(data: &BTreeMap<String, ByteString>) -> String {
    content_hash(data.iter().map(|(key, value)| (key.as_str(), value.0.as_slice())))
}

fn datastore_config_data(names: &Names) -> BTreeMap<String, ByteString> {
    [
        ("DB_CONNECTION_STRING", ""),
        ("DB_PASSWORD", ""),
        ("DB_SCHEMA", names.schema.as_str()),
        ("DB_USER", names.user.as_str()),
    ]
    .map(|(key, value)| (key.to_owned(), ByteString(value.as_bytes().to_vec())))
    .into()
}
