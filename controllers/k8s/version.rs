//! Kubernetes versions as text. Pure.

use semver::Version;

/// Reads a semantic version, with or without a leading `v`.
pub fn parse(text: &str) -> Option<Version> {
    Version::parse(text.strip_prefix('v').unwrap_or(text)).ok()
}

/// How a control plane may go from one version to another: to any patch of the same minor version, or to the next minor
/// version. Source: <https://kubernetes.io/releases/version-skew-policy/>.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// The same minor version, or the next one.
    Allowed,
    /// A lower minor version.
    Downgrade,
    /// More than one minor version at once, or another major version.
    TooLarge,
}

/// The step from the running version to the desired one.
pub fn step(running: &Version, desired: &Version) -> Step {
    let (from, to) = ((running.major, running.minor), (desired.major, desired.minor));
    if to < from {
        Step::Downgrade
    } else if to.0 != from.0 || to.1 > from.1 + 1 {
        Step::TooLarge
    } else {
        Step::Allowed
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_version_is_read_with_or_without_v() {
        assert_eq!(parse("v1.36.3"), Some(Version::new(1, 36, 3)));
        assert_eq!(parse("1.36.3"), Some(Version::new(1, 36, 3)));
        for text in ["", "v", "1.36", "vv1.36.3", "latest", " 1.36.3"] {
            assert_eq!(parse(text), None, "{text:?}");
        }
    }

    #[test]
    fn a_control_plane_goes_up_one_minor_version_at_a_time() {
        let at = |minor| Version::new(1, minor, 0);
        for (from, to, expected) in [
            (at(36), Version::new(1, 36, 9), Step::Allowed),
            (Version::new(1, 36, 9), at(36), Step::Allowed),
            (at(35), at(36), Step::Allowed),
            (at(34), at(36), Step::TooLarge),
            (at(36), Version::new(2, 0, 0), Step::TooLarge),
            (at(36), at(35), Step::Downgrade),
        ] {
            assert_eq!(step(&from, &to), expected, "{from} to {to}");
        }
    }
}
