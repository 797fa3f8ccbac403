//! Which tenants use which DataStore. Pure.

use std::collections::BTreeSet;

use kamaji_api::tenantcontrolplane::TenantControlPlane;

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

/// The user of a tenant in this DataStore, once it was created there.
pub fn user_in(tenant: &TenantControlPlane, store: &str) -> Option<String> {
    let storage = tenant.status.as_ref()?.storage.as_ref()?;
    let setup = storage.setup.as_ref()?;
    setup
        .user
        .clone()
        .filter(|user| !user.is_empty() && storage.data_store_name.as_deref() == Some(store))
}

/// Whether schema and user of a tenant were created in this DataStore.
pub fn is_set_up(tenant: &TenantControlPlane, store: &str) -> bool {
    let storage = tenant.status.as_ref().and_then(|status| status.storage.as_ref());
    storage
        .is_some_and(|storage| storage.data_store_name.as_deref() == Some(store) && storage.setup.is_some())
}

#[cfg(test)]
mod tests {
    use kamaji_api::tenantcontrolplane::TenantControlPlaneSpec;

    use super::*;

    #[test]
    fn a_tenant_without_a_datastore_uses_the_default() {
        let stores = |named: Option<&str>, default: Option<&str>| {
            let mut tenant = TenantControlPlane::new("a", TenantControlPlaneSpec::default());
            tenant.spec.data_store = named.map(str::to_owned);
            Vec::from_iter(stores_of(&tenant, default))
        };
        assert_eq!(stores(None, Some("default")), ["default"]);
        assert_eq!(stores(Some("other"), Some("default")), ["other"]);
        assert!(stores(None, None).is_empty());
    }
}
