//! What is left to do before a DataStore that no tenant uses may go: garbage collection removes what it owns, and its claim
//! is made by the StatefulSet controller, which may be a moment behind.

use std::time::Duration;

use k8s_openapi::{
    api::{apps::v1::StatefulSet, core::v1::PersistentVolumeClaim},
    jiff::Timestamp,
};
use kamaji_api::{datastore::DataStore, labels::namespace};
use kube::ResourceExt as _;

use super::{desired, parts};
use crate::{hosting::engine::Engine, k8s::problem::Problem};

/// How long after the deletion a claim may still appear.
const LATE: Duration = Duration::from_secs(30);

/// Makes the DataStore the owner of the claim of its member. `Some` while the claim may still appear: the time until it is
/// no longer waited for.
///
/// # Errors
/// What the API server answered.
pub async fn own_claim(
    engine: &Engine,
    store: &DataStore,
    now: Timestamp,
) -> Result<Option<Duration>, Problem> {
    let name = store.name_any();
    let claim = parts::claim_name(&name);
    match engine
        .index
        .find::<PersistentVolumeClaim>(namespace::DATASTORES, &claim)
    {
        Some(row) if row.owner.is_none() && !row.deleting => {
            engine
                .applier
                .apply(&desired::adopted_claim(store, &claim)?)
                .await?;
            Ok(None)
        }
        Some(_) => Ok(None),
        None => {
            let set = engine.index.find::<StatefulSet>(namespace::DATASTORES, &name);
            Ok(set.and_then(|_| late(store, now)))
        }
    }
}

/// The rest of [`LATE`].
fn late(store: &DataStore, now: Timestamp) -> Option<Duration> {
    let since = store.metadata.deletion_timestamp.as_ref()?.0;
    let end = since.checked_add(LATE).ok()?;
    Duration::try_from(end.duration_since(now))
        .ok()
        .filter(|rest| !rest.is_zero())
}
