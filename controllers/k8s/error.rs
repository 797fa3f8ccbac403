//! What a failed request means for the retry.

use std::fmt;

use kamaji_api::conditions::Reason;
use kube::core::Status;

/// How a failure is retried.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Class {
    /// The API server or the network has a problem that ends by itself: with backoff.
    Transient,
    /// Somebody wrote at the same time: the reconcile starts over at once.
    Conflict,
    /// Only a change of the object helps: with backoff, and no sooner than after 30 s.
    Invalid,
    /// An RBAC rule is missing: with backoff, and no sooner than after 30 s.
    Denied,
    /// A system outside the management cluster failed: with backoff.
    Foreign,
}

/// A failed read or write of the management cluster. Boxed: `kube::Error` is large.
#[derive(Debug)]
pub struct ApiError {
    /// The action, for example `apply Secret ns/name`.
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

    /// An object of that name exists and is not ours. `message` names it and the fix.
    pub fn foreign(action: impl Into<String>, message: impl Into<String>) -> Self {
        let status = Status {
            code: 409,
            reason: Reason::OwnedByAnother.as_str().to_owned(),
            message: message.into(),
            ..Status::default()
        };
        Self::new(action, kube::Error::Api(Box::new(status)))
    }

    /// How to retry.
    pub fn class(&self) -> Class {
        match self.code() {
            // An object that is not ours is not watched, so its deletion is only found by another try.
            Some(409) if self.is_foreign() => Class::Foreign,
            Some(409) => Class::Conflict,
            Some(400 | 404 | 405 | 413 | 422) => Class::Invalid,
            Some(401 | 403) => Class::Denied,
            _ => Class::Transient,
        }
    }

    /// The object does not exist.
    pub fn is_not_found(&self) -> bool {
        self.code() == Some(404)
    }

    /// The object exists already.
    pub fn is_already_exists(&self) -> bool {
        matches!(&*self.source, kube::Error::Api(status) if status.reason == "AlreadyExists")
    }

    /// The object was refused because this field is immutable.
    pub fn is_immutable(&self, field: &str) -> bool {
        let kube::Error::Api(status) = &*self.source else {
            return false;
        };
        let causes = status.details.as_ref().map(|details| details.causes.as_slice());
        status.code == 422
            && causes
                .unwrap_or_default()
                .iter()
                .any(|cause| cause.field == field && cause.message.contains("immutable"))
    }

    /// See [`ApiError::foreign`].
    pub fn is_foreign(&self) -> bool {
        matches!(&*self.source, kube::Error::Api(status) if status.reason == Reason::OwnedByAnother.as_str())
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
            kube::Error::Api(status) if self.is_foreign() => f.write_str(&status.message),
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

#[cfg(test)]
mod tests {
    use kube::core::response::{Status, StatusCause, StatusDetails};

    use super::*;

    fn refused(code: u16, field: &str, message: &str) -> ApiError {
        let status = Status {
            code,
            reason: "Invalid".into(),
            message: format!("{field}: {message}"),
            details: Some(StatusDetails {
                causes: vec![StatusCause {
                    reason: "FieldValueInvalid".into(),
                    message: message.into(),
                    field: field.into(),
                }],
                name: "alpha-kubeconfig".into(),
                group: String::new(),
                kind: "Secret".into(),
                uid: String::new(),
                retry_after_seconds: 0,
            }),
            ..Status::default()
        };
        ApiError::new(
            "apply Secret demo/alpha-kubeconfig",
            kube::Error::Api(Box::new(status)),
        )
    }

    #[test]
    fn only_an_immutable_field_is_immutable() {
        let text = "Invalid value: \"Opaque\": field is immutable";
        assert!(refused(422, "type", text).is_immutable("type"));
        for other in [
            refused(422, "data", text),
            refused(
                422,
                "metadata.ownerReferences",
                "Invalid value: only one reference can be the controller",
            ),
            refused(403, "type", text),
            refused(422, "type", "Required value"),
        ] {
            assert!(!other.is_immutable("type"), "{other}");
        }
    }
}
