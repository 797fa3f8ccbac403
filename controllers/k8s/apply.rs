//! Creates, changes and deletes objects in the management cluster. Nothing else does.
//!
//! An apply that changes nothing is not sent. The row of an object has the digest of the manifest that was last applied,
//! and the fingerprint of the object after that apply. An edit by somebody else changes the fingerprint, and the next
//! reconcile repairs the object by one server-side apply. A process that just started has no fingerprints and trusts the
//! digest annotation, so a restart with unchanged tenants writes nothing. It therefore notices an edit that was made
//! while no process ran only in an object that is watched as a whole ([`Applier::apply_over`]).
//!
//! Objects with keys that must never change are created, never applied: of two replicas that race, one gets
//! `AlreadyExists`, and neither replaces the other's keys.
//!
//! An object that is missing in the index may exist without our label and belong to somebody else. The first apply of an
//! object with an owner therefore requires a resourceVersion that no object has: the one request either creates the
//! object or fails with a conflict. Only after a conflict is the object read. It is adopted if its owner is the expected
//! one, or if it has no owner and Kamaji's labels. The first request is no plain create, because a create owns the fields
//! it sets, and a later apply could not remove them.

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ManagedFieldsEntry;
use kube::{
    Client, ResourceExt,
    api::{Api, DeleteParams, DynamicObject, Patch, PatchParams, PostParams, Preconditions},
};
use serde::Serialize;
use serde_json::{Value, json};

use super::{
    children::row_of,
    error::{ApiError, Class},
    index::ChildIndex,
    key::{ObjectKey, RootKey},
    manifest::Manifest,
    row::Row,
    store::{Storable, Store},
};

/// A resourceVersion that no object has: the first write of an etcd has a higher revision.
const OF_NONE: &str = "1";

/// Applies `spec` and `annotations` to a root object, and writes the result through to `store`. It is for the few fields
/// of a user's object that a controller sets; other managers keep all other fields.
///
/// # Errors
/// What the API server answered; a conflict when the object is another one by now.
pub async fn root_spec<K>(
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

/// Writes as one field manager and updates the index with each answer.
pub struct Applier {
    client: Client,
    field_manager: &'static str,
    index: Arc<ChildIndex>,
    counts: Arc<Counts>,
}

/// Counters of applies.
#[derive(Debug, Default)]
pub struct Counts {
    sent: AtomicU64,
    skipped: AtomicU64,
}

impl Counts {
    /// Requests that were sent.
    pub fn sent(&self) -> u64 {
        self.sent.load(Ordering::Relaxed)
    }

    /// Applies without a request, since nothing differs.
    pub fn skipped(&self) -> u64 {
        self.skipped.load(Ordering::Relaxed)
    }
}

/// Order in which an object and its dependents are deleted; see
/// <https://kubernetes.io/docs/concepts/architecture/garbage-collection/#cascading-deletion>.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Deletion {
    /// The object first, its dependents later.
    Background,
    /// The dependents first.
    Foreground,
}

/// The result of an apply.
#[derive(Clone, Debug)]
pub struct Applied {
    /// The object as it is now.
    pub row: Arc<Row>,
    /// A request was sent.
    pub sent: bool,
}

impl Applier {
    /// An applier that writes as `field_manager` and reads and updates `index`.
    pub fn new(client: Client, field_manager: &'static str, index: Arc<ChildIndex>) -> Self {
        Self {
            client,
            field_manager,
            index,
            counts: Arc::default(),
        }
    }

    /// Counters of the applies so far.
    pub fn counts(&self) -> &Arc<Counts> {
        &self.counts
    }

    /// The index this applier writes through to.
    pub fn index(&self) -> &Arc<ChildIndex> {
        &self.index
    }

    /// Applies `manifest` by forced server-side apply, unless the object is known to match it.
    ///
    /// # Errors
    /// What the API server answered; [`ApiError::is_foreign`] when the object is there and not ours.
    pub async fn apply(&self, manifest: &Manifest) -> Result<Applied, ApiError> {
        match self.in_place(manifest) {
            Some(row) => {
                self.counts.skipped.fetch_add(1, Ordering::Relaxed);
                Ok(Applied { row, sent: false })
            }
            None => self.write(manifest).await,
        }
    }

