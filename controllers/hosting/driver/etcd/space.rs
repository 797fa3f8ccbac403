//! How full an etcd is. Pure.

use etcd_client::StatusResponse;

use super::super::Space;

/// What a member tells.
pub fn of(status: &StatusResponse) -> Space {
    let bytes = |count: i64| u64::try_from(count).unwrap_or_default();
    Space {
        used: bytes(status.db_size()),
        quota: bytes(status.db_size_quota()),
        full: is_full(status.errors()),
    }
}

/// An alarm is one of the errors that a member tells: `memberID:1 alarm:NOSPACE`, with a space at its end.
fn is_full(errors: &[String]) -> bool {
    errors
        .iter()
        .any(|error| error.split_whitespace().any(|word| word == "alarm:NOSPACE"))
}

/// The fullest member, which is the first that takes no writes. One before 3.6 does not tell its quota, and is the fullest
/// only if none does.
pub fn fullest(members: Vec<Space>) -> Space {
    let full = members.iter().any(|space| space.full);
    let left = |space: &Space| space.quota.saturating_sub(space.used);
    let has_quota = members.iter().any(|space| space.quota > 0);
    let known = members.into_iter().filter(|space| !has_quota || space.quota > 0);
    let fullest = known.min_by_key(left).unwrap_or_default();
    Space { full, ..fullest }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_alarm_is_found_among_the_errors_of_a_member() {
        let errors = |text: &str| [text.to_owned()];
        assert!(is_full(&errors("memberID:10276657743932975437 alarm:NOSPACE ")));
        assert!(!is_full(&errors("memberID:10276657743932975437 alarm:CORRUPT ")));
        assert!(!is_full(&errors("etcdserver: no leader")));
        assert!(!is_full(&[]));
    }

    #[test]
    fn the_fullest_member_counts_and_an_alarm_of_any() {
        let space = |used, full| Space {
            used,
            quota: 10,
            full,
        };
        assert_eq!(
            fullest(vec![space(1, true), space(9, false), space(5, false)]),
            space(9, true)
        );
        assert_eq!(fullest(Vec::new()), Space::default());
    }

    #[test]
    fn a_member_before_3_6_that_tells_no_quota_counts_only_among_its_like() {
        let space = |used, quota, full| Space { used, quota, full };
        let mixed = vec![space(9, 0, true), space(8, 10, false), space(5, 10, false)];
        assert_eq!(fullest(mixed), space(8, 10, true));
        assert_eq!(
            fullest(vec![space(5, 0, false), space(5, 0, false)]),
            space(5, 0, false)
        );
    }
}
