//! Why a request to a tenant's API server failed.

use super::limit;
use crate::k8s::conditions::quoted;

/// Why a request to a tenant's API server failed. The text is one short line: it ends up in conditions of the
/// management cluster, whatever the tenant answers.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// No answer: the connection failed, or the request timed out.
    #[error("the API server does not answer: {action}: {cause}")]
    Unreachable {
        /// The request, for example `get Node m`.
        action: String,
        /// The innermost cause.
        cause: String,
    },
    /// The API server answered with a 5xx status.
    #[error("the API server is not healthy: {action}: {message}")]
    Unhealthy {
        /// The request.
        action: String,
        /// HTTP status.
        code: u16,
        /// The answer.
        message: String,
    },
    /// The API server refused the request (4xx).
    #[error("{action}: {message}")]
    Refused {
        /// The request.
        action: String,
        /// HTTP status.
        code: u16,
        /// The answer.
        message: String,
    },
    /// An object is larger than etcd accepts, unless it is configured otherwise.
    #[error("{action}: an object has more than {} MiB: make it smaller, or delete it", limit::MAX_OBJECT / limit::MIB)]
    TooLarge {
        /// The request.
        action: String,
    },
    /// The kubeconfig cannot be used.
    #[error("the kubeconfig cannot be used: {0}")]
    Credentials(String),
    /// The object to apply or to delete lacks a kind, a name or an API version.
    #[error("the object has no {0}")]
    Malformed(&'static str),
    /// A binding that was just applied binds nobody.
    #[error("ClusterRoleBinding {0} has no subjects")]
    NoSubjects(&'static str),
}

impl Error {
    /// Classifies `error`, the result of the request `action`.
    pub fn of(action: &str, error: &kube::Error) -> Self {
        let action = action.to_owned();
        match error {
            kube::Error::Api(status) => {
                let (code, message) = (status.code, quoted(&status.message));
                if code >= 500 {
                    Self::Unhealthy {
                        action,
                        code,
                        message,
                    }
                } else {
                    Self::Refused {
                        action,
                        code,
                        message,
                    }
                }
            }
            other if limit::is_too_large(other) => Self::TooLarge { action },
            other => Self::Unreachable {
                action,
                cause: quoted(&innermost(other)),
            },
        }
    }

    /// HTTP status of the answer; `None` when there was none.
    pub fn code(&self) -> Option<u16> {
        match self {
            Self::Unhealthy { code, .. } | Self::Refused { code, .. } => Some(*code),
            Self::Unreachable { .. }
            | Self::TooLarge { .. }
            | Self::Credentials(_)
            | Self::Malformed(_)
            | Self::NoSubjects(_) => None,
        }
    }

    /// The API server failed because it did not reach a node or a pod: a webhook or an aggregated API did not answer, or no
    /// agent of the tunnel is connected. Source of the words: the messages of kube-apiserver.
    pub fn is_about_nodes(&self) -> bool {
        const WORDS: [&str; 3] = [
            "failed calling webhook",
            "No agent available",
            "error trying to reach service",
        ];
        let (Self::Unhealthy { message, .. } | Self::Refused { message, .. }) = self else {
            return false;
        };
        WORDS.iter().any(|words| message.contains(words))
    }
}

/// The innermost cause: the outer ones only repeat that a request failed.
fn innermost(error: &dyn std::error::Error) -> String {
    let mut last = error;
    while let Some(source) = last.source() {
        last = source;
    }
    last.to_string()
}

#[cfg(test)]
mod tests {
    use kube::core::Status;

    use super::*;

    #[test]
    fn the_answer_of_a_tenant_becomes_one_short_line() {
        for code in [403, 503] {
            let status = Status {
                code,
                message: format!("no\u{1b}[2J\n{}", "x".repeat(100_000)),
                ..Status::default()
            };
            let error = Error::of("apply ConfigMap coredns", &kube::Error::Api(Box::new(status)));
            let text = error.to_string();
            assert!(text.contains("apply ConfigMap coredns: no [2J x"), "{text}");
            assert!(text.chars().count() < 600 && !text.contains(char::is_control));
            assert_eq!(error.code(), Some(code));
        }
    }

    #[test]
    fn a_webhook_that_is_not_reached_casts_doubt_on_the_way_to_the_nodes() {
        let about_nodes = |message: &str| {
            let status = Status {
                code: 500,
                message: message.to_owned(),
                ..Status::default()
            };
            Error::of("apply ConfigMap coredns", &kube::Error::Api(Box::new(status))).is_about_nodes()
        };
        assert!(about_nodes(
            "Internal error occurred: failed calling webhook \"a.example.org\": failed to call webhook: Post \
             \"https://hook.default.svc:443/?timeout=10s\": No agent available"
        ));
        assert!(!about_nodes("etcdserver: request timed out"));
    }
}
