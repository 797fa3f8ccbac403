//! What a failed request to a workload cluster means for a KamajiConfig. Pure.

use kamaji_api::conditions::Reason;

use crate::{
    k8s::{error::Class, problem::Problem},
    tenant::nodes::Trouble,
};

impl From<Trouble> for Problem {
    /// A workload cluster is not watched, so it is asked again with backoff.
    fn from(trouble: Trouble) -> Self {
        match trouble.code() {
            // Without the request that failed: the condition would change with each try.
            None => Self::unwatched(
                Reason::TenantUnreachable,
                "the API server of the workload cluster does not answer (asleep, starting, or not reachable from here)",
            ),
            Some(409) => Self::backoff(Class::Conflict, Reason::InternalError, trouble.to_string()),
            Some(401 | 403) => Self::unwatched(Reason::TenantRBACFailed, trouble.to_string()),
            Some(400..=428) => Self::unwatched(Reason::InternalError, trouble.to_string()),
            Some(_) => Self::unwatched(
                Reason::TenantUnreachable,
                format!("the API server of the workload cluster fails: {trouble}"),
            ),
        }
    }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;
    use crate::k8s::problem::Retry;

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
    #[case::permissions(refused(403), Reason::TenantRBACFailed)]
    #[case::refused(refused(422), Reason::InternalError)]
    fn bootstrap_09_trouble_with_a_tenant_is_a_wait_with_a_name(
        #[case] trouble: Trouble,
        #[case] reason: Reason,
    ) {
        let problem = Problem::from(trouble);
        assert_eq!((problem.reason, problem.retry), (reason, Retry::Unwatched));
    }

    #[test]
    fn a_conflict_is_started_over() {
        assert!(Problem::from(refused(409)).is_conflict());
    }
}
