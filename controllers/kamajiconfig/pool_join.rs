//! What one reconcile does for a config that a MachinePool owns: keeps its data and its tokens, answers certificate requests,
//! and sets the provider IDs of Nodes. It goes on as long as the pool exists, since machines may join at any time.

use std::{sync::Arc, time::Duration};

use kamaji_api::{
    bootstrap::{
        ClientApproval, CloudProvider, KamajiConfig, NodeReport, PoolNode, ProviderIdSource, TokenStatus,
    },
    conditions::Reason,
};

use super::{
    approval::approve::{self, Answers},
    data_secret, observe,
    pool::{
        claims,
        instances::{self, Instances},
        rotation::{self, Tokens},
    },
    scope::Scope,
    status::{self, Pool, PoolIds, Progress, Token},
    tenants::{self, Tenant},
    wake,
};
use crate::{
    capi::{cluster::Reference, machine_pool::MachinePool},
    k8s::problem::{Problem, Retry},
    runtime::driver::Outcome,
};

/// Keeps the data, and follows the joins of the machines of `pool`.
///
/// # Errors
/// When something could not be written, or the workload cluster does not answer.
pub async fn advance(
    scope: &Scope<'_>,
    pool: &MachinePool,
    progress: &mut Progress,
) -> Result<Outcome, Problem> {
    if let Some(other) = successor(scope, pool) {
        return retire(scope, (pool, other), progress).await;
    }
    if !scope.announced {
        scope.version(progress)?;
    }
    let tenant = tenants::open::open(scope, progress).await?;
    let known = Tokens::of(scope.config.status.as_ref()).at(scope.now);
    let known = data_secret::pool_token::end_abused(scope, &tenant, known).await?;
    // Before the tokens change: the one that is forgotten then may have authenticated requests that wait.
    let answers = answer_known(scope, &tenant, &known).await?;
    // Machines that have a token go on joining, whatever keeps the data from being renewed.
    let ensured = data_secret::pool::ensure(scope, &tenant, known.clone(), progress).await;
    let (tokens, stopped) = match ensured {
        Ok(tokens) => (tokens, None),
        Err(problem) if !scope.announced || observe::is_failure(&problem) => return Err(problem),
        Err(problem) => {
            let renewed = data_secret::pool::renew(scope, &tenant, known.clone(), progress).await;
            let renewed = renewed.or_else(|other| {
                if observe::is_failure(&other) {
                    Err(other)
                } else {
                    Ok(None)
                }
            })?;
            let stopped = Stopped {
                renewed: renewed.is_some(),
                problem,
            };
            (renewed.unwrap_or_else(|| known.clone()), Some(stopped))
        }
    };
    progress.known.clone_from(&tokens.current);
    // After a crash the data has a token that the status has not.
    let unknown = tokens.ids().filter(|id| known.ids().all(|known| known != *id));
    let answers = answer(scope, &tenant, unknown, answers).await?;
    let renewal = if stopped.as_ref().is_some_and(|stopped| !stopped.renewed) {
        end_of(&tokens, scope)
    } else {
        let ttl = rotation::ttl(&scope.config.spec.auth.token);
        Some(rotation::due_in(&tokens, ttl, scope.now))
    };
    let outcome = follow(scope, (pool, &tenant), (&tokens, renewal), answers, progress).await?;
    match stopped.map(Stopped::into_problem) {
        None => Ok(outcome),
        // A change ends it, and the times of the rest come all the same.
        Some(problem) if problem.retry == Retry::OnChange => {
            status::stopped(scope.config, progress, problem);
            Ok(outcome)
        }
        Some(problem) => Err(problem),
    }
}

/// What keeps the data from being rendered.
struct Stopped {
    problem: Problem,
    /// The data gets new tokens all the same.
    renewed: bool,
}

impl Stopped {
    /// The problem, and what it means for machines that boot now.
    fn into_problem(self) -> Problem {
        let meanwhile = if self.renewed {
            "until then the bootstrap data stays as it was, with new tokens in time"
        } else {
            "until then the bootstrap data gets no new token: machines that boot after status.token.expiration cannot join"
        };
        Problem {
            message: format!("{}; {meanwhile}", self.problem.message),
            ..self.problem
        }
    }
}

