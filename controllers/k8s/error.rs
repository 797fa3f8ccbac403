//! What a failed request means for the retry.

use std::fmt;

/// How a failure is retried (style.md 3.7).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Class {
    /// Passing trouble: backoff.
    Transient,
    /// Somebody wrote at the same time: at once, from the top.
    Conflict,
    /// Nothing will help but a change of the object: no retry.
    Invalid,
    /// Rights are missing: slow and loud.
    Denied,
    /// A system outside the management cluster failed: backoff.
    Foreign,
}

/// A failed read or write of the management cluster. Boxed: `kube::Error` is large.
#[derive(Debug)]
pub struct ApiError {
    /// What was tried, for example `apply Secret ns/name`.
    pub action: String,
    source: Box<kube::Error>,
}

impl ApiError {
    /// `source` while doing `action`.
    pub fn new(action: impl Into<String>, source: kube::Error) -> Self {
        Self {
            action: action.into(),
            source: Box::new(source),
        }
    }

    /// How to retry.
    pub fn class(&self) -> Class {
        match self.code() {
            Some(409) => Class::Conflict,
            Some(400 | 404 | 405 | 413 | 422) => Class::Invalid,
            Some(401 | 403) => Class::Denied,
            _ => Class::Transient,
        }
    }

    /// The object was not there.
    pub fn is_not_found(&self) -> bool {
        self.code() == Some(404)
    }

    /// The object was there already.
    pub fn is_already_exists(&self) -> bool {
        matches!(&*self.source, kube::Error::Api(status) if status.reason == "AlreadyExists")
    }

    fn code(&self) -> Option<u16> {
        match &*self.source {
            kube::Error::Api(status) => Some(status.code),
            _ => None,
        }
    }
}

impl fmt::Display for ApiError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &*self.source {
            kube::Error::Api(status) => write!(f, "{}: {}", self.action, status.message),
            other => write!(f, "{}: {other}", self.action),
        }
    }
}

impl std::error::Error for ApiError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        Some(&*self.source)
    }
}
