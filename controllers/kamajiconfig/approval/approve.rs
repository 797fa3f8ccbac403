//! Answers the certificate requests of a config's token. The node name is claimed in the status of the config before the
//! request is approved, so that a crash between the two leaves a name that its rightful owner claimed, and no certificate.

use std::sync::Arc;

use k8s_openapi::{
    api::{
        certificates::v1::CertificateSigningRequest,
        core::v1::{Node, Secret},
    },
    jiff::Timestamp,
};
use kamaji_api::{
    bootstrap::{KamajiConfig, PoolNode},
    conditions::Reason,
    labels::{field_manager, ours},
};
use kube::{Api, ResourceExt as _};

use super::{
    count,
    csr::{self, Decision, MachineFacts, Requester},
    pool::{self, PoolFacts},
};
use crate::{
    capi::{machine::Machine, machine_pool::MachinePool, owner},
    k8s::{
        key::RootKey,
        problem::Problem,
        status::{self, Guard},
    },
    kamajiconfig::{
        Context,
        bootstrapdata::inputs,
        names::NamePattern,
        observe::refused,
        owner::Owner,
        pool::{claims, instances, rotation::Tokens},
        scope::Scope,
        tenants::{NodeFacts, Tenant},
        wake,
    },
    tenant,
};

/// What the requests came to.
#[derive(Default)]
pub struct Answers {
    /// A request that waits.
    pub held: Option<Held>,
    /// Why the last one was denied.
    pub denied: Option<Problem>,
    /// One was approved.
    pub approved: bool,
}

/// A request that waits.
pub struct Held {
    /// For the condition.
    pub problem: Problem,
    /// Seconds after which it is decided again.
    pub again: i64,
}

/// Answers the open requests of `token`.
///
/// # Errors
/// When a claim could not be written, or the workload cluster did not accept the answer.
pub async fn answer(scope: &Scope<'_>, tenant: &Arc<Tenant>, token: &str) -> Result<Answers, Problem> {
    let key = scope.key;
    let mut answers = Answers::default();
    for request in tenant.requests(token) {
        if tenant.is_abused_by(key, token) {
            break;
        }
        let name = request.name_any();
        match decide_and_claim(scope, tenant, token, &request).await? {
            Decision::NoOpinion => {}
            Decision::Deny(reason, message) => {
                send(tenant, &request, false, reason, &message).await?;
                tracing::info!(config = %key, request = name, %reason, message, "denied a certificate request");
                if is_offence(reason) {
                    tenant.note_denial(key, token);
                }
                // Without the request's name: a condition does not change with each request.
                let message = format!("a certificate request with the token was denied: {message}");
                answers.denied = Some(Problem::on_change(reason, message));
            }
            Decision::Wait(reason, message, again) => {
                answers.held = Some(Held {
                    problem: Problem::on_change(reason, message),
                    again,
                });
                continue;
            }
            Decision::Approve(node) => {
                let message = format!("token {token} of KamajiConfig {key} for node {node}");
                send(tenant, &request, true, Reason::KamajiTokenBound, &message).await?;
                tenant.wait(scope, Some(token), Some(&node));
                answers.approved = true;
                tracing::info!(config = %key, node, request = name, "approved the certificate of a node");
            }
        }
        tenant.answered(&name);
    }
    Ok(answers)
}

/// A request that was denied for this reason was no rightful one. The others are: an old Node, or too many restarts, are
/// in their way for a while.
fn is_offence(reason: Reason) -> bool {
    ![Reason::NodeExists, Reason::TooMany].contains(&reason)
}

/// Decides about a request; one that will be approved is claimed. The workload cluster is asked before the lock is taken:
/// while one of its configs waits for an answer, the others go on.
async fn decide_and_claim(
    scope: &Scope<'_>,
    tenant: &Tenant,
    token: &str,
    request: &CertificateSigningRequest,
) -> Result<Decision, Problem> {
    let node_name = match csr::node_of(request) {
        Ok(name) => name,
        Err(why) => return Ok(Decision::Deny(Reason::MalformedRequest, why)),
    };
    if let Some(waits) = without_room(scope, tenant, &node_name) {
        return Ok(waits);
    }
    let in_tenant = InTenant {
        token: tenant.session.token(token).await?,
        node: tenant.session.node(&node_name).await?,
    };
    // One claim at a time in a workload cluster.
    let _claims = tenant.claims.lock().await;
    // The newest config: the last answer may have written a claim.
    let Some(config) = scope.context.configs.get(scope.key) else {
        return Ok(Decision::NoOpinion);
    };
    let decision = decide((scope, &config), tenant, &node_name, (token, &in_tenant), request);
    if let Decision::Approve(node) = &decision {
        claim(scope, tenant, &config, node, &uid(request)).await?;
    }
    Ok(decision)
}

