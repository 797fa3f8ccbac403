//! Lets a list or a watch go on when one object in it does not decode. Pure.
//!
//! kube has such a guard too (`DeserializeGuard`), but its error quotes the value that does not fit. Values are bodies of
//! objects, which are nobody's business in a log, so only the path and what was expected there are kept.

use std::borrow::Cow;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::Resource;
use serde::{Deserialize, Deserializer, de::DeserializeOwned};
use serde_json::Value;

/// An object of a watch.
#[derive(Clone, Debug)]
pub enum Guarded<K> {
    /// As it should be.
    Decoded(K),
    /// Not readable as a `K`.
    Undecodable(Box<Undecodable>),
}

/// What is known of an object that does not decode.
#[derive(Clone, Debug, PartialEq)]
pub struct Undecodable {
    /// Its metadata, or at least namespace, name, UID and resource version.
    pub meta: ObjectMeta,
    /// Path of the first field that does not fit, for example `spec.networkProfile.port`.
    pub path: String,
    /// What was expected there; never what was found.
    pub problem: String,
}

impl<'de, K: DeserializeOwned> Deserialize<'de> for Guarded<K> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let mut value = Value::deserialize(deserializer)?;
        // Half of most metadata, and nobody reads it.
        if let Some(metadata) = value.get_mut("metadata").and_then(Value::as_object_mut) {
            metadata.remove("managedFields");
        }
        Ok(match serde_path_to_error::deserialize(&value) {
            Ok(object) => Self::Decoded(object),
            Err(error) => Self::Undecodable(Box::new(Undecodable {
                meta: metadata(&value),
                path: error.path().to_string(),
                problem: expectation(&error.inner().to_string()),
            })),
        })
    }
}

impl<K: Resource> Resource for Guarded<K> {
    type DynamicType = K::DynamicType;
    type Scope = K::Scope;

    fn kind(dt: &Self::DynamicType) -> Cow<'_, str> {
        K::kind(dt)
    }

    fn group(dt: &Self::DynamicType) -> Cow<'_, str> {
        K::group(dt)
    }

    fn version(dt: &Self::DynamicType) -> Cow<'_, str> {
        K::version(dt)
    }

    fn plural(dt: &Self::DynamicType) -> Cow<'_, str> {
        K::plural(dt)
    }

    fn metadata_api() -> bool {
        K::metadata_api()
    }

    fn meta(&self) -> &ObjectMeta {
        match self {
            Self::Decoded(object) => object.meta(),
            Self::Undecodable(object) => &object.meta,
        }
    }

    fn meta_mut(&mut self) -> &mut ObjectMeta {
        match self {
            Self::Decoded(object) => object.meta_mut(),
            Self::Undecodable(object) => &mut object.meta,
        }
    }
}

fn metadata(object: &Value) -> ObjectMeta {
    let found = object.get("metadata").unwrap_or(&Value::Null);
    ObjectMeta::deserialize(found).unwrap_or_else(|_| {
        let text = |key: &str| found.get(key).and_then(Value::as_str).map(str::to_owned);
        ObjectMeta {
            name: text("name"),
            namespace: text("namespace"),
            uid: text("uid"),
            resource_version: text("resourceVersion"),
            ..ObjectMeta::default()
        }
    })
}

/// The part of a serde message that does not quote the object.
fn expectation(message: &str) -> String {
    // The names of fields that are missing or twice are ours; anything else may come from the object.
    if ["missing field", "duplicate field"]
        .iter()
        .any(|start| message.starts_with(start))
    {
        return message.to_owned();
    }
    message.rsplit_once("expected ").map_or_else(
        || "a value of another form is expected".to_owned(),
        |(_, expected)| format!("expected {expected}"),
    )
}

#[cfg(test)]
mod tests {
    use kamaji_api::{bootstrap::KamajiConfig, tenantcontrolplane::TenantControlPlane};
    use serde_json::json;

    use super::*;

    fn undecodable<K: DeserializeOwned>(object: &Value) -> Undecodable {
        match serde_json::from_value::<Guarded<K>>(object.clone()) {
            Ok(Guarded::Undecodable(found)) => *found,
            Ok(Guarded::Decoded(_)) => panic!("it decodes"),
            Err(error) => panic!("{error}"),
        }
    }

    #[test]
    fn path_and_expectation_are_reported_and_never_the_value() {
        let found = undecodable::<TenantControlPlane>(&json!({
            "metadata": { "name": "alpha", "namespace": "demo", "resourceVersion": "7", "uid": "u" },
            "spec": {
                "controlPlane": { "deployment": {}, "service": { "serviceType": "ClusterIP" } },
                "kubernetes": { "version": "v1.36.0", "kubelet": {} },
                "networkProfile": { "port": 99_999_999_999_u64 },
            },
        }));
        assert_eq!(found.meta.name.as_deref(), Some("alpha"));
        assert_eq!(found.meta.resource_version.as_deref(), Some("7"));
        assert_eq!(found.path, "spec.networkProfile.port");
        assert_eq!(found.problem, "expected i32");

        let found = undecodable::<KamajiConfig>(&json!({
            "metadata": { "name": "alpha" },
            "spec": { "files": "the secret, expected nowhere" },
        }));
        assert_eq!(found.path, "spec.files");
        assert!(!found.problem.contains("secret"), "{}", found.problem);
    }

    #[test]
    fn metadata_that_does_not_decode_still_names_the_object() {
        let found = undecodable::<KamajiConfig>(&json!({
            "metadata": { "name": "alpha", "labels": 3, "resourceVersion": "9" },
        }));
        assert_eq!(found.meta.name.as_deref(), Some("alpha"));
        assert_eq!(found.meta.resource_version.as_deref(), Some("9"));
    }
}
