//! Which datastore holds the data of a DataStore: the id in it, and for a managed one the claim of its volume. Pure.
//!
//! Both are recorded on the DataStore before it is ever ready: in annotations, which a backup keeps, and in the status, which
//! an edit of the metadata keeps. A datastore with another id, or with none, is another one or lost its data. Nothing is
//! set up in it and no control plane is led to it, until the user accepts the loss by its id; the acceptance ends with the
//! id, and when the datastore with that id is back.

use kamaji_api::{
    conditions::Reason,
    datastore::DataStore,
    labels::{namespace, ours},
};
use kube::ResourceExt as _;

use super::parts;
use crate::k8s::{error::Class, problem::Problem};

/// What is recorded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    /// The id in the datastore.
    pub store: String,
    /// Managed only: UID of the PersistentVolumeClaim.
    pub claim: Option<String>,
}

impl Identity {
    /// As annotations of `store`. Without a value is the acceptance of a loss that did not happen: it would accept the next
    /// one.
    pub fn annotations(&self, store: &DataStore) -> Vec<(&str, Option<&str>)> {
        let claim = self.claim.as_deref();
        let claim = claim.map(|claim| (ours::STORE_CLAIM, Some(claim)));
        let is_back = accepts_loss(store) && recorded(store) == Some(self.store.as_str());
        let accepted = is_back.then_some((ours::ACCEPT_DATA_LOSS, None));
        [(ours::STORE_ID, Some(self.store.as_str()))]
            .into_iter()
            .chain(claim)
            .chain(accepted)
            .collect()
    }
}

/// The id of the datastore with the data.
pub fn recorded(store: &DataStore) -> Option<&str> {
    let status = store
        .status
        .as_ref()
        .and_then(|status| status.store_id.as_deref());
    annotated(store, ours::STORE_ID).or(status)
}

/// UID of the claim with the data.
pub fn recorded_claim(store: &DataStore) -> Option<&str> {
    let managed = store.status.as_ref().and_then(|status| status.managed.as_ref());
    let status = managed.and_then(|managed| managed.claim_uid.as_deref());
    annotated(store, ours::STORE_CLAIM).or(status)
}

fn annotated<'a>(store: &'a DataStore, key: &str) -> Option<&'a str> {
    let value = store.annotations().get(key).map(String::as_str);
    value.filter(|value| !value.is_empty())
}

/// The user accepts that the recorded datastore is lost.
pub fn accepts_loss(store: &DataStore) -> bool {
    recorded(store).is_some_and(|id| annotated(store, ours::ACCEPT_DATA_LOSS) == Some(id))
}

/// An empty member may begin a new datastore: this DataStore never had one, or its loss is accepted.
pub fn may_begin(store: &DataStore) -> bool {
    recorded(store).is_none() || accepts_loss(store)
}

/// Whether the datastore with the id `found` is the one of this DataStore. `None` when it has no id and gets one.
///
/// # Errors
/// `DataLost`.
pub fn check(store: &DataStore, found: Option<&str>) -> Result<Option<String>, Problem> {
    match (recorded(store), found) {
        (Some(recorded), Some(found)) if recorded == found => Ok(Some(found.to_owned())),
        (None, found) => Ok(found.map(str::to_owned)),
        (Some(_), found) if accepts_loss(store) => Ok(found.map(str::to_owned)),
        (Some(recorded), found) => {
            let what = found.map_or_else(|| "has no id".to_owned(), |found| format!("has the id {found}"));
            // No watch reports that the datastore is back.
            Err(Problem::backoff(
                Class::Foreign,
                Reason::DataLost,
                format!(
                    "the datastore {what}, and the data is in the one with the id {recorded}: it is another one, or it lost \
                     its data; {}",
                    fix(store, recorded)
                ),
            ))
        }
    }
}

/// The claim is another one than that with the data. A volume that was restored into a new claim is told apart by the id in
/// it, once it is served.
pub fn is_other_claim(store: &DataStore, found: Option<&str>) -> bool {
    let recorded = recorded_claim(store);
    found.is_some_and(|found| recorded.is_some_and(|recorded| recorded != found))
}

