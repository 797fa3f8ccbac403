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

use super::observed::Placed;
use super::problem::Problem;
use crate::hosting::datastore::driver::{self, Access, Deleted, Owner, TenantSchema};
use crate::hosting::datastore::{self, names, parts, validate};
use crate::hosting::engine::Engine;
use crate::k8s::{digest, key::RootKey};
use crate::settings::DefaultDatastore;

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

/// The names in force: of status, which tells what holds the data; else of the annotations, of the spec, or drawn from
/// `entropy`.
pub fn names_of(tenant: &TenantControlPlane, entropy: u64) -> Names {
    let noted = |key: &str| asked(tenant.annotations().get(key));
    let (schema, user) = (noted(ours::SCHEMA), noted(ours::USER));
    if let Some((held_schema, held_user)) = held(tenant) {
        return Names {
            schema: held_schema.to_owned(),
            user: held_user.to_owned(),
            adopted: schema.is_none() && user.is_none(),
        };
    }
    let drawn = || {
        names::draw(
            &tenant.namespace().unwrap_or_default(),
            &tenant.name_any(),
            entropy,
        )
    };
    let schema = schema
        .or_else(|| asked(tenant.spec.data_store_schema.as_ref()))
        .map_or_else(drawn, str::to_owned);
    let user = user
        .or_else(|| asked(tenant.spec.data_store_username.as_ref()))
        .map_or_else(|| schema.clone(), str::to_owned);
    Names {
        schema,
        user,
        adopted: false,
    }
}

fn asked(text: Option<&String>) -> Option<&str> {
    text.map(String::as_str).filter(|text| !text.is_empty())
}

/// Schema and user that were set up.
fn held(tenant: &TenantControlPlane) -> Option<(&str, &str)> {
    let setup = tenant.status.as_ref()?.storage.as_ref()?.setup.as_ref()?;
    Some((asked(setup.schema.as_ref())?, asked(setup.user.as_ref())?))
}