    /// Like [`Applier::apply`], for an object that is watched as a whole: after a restart its digest annotation is trusted
    /// only if `live` matches the manifest.
    ///
    /// # Errors
    /// What the API server answered; [`ApiError::is_foreign`] when the object is there and not ours.
    pub async fn apply_over<K: Serialize>(
        &self,
        manifest: &Manifest,
        live: Option<&K>,
    ) -> Result<Applied, ApiError> {
        let cold = !self.index.is_known(&manifest.key);
        let differs = |live| {
            let live = serde_json::to_value(live).unwrap_or_default();
            !contains(&live, &manifest.body)
        };
        if cold && live.is_some_and(differs) {
            return self.write(manifest).await;
        }
        self.apply(manifest).await
    }

    async fn write(&self, manifest: &Manifest) -> Result<Applied, ApiError> {
        if manifest.owner().is_none() || self.index.get(&manifest.key).is_some() {
            return self.send(manifest, manifest.body()).await;
        }
        let first = manifest.with("resourceVersion", OF_NONE);
        match self.send(manifest, &first).await {
            Err(error) if error.class() == Class::Conflict => self.take_over(manifest, error).await,
            written => written,
        }
    }

    /// Applies over an object that exists and is missing in the index, if it is ours.
    async fn take_over(&self, manifest: &Manifest, conflict: ApiError) -> Result<Applied, ApiError> {
        let action = || format!("get {}", manifest.key);
        let found = self
            .api_of(&manifest.key)
            .get_metadata_opt(&manifest.key.name)
            .await
            .map_err(|e| ApiError::new(action(), e))?;
        let Some(found) = found else {
            // It came and went.
            return Err(conflict);
        };
        if !manifest.fits(&found.metadata) {
            let owner = manifest.owner().map(|owner| owner.kind).unwrap_or_default();
            let message = format!(
                "{} exists and does not belong to this {owner}; rename one of them",
                manifest.key
            );
            return Err(ApiError::foreign(action(), message));
        }
        self.apply_to(manifest, &found.metadata.uid.unwrap_or_default())
            .await
    }

    /// Applies `manifest` to the object of this UID, which the caller has read and found to be ours.
    ///
    /// # Errors
    /// What the API server answered; a conflict when the object is another one by now.
    pub async fn apply_to(&self, manifest: &Manifest, uid: &str) -> Result<Applied, ApiError> {
        self.send(manifest, &manifest.with("uid", uid)).await
    }

    async fn send(&self, manifest: &Manifest, body: &Value) -> Result<Applied, ApiError> {
        self.counts.sent.fetch_add(1, Ordering::Relaxed);
        let params = PatchParams::apply(self.field_manager).force();
        let object = self
            .api_of(&manifest.key)
            .patch(&manifest.key.name, &params, &Patch::Apply(body))
            .await
            .map_err(|e| ApiError::new(format!("apply {}", manifest.key), e))?;
        Ok(self.note(manifest, &object))
    }

    /// Applies all manifests in order and stops at the first error.
    ///
    /// # Errors
    /// What the API server answered to the first that failed.
    pub async fn apply_all(&self, manifests: &[Manifest]) -> Result<Vec<Applied>, ApiError> {
        let mut all = Vec::with_capacity(manifests.len());
        for manifest in manifests {
            all.push(self.apply(manifest).await?);
        }
        Ok(all)
    }

    /// Creates `manifest`; the error reports an object that exists. For objects with random content.
    ///
    /// # Errors
    /// What the API server answered; see [`ApiError::is_already_exists`].
    pub async fn create(&self, manifest: &Manifest) -> Result<Applied, ApiError> {
        let params = PostParams {
            field_manager: Some(self.field_manager.to_owned()),
            dry_run: false,
        };
        let action = || format!("create {}", manifest.key);
        let body: DynamicObject = serde_json::from_value(manifest.body.clone())
            .map_err(|e| ApiError::new(action(), kube::Error::SerdeError(e)))?;
        let object = self
            .api_of(&manifest.key)
            .create(&params, &body)
            .await
            .map_err(|e| ApiError::new(action(), e))?;
        Ok(self.note(manifest, &object))
    }

