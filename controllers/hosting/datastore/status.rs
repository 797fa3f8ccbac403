//! Computes the status of a DataStore from what was observed. Pure.

use k8s_openapi::{apimachinery::pkg::apis::meta::v1::Condition, jiff::Timestamp};
use kamaji_api::{
    conditions::{DataStoreCondition as On, Reason},
    datastore::{DataStore, DataStoreStatus, ManagedStatus},
    labels::{kamaji, namespace},
};
use kube::ResourceExt as _;

use super::{identity::Identity, parts, space, validate::Managed, version};
use crate::hosting::driver::{Health, Silent};
use crate::k8s::{
    conditions::{self, Verdict},
    finalizer,
    problem::{Problem, Retry},
    report::{self, Report, Step},
};

const NOT_CHECKED: &str = "the spec was not checked yet";
const NOT_CONNECTED: &str = "the datastore was not connected to yet";

/// A StorageClass of the cluster.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StorageClass {
    /// Its name.
    pub name: String,
    /// It is used by claims without a class.
    pub is_default: bool,
}

/// What was observed of the members of a managed DataStore.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Members {
    /// Number of ready pods of the StatefulSet.
    pub ready: i32,
    /// The PersistentVolumeClaim of the first member, once it exists.
    pub claim: Option<Claim>,
    /// Why a pod does not become ready.
    pub trouble: Option<String>,
}

/// What was observed of a PersistentVolumeClaim.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Claim {
    /// Its UID.
    pub uid: String,
    /// It is bound to a volume.
    pub bound: bool,
    /// Its StorageClass.
    pub class: Option<String>,
    /// It has no owner yet.
    pub adoptable: bool,
}

impl Members {
    /// The claim exists and waits for a volume.
    pub fn is_claim_pending(&self) -> bool {
        self.claim.as_ref().is_some_and(|claim| !claim.bound)
    }
}

/// What a reconcile observed, step by step.
#[derive(Debug, Clone, Default)]
pub struct Progress {
    /// `namespace/name` of the tenants that use it.
    pub users: Vec<String>,
    /// Reconciling is paused by its annotation.
    pub paused: bool,
    /// Spec and credentials are valid.
    pub spec: Step,
    /// Managed only: the key material exists.
    pub certificates: Step,
    /// Managed only: all members are ready.
    pub members: Step,
    /// The datastore answers.
    pub connection: Step,
    /// What the datastore tells about itself, once it answered.
    pub health: Option<Health>,
    /// Which datastore it is, once that was recorded.
    pub identity: Option<Identity>,
    /// Managed only: `status.managed`.
    pub managed: Option<ManagedStatus>,
    /// Message of the condition `FieldNotSupported`.
    pub unsupported: Option<String>,
}

/// Computes the status.
pub fn status(store: &DataStore, progress: &Progress, now: Timestamp) -> DataStoreStatus {
    let old = store.status.clone().unwrap_or_default();
    let generation = store.metadata.generation;
    let mut report = Report::new(old.conditions.clone(), generation, now);
    if progress.paused {
        report.set(paused(true));
        return DataStoreStatus {
            conditions: report.into_conditions(),
            ..old
        };
    }
    let ready = ready(progress);
    report.set(paused(false));
    report.set(deletion(store, progress));
    report.set(allowed_deletion(progress));
    report.set(validation(progress));
    let members = progress.health.as_ref().map(answering).unwrap_or_default();
    match &ready {
        Ok(()) => report.set(Verdict::yes(On::Ready.as_str(), Reason::Ready, members.as_str())),
        Err(problem) => report.set(Verdict::no(
            On::Ready.as_str(),
            problem.reason,
            problem.message.clone(),
        )),
    }
    let reachable = On::Reachable.as_str();
    report.set(match &progress.connection {
        Step::NotReached => Verdict::unknown(reachable, Reason::Pending, NOT_CONNECTED),
        Step::Done => Verdict::yes(reachable, Reason::Reachable, members),
        Step::Failed(problem) => Verdict::no(reachable, problem.reason, problem.message.clone()),
    });
    for (on, step, good) in [
        (On::MembersReady, &progress.members, Reason::MembersReady),
        (
            On::CertificatesAvailable,
            &progress.certificates,
            Reason::CertificatesAvailable,
        ),
    ] {
        if let Some(verdict) = report::verdict(on.as_str(), step, good) {
            report.set(verdict);
        }
    }
    if let Some(health) = &progress.health {
        report.set(version::verdict(store, health));
        report.set(space::verdict(store, health.space));
    }
    report.unsupported(progress.unsupported.clone());
    let known = progress.identity.as_ref();
    let claim = old.managed.as_ref().and_then(|managed| managed.claim_uid.clone());
    let claim = known.and_then(|known| known.claim.clone()).or(claim);
    let managed = progress.managed.clone().or(old.managed);
    DataStoreStatus {
        ready: ready.is_ok(),
        used_by: progress.users.clone(),
        observed_generation: generation,
        conditions: report.into_conditions(),
        store_id: known.map(|known| known.store.clone()).or(old.store_id),
        managed: managed.map(|managed| ManagedStatus {
            claim_uid: claim,
            ..managed
        }),
    }
}

