//! Whether an etcd has room for more data, and what follows from it for a DataStore. Pure.
//!
//! The size moves all the time. It is reported above one share of the quota and no longer below a lower one, and no message
//! has a figure that moves, so that a DataStore is written only when its state changes.

use kamaji_api::{
    conditions::{DataStoreCondition as On, Reason},
    datastore::DataStore,
};

use crate::{
    hosting::driver::Space,
    k8s::{
        conditions::{self, Verdict},
        error::Class,
        problem::Problem,
    },
};

/// Percent of the quota above which the DataStore says so.
const FILLING: u64 = 80;
/// Percent of the quota below which it no longer does.
const RELIEVED: u64 = 75;

/// The condition `SpaceAvailable`.
pub fn verdict(store: &DataStore, space: Space) -> Verdict {
    let on = On::SpaceAvailable.as_str();
    if let Err(problem) = check(space) {
        return Verdict::no(on, problem.reason, problem.message);
    }
    let status = store.status.as_ref();
    let before = status.and_then(|status| conditions::get(&status.conditions, on));
    let limit = if before.is_some_and(|before| before.status == "False") {
        RELIEVED
    } else {
        FILLING
    };
    if space.quota == 0 || space.used.saturating_mul(100) < space.quota.saturating_mul(limit) {
        return Verdict::yes(on, Reason::SpaceAvailable, "");
    }
    Verdict::no(
        on,
        Reason::DataStoreFilling,
        format!(
            "etcd uses more than {FILLING} % of its quota of {}; at its end no control plane in it can write: delete what \
             fills it and run etcdctl defrag, or raise the quota",
            size(space.quota)
        ),
    )
}

/// Whether etcd takes writes.
///
/// # Errors
/// `DataStoreFull`.
pub fn check(space: Space) -> Result<(), Problem> {
    if !space.full {
        return Ok(());
    }
    let quota = match space.quota {
        0 => "its quota".to_owned(),
        quota => format!("its quota of {}", size(quota)),
    };
    Err(Problem::backoff(
        Class::Foreign,
        Reason::DataStoreFull,
        format!(
            "etcd used up {quota} (alarm NOSPACE) and takes no writes, so no control plane in it can change anything: delete \
             what fills it, run etcdctl defrag, and then etcdctl alarm disarm"
        ),
    ))
}

/// What tenants are told while the DataStore fills.
pub fn filling(store: &DataStore) -> Option<&str> {
    let status = store.status.as_ref()?;
    let found = conditions::get(&status.conditions, On::SpaceAvailable.as_str())?;
    (found.reason == Reason::DataStoreFilling.as_str()).then_some(found.message.as_str())
}

fn size(bytes: u64) -> String {
    let (whole, unit) = [(30, "GiB"), (20, "MiB"), (10, "KiB")]
        .into_iter()
        .find(|(shift, _)| bytes >> shift > 0)
        .unwrap_or((0, "bytes"));
    format!("{} {unit}", bytes >> whole)
}

#[cfg(test)]
mod tests {
    use kamaji_api::datastore::{DataStoreSpec, DataStoreStatus};

    use super::*;

    fn space(used: u64, full: bool) -> Space {
        Space {
            used,
            quota: 1000 << 20,
            full,
        }
    }

    #[test]
    fn a_size_that_moves_about_a_threshold_is_reported_once() {
        let mut store = DataStore::new("default", DataStoreSpec::default());
        let mut seen = Vec::new();
        for used in [10, 799, 800, 790, 760, 900, 800, 749, 790, 810] {
            let mut status = store.status.take().unwrap_or_default();
            let before = status.conditions.clone();
            let verdict = verdict(
                &DataStore {
                    status: Some(DataStoreStatus {
                        conditions: before.clone(),
                        ..status.clone()
                    }),
                    ..store.clone()
                },
                space(used << 20, false),
            );
            let now = k8s_openapi::jiff::Timestamp::from_second(used.cast_signed()).unwrap();
            conditions::set(&mut status.conditions, verdict, None, now);
            if status.conditions != before {
                seen.push((used, status.conditions[0].reason.clone()));
            }
            store.status = Some(status);
        }
        let (plenty, filling) = ("SpaceAvailable".to_owned(), "DataStoreFilling".to_owned());
        assert_eq!(
            seen,
            [
                (10, plenty.clone()),
                (800, filling.clone()),
                (749, plenty),
                (810, filling)
            ]
        );
    }

    #[test]
    fn the_alarm_is_told_at_any_size_and_an_unknown_quota_is_never_filling() {
        let store = DataStore::new("default", DataStoreSpec::default());
        let full = check(space(1, true)).unwrap_err();
        assert_eq!(full.reason, Reason::DataStoreFull);
        assert!(full.message.contains("1000 MiB"), "{}", full.message);
        let unknown = Space {
            used: 1 << 40,
            quota: 0,
            full: false,
        };
        assert_eq!(
            verdict(&store, unknown),
            Verdict::yes("SpaceAvailable", Reason::SpaceAvailable, "")
        );
        let reported = |bytes| size(bytes);
        assert_eq!(
            [reported(6 << 30), reported(2000), reported(5)],
            ["6 GiB", "1 KiB", "5 bytes"]
        );
    }
}
