//! Names that a node can have. Pure.

use regex::{Regex, RegexBuilder};

use crate::k8s::names::is_dns_name;

/// Longest name of a node. The kubelet sets it as the value of the label `kubernetes.io/hostname` too, which is shorter than
/// a name may be.
const LONGEST: usize = 63;

/// Why no node can have this name: it is no DNS name, one by which clients reach the API server or themselves, or too long.
pub fn unfit_for_node(name: &str) -> Option<&'static str> {
    let first = name.split('.').next().unwrap_or_default();
    if !is_dns_name(name) || first == "kubernetes" || name == "localhost" {
        Some("no node can have that name")
    } else if name.len() > LONGEST {
        Some("the name of a node has at most 63 characters, since it is a label of the Node too")
    } else {
        None
    }
}

/// Memory for a compiled pattern, in bytes. A name has at most 63 characters, so what needs more is a mistake or an attack.
const PATTERN_SIZE: usize = 256 * 1024;

/// Names that `csrApproval.nodeNamePattern` accepts.
pub struct NamePattern(Regex);

impl NamePattern {
    /// Compiles a pattern. It has to match a whole name.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn parse(pattern: &str) -> Result<Self, String> {
        let compile = |text: &str| RegexBuilder::new(text).size_limit(PATTERN_SIZE).build();
        // By itself first: `a)|(b` would only become valid between the parentheses.
        compile(pattern)
            .and_then(|_| compile(&format!("^(?:{pattern})$")))
            .map(Self)
            .map_err(|error| match error {
                regex::Error::CompiledTooBig(_) => {
                    "is too large: use fewer or smaller repetitions".to_owned()
                }
                _ => "is not a regular expression in RE2 syntax".to_owned(),
            })
    }

    /// Whether it accepts the name.
    pub fn fits(&self, name: &str) -> bool {
        self.0.is_match(name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pattern_matches_the_whole_name() {
        let pattern = NamePattern::parse("pool-a-[a-z0-9]{5}|edge-[0-9]+").unwrap();
        for name in ["pool-a-x7k2p", "edge-12"] {
            assert!(pattern.fits(name), "{name}");
        }
        for name in [
            "pool-a-x7k2",
            "xpool-a-x7k2p",
            "edge-1x",
            "edge-1.example.com",
            "",
        ] {
            assert!(!pattern.fits(name), "{name}");
        }
    }

    #[test]
    fn what_is_no_pattern_or_takes_too_much_memory_is_refused() {
        for pattern in ["(", "a)|(b", "[z-a]", "(?=a)", "(?x)a#"] {
            assert!(NamePattern::parse(pattern).is_err(), "{pattern}");
        }
        let large = NamePattern::parse("(([a-z]{60}){60}){60}").err().unwrap();
        assert!(large.contains("too large"), "{large}");
    }
}
