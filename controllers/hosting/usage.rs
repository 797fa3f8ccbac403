//! Which tenants use which DataStore. Pure.

use std::collections::BTreeSet;

use kamaji_api::tenantcontrolplane::TenantControlPlane;

use crate::k8s::key::RootKey;

/// Names of the DataStores that a tenant uses or will use: the one of its status, the one of its spec or the default, and
/// those of its overrides.
pub fn stores_of(tenant: &TenantControlPlane, default: Option<&str>) -> BTreeSet<String> {
    let named = |name: &Option<String>| name.clone().filter(|name| !name.is_empty());
    let used = tenant
        .status
        .as_ref()
        .and_then(|status| named(&status.storage.as_ref()?.data_store_name));
    let desired = named(&tenant.spec.data_store);
    let fallback = (desired.is_none() && used.is_none())
        .then(|| default.map(str::to_owned))
        .flatten();
    let overrides = tenant.spec.data_store_overrides.iter();
    used.into_iter()
        .chain(desired)
        .chain(fallback)
        .chain(
            overrides
                .map(|one| one.data_store.clone())
                .filter(|name| !name.is_empty()),
        )
        .collect()
}

/// Whether schema and user of a tenant were created in this DataStore.
pub fn is_set_up(tenant: &TenantControlPlane, store: &str) -> bool {
    let storage = tenant.status.as_ref().and_then(|status| status.storage.as_ref());
    storage
        .is_some_and(|storage| storage.data_store_name.as_deref() == Some(store) && storage.setup.is_some())
}

/// `namespace/name` of the tenants of a DataStore, sorted.
pub fn users_of<'a>(
    store: &str,
    tenants: impl Iterator<Item = &'a TenantControlPlane>,
    default: Option<&str>,
) -> Vec<String> {
    let mut users: Vec<String> = tenants
        .filter(|tenant| stores_of(tenant, default).contains(store))
        .map(|tenant| RootKey::of(tenant).to_string())
        .collect();
    users.sort_unstable();
    users
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tenant(name: &str, spec: Option<&str>) -> TenantControlPlane {
        let mut tenant = TenantControlPlane::new(
            name,
            kamaji_api::tenantcontrolplane::TenantControlPlaneSpec::default(),
        );
        tenant.metadata.namespace = Some("demo".to_owned());
        tenant.spec.data_store = spec.map(str::to_owned);
        tenant
    }

    #[test]
    fn a_tenant_without_a_datastore_uses_the_default() {
        let tenants = [tenant("b", None), tenant("a", None), tenant("c", Some("other"))];
        assert_eq!(
            users_of("default", tenants.iter(), Some("default")),
            ["demo/a", "demo/b"]
        );
        assert_eq!(users_of("other", tenants.iter(), Some("default")), ["demo/c"]);
        assert!(users_of("default", tenants.iter(), None).is_empty());
    }
}
