//! Once the data exists: answers certificate requests until the Node joins, then deletes the token, sets the provider ID and
//! compares the version.

use std::{sync::Arc, time::Duration};

use kamaji_api::{
    bootstrap::{ClientApproval, CloudProvider, KamajiConfig, ProviderIdSource, TokenStatus, VersionCheck},
    conditions::{KamajiConfigCondition, Reason},
};

use super::{
    approval::approve::{self, Answers},
    observe::is_failure,
    owner::Owner,
    scope::Scope,
    settings::Settings,
    status::{self, Node, Progress, ProviderId, Token},
    tenants::{NodeFacts, Tenant},
};
use crate::{
    capi::machine::Machine,
    k8s::{conditions, problem::Problem, version},
    runtime::driver::Outcome,
    tenant,
};

/// Follows the join of the owner's machine. `token` is the token of the data, if it is still needed.
///
/// # Errors
/// When something could not be written, or the workload cluster does not answer.
pub async fn follow(
    scope: &Scope<'_>,
    tenant: &Arc<Tenant>,
    token: Option<TokenStatus>,
    progress: &mut Progress,
) -> Result<Outcome, Problem> {
    match &scope.owner {
        Owner::Machine(machine) => follow_machine(scope, machine, tenant, token, progress).await,
        Owner::Pool(pool) => match *pool {},
    }
}

async fn follow_machine(
    scope: &Scope<'_>,
    machine: &Machine,
    tenant: &Arc<Tenant>,
    token: Option<TokenStatus>,
    progress: &mut Progress,
) -> Result<Outcome, Problem> {
    let has_joined = status::has_joined(scope.config);
    if has_joined && !tenant.nodes_listed() {
        // What was reported of the Node stays until Nodes are listed, which wakes this config.
        progress.node = tenant.unread(None).map(Node::Unsettled);
        return Ok(Outcome::Done);
    }
    let id = token.as_ref().and_then(|token| token.id.clone());
    let abused = status::is_abused(scope.config);
    let answers = match (&id, scope.config.spec.csr_approval.client) {
        (Some(id), ClientApproval::Bound) if !abused => approve::answer(scope, tenant, id).await?,
        (
            None | Some(_),
            ClientApproval::Bound | ClientApproval::ControllerManager | ClientApproval::External,
        ) => Answers::default(),
    };
    // The newest config: an answer may have written a claim.
    let Some(config) = scope.context.configs.get(scope.key) else {
        return Ok(Outcome::Done);
    };
    if let Some((name, node)) = joined_node(scope, &config, machine, tenant) {
        if let Some(id) = &id {
            tenant.session.delete_token(id).await?;
            tenant.note_end(id);
        }
        progress.token = Some(Token::Removed(format!("Node {name} joined")));
        let provider_id = settle_provider_id(&scope.settings, machine, tenant, &name, &node).await;
        return complete(scope, machine, (name, &node), provider_id, progress);
    }
    if has_joined {
        let name = scope.node_name_of(&config, machine).unwrap_or_default();
        progress.node = Some(Node::Gone(name));
        return Ok(Outcome::Done);
    }
    Ok(wait_for_node(scope, &config, tenant, token, answers, progress).await)
}

/// Reports a Node that joined. If nothing is left to do, the config no longer waits in the workload cluster.
fn complete(
    scope: &Scope<'_>,
    machine: &Machine,
    (name, node): (String, &NodeFacts),
    provider_id: Result<ProviderId, tenant::Error>,
    progress: &mut Progress,
) -> Result<Outcome, Problem> {
    let (provider_id, outcome) = match provider_id.map_err(Problem::from) {
        Ok(provider_id) => (provider_id, Outcome::Done),
        Err(problem) if is_failure(&problem) => return Err(problem),
        Err(problem) => {
            let outcome = problem.clone().settle().unwrap_or(Outcome::Waiting);
            (ProviderId::Unknown(problem), outcome)
        }
    };
    let settled = match &provider_id {
        ProviderId::Set | ProviderId::NotOurs | ProviderId::Mismatch(_) => true,
        ProviderId::Awaited | ProviderId::Unknown(_) => false,
    };
    progress.node = Some(Node::Joined {
        version: version_of(&scope.settings, machine, &node.kubelet_version),
        provider_id,
        name,
    });
    if settled {
        scope.context.tenants.leave(&scope.cluster, scope.key);
    }
    Ok(outcome)
}

/// Reports what the machine waits for, and when the token has to be extended.
async fn wait_for_node(
    scope: &Scope<'_>,
    config: &KamajiConfig,
    tenant: &Tenant,
    token: Option<TokenStatus>,
    answers: Answers,
    progress: &mut Progress,
) -> Outcome {
    // Reports are Events, which expire and may not be listed yet. The last one holds until there is another.
    let report = token
        .as_ref()
        .and_then(|token| tenant.report(token.id.as_deref()?))
        .or_else(|| config.status.as_ref()?.last_report.clone());
    let again = answers.held.as_ref().map(|held| held.again);
    let held = answers
        .held
        .map(|held| held.problem)
        .or_else(|| answers.denied.map(|denied| status::denied_again(config, denied)))
        .or_else(|| tenant.unread(token.as_ref().and_then(|token| token.id.as_deref())))
        .or_else(|| {
            let before = status::denied_before(config, report.as_ref());
            before.filter(|_| !answers.approved)
        });
    progress.node = Some(Node::Waiting { report, held });
    let Some(token) = token else {
        return Outcome::Done;
    };
    if status::is_abused(scope.config) || tenant.is_abused(scope.key) {
        return end_abused(scope, tenant, token, progress).await;
    }
    let (lifetime, now) = (scope.lifetime(), scope.now);
    let created = token.created.as_ref().map_or(now, |time| time.0);
    let end = token.expiration.as_ref().map_or(now, |time| time.0);
    if lifetime.is_over(created, now) {
        progress.token = Some(Token::Ended(token));
        return again.map_or(Outcome::Done, after);
    }
    let next = if lifetime.is_last(created, end) {
        end.as_second() - now.as_second()
    } else {
        lifetime.due_in(end, now)
    };
    progress.token = Some(Token::Alive(token));
    after(again.map_or(next, |again| next.min(again)))
}

