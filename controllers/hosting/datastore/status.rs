//! Status of a DataStore from what was seen. Pure.

use k8s_openapi::{apimachinery::pkg::apis::meta::v1::Condition, jiff::Timestamp};
use kamaji_api::{
    conditions::{DataStoreCondition as On, Reason},
    datastore::{DataStore, DataStoreStatus, ManagedStatus},
};
use kube::ResourceExt as _;

use super::validate::Problem;
use crate::k8s::{
    conditions::{self, Verdict},
    error::Class as Retry,
};

/// A storage class of the cluster.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Class {
    /// Its name.
    pub name: String,
    /// Claims that name none get this one.
    pub is_default: bool,
}

/// What was seen of a DataStore in one pass. `None` is «was not looked at, since something before it failed».
#[derive(Debug, Clone, Default)]
pub struct Seen {
    /// `namespace/name` of its tenants.
    pub users: Vec<String>,
    /// Reconciling is paused by annotation.
    pub paused: bool,
    /// The spec and what it points at.
    pub valid: Option<Result<(), Problem>>,
    /// It answered.
    pub reached: Option<Result<(), Problem>>,
    /// Managed only: its key material is there.
    pub certificates: Option<Result<(), Problem>>,
    /// Managed only.
    pub managed: Option<SeenManaged>,
    /// Message of `FieldNotSupported`.
    pub unsupported: Option<String>,
}

/// What was seen of a managed DataStore.
#[derive(Debug, Clone)]
pub struct SeenManaged {
    /// Where its parts are, and how many are ready.
    pub status: ManagedStatus,
    /// Members run on bound volumes.
    pub members: Result<(), Problem>,
}

/// The status to write.
pub fn status(store: &DataStore, seen: &Seen, now: Timestamp) -> DataStoreStatus {
    let old = store.status.clone().unwrap_or_default();
    let mut list = old.conditions.clone();
    let generation = store.metadata.generation;
    if seen.paused {
        conditions::set(&mut list, paused(true), generation, now);
        return DataStoreStatus {
            conditions: list,
            ..old
        };
    }
    let ready = ready(seen);
    let is_ready = ready.is_ok();
    let mut verdicts = vec![
        paused(false),
        deletion(store, seen),
        allowed_deletion(seen),
        validation(seen),
        verdict(On::Ready, &ready, Reason::Ready),
        match &seen.reached {
            Some(reached) => verdict(On::Reachable, reached, Reason::Reachable),
            None => Verdict::unknown(On::Reachable.as_str(), Reason::Pending, "not asked yet"),
        },
    ];
    if let Some(managed) = &seen.managed {
        verdicts.push(verdict(On::MembersReady, &managed.members, Reason::MembersReady));
    }
    if let Some(certificates) = &seen.certificates {
        verdicts.push(verdict(
            On::CertificatesAvailable,
            certificates,
            Reason::CertificatesAvailable,
        ));
    }
    match &seen.unsupported {
        Some(message) => verdicts.push(Verdict::yes(
            On::FieldNotSupported.as_str(),
            Reason::FieldNotSupported,
            message.clone(),
        )),
        None => conditions::remove(&mut list, On::FieldNotSupported.as_str()),
    }
    for verdict in verdicts {
        conditions::set(&mut list, verdict, generation, now);
    }
    DataStoreStatus {
        ready: is_ready,
        used_by: seen.users.clone(),
        observed_generation: generation,
        conditions: list,
        managed: seen
            .managed
            .as_ref()
            .map(|managed| managed.status.clone())
            .or(old.managed),
    }
}

/// The first thing that keeps tenants from being placed here.
fn ready(seen: &Seen) -> Result<(), Problem> {
    let pending = |what: &str| {
        Err(Problem {
            reason: Reason::Pending,
            message: what.to_owned(),
            class: Retry::Transient,
        })
    };
    seen.valid.clone().unwrap_or_else(|| pending("not checked yet"))?;
    seen.certificates.clone().unwrap_or(Ok(()))?;
    if let Some(managed) = &seen.managed {
        managed.members.clone()?;
    }
    seen.reached.clone().unwrap_or_else(|| pending("not asked yet"))
}