    /// The row of `key`, if we applied the object and nobody has changed it since then, or since the process started. For
    /// objects whose manifest takes a request to build; an annotation records what they were made from.
    pub fn untouched(&self, key: &ObjectKey) -> Option<Arc<Row>> {
        let row = self.index.get(key)?;
        let digest = row.digest()?.to_owned();
        self.untouched_with(key, &digest)
    }

    /// Adds labels to an object of somebody else. It gets no digest annotation, and no other field changes.
    ///
    /// # Errors
    /// What the API server answered; a conflict when the object is another one by now.
    pub async fn label(&self, row: &Row, labels: &BTreeMap<String, String>) -> Result<(), ApiError> {
        let resource = row.key.kind.resource();
        let patch = json!({
            "apiVersion": resource.api_version,
            "kind": resource.kind,
            // The UID keeps this from making an empty object where the one meant is gone.
            "metadata": { "name": row.key.name, "uid": row.uid, "labels": labels },
        });
        let object = self
            .api_of(&row.key)
            .patch(
                &row.key.name,
                &PatchParams::apply(self.field_manager).force(),
                &Patch::Apply(patch),
            )
            .await
            .map_err(|e| ApiError::new(format!("label {}", row.key), e))?;
        self.index.put(row_of(row.key.kind, &object));
        Ok(())
    }

    /// Merges `metadata` into that of an object which is ours but has no label yet. It is a merge patch, because an apply
    /// would remove the fields that an earlier apply set.
    ///
    /// # Errors
    /// What the API server answered; a conflict when the object is another one by now.
    pub async fn record(
        &self,
        key: &ObjectKey,
        uid: &str,
        mut metadata: Value,
    ) -> Result<Arc<Row>, ApiError> {
        metadata["uid"] = uid.into();
        let params = PatchParams {
            field_manager: Some(self.field_manager.to_owned()),
            ..PatchParams::default()
        };
        let object = self
            .api_of(key)
            .patch(&key.name, &params, &Patch::Merge(json!({ "metadata": metadata })))
            .await
            .map_err(|e| ApiError::new(format!("record {key}"), e))?;
        let row = row_of(key.kind, &object);
        self.index.put(row.clone());
        Ok(Arc::new(row))
    }

    /// Removes our owner reference from an object, so that the object outlives its owner.
    ///
    /// # Errors
    /// What the API server answered; a missing object is fine.
    pub async fn release(&self, row: &Row) -> Result<(), ApiError> {
        let patch = json!({ "metadata": { "uid": row.uid, "ownerReferences": null } });
        let params = PatchParams {
            field_manager: Some(self.field_manager.to_owned()),
            ..PatchParams::default()
        };
        let written = self
            .api_of(&row.key)
            .patch(&row.key.name, &params, &Patch::Merge(patch))
            .await;
        match written {
            Ok(object) => self.index.put(row_of(row.key.kind, &object)),
            Err(kube::Error::Api(status)) if status.code == 404 => self.index.forget(&row.key),
            Err(error) => return Err(ApiError::new(format!("release {}", row.key), error)),
        }
        Ok(())
    }

    /// Deletes the object of this row, and no other one of its name (UID precondition). A missing object is no error.
    /// Returns `true` if the object is gone, `false` while finalizers or dependents keep it.
    ///
    /// # Errors
    /// What the API server answered.
    pub async fn delete(&self, row: &Row) -> Result<bool, ApiError> {
        self.delete_as(row, Deletion::Background).await
    }

    /// Like [`Applier::delete`], with this order for dependents.
    ///
    /// # Errors
    /// What the API server answered.
    pub async fn delete_as(&self, row: &Row, deletion: Deletion) -> Result<bool, ApiError> {
        let how = match deletion {
            Deletion::Background => DeleteParams::background(),
            Deletion::Foreground => DeleteParams::foreground(),
        };
        let params = how.preconditions(Preconditions {
            uid: Some(row.uid.clone()),
            resource_version: None,
        });
        match self.api_of(&row.key).delete(&row.key.name, &params).await {
            Ok(either) => {
                let gone = either.is_right();
                if gone {
                    self.index.forget(&row.key);
                }
                Ok(gone)
            }
            Err(kube::Error::Api(status)) if status.code == 404 => {
                self.index.forget(&row.key);
                Ok(true)
            }
            Err(error) => Err(ApiError::new(format!("delete {}", row.key), error)),
        }
    }

