//! Why a pass stopped, as a condition tells it, and what ends the stop.

use std::time::Duration;

use kamaji_api::conditions::Reason;

use super::validate::Invalid;
use crate::hosting::datastore;
use crate::k8s::error::{ApiError, Class};
use crate::runtime::driver::{Failure, Outcome, Reconciled};

/// What is missing or wrong.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct Problem {
    /// Reason of the condition.
    pub reason: Reason,
    /// For people: object, field and fix.
    pub message: String,
    /// How to try again; `None` where a watched change ends the wait.
    pub retry: Option<Class>,
}

impl Problem {
    /// Waits for a change that is watched.
    pub fn wait(reason: Reason, message: impl Into<String>) -> Self {
        Self {
            reason,
            message: message.into(),
            retry: None,
        }
    }

    /// Tries again by itself.
    pub fn retry(class: Class, reason: Reason, message: impl Into<String>) -> Self {
        Self {
            reason,
            message: message.into(),
            retry: Some(class),
        }
    }

    /// How the pass ends. What waits for a change comes back after `look` all the same: its certificates go on ageing.
    pub fn settle(self, look: Duration) -> Reconciled {
        match self.retry {
            None => Ok(Outcome::After(look)),
            Some(class) => Err(Failure::new(class, self)),
        }
    }
}

impl From<Invalid> for Problem {
    fn from(invalid: Invalid) -> Self {
        Self::wait(invalid.reason, invalid.message)
    }
}

impl From<ApiError> for Problem {
    fn from(error: ApiError) -> Self {
        let reason = match error.class() {
            Class::Denied => Reason::Forbidden,
            _ if error.is_foreign() => Reason::OwnedByAnother,
            _ => Reason::InternalError,
        };
        Self::retry(error.class(), reason, error.to_string())
    }
}

impl From<datastore::validate::Problem> for Problem {
    fn from(problem: datastore::validate::Problem) -> Self {
        Self {
            reason: problem.reason,
            message: problem.message,
            retry: Some(problem.class).filter(|class| *class != Class::Invalid),
        }
    }
}

impl From<datastore::driver::Error> for Problem {
    fn from(error: datastore::driver::Error) -> Self {
        use datastore::driver::Error;
        let advice = |field: &str| {
            format!("{field}: {error}; choose another name, or leave the field out and one is drawn")
        };
        Self {
            reason: error.reason(),
            message: match &error {
                Error::ForeignSchema { .. } => advice("spec.dataStoreSchema"),
                Error::ForeignUser { .. } => advice("spec.dataStoreUsername"),
                other => other.to_string(),
            },
            retry: Some(error.class()).filter(|class| *class != Class::Invalid),
        }
    }
}

impl From<serde_json::Error> for Problem {
    fn from(error: serde_json::Error) -> Self {
        Self::wait(
            Reason::InternalError,
            format!("an object cannot be written: {error}"),
        )
    }
}
