//! What a pass starts from: rows and objects out of memory, and the few live reads of Secrets.

use std::sync::Arc;

use k8s_openapi::api::core::v1::Secret;
use kamaji_api::{controlplane::KamajiControlPlane, labels::capi, tenantcontrolplane::TenantControlPlane};
use kube::{Api, ResourceExt};

use super::{Context, secrets::Part};
use crate::{
    capi::{
        cluster::Cluster,
        machine::{Machine, MachinePool},
        owner, paused,
    },
    k8s::{
        error::ApiError,
        key::{ObjectKey, RootKey},
        row::Row,
    },
};

/// What was found, without a request.
pub struct Observed {
    /// The control plane.
    pub control_plane: Arc<KamajiControlPlane>,
    /// Name of the owning Cluster.
    pub cluster_name: Option<String>,
    /// The owning Cluster.
    pub cluster: Option<Arc<Cluster>>,
    /// The TenantControlPlane of that name.
    pub tenant: Option<Arc<TenantControlPlane>>,
    /// Its row: who owns it, and the newest version we know of.
    pub tenant_row: Option<Arc<Row>>,
    /// Why nothing may be done.
    pub paused: Option<String>,
}

/// Finds everything about one control plane; `None` when it is gone.
pub fn observe(context: &Context, key: &RootKey) -> Option<Observed> {
    let control_plane = context.control_planes.get(key)?;
    let cluster_name = owner::cluster(&*control_plane).map(str::to_owned);
    let cluster = cluster_name.as_ref().and_then(|name| {
        context
            .clusters
            .get(&RootKey::new(key.namespace.clone(), name.clone()))
    });
    let paused = paused::because(&*control_plane, cluster.as_deref());
    Some(Observed {
        tenant: context.tenants.get(key),
        tenant_row: context.index.get(&tenant_key(key)),
        control_plane,
        cluster_name,
        cluster,
        paused,
    })
}

/// The TenantControlPlane has the name of the control plane.
pub fn tenant_key(key: &RootKey) -> ObjectKey {
    ObjectKey::of::<TenantControlPlane>(key.namespace.clone(), key.name.clone())
}

/// Rows of one Secret of the contract.
pub struct Rows {
    /// The engine's Secret.
    pub source: Option<Arc<Row>>,
    /// The Secret of the contract.
    pub target: Option<Arc<Row>>,
    /// Both have one name.
    pub same: bool,
    /// Nobody touched the copy since it was written.
    pub untouched: bool,
}

/// Finds the rows of one Secret of the contract.
pub fn rows(context: &Context, control_plane: &KamajiControlPlane, cluster: &str, part: Part) -> Rows {
    let namespace = control_plane.namespace().unwrap_or_default();
    let (source, target) = (part.source(&control_plane.name_any()), part.name(cluster));
    let key = ObjectKey::of::<Secret>(namespace.clone(), target.clone());
    Rows {
        same: source == target,
        source: context.engine.find::<Secret>(&namespace, &source),
        untouched: context.applier.untouched(&key).is_some(),
        target: context.index.get(&key),
    }
}

/// Reads a Secret.
///
/// # Errors
/// What the API server answered; a missing Secret is `None`.
pub async fn secret(context: &Context, namespace: &str, name: &str) -> Result<Option<Secret>, ApiError> {
    Api::<Secret>::namespaced(context.client.clone(), namespace)
        .get_opt(name)
        .await
        .map_err(|error| ApiError::new(format!("get Secret {namespace}/{name}"), error))
}

/// The row of a Secret that no watch selects: a user's, without any label of ours.
///
/// # Errors
/// What the API server answered; a missing Secret is `None`.
pub async fn unlabelled(
    context: &Context,
    control_plane: &KamajiControlPlane,
    name: &str,
) -> Result<Option<Row>, ApiError> {
    let namespace = control_plane.namespace().unwrap_or_default();
    let found = secret(context, &namespace, name).await?;
    Ok(found.map(|secret| Row::of::<Secret>(&secret.metadata)))
}

/// Machines and MachinePools of a Cluster that still exist, `Kind/name`, sorted. A scan: asked on deletion only.
pub fn workers(context: &Context, namespace: &str, cluster: &str) -> Vec<String> {
    let mut names: Vec<_> = context
        .index
        .filter(|row| {
            (row.is::<Machine>() || row.is::<MachinePool>())
                && row.key.namespace == namespace
                && row
                    .labels
                    .get(capi::CLUSTER_NAME)
                    .is_some_and(|name| name == cluster)
        })
        .iter()
        .map(|row| format!("{}/{}", row.key.kind, row.key.name))
        .collect();
    names.sort();
    names
}
