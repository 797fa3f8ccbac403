//! Whether the version of an etcd keeps its tenants apart and serves their watches, and what follows from it for a
//! DataStore. Pure.
//!
//! A version below the floor takes no new tenants, unless an annotation of the DataStore accepts it. Tenants that are set
//! up run on, since stopping them would help nobody: the DataStore reports the version to take.

use kamaji_api::{
    conditions::{DataStoreCondition as On, Reason},
    datastore::DataStore,
    labels::ours,
};
use kube::ResourceExt as _;

use super::validate::{ETCD_VERSION, Managed};
use crate::{
    hosting::driver::{
        Health,
        etcd::floor::{self, Below},
    },
    k8s::{conditions::Verdict, problem::Problem},
};

/// How a version stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Standing {
    /// It keeps tenants apart.
    Safe,
    /// It does not, and the annotation accepts it.
    Accepted(Below),
    /// It does not.
    Unsafe(Below),
}

/// How the version of a DataStore's etcd stands.
pub fn standing(store: &DataStore, version: &str) -> Standing {
    let Err(below) = floor::check(version) else {
        return Standing::Safe;
    };
    let accepted = store.annotations().get(ours::ACCEPT_ETCD_VERSION);
    if !version.is_empty() && accepted.is_some_and(|accepted| accepted == version) {
        Standing::Accepted(below)
    } else {
        Standing::Unsafe(below)
    }
}

/// Whether a DataStore takes new tenants.
///
/// # Errors
/// `DataStoreVersionUnsafe`, with the version to take.
pub fn admits(store: &DataStore, version: &str) -> Result<(), Problem> {
    match standing(store, version) {
        Standing::Safe | Standing::Accepted(_) => Ok(()),
        // The DataStore's controller wakes the tenants of a store whose version changes.
        Standing::Unsafe(below) => Err(Problem::on_change(
            Reason::DataStoreVersionUnsafe,
            format!(
                "DataStore {:?} takes no new tenant: {}",
                store.name_any(),
                unsafe_text(store, version, &below)
            ),
        )),
    }
}

/// Whether everything that depends on the version is as it should be, or as the user accepts it.
pub fn is_settled(store: &DataStore, health: &Health) -> bool {
    let settled = match standing(store, &health.version) {
        Standing::Safe | Standing::Accepted(_) => true,
        Standing::Unsafe(_) => false,
    };
    settled && health.answers_tenants != Some(false)
}

/// The condition `VersionSafe`.
pub fn verdict(store: &DataStore, health: &Health) -> Verdict {
    let on = On::VersionSafe.as_str();
    let version = health.version.as_str();
    let refuses = health.answers_tenants == Some(false);
    match standing(store, version) {
        Standing::Safe | Standing::Accepted(_) if refuses => Verdict::no(
            on,
            Reason::DataStoreStatusRefused,
            format!(
                "etcd {version} refuses its status to the certificates of tenants, so watches of quiet resources fail in \
                 their API servers; {}",
                upgrade(store, &floor::take(version))
            ),
        ),
        Standing::Safe => Verdict::yes(on, Reason::DataStoreVersionSafe, ""),
        Standing::Accepted(below) => Verdict::yes(
            on,
            Reason::DataStoreVersionAccepted,
            format!(
                "{}; annotation {} accepts that; {}",
                defect(version),
                ours::ACCEPT_ETCD_VERSION,
                upgrade(store, &below.take)
            ),
        ),
        Standing::Unsafe(below) => Verdict::no(
            on,
            Reason::DataStoreVersionUnsafe,
            format!("no new tenant is set up: {}", unsafe_text(store, version, &below)),
        ),
    }
}

/// Whether a managed DataStore may run its version. The one that runs already does: its tenants depend on it.
///
/// # Errors
/// `InvalidSpec`, with the version to take.
pub fn runnable(store: &DataStore, managed: &Managed) -> Result<(), Problem> {
    let running = store.status.as_ref().and_then(|status| status.managed.as_ref());
    if running.and_then(|managed| managed.version.as_ref()) == Some(&managed.version) {
        return Ok(());
    }
    match standing(store, &managed.version) {
        Standing::Safe | Standing::Accepted(_) => Ok(()),
        Standing::Unsafe(below) => Err(Problem::on_change(
            Reason::InvalidSpec,
            format!(
                "spec.managed.version: {}",
                unsafe_text(store, &managed.version, &below)
            ),
        )),
    }
}

fn unsafe_text(store: &DataStore, version: &str, below: &Below) -> String {
    format!(
        "{}; {}, or accept it with annotation {}={version} on the DataStore",
        defect(version),
        upgrade(store, &below.take),
        ours::ACCEPT_ETCD_VERSION
    )
}

fn defect(version: &str) -> String {
    format!("etcd {version} has published holes through which tenants reach the data of each other")
}

fn upgrade(store: &DataStore, take: &semver::Version) -> String {
    if store.spec.managed.is_some() {
        format!("set spec.managed.version to {take} or newer, or remove it to run {ETCD_VERSION}")
    } else {
        format!("upgrade etcd to {take} or newer")
    }
}

#[cfg(test)]
mod tests {
    use kamaji_api::datastore::{DataStoreSpec, DataStoreStatus, ManagedEtcd, ManagedStatus};

    use super::{super::validate, *};

    fn external(accepted: Option<&str>) -> DataStore {
        let mut store = DataStore::new("bronze", DataStoreSpec::default());
        if let Some(version) = accepted {
            store
                .annotations_mut()
                .insert(ours::ACCEPT_ETCD_VERSION.to_owned(), version.to_owned());
        }
        store
    }

