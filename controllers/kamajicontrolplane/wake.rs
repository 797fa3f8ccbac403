//! Who wakes whom: which change of which watched object makes which control plane due.
//!
//! | changed | when | wakes |
//! |---|---|---|
//! | KamajiControlPlane | anything but its status | itself |
//! | Cluster | [`cluster_changed`] | [`control_planes_of`] it |
//! | TenantControlPlane | always | the control plane of its name |
//! | Secret of the engine | always | the control plane with the name of its TenantControlPlane |
//! | Secret with the label of a Cluster | [`contract_secret_changed`] | the control planes of that Cluster |
//! | Secret with the label of a Cluster | [`ca_copy_changed`] | the control plane that it is the CA of |
//! | Machine, MachinePool with the label of a Cluster | [`worker_changed_while_deleting`] | the control planes of that Cluster |

use std::{collections::BTreeSet, sync::Arc};

use k8s_openapi::api::core::v1::Secret;
use kamaji_api::{
    controlplane::KamajiControlPlane,
    labels::{capi, field_manager, ours},
    tenantcontrolplane::TenantControlPlane,
};
use kube::{ResourceExt, runtime::watcher::Event};

use super::{
    Context,
    observe::{WORKERS, cluster_of_worker},
    secrets::Part,
};
use crate::{
    capi::{cluster::Cluster, owner},
    k8s::{
        cache::{By, WatchId},
        index::ChildIndex,
        key::RootKey,
        row::Row,
        store::Store,
    },
};

/// Control planes by the Clusters that their owner and their label name.
const BY_CLUSTER: By = By("cluster");

/// Adds the index [`BY_CLUSTER`].
fn index(control_planes: &Store<KamajiControlPlane>) {
    control_planes.index_by(BY_CLUSTER, |control_plane| {
        let namespace = control_plane.namespace().unwrap_or_default();
        let named = [owner::cluster(control_plane), owner::cluster_label(control_plane)];
        let clusters: BTreeSet<_> = named.into_iter().flatten().collect();
        clusters
            .into_iter()
            .map(|cluster| RootKey::new(namespace.as_str(), cluster))
            .collect::<Vec<_>>()
    });
}

/// Connects the watched objects with the queue. Only keys in namespaces that `acts_on` accepts become due.
pub fn connect(context: &Context, acts_on: impl Fn(&str) -> bool + Send + Sync + 'static) {
    index(&context.control_planes);
    context.index.index_by(WORKERS, cluster_of_worker);
    let queue = context.queue.clone();
    let wake = Arc::new(move |key: RootKey| {
        if acts_on(&key.namespace) {
            queue.add(key);
        }
    });

    let woken = wake.clone();
    context.control_planes.wake_on_intent(move |key| woken(key));

    let (woken, control_planes) = (wake.clone(), context.control_planes.clone());
    context.clusters.route(move |old, new| {
        if let Some(cluster) = new.or(old).filter(|_| cluster_changed(old, new)) {
            for key in control_planes_of(cluster, &control_planes) {
                woken(key);
            }
        }
    });

    // The watch of TenantControlPlanes feeds the store of whole objects, and the index for the apply path.
    let (woken, index, watch) = (wake.clone(), context.index.clone(), context.index.watch());
    context.tenants.route(move |old, new| {
        fold_tenant(&index, watch, old, new);
        if let Some(tenant) = new.or(old) {
            woken(RootKey::of(tenant));
        }
    });

    let woken = wake.clone();
    context
        .engine
        .wake_owner::<TenantControlPlane>(move |key| woken(key));

    let (clusters, control_planes) = (context.clusters.clone(), context.control_planes.clone());
    context.index.route(move |row| {
        for key in woken_by_row(row, &clusters, &control_planes) {
            wake(key);
        }
    });
}

/// Cluster API changed what a control plane depends on: spec, annotations, the object itself, whether its infrastructure is
/// provisioned or exists, or how many workers are ready. Other writes of the Cluster's status have no effect here.
fn cluster_changed(old: Option<&Cluster>, new: Option<&Cluster>) -> bool {
    let of = |cluster: Option<&Cluster>| {
        cluster.map(|cluster| {
            let metadata = &cluster.metadata;
            (
                cluster.spec.clone(),
                metadata.uid.clone(),
                metadata.annotations.clone(),
                cluster.infrastructure_provisioned(),
                cluster.infrastructure_is_missing(),
                cluster.ready_workers(),
            )
        })
    };
    of(old) != of(new)
}

/// Mirrors a change of a TenantControlPlane into the index.
fn fold_tenant(
    index: &ChildIndex,
    watch: WatchId,
    old: Option<&TenantControlPlane>,
    new: Option<&TenantControlPlane>,
) {
    let row = |tenant: &TenantControlPlane| Row::of::<TenantControlPlane>(&tenant.metadata);
    match (old, new) {
        (_, Some(tenant)) => index.fold(watch, Event::Apply(row(tenant))),
        (Some(tenant), None) => index.fold(watch, Event::Delete(row(tenant))),
        (None, None) => {}
    }
}

