//! Which change wakes which object of the engine.
//!
//! | a change of | wakes | by |
//! |---|---|---|
//! | a DataStore: spec, metadata, deletion | itself | [`Store::wake_on_intent`], [`deleted`] |
//! | a child of a DataStore | the DataStore | [`data_store_of_child`] |
//! | a TenantControlPlane that starts or stops using a DataStore | the DataStore | [`data_stores_of_tenant`] |
//! | a TenantControlPlane: spec, metadata, deletion | itself | [`Store::wake_on_intent`], [`deleted`] |
//! | a child of a TenantControlPlane | the TenantControlPlane | [`ChildIndex::wake_owner`] |
//! | an object of a TenantControlPlane that has lost its owner | the TenantControlPlane | [`orphans::tenant_of`] |
//! | a CA that a user provides, with the label of a Cluster | its TenantControlPlane | [`tenant_of_provided_ca`] |
//! | a pod of a TenantControlPlane that does not run | the TenantControlPlane | [`tenant_of_failing_pod`] |
//! | the readiness of a DataStore | its TenantControlPlanes | [`Engine::wake_tenants_of`], called by its controller |

use std::sync::Arc;

use k8s_openapi::api::core::v1::Secret;
use kamaji_api::{
    datastore::DataStore,
    labels::{capi, field_manager, kamaji, ours},
    tenantcontrolplane::TenantControlPlane,
};
use kube::Resource;

use super::{engine::Engine, orphans, usage};
#[cfg(doc)]
use crate::k8s::{index::ChildIndex, store::Store};
use crate::{
    k8s::{
        key::RootKey,
        row::{Facts, Row},
    },
    runtime::queue::Queue,
};

/// Connects stores and index of `engine` to its queues.
pub fn connect(engine: &Engine) {
    let (store_queue, tenant_queue) = (&engine.store_queue, &engine.tenant_queue);

    engine.stores.wake_on_intent(add_to(store_queue));
    let wake = add_to(store_queue);
    engine
        .stores
        .route(move |old, new| deleted(old, new).into_iter().for_each(&wake));
    let wake = add_to(store_queue);
    engine
        .index
        .route(move |row| data_store_of_child(row).into_iter().for_each(&wake));
    let (wake, settings) = (add_to(store_queue), engine.settings.clone());
    engine.tenants.route(move |old, new| {
        let default = settings.default_datastore.name();
        data_stores_of_tenant(old, new, default)
            .into_iter()
            .for_each(&wake);
    });

    let (wake, settings) = (add_to(tenant_queue), engine.settings.clone());
    engine.tenants.wake_on_intent(move |key| {
        if settings.acts_on(&key.namespace) {
            wake(key);
        }
    });
    let wake = add_to(tenant_queue);
    engine
        .tenants
        .route(move |old, new| deleted(old, new).into_iter().for_each(&wake));
    engine
        .index
        .wake_owner::<TenantControlPlane>(add_to(tenant_queue));
    let (wake, tenants) = (add_to(tenant_queue), engine.tenants.clone());
    engine.index.route(move |row| {
        tenant_of_provided_ca(row)
            .filter(|key| tenants.get(key).is_some())
            .into_iter()
            .for_each(&wake);
    });
    let wake = add_to(tenant_queue);
    engine
        .index
        .route(move |row| orphans::tenant_of(row).into_iter().for_each(&wake));
    let wake = add_to(tenant_queue);
    engine
        .index
        .route(move |row| tenant_of_failing_pod(row).into_iter().for_each(&wake));
}

fn add_to(queue: &Arc<Queue>) -> impl Fn(RootKey) + Send + Sync + 'static {
    let queue = queue.clone();
    move |key| queue.add(key)
}

/// The object, when the change is its deletion.
fn deleted<K: Resource<DynamicType = ()>>(old: Option<&K>, new: Option<&K>) -> Option<RootKey> {
    match (old, new) {
        (Some(old), None) => Some(RootKey::of(old)),
        _ => None,
    }
}

/// The DataStore that owns the object, whatever its labels; or, for an object without an owner, the one of its label: a
/// PersistentVolumeClaim has no owner before it is adopted.
fn data_store_of_child(row: &Row) -> Option<RootKey> {
    let owner = row.owner.as_ref().filter(|owner| owner.is::<DataStore>());
    let name = owner
        .map(|owner| owner.name.as_str())
        .or_else(|| row.labels.get(ours::DATASTORE).map(String::as_str))?;
    Some(RootKey::new("", name))
}