/// A pool that is full, by what is in memory: many requests may wait, and none of them is worth a request here.
fn without_room(scope: &Scope<'_>, tenant: &Tenant, node_name: &str) -> Option<Decision> {
    let Owner::Pool(pool) = &scope.owner else {
        return None;
    };
    let config = scope.context.configs.get(scope.key)?;
    let mut known = config.status.iter().flat_map(|status| &status.nodes);
    if known.any(|node| node.name == node_name) {
        return None;
    }
    let facts = pool_facts(scope, (pool, &config), tenant, node_name, Timestamp::now());
    pool::without_room(&facts)
}

/// What a decision depends on in the workload cluster.
struct InTenant {
    token: Option<Secret>,
    node: Option<Node>,
}

fn decide(
    (scope, config): (&Scope<'_>, &KamajiConfig),
    tenant: &Tenant,
    node_name: &str,
    (token, in_tenant): (&str, &InTenant),
    request: &CertificateSigningRequest,
) -> Decision {
    let config_uid = config.uid().unwrap_or_default();
    let is_ours = |secret: &Secret| secret.labels().get(ours::OWNER_UID) == Some(&config_uid);
    let now = Timestamp::now();
    let node = in_tenant.node.as_ref();
    let known = config.status.as_ref().and_then(|status| status.node.as_ref());
    let mut pooled = config.status.iter().flat_map(|status| &status.nodes);
    let pooled = pooled.find(|node| node.name == node_name);
    let pattern = config.spec.csr_approval.node_name_pattern.as_deref();
    let requester = Requester {
        config_deleting: config.metadata.deletion_timestamp.is_some(),
        config_created: config.metadata.creation_timestamp.as_ref().map(|time| time.0),
        // Of a pool, one that ended while the request waited authenticated it all the same.
        token_is_ours: match (&in_tenant.token, &scope.owner) {
            (Some(secret), _) => is_ours(secret),
            (None, Owner::Pool(_)) => Tokens::of(config.status.as_ref()).has_ended(token, now),
            (None, Owner::Machine(_)) => false,
        },
        machine: match &scope.owner {
            Owner::Machine(machine) => Some(facts(machine)),
            Owner::Pool(_) => None,
        },
        name_source: inputs::name_source(&scope.settings.registration, &scope.owner),
        claimed: match &scope.owner {
            Owner::Machine(_) => known.and_then(|node| node.name.as_deref()),
            Owner::Pool(_) => pooled.map(|node| node.name.as_str()),
        },
        misfits: pattern
            .is_some_and(|pattern| !NamePattern::parse(pattern).is_ok_and(|pattern| pattern.fits(node_name))),
        recent_approvals: match &scope.owner {
            Owner::Machine(_) => count::recent(known, &uid(request), now),
            Owner::Pool(_) => pooled.map_or(0, |node| {
                count::recent_of(&node.recent_approvals, &uid(request), now)
            }),
        },
        endpoint_hosts: &scope.hosts,
        node_created: node.and_then(|node| NodeFacts::of(node).created),
        claimed_by: claimed_by(scope.context, config, node_name),
    };
    let created = request.metadata.creation_timestamp.as_ref().map(|time| time.0);
    let age = created.map_or(0, |created| now.as_second() - created.as_second());
    match &scope.owner {
        Owner::Machine(_) => csr::decide(node_name, &requester, age),
        Owner::Pool(pool) => {
            if let Some(refusal) = of_another_machine(scope, pool, node_name) {
                return refusal;
            }
            let facts = pool_facts(scope, (pool, config), tenant, node_name, now);
            pool::decide(node_name, &requester, &facts, age)
        }
    }
}

fn uid(request: &CertificateSigningRequest) -> String {
    request.uid().unwrap_or_default()
}

fn facts(machine: &Machine) -> MachineFacts<'_> {
    let status = machine.status.as_ref();
    MachineFacts {
        name: machine.metadata.name.as_deref().unwrap_or_default(),
        deleting: machine.metadata.deletion_timestamp.is_some(),
        node_ref: machine.node(),
        host_names: status
            .into_iter()
            .flat_map(|status| &status.addresses)
            .filter(|address| ["Hostname", "InternalDNS", "ExternalDNS"].contains(&address.type_.as_str()))
            .map(|address| address.address.as_str())
            .collect(),
    }
}

