//! Single fields of objects of others, of kinds that are known at run time alone. They are in no index: nobody watches them.

use kube::{
    Client,
    api::{Api, ApiResource, DynamicObject, Patch, PatchParams},
};
use serde_json::Value;

use crate::k8s::{error::ApiError, key::RootKey};

/// Applies the fields in `body`, which has to have the UID of the object: an apply creates an object that is missing. Other
/// owners of the same fields lose them, so the caller has decided that they may. Returns the object as it was stored.
///
/// # Errors
/// What the API server answered; a conflict when the object is another one by now.
pub async fn apply_fields(
    client: &Client,
    resource: &ApiResource,
    key: &RootKey,
    field_manager: &str,
    body: &Value,
) -> Result<DynamicObject, ApiError> {
    let params = PatchParams::apply(field_manager).force();
    Api::<DynamicObject>::namespaced_with(client.clone(), &key.namespace, resource)
        .patch(&key.name, &params, &Patch::Apply(body))
        .await
        .map_err(|error| ApiError::new(format!("apply {} {key}", resource.kind), error))
}

/// Merges `body` into the status. It is no apply: the provider that gets the object back writes the field without asking who
/// owns it. Returns the object as it was stored.
///
/// # Errors
/// What the API server answered; a conflict when the object is another one by now.
pub async fn merge_status(
    client: &Client,
    resource: &ApiResource,
    key: &RootKey,
    field_manager: &str,
    body: &Value,
) -> Result<DynamicObject, ApiError> {
    let params = PatchParams {
        field_manager: Some(field_manager.to_owned()),
        ..PatchParams::default()
    };
    Api::<DynamicObject>::namespaced_with(client.clone(), &key.namespace, resource)
        .patch_status(&key.name, &params, &Patch::Merge(body))
        .await
        .map_err(|error| ApiError::new(format!("set the status of {} {key}", resource.kind), error))
}
