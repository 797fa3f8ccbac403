//! What stops a reconcile: reason and message for a condition, and what ends the stop. Pure.
//!
//! How to use it:
//! - a step returns `Result<T, Problem>`; `?` converts a failed request ([`ApiError`]) and a failed serialization;
//! - [`Problem::on_change`] for what a watched change ends, such as an invalid spec;
//!   [`Problem::unwatched`] for what is not there yet and no watch reports, such as a Secret without our label;
//!   [`Problem::backoff`] for a failure, whose [`Class`] decides how soon it is tried again;
//! - [`Problem::because`] replaces the reason where the caller knows a better one;
//! - [`Problem::is_transient`]: the problem is one of the management cluster, so the conditions of the object are kept
//!   as they are;
//! - `problem.settle()` (in `runtime/driver.rs`) ends the reconcile. [`super::report::Step`] carries a problem
//!   into the status.

use kamaji_api::conditions::Reason;

use super::error::{ApiError, Class};

/// What ends a stop.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Retry {
    /// A change that is watched: nothing is tried before it comes.
    OnChange,
    /// A change that nothing watched reports. Tried again with backoff; it is no failure, so it is neither counted nor
    /// logged as one.
    Unwatched,
    /// Nothing but another try. With backoff, counted and logged as a failure of this class.
    Backoff(Class),
}

impl From<Class> for Retry {
    /// [`Class::Invalid`] is over when the object changes, everything else is tried again.
    fn from(class: Class) -> Self {
        match class {
            Class::Invalid => Self::OnChange,
            Class::Transient | Class::Conflict | Class::Denied | Class::Foreign => Self::Backoff(class),
        }
    }
}

/// What is missing or wrong.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct Problem {
    /// Reason of the condition.
    pub reason: Reason,
    /// For people: object, field and fix. No secrets, no times, no random names.
    pub message: String,
    /// What ends it.
    pub retry: Retry,
}

impl Problem {
    /// A watched change ends it.
    pub fn on_change(reason: Reason, message: impl Into<String>) -> Self {
        Self::new(Retry::OnChange, reason, message)
    }

    /// Nothing watched ends it: it is looked at again with backoff.
    pub fn unwatched(reason: Reason, message: impl Into<String>) -> Self {
        Self::new(Retry::Unwatched, reason, message)
    }

    /// A failure, tried again as its class demands.
    pub fn backoff(class: Class, reason: Reason, message: impl Into<String>) -> Self {
        Self::new(Retry::Backoff(class), reason, message)
    }

    /// All three.
    pub fn new(retry: Retry, reason: Reason, message: impl Into<String>) -> Self {
        Self {
            reason,
            message: message.into(),
            retry,
        }
    }

    /// What a condition of another object reports; a watch of that object ends it. A reason that this version does
    /// not know becomes `NotAvailable`, and the message keeps it.
    pub fn mirrored(reason: &str, message: impl Into<String>) -> Self {
        let message = message.into();
        match Reason::ALL.iter().find(|known| known.as_str() == reason) {
            Some(known) => Self::on_change(*known, message),
            None => Self::on_change(Reason::NotAvailable, format!("{message} ({reason})")),
        }
    }

    /// The same problem with another reason.
    #[must_use]
    pub fn because(self, reason: Reason) -> Self {
        Self { reason, ..self }
    }

    /// It is no problem of the object: the management cluster does not answer, or another client wrote at the same time.
    pub fn is_transient(&self) -> bool {
        matches!(self.retry, Retry::Backoff(Class::Transient | Class::Conflict))
    }

    /// It is a failure: something went wrong, and the same is tried again.
    pub fn is_failure(&self) -> bool {
        matches!(self.retry, Retry::Backoff(_))
    }

    /// Another client wrote at the same time: the reconcile starts over with what the watches report.
    pub fn is_conflict(&self) -> bool {
        self.retry == Retry::Backoff(Class::Conflict)
    }
}

impl From<ApiError> for Problem {
    /// `Forbidden`, `OwnedByAnother` or `InternalError`, tried again as the answer's class demands.
    fn from(error: ApiError) -> Self {
        let reason = match error.class() {
            Class::Denied => Reason::Forbidden,
            _ if error.is_foreign() => Reason::OwnedByAnother,
            Class::Transient | Class::Conflict | Class::Invalid | Class::Foreign => Reason::InternalError,
        };
        Self::backoff(error.class(), reason, error.to_string())
    }
}

impl From<serde_json::Error> for Problem {
    /// An object that cannot be serialized: another try would fail the same way.
    fn from(error: serde_json::Error) -> Self {
        Self::on_change(
            Reason::InternalError,
            format!("an object cannot be written: {error}"),
        )
    }
}

#[cfg(test)]
mod tests {
    use kube::core::Status;
    use rstest::rstest;

    use super::*;

    #[rstest]
    #[case(403, Reason::Forbidden, Class::Denied, false)]
    #[case(409, Reason::InternalError, Class::Conflict, true)]
    #[case(422, Reason::InternalError, Class::Invalid, false)]
    #[case(500, Reason::InternalError, Class::Transient, true)]
    fn an_answer_of_the_api_server_becomes_a_problem(
        #[case] code: u16,
        #[case] reason: Reason,
        #[case] class: Class,
        #[case] transient: bool,
    ) {
        let answer = Status::failure("why", "").with_code(code);
        let error = ApiError::new("apply Secret ns/m", kube::Error::Api(Box::new(answer)));
        let problem = Problem::from(error);
        assert_eq!((problem.reason, problem.retry), (reason, Retry::Backoff(class)));
        assert_eq!(problem.to_string(), "apply Secret ns/m: why");
        assert_eq!(problem.is_transient(), transient);
        assert_eq!(problem.is_conflict(), class == Class::Conflict);
    }

    #[test]
    fn an_object_of_somebody_else_is_named_as_such() {
        let problem = Problem::from(ApiError::foreign("apply Secret ns/m", "Secret ns/m is not ours"));
        assert_eq!(problem.reason, Reason::OwnedByAnother);
        assert_eq!(problem.retry, Retry::Backoff(Class::Foreign));
        assert_eq!(problem.message, "Secret ns/m is not ours");
    }

    #[test]
    fn a_mirrored_reason_is_kept_or_quoted() {
        let known = Problem::mirrored("DataStoreNotFound", "no");
        assert_eq!(
            (known.reason, known.message.as_str()),
            (Reason::DataStoreNotFound, "no")
        );
        let unknown = Problem::mirrored("OfTomorrow", "no");
        assert_eq!(unknown.reason, Reason::NotAvailable);
        assert_eq!(unknown.message, "no (OfTomorrow)");
    }

    #[test]
    fn only_a_change_ends_what_is_invalid() {
        assert_eq!(Retry::from(Class::Invalid), Retry::OnChange);
        assert_eq!(Retry::from(Class::Foreign), Retry::Backoff(Class::Foreign));
    }
}
