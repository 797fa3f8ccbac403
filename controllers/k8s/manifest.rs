//! An object as we want it, ready to be applied: pure data, built by `desired` and `render`.

use kube::{Resource, core::ApiResource};
use serde::Serialize;
use serde_json::{Map, Value};

use super::{digest, key::ObjectKey};

/// One object to apply, with its digest.
#[derive(Clone, Debug)]
#[must_use]
pub struct Manifest {
    /// Kind, namespace and name.
    pub key: ObjectKey,
    /// Group, version, kind and plural.
    pub(super) resource: ApiResource,
    /// The whole object, the digest annotation included.
    pub(super) body: Value,
    /// The digest that stands in the annotation.
    pub(super) digest: String,
}

impl Manifest {
    /// A manifest of a typed object. `kind` must be the kind of `K`; it is a literal so that keys stay cheap.
    ///
    /// # Errors
    /// When the object does not serialise to a JSON object, which no Kubernetes type does.
    pub fn new<K>(kind: &'static str, object: &K) -> Result<Self, serde_json::Error>
    where
        K: Resource<DynamicType = ()> + Serialize,
    {
        let mut body = serde_json::to_value(object)?;
        if let Value::Object(map) = &mut body {
            map.insert("apiVersion".into(), K::api_version(&()).into_owned().into());
            map.insert("kind".into(), K::kind(&()).into_owned().into());
            map.remove("status");
        }
        let namespace = object.meta().namespace.clone().unwrap_or_default();
        let name = object.meta().name.clone().unwrap_or_default();
        Ok(Self::finish(
            ObjectKey::new(kind, namespace, name),
            ApiResource::erase::<K>(&()),
            body,
        ))
    }

    /// Like [`Manifest::new`], with `merge` laid over the serialised object first. For parts that are kept as opaque
    /// JSON in our API (pod types), which no typed object could carry without loss.
    pub fn with_overlay<K>(
        kind: &'static str,
        object: &K,
        overlay: impl FnOnce(&mut Value),
    ) -> Result<Self, serde_json::Error>
    where
        K: Resource<DynamicType = ()> + Serialize,
    {
        let mut made = Self::new(kind, object)?;
        if let Some(annotations) = made
            .body
            .pointer_mut("/metadata/annotations")
            .and_then(Value::as_object_mut)
        {
            annotations.remove(digest::ANNOTATION);
        }
        overlay(&mut made.body);
        Ok(Self::finish(made.key, made.resource, made.body))
    }

    fn finish(key: ObjectKey, resource: ApiResource, mut body: Value) -> Self {
        digest::prune(&mut body);
        let digest = digest::of(&body);
        if let Some(metadata) = body.get_mut("metadata").and_then(Value::as_object_mut)
            && let Some(annotations) = metadata
                .entry("annotations")
                .or_insert_with(|| Value::Object(Map::new()))
                .as_object_mut()
        {
            annotations.insert(digest::ANNOTATION.into(), digest.clone().into());
        }
        Self {
            key,
            resource,
            body,
            digest,
        }
    }

    /// The object as it will be sent.
    pub fn body(&self) -> &Value {
        &self.body
    }

    /// Digest of the object without its digest annotation.
    pub fn digest(&self) -> &str {
        &self.digest
    }
}
