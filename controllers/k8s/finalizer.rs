//! Finalizers: added before the first side effect, removed after the last one.

use std::collections::BTreeMap;

use kube::{
    Resource, ResourceExt,
    api::{Api, Patch, PatchParams},
};
use serde_json::{Value, json};

use super::{
    error::ApiError,
    key::RootKey,
    store::{Storable, Store},
};

/// `object` has `finalizer`.
pub fn has<K: Resource>(object: &K, finalizer: &str) -> bool {
    object.finalizers().iter().any(|f| f == finalizer)
}

/// Adds `finalizer` if it is missing. One request, guarded by the resource version.
///
/// # Errors
/// What the API server answered; a conflict when somebody else wrote meanwhile.
pub async fn add<K>(api: &Api<K>, store: &Store<K>, object: &K, finalizer: &str) -> Result<(), ApiError>
where
    K: Storable + std::fmt::Debug,
{
    if has(object, finalizer) {
        return Ok(());
    }
    let finalizers: Vec<_> = object
        .finalizers()
        .iter()
        .cloned()
        .chain([finalizer.to_owned()])
        .collect();
    let written = write(api, object, finalizers).await?;
    store.put(written);
    Ok(())
}

/// Adds `finalizer` and `annotations` in one request, unless all of them exist: names that were generated for an object
/// are recorded together with the promise to clean up after it.
///
/// # Errors
/// What the API server answered; a conflict when somebody else wrote meanwhile.
pub async fn claim<K>(
    api: &Api<K>,
    store: &Store<K>,
    object: &K,
    finalizer: &str,
    annotations: &[(&str, &str)],
) -> Result<(), ApiError>
where
    K: Storable + std::fmt::Debug,
{
    let set: Vec<_> = annotations
        .iter()
        .map(|(key, value)| (*key, Some(*value)))
        .collect();
    claim_anew(api, store, object, finalizer, &set).await
}

/// As [`claim`], and removes the annotations without a value.
///
/// # Errors
/// What the API server answered; a conflict when somebody else wrote meanwhile.
pub async fn claim_anew<K>(
    api: &Api<K>,
    store: &Store<K>,
    object: &K,
    finalizer: &str,
    annotations: &[(&str, Option<&str>)],
) -> Result<(), ApiError>
where
    K: Storable + std::fmt::Debug,
{
    let known =
        |(key, value): &(&str, Option<&str>)| object.annotations().get(*key).map(String::as_str) == *value;
    if has(object, finalizer) && annotations.iter().all(known) {
        return Ok(());
    }
    let mut finalizers = object.finalizers().to_vec();
    if !has(object, finalizer) {
        finalizers.push(finalizer.to_owned());
    }
    let changed: BTreeMap<_, _> = annotations.iter().copied().collect();
    let patch = json!({
        "metadata": {
            "resourceVersion": object.resource_version(),
            "finalizers": finalizers,
            "annotations": changed,
        }
    });
    let written = patched(api, object, "claim", &patch).await?;
    store.put(written);
    Ok(())
}

/// Removes every finalizer in `ours`. A missing object is no error.
///
/// # Errors
/// What the API server answered; a conflict when somebody else wrote meanwhile.
pub async fn remove<K>(api: &Api<K>, store: &Store<K>, object: &K, ours: &[&str]) -> Result<(), ApiError>
where
    K: Storable + std::fmt::Debug,
{
    let left: Vec<_> = object
        .finalizers()
        .iter()
        .filter(|f| !ours.contains(&f.as_str()))
        .cloned()
        .collect();
    if left.len() == object.finalizers().len() {
        return Ok(());
    }
    let last = left.is_empty();
    match write(api, object, left).await {
        // The object is gone with its last finalizer: writing it through would bring back a ghost.
        Ok(written) if !last => store.put(written),
        Ok(_) => {}
        Err(error) if error.is_not_found() => {}
        Err(error) => return Err(error),
    }
    Ok(())
}

async fn write<K>(api: &Api<K>, object: &K, finalizers: Vec<String>) -> Result<K, ApiError>
where
    K: Storable + std::fmt::Debug,
{
    let patch = json!({
        "metadata": { "resourceVersion": object.resource_version(), "finalizers": finalizers }
    });
    patched(api, object, "set finalizers of", &patch).await
}

async fn patched<K>(api: &Api<K>, object: &K, action: &str, patch: &Value) -> Result<K, ApiError>
where
    K: Storable + std::fmt::Debug,
{
    api.patch(&object.name_any(), &PatchParams::default(), &Patch::Merge(patch))
        .await
        .map_err(|e| ApiError::new(format!("{action} {} {}", K::kind(&()), RootKey::of(object)), e))
}