    /// The row, if this manifest was applied last and nobody has changed the object since.
    fn in_place(&self, manifest: &Manifest) -> Option<Arc<Row>> {
        self.untouched_with(&manifest.key, &manifest.digest)
    }

    fn untouched_with(&self, key: &ObjectKey, digest: &str) -> Option<Arc<Row>> {
        let row = self.index.get(key)?;
        let there = row.digest() == Some(digest) && !row.deleting && self.index.is_untouched(&row);
        there.then_some(row)
    }

    fn note(&self, manifest: &Manifest, object: &DynamicObject) -> Applied {
        let row = row_of(manifest.key.kind, object);
        self.index.put_applied(row.clone());
        Applied {
            row: Arc::new(row),
            sent: true,
        }
    }

    fn api_of(&self, key: &ObjectKey) -> Api<DynamicObject> {
        let resource = &key.kind.resource();
        if key.namespace.is_empty() {
            Api::all_with(self.client.clone(), resource)
        } else {
            Api::namespaced_with(self.client.clone(), &key.namespace, resource)
        }
    }
}

/// `live` has every field of `wanted`. It may have more: defaults, and fields that others added.
fn contains(live: &Value, wanted: &Value) -> bool {
    match (live, wanted) {
        (Value::Object(live), Value::Object(wanted)) => wanted
            .iter()
            .all(|(key, wanted)| live.get(key).is_some_and(|live| contains(live, wanted))),
        (Value::Array(live), Value::Array(wanted)) => {
            live.len() == wanted.len()
                && live
                    .iter()
                    .zip(wanted)
                    .all(|(live, wanted)| contains(live, wanted))
        }
        (live, wanted) => live == wanted,
    }
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::core::v1::ConfigMap;
    use kube::runtime::watcher::Event;

    use super::*;
    use crate::{k8s::kind::Kind, testing::FakeApi};

    const PATH: &str = "/api/v1/namespaces/ns/configmaps/a";

    fn manifest() -> Manifest {
        let object = json!({ "metadata": { "name": "a", "namespace": "ns" }, "data": { "key": "ours" } });
        Manifest::of(&serde_json::from_value::<ConfigMap>(object).unwrap()).unwrap()
    }

    /// A process that just started and has listed what exists.
    fn started(api: &FakeApi) -> (Applier, Option<ConfigMap>) {
        let index = Arc::new(ChildIndex::default());
        let live = api.get(PATH);
        if let Some(object) = &live {
            let object: DynamicObject = serde_json::from_value(object.clone()).unwrap();
            index.fold(
                index.watch(),
                Event::Apply(row_of(Kind::of::<ConfigMap>(), &object)),
            );
        }
        let live = live.map(|object| serde_json::from_value(object).unwrap());
        (Applier::new(api.client(), "ours", index), live)
    }

    #[tokio::test]
    async fn an_edit_while_no_process_ran_is_undone_where_the_object_is_held_whole() {
        let api = FakeApi::default();
        let (applier, live) = started(&api);
        assert!(applier.apply_over(&manifest(), live.as_ref()).await.unwrap().sent);
        api.edit(PATH, &json!({ "data": { "beside": "theirs" } }));
        let (applier, live) = started(&api);
        let unchanged = applier.apply_over(&manifest(), live.as_ref()).await.unwrap();
        assert!(!unchanged.sent, "a restart costs nothing");
        api.edit(PATH, &json!({ "data": { "key": "theirs" } }));
        let (applier, live) = started(&api);
        assert!(applier.apply_over(&manifest(), live.as_ref()).await.unwrap().sent);
        assert_eq!(
            api.get(PATH).unwrap()["data"],
            json!({ "key": "ours", "beside": "theirs" })
        );
    }
}
