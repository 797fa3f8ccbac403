//! Objects of any kind, as manifests have them: a stream of YAML documents, access by discovery, server-side apply that
//! refuses unknown fields, and what an API server did not keep.

use anyhow::Result;
use kube::{
    Client,
    api::{Api, DynamicObject, Patch, PatchParams},
    core::GroupVersionKind,
    discovery::{self, Scope},
};
use serde::Deserialize as _;
use serde_json::Value;

/// The objects of a YAML stream.
///
/// # Errors
/// When it is not YAML.
pub fn documents(yaml: &str) -> Result<Vec<Value>> {
    let mut objects = Vec::new();
    for document in serde_yaml::Deserializer::from_str(yaml) {
        let object = Value::deserialize(document)?;
        if !object.is_null() {
            objects.push(object);
        }
    }
    Ok(objects)
}

/// A text of an object; empty if there is none.
pub fn text<'a>(object: &'a Value, pointer: &str) -> &'a str {
    object
        .pointer(pointer)
        .and_then(Value::as_str)
        .unwrap_or_default()
}

/// Kind and name, for messages.
pub fn title(object: &Value) -> String {
    format!("{} {}", text(object, "/kind"), text(object, "/metadata/name"))
}

/// Access to the objects of the kind and the namespace of `object`.
///
/// # Errors
/// When the API server does not serve the kind in that version.
pub async fn api(client: &Client, object: &Value) -> kube::Result<Api<DynamicObject>> {
    let (group, version) = text(object, "/apiVersion")
        .rsplit_once('/')
        .unwrap_or_else(|| ("", text(object, "/apiVersion")));
    let gvk = GroupVersionKind::gvk(group, version, text(object, "/kind"));
    let (resource, capabilities) = discovery::pinned_kind(client, &gvk).await?;
    Ok(match capabilities.scope {
        Scope::Cluster => Api::all_with(client.clone(), &resource),
        Scope::Namespaced => {
            Api::namespaced_with(client.clone(), text(object, "/metadata/namespace"), &resource)
        }
    })
}

/// Server-side apply by `manager`, which refuses unknown fields; a dry run is not kept.
///
/// # Errors
/// Those of the API server.
pub async fn apply(
    client: &Client,
    object: &Value,
    manager: &str,
    dry_run: bool,
) -> kube::Result<DynamicObject> {
    let mut params = PatchParams::apply(manager).force().validation_strict();
    params.dry_run = dry_run;
    api(client, object)
        .await?
        .patch(text(object, "/metadata/name"), &params, &Patch::Apply(object))
        .await
}

/// The first path of `expected` that `actual` does not have.
pub fn missing(expected: &Value, actual: &Value, path: &str) -> Option<String> {
    match (expected, actual) {
        (Value::Object(expected), Value::Object(actual)) => expected.iter().find_map(|(key, value)| {
            let path = format!("{path}.{key}");
            match actual.get(key) {
                Some(actual) => missing(value, actual, &path),
                None => Some(path),
            }
        }),
        (Value::Array(expected), Value::Array(actual)) if expected.len() == actual.len() => expected
            .iter()
            .zip(actual)
            .enumerate()
            .find_map(|(index, (expected, actual))| missing(expected, actual, &format!("{path}[{index}]"))),
        _ => (expected != actual).then(|| format!("{path}: {actual} instead of {expected}")),
    }
}