/// The members that do not answer; empty when all do.
fn answering(health: &Health) -> String {
    if health.silent.is_empty() {
        return String::new();
    }
    let silent = health
        .silent
        .iter()
        .map(|Silent { endpoint, cause }| format!("{endpoint} ({cause})"));
    format!(
        "{} of {} members answer; no answer from {}: start them again, or correct spec.endpoints",
        health.members.saturating_sub(health.silent.len()),
        health.members,
        silent.collect::<Vec<_>>().join(", ")
    )
}

/// The first problem that makes the DataStore unusable for tenants.
fn ready(progress: &Progress) -> Result<(), Problem> {
    let pending = |message: &str| Problem::on_change(Reason::Pending, message);
    let required = |step: &Step, message: &str| {
        step.known()
            .map_err(|why| why.unwrap_or_else(|| pending(message)))
    };
    required(&progress.spec, NOT_CHECKED)?;
    // Not reached for an external DataStore.
    for step in [&progress.certificates, &progress.members] {
        if let Some(problem) = step.problem() {
            return Err(problem.clone());
        }
    }
    required(&progress.connection, NOT_CONNECTED)?;
    progress
        .health
        .as_ref()
        .map_or(Ok(()), |health| space::check(health.space))
}

/// Whether it is not ready for a reason that is part of normal start-up and deserves no Event.
pub fn is_starting(progress: &Progress) -> bool {
    ready(progress).is_err_and(|problem| match problem.reason {
        Reason::Pending | Reason::WaitingForMembers => true,
        // A missing StorageClass has to be fixed; that of an existing one is provisioning.
        Reason::StorageUnavailable => problem.retry == Retry::OnChange,
        _ => false,
    })
}

/// Whether a failed connection is a problem of the credentials, and not of the datastore.
pub fn is_about_credentials(problem: &Problem) -> bool {
    matches!(
        problem.reason,
        Reason::SecretNotFound | Reason::CredentialsInvalid | Reason::Forbidden | Reason::InternalError
    )
}

/// Whether all members of a managed DataStore are ready.
///
/// # Errors
/// Why they are not.
pub fn members(managed: &Managed, members: &Members, classes: &[StorageClass]) -> Result<(), Problem> {
    let (namespace, name) = (namespace::DATASTORES, &managed.name);
    if let Some(claim) = members.claim.as_ref().filter(|claim| !claim.bound) {
        return Err(storage_problem(
            &format!("{namespace}/{}", parts::claim_name(name)),
            &managed.spec.storage.size.0,
            claim.class.as_deref(),
            classes,
            members.trouble.as_deref(),
        ));
    }
    if members.ready >= managed.spec.replicas {
        return Ok(());
    }
    let trouble = members.trouble.as_ref();
    Err(Problem::on_change(
        Reason::WaitingForMembers,
        format!(
            "{} of {} pods of StatefulSet {namespace}/{name} are ready{}",
            members.ready,
            managed.spec.replicas,
            trouble.map_or_else(String::new, |trouble| format!(": {trouble}"))
        ),
    ))
}

