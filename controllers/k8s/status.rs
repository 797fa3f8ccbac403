//! Status writes: one server-side apply of the status a controller computed, and none when nothing differs.

use kube::{
    Resource, ResourceExt,
    api::{Api, Patch, PatchParams},
};
use serde::{Serialize, de::DeserializeOwned};
use serde_json::{Value, json};

use super::{digest, error::ApiError, key::RootKey, roots::Roots};

/// Applies `new` as the status of `object` when it differs from `old`, and writes the result through to `roots`.
/// Returns whether a request was sent. Transition times must have been kept by
/// [`super::conditions::set`], else every call differs.
///
/// # Errors
/// What the API server answered; a missing object is fine.
pub async fn apply<K, S>(
    api: &Api<K>,
    roots: &Roots<K>,
    object: &K,
    old: Option<&S>,
    new: &S,
    field_manager: &str,
) -> Result<bool, ApiError>
where
    K: Resource<DynamicType = ()> + Clone + DeserializeOwned + std::fmt::Debug,
    S: Serialize,
{
    write(api, roots, (object, None), old, new, field_manager).await
}

/// Like [`apply`], and only if nobody wrote the object since it was read: a conflict otherwise. For what must be
/// written once, such as a claim.
///
/// # Errors
/// What the API server answered; a missing object is fine.
pub async fn apply_unchanged<K, S>(
    api: &Api<K>,
    roots: &Roots<K>,
    object: &K,
    old: Option<&S>,
    new: &S,
    field_manager: &str,
) -> Result<bool, ApiError>
where
    K: Resource<DynamicType = ()> + Clone + DeserializeOwned + std::fmt::Debug,
    S: Serialize,
{
    let version = object.resource_version();
    write(api, roots, (object, version), old, new, field_manager).await
}

async fn write<K, S>(
    api: &Api<K>,
    roots: &Roots<K>,
    (object, version): (&K, Option<String>),
    old: Option<&S>,
    new: &S,
    field_manager: &str,
) -> Result<bool, ApiError>
where
    K: Resource<DynamicType = ()> + Clone + DeserializeOwned + std::fmt::Debug,
    S: Serialize,
{
    let action = || format!("apply status of {} {}", K::kind(&()), RootKey::of(object));
    let canonical = |status: &S| -> Result<Value, ApiError> {
        let mut value =
            serde_json::to_value(status).map_err(|e| ApiError::new(action(), kube::Error::SerdeError(e)))?;
        digest::prune(&mut value);
        Ok(value)
    };
    let wanted = canonical(new)?;
    if let Some(old) = old
        && canonical(old)? == wanted
    {
        return Ok(false);
    }
    let mut patch = json!({
        "apiVersion": K::api_version(&()),
        "kind": K::kind(&()),
        // The UID keeps a status from landing on a successor of the same name.
        "metadata": { "name": object.name_any(), "uid": object.uid(), "resourceVersion": version },
        "status": wanted,
    });
    digest::prune(&mut patch);
    let params = PatchParams::apply(field_manager).force();
    match api
        .patch_status(&object.name_any(), &params, &Patch::Apply(patch))
        .await
    {
        Ok(written) => roots.put(written),
        Err(kube::Error::Api(status)) if status.code == 404 => {}
        Err(error) => return Err(ApiError::new(action(), error)),
    }
    Ok(true)
}
