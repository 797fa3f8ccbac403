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
//! An object that is missing in the index, or is there without our label, may belong to somebody else. The first apply of an
//! object with an owner therefore requires a resourceVersion that no object has: the one request either creates the
//! object or fails with a conflict. Only after a conflict is the object read. It is adopted if its owner is the expected
//! one, or if it has no owner and Kamaji's labels. The first request is no plain create, because a create owns the fields
//! it sets, and a later apply could not remove them.

pub mod foreign;
mod others;

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use kamaji_api::labels::ours;
use kube::{
    Client,
    api::{Api, DynamicObject, Patch, PatchParams, PostParams},
};
use serde::Serialize;
use serde_json::Value;

use super::{
    children::row_of,
    error::{ApiError, Class},
    index::ChildIndex,
    key::ObjectKey,
    manifest::Manifest,
    row::Row,
};

/// A resourceVersion that no object has: the first write of an etcd has a higher revision.
const OF_NONE: &str = "1";

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
        let is_ours = |row: Arc<Row>| {
            let by = row.labels.get(ours::MANAGED_BY).map(String::as_str);
            by == Some(self.field_manager) || manifest.is_of(&row)
        };
        if manifest.owner().is_none() || self.index.get(&manifest.key).is_some_and(is_ours) {
            return self.send(manifest, manifest.body()).await;
        }
        let first = manifest.with("resourceVersion", OF_NONE);
        match self.send(manifest, &first).await {
            Err(error) if error.class() == Class::Conflict => self.take_over(manifest, error).await,
            written => written,
        }
    }

    /// Applies over an object that exists and is not known to be ours, if it is.
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

    /// The row, if this manifest was applied last and nobody has changed the object since. A restore from a backup
    /// removes the owner, and leaves the digest.
    fn in_place(&self, manifest: &Manifest) -> Option<Arc<Row>> {
        let row = self.untouched_with(&manifest.key, &manifest.digest)?;
        let orphan = manifest.owner().is_some_and(|owner| row.is_orphan_of(&owner));
        (!orphan).then_some(row)
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
    use serde_json::json;

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
