//! Schema and user of a tenant in its DataStore: which names it has, and whether the spec and the annotations agree
//! with the names that hold its data. Pure.

use kamaji_api::{conditions::Reason, labels::ours, tenantcontrolplane::TenantControlPlane};
use kube::ResourceExt;

use crate::{hosting::driver::names, k8s::problem::Problem};

/// Names of a tenant in its DataStore.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Names {
    /// Schema. In etcd: the key prefix and the role.
    pub schema: String,
    /// User.
    pub user: String,
    /// They come from an upstream Kamaji, which keeps them in status alone. Schema and user without an ownership mark
    /// are then adopted.
    pub adopted: bool,
}

/// The names of `tenant`. Status has precedence, since it records what holds the data; then the annotations, then the
/// spec. Without any of them they are generated from `entropy`.
pub fn names_of(tenant: &TenantControlPlane, entropy: u64) -> Names {
    let noted = |key: &str| set(tenant.annotations().get(key));
    let (schema, user) = (noted(ours::SCHEMA), noted(ours::USER));
    if let Some((held_schema, held_user)) = held(tenant) {
        return Names {
            schema: held_schema.to_owned(),
            user: held_user.to_owned(),
            adopted: schema.is_none() && user.is_none(),
        };
    }
    let generated = || {
        names::generate(
            &tenant.namespace().unwrap_or_default(),
            &tenant.name_any(),
            entropy,
        )
    };
    let schema = schema
        .or_else(|| set(tenant.spec.data_store_schema.as_ref()))
        .map_or_else(generated, str::to_owned);
    let user = user
        .or_else(|| set(tenant.spec.data_store_username.as_ref()))
        .map_or_else(|| schema.clone(), str::to_owned);
    Names {
        schema,
        user,
        adopted: false,
    }
}

/// `text`, unless it is missing or empty.
pub fn set(text: Option<&String>) -> Option<&str> {
    text.map(String::as_str).filter(|text| !text.is_empty())
}

/// Schema and user that exist in the DataStore, as `status.storage.setup` records them.
fn held(tenant: &TenantControlPlane) -> Option<(&str, &str)> {
    let setup = tenant.status.as_ref()?.storage.as_ref()?.setup.as_ref()?;
    Some((set(setup.schema.as_ref())?, set(setup.user.as_ref())?))
}

/// Schema and user were created in the DataStore.
pub fn is_set_up(tenant: &TenantControlPlane) -> bool {
    held(tenant).is_some()
}

/// The names were recorded once, so schema and user may exist in the DataStore.
pub fn is_recorded(tenant: &TenantControlPlane) -> bool {
    tenant.annotations().contains_key(ours::SCHEMA)
        || tenant
            .status
            .as_ref()
            .and_then(|s| s.storage.as_ref()?.setup.as_ref()?.schema.as_ref())
            .is_some()
}

/// Checks that spec and annotations name what holds the data. Whoever may edit a TenantControlPlane may edit both, and
/// another name would lead to the data of another cluster, or to none.
///
/// # Errors
/// `InvalidSpec` with the field or annotation and the value to set.
pub fn check_names(tenant: &TenantControlPlane, names: &Names) -> Result<(), Problem> {
    let spec = &tenant.spec;
    let note = |key: &str| set(tenant.annotations().get(key));
    let is_set_up = held(tenant).is_some();
    for (key, field, desired, held) in [
        (
            ours::SCHEMA,
            "spec.dataStoreSchema",
            set(spec.data_store_schema.as_ref()),
            &names.schema,
        ),
        (
            ours::USER,
            "spec.dataStoreUsername",
            set(spec.data_store_username.as_ref()),
            &names.user,
        ),
    ] {
        let refuse = |message: String| Err(Problem::on_change(Reason::InvalidSpec, message));
        if let Some(noted) = note(key).filter(|noted| noted != held) {
            return refuse(format!(
                "annotation {key}: {noted:?} cannot replace {held:?}, which holds the data; set it back to {held:?}"
            ));
        }
        let Some(desired) = desired.filter(|desired| desired != held) else {
            continue;
        };
        return refuse(if is_set_up {
            format!(
                "{field}: {desired:?} cannot replace {held:?}, which holds the data; set it back to {held:?}"
            )
        } else {
            format!(
                "{field} is {desired:?} but annotation {key} is {held:?}; remove the one that is not intended (the \
                 annotation, if the object was copied from another)"
            )
        });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hosting::testing::tenant::{self as example, note, set_up};

    #[test]
    fn names_are_generated_once_and_then_read_from_the_annotations() {
        let mut tenant = example::tenant();
        let generated = names_of(&tenant, 7);
        assert!(
            generated.schema.starts_with("demo_alpha_")
                && generated.user == generated.schema
                && !generated.adopted
        );
        for (key, value) in [(ours::SCHEMA, &generated.schema), (ours::USER, &generated.user)] {
            tenant.annotations_mut().insert(key.to_owned(), value.clone());
        }
        assert_eq!(names_of(&tenant, 8), generated);
    }

    #[test]
    fn a_tenant_of_upstream_kamaji_keeps_its_names_and_adopts_what_has_no_ownership_mark() {
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
    fn an_edited_annotation_changes_no_name_and_is_reported() {
        let mut tenant = example::tenant();
        set_up(&mut tenant, "default");
        note(&mut tenant, "old", "older");
        let names = names_of(&tenant, 7);
        assert!(!names.adopted);
        check_names(&tenant, &names).unwrap();
        for (key, value) in [(ours::SCHEMA, "victim"), (ours::USER, "victim-user")] {
            note(&mut tenant, "old", "older");
            tenant.annotations_mut().insert(key.to_owned(), value.to_owned());
            assert_eq!(names_of(&tenant, 7), names, "the names that hold the data stay");
            let held = if key == ours::SCHEMA { "old" } else { "older" };
            assert_eq!(
                check_names(&tenant, &names).unwrap_err().message,
                format!(
                    "annotation {key}: {value:?} cannot replace {held:?}, which holds the data; set it back to {held:?}"
                )
            );
        }
        // A removed annotation is written again, since the tenant is the engine's own.
        note(&mut tenant, "old", "older");
        tenant.annotations_mut().remove(ours::USER);
        assert_eq!(names_of(&tenant, 7), names);
        check_names(&tenant, &names).unwrap();
    }

    #[test]
    fn before_the_set_up_a_removed_annotation_does_not_lose_the_other_name() {
        let mut tenant = example::tenant();
        note(&mut tenant, "generated", "generated");
        tenant.annotations_mut().remove(ours::USER);
        let names = names_of(&tenant, 7);
        assert_eq!(
            (names.schema.as_str(), names.user.as_str()),
            ("generated", "generated")
        );
        tenant.spec.data_store_schema = Some("desired".to_owned());
        let refused = check_names(&tenant, &names).unwrap_err().message;
        assert!(
            refused.starts_with(
                "spec.dataStoreSchema is \"desired\" but annotation capi-kamaji.io/datastore-schema"
            ),
            "{refused}"
        );
    }
}
