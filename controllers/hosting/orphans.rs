//! Objects of tenants that have lost their owner, as after a restore from a backup: a tenant adopts them again, or deletes
//! them with itself. Pure.

use kamaji_api::labels::{field_manager, kamaji, ours};

use crate::k8s::{key::RootKey, row::Row};

/// The tenant of an object that the engine made for it, and that nobody owns.
pub fn tenant_of(row: &Row) -> Option<RootKey> {
    let made = row.labels.get(ours::MANAGED_BY).map(String::as_str) == Some(field_manager::HOSTING);
    let name = row.labels.get(kamaji::NAME)?;
    let named = row.key.name.strip_prefix(name.as_str());
    let named = named.is_some_and(|rest| rest.is_empty() || rest.starts_with('-'));
    (row.owner.is_none() && made && named).then(|| RootKey::new(row.key.namespace.clone(), name))
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::core::v1::Secret;
    use serde_json::{Value, json};

    use super::*;

    #[test]
    fn only_an_unowned_object_of_the_engine_and_of_that_name_is_one() {
        let of = |name: &str, owners: Value, by: &str| {
            let labels = json!({ kamaji::NAME: "alpha", ours::MANAGED_BY: by });
            let meta =
                json!({ "name": name, "namespace": "demo", "labels": labels, "ownerReferences": owners });
            tenant_of(&Row::of::<Secret>(&serde_json::from_value(meta).unwrap()))
        };
        let owner = json!([{ "apiVersion": "v1", "kind": "X", "name": "x", "uid": "1", "controller": true }]);
        let alpha = Some(RootKey::new("demo", "alpha"));
        assert_eq!(of("alpha", json!([]), field_manager::HOSTING), alpha);
        assert_eq!(of("alpha-ca", Value::Null, field_manager::HOSTING), alpha);
        assert_eq!(of("alpha-ca", owner, field_manager::HOSTING), None);
        assert_eq!(of("alpha-ca", Value::Null, "a-user"), None);
        // A copy that a user made with all its labels.
        assert_eq!(of("copy-of-alpha-ca", Value::Null, field_manager::HOSTING), None);
        assert_eq!(of("alphabet", Value::Null, field_manager::HOSTING), None);
    }
}
