//! Which change wakes which KamajiConfig: one function a kind, and [`connect`] as the table of them.
//!
//! | changed object | what of it | KamajiConfigs that are reconciled |
//! |---|---|---|
//! | KamajiConfig | spec, metadata, deletion | itself ([`config_deleted`]) |
//! | Machine | version, provider ID, labels, deletion, node, addresses | the one in `spec.bootstrap.configRef` ([`machine_changed`]) |
//! | Machine of a MachinePool | the same | those of the MachinePool ([`pool_machine_changed`]) |
//! | MachinePool | spec, deletion, replicas, nodes | those that it owns, and the one in `spec.template.spec.bootstrap.configRef` ([`pool_changed`]) |
//! | Cluster | pause, infrastructure, control plane, endpoint | those of the Cluster ([`cluster_changed`]) |
//! | KamajiControlPlane | version, worker endpoint | those of its Cluster without data, and of MachinePools ([`control_plane_changed`]) |
//! | Secret owned by a KamajiConfig | anything | its owner |
//! | Secret with the Cluster's CA or our kubeconfig | anything | those of the Cluster that are not settled ([`credentials_changed`]) |
//!
//! Certificate requests, Nodes, tokens and reports of the workload cluster wake configs too: see [`super::tenants`].

use std::{collections::BTreeSet, sync::Arc};

use kamaji_api::{
    bootstrap::KamajiConfig,
    controlplane::KamajiControlPlane,
    labels::{capi, ours},
};
use kube::{Resource, ResourceExt as _};

use super::Context;
use crate::{
    capi::{
        cluster::{Cluster, Reference},
        machine::Machine,
        machine_pool::MachinePool,
        owner,
    },
    k8s::{cache::By, key::RootKey, row::Row, store::Store},
};

/// Configs by the Cluster that their label names.
pub const BY_CLUSTER: By = By("cluster");

/// Configs by their UID.
pub const BY_UID: By = By("uid");

/// Configs, and Machines, by the MachinePool that owns them.
pub const BY_POOL: By = By("pool");

/// Machines by each name that their Node has or may have: their own, that of their Node, and the names that their
/// infrastructure reports.
pub const BY_NODE_NAME: By = By("node name");

/// Adds the indexes [`BY_CLUSTER`], [`BY_UID`], [`BY_POOL`] and [`BY_NODE_NAME`].
pub fn index(configs: &Store<KamajiConfig>, machines: &Store<Machine>) {
    configs.index_by(BY_POOL, pool_of);
    machines.index_by(BY_POOL, pool_of);
    machines.index_by(BY_NODE_NAME, |machine| {
        let namespace = machine.metadata.namespace.clone().unwrap_or_default();
        let names = machine.metadata.name.as_deref().into_iter();
        let names: BTreeSet<&str> = names.chain(machine.node()).chain(machine.host_names()).collect();
        let keys = names
            .into_iter()
            .map(|name| RootKey::new(namespace.clone(), name));
        keys.collect::<Vec<_>>()
    });
    configs.index_by(BY_UID, |config| Some(RootKey::new("", config.uid()?)));
    configs.index_by(BY_CLUSTER, |config| {
        let cluster = owner::cluster_label(config)?;
        Some(RootKey::new(config.namespace().unwrap_or_default(), cluster))
    });
}

/// The MachinePool that owns an object.
fn pool_of(object: &impl Resource) -> Option<RootKey> {
    let owner = owner::of_kind(object, "MachinePool")?;
    Some(RootKey::new(object.meta().namespace.clone()?, owner.name.clone()))
}

/// The lane of a config in the queue: that of its Cluster.
pub fn lane(configs: &Store<KamajiConfig>, key: &RootKey) -> Option<RootKey> {
    let config = configs.get(key)?;
    Some(RootKey::new(
        key.namespace.clone(),
        owner::cluster_label(&*config)?,
    ))
}

