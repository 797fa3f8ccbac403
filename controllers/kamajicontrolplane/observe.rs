//! What a reconcile starts from: objects and rows in memory ([`observe`]), and the content of those Secrets that have
//! to be read ([`secrets`]). Nothing else in this controller reads the management cluster, except where an answer to a
//! write reports a Secret that no watch selects.

use std::{collections::HashMap, sync::Arc, time::Instant};

use k8s_openapi::api::core::v1::Secret;
use kamaji_api::{
    controlplane::{Endpoint, KamajiControlPlane},
    labels::{capi, ours},
    tenantcontrolplane::TenantControlPlane,
};
use kube::{Api, ResourceExt};
use parking_lot::Mutex;

use super::{
    Context,
    copies::{ObservedSecret, Read},
    endpoint::{self, Choice},
    reach::{self, Reach},
    secrets::{self, Action, Part, Rows},
    user_ca::{self, Question, UserCa},
};
use crate::{
    capi::{cluster::Cluster, machine::Machine, machine_pool::MachinePool, owner, paused},
    k8s::{
        cache::By,
        error::ApiError,
        key::{ObjectKey, RootKey},
        problem::Problem,
        row::Row,
    },
    pki::spec,
    settings::Hosting,
};

/// What a paused control plane tells somebody who tries to move it.
const MOVE_IS_BLOCKED: &str = "; clusterctl move is blocked, because it takes no data along: to go on here after it gave up, set \
     spec.paused of the Cluster to false";

/// Machines and MachinePools by the Cluster that their label names.
pub const WORKERS: By = By("worker");

/// What is in memory about one control plane.
pub struct Observed {
    /// The control plane.
    pub control_plane: Arc<KamajiControlPlane>,
    /// Name of the owning Cluster.
    pub cluster_name: Option<String>,
    /// The owning Cluster.
    pub cluster: Option<Arc<Cluster>>,
    /// The TenantControlPlane with the name of the control plane.
    pub tenant: Option<Arc<TenantControlPlane>>,
    /// Its row: the owner, and the newest version that is known.
    pub tenant_row: Option<Arc<Row>>,
    /// Why nothing is done: Cluster or control plane are paused.
    pub paused: Option<String>,
}

