//! The digest of a manifest: equal digests mean «nothing to apply».
//!
//! The digest is an annotation of the object, so that a restarted process knows without a request that what it would apply
//! is applied already.

use data_encoding::HEXLOWER;
use serde_json::Value;
use sha2::{Digest as _, Sha256};

/// Annotation that holds the digest of the manifest last applied to an object.
pub use kamaji_api::labels::ours::DIGEST as ANNOTATION;

/// 128 bits of SHA-256 over the canonical JSON of `body` as 32 hexadecimal digits. `serde_json` keeps maps sorted;
/// nulls are left out, so that an absent field and a null have the same digest.
pub fn of(body: &Value) -> String {
    let mut canonical = body.clone();
    prune(&mut canonical);
    HEXLOWER.encode(&Sha256::digest(canonical.to_string().as_bytes())[..16])
}

/// Removes nulls everywhere, so that an absent and a null field apply alike.
pub fn prune(value: &mut Value) {
    match value {
        Value::Object(map) => {
            map.values_mut().for_each(prune);
            map.retain(|_, v| !v.is_null());
        }
        Value::Array(items) => items.iter_mut().for_each(prune),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    #[test]
    fn key_order_and_nulls_do_not_change_the_digest() {
        let one = super::of(&json!({"a": 1, "b": {"c": null, "d": [1, 2]}}));
        let two = super::of(&json!({"b": {"d": [1, 2]}, "a": 1}));
        assert_eq!(one, two);
        assert_eq!(one.len(), 32);
        assert_ne!(one, super::of(&json!({"a": 1, "b": {"d": [2, 1]}})));
    }
}
