//! Names that a node can have. Pure.

/// Whether a node can have this name: a DNS name, and none by which clients reach the API server or themselves.
pub fn can_be_node(name: &str) -> bool {
    let first = name.split('.').next().unwrap_or_default();
    is_dns_name(name) && first != "kubernetes" && name != "localhost"
}

/// A DNS subdomain (RFC 1123).
pub fn is_dns_name(text: &str) -> bool {
    let edge = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    let label = |label: &str| {
        let bytes = label.as_bytes();
        bytes.len() <= 63
            && bytes.first().is_some_and(|byte| edge(*byte))
            && bytes.last().is_some_and(|byte| edge(*byte))
            && bytes.iter().all(|byte| edge(*byte) || *byte == b'-')
    };
    text.len() <= 253 && text.split('.').all(label)
}
