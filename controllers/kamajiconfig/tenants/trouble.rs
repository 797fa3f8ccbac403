//! What a failed request to a workload cluster means for a KamajiConfig. Pure.

use kamaji_api::conditions::Reason;

use crate::{
    k8s::{error::Class, problem::Problem},
    tenant,
};

impl From<tenant::Error> for Problem {
    /// A workload cluster is not watched, so it is asked again with backoff.
    fn from(error: tenant::Error) -> Self {
        if matches!(error, tenant::Error::TooLarge { .. }) {
            return Self::unwatched(Reason::ObjectTooLarge, error.to_string());
        }
        match error.code() {
            // Without the request that failed: the condition would change with each try.
            None => Self::unwatched(
                Reason::TenantUnreachable,
                "the API server of the workload cluster does not answer (asleep, starting, or not reachable from here)",
            ),
            Some(409) => Self::backoff(Class::Conflict, Reason::InternalError, error.to_string()),
            Some(401 | 403) => Self::unwatched(Reason::TenantRBACFailed, error.to_string()),
            Some(400..=428) => Self::unwatched(Reason::InternalError, error.to_string()),
            Some(_) => Self::unwatched(
                Reason::TenantUnreachable,
                format!("the API server of the workload cluster fails: {error}"),
            ),
        }
    }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;
    use crate::k8s::problem::Retry;

    fn refused(code: u16) -> tenant::Error {
        let status = kube::core::Status::failure("why", "").with_code(code);
        tenant::Error::of("get Node m", &kube::Error::Api(Box::new(status)))
    }

    fn silent() -> tenant::Error {
        tenant::Error::Unreachable {
            action: "get Node m".to_owned(),
            cause: "connection refused".to_owned(),
        }
    }

    #[rstest]
    #[case::silent(silent(), Reason::TenantUnreachable)]
    #[case::overloaded(refused(429), Reason::TenantUnreachable)]
    #[case::broken(refused(500), Reason::TenantUnreachable)]
    #[case::too_large(tenant::Error::TooLarge { action: "get Node m".to_owned() }, Reason::ObjectTooLarge)]
    #[case::permissions(refused(403), Reason::TenantRBACFailed)]
    #[case::refused(refused(422), Reason::InternalError)]
    fn bootstrap_09_trouble_with_a_tenant_is_a_wait_with_a_name(
        #[case] error: tenant::Error,
        #[case] reason: Reason,
    ) {
        let problem = Problem::from(error);
        assert_eq!((problem.reason, problem.retry), (reason, Retry::Unwatched));
    }

    #[test]
    fn a_conflict_is_started_over() {
        assert!(Problem::from(refused(409)).is_conflict());
    }
}