/// Seconds until the current token ends, if it lives.
fn end_of(tokens: &Tokens, scope: &Scope<'_>) -> Option<i64> {
    let current = tokens.current.as_ref();
    let left = current.map(|token| rotation::left(token, scope.now));
    left.filter(|left| *left > 0)
}

/// The config that the pool names, of any kind, if it is another one. Cluster API leaves the pool the owner of the one before.
fn successor<'a>(scope: &Scope<'_>, pool: &'a MachinePool) -> Option<&'a Reference> {
    let named = pool.spec.template.spec.bootstrap.config_ref.as_ref()?;
    let is_this = wake::config_of(named, &scope.key.namespace).as_ref() == Some(scope.key);
    (!is_this).then_some(named)
}

/// A config that its pool no longer names: machines that have its tokens may join until those end.
async fn retire(
    scope: &Scope<'_>,
    (pool, successor): (&MachinePool, &Reference),
    progress: &mut Progress,
) -> Result<Outcome, Problem> {
    let why = format!(
        "{} names {} in its bootstrap.configRef",
        scope.owner_name(),
        successor.text()
    );
    let mut known = Tokens::of(scope.config.status.as_ref()).at(scope.now);
    if let Some(tenant) = scope.context.tenants.any(&scope.cluster) {
        known = data_secret::pool_token::end_abused(scope, &tenant, known).await?;
    }
    let lives = |token: &TokenStatus| rotation::left(token, scope.now) > 0;
    if !known.current.iter().chain(&known.former).any(lives) {
        if !scope.announced {
            return Err(Problem::on_change(Reason::WaitingForOwner, why));
        }
        if let Some(tenant) = scope.context.tenants.any(&scope.cluster) {
            for id in known.ids() {
                tenant.session.delete_token(id).await?;
                tenant.note_end(id);
            }
        }
        scope.context.tenants.leave(&scope.cluster, scope.key);
        progress.token = Some(Token::Removed(why));
        // The names are those of the other config, which looks for its Nodes among them.
        if let Some(key) = wake::config_of(successor, &scope.key.namespace) {
            scope.context.queue.add(key);
        }
        progress.pool = Some(Pool {
            nodes: Vec::new(),
            wanted: 0,
            former: None,
            report: None,
            held: None,
            ids: None,
        });
        return Ok(Outcome::Done);
    }
    let tenant = tenants::open::open(scope, progress).await?;
    let answers = answer_known(scope, &tenant, &known).await?;
    let end = end_of(&known, scope);
    follow(scope, (pool, &tenant), (&known, end), answers, progress).await
}

/// Answers the requests with the tokens that the status has.
async fn answer_known(scope: &Scope<'_>, tenant: &Arc<Tenant>, known: &Tokens) -> Result<Answers, Problem> {
    let ids: Vec<&str> = known.ids().collect();
    let status = scope.config.status.as_ref();
    tenant.wait_only(scope, &ids, status.map_or(&[][..], |status| &status.nodes));
    answer(scope, tenant, ids.iter().copied(), Answers::default()).await
}

/// Answers the requests with these tokens, after those that came to `answers`.
async fn answer(
    scope: &Scope<'_>,
    tenant: &Arc<Tenant>,
    ids: impl Iterator<Item = &str>,
    mut answers: Answers,
) -> Result<Answers, Problem> {
    if scope.config.spec.csr_approval.client != ClientApproval::Bound {
        return Ok(answers);
    }
    for id in ids {
        answers = answers.and(approve::answer(scope, tenant, id).await?);
    }
    Ok(answers)
}

