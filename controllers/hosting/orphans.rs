//! Objects of tenants that have lost their owner, as after a restore from a backup: a tenant adopts them again, or deletes
//! them with itself. Pure.

use k8s_openapi::api::core::v1::{PersistentVolumeClaim, Pod, Secret};
use kamaji_api::labels::{field_manager, kamaji, ours};

use crate::k8s::{key::RootKey, row::Row};

/// How the names of Secrets end that the engine makes for each tenant, after the name of the tenant.
const SECRETS: [&str; 12] = [
    "-admin-kubeconfig",
    "-api-server-certificate",
    "-api-server-kubelet-client-certificate",
    "-bootstrap-kubeconfig",
    "-ca",
    "-controller-manager-kubeconfig",
    "-datastore-certificate",
    "-datastore-config",
    "-front-proxy-ca-certificate",
    "-front-proxy-client-certificate",
    "-sa-certificate",
    "-scheduler-kubeconfig",
];

/// The tenant of an object that the engine made for it, and that nobody owns. Labels alone do not say that: a copy that a
/// user made has them too, as has a copy of a pod.
pub fn tenant_of(row: &Row) -> Option<RootKey> {
    let made = row.labels.get(ours::MANAGED_BY).map(String::as_str) == Some(field_manager::HOSTING);
    let name = row.labels.get(kamaji::NAME)?;
    let ending = row.key.name.strip_prefix(name.as_str())?;
    let known = if row.is::<Secret>() {
        SECRETS.contains(&ending) || is_ca_copy(ending)
    } else {
        ending.is_empty() && !row.is::<Pod>() && !row.is::<PersistentVolumeClaim>()
    };
    (row.owner.is_none() && made && known).then(|| RootKey::new(row.key.namespace.clone(), name))
}

/// The copy of a CA that a user provides ends with the first digits of its digest.
fn is_ca_copy(ending: &str) -> bool {
    let digits = ending.strip_prefix("-ca-");
    digits.is_some_and(|digits| digits.len() == 8 && digits.chars().all(|c| c.is_ascii_hexdigit()))
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::core::v1::Service;
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
        assert_eq!(of("alpha-ca", json!([]), field_manager::HOSTING), alpha);
        assert_eq!(
            of("alpha-ca-0123abcd", Value::Null, field_manager::HOSTING),
            alpha
        );
        assert_eq!(of("alpha-ca", owner, field_manager::HOSTING), None);
        assert_eq!(of("alpha-ca", Value::Null, "a-user"), None);
        // Copies that a user made with all their labels.
        for copy in ["copy-of-alpha-ca", "alpha-ca-backup", "alpha", "alphabet"] {
            assert_eq!(of(copy, Value::Null, field_manager::HOSTING), None, "{copy}");
        }
        let labels = json!({ kamaji::NAME: "alpha", ours::MANAGED_BY: field_manager::HOSTING });
        let meta = |name: &str| {
            serde_json::from_value(json!({ "name": name, "namespace": "demo", "labels": labels })).unwrap()
        };
        assert_eq!(tenant_of(&Row::of::<Service>(&meta("alpha"))), alpha);
        assert_eq!(tenant_of(&Row::of::<Service>(&meta("alpha-2"))), None);
        assert_eq!(
            tenant_of(&Row::of::<Pod>(&meta("alpha"))),
            None,
            "as kubectl debug makes it"
        );
    }
}
