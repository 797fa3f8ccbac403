//! Writes to the few fields of a user's object that a controller sets.

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ManagedFieldsEntry;
use kube::{
    ResourceExt,
    api::{Api, Patch, PatchParams},
};
use serde_json::{Value, json};

use super::{
    error::ApiError,
    key::RootKey,
    store::{Storable, Store},
};

/// Applies `spec` and `annotations` to a root object, and writes the result through to `store`. It is for the few fields
/// of a user's object that a controller sets; other managers keep all other fields.
///
/// # Errors
/// What the API server answered; a conflict when the object is another one by now.
pub async fn apply_spec<K>(
    api: &Api<K>,
    store: &Store<K>,
    object: &K,
    annotations: &[(&str, &str)],
    spec: Value,
    field_manager: &str,
) -> Result<(), ApiError>
where
    K: Storable + std::fmt::Debug,
{
    let name = object.name_any();
    let annotations: BTreeMap<_, _> = annotations.iter().copied().collect();
    let patch = json!({
        "apiVersion": K::api_version(&()),
        "kind": K::kind(&()),
        "metadata": { "name": name, "uid": object.uid(), "annotations": annotations },
        "spec": spec,
    });
    let written = api
        .patch(
            &name,
            &PatchParams::apply(field_manager).force(),
            &Patch::Apply(patch),
        )
        .await
        .map_err(|e| {
            ApiError::new(
                format!("apply spec of {} {}", K::kind(&()), RootKey::of(object)),
                e,
            )
        })?;
    store.put(written);
    Ok(())
}

/// Removes the ownership of `spec` from obsolete field managers, so that later applies can delete those fields. Values do
/// not change. The store keeps managed fields only of objects that need this.
///
/// # Errors
/// What the API server answered; a conflict when somebody else wrote meanwhile.
pub async fn disown<K>(api: &Api<K>, store: &Store<K>, object: &K, managers: &[&str]) -> Result<(), ApiError>
where
    K: Storable + std::fmt::Debug,
{
    let Some(left) = without_spec(object.managed_fields(), managers) else {
        return Ok(());
    };
    let patch = json!({
        "metadata": { "resourceVersion": object.resource_version(), "managedFields": left }
    });
    let written = api
        .patch(&object.name_any(), &PatchParams::default(), &Patch::Merge(patch))
        .await
        .map_err(|e| {
            ApiError::new(
                format!("set managed fields of {} {}", K::kind(&()), RootKey::of(object)),
                e,
            )
        })?;
    store.put(written);
    Ok(())
}

/// The entries without the ownership that `managers` have of the spec; `None` when they have none.
fn without_spec(fields: &[ManagedFieldsEntry], managers: &[&str]) -> Option<Vec<ManagedFieldsEntry>> {
    let stale = |entry: &ManagedFieldsEntry| {
        entry.operation.as_deref() == Some("Update")
            && entry.subresource.as_deref().unwrap_or_default().is_empty()
            && managers.contains(&entry.manager.as_deref().unwrap_or_default())
            && entry
                .fields_v1
                .as_ref()
                .is_some_and(|known| known.0.get("f:spec").is_some())
    };
    if !fields.iter().any(stale) {
        return None;
    }
    let left = fields.iter().filter_map(|entry| {
        let mut left = entry.clone();
        if stale(entry) {
            let known = left.fields_v1.as_mut()?.0.as_object_mut()?;
            known.remove("f:spec");
            if known.is_empty() {
                return None;
            }
        }
        Some(left)
    });
    Some(left.collect())
}
