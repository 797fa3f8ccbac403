//! From what a reconcile found to what the object reports: steps become conditions, conditions become the status,
//! transitions become Events.
//!
//! How to use it:
//! - `observe`, `validate` and the writes leave a [`Step`] each (`Step::of(&result)`, `result.into()`);
//! - the pure `status` file of a controller fills a [`Report`]: [`Report::step`] for a step's condition,
//!   [`Report::set`] for any other, [`Report::unsupported`] for `FieldNotSupported`;
//! - a controller's `events` file is a table of [`Rule`]s: which transition of which condition is an Event;
//! - [`publish`] computes the status from the newest root, writes it when it differs, then emits the Events.

use std::{fmt::Debug, sync::Arc};

use k8s_openapi::{apimachinery::pkg::apis::meta::v1::Condition, jiff::Timestamp};
use kamaji_api::{
    bootstrap::KamajiConfigStatus,
    conditions::{FIELD_NOT_SUPPORTED, Reason, is_negative},
    controlplane::KamajiControlPlaneStatus,
    datastore::DataStoreStatus,
    tenantcontrolplane::TenantControlPlaneStatus,
};
use kube::{Api, core::object::HasStatus};
use serde::Serialize;

use super::{
    conditions::{self, Verdict},
    error::ApiError,
    events::{Events, Transition},
    key::RootKey,
    problem::Problem,
    status::{self, Guard},
    store::{Storable, Store},
};

/// How one step of a reconcile ended.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Step {
    /// The reconcile stopped before it: whether it would succeed is unknown.
    #[default]
    NotReached,
    /// What the step is about is as it should be.
    Done,
    /// It is not; why.
    Failed(Problem),
}

/// A value that needs a step to be done. `Err(None)`: the step was not reached. `?` takes a `Result<_, Problem>` too.
pub type Known<T = ()> = Result<T, Option<Problem>>;

impl Step {
    /// How a step ended that returns a value.
    pub fn of<T>(result: &Result<T, Problem>) -> Self {
        match result {
            Ok(_) => Self::Done,
            Err(problem) => Self::Failed(problem.clone()),
        }
    }

    /// Why it failed, where it did.
    pub fn problem(&self) -> Option<&Problem> {
        match self {
            Self::Failed(problem) => Some(problem),
            Self::NotReached | Self::Done => None,
        }
    }

    /// It was reached and succeeded.
    pub fn is_done(&self) -> bool {
        *self == Self::Done
    }

    /// For `?` where another step depends on this one.
    ///
    /// # Errors
    /// Why it failed; `None` when it was not reached.
    pub fn known(&self) -> Known {
        match self {
            Self::NotReached => Err(None),
            Self::Done => Ok(()),
            Self::Failed(problem) => Err(Some(problem.clone())),
        }
    }
}

impl From<Problem> for Step {
    fn from(problem: Problem) -> Self {
        Self::Failed(problem)
    }
}

impl From<Result<(), Problem>> for Step {
    fn from(result: Result<(), Problem>) -> Self {
        result.map_or_else(Self::Failed, |()| Self::Done)
    }
}

impl From<Option<Result<(), Problem>>> for Step {
    fn from(result: Option<Result<(), Problem>>) -> Self {
        result.map_or(Self::NotReached, Self::from)
    }
}

impl From<Known> for Step {
    fn from(known: Known) -> Self {
        match known {
            Ok(()) => Self::Done,
            Err(Some(problem)) => Self::Failed(problem),
            Err(None) => Self::NotReached,
        }
    }
}

/// The condition of a step: `True` with the reason `good`, or `False` with the problem. `None` while it was not
/// reached. For a condition of positive polarity.
pub fn verdict(type_: &'static str, step: &Step, good: Reason) -> Option<Verdict> {
    match step {
        Step::NotReached => None,
        Step::Done => Some(Verdict::yes(type_, good, "")),
        Step::Failed(problem) => Some(Verdict::no(type_, problem.reason, problem.message.clone())),
    }
}