/// The DataStores that the tenant starts or stops using.
fn data_stores_of_tenant(
    old: Option<&TenantControlPlane>,
    new: Option<&TenantControlPlane>,
    default: Option<&str>,
) -> Vec<RootKey> {
    let names = |tenant: Option<&TenantControlPlane>| {
        tenant
            .map(|tenant| usage::stores_of(tenant, default))
            .unwrap_or_default()
    };
    let (before, after) = (names(old), names(new));
    before
        .symmetric_difference(&after)
        .map(|name| RootKey::new("", name.as_str()))
        .collect()
}

/// The tenant that would use this Secret as the CA that its user provides. It owns none.
fn tenant_of_provided_ca(row: &Row) -> Option<RootKey> {
    let ours = row.labels.get(ours::MANAGED_BY).map(String::as_str) == Some(field_manager::HOSTING);
    let name = row.key.name.strip_suffix(capi::CA_SUFFIX)?;
    (row.is::<Secret>() && !ours).then(|| RootKey::new(row.key.namespace.clone(), name))
}

/// The tenant of a pod that does not run. Every other change of its pods is a change of its Deployment.
fn tenant_of_failing_pod(row: &Row) -> Option<RootKey> {
    match (&row.facts, row.labels.get(kamaji::NAME)) {
        (Facts::Pod { trouble: Some(_) }, Some(name)) => Some(RootKey::new(row.key.namespace.clone(), name)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::core::v1::{PersistentVolumeClaim, Pod};
    use serde_json::{Value, json};

    use super::*;
    use crate::{hosting::testing::tenant::tenant, k8s::child::Child};

    fn claim(metadata: &Value) -> Row {
        let claim: PersistentVolumeClaim = serde_json::from_value(json!({ "metadata": metadata })).unwrap();
        claim.row()
    }

    #[test]
    fn a_child_wakes_the_datastore_that_owns_it_or_without_one_the_datastore_of_its_label() {
        let labels = json!({ ours::DATASTORE: "labelled" });
        let owner = |kind: &str| json!([{ "apiVersion": "v1", "kind": kind, "name": "owner", "uid": "1", "controller": true }]);
        let row = |owners: Value| claim(&json!({ "name": "a", "labels": labels, "ownerReferences": owners }));
        let woken = |row: &Row| data_store_of_child(row).map(|key| key.name);
        assert_eq!(woken(&row(owner("DataStore"))).as_deref(), Some("owner"));
        assert_eq!(woken(&row(json!([]))).as_deref(), Some("labelled"));
        assert_eq!(woken(&claim(&json!({ "name": "a" }))), None);
    }

    #[test]
    fn a_tenant_wakes_the_datastores_that_it_starts_or_stops_using() {
        let (old, mut new) = (tenant(), tenant());
        let woken = |old: Option<&TenantControlPlane>, new: Option<&TenantControlPlane>| {
            let keys = data_stores_of_tenant(old, new, Some("default")).into_iter();
            keys.map(|key| key.name).collect::<Vec<_>>()
        };
        assert_eq!(woken(Some(&old), Some(&old)), Vec::<String>::new());
        assert_eq!(woken(None, Some(&old)), ["default"]);
        assert_eq!(woken(Some(&old), None), ["default"]);
        new.spec.data_store = Some("silver".to_owned());
        assert_eq!(woken(Some(&old), Some(&new)), ["default", "silver"]);
    }

    #[test]
    fn a_ca_of_somebody_else_wakes_the_tenant_that_would_use_it() {
        let woken = |name: &str, by: &str| {
            let secret: Secret = serde_json::from_value(json!({
                "metadata": { "name": name, "namespace": "demo", "labels": { ours::MANAGED_BY: by } },
            }))
            .unwrap();
            tenant_of_provided_ca(&Row::of::<Secret>(&secret.metadata))
        };
        assert_eq!(woken("alpha-ca", "a-user"), Some(RootKey::new("demo", "alpha")));
        assert_eq!(woken("alpha-kubeconfig", "a-user"), None);
        assert_eq!(woken("alpha-ca", field_manager::HOSTING), None, "it has an owner");
    }

    #[test]
    fn only_a_pod_that_does_not_run_wakes_its_tenant() {
        let pod = |state: Value| {
            let pod: Pod = serde_json::from_value(json!({
                "metadata": { "name": "alpha-1", "namespace": "demo", "labels": { kamaji::NAME: "alpha" } },
                "status": { "containerStatuses": [{
                    "name": "kube-apiserver", "image": "a", "imageID": "", "ready": false, "restartCount": 0,
                    "state": state,
                }] },
            }))
            .unwrap();
            tenant_of_failing_pod(&pod.row())
        };
        assert_eq!(pod(json!({ "running": {} })), None);
        let failing = json!({ "waiting": { "reason": "ImagePullBackOff" } });
        assert_eq!(pod(failing), Some(RootKey::new("demo", "alpha")));
    }
}