/// The control planes that are due because a row with the label of a Cluster changed.
fn woken_by_row(
    row: &Row,
    clusters: &Store<Cluster>,
    control_planes: &Store<KamajiControlPlane>,
) -> Vec<RootKey> {
    let Some(cluster) = row.labels.get(capi::CLUSTER_NAME) else {
        return Vec::new();
    };
    // A TenantControlPlane has a route of its own. Asked first: the engine's Secrets of a Cluster are many.
    if row.is::<TenantControlPlane>() || (row.is::<Secret>() && !is_ours_or_of_contract(row, cluster)) {
        return Vec::new();
    }
    let namespace = row.key.namespace.as_str();
    let mut keys = match clusters.get(&RootKey::new(namespace, cluster)) {
        Some(cluster) => control_planes_of(&cluster, control_planes),
        // The Cluster can be gone while its control plane is still being deleted.
        None => control_planes_named(namespace, cluster, control_planes),
    };
    keys.retain(|key| {
        contract_secret_changed(row, cluster)
            || ca_copy_changed(row, key)
            || worker_changed_while_deleting(row, key, control_planes)
    });
    keys
}

fn is_ours_or_of_contract(row: &Row, cluster: &str) -> bool {
    contract_secret_changed(row, cluster) || is_managed_here(row)
}

/// A Secret that Cluster API expects of a control plane, whoever wrote it.
fn contract_secret_changed(row: &Row, cluster: &str) -> bool {
    row.is::<Secret>() && Part::ALL.iter().any(|part| part.name(cluster) == row.key.name)
}

/// `<tcp>-ca` of this control plane, copied from a user's `<cluster>-ca`.
fn ca_copy_changed(row: &Row, key: &RootKey) -> bool {
    row.is::<Secret>() && is_managed_here(row) && Part::Ca.source(&key.name) == row.key.name
}

fn is_managed_here(row: &Row) -> bool {
    row.labels
        .get(ours::MANAGED_BY)
        .is_some_and(|by| by == field_manager::CONTROL_PLANE)
}

/// A Machine or MachinePool, and the control plane is being deleted: its deletion waits until they are gone.
fn worker_changed_while_deleting(
    row: &Row,
    key: &RootKey,
    control_planes: &Store<KamajiControlPlane>,
) -> bool {
    !row.is::<Secret>()
        && control_planes
            .get(key)
            .is_some_and(|known| known.metadata.deletion_timestamp.is_some())
}

/// The control plane that a Cluster refers to; without a reference, those that name it.
fn control_planes_of(cluster: &Cluster, control_planes: &Store<KamajiControlPlane>) -> Vec<RootKey> {
    let namespace = cluster.namespace().unwrap_or_default();
    match &cluster.spec.control_plane_ref {
        Some(reference) => vec![RootKey::new(namespace, reference.name.clone())],
        None => control_planes_named(&namespace, &cluster.name_any(), control_planes),
    }
}

/// Control planes whose owner or label names a Cluster.
fn control_planes_named(
    namespace: &str,
    cluster: &str,
    control_planes: &Store<KamajiControlPlane>,
) -> Vec<RootKey> {
    control_planes.keys_by(BY_CLUSTER, &RootKey::new(namespace, cluster))
}

#[cfg(test)]
mod tests {
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time};
    use kube::Resource;
    use rstest::rstest;

    use super::*;
    use crate::{capi::machine::Machine, kamajicontrolplane::example};

    fn row<K: Resource<DynamicType = ()>>(name: &str, managed_here: bool) -> Row {
        let cluster = (capi::CLUSTER_NAME.to_owned(), "alpha".to_owned());
        let manager = (
            ours::MANAGED_BY.to_owned(),
            field_manager::CONTROL_PLANE.to_owned(),
        );
        let meta = ObjectMeta {
            name: Some(name.into()),
            namespace: Some("demo".into()),
            labels: Some(
                [cluster]
                    .into_iter()
                    .chain(managed_here.then_some(manager))
                    .collect(),
            ),
            ..ObjectMeta::default()
        };
        Row::of::<K>(&meta)
    }

    #[rstest]
    #[case::contract(row::<Secret>("alpha-kubeconfig", false), true, true)]
    #[case::other_secret(row::<Secret>("alpha-etcd", false), false, false)]
    #[case::ca_copy(row::<Secret>("alpha-ca", true), true, true)]
    #[case::ca_copy_of_another(row::<Secret>("beta-ca", true), false, false)]
    #[case::machine(row::<Machine>("m0", false), false, true)]
    #[case::tenant(row::<TenantControlPlane>("alpha", false), false, false)]
    fn a_row_wakes_the_control_plane_that_depends_on_it(
        #[case] row: Row,
        #[case] wakes: bool,
        #[case] wakes_while_deleting: bool,
    ) {
        for (deleting, expected) in [(false, wakes), (true, wakes_while_deleting)] {
            let (clusters, control_planes) = (Store::default(), Store::default());
            super::index(&control_planes);
            clusters.fold(Event::Apply(example::cluster()));
            let mut control_plane = example::control_plane();
            control_plane.metadata.deletion_timestamp = deleting.then(|| Time(example::now()));
            control_planes.fold(Event::Apply(control_plane));
            let woken = woken_by_row(&row, &clusters, &control_planes);
            assert_eq!(!woken.is_empty(), expected, "{} deleting: {deleting}", row.key);
        }
    }

    #[test]
    fn a_status_of_the_cluster_wakes_nobody() {
        let old = example::cluster();
        let mut new = old.clone();
        new.status
            .get_or_insert_default()
            .initialization
            .control_plane_initialized = true;
        assert!(!cluster_changed(Some(&old), Some(&new)));
        new.spec.paused = Some(true);
        assert!(cluster_changed(Some(&old), Some(&new)));
        assert!(cluster_changed(Some(&old), None));
    }
}