/// A Machine of the Cluster that is none of the pool has the name, and may not have asked for it yet: it has nothing to do
/// with the token, whoever bootstraps it.
fn of_another_machine(scope: &Scope<'_>, pool: &MachinePool, node_name: &str) -> Option<Decision> {
    let key = RootKey::new(scope.key.namespace.clone(), node_name);
    let machine = scope.context.machines.get(&key)?;
    let of_pool = owner::of_kind(&*machine, "MachinePool").map(|owner| owner.name.as_str());
    let is_other =
        machine.spec.cluster_name == scope.cluster.name && of_pool != pool.metadata.name.as_deref();
    is_other.then(|| {
        let message = "the requested name is that of a Machine that is not of the MachinePool".to_owned();
        Decision::Deny(Reason::NameClaimed, message)
    })
}

/// What is known of a pool, and how many names it has beside the requested one.
fn pool_facts<'a>(
    scope: &'a Scope<'_>,
    (pool, config): (&MachinePool, &KamajiConfig),
    tenant: &Tenant,
    node_name: &str,
    now: Timestamp,
) -> PoolFacts<'a> {
    let list = config.status.as_ref().map_or(&[][..], |status| &status.nodes);
    let patience = claims::patience(&config.spec);
    let exists = |name: &str| tenant.may_have_node(name);
    let instances = instances::of(&scope.observed.pool_machines);
    let is_known = |node: &&PoolNode| {
        instances
            .iter()
            .any(|instance| instance.is_named(&node.name) || instance.node_ref == Some(&node.name))
    };
    let unnamed: Vec<_> = list.iter().filter(|node| !is_known(node)).cloned().collect();
    PoolFacts {
        deleting: pool.metadata.deletion_timestamp.is_some(),
        budget: claims::budget(pool),
        used: claims::used(list, &exists, now, patience, node_name),
        unnamed: claims::used(&unnamed, &exists, now, patience, node_name),
        free_in: claims::next_end(list, &exists, now, patience).unwrap_or(csr::EXISTING_FOR),
        instances,
    }
}

/// Another config of the Cluster that claimed the name. Scans all configs, once for each request.
fn claimed_by(context: &Context, config: &KamajiConfig, node: &str) -> Option<String> {
    let cluster = crate::capi::owner::cluster_label(config)?;
    let key = RootKey::new(config.namespace().unwrap_or_default(), cluster);
    context
        .configs
        .by(wake::BY_CLUSTER, &key)
        .iter()
        .filter(|other| other.uid() != config.uid())
        .filter(|other| other.metadata.deletion_timestamp.is_none())
        .find(|other| {
            other.status.as_ref().is_some_and(|status| {
                let one = status.node.as_ref().and_then(|claim| claim.name.as_deref());
                one == Some(node) || status.nodes.iter().any(|claim| claim.name == node)
            })
        })
        .map(|other| other.name_any())
}

/// Writes the claim of a node for this request, a UID, unless somebody wrote the config since it was read.
async fn claim(
    scope: &Scope<'_>,
    tenant: &Tenant,
    config: &KamajiConfig,
    node: &str,
    request: &str,
) -> Result<(), Problem> {
    let (context, now) = (scope.context, Timestamp::now());
    let mut new = config.status.clone().unwrap_or_default();
    match &scope.owner {
        Owner::Machine(_) => new.node = Some(count::approved(new.node.as_ref(), node, request, now)),
        Owner::Pool(machines) => {
            let exists = |name: &str| tenant.may_have_node(name);
            let patience = claims::patience(&config.spec);
            // Before Nodes were listed, every reservation looks like a Node.
            let list = if tenant.nodes_listed() {
                claims::settled(&new.nodes, machines.nodes(), &exists, now, patience)
            } else {
                new.nodes
            };
            new.nodes = pool::claimed(&list, node, request, now);
        }
    }
    let api = Api::namespaced(context.client.clone(), &config.namespace().unwrap_or_default());
    status::apply(
        &api,
        &context.configs,
        config,
        &new,
        field_manager::BOOTSTRAP,
        Guard::Unchanged,
    )
    .await
    .map_err(refused)?;
    Ok(())
}

async fn send(
    tenant: &Tenant,
    request: &CertificateSigningRequest,
    approve: bool,
    reason: Reason,
    message: &str,
) -> Result<(), tenant::Error> {
    match tenant.session.answer(request, approve, reason, message).await {
        // Deleted since it was read: nobody waits for the answer.
        Ok(()) | Err(tenant::Error::Refused { code: 404, .. }) => Ok(()),
        Err(error) => Err(error),
    }
}