fn paused(paused: bool) -> Verdict {
    let on = On::Paused.as_str();
    if paused {
        Verdict::yes(on, Reason::Paused, "annotation kamaji.clastix.io/paused is set")
    } else {
        Verdict::no(on, Reason::NotPaused, "")
    }
}

/// The condition of upstream Kamaji, with its reasons.
fn validation(progress: &Progress) -> Verdict {
    let on = On::Validation.as_str();
    match &progress.spec {
        Step::NotReached => Verdict::unknown(on, Reason::MissingCondition, NOT_CHECKED),
        Step::Done => Verdict::yes(on, Reason::DataStoreIsValid, ""),
        Step::Failed(problem) => {
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

fn allowed_deletion(progress: &Progress) -> Verdict {
    let on = On::AllowedDeletion.as_str();
    match progress.users.len() {
        0 => Verdict::yes(on, Reason::DataStoreUnused, ""),
        count => Verdict::no(
            on,
            Reason::DataStoreStillUsed,
            format!(
                "{count} TenantControlPlanes use it: delete them or move them to another DataStore; status.usedBy lists them"
            ),
        ),
    }
}

fn deletion(store: &DataStore, progress: &Progress) -> Verdict {
    let on = On::Deleting.as_str();
    if store.metadata.deletion_timestamp.is_none() {
        return Verdict::no(on, Reason::NotDeleting, "");
    }
    let message = format!(
        "TenantControlPlanes use it: delete them or move them to another DataStore: {}",
        some_of(&progress.users)
    );
    Verdict::yes(on, Reason::WaitingForTenantsDeletion, message)
}

fn some_of(users: &[String]) -> String {
    let shown: Vec<&str> = users.iter().take(5).map(String::as_str).collect();
    match users.len().saturating_sub(shown.len()) {
        0 => shown.join(", "),
        more => format!("{} and {more} more", shown.join(", ")),
    }
}

/// Whether tenants are reconciled after a change of status: they depend on `Ready`, `VersionSafe` and `SpaceAvailable` with
/// their reasons, on the messages of what is not as it should be, and on the generation of the spec, which may have other
/// endpoints. A member that is down is no concern of theirs.
pub fn concerns_tenants(old: Option<&DataStoreStatus>, new: &DataStoreStatus) -> bool {
    let facts = |status: &DataStoreStatus| {
        let why = [On::Ready, On::VersionSafe, On::SpaceAvailable].map(|on| {
            let found = conditions::get(&status.conditions, on.as_str());
            let message = |found: &Condition| (found.status != "True").then(|| found.message.clone());
            found.map(|found| (found.reason.clone(), message(found)))
        });
        (status.ready, status.observed_generation, why)
    };
    old.map(facts) != Some(facts(new))
}

/// Why a PersistentVolumeClaim is not bound. `trouble` is the problem of its pod: some classes provision a volume only
/// after the pod is scheduled.
fn storage_problem(
    claim: &str,
    size: &str,
    class: Option<&str>,
    classes: &[StorageClass],
    trouble: Option<&str>,
) -> Problem {
    let fix = "create a DataStore with another spec.managed.storage.className";
    let known = class.map(|name| classes.iter().any(|class| class.name == name));
    let (why, retry) = match (class, known) {
        (Some(name), Some(true)) => (
            format!("StorageClass {name:?} has not provided a volume of {size} yet"),
            Retry::OnChange,
        ),
        (Some(name), _) => (
            format!("its StorageClass {name:?} does not exist: create it, or {fix}"),
            Retry::Unwatched,
        ),
        (None, _) if classes.iter().any(|class| class.is_default) => (
            format!("the default StorageClass has not provided a volume of {size} yet"),
            Retry::OnChange,
        ),
        (None, _) => (
            format!(
                "the cluster has no default StorageClass: annotate one with storageclass.kubernetes.io/is-default-class=true, or {fix}"
            ),
            Retry::Unwatched,
        ),
    };
    let message = format!(
        "PersistentVolumeClaim {claim} is not bound: {why}{}",
        trouble.map_or_else(String::new, |trouble| format!("; {trouble}"))
    );
    Problem::new(retry, Reason::StorageUnavailable, message)
}

/// Whether a DataStore accepts tenants, by its status.
pub fn usable(store: &DataStore) -> Result<(), Problem> {
    let name = store.name_any();
    let not =
        |reason: Reason, why: String| Err(Problem::on_change(reason, format!("DataStore {name:?} {why}")));
    if store.metadata.deletion_timestamp.is_some() {
        return not(Reason::DataStoreDeleting, "is being deleted".to_owned());
    }
    // Without it, the DataStore could be deleted under its tenants. Its controller adds it, and wakes them.
    if !finalizer::has(store, kamaji::DATASTORE_FINALIZER) {
        return not(Reason::DataStoreNotReady, "was not reconciled yet".to_owned());
    }
    let status = store.status.as_ref();
    if status.is_some_and(|status| status.ready) {
        return Ok(());
    }
    let ready = status.and_then(|status| conditions::get(&status.conditions, On::Ready.as_str()));
    // What its tenants have to know by name.
    let reported = [Reason::DataLost, Reason::DataStoreFull];
    let reason = reported
        .into_iter()
        .find(|reason| ready.is_some_and(|ready| ready.reason == reason.as_str()));
    let reason = reason.unwrap_or(Reason::DataStoreNotReady);
    not(
        reason,
        ready.map_or_else(|| "was not reconciled yet".to_owned(), why_not),
    )
}

fn why_not(condition: &Condition) -> String {
    format!("is not ready: {} ({})", condition.message, condition.reason)
}

#[cfg(test)]
mod tests {
    use kamaji_api::datastore::DataStoreSpec;

    use super::*;
    use crate::{hosting::driver::Space, k8s::error::Class};

    fn now() -> Timestamp {
        Timestamp::from_second(1_800_000_000).unwrap()
    }

    fn store() -> DataStore {
        DataStore::new("shared", DataStoreSpec::default())
    }

    fn problem(reason: Reason) -> Problem {
        Problem::backoff(Class::Foreign, reason, "why")
    }

    fn shown(status: &DataStoreStatus, on: On) -> String {
        let condition = conditions::get(&status.conditions, on.as_str()).unwrap();
        format!("{} {} {}", condition.status, condition.reason, condition.message)
    }

    #[test]
    fn ready_reports_the_first_problem() {
        let good = Progress {
            spec: Step::Done,
            connection: Step::Done,
            users: vec!["demo/a".to_owned()],
            ..Progress::default()
        };
        let whole = status(&store(), &good, now());
        assert!(whole.ready);
        assert_eq!(shown(&whole, On::Validation), "True DataStoreIsValid ");
        assert_eq!(
            shown(&whole, On::AllowedDeletion),
            "False DataStoreStillUsed 1 TenantControlPlanes use it: delete them or move them to another DataStore; \
             status.usedBy lists them"
        );
        let down = Progress {
            connection: problem(Reason::DataStoreUnreachable).into(),
            ..good.clone()
        };
        let down = status(&store(), &down, now());
        assert!(!down.ready);
        assert_eq!(shown(&down, On::Ready), "False DataStoreUnreachable why");
        assert_eq!(shown(&down, On::Validation), "True DataStoreIsValid ");
        let wrong = Progress {
            spec: problem(Reason::SecretNotFound).into(),
            connection: Step::NotReached,
            ..good
        };
        let wrong = status(&store(), &wrong, now());
        assert_eq!(shown(&wrong, On::Ready), "False SecretNotFound why");
        assert_eq!(
            shown(&wrong, On::Validation),
            "False TLSConfigurationValidationFailed why"
        );
        assert_eq!(
            shown(&wrong, On::Reachable),
            "Unknown Pending the datastore was not connected to yet"
        );
    }

    #[test]
    fn a_member_that_is_down_is_named_while_the_others_serve() {
        let refused = |endpoint: &str| Silent {
            endpoint: endpoint.to_owned(),
            cause: "connection refused".to_owned(),
        };
        let health = |silent: &[&str]| Health {
            version: "3.6.16".to_owned(),
            answers_tenants: Some(true),
            members: 3,
            space: Space::default(),
            silent: silent.iter().map(|endpoint| refused(endpoint)).collect(),
        };
        let seen = |silent: &[&str]| {
            let progress = Progress {
                spec: Step::Done,
                connection: Step::Done,
                health: Some(health(silent)),
                ..Progress::default()
            };
            status(&store(), &progress, now())
        };
        let (whole, one) = (seen(&[]), seen(&["etcd-1:2379"]));
        assert!(one.ready);
        let reported = "1 of 3 members answer; no answer from etcd-0:2379 (connection refused), etcd-1:2379 (connection \
                    refused): start them again, or correct spec.endpoints";
        let two = seen(&["etcd-0:2379", "etcd-1:2379"]);
        assert_eq!(shown(&two, On::Reachable), format!("True Reachable {reported}"));
        assert_eq!(shown(&two, On::Ready), format!("True Ready {reported}"));
        assert_eq!(shown(&whole, On::Ready), "True Ready ");
        assert!(!concerns_tenants(Some(&whole), &one), "they are served");
    }

    #[test]
    fn the_same_observation_gives_the_same_status() {
        let progress = Progress {
            spec: Step::Done,
            connection: Step::Done,
            ..Progress::default()
        };
        let mut store = store();
        let first = status(&store, &progress, now());
        store.status = Some(first.clone());
        let later = Timestamp::from_second(1_800_000_999).unwrap();
        assert_eq!(status(&store, &progress, later), first);
    }

    #[test]
    fn a_claim_without_a_volume_is_named_with_its_fix() {
        let local = [StorageClass {
            name: "local".to_owned(),
            is_default: true,
        }];
        let table = [
            (
                None,
                &[][..],
                "the cluster has no default StorageClass: annotate one with",
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
    fn a_claim_that_waits_for_its_pod_reports_the_problem_of_the_pod() {
        let local = [StorageClass {
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
    fn tenants_are_reconciled_after_a_change_that_concerns_them() {
        let mut store = store();
        store.metadata.generation = Some(1);
        let good = Progress {
            spec: Step::Done,
            connection: Step::Done,
            ..Progress::default()
        };
        let with = |problem: Problem| Progress {
            connection: problem.into(),
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
        let used = Progress {
            users: vec!["demo/a".to_owned()],
            ..good.clone()
        };
        assert!(!concerns_tenants(Some(&ready), &status(&store, &used, now())));
        // Other endpoints, say.
        store.metadata.generation = Some(2);
        assert!(concerns_tenants(Some(&ready), &status(&store, &good, now())));
    }

    #[test]
    fn ready_reports_a_missing_ca_first() {
        let progress = Progress {
            spec: Step::Done,
            certificates: problem(Reason::SecretNotFound).into(),
            ..Progress::default()
        };
        let status = status(&store(), &progress, now());
        assert!(!status.ready);
        assert_eq!(
            shown(&status, On::CertificatesAvailable),
            "False SecretNotFound why"
        );
        assert_eq!(shown(&status, On::Ready), "False SecretNotFound why");
    }

    #[test]
    fn a_datastore_that_is_not_ready_reports_why() {
        let mut store = store();
        assert_eq!(
            usable(&store).unwrap_err().message,
            "DataStore \"shared\" was not reconciled yet"
        );
        store.metadata.finalizers = Some(vec![kamaji::DATASTORE_FINALIZER.to_owned()]);
        assert_eq!(
            usable(&store).unwrap_err().message,
            "DataStore \"shared\" was not reconciled yet"
        );
        let progress = Progress {
            spec: problem(Reason::CredentialsInvalid).into(),
            ..Progress::default()
        };
        store.status = Some(status(&store, &progress, now()));
        assert_eq!(
            usable(&store).unwrap_err().message,
            "DataStore \"shared\" is not ready: why (CredentialsInvalid)"
        );
    }
}