/// The conditions of one status while they are computed.
#[derive(Debug)]
pub struct Report {
    conditions: Vec<Condition>,
    generation: Option<i64>,
    now: Timestamp,
}

impl Report {
    /// Starts from the conditions that the object has. `generation` is that of the spec they are about.
    pub fn new(conditions: Vec<Condition>, generation: Option<i64>, now: Timestamp) -> Self {
        Self {
            conditions,
            generation,
            now,
        }
    }

    /// Sets a condition.
    pub fn set(&mut self, verdict: Verdict) {
        conditions::set(&mut self.conditions, verdict, self.generation, self.now);
    }

    /// Sets the condition of a step. While the step was not reached, the condition stays as it was reported before;
    /// where it never was, it is `Unknown`.
    pub fn step(&mut self, type_: &'static str, step: &Step, good: Reason) {
        match verdict(type_, step, good) {
            Some(verdict) => self.set(verdict),
            None if self.get(type_).is_some() => {}
            None => self.set(Verdict::unknown(type_, Reason::Pending, "not checked yet")),
        }
    }

    /// Sets `FieldNotSupported` with this message, or removes it: the condition exists only while it is `True`.
    pub fn unsupported(&mut self, message: Option<String>) {
        match message {
            Some(message) => self.set(Verdict::yes(
                FIELD_NOT_SUPPORTED,
                Reason::FieldNotSupported,
                message,
            )),
            None => self.remove(FIELD_NOT_SUPPORTED),
        }
    }

    /// Removes a condition.
    pub fn remove(&mut self, type_: &str) {
        conditions::remove(&mut self.conditions, type_);
    }

    /// The condition of this type.
    pub fn get(&self, type_: &str) -> Option<&Condition> {
        conditions::get(&self.conditions, type_)
    }

    /// The conditions so far, sorted by type.
    pub fn conditions(&self) -> &[Condition] {
        &self.conditions
    }

    /// The conditions, sorted by type.
    pub fn into_conditions(self) -> Vec<Condition> {
        self.conditions
    }
}

/// One row of a controller's table of Events.
#[derive(Clone, Copy, Debug)]
pub struct Rule {
    /// The condition types.
    pub conditions: &'static [&'static str],
    /// Which of their transitions is an Event.
    pub when: When,
    /// Reasons that are part of normal operation and no Event.
    pub except: &'static [Except],
}

/// A transition: status or reason differ from what the object reported before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum When {
    /// To the unhealthy status of the condition's polarity: a Warning with the condition's reason and message.
    Unhealthy,
    /// To anything but the healthy status, `Unknown` included: a Warning with the condition's reason and message.
    NotHealthy,
    /// To this reason, whatever the status: a Warning with the condition's reason and message.
    Because(Reason),
    /// To the healthy status: a Normal Event with this reason and message.
    Healthy {
        /// Reason of the Event.
        reason: Reason,
        /// Message of the Event.
        message: &'static str,
    },
}

