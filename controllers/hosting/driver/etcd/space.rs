//! How full an etcd is. Pure.

use etcd_client::StatusResponse;

use super::super::Space;

/// What a member tells.
pub fn of(status: &StatusResponse) -> Space {
    let bytes = |count: i64| u64::try_from(count).unwrap_or_default();
    Space {
        used: bytes(status.db_size()),
        quota: bytes(status.db_size_quota()),
        full: status
            .errors()
            .iter()
            .any(|error| error.ends_with("alarm:NOSPACE")),
    }
}

/// The fullest member, which is the first that takes no writes.
pub fn fullest(members: Vec<Space>) -> Space {
    let full = members.iter().any(|space| space.full);
    let left = |space: &Space| space.quota.saturating_sub(space.used);
    let fullest = members.into_iter().min_by_key(left).unwrap_or_default();
    Space { full, ..fullest }
}

#[cfg(test)]
mod tests {
    use super::*;

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
}
