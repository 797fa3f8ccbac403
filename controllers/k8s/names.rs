//! Names by the rules of Kubernetes. Pure.
//! Source: <https://kubernetes.io/docs/concepts/overview/working-with-objects/names/>.

/// Longest DNS name.
const NAME: usize = 253;
/// Longest part of a DNS name.
const LABEL: usize = 63;

/// Whether `text` is an RFC 1123 subdomain: parts of 1 to 63 lower-case letters, digits and `-`, joined by `.`, that
/// begin and end with a letter or digit; 253 characters at most.
pub fn is_dns_name(text: &str) -> bool {
    let edge = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    let label = |label: &str| {
        let bytes = label.as_bytes();
        bytes.len() <= LABEL
            && bytes.first().is_some_and(|byte| edge(*byte))
            && bytes.last().is_some_and(|byte| edge(*byte))
            && bytes.iter().all(|byte| edge(*byte) || *byte == b'-')
    };
    text.len() <= NAME && text.split('.').all(label)
}

/// Whether `text` is a DNS name in letters of either case.
pub fn is_dns_name_of_any_case(text: &str) -> bool {
    is_dns_name(&text.to_ascii_lowercase())
}

/// Whether `text` can name a Service (RFC 1035 label): lower-case letters, digits and `-`, begins with a letter and ends
/// with a letter or digit.
pub fn is_service_name(text: &str) -> bool {
    text.len() <= LABEL
        && text.starts_with(|first: char| first.is_ascii_lowercase())
        && !text.contains('.')
        && is_dns_name(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dns_names() {
        for name in ["a", "1", "a-b.c1.example.org", &"a".repeat(63)] {
            assert!(is_dns_name(name) && is_dns_name_of_any_case(name), "{name}");
        }
        for name in [
            "",
            ".",
            "a.",
            "-a",
            "a-",
            "a_b",
            "ü",
            &"a".repeat(64),
            &"a.".repeat(127),
        ] {
            assert!(!is_dns_name(name) && !is_dns_name_of_any_case(name), "{name}");
        }
        assert!(!is_dns_name("A.example.org") && is_dns_name_of_any_case("A.example.org"));
    }

    #[test]
    fn names_of_services_begin_with_a_letter() {
        for name in ["a", "a-1"] {
            assert!(is_service_name(name), "{name}");
        }
        for name in ["", "1a", "a-", "a.b", "A", &"a".repeat(64)] {
            assert!(!is_service_name(name), "{name}");
        }
    }
}
