//! The oldest etcd of each minor line that keeps tenants apart and serves their watches. Pure.
//!
//! The permissions of etcd are all that separates the tenants of a DataStore. Older releases have published holes in
//! them: nested transactions that are not checked (CVE-2026-33343), maintenance requests without permission
//! (CVE-2026-33413), leases and previous values in transactions (CVE-2026-44283) and watches to the end of the key space
//! (CVE-2026-73499). 3.6.0 to 3.6.11 also refuse the status that an API server asks for, which breaks its watches.

use semver::Version;

/// The oldest of each line, ascending.
const FLOORS: [Version; 3] = [
    Version::new(3, 5, 33),
    Version::new(3, 6, 14),
    Version::new(3, 7, 1),
];

/// A version that does not keep tenants apart.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Below {
    /// The oldest version to take instead: of the same minor line, where that has one.
    pub take: Version,
}

/// Checks a version, as a server reports it or a spec names it. Lines after the newest one of the table are fine. What
/// cannot be read as a version is not.
///
/// # Errors
/// The version to take.
pub fn check(version: &str) -> Result<(), Below> {
    let [.., newest] = &FLOORS;
    let line = |version: &Version| (version.major, version.minor);
    let Ok(version) = Version::parse(version) else {
        return Err(Below { take: newest.clone() });
    };
    match FLOORS.iter().find(|floor| line(&version) <= line(floor)) {
        Some(floor) if version < *floor => Err(Below { take: floor.clone() }),
        Some(_) | None => Ok(()),
    }
}

/// The version to take instead of one that serves tenants badly: the oldest that is safe of its line, or of the newest
/// line where the version is not below it.
pub fn take(version: &str) -> Version {
    let [.., newest] = FLOORS;
    check(version).map_or_else(|below| below.take, |()| newest)
}

/// The lowest of the versions that the members of one etcd report. What cannot be read as a version is lower than all.
pub fn lowest(versions: Vec<String>) -> String {
    let number = |version: &String| Version::parse(version).ok();
    versions.into_iter().min_by_key(number).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_minor_line_has_an_oldest_version() {
        let table = [
            ("2.3.8", Some("3.5.33")),
            ("3.4.44", Some("3.5.33")),
            ("3.5.0", Some("3.5.33")),
            ("3.5.32", Some("3.5.33")),
            ("3.5.33", None),
            ("3.5.40", None),
            ("3.6.0", Some("3.6.14")),
            ("3.6.5", Some("3.6.14")),
            ("3.6.13", Some("3.6.14")),
            // A candidate is older than its release.
            ("3.6.14-rc.0", Some("3.6.14")),
            ("3.6.14", None),
            ("3.6.16", None),
            // A build of a vendor.
            ("3.6.14+vendor.1", None),
            ("3.7.0", Some("3.7.1")),
            ("3.7.1", None),
            ("3.8.0-alpha.0", None),
            ("3.8.0", None),
            ("4.0.0", None),
            ("", Some("3.7.1")),
            ("latest", Some("3.7.1")),
            ("3.6", Some("3.7.1")),
        ];
        let lowest_of = |versions: &[&str]| lowest(versions.iter().map(ToString::to_string).collect());
        assert_eq!(lowest_of(&["3.6.16", "3.6.9", "3.6.14"]), "3.6.9");
        assert_eq!(lowest_of(&["3.6.16", "not known"]), "not known");
        for (version, take) in table {
            let found = check(version).err().map(|below| below.take.to_string());
            assert_eq!(found.as_deref(), take, "{version:?}");
        }
    }
}
