//! Status writes: one server-side apply of the status a controller computed, and none when nothing differs.

use std::fmt::Debug;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::{
    Client, Resource, ResourceExt,
    api::{Api, DynamicObject, Patch, PatchParams},
    core::object::HasStatus,
};
use serde::Serialize;
use serde_json::{Value, json};

use super::{
    digest,
    error::ApiError,
    key::RootKey,
    kind::Kind,
    store::{Storable, Store},
};

/// What has to hold for a status to be written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Guard {
    /// Nothing: the fields are this controller's own.
    None,
    /// Nobody wrote the object since it was read; a conflict otherwise. For what is written once, such as a claim.
    Unchanged,
}

/// Applies `new` as the status of `object` when it differs from the status that `object` has, and writes the answer
/// through to `store`. Returns whether a request was sent. Transition times have to be kept by
/// [`super::conditions::set`], else every call differs.
///
/// # Errors
/// What the API server answered; a missing object is fine.
pub async fn apply<K>(
    api: &Api<K>,
    store: &Store<K>,
    object: &K,
    new: &K::Status,
    field_manager: &str,
    guard: Guard,
) -> Result<bool, ApiError>
where
    K: Storable + HasStatus + Debug,
    K::Status: Serialize,
{
    let action = || format!("apply status of {} {}", K::kind(&()), RootKey::of(object));
    let canonical = |status: &K::Status| -> Result<Value, ApiError> {
        let mut value =
            serde_json::to_value(status).map_err(|e| ApiError::new(action(), kube::Error::SerdeError(e)))?;
        digest::prune(&mut value);
        Ok(value)
    };
    let desired = canonical(new)?;
    if let Some(old) = object.status()
        && canonical(old)? == desired
    {
        return Ok(false);
    }
    let version = match guard {
        Guard::None => None,
        Guard::Unchanged => object.resource_version(),
    };
    let mut patch = json!({
        "apiVersion": K::api_version(&()),
        "kind": K::kind(&()),
        // With the UID, a status is refused by another object that has the same name by now.
        "metadata": { "name": object.name_any(), "uid": object.uid(), "resourceVersion": version },
        "status": desired,
    });
    digest::prune(&mut patch);
    let params = PatchParams::apply(field_manager).force();
    match api
        .patch_status(&object.name_any(), &params, &Patch::Apply(patch))
        .await
    {
        Ok(written) => store.put(written),
        Err(kube::Error::Api(status)) if status.code == 404 => {}
        Err(error) => return Err(ApiError::new(action(), error)),
    }
    Ok(true)
}

/// Applies one condition to the status of the `K` of which `meta` alone is known, and nothing else: what other field
/// managers wrote stays, in whatever form.
///
/// # Errors
/// What the API server answered; a missing object, or another one of the same name, is fine.
pub async fn apply_condition<K: Resource<DynamicType = ()>>(
    client: &Client,
    meta: &ObjectMeta,
    condition: &Value,
    field_manager: &str,
) -> Result<(), ApiError> {
    let (resource, name) = (Kind::of::<K>().resource(), meta.name.clone().unwrap_or_default());
    let api: Api<DynamicObject> = match meta.namespace.as_deref() {
        Some(namespace) if !namespace.is_empty() => {
            Api::namespaced_with(client.clone(), namespace, &resource)
        }
        _ => Api::all_with(client.clone(), &resource),
    };
    let patch = json!({
        "apiVersion": resource.api_version,
        "kind": resource.kind,
        // The UID keeps the condition from landing on a successor of the same name.
        "metadata": { "name": name, "uid": meta.uid },
        "status": { "conditions": [condition] },
    });
    let params = PatchParams::apply(field_manager).force();
    match api.patch_status(&name, &params, &Patch::Apply(patch)).await {
        Ok(_) => Ok(()),
        Err(kube::Error::Api(status)) if status.code == 404 || status.code == 409 => Ok(()),
        Err(error) => {
            let action = format!("apply a condition of {} {name}", resource.kind);
            Err(ApiError::new(action, error))
        }
    }
}