/// Connects the watched kinds of `context` with its queue, for the namespaces that `acts_on` accepts.
pub fn connect(context: &Context, acts_on: impl Fn(&str) -> bool + Send + Sync + 'static) {
    let queue = context.queue.clone();
    let wake = Arc::new(move |key: RootKey| {
        if acts_on(&key.namespace) {
            queue.add(key);
        }
    });
    let configs = || context.configs.clone();

    let add = wake.clone();
    context.configs.wake_on_intent(move |key| add(key));
    let add = wake.clone();
    context
        .configs
        .route(move |old, new| config_deleted(old, new).into_iter().for_each(&*add));
    let add = wake.clone();
    context
        .machines
        .route(move |old, new| machine_changed(old, new).into_iter().for_each(&*add));
    let (add, of) = (wake.clone(), configs());
    context
        .machines
        .route(move |old, new| pool_machine_changed(&of, old, new).into_iter().for_each(&*add));
    let (add, of) = (wake.clone(), configs());
    context
        .pools
        .route(move |old, new| pool_changed(&of, old, new).into_iter().for_each(&*add));
    let (add, of) = (wake.clone(), configs());
    context
        .clusters
        .route(move |old, new| cluster_changed(&of, old, new).into_iter().for_each(&*add));
    let (add, of) = (wake.clone(), configs());
    context
        .control_planes
        .route(move |old, new| control_plane_changed(&of, old, new).into_iter().for_each(&*add));
    let add = wake.clone();
    context.index.wake_owner::<KamajiConfig>(move |key| add(key));
    let of = configs();
    context
        .index
        .route(move |row| credentials_changed(&of, row).into_iter().for_each(&*wake));
}

/// A config that is gone: its token has to go too.
fn config_deleted(old: Option<&KamajiConfig>, new: Option<&KamajiConfig>) -> Option<RootKey> {
    match (old, new) {
        (Some(old), None) => Some(RootKey::of(old)),
        (None, _) | (Some(_), Some(_)) => None,
    }
}

/// What of a Machine concerns its config: version, provider ID, deletion, labels, node, addresses.
fn is_same(old: Option<&Machine>, new: Option<&Machine>) -> bool {
    let of = |machine: Option<&Machine>| {
        machine.map(|machine| {
            let status = machine.status.clone().unwrap_or_default();
            (
                (machine.spec.version.clone(), machine.spec.provider_id.clone()),
                machine.metadata.deletion_timestamp.is_some(),
                machine.metadata.labels.clone(),
                (status.node_ref, status.addresses),
            )
        })
    };
    of(old) == of(new)
}

/// A Machine with another version, provider ID, node or address, or one that is being deleted.
fn machine_changed(old: Option<&Machine>, new: Option<&Machine>) -> Option<RootKey> {
    let machine = new.or(old).filter(|_| !is_same(old, new))?;
    let reference = machine.spec.bootstrap.config_ref.as_ref()?;
    config_of(reference, &machine.namespace().unwrap_or_default())
}

/// A Machine of a MachinePool, with the same changes. Whether its infrastructure exists counts too: see
/// [`super::pool::instances`].
fn pool_machine_changed(
    configs: &Store<KamajiConfig>,
    old: Option<&Machine>,
    new: Option<&Machine>,
) -> Vec<RootKey> {
    let provisioned = |machine: Option<&Machine>| {
        let status = machine.and_then(|machine| machine.status.as_ref());
        status.is_some_and(|status| status.initialization.infrastructure_provisioned)
    };
    if is_same(old, new) && provisioned(old) == provisioned(new) {
        return Vec::new();
    }
    let pool = new.or(old).and_then(pool_of);
    pool.map_or_else(Vec::new, |pool| configs.keys_by(BY_POOL, &pool))
}

/// A MachinePool with another version, size, list of provider IDs or nodes, or one that is being deleted.
fn pool_changed(
    configs: &Store<KamajiConfig>,
    old: Option<&MachinePool>,
    new: Option<&MachinePool>,
) -> Vec<RootKey> {
    let of = |pool: Option<&MachinePool>| {
        pool.map(|pool| {
            (
                pool.spec.clone(),
                pool.status.clone(),
                pool.metadata.deletion_timestamp.is_some(),
            )
        })
    };
    let Some(pool) = new.or(old).filter(|_| of(old) != of(new)) else {
        return Vec::new();
    };
    let namespace = pool.namespace().unwrap_or_default();
    let mut keys = configs.keys_by(BY_POOL, &RootKey::new(namespace.clone(), pool.name_any()));
    let named = pool.spec.template.spec.bootstrap.config_ref.as_ref();
    let named = named.and_then(|reference| config_of(reference, &namespace));
    keys.extend(named.filter(|key| !keys.contains(key)));
    keys
}