    fn health(version: &str, answers_tenants: Option<bool>) -> Health {
        Health {
            version: version.to_owned(),
            answers_tenants,
            ..Health::default()
        }
    }

    fn managed(version: Option<&str>, running: Option<&str>) -> (DataStore, Managed) {
        let etcd = ManagedEtcd {
            version: version.map(str::to_owned),
            ..ManagedEtcd::default()
        };
        let spec = DataStoreSpec {
            managed: Some(etcd),
            ..DataStoreSpec::default()
        };
        let mut store = DataStore::new("bronze", spec);
        store.status = running.map(|version| DataStoreStatus {
            managed: Some(ManagedStatus {
                version: Some(version.to_owned()),
                ..ManagedStatus::default()
            }),
            ..DataStoreStatus::default()
        });
        let validate::Valid::Managed(managed) = validate::validate(&store).unwrap() else {
            panic!("not managed");
        };
        (store, *managed)
    }

    #[test]
    fn a_version_below_the_floor_takes_no_tenant_unless_it_is_accepted() {
        let table = [
            (None, "3.6.16", "True DataStoreVersionSafe", true),
            (None, "3.6.5", "False DataStoreVersionUnsafe", false),
            (Some("3.6.5"), "3.6.5", "True DataStoreVersionAccepted", true),
            // Another version than the one that was accepted.
            (Some("3.6.5"), "3.6.4", "False DataStoreVersionUnsafe", false),
            (Some("true"), "3.6.5", "False DataStoreVersionUnsafe", false),
            (Some(""), "", "False DataStoreVersionUnsafe", false),
            (Some("3.6.5"), "3.6.16", "True DataStoreVersionSafe", true),
        ];
        for (accepted, version, condition, admitted) in table {
            let store = external(accepted);
            let verdict = verdict(&store, &health(version, None));
            let status: &'static str = verdict.status.into();
            assert_eq!(format!("{status} {}", verdict.reason), condition);
            assert_eq!(
                admits(&store, version).is_ok(),
                admitted,
                "{accepted:?} {version}"
            );
        }
    }

    #[test]
    fn the_version_to_take_is_named() {
        let problem = admits(&external(None), "3.5.9").unwrap_err();
        assert_eq!(problem.reason, Reason::DataStoreVersionUnsafe);
        assert_eq!(
            problem.message,
            "DataStore \"bronze\" takes no new tenant: etcd 3.5.9 has published holes through which tenants reach the data \
             of each other; upgrade etcd to 3.5.33 or newer, or accept it with annotation \
             capi-kamaji.io/accept-etcd-version=3.5.9 on the DataStore"
        );
        let accepted = verdict(&external(Some("3.6.5")), &health("3.6.5", Some(true)));
        assert!(
            accepted.message.ends_with("upgrade etcd to 3.6.14 or newer"),
            "{}",
            accepted.message
        );
    }

    #[test]
    fn a_status_that_is_refused_to_tenants_is_told_with_the_version_to_take() {
        let table = [
            (None, "3.6.16", Some(true), "True DataStoreVersionSafe"),
            (None, "3.6.16", Some(false), "False DataStoreStatusRefused"),
            (
                Some("3.6.5"),
                "3.6.5",
                Some(false),
                "False DataStoreStatusRefused",
            ),
            // The worse of both.
            (None, "3.6.5", Some(false), "False DataStoreVersionUnsafe"),
        ];
        for (accepted, version, answers, condition) in table {
            let store = external(accepted);
            let health = health(version, answers);
            let verdict = verdict(&store, &health);
            let status: &'static str = verdict.status.into();
            assert_eq!(format!("{status} {}", verdict.reason), condition);
            assert_eq!(is_settled(&store, &health), status == "True");
            // It has nothing to do with who reaches what.
            assert_eq!(
                admits(&store, version).is_ok(),
                condition != "False DataStoreVersionUnsafe"
            );
        }
        let refused = verdict(&external(Some("3.6.5")), &health("3.6.5", Some(false)));
        assert_eq!(
            refused.message,
            "etcd 3.6.5 refuses its status to the certificates of tenants, so watches of quiet resources fail in their API \
             servers; upgrade etcd to 3.6.14 or newer"
        );
    }

    #[test]
    fn a_managed_version_below_the_floor_is_refused_unless_it_runs_already() {
        let (store, valid) = managed(Some("3.6.5"), None);
        assert_eq!(
            runnable(&store, &valid).unwrap_err().message,
            format!(
                "spec.managed.version: etcd 3.6.5 has published holes through which tenants reach the data of each other; \
                 set spec.managed.version to 3.6.14 or newer, or remove it to run {ETCD_VERSION}, or accept it with \
                 annotation capi-kamaji.io/accept-etcd-version=3.6.5 on the DataStore"
            )
        );
        for (version, running, good) in [
            (None, None, true),
            (Some("3.6.14"), None, true),
            (Some("3.6.5"), Some("3.6.5"), true),
            // No way back to it.
            (Some("3.6.5"), Some("3.6.16"), false),
        ] {
            let (store, valid) = managed(version, running);
            assert_eq!(
                runnable(&store, &valid).is_ok(),
                good,
                "{version:?} after {running:?}"
            );
        }
        let (mut store, valid) = managed(Some("3.6.5"), None);
        store
            .annotations_mut()
            .insert(ours::ACCEPT_ETCD_VERSION.to_owned(), "3.6.5".to_owned());
        assert_eq!(runnable(&store, &valid), Ok(()));
    }

    #[test]
    fn the_version_that_the_engine_ships_is_safe() {
        assert_eq!(floor::check(ETCD_VERSION), Ok(()));
    }
}
