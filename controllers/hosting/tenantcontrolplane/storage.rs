//! A tenant's place in its datastore: which DataStore, which schema and user, and making the place there.
//!
//! Schema and user are drawn once and recorded on the TenantControlPlane before anything is done in the datastore
//! (DESIGN 7). What was set up is recorded by a digest in `status.storage.setup`, so that a quiet tenant costs the
//! datastore nothing.

use std::sync::Arc;

use k8s_openapi::jiff::Timestamp;
use kamaji_api::conditions::Reason;
use kamaji_api::datastore::DataStore;
use kamaji_api::labels::ours;
use kamaji_api::tenantcontrolplane::TenantControlPlane;
use kube::ResourceExt;
use serde_json::json;

use super::problem::Problem;
use crate::args::DefaultDatastore;
use crate::hosting::datastore::driver::{self, Access, Deleted, Owner, Place};
use crate::hosting::datastore::{self, desired, names, validate};
use crate::hosting::engine::Engine;
use crate::k8s::{digest, key::RootKey};

/// Names of a tenant in its datastore.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Names {
    /// Schema: prefix and role.
    pub schema: String,
    /// User.
    pub user: String,
    /// They come from a Kamaji that kept them in status alone: what exists without a mark is taken over.
    pub adopted: bool,
}

/// The names in force: of status, of the annotations, of the spec, else drawn from `entropy`.
pub fn names_of(tenant: &TenantControlPlane, entropy: u64) -> Names {
    let annotation = |key: &str| tenant.annotations().get(key).cloned();
    let recorded = (annotation(ours::SCHEMA), annotation(ours::USER));
    if let (Some(schema), Some(user)) = recorded {
        return Names {
            schema,
            user,
            adopted: false,
        };
    }
    if let Some(setup) = tenant
        .status
        .as_ref()
        .and_then(|s| s.storage.as_ref()?.setup.as_ref())
        && let (Some(schema), Some(user)) = (&setup.schema, &setup.user)
    {
        return Names {
            schema: schema.clone(),
            user: user.clone(),
            adopted: true,
        };
    }
    let asked = |text: &Option<String>| text.clone().filter(|text| !text.is_empty());
    let drawn = || {
        names::draw(
            &tenant.namespace().unwrap_or_default(),
            &tenant.name_any(),
            entropy,
        )
    };
    let schema = asked(&tenant.spec.data_store_schema).unwrap_or_else(drawn);
    let user = asked(&tenant.spec.data_store_username).unwrap_or_else(|| schema.clone());
    Names {
        schema,
        user,
        adopted: false,
    }
}

/// The names were recorded once, so something may exist under them.
pub fn is_recorded(tenant: &TenantControlPlane) -> bool {
    tenant.annotations().contains_key(ours::SCHEMA)
        || tenant
            .status
            .as_ref()
            .and_then(|s| s.storage.as_ref()?.setup.as_ref()?.schema.as_ref())
            .is_some()
}

/// What the spec says now must be what holds the data.
pub fn check_names(tenant: &TenantControlPlane, names: &Names) -> Result<(), Problem> {
    for (field, asked, held) in [
        (
            "spec.dataStoreSchema",
            &tenant.spec.data_store_schema,
            &names.schema,
        ),
        (
            "spec.dataStoreUsername",
            &tenant.spec.data_store_username,
            &names.user,
        ),
    ] {
        if let Some(asked) = asked.as_ref().filter(|asked| !asked.is_empty() && *asked != held) {
            return Err(Problem::wait(
                Reason::InvalidSpec,
                format!("{field}: {asked:?} cannot replace {held:?}, which holds the data; set it back"),
            ));
        }
    }
    Ok(())
}

/// Name of the DataStore: of the spec, of status, else the default.
pub fn choose(tenant: &TenantControlPlane, default: &DefaultDatastore) -> Result<String, Problem> {
    let used = used(tenant);
    let asked = tenant.spec.data_store.clone().filter(|name| !name.is_empty());
    match (asked, used) {
        (Some(asked), Some(used)) if asked != used => Err(Problem::wait(
            Reason::MigrationNotSupported,
            format!(
                "spec.dataStore: the data is in DataStore {used}; moving it to {asked} is not supported yet; set it \
                 back to {used}"
            ),
        )),
        (Some(name), _) | (None, Some(name)) => Ok(name),
        (None, None) => default.name().map(str::to_owned).ok_or_else(|| {
            Problem::wait(
                Reason::DataStoreNotSelected,
                "spec.dataStore: required, since there is no default; name a DataStore or run with --default-datastore",
            )
        }),
    }
}

/// Name of the DataStore that holds the data.
pub fn used(tenant: &TenantControlPlane) -> Option<String> {
    let storage = tenant.status.as_ref()?.storage.as_ref()?;
    storage.data_store_name.clone().filter(|name| !name.is_empty())
}

/// The DataStore of this name, fit for a new tenant.
pub fn find(engine: &Engine, name: &str) -> Result<Arc<DataStore>, Problem> {
    engine.stores.get(&RootKey::new("", name)).ok_or_else(|| {
        Problem::wait(
            Reason::DataStoreNotFound,
            format!("DataStore {name} does not exist; create it, or name another in spec.dataStore"),
        )
    })
}

