//! What is done to objects without a manifest: labels, metadata, and their end.

use std::{collections::BTreeMap, sync::Arc};

use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use kube::{
    ResourceExt as _,
    api::{DeleteParams, Patch, PatchParams, Preconditions},
};
use serde_json::{Value, json};

use super::{Applier, Deletion};
use crate::k8s::{children::row_of, error::ApiError, key::ObjectKey, meta, row::Row};

impl Applier {
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

    /// Makes `owner` the controller of an object of ours that has lost it, as after a restore from a backup; see
    /// [`meta::with_controller`].
    ///
    /// # Errors
    /// What the API server answered; a conflict when the object is another one by now.
    pub async fn own(&self, row: &Row, owner: &OwnerReference) -> Result<Arc<Row>, ApiError> {
        let found = self
            .api_of(&row.key)
            .get_metadata(&row.key.name)
            .await
            .map_err(|e| ApiError::new(format!("get {}", row.key), e))?;
        match meta::with_controller(found.owner_references(), owner) {
            Some(owners) => {
                // Whoever asks has read the object at this version, and remembers it as it was then.
                let metadata = json!({ "ownerReferences": owners, "resourceVersion": row.resource_version });
                self.record(&row.key, &row.uid, metadata).await
            }
            None => Ok(Arc::new(row.clone())),
        }
    }

    /// Makes a Secret or ConfigMap of ours immutable.
    ///
    /// # Errors
    /// What the API server answered; a conflict when the object is another one by now.
    pub async fn freeze(&self, row: &Row) -> Result<Arc<Row>, ApiError> {
        let params = PatchParams {
            field_manager: Some(self.field_manager.to_owned()),
            ..PatchParams::default()
        };
        let patch = json!({ "metadata": { "uid": row.uid, "resourceVersion": row.resource_version }, "immutable": true });
        let object = self
            .api_of(&row.key)
            .patch(&row.key.name, &params, &Patch::Merge(patch))
            .await
            .map_err(|e| ApiError::new(format!("freeze {}", row.key), e))?;
        let row = row_of(row.key.kind, &object);
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
}