/// Whether it is not ready for an ordinary reason of beginnings, which deserves no warning.
pub fn is_starting(seen: &Seen) -> bool {
    ready(seen).is_err_and(|problem| problem.class == Retry::Transient)
}

fn verdict(on: On, result: &Result<(), Problem>, good: Reason) -> Verdict {
    match result {
        Ok(()) => Verdict::yes(on.as_str(), good, ""),
        Err(problem) => Verdict::no(on.as_str(), problem.reason, problem.message.clone()),
    }
}

fn paused(paused: bool) -> Verdict {
    let on = On::Paused.as_str();
    if paused {
        Verdict::yes(on, Reason::Paused, "annotation kamaji.clastix.io/paused is set")
    } else {
        Verdict::no(on, Reason::NotPaused, "")
    }
}

/// Kamaji's own condition, with Kamaji's reasons.
fn validation(seen: &Seen) -> Verdict {
    let on = On::Validation.as_str();
    match &seen.valid {
        None => Verdict::unknown(on, Reason::MissingCondition, "not checked yet"),
        Some(Ok(())) => Verdict::yes(on, Reason::DataStoreIsValid, ""),
        Some(Err(problem)) => {
            let reason = match problem.reason {
                Reason::SecretNotFound | Reason::CredentialsInvalid => {
                    Reason::TLSConfigurationValidationFailed
                }
                other => other,
            };
            Verdict::no(on, reason, problem.message.clone())
        }
    }
}

fn allowed_deletion(seen: &Seen) -> Verdict {
    let on = On::AllowedDeletion.as_str();
    match seen.users.len() {
        0 => Verdict::yes(on, Reason::DataStoreUnused, ""),
        count => Verdict::no(
            on,
            Reason::DataStoreStillUsed,
            format!("used by {count} TenantControlPlanes, see status.usedBy"),
        ),
    }
}

fn deletion(store: &DataStore, seen: &Seen) -> Verdict {
    let on = On::Deleting.as_str();
    if store.metadata.deletion_timestamp.is_none() {
        return Verdict::no(on, Reason::NotDeleting, "");
    }
    let message = format!("delete or move its tenants first: {}", some_of(&seen.users));
    Verdict::yes(on, Reason::WaitingForTenantsDeletion, message)
}

fn some_of(users: &[String]) -> String {
    let shown: Vec<&str> = users.iter().take(5).map(String::as_str).collect();
    match users.len().saturating_sub(shown.len()) {
        0 => shown.join(", "),
        more => format!("{} and {more} more", shown.join(", ")),
    }
}

/// Whether tenants have to hear of a new status: whether or why they can be placed here, or what they connect to.
pub fn concerns_tenants(old: Option<&DataStoreStatus>, new: &DataStoreStatus) -> bool {
    let told = |status: &DataStoreStatus| {
        let ready = conditions::get(&status.conditions, On::Ready.as_str());
        let why = ready.map(|ready| (ready.reason.clone(), ready.message.clone()));
        (status.ready, status.observed_generation, why)
    };
    old.map(told) != Some(told(new))
}

/// Why a claim is not bound. Some classes wait for a pod to be placed, which `trouble` may tell to be impossible.
pub fn storage_problem(
    claim: &str,
    size: &str,
    class: Option<&str>,
    classes: &[Class],
    trouble: Option<&str>,
) -> Problem {
    let fix = "set spec.managed.storage.className of a new DataStore";
    let known = class.map(|name| classes.iter().any(|class| class.name == name));
    let (why, retry) = match (class, known) {
        (Some(name), Some(true)) => (
            format!("StorageClass {name:?} has not provided a volume of {size} yet"),
            Retry::Transient,
        ),
        (Some(name), _) => (
            format!("its StorageClass {name:?} does not exist: create it, or {fix}"),
            Retry::Foreign,
        ),
        (None, _) if classes.iter().any(|class| class.is_default) => (
            format!("the default StorageClass has not provided a volume of {size} yet"),
            Retry::Transient,
        ),
        (None, _) => (
            format!("the cluster has no default StorageClass: mark one as default, or {fix}"),
            Retry::Foreign,
        ),
    };
    Problem {
        reason: Reason::StorageUnavailable,
        message: format!(
            "PersistentVolumeClaim {claim} is not bound: {why}{}",
            trouble.map_or_else(String::new, |trouble| format!("; {trouble}"))
        ),
        class: retry,
    }
}

