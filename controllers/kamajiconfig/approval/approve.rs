//! Answers the certificate requests of a config's token. The node name is claimed in the status of the config before the
//! request is approved, so that a crash between the two leaves a name that its rightful owner claimed, and no certificate.

use std::sync::Arc;

use k8s_openapi::{
    api::{certificates::v1::CertificateSigningRequest, core::v1::Secret},
    jiff::Timestamp,
};
use kamaji_api::{
    bootstrap::KamajiConfig,
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
        pool::{
            claims,
            instances::{self, Instances},
            rotation::Tokens,
        },
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

impl Answers {
    /// Another request waits: the one that waits for longest is reported, and the first is decided again as soon as any.
    fn hold(&mut self, more: Held) {
        self.held = Some(match self.held.take() {
            None => more,
            Some(first) => Held {
                again: first.again.min(more.again),
                ..first
            },
        });
    }

    /// These, and then those of another token.
    #[must_use]
    pub fn and(mut self, more: Self) -> Self {
        if let Some(held) = more.held {
            self.hold(held);
        }
        Self {
            held: self.held,
            denied: more.denied.or(self.denied),
            approved: more.approved || self.approved,
        }
    }
}

/// What is the same for all requests of a token.
struct Bearer<'a> {
    /// ID of the token.
    token: &'a str,
    /// Its Secret in the workload cluster.
    secret: Option<Secret>,
    /// The Machines of the pool that has it.
    machines: Instances<'a>,
}

/// Answers the open requests of `token`, those that wait for longest first.
///
/// # Errors
/// When a claim could not be written, or the workload cluster did not accept the answer.
pub async fn answer(scope: &Scope<'_>, tenant: &Arc<Tenant>, token: &str) -> Result<Answers, Problem> {
    let requests = oldest_first(tenant.requests(token));
    let answers = if requests.is_empty() {
        Answers::default()
    } else {
        let bearer = Bearer {
            token,
            secret: tenant.session.token(token).await?,
            machines: Instances::of(&scope.observed.pool_machines),
        };
        answer_all(scope, tenant, &bearer, requests).await?
    };
    tenant.read_left_out();
    Ok(answers)
}

/// Whoever chooses the names of requests chooses no turn.
fn oldest_first(mut requests: Vec<CertificateSigningRequest>) -> Vec<CertificateSigningRequest> {
    requests.sort_by_cached_key(|request| {
        let created = request.metadata.creation_timestamp.as_ref().map(|time| time.0);
        (created, request.name_any())
    });
    requests
}