/// The place was made, so there is one.
pub fn is_set_up(tenant: &TenantControlPlane) -> bool {
    held(tenant).is_some()
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

/// What spec and annotations say now must be what holds the data. Anybody who may edit a tenant may edit both, and
/// another name would be another cluster's data, or none.
pub fn check_names(tenant: &TenantControlPlane, names: &Names) -> Result<(), Problem> {
    let spec = &tenant.spec;
    let note = |key: &str| asked(tenant.annotations().get(key));
    let is_set_up = held(tenant).is_some();
    for (key, field, asked_for, held) in [
        (
            ours::SCHEMA,
            "spec.dataStoreSchema",
            asked(spec.data_store_schema.as_ref()),
            &names.schema,
        ),
        (
            ours::USER,
            "spec.dataStoreUsername",
            asked(spec.data_store_username.as_ref()),
            &names.user,
        ),
    ] {
        let refuse = |message: String| Err(Problem::wait(Reason::InvalidSpec, message));
        if let Some(noted) = note(key).filter(|noted| noted != held) {
            return refuse(format!(
                "annotation {key}: {noted:?} cannot replace {held:?}, which holds the data; set it back to {held:?}"
            ));
        }
        let Some(asked_for) = asked_for.filter(|asked_for| asked_for != held) else {
            continue;
        };
        return refuse(if is_set_up {
            format!("{field}: {asked_for:?} cannot replace {held:?}, which holds the data; set it back")
        } else {
            format!(
                "{field} says {asked_for:?} and annotation {key} {held:?}: remove the one that is not meant (the \
                 annotation, if the object was copied from another)"
            )
        });
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
fn endpoints(store: &DataStore) -> Result<Vec<String>, Problem> {
    Ok(match validate::validate(store)? {
        validate::Valid::External(external) => external.endpoints,
        validate::Valid::Managed(managed) => parts::endpoints(&managed),
    })
}

/// Digest of what a set-up was made for: it is made again when this changes. The DataStore's generation is none of it:
/// it grows with its deletion, which waits for the tenants, and with the resources of a managed one.
fn setup_digest(store: &DataStore, names: &Names) -> String {
    digest::of(&json!({
        "store": store.metadata.uid,
        "endpoints": store.spec.endpoints,
        "tls": store.spec.tls_config,
        "schema": names.schema,
        "user": names.user,
    }))
}

/// Where a tenant with these names is on this DataStore, not connected.
pub fn placed(store: &DataStore, names: &Names) -> Result<Placed, Problem> {
    Ok(Placed {
        store: store.name_any(),
        names: names.clone(),
        endpoints: endpoints(store)?,
        digest: setup_digest(store, names),
        access: None,
    })
}

/// The set-up that was done is the one for this place.
pub fn is_made(tenant: &TenantControlPlane, placed: &Placed) -> bool {
    recorded_setup(tenant) == Some(placed.digest.as_str())
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
        Err(error) => Err(failed(engine, tenant, store, error)),
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
        Err(error) => Err(failed(engine, tenant, store, error)),
    }
}

fn failed(engine: &Engine, tenant: &TenantControlPlane, store: &DataStore, error: driver::Error) -> Problem {
    if matches!(error, driver::Error::Unreachable { .. }) {
        datastore::invalidate(engine, &store.name_any());
    }
    told(tenant, &store.name_any(), error)
}

/// What a name that cannot be had was taken from, and how to come to another one.
fn told(tenant: &TenantControlPlane, store: &str, error: driver::Error) -> Problem {
    use driver::Error;
    let (key, field, asked_for, name) = match &error {
        Error::ForeignSchema { schema, .. } => (
            ours::SCHEMA,
            "spec.dataStoreSchema",
            &tenant.spec.data_store_schema,
            schema,
        ),
        Error::ForeignUser { user, .. } => (
            ours::USER,
            "spec.dataStoreUsername",
            &tenant.spec.data_store_username,
            user,
        ),
        Error::DataMissing { .. } => {
            let message = format!(
                "status.storage.setup: {error}, where the data of this cluster should be; let spec.endpoints of DataStore \
                 {store} lead to the datastore that holds it, or restore its backup there"
            );
            return Problem::retry(error.class(), error.reason(), message);
        }
        Error::Name(refusal) => {
            let message = format!(
                "{refusal}; the name comes from the annotations {} and {}: remove them, or set them back",
                ours::SCHEMA,
                ours::USER
            );
            return Problem::wait(error.reason(), message);
        }
        _ => return error.into(),
    };
    let message = if held(tenant).is_some() {
        format!(
            "status.storage.setup: {error}, though this cluster's data stands under it; whichever of the two is a \
             copy has to go, deleted with annotation {} so that the data stays",
            ours::ABANDON_DATA
        )
    } else if asked(asked_for.as_ref()) == Some(name) {
        format!(
            "{field}: {error}; make the TenantControlPlane anew with another name, or without the field and one is \
             drawn"
        )
    } else {
        format!(
            "annotation {key}: {error}; if this object was copied from another, remove its annotations {} and {}, and \
             new names are drawn",
            ours::SCHEMA,
            ours::USER
        )
    };
    Problem::wait(error.reason(), message)
}

fn place(engine: &Engine, tenant: &TenantControlPlane, names: &Names) -> TenantSchema {
    TenantSchema {
        schema: names.schema.clone(),
        user: names.user.clone(),
        owner: Owner {
            cluster: engine.cluster_id.clone(),
            namespace: tenant.namespace().unwrap_or_default(),
            name: tenant.name_any(),
        },
        adopt: names.adopted,
        expected: is_set_up(tenant),
    }
}

#[cfg(test)]
mod tests {
    use kamaji_api::tenantcontrolplane::{StorageSetupStatus, StorageStatus, TenantControlPlaneStatus};

    use super::*;
    use crate::hosting::testing::tenant as example;

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

    fn note(tenant: &mut TenantControlPlane, schema: &str, user: &str) {
        for (key, value) in [(ours::SCHEMA, schema), (ours::USER, user)] {
            tenant.annotations_mut().insert(key.to_owned(), value.to_owned());
        }
    }

    #[test]
    fn an_edited_annotation_changes_no_name_and_is_told() {
        let mut tenant = example::tenant();
        set_up(&mut tenant, "default");
        note(&mut tenant, "old", "older");
        let names = names_of(&tenant, 7);
        assert!(!names.adopted);
        check_names(&tenant, &names).unwrap();
        for (key, value) in [(ours::SCHEMA, "victim"), (ours::USER, "victim-user")] {
            note(&mut tenant, "old", "older");
            tenant.annotations_mut().insert(key.to_owned(), value.to_owned());
            assert_eq!(names_of(&tenant, 7), names, "what holds the data stays");
            let held = if key == ours::SCHEMA { "old" } else { "older" };
            assert_eq!(
                check_names(&tenant, &names).unwrap_err().message,
                format!(
                    "annotation {key}: {value:?} cannot replace {held:?}, which holds the data; set it back to {held:?}"
                )
            );
        }
        // One that was removed is written again, as those of a tenant of ours.
        note(&mut tenant, "old", "older");
        tenant.annotations_mut().remove(ours::USER);
        assert_eq!(names_of(&tenant, 7), names);
        check_names(&tenant, &names).unwrap();
    }

    #[test]
    fn before_anything_is_set_up_a_removed_annotation_loses_no_other_name() {
        let mut tenant = example::tenant();
        note(&mut tenant, "drawn", "drawn");
        tenant.annotations_mut().remove(ours::USER);
        let names = names_of(&tenant, 7);
        assert_eq!((names.schema.as_str(), names.user.as_str()), ("drawn", "drawn"));
        tenant.spec.data_store_schema = Some("asked".to_owned());
        let refused = check_names(&tenant, &names).unwrap_err().message;
        assert!(
            refused.starts_with(
                "spec.dataStoreSchema says \"asked\" and annotation capi-kamaji.io/datastore-schema"
            ),
            "{refused}"
        );
    }

    #[test]
    fn a_name_that_cannot_be_had_is_told_by_what_named_it() {
        let foreign = || driver::Error::ForeignSchema {
            schema: "theirs".to_owned(),
            owner: None,
        };
        let mut copied = example::tenant();
        note(&mut copied, "theirs", "theirs");
        let mut asked_for = copied.clone();
        asked_for.spec.data_store_schema = Some("theirs".to_owned());
        let mut running = copied.clone();
        set_up(&mut running, "default");
        for (tenant, place, fix) in [
            (
                &copied,
                "annotation capi-kamaji.io/datastore-schema: ",
                "remove its annotations",
            ),
            (&asked_for, "spec.dataStoreSchema: ", "another name"),
            (&running, "status.storage.setup: ", "capi-kamaji.io/abandon-data"),
        ] {
            let problem = told(tenant, "default", foreign());
            assert_eq!(problem.reason, Reason::SchemaOwnedByAnother);
            assert!(
                problem.message.starts_with(place) && problem.message.contains(fix),
                "{}",
                problem.message
            );
            assert!(problem.message.contains("\"theirs\" belongs to somebody"));
        }
        let missing = driver::Error::DataMissing {
            schema: "old".to_owned(),
        };
        assert_eq!(
            told(&running, "bronze", missing).message,
            "status.storage.setup: the datastore holds nothing of schema \"old\": no ownership mark, no role, no key, where \
             the data of this cluster should be; let spec.endpoints of DataStore bronze lead to the datastore that holds \
             it, or restore its backup there"
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