/// Endpoints of a DataStore.
pub fn endpoints(store: &DataStore) -> Result<Vec<String>, Problem> {
    Ok(match validate::validate(store)? {
        validate::Valid::External(external) => external.endpoints,
        validate::Valid::Managed(managed) => desired::endpoints(&managed),
    })
}

/// Digest of what a set-up was made for: it is made again when this changes.
pub fn setup_digest(store: &DataStore, names: &Names) -> String {
    digest::of(&json!({
        "store": store.metadata.uid,
        "generation": store.metadata.generation,
        "schema": names.schema,
        "user": names.user,
    }))
}

/// The digest of the set-up that was done.
pub fn recorded_setup(tenant: &TenantControlPlane) -> Option<&str> {
    let storage = tenant.status.as_ref()?.storage.as_ref()?;
    storage.setup.as_ref()?.checksum.as_deref()
}

/// Makes the tenant's place.
pub async fn set_up(
    engine: &Engine,
    tenant: &TenantControlPlane,
    store: &DataStore,
    names: &Names,
    now: Timestamp,
) -> Result<Arc<Access>, Problem> {
    let access = datastore::access(engine, store).await?;
    match access
        .admin
        .ensure_tenant(&place(engine, tenant, names), now)
        .await
    {
        Ok(()) => Ok(access),
        Err(error) => Err(failed(engine, store, error)),
    }
}

/// Removes the tenant's place and everything in it.
pub async fn tear_down(
    engine: &Engine,
    tenant: &TenantControlPlane,
    store: &DataStore,
    names: &Names,
) -> Result<Deleted, Problem> {
    let access = datastore::access(engine, store).await?;
    match access.admin.delete_tenant(&place(engine, tenant, names)).await {
        Ok(deleted) => Ok(deleted),
        Err(error) => Err(failed(engine, store, error)),
    }
}

fn failed(engine: &Engine, store: &DataStore, error: driver::Error) -> Problem {
    if matches!(error, driver::Error::Unreachable { .. }) {
        datastore::doubt(engine, &store.name_any());
    }
    error.into()
}

fn place(engine: &Engine, tenant: &TenantControlPlane, names: &Names) -> Place {
    Place {
        schema: names.schema.clone(),
        user: names.user.clone(),
        owner: Owner {
            cluster: engine.cluster_id.clone(),
            namespace: tenant.namespace().unwrap_or_default(),
            name: tenant.name_any(),
        },
        adopt: names.adopted,
    }
}

#[cfg(test)]
mod tests {
    use kamaji_api::tenantcontrolplane::{StorageSetupStatus, StorageStatus, TenantControlPlaneStatus};

    use super::*;
    use crate::hosting::render::example;

    fn set_up(tenant: &mut TenantControlPlane, store: &str) {
        tenant.status = Some(TenantControlPlaneStatus {
            storage: Some(StorageStatus {
                data_store_name: Some(store.to_owned()),
                setup: Some(StorageSetupStatus {
                    schema: Some("old".to_owned()),
                    user: Some("older".to_owned()),
                    ..StorageSetupStatus::default()
                }),
                ..StorageStatus::default()
            }),
            ..TenantControlPlaneStatus::default()
        });
    }

    #[test]
    fn names_are_drawn_once_and_then_read() {
        let mut tenant = example::tenant();
        let drawn = names_of(&tenant, 7);
        assert!(drawn.schema.starts_with("demo_alpha_") && drawn.user == drawn.schema && !drawn.adopted);
        for (key, value) in [(ours::SCHEMA, &drawn.schema), (ours::USER, &drawn.user)] {
            tenant.annotations_mut().insert(key.to_owned(), value.clone());
        }
        assert_eq!(names_of(&tenant, 8), drawn);
    }

    #[test]
    fn a_tenant_of_kamaji_keeps_its_names_and_may_take_over_what_is_unmarked() {
        let mut tenant = example::tenant();
        set_up(&mut tenant, "default");
        let names = names_of(&tenant, 7);
        assert_eq!(
            (names.schema.as_str(), names.user.as_str(), names.adopted),
            ("old", "older", true)
        );
        tenant.spec.data_store_schema = Some("other".to_owned());
        let refused = check_names(&tenant, &names).unwrap_err();
        assert!(
            refused.message.contains("spec.dataStoreSchema"),
            "{}",
            refused.message
        );
    }

    #[test]
    fn the_choice_of_a_datastore_and_its_refusals() {
        let mut tenant = example::tenant();
        let none = DefaultDatastore::None;
        assert_eq!(choose(&tenant, &none).unwrap(), "default");
        set_up(&mut tenant, "bronze");
        assert_eq!(
            choose(&tenant, &none).unwrap_err().reason,
            Reason::MigrationNotSupported
        );
        tenant.spec.data_store = None;
        assert_eq!(choose(&tenant, &none).unwrap(), "bronze");
        tenant.status = None;
        assert_eq!(
            choose(&tenant, &none).unwrap_err().reason,
            Reason::DataStoreNotSelected
        );
        assert_eq!(choose(&tenant, &DefaultDatastore::Managed).unwrap(), "default");
    }
}
