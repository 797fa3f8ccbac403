//! Names of schemas and users in a datastore: generated once per tenant, never derived from a UID, and refused if they
//! would give access to data of somebody else. Pure: entropy is an argument.

/// Longest schema or user name.
pub const MAX_LEN: usize = 63;
/// Characters of the generated part: no vowels and no characters that look alike, so that it spells no words.
const ALPHABET: &[u8; 16] = b"bcdfghjkmnpqrtvw";
/// Length of the generated part.
const GENERATED: usize = 8;

/// Names that datastores, Kubernetes or we use: a tenant with such a name would have access to data of others.
const RESERVED: [&str; 9] = [
    // The prefix of ownership marks.
    "capi-kamaji",
    "root",
    "admin",
    "etcd",
    "registry",
    "kubernetes",
    "postgres",
    "mysql",
    "nats",
];
/// Prefixes that a name in a spec may not have. A generated name may, since it begins with the tenant's namespace.
const RESERVED_PREFIXES: [&str; 5] = ["capi-kamaji", "kamaji.clastix.io", "system", "pg_", "mysql."];

/// Why a name is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// It is used by somebody else.
    #[error("{field}: {name:?} is reserved; choose another name, or omit the field to have one generated")]
    Reserved {
        /// Path of the field, or what the name is for.
        field: String,
        /// The name.
        name: String,
    },
    /// Not every datastore accepts it: characters or length.
    #[error(
        "{field}: {name:?} is not usable; it must have 1 to {MAX_LEN} letters, digits, '-', '_' or '.', and begin \
         and end with a letter or digit"
    )]
    Malformed {
        /// Path of the field, or what the name is for.
        field: String,
        /// The name.
        name: String,
    },
}

/// Checks a schema or user name of a spec.
pub fn check(field: &str, name: &str) -> Result<(), Refusal> {
    check_usable(field, name)?;
    let lower = name.to_ascii_lowercase();
    if RESERVED_PREFIXES.iter().any(|prefix| lower.starts_with(prefix)) {
        return Err(Refusal::Reserved {
            field: field.to_owned(),
            name: name.to_owned(),
        });
    }
    Ok(())
}

/// Checks any schema or user name, generated ones too, before it is used in a datastore.
pub fn check_usable(field: &str, name: &str) -> Result<(), Refusal> {
    let edge = |byte: Option<&u8>| byte.is_some_and(u8::is_ascii_alphanumeric);
    let bytes = name.as_bytes();
    let plain = bytes
        .iter()
        .all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.'));
    if !plain || bytes.len() > MAX_LEN || !edge(bytes.first()) || !edge(bytes.last()) {
        return Err(Refusal::Malformed {
            field: field.to_owned(),
            name: name.to_owned(),
        });
    }
    if RESERVED.contains(&name.to_ascii_lowercase().as_str()) {
        return Err(Refusal::Reserved {
            field: field.to_owned(),
            name: name.to_owned(),
        });
    }
    Ok(())
}

/// Schema and user name of a new tenant: `<namespace>_<name>_<8 characters of entropy>`, 63 characters at most; the first
/// part is cut if it is too long.
pub fn generate(namespace: &str, name: &str, entropy: u64) -> String {
    let readable: String = format!("{namespace}_{name}")
        .chars()
        .take(MAX_LEN - GENERATED - 1)
        .collect();
    let mut text = readable;
    text.push('_');
    for position in 0..GENERATED {
        let index = usize::try_from(entropy >> (4 * position) & 0xf).unwrap_or_default();
        text.extend(ALPHABET.get(index).map(|byte| char::from(*byte)));
    }
    text
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn hosting_beyond_06_reserved_names_are_refused_by_field() {
        assert_eq!(
            check("spec.dataStoreUsername", "root").unwrap_err().to_string(),
            "spec.dataStoreUsername: \"root\" is reserved; choose another name, or omit the field to have one \
             generated"
        );
        for name in [
            "ROOT",
            "registry",
            "capi-kamaji",
            "capi-kamaji-owner",
            "system.x",
            "pg_toast",
        ] {
            assert!(
                matches!(check("f", name), Err(Refusal::Reserved { .. })),
                "{name}"
            );
        }
        for name in ["", "a/b", "a b", "-a", "a_", "ü", "..", &"a".repeat(64)] {
            assert!(
                matches!(check("f", name), Err(Refusal::Malformed { .. })),
                "{name}"
            );
        }
    }

    #[test]
    fn names_of_adopted_tenants_are_accepted() {
        for name in ["b8cf9b1e-7f2a-4f4b-9d5e-2d1a2d7e6f10", "rooted", "my_tenant", "a"] {
            check("f", name).unwrap();
        }
    }

    #[test]
    fn a_generated_name_is_readable() {
        assert_eq!(generate("demo", "alpha", 0), "demo_alpha_bbbbbbbb");
        assert_ne!(generate("demo", "alpha", 1), generate("demo", "alpha", 2));
    }

    #[test]
    fn a_tenant_may_be_in_a_namespace_with_a_reserved_prefix() {
        for namespace in ["system", "system-x", "capi-kamaji-control-plane-system", "root"] {
            check_usable("f", &generate(namespace, "alpha", 7)).unwrap();
        }
        // The prefix of ownership marks.
        assert!(check_usable("f", "capi-kamaji").is_err());
    }

    proptest! {
        #[test]
        fn a_generated_name_is_always_usable(namespace in "[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?", name in "[a-z]([a-z0-9-]{0,61}[a-z0-9])?", entropy: u64) {
            let generated = generate(&namespace, &name, entropy);
            prop_assert!(generated.len() <= MAX_LEN);
            check_usable("f", &generated).unwrap();
        }
    }
}