/// Why members of a managed datastore with the claim of this UID do not serve, if it is because their volume was lost.
pub fn lost_volume(store: &DataStore, claim: Option<&str>) -> Option<Problem> {
    let recorded = recorded(store).filter(|_| !accepts_loss(store))?;
    is_other_claim(store, claim).then(|| {
        Problem::on_change(
            Reason::DataLost,
            format!(
                "PersistentVolumeClaim {}/{} is not the one that held the data, and etcd does not start without it; {}",
                namespace::DATASTORES,
                parts::claim_name(&store.name_any()),
                fix(store, recorded)
            ),
        )
    })
}

fn fix(store: &DataStore, recorded: &str) -> String {
    let back = if store.spec.managed.is_some() {
        "restore its volume"
    } else {
        "set spec.endpoints to the one with the data, or restore its backup"
    };
    format!(
        "{back}. To go on without the data, annotate the DataStore with {}={recorded}: its control planes stay without their \
         data (DataMissing)",
        ours::ACCEPT_DATA_LOSS
    )
}

#[cfg(test)]
mod tests {
    use kamaji_api::datastore::{DataStoreSpec, DataStoreStatus, ManagedStatus};

    use super::*;

    fn store(notes: &[(&str, &str)]) -> DataStore {
        let mut store = DataStore::new("default", DataStoreSpec::default());
        for (key, value) in notes {
            store
                .annotations_mut()
                .insert((*key).to_owned(), (*value).to_owned());
        }
        store
    }

    #[test]
    fn another_id_or_none_is_a_loss_unless_that_id_is_accepted() {
        let (id, accept) = (ours::STORE_ID, ours::ACCEPT_DATA_LOSS);
        let table = [
            // annotations, found, the id to go on with; `Err` is a loss
            (&[][..], None, Ok(None)),
            (&[], Some("a"), Ok(Some("a"))),
            (&[(id, "a")], Some("a"), Ok(Some("a"))),
            (&[(id, "a")], Some("b"), Err(())),
            (&[(id, "a")], None, Err(())),
            (&[(id, "a"), (accept, "a")], None, Ok(None)),
            (&[(id, "a"), (accept, "a")], Some("b"), Ok(Some("b"))),
            // Another loss than the accepted one.
            (&[(id, "b"), (accept, "a")], None, Err(())),
        ];
        for (number, (notes, found, expected)) in table.into_iter().enumerate() {
            let checked = check(&store(notes), found);
            let expected = expected.map(|id: Option<&str>| id.map(str::to_owned));
            assert_eq!(checked.map_err(|_| ()), expected, "row {number}");
        }
        let problem = check(&store(&[(id, "a")]), None).unwrap_err();
        assert_eq!(problem.reason, Reason::DataLost);
        assert!(
            problem.message.contains("capi-kamaji.io/accept-data-loss=a"),
            "{}",
            problem.message
        );
    }

    #[test]
    fn what_is_recorded_survives_the_loss_of_the_status_or_of_the_annotations() {
        let noted = store(&[(ours::STORE_ID, "a"), (ours::STORE_CLAIM, "1")]);
        let mut published = store(&[]);
        published.status = Some(DataStoreStatus {
            store_id: Some("a".to_owned()),
            managed: Some(ManagedStatus {
                claim_uid: Some("1".to_owned()),
                ..ManagedStatus::default()
            }),
            ..DataStoreStatus::default()
        });
        for store in [noted, published] {
            assert_eq!(recorded(&store), Some("a"));
            assert_eq!(recorded_claim(&store), Some("1"));
            assert!(!may_begin(&store));
        }
        assert!(may_begin(&store(&[])));
        assert!(may_begin(&store(&[
            (ours::STORE_ID, "a"),
            (ours::ACCEPT_DATA_LOSS, "a")
        ])));
    }
}