async fn answer_all(
    scope: &Scope<'_>,
    tenant: &Arc<Tenant>,
    bearer: &Bearer<'_>,
    requests: Vec<CertificateSigningRequest>,
) -> Result<Answers, Problem> {
    let (key, token) = (scope.key, bearer.token);
    let mut answers = Answers::default();
    // What is known of the pool, until a request is approved.
    let mut known = None;
    for request in requests {
        if tenant.is_abused_by(key, token) {
            break;
        }
        let name = request.name_any();
        match decide_and_claim(scope, tenant, (bearer, &mut known), &request).await? {
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
                answers.hold(Held {
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
                known = None;
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

/// Decides about a request; one that will be approved is claimed. What is in memory decides about one that waits: many may,
/// and none of them is worth a request here. The workload cluster is asked before the lock is taken: while one of its configs
/// waits for an answer, the others go on.
async fn decide_and_claim<'a>(
    scope: &'a Scope<'_>,
    tenant: &Tenant,
    (bearer, known): (&'a Bearer<'a>, &mut Option<PoolFacts<'a>>),
    request: &CertificateSigningRequest,
) -> Result<Decision, Problem> {
    let node_name = match csr::node_of(request) {
        Ok(name) => name,
        Err(why) => return Ok(Decision::Deny(Reason::MalformedRequest, why)),
    };
    let newest = || scope.context.configs.get(scope.key);
    let facts_of = |config: &KamajiConfig| match &scope.owner {
        Owner::Machine(_) => None,
        Owner::Pool(pool) => Some(pool_facts(scope, (pool, config), tenant, &bearer.machines)),
    };
    let Some(config) = newest() else {
        return Ok(Decision::NoOpinion);
    };
    if known.is_none() {
        *known = facts_of(&config);
    }
    let seen = tenant.node(&node_name);
    let seen = seen.as_ref().and_then(|node| node.created);
    let early = decide(
        (scope, &config),
        (bearer, known.as_ref()),
        (&node_name, seen),
        request,
    );
    match early {
        Decision::Approve(_) | Decision::Deny(Reason::NodeExists, _) => {}
        // Few requests have the token of a Machine, and the watch may be late: the workload cluster is asked.
        Decision::Wait(..) if matches!(scope.owner, Owner::Machine(_)) => {}
        Decision::NoOpinion | Decision::Wait(..) | Decision::Deny(..) => return Ok(early),
    }
    let node = tenant.session.node(&node_name).await?;
    let created = node.and_then(|node| NodeFacts::of(&node).created);
    // One claim at a time in a workload cluster.
    let _claims = tenant.claims.lock().await;
    // The newest config: the last answer may have written a claim.
    let Some(config) = newest() else {
        return Ok(Decision::NoOpinion);
    };
    let facts = facts_of(&config);
    let decision = decide(
        (scope, &config),
        (bearer, facts.as_ref()),
        (&node_name, created),
        request,
    );
    if let Decision::Approve(node) = &decision {
        claim(scope, tenant, &config, node, &uid(request)).await?;
    }
    Ok(decision)
}

/// Decides about a request for a node, whose Node was created at that time if there is one.
fn decide(
    (scope, config): (&Scope<'_>, &KamajiConfig),
    (bearer, pool): (&Bearer<'_>, Option<&PoolFacts<'_>>),
    (node_name, node_created): (&str, Option<Timestamp>),
    request: &CertificateSigningRequest,
) -> Decision {
    let config_uid = config.uid().unwrap_or_default();
    let is_ours = |secret: &Secret| secret.labels().get(ours::OWNER_UID) == Some(&config_uid);
    let now = Timestamp::now();
    let known = config.status.as_ref().and_then(|status| status.node.as_ref());
    let mut pooled = config.status.iter().flat_map(|status| &status.nodes);
    let pooled = pooled.find(|node| node.name == node_name);
    let pattern = config.spec.csr_approval.node_name_pattern.as_deref();
    let requester = Requester {
        config_deleting: config.metadata.deletion_timestamp.is_some(),
        config_created: config.metadata.creation_timestamp.as_ref().map(|time| time.0),
        // Of a pool, one that ended while the request waited authenticated it all the same.
        token_is_ours: match (&bearer.secret, &scope.owner) {
            (Some(secret), _) => is_ours(secret),
            (None, Owner::Pool(_)) => Tokens::of(config.status.as_ref()).has_ended(bearer.token, now),
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
        node_created,
        claimed_by: claimed_by(scope.context, config, node_name),
    };
    let created = request.metadata.creation_timestamp.as_ref().map(|time| time.0);
    let age = created.map_or(0, |created| now.as_second() - created.as_second());
    match (&scope.owner, pool) {
        (Owner::Pool(owner), Some(facts)) => match pool::decide(node_name, &requester, facts, age) {
            approved @ Decision::Approve(_) => {
                of_another_machine(scope, owner, node_name).unwrap_or(approved)
            }
            other => other,
        },
        (Owner::Machine(_), _) | (Owner::Pool(_), None) => csr::decide(node_name, &requester, age),
    }
}

fn uid(request: &CertificateSigningRequest) -> String {
    request.uid().unwrap_or_default()
}

fn facts(machine: &Machine) -> MachineFacts<'_> {
    MachineFacts {
        name: machine.metadata.name.as_deref().unwrap_or_default(),
        deleting: machine.metadata.deletion_timestamp.is_some(),
        node_ref: machine.node(),
        host_names: machine.host_names().collect(),
    }
}

/// A Machine of the Cluster that is none of the pool has the name, or may have it once it asks: it has nothing to do with the
/// token, whoever bootstraps it.
fn of_another_machine(scope: &Scope<'_>, pool: &MachinePool, node_name: &str) -> Option<Decision> {
    let key = RootKey::new(scope.key.namespace.clone(), node_name);
    let machines = scope.context.machines.by(wake::BY_NODE_NAME, &key);
    let is_other = |machine: &Machine| {
        let of_pool = owner::of_kind(machine, "MachinePool").map(|owner| owner.name.as_str());
        machine.spec.cluster_name == scope.cluster.name && of_pool != pool.metadata.name.as_deref()
    };
    machines.iter().any(|machine| is_other(machine)).then(|| {
        let message = "the requested name is that of a Machine that is not of the MachinePool".to_owned();
        Decision::Deny(Reason::NameClaimed, message)
    })
}

/// What is known of a pool. The names of all its configs count together: Cluster API leaves it the owner of one that it no
/// longer names, and the machines of that one go on joining.
fn pool_facts<'a>(
    scope: &'a Scope<'_>,
    (pool, config): (&'a MachinePool, &KamajiConfig),
    tenant: &Tenant,
    machines: &'a Instances<'a>,
) -> PoolFacts<'a> {
    let others = siblings(scope, pool, config);
    let all = others.iter().map(|other| &**other).chain([config]);
    let list = all.filter_map(|config| config.status.as_ref());
    let list: Vec<_> = list.flat_map(|status| &status.nodes).collect();
    let (now, patience) = (Timestamp::now(), claims::patience(&config.spec));
    let exists = |name: &str| tenant.may_have_node(name);
    let mut held = claims::held(list.iter().copied(), &exists, now, patience);
    // Also those that Cluster API found and no config has, as when the first of two configs has ended.
    held.extend(pool.nodes().filter(|name| exists(name)).map(ToOwned::to_owned));
    let joined = list.iter().filter(|node| node.joined);
    let listed = instances::names_in_ids(pool, joined.map(|node| node.name.as_str()));
    PoolFacts {
        deleting: pool.metadata.deletion_timestamp.is_some(),
        listed,
        free_in: claims::next_end(list.iter().copied(), &exists, now, patience).unwrap_or(csr::EXISTING_FOR),
        ..PoolFacts::new(machines, claims::budget(pool), held)
    }
}

/// The other configs that the pool owns.
fn siblings(scope: &Scope<'_>, pool: &MachinePool, config: &KamajiConfig) -> Vec<Arc<KamajiConfig>> {
    let key = RootKey::new(scope.key.namespace.clone(), pool.name_any());
    let mut all = scope.context.configs.by(wake::BY_POOL, &key);
    all.retain(|other| other.uid() != config.uid());
    all
}

/// Another config of the Cluster that claimed the name. Scans all its configs.
pub fn claimed_by(context: &Context, config: &KamajiConfig, node: &str) -> Option<String> {
    let cluster = owner::cluster_label(config)?;
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
            let foreign = |name: &str| claimed_by(context, config, name).is_some();
            let patience = claims::patience(&config.spec);
            // Before Nodes were listed, every reservation looks like a Node.
            let list = if tenant.nodes_listed() {
                let core = machines.nodes();
                claims::settled(&new.nodes, core, (&exists, &foreign), now, patience)
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

#[cfg(test)]
mod tests {
    use super::*;

    fn held(reason: Reason, again: i64) -> Held {
        Held {
            problem: Problem::on_change(reason, ""),
            again,
        }
    }

    #[test]
    fn of_requests_that_wait_the_first_is_reported_and_the_shortest_time_counts() {
        let mut one = Answers::default();
        one.hold(held(Reason::PoolFull, 900));
        one.hold(held(Reason::NodeExists, 30));
        let mut two = Answers::default();
        two.hold(held(Reason::NameMismatch, 600));
        let both = one.and(two).and(Answers::default()).held.unwrap();
        assert_eq!((both.problem.reason, both.again), (Reason::PoolFull, 30));
    }

    #[test]
    fn requests_are_answered_in_the_order_in_which_they_came() {
        let request = |name: &str, second: i64| {
            let mut request = CertificateSigningRequest::default();
            request.metadata.name = Some(name.to_owned());
            request.metadata.creation_timestamp = Some(crate::kamajiconfig::status::seconds(
                Timestamp::from_second(second).unwrap(),
            ));
            request
        };
        let sorted = oldest_first(vec![request("a", 9), request("z", 1), request("c", 9)]);
        let names: Vec<_> = sorted.iter().map(kube::ResourceExt::name_any).collect();
        assert_eq!(names, ["z", "a", "c"]);
    }
}
