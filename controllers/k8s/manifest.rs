//! A desired object, ready to be applied. Pure data that `desired` builds.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};
use kamaji_api::labels::{kamaji, ours};
use kube::Resource;
use serde::Serialize;
use serde_json::{Map, Value};

use super::{digest, key::ObjectKey, row::Row};

/// One object to apply, with its digest.
#[derive(Clone, Debug)]
#[must_use]
pub struct Manifest {
    /// Kind, namespace and name.
    pub key: ObjectKey,
    /// The whole object, the digest annotation included.
    pub(super) body: Value,
    /// The digest, which is also in the annotation.
    pub(super) digest: String,
}

impl Manifest {
    /// A manifest of a typed object.
    ///
    /// # Errors
    /// When the object does not serialise to a JSON object, which no Kubernetes type does.
    pub fn of<K>(object: &K) -> Result<Self, serde_json::Error>
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
        Ok(Self::finish(ObjectKey::of::<K>(namespace, name), body))
    }

    /// Like [`Manifest::of`], with `merge` merged into the serialised object first. For pod types that our API keeps as
    /// opaque JSON, since a typed object would lose unknown fields.
    ///
    /// # Errors
    /// As [`Manifest::of`].
    pub fn with_overlay<K>(object: &K, overlay: impl FnOnce(&mut Value)) -> Result<Self, serde_json::Error>
    where
        K: Resource<DynamicType = ()> + Serialize,
    {
        let mut made = Self::of(object)?;
        if let Some(annotations) = made
            .body
            .pointer_mut("/metadata/annotations")
            .and_then(Value::as_object_mut)
        {
            annotations.remove(digest::ANNOTATION);
        }
        overlay(&mut made.body);
        Ok(Self::finish(made.key, made.body))
    }

    fn finish(key: ObjectKey, mut body: Value) -> Self {
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
        Self { key, body, digest }
    }

    /// The object as it is sent.
    pub fn body(&self) -> &Value {
        &self.body
    }

    /// The body with one more field of its metadata.
    pub(super) fn with(&self, field: &str, value: &str) -> Value {
        let mut body = self.body.clone();
        body["metadata"][field] = value.into();
        body
    }

    /// The controller owner of the object, if it has one.
    pub(super) fn owner(&self) -> Option<OwnerReference> {
        let owners = self.body.pointer("/metadata/ownerReferences")?;
        let owners: Vec<OwnerReference> = serde_json::from_value(owners.clone()).ok()?;
        owners.into_iter().find(|owner| owner.controller == Some(true))
    }

    /// The row is of an object with the same controller, by kind and name.
    pub(super) fn is_of(&self, row: &Row) -> bool {
        let (known, owner) = (row.owner.as_deref(), self.owner());
        known
            .zip(owner)
            .is_some_and(|(known, owner)| (&known.kind, &known.name) == (&owner.kind, &owner.name))
    }

    /// Whether an existing object of this name is ours to apply over. It is if it has the same owner by kind and name
    /// (an owner that was moved or restored has another UID), or if it has no owner and Kamaji's labels.
    pub(super) fn fits(&self, found: &ObjectMeta) -> bool {
        let Some(owner) = self.owner() else {
            return true;
        };
        belongs(found, &owner.kind, &owner.name, |key| {
            let pointer = format!("/metadata/labels/{}", key.replace('/', "~1"));
            self.body
                .pointer(&pointer)
                .and_then(Value::as_str)
                .map(str::to_owned)
        })
    }

    /// Digest of the object without its digest annotation.
    pub fn digest(&self) -> &str {
        &self.digest
    }
}

/// Whether `found` is controlled by `kind` `name`, or has no controller and the label `label`.
pub fn belongs(found: &ObjectMeta, kind: &str, name: &str, label: impl Fn(&str) -> Option<String>) -> bool {
    let owners = found.owner_references.iter().flatten();
    if let Some(owner) = owners.clone().find(|owner| owner.controller == Some(true)) {
        return owner.kind == kind && owner.name == name;
    }
    let same = |key: &str| {
        let there = found.labels.as_ref().and_then(|labels| labels.get(key));
        there.is_some() && there == label(key).as_ref()
    };
    same(kamaji::PROJECT) && (same(kamaji::NAME) || same(ours::DATASTORE))
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::core::v1::Service;
    use serde_json::json;

    use super::*;

    fn service(metadata: &Value) -> Service {
        serde_json::from_value(json!({ "metadata": metadata })).unwrap()
    }

    #[test]
    fn what_stands_in_our_place_is_ours_by_owner_or_by_kamajis_labels() {
        let owned = |kind: &str, name: &str| json!([{ "apiVersion": "x/v1", "kind": kind, "name": name, "uid": "u", "controller": true }]);
        let labels =
            |name: &str| json!({ "kamaji.clastix.io/project": "kamaji", "kamaji.clastix.io/name": name });
        let ours = service(&json!({
            "name": "web", "namespace": "demo", "labels": labels("web"),
            "ownerReferences": owned("TenantControlPlane", "web"),
        }));
        let ours = Manifest::of(&ours).unwrap();
        let table = [
            ("an app's", json!({ "labels": { "app": "web" } }), false),
            ("nobody's", json!({}), false),
            (
                "ours",
                json!({ "ownerReferences": owned("TenantControlPlane", "web") }),
                true,
            ),
            (
                "a neighbour's",
                json!({ "ownerReferences": owned("TenantControlPlane", "b") }),
                false,
            ),
            (
                "a Deployment's",
                json!({ "ownerReferences": owned("Deployment", "web") }),
                false,
            ),
            (
                "Kamaji's, without owner",
                json!({ "labels": labels("web") }),
                true,
            ),
            (
                "a neighbour's, without owner",
                json!({ "labels": labels("b") }),
                false,
            ),
            (
                "labelled like ours and owned",
                json!({ "labels": labels("web"), "ownerReferences": owned("Deployment", "web") }),
                false,
            ),
        ];
        for (case, found, expected) in table {
            assert_eq!(ours.fits(&service(&found).metadata), expected, "{case}");
        }
    }
}