/// Whether tenants can be placed on a DataStore, by its status.
pub fn usable(store: &DataStore) -> Result<(), Problem> {
    let name = store.name_any();
    let not = |reason: Reason, why: String| {
        Err(Problem {
            reason,
            message: format!("DataStore {name:?} {why}"),
            class: Retry::Foreign,
        })
    };
    if store.metadata.deletion_timestamp.is_some() {
        return not(Reason::DataStoreDeleting, "is being deleted".to_owned());
    }
    let status = store.status.as_ref();
    if status.is_some_and(|status| status.ready) {
        return Ok(());
    }
    let told = status.and_then(|status| conditions::get(&status.conditions, On::Ready.as_str()));
    not(
        Reason::DataStoreNotReady,
        told.map_or_else(|| "was not checked yet".to_owned(), why_not),
    )
}

fn why_not(condition: &Condition) -> String {
    format!("is not ready: {} ({})", condition.message, condition.reason)
}

#[cfg(test)]
mod tests {
    use kamaji_api::datastore::DataStoreSpec;

    use super::*;

    fn now() -> Timestamp {
        Timestamp::from_second(1_800_000_000).unwrap()
    }

    fn store() -> DataStore {
        DataStore::new("shared", DataStoreSpec::default())
    }

    fn problem(reason: Reason) -> Problem {
        Problem {
            reason,
            message: "why".to_owned(),
            class: Retry::Foreign,
        }
    }

    fn shown(status: &DataStoreStatus, on: On) -> String {
        let condition = conditions::get(&status.conditions, on.as_str()).unwrap();
        format!("{} {} {}", condition.status, condition.reason, condition.message)
    }

    #[test]
    fn ready_says_the_first_thing_that_is_missing() {
        let good = Seen {
            valid: Some(Ok(())),
            reached: Some(Ok(())),
            users: vec!["demo/a".to_owned()],
            ..Seen::default()
        };
        let whole = status(&store(), &good, now());
        assert!(whole.ready);
        assert_eq!(shown(&whole, On::Validation), "True DataStoreIsValid ");
        assert_eq!(
            shown(&whole, On::AllowedDeletion),
            "False DataStoreStillUsed used by 1 TenantControlPlanes, see status.usedBy"
        );
        let down = Seen {
            reached: Some(Err(problem(Reason::DataStoreUnreachable))),
            ..good.clone()
        };
        let down = status(&store(), &down, now());
        assert!(!down.ready);
        assert_eq!(shown(&down, On::Ready), "False DataStoreUnreachable why");
        assert_eq!(shown(&down, On::Validation), "True DataStoreIsValid ");
        let wrong = Seen {
            valid: Some(Err(problem(Reason::SecretNotFound))),
            reached: None,
            ..good
        };
        let wrong = status(&store(), &wrong, now());
        assert_eq!(shown(&wrong, On::Ready), "False SecretNotFound why");
        assert_eq!(
            shown(&wrong, On::Validation),
            "False TLSConfigurationValidationFailed why"
        );
        assert_eq!(shown(&wrong, On::Reachable), "Unknown Pending not asked yet");
    }

    #[test]
    fn the_same_sight_gives_the_same_status() {
        let seen = Seen {
            valid: Some(Ok(())),
            reached: Some(Ok(())),
            ..Seen::default()
        };
        let mut store = store();
        let first = status(&store, &seen, now());
        store.status = Some(first.clone());
        let later = Timestamp::from_second(1_800_000_999).unwrap();
        assert_eq!(status(&store, &seen, later), first);
    }

