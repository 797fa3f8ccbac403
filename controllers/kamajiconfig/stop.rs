//! How a pass ends before its end: at a closed gate, which a condition names, or with a failure that says nothing about
//! the config and is tried again. Every refusal that somebody has to act on is a gate (DESIGN 2.12). Pure.

use kamaji_api::conditions::Reason;

use super::preconditions::Gate;
use crate::{
    k8s::error::{ApiError, Class},
    runtime::driver::{Failure, Outcome},
    tenant::nodes::Trouble,
};

/// Why a pass ends before its end.
#[derive(Debug)]
pub enum Stop {
    /// A gate is closed: what is missing, and how the pass is run again.
    Closed(Gate, Outcome),
    /// Passing trouble with the management cluster, or somebody wrote at the same time.
    Failed(Failure),
}

impl Stop {
    /// A gate whose opening a watch tells of.
    pub fn closed(gate: Gate) -> Self {
        Self::Closed(gate, Outcome::Done)
    }

    /// A gate that nothing watched opens: looked at again with backoff.
    pub fn waiting(reason: Reason, message: impl Into<String>) -> Self {
        Self::Closed(Gate::closed(reason, message), Outcome::Waiting)
    }
}

impl From<Gate> for Stop {
    fn from(gate: Gate) -> Self {
        Self::closed(gate)
    }
}

impl From<Failure> for Stop {
    fn from(failure: Failure) -> Self {
        Self::Failed(failure)
    }
}

impl From<ApiError> for Stop {
    fn from(error: ApiError) -> Self {
        match error.class() {
            Class::Invalid => Self::waiting(Reason::InvalidSpec, error.to_string()),
            Class::Denied => Self::waiting(Reason::Forbidden, error.to_string()),
            Class::Transient | Class::Conflict | Class::Foreign => Self::Failed(error.into()),
        }
    }
}

impl From<Trouble> for Stop {
    fn from(trouble: Trouble) -> Self {
        match trouble.code() {
            // The action is left out: the condition would change with whatever was tried last.
            None => Self::waiting(
                Reason::TenantUnreachable,
                "the tenant's API server does not answer (asleep, starting, or not reachable from here)",
            ),
            Some(409) => Self::Failed(Failure::new(Class::Conflict, trouble)),
            Some(401 | 403) => Self::waiting(Reason::TenantRBACFailed, trouble.to_string()),
            Some(400..=428) => Self::waiting(Reason::InternalError, trouble.to_string()),
            Some(_) => Self::waiting(
                Reason::TenantUnreachable,
                format!("the tenant's API server has trouble: {trouble}"),
            ),
        }
    }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    fn refused(code: u16) -> Trouble {
        Trouble::Refused {
            action: "get Node m".to_owned(),
            code,
            message: "why".to_owned(),
        }
    }

    #[rstest]
    #[case::silent(Trouble::Unreachable("get Node m".to_owned()), Reason::TenantUnreachable)]
    #[case::overloaded(refused(429), Reason::TenantUnreachable)]
    #[case::broken(refused(500), Reason::TenantUnreachable)]
    #[case::rights(refused(403), Reason::TenantRBACFailed)]
    #[case::refused(refused(422), Reason::InternalError)]
    fn bootstrap_09_trouble_with_a_tenant_is_a_wait_with_a_name(
        #[case] trouble: Trouble,
        #[case] reason: Reason,
    ) {
        let Stop::Closed(gate, outcome) = trouble.into() else {
            panic!("no gate");
        };
        assert_eq!((gate.reason, outcome), (reason, Outcome::Waiting));
    }

    #[test]
    fn a_conflict_is_started_over() {
        let stop = Stop::from(refused(409));
        assert!(matches!(stop, Stop::Failed(failure) if failure.class == Class::Conflict));
    }

    #[test]
    fn what_the_management_cluster_refuses_is_said_with_its_own_words() {
        let error = |code: u16| {
            let answer = kube::core::Status::failure("metadata.labels: Invalid value", "").with_code(code);
            Stop::from(ApiError::new(
                "create Secret ns/m",
                kube::Error::Api(Box::new(answer)),
            ))
        };
        let Stop::Closed(gate, Outcome::Waiting) = error(422) else {
            panic!("no gate");
        };
        assert_eq!(gate.reason, Reason::InvalidSpec);
        assert!(gate.message.contains("metadata.labels: Invalid value"));
        assert!(matches!(error(403), Stop::Closed(gate, _) if gate.reason == Reason::Forbidden));
        assert!(matches!(error(500), Stop::Failed(_)));
    }
}