/// Reports the Nodes, sets their provider IDs, and says when there is something to do again.
async fn follow(
    scope: &Scope<'_>,
    (pool, tenant): (&MachinePool, &Arc<Tenant>),
    (tokens, renewal): (&Tokens, Option<i64>),
    answers: Answers,
    progress: &mut Progress,
) -> Result<Outcome, Problem> {
    let ids: Vec<&str> = tokens.ids().collect();
    // The newest config: an answer may have written a claim.
    let Some(config) = scope.context.configs.get(scope.key) else {
        return Ok(Outcome::Done);
    };
    let before = config.status.as_ref().map_or(&[][..], |status| &status.nodes);
    let patience = claims::patience(&config.spec);
    let exists = |name: &str| tenant.may_have_node(name);
    let foreign = |name: &str| approve::claimed_by(scope.context, &config, name).is_some();
    let nodes = if tenant.nodes_listed() {
        let core = pool.nodes();
        claims::settled(before, core, (&exists, &foreign), scope.now, patience)
    } else {
        before.to_vec()
    };
    tenant.wait_only(scope, &ids, &nodes);
    let settled = settle_provider_ids(scope, pool, tenant, &nodes).await;
    let settled = match settled {
        Ok(ids) => ids,
        Err(problem) if observe::is_failure(&problem) => return Err(problem),
        Err(problem) => Some(PoolIds::Unknown(problem)),
    };
    let again = answers.held.as_ref().map(|held| held.again);
    let report = ids.iter().find_map(|id| tenant.report(id));
    let report = report.or_else(|| config.status.as_ref()?.last_report.clone());
    let held = held(&config, tenant, answers, (&ids, report.as_ref()));
    let next = [
        renewal,
        claims::next_end(nodes.iter(), &exists, scope.now, patience),
        again,
        ids.iter()
            .any(|id| tenant.is_abused_by(scope.key, id))
            .then_some(0),
    ];
    let next = next.into_iter().flatten().min();
    progress.pool = Some(Pool {
        nodes,
        wanted: pool.wanted(),
        former: tokens.former.clone(),
        report,
        held,
        ids: settled,
    });
    if let Some(current) = tokens.current.clone() {
        progress.token = Some(Token::Alive(current));
    }
    Ok(next.map_or(Outcome::Done, |seconds| {
        Outcome::After(Duration::from_secs(seconds.max(1).unsigned_abs()))
    }))
}

/// What a request waits for, or why the last one was denied: until one is approved or a machine reports something else, what
/// was reported before.
fn held(
    config: &KamajiConfig,
    tenant: &Tenant,
    answers: Answers,
    (ids, report): (&[&str], Option<&NodeReport>),
) -> Option<Problem> {
    let unread = || ids.iter().find_map(|id| tenant.unread(Some(id)));
    answers
        .held
        .map(|held| held.problem)
        .or_else(|| answers.denied.map(|denied| status::denied_again(config, denied)))
        .or_else(unread)
        .or_else(|| status::denied_before(config, report).filter(|_| !answers.approved))
        .map(status::Pool::without_count)
}

/// Sets the provider IDs that the infrastructure reports on Nodes that have none, if that is this provider's task. `None`
/// while Nodes were not listed.
async fn settle_provider_ids(
    scope: &Scope<'_>,
    pool: &MachinePool,
    tenant: &Tenant,
    nodes: &[PoolNode],
) -> Result<Option<PoolIds>, Problem> {
    let registration = &scope.settings.registration;
    let external = registration.cloud_provider == Some(CloudProvider::External);
    let ours = match registration.provider_id.source {
        ProviderIdSource::Auto => !external,
        ProviderIdSource::Machine => true,
        ProviderIdSource::CloudProvider | ProviderIdSource::Template | ProviderIdSource::None => false,
    };
    if !ours {
        return Ok(Some(PoolIds::NotOurs));
    }
    if !tenant.nodes_listed() {
        return Ok(None);
    }
    let instances = Instances::of(&scope.observed.pool_machines);
    let mut awaited = Vec::new();
    for node in nodes {
        let Some(facts) = tenant
            .node(&node.name)
            .filter(|facts| facts.provider_id.is_empty())
        else {
            continue;
        };
        drop(facts);
        match instances::provider_id(pool, &instances, &node.name) {
            Some(id) => tenant.session.set_provider_id(&node.name, id).await?,
            None => awaited.push(node.name.clone()),
        }
    }
    Ok(Some(if awaited.is_empty() {
        PoolIds::Set
    } else {
        PoolIds::Awaited(awaited)
    }))
}
