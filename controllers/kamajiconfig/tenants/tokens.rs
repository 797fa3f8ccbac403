//! This provider's tokens in a workload cluster, by what the watch of their Secrets observed.

use std::collections::HashMap;

use k8s_openapi::api::core::v1::Secret;
use kamaji_api::labels::ours;
use kube::{ResourceExt as _, api::PartialObjectMeta};

use super::Tenant;
use crate::{k8s::key::RootKey, kamajiconfig::wake, tenant};

/// Whose token it is, by the labels of its Secret. Empty if a label is missing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Mark {
    /// UID of its KamajiConfig.
    owner: String,
    /// UID of its Cluster.
    cluster: String,
}

impl Mark {
    pub(super) fn of(secret: &PartialObjectMeta<Secret>) -> Self {
        let label = |key: &str| secret.labels().get(key).cloned().unwrap_or_default();
        Self {
            owner: label(ours::OWNER_UID),
            cluster: label(ours::CLUSTER_UID),
        }
    }
}

impl Tenant {
    /// IDs of the tokens of the config with the UID `owner` that exist. Asks the workload cluster until tokens were listed.
    ///
    /// # Errors
    /// When the workload cluster does not answer.
    pub async fn tokens_of(&self, owner: &str) -> Result<Vec<String>, tenant::Error> {
        let is_its = |mark: &Mark| mark.owner == owner && mark.cluster == self.uid;
        let listed = {
            let view = self.view.lock();
            let its = |known: &HashMap<String, Mark>| {
                let its = known.iter().filter(|(_, mark)| is_its(mark));
                its.map(|(id, _)| id.clone()).collect()
            };
            view.tokens.as_ref().map(its)
        };
        if let Some(its) = listed {
            return Ok(its);
        }
        let found = self.session.tokens_labelled(ours::OWNER_UID, owner).await?;
        let its = found.iter().filter(|secret| is_its(&Mark::of(secret)));
        Ok(its.map(id_of).collect())
    }

    /// Whether a token of this ID exists; `None` until tokens were listed.
    pub fn has_token(&self, id: &str) -> Option<bool> {
        self.view.lock().tokens.as_ref().map(|ids| ids.contains_key(id))
    }

    /// A token of the config with the UID `owner` was created or extended. The watch reports it later.
    pub fn note_token(&self, id: &str, owner: &str) {
        if let Some(ids) = self.view.lock().tokens.as_mut() {
            let mark = Mark {
                owner: owner.to_owned(),
                cluster: self.uid.clone(),
            };
            ids.insert(id.to_owned(), mark);
        }
    }

    /// A token was deleted. The watch reports it later.
    pub fn note_end(&self, id: &str) {
        if let Some(ids) = self.view.lock().tokens.as_mut() {
            ids.remove(id);
        }
    }

    /// Tokens of `key` to delete with it, without those that another management cluster took over.
    pub fn tokens_to_end(&self, key: &RootKey) -> Vec<String> {
        let view = self.view.lock();
        let moved = |id: &String| {
            let mark = view.tokens.as_ref().and_then(|ids| ids.get(id));
            mark.is_some_and(|mark| !mark.cluster.is_empty() && mark.cluster != self.uid)
        };
        let mine = view
            .ids
            .iter()
            .filter(|(id, waiter)| waiter.key == *key && !moved(id));
        mine.map(|(id, _)| id.clone()).collect()
    }

    /// IDs of this Cluster's tokens whose config is deleted or being deleted.
    fn orphans(&self) -> Vec<String> {
        let ours: Vec<_> = {
            let view = self.view.lock();
            let known = view.tokens.iter().flatten();
            known
                .filter(|(_, mark)| mark.cluster == self.uid && !mark.owner.is_empty())
                .map(|(id, mark)| (id.clone(), mark.owner.clone()))
                .collect()
        };
        if ours.is_empty() || self.uid.is_empty() {
            return Vec::new();
        }
        let lives = |uid: &str| {
            let configs = self.configs.by(wake::BY_UID, &RootKey::new("", uid));
            configs
                .iter()
                .any(|config| config.metadata.deletion_timestamp.is_none())
        };
        ours.into_iter()
            .filter(|(_, owner)| !lives(owner))
            .map(|(id, _)| id)
            .collect()
    }

    /// Deletes the tokens of configs that were deleted while this process did not run, or while they were paused.
    pub async fn sweep(&self) {
        for id in self.orphans() {
            match self.session.delete_token(&id).await {
                Ok(()) => {
                    self.note_end(&id);
                    tracing::info!(cluster = %self.cluster, id, "deleted a token without a KamajiConfig");
                }
                Err(error) => {
                    tracing::info!(cluster = %self.cluster, %error, "cannot delete a token, which stays valid until it expires");
                }
            }
        }
    }
}

/// ID of the token in a Secret, by the name of the Secret.
pub(super) fn id_of(secret: &PartialObjectMeta<Secret>) -> String {
    let name = secret.name_any();
    name.strip_prefix("bootstrap-token-")
        .unwrap_or_default()
        .to_owned()
}