/// Ends a token whose bearer asks for what it may not have, or reports without end. The Node is still awaited, for the
/// machine may have its certificate already. What is reported is whether the workload cluster deleted it.
async fn end_abused(
    scope: &Scope<'_>,
    tenant: &Tenant,
    token: TokenStatus,
    progress: &mut Progress,
) -> Outcome {
    let id = token.id.clone().unwrap_or_default();
    tenant.ignore(&id);
    let ended = status::is_abuse_ended(scope.config);
    let (deleted, outcome) = if ended && tenant.has_token(&id) == Some(false) {
        (true, Outcome::Done)
    } else {
        match tenant.session.delete_token(&id).await {
            Ok(()) => {
                tenant.note_end(&id);
                (true, Outcome::Done)
            }
            Err(error) => {
                tracing::info!(token = id, %error, "cannot delete a token that is abused, tries again");
                // While tokens are not listed, what was reported holds.
                (ended && tenant.has_token(&id).is_none(), Outcome::Waiting)
            }
        }
    };
    progress.token = Some(Token::Abused { token, deleted });
    outcome
}

fn after(seconds: i64) -> Outcome {
    Outcome::After(Duration::from_secs(seconds.max(1).unsigned_abs()))
}

/// The Node of the machine, if it joined: the one that the config claimed, else the one that Cluster API found, else one
/// with the node name and the provider ID of the Machine, after `clusterctl move`.
fn joined_node(
    scope: &Scope<'_>,
    config: &KamajiConfig,
    machine: &Machine,
    tenant: &Tenant,
) -> Option<(String, NodeFacts)> {
    let claim = config
        .status
        .as_ref()
        .and_then(|status| status.node.as_ref()?.name.clone());
    let by_provider_id = || {
        let name = scope.node_name_of(config, machine)?;
        let node = tenant.node(&name)?;
        let id = &machine.spec.provider_id;
        (!id.is_empty() && node.provider_id == *id).then_some(name)
    };
    let name = claim
        .or_else(|| machine.node().map(ToOwned::to_owned))
        .or_else(by_provider_id)?;
    let node = tenant.node(&name)?;
    Some((name, node))
}

/// Sets the Machine's provider ID on the Node, if that is this provider's task and the Node has none.
async fn settle_provider_id(
    settings: &Settings,
    machine: &Machine,
    tenant: &Tenant,
    name: &str,
    node: &NodeFacts,
) -> Result<ProviderId, tenant::Error> {
    let registration = &settings.registration;
    let external = registration.cloud_provider == Some(CloudProvider::External);
    let ours = match registration.provider_id.source {
        ProviderIdSource::Auto => !external,
        ProviderIdSource::Machine => true,
        ProviderIdSource::CloudProvider | ProviderIdSource::Template | ProviderIdSource::None => false,
    };
    let desired = machine.spec.provider_id.as_str();
    if !ours {
        return Ok(ProviderId::NotOurs);
    }
    if desired.is_empty() {
        return Ok(ProviderId::Awaited);
    }
    if node.provider_id.is_empty() {
        tenant.session.set_provider_id(name, desired).await?;
        return Ok(ProviderId::Set);
    }
    Ok(if node.provider_id == desired {
        ProviderId::Set
    } else {
        ProviderId::Mismatch(node.provider_id.clone())
    })
}

/// Compares the version of the Node with that of the Machine.
fn version_of(settings: &Settings, machine: &Machine, found: &str) -> Result<String, String> {
    let (Some(have), Some(want)) = (version::parse(found), version::parse(&machine.spec.version)) else {
        return Ok(found.to_owned());
    };
    let same_minor = (have.major, have.minor) == (want.major, want.minor);
    // Cluster API compares what follows the patch version too.
    let same = have == want;
    let fits = match settings.version_check {
        VersionCheck::Off => true,
        VersionCheck::Minor => same_minor,
        VersionCheck::Exact => same,
    };
    if fits {
        Ok(found.to_owned())
    } else {
        Err(format!(
            "the kubelet has version {found}, spec.version of the Machine is {}: use a machine image of that version",
            machine.spec.version
        ))
    }
}

/// The machine joined and nothing is left to do.
pub fn is_complete(config: &KamajiConfig, owner: &Owner<Arc<Machine>>) -> bool {
    let machine = match owner {
        Owner::Machine(machine) => machine,
        Owner::Pool(pool) => match *pool {},
    };
    let Some(status) = &config.status else {
        return false;
    };
    let is = |condition: KamajiConfigCondition| conditions::is_true(&status.conditions, condition.as_str());
    let id = conditions::get(&status.conditions, KamajiConfigCondition::ProviderIDSet.as_str());
    let settled =
        id.is_some_and(|id| id.status == "True" || id.reason == Reason::ProviderIDMismatch.as_str());
    let same_node = machine.node().is_none_or(|node| {
        status
            .node
            .as_ref()
            .and_then(|known| known.name.as_deref())
            .is_none_or(|known| known == node)
    });
    status.token.is_none() && is(KamajiConfigCondition::NodeJoined) && settled && same_node
}
