//! Who reads the management cluster: `observe*`, `certificates*` and the drivers of DataStores. Pure.

use super::source::Source;

/// Files that read elsewhere today. The list only becomes shorter.
pub const KNOWN: &[&str] = &[];

/// Calls that read when they are awaited; a map's `get` is not.
const READS: [&str; 6] = [
    "get",
    "get_opt",
    "get_metadata",
    "get_metadata_opt",
    "list",
    "list_metadata",
];
/// Where reading is: of DataStores, before a write, of the own Lease, and of
/// tenants' API servers.
const READERS: [&str; 4] = [
    "controllers/hosting/driver/",
    "controllers/k8s/",
    "controllers/runtime/",
    "controllers/tenant/",
];

/// Reads in other places: the file, and the line.
pub fn reads(source: &Source) -> Vec<(String, String)> {
    let path = source.path.as_str();
    let reader = ["observe", "certificates"].iter().any(|name| {
        let stem = source.stem();
        stem == *name || stem.starts_with(&format!("{name}_")) || path.contains(&format!("/{name}/"))
    });
    if !path.starts_with("controllers/") || reader || READERS.iter().any(|place| path.starts_with(place)) {
        return Vec::new();
    }
    let code = source.code.join("\n");
    let mut found = Vec::new();
    for word in READS {
        for (at, _) in code.match_indices(&format!(".{word}(")) {
            let rest = &code[at + word.len() + 1..];
            if rest[closing(rest)..].trim_start().starts_with(".await") {
                let number = code[..at].lines().count();
                let text =
                    format!("{path}:{number}: `.{word}(…).await`: observe reads the management cluster");
                found.push((path.to_owned(), text));
            }
        }
    }
    found
}

/// Where the parenthesis that `text` begins with ends.
fn closing(text: &str) -> usize {
    let mut depth = 0_usize;
    for (at, c) in text.char_indices() {
        match c {
            '(' => depth += 1,
            ')' if depth <= 1 => return at + 1,
            ')' => depth -= 1,
            _ => {}
        }
    }
    text.len()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn observe_reads_and_nothing_else() {
        let text =
            "//! X.\nasync fn f() {\n    map.get(&key(1));\n    api.get_opt(name(x))\n        .await;\n}\n";
        let found = |path: &str| reads(&Source::new(path, text));
        let one = found("controllers/kamajiconfig/reconcile.rs");
        assert_eq!(one.len(), 1, "{one:?}");
        assert!(
            one[0].1.starts_with("controllers/kamajiconfig/reconcile.rs:4: "),
            "{one:?}"
        );
        for path in [
            "controllers/kamajiconfig/observe.rs",
            "controllers/kamajiconfig/observe/secrets.rs",
            "controllers/hosting/tenantcontrolplane/certificates.rs",
            "controllers/hosting/driver/admin.rs",
            "controllers/tenant/nodes.rs",
            "e2e/etcd/mod.rs",
        ] {
            assert!(found(path).is_empty(), "{path}");
        }
    }
}