/// What is no Event.
#[derive(Clone, Copy, Debug)]
pub enum Except {
    /// These reasons.
    Reasons(&'static [Reason]),
    /// Every reason that begins with `WaitingFor`.
    Waits,
    /// This reason, until the object reported the condition `until` as healthy: it belongs to a normal start.
    StartUp {
        /// The condition type.
        until: &'static str,
        /// The reason.
        reason: Reason,
    },
}

/// The Events of a change of conditions, in the order of `rules`; the same reason and message only once.
pub fn transitions(old: &[Condition], new: &[Condition], rules: &[Rule]) -> Vec<Transition> {
    let mut events: Vec<Transition> = Vec::new();
    for rule in rules {
        for condition in new {
            let listed = rule.conditions.contains(&condition.type_.as_str());
            if !listed || is_known(old, condition) || is_excepted(old, condition, rule.except) {
                continue;
            }
            if let Some(event) = event(condition, rule.when)
                && !events.contains(&event)
            {
                events.push(event);
            }
        }
    }
    events
}

fn is_known(old: &[Condition], new: &Condition) -> bool {
    conditions::get(old, &new.type_)
        .is_some_and(|old| (&old.status, &old.reason) == (&new.status, &new.reason))
}

fn is_excepted(old: &[Condition], new: &Condition, except: &[Except]) -> bool {
    except.iter().any(|except| match except {
        Except::Reasons(reasons) => reasons.iter().any(|reason| reason.as_str() == new.reason),
        Except::Waits => new.reason.starts_with("WaitingFor"),
        Except::StartUp { until, reason } => {
            let started = conditions::get(old, until).is_some_and(is_healthy);
            !started && new.reason == reason.as_str()
        }
    })
}

fn event(condition: &Condition, when: When) -> Option<Transition> {
    let warning = Transition {
        warning: true,
        reason: condition.reason.clone(),
        message: condition.message.clone(),
    };
    let healthy = is_healthy(condition);
    match when {
        When::Unhealthy => (!healthy && condition.status != "Unknown").then_some(warning),
        When::NotHealthy => (!healthy).then_some(warning),
        When::Because(reason) => (condition.reason == reason.as_str()).then_some(warning),
        When::Healthy { reason, message } => healthy.then(|| Transition {
            warning: false,
            reason: reason.into(),
            message: message.to_owned(),
        }),
    }
}

fn is_healthy(condition: &Condition) -> bool {
    let healthy = if is_negative(&condition.type_) {
        "False"
    } else {
        "True"
    };
    condition.status == healthy
}

/// A status with conditions.
pub trait HasConditions {
    /// The conditions.
    fn conditions(&self) -> &[Condition];
}

impl HasConditions for KamajiControlPlaneStatus {
    fn conditions(&self) -> &[Condition] {
        &self.conditions
    }
}

impl HasConditions for KamajiConfigStatus {
    fn conditions(&self) -> &[Condition] {
        &self.conditions
    }
}

impl HasConditions for TenantControlPlaneStatus {
    fn conditions(&self) -> &[Condition] {
        &self.conditions
    }
}

impl HasConditions for DataStoreStatus {
    fn conditions(&self) -> &[Condition] {
        &self.conditions
    }
}

/// Where a status and its Events go.
pub struct Publisher<'a, K: Storable> {
    /// The kind, in the namespace of the object where it has one.
    pub api: &'a Api<K>,
    /// The in-memory store of the kind.
    pub roots: &'a Store<K>,
    /// Events of the controller.
    pub events: &'a Events,
    /// Field manager of the controller.
    pub field_manager: &'static str,
}

/// A status that was written.
pub struct Written<K: HasStatus> {
    /// The object as it was before, with the old status.
    pub object: Arc<K>,
    /// The new status.
    pub status: K::Status,
}

/// Computes the status from the newest version of the object in the in-memory store (the reconcile may have written
/// it), applies it when it differs, then emits the Events of `rules`. `None` when nothing was sent: the status is the
/// same, or the object is gone.
///
/// # Errors
/// What the API server answered to the status; a lost Event is no error, since the condition reports the same.
pub async fn publish<K>(
    to: Publisher<'_, K>,
    key: &RootKey,
    rules: &[Rule],
    compute: impl FnOnce(&K) -> K::Status,
) -> Result<Option<Written<K>>, ApiError>
where
    K: Storable + HasStatus + Debug,
    K::Status: Serialize + HasConditions,
{
    let Some(object) = to.roots.get(key) else {
        return Ok(None);
    };
    let status = compute(&object);
    if !status::apply(to.api, to.roots, &*object, &status, to.field_manager, Guard::None).await? {
        return Ok(None);
    }
    let old = object.status().map(HasConditions::conditions).unwrap_or_default();
    for event in transitions(old, status.conditions(), rules) {
        to.events.emit(&*object, &event).await;
    }
    Ok(Some(Written { object, status }))
}

#[cfg(test)]
mod tests;