/// Observes one control plane, without a request; `None` when it is gone.
pub fn observe(context: &Context, key: &RootKey) -> Option<Observed> {
    if context.control_planes.is_undecodable(key) {
        return None;
    }
    let control_plane = context.control_planes.get(key)?;
    let cluster_name = owner::cluster(&*control_plane).map(str::to_owned);
    let cluster = cluster_name.as_ref().and_then(|name| {
        context
            .clusters
            .get(&RootKey::new(key.namespace.clone(), name.clone()))
    });
    let mut paused = paused::because(&*control_plane, cluster.as_deref());
    if let Some(why) = &mut paused
        && control_plane.annotations().contains_key(capi::BLOCK_MOVE)
    {
        why.push_str(MOVE_IS_BLOCKED);
    }
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
fn tenant_key(key: &RootKey) -> ObjectKey {
    ObjectKey::of::<TenantControlPlane>(key.namespace.clone(), key.name.clone())
}

/// The Secrets of one control plane.
pub struct ObservedSecrets {
    /// The Secrets of the Cluster API contract, in the order in which they are published.
    pub contract: [ObservedSecret; 3],
    /// What a user's `<cluster>-ca` means for the engine.
    pub user_ca: UserCa,
}

/// Observes the Secrets. What to do with each follows from metadata in memory; content is read only where it is
/// needed, so a control plane at rest costs no request. A Secret that cannot be read is a problem of its own, and does
/// not keep the others from being read.
pub async fn secrets(
    context: &Context,
    observed: &Observed,
    cluster: &str,
    endpoint: Option<&Endpoint>,
) -> ObservedSecrets {
    let control_plane = &*observed.control_plane;
    let mut contract = Part::ALL.map(|part| {
        let rows = rows(context, control_plane, cluster, part);
        let inputs = secrets::inputs(part, cluster, endpoint, secrets::admin_key(control_plane));
        ObservedSecret {
            part,
            action: secrets::action(control_plane, &rows, &inputs),
            rows,
            read: Ok(Read::Nothing),
        }
    });
    for secret in &mut contract {
        secret.read = read(context, observed, cluster, endpoint, secret).await;
    }
    let user_ca = user_ca(context, observed, cluster, &contract[0].rows).await;
    ObservedSecrets { contract, user_ca }
}

/// Rows of one Secret of the contract.
fn rows(context: &Context, control_plane: &KamajiControlPlane, cluster: &str, part: Part) -> Rows {
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

/// Reads what the action on a Secret needs beyond metadata.
async fn read(
    context: &Context,
    observed: &Observed,
    cluster: &str,
    endpoint: Option<&Endpoint>,
    secret: &ObservedSecret,
) -> Result<Read, Problem> {
    let control_plane = &*observed.control_plane;
    let namespace = control_plane.namespace().unwrap_or_default();
    let part = secret.part;
    match secret.action {
        Action::Copy { .. } if part != Part::Ca && endpoint.is_none() => Ok(Read::Nothing),
        Action::Copy { .. } => {
            let source = part.source(&control_plane.name_any());
            Ok(Read::Source(self::secret(context, &namespace, &source).await?))
        }
        // The engine uses a CA that it did not create: a user's, under the Cluster's name and without its label.
        Action::WaitForSource if secrets::is_in_use(part, observed.tenant.as_deref()) => Ok(
            Read::Unlabelled(unlabelled(context, &namespace, &part.name(cluster)).await?),
        ),
        Action::Keep | Action::Foreign | Action::Label | Action::WaitForSource => Ok(Read::Nothing),
    }
}

/// Judges a user's `<cluster>-ca`.
async fn user_ca(context: &Context, observed: &Observed, cluster: &str, rows: &Rows) -> UserCa {
    let control_plane = &*observed.control_plane;
    let namespace = control_plane.namespace().unwrap_or_default();
    let copy = context
        .index
        .find::<Secret>(&namespace, &spec::ca_name(&control_plane.name_any()));
    // Another engine creates its own CA and does not look for a copy.
    let copies = context.hosting == Hosting::Embedded;
    let tenant_exists = observed.tenant_row.is_some();
    match user_ca::question(control_plane, rows, copy, copies, tenant_exists) {
        Question::None => UserCa::None,
        Question::IsThereOne => match secret(context, &namespace, &Part::Ca.name(cluster)).await {
            Ok(None) => UserCa::None,
            Ok(Some(given)) => user_ca::copied(control_plane, cluster, &given, rows.target.is_none()),
            Err(error) => UserCa::Unknown(error.into()),
        },
        Question::IsItTheSame { given, used } => {
            UserCa::InUse(same_ca(context, control_plane, &given, &used).await)
        }
    }
}

/// A user's CA and the CA that the tenant uses have the same certificate. Each is read once for each of its versions.
async fn same_ca(
    context: &Context,
    control_plane: &KamajiControlPlane,
    given: &Row,
    used: &Row,
) -> Result<(), Problem> {
    let used_print = match used.annotations.get(ours::CA_FINGERPRINT) {
        Some(recorded) => Some(recorded.to_owned()),
        None => fingerprint(context, control_plane, used).await?,
    };
    let given_print = fingerprint(context, control_plane, given).await?;
    user_ca::judge(given, given_print.as_deref(), used, used_print.as_deref())
}

async fn fingerprint(
    context: &Context,
    control_plane: &KamajiControlPlane,
    row: &Row,
) -> Result<Option<String>, ApiError> {
    let owner = RootKey::of(control_plane);
    if let Some((_, known)) = context.fingerprints.get(&owner, row) {
        return Ok(known);
    }
    let print = secret(context, &row.key.namespace, &row.key.name)
        .await?
        .and_then(|secret| user_ca::certificate_print(&secret));
    context.fingerprints.keep(owner, row, print.clone());
    Ok(print)
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

/// Finds out whether the endpoint leads to this control plane, where that is not known.
///
/// # Errors
/// The CA of the Cluster cannot be read.
pub async fn reach(
    context: &Context,
    observed: &Observed,
    cluster: &str,
    choice: Option<&Choice>,
) -> Result<Reach, Problem> {
    let control_plane = &*observed.control_plane;
    let endpoint = match reach::question(control_plane, observed.tenant.as_deref(), choice) {
        reach::Question::None => return Ok(Reach::NotAsked),
        reach::Question::OwnService => return Ok(Reach::OwnService),
        reach::Question::WhoAnswers(endpoint) => endpoint,
    };
    let (key, now) = (RootKey::of(control_plane), Instant::now());
    if let Some(known) = context.answers.recent(&key, &endpoint, now) {
        return Ok(known);
    }
    let namespace = control_plane.namespace().unwrap_or_default();
    let ca = secret(context, &namespace, &Part::Ca.name(cluster)).await?;
    let ca = ca.and_then(|secret| secret.data?.remove("tls.crt"));
    let Some(ca) = ca.and_then(|bytes| String::from_utf8(bytes.0).ok()) else {
        return Ok(Reach::NotAsked);
    };
    Ok(match (context.ask)(endpoint::server(&endpoint), ca).await {
        Ok(answer) => {
            context.answers.keep(&key, &endpoint, &answer, now);
            Reach::asked(endpoint, answer)
        }
        // The CA is reported where it is published.
        Err(_) => Reach::NotAsked,
    })
}

/// The row of a Secret that no watch selects, such as a user's without the label of the Cluster.
///
/// # Errors
/// What the API server answered; a missing Secret is `None`.
pub async fn unlabelled(context: &Context, namespace: &str, name: &str) -> Result<Option<Row>, ApiError> {
    let found = secret(context, namespace, name).await?;
    Ok(found.map(|secret| Row::of::<Secret>(&secret.metadata)))
}

/// Machines and MachinePools of a Cluster that still exist, as `Kind/name`, sorted.
pub fn workers(context: &Context, namespace: &str, cluster: &str) -> Vec<String> {
    let rows = context.index.by(WORKERS, &RootKey::new(namespace, cluster));
    let mut names: Vec<_> = rows
        .iter()
        .map(|row| format!("{}/{}", row.key.kind, row.key.name))
        .collect();
    names.sort();
    names
}

/// The Cluster that the label of a Machine or MachinePool names: its key in the index [`WORKERS`].
pub fn cluster_of_worker(row: &Row) -> Option<RootKey> {
    let cluster = row.labels.get(capi::CLUSTER_NAME)?;
    let is_worker = row.is::<Machine>() || row.is::<MachinePool>();
    is_worker.then(|| RootKey::new(row.key.namespace.as_str(), cluster))
}

/// Fingerprint of a certificate, with the version of the Secret it was read from; `None` where the Secret has none.
type Fingerprint = (String, Option<String>);

/// Fingerprints of CA certificates that were read, for each control plane and Secret.
#[derive(Default)]
pub struct Fingerprints(Mutex<HashMap<RootKey, HashMap<ObjectKey, Fingerprint>>>);

impl Fingerprints {
    fn get(&self, control_plane: &RootKey, row: &Row) -> Option<Fingerprint> {
        let known = self.0.lock();
        let found = known.get(control_plane)?.get(&row.key)?;
        (found.0 == row.resource_version).then(|| found.clone())
    }

    fn keep(&self, control_plane: RootKey, row: &Row, print: Option<String>) {
        self.0
            .lock()
            .entry(control_plane)
            .or_default()
            .insert(row.key.clone(), (row.resource_version.clone(), print));
    }

    /// Drops what belongs to a control plane that is gone.
    pub fn forget(&self, control_plane: &RootKey) {
        self.0.lock().remove(control_plane);
    }
}