    #[test]
    fn a_claim_without_a_volume_is_named_with_the_fix() {
        let local = [Class {
            name: "local".to_owned(),
            is_default: true,
        }];
        let table = [
            (
                None,
                &[][..],
                "the cluster has no default StorageClass: mark one as default, or",
            ),
            (
                Some("fast"),
                &local[..],
                "its StorageClass \"fast\" does not exist: create it, or",
            ),
            (
                Some("local"),
                &local[..],
                "StorageClass \"local\" has not provided a volume of 8Gi yet",
            ),
            (
                None,
                &local[..],
                "the default StorageClass has not provided a volume of 8Gi yet",
            ),
        ];
        for (class, classes, expected) in table {
            let problem = storage_problem("ns/data-default-0", "8Gi", class, classes, None);
            assert_eq!(problem.reason, Reason::StorageUnavailable);
            assert!(
                problem.message.starts_with(&format!(
                    "PersistentVolumeClaim ns/data-default-0 is not bound: {expected}"
                )),
                "{}",
                problem.message
            );
        }
    }

    #[test]
    fn a_claim_that_waits_for_its_pod_tells_what_the_pod_waits_for() {
        let local = [Class {
            name: "local".to_owned(),
            is_default: true,
        }];
        let trouble = Some("no node takes the pod: 0/1 nodes: Insufficient memory");
        assert_eq!(
            storage_problem("ns/data-default-0", "8Gi", Some("local"), &local, trouble).message,
            "PersistentVolumeClaim ns/data-default-0 is not bound: StorageClass \"local\" has not provided a volume of \
             8Gi yet; no node takes the pod: 0/1 nodes: Insufficient memory"
        );
    }

    #[test]
    fn tenants_hear_of_what_concerns_them() {
        let mut store = store();
        store.metadata.generation = Some(1);
        let good = Seen {
            valid: Some(Ok(())),
            reached: Some(Ok(())),
            ..Seen::default()
        };
        let with = |reached: Problem| Seen {
            reached: Some(Err(reached)),
            ..good.clone()
        };
        let ready = status(&store, &good, now());
        let down = status(&store, &with(problem(Reason::DataStoreUnreachable)), now());
        assert!(concerns_tenants(None, &down), "the first one");
        assert!(concerns_tenants(Some(&down), &ready));
        let denied = status(&store, &with(problem(Reason::DataStoreUnauthorized)), now());
        assert!(concerns_tenants(Some(&down), &denied), "another reason");
        let mut other = problem(Reason::DataStoreUnreachable);
        other.message = "another message".to_owned();
        let other = status(&store, &with(other), now());
        assert!(concerns_tenants(Some(&down), &other), "another message");
        let used = Seen {
            users: vec!["demo/a".to_owned()],
            ..good.clone()
        };
        assert!(!concerns_tenants(Some(&ready), &status(&store, &used, now())));
        // Other endpoints, say.
        store.metadata.generation = Some(2);
        assert!(concerns_tenants(Some(&ready), &status(&store, &good, now())));
    }

    #[test]
    fn a_missing_ca_is_told_before_everything_that_hangs_on_it() {
        let seen = Seen {
            valid: Some(Ok(())),
            certificates: Some(Err(problem(Reason::SecretNotFound))),
            ..Seen::default()
        };
        let told = status(&store(), &seen, now());
        assert!(!told.ready);
        assert_eq!(
            shown(&told, On::CertificatesAvailable),
            "False SecretNotFound why"
        );
        assert_eq!(shown(&told, On::Ready), "False SecretNotFound why");
    }

    #[test]
    fn tenants_are_told_why_a_store_is_not_usable() {
        let mut store = store();
        assert_eq!(
            usable(&store).unwrap_err().message,
            "DataStore \"shared\" was not checked yet"
        );
        let seen = Seen {
            valid: Some(Err(problem(Reason::CredentialsInvalid))),
            ..Seen::default()
        };
        store.status = Some(status(&store, &seen, now()));
        assert_eq!(
            usable(&store).unwrap_err().message,
            "DataStore \"shared\" is not ready: why (CredentialsInvalid)"
        );
    }
}