/// The config that a bootstrap reference names.
pub fn config_of(reference: &Reference, namespace: &str) -> Option<RootKey> {
    let is_ours = reference.kind == "KamajiConfig" && reference.api_group == KamajiConfig::group(&());
    is_ours.then(|| RootKey::new(namespace, reference.name.clone()))
}

/// A Cluster that was paused or resumed, whose infrastructure or control plane became ready, or whose endpoint changed.
fn cluster_changed(
    configs: &Store<KamajiConfig>,
    old: Option<&Cluster>,
    new: Option<&Cluster>,
) -> Vec<RootKey> {
    let of = |cluster: Option<&Cluster>| {
        cluster.map(|cluster| {
            (
                cluster.spec.paused,
                cluster.infrastructure_provisioned(),
                cluster.control_plane_initialized(),
                cluster.endpoint().cloned(),
            )
        })
    };
    let Some(cluster) = new.or(old).filter(|_| of(old) != of(new)) else {
        return Vec::new();
    };
    let namespace = cluster.namespace().unwrap_or_default();
    of_cluster(configs, &namespace, &cluster.name_any(), |_| true)
}

/// A control plane with another version or another endpoint for workers. It matters to configs without data, and to those
/// of MachinePools, whose data changes.
fn control_plane_changed(
    configs: &Store<KamajiConfig>,
    old: Option<&KamajiControlPlane>,
    new: Option<&KamajiControlPlane>,
) -> Vec<RootKey> {
    let of = |control_plane: Option<&KamajiControlPlane>| {
        control_plane
            .and_then(|control_plane| control_plane.status.as_ref())
            .map(|status| (status.version.clone(), status.worker_endpoint.clone()))
    };
    let Some(control_plane) = new.filter(|_| of(old) != of(new)) else {
        return Vec::new();
    };
    let Some(cluster) = owner::cluster(control_plane).or_else(|| owner::cluster_label(control_plane)) else {
        return Vec::new();
    };
    let namespace = control_plane.namespace().unwrap_or_default();
    of_cluster(configs, &namespace, cluster, |config| {
        is_without_data(config) || pool_of(config).is_some()
    })
}

/// The Secret with a Cluster's CA, or with this provider's kubeconfig for the workload cluster. It matters to configs
/// without data, and to those whose token is still needed.
fn credentials_changed(configs: &Store<KamajiConfig>, row: &Row) -> Vec<RootKey> {
    let Some(cluster) = row.labels.get(capi::CLUSTER_NAME) else {
        return Vec::new();
    };
    let suffix = row.key.name.strip_prefix(cluster).unwrap_or_default();
    if ![capi::CA_SUFFIX, ours::BOOTSTRAP_KUBECONFIG_SUFFIX].contains(&suffix) {
        return Vec::new();
    }
    let is_settled = |config: &KamajiConfig| {
        config
            .status
            .as_ref()
            .is_some_and(|status| status.token.is_none())
    };
    of_cluster(configs, &row.key.namespace, cluster, |config| {
        is_without_data(config) || !is_settled(config)
    })
}

fn is_without_data(config: &KamajiConfig) -> bool {
    config
        .status
        .as_ref()
        .is_none_or(|status| status.data_secret_name.is_none())
}

/// Configs of a Cluster that `keep` accepts.
fn of_cluster(
    configs: &Store<KamajiConfig>,
    namespace: &str,
    cluster: &str,
    keep: impl Fn(&KamajiConfig) -> bool,
) -> Vec<RootKey> {
    configs
        .by(BY_CLUSTER, &RootKey::new(namespace, cluster))
        .iter()
        .filter(|config| keep(config))
        .map(|config| RootKey::of(&**config))
        .collect()
}
