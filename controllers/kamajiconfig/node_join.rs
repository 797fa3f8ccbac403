//! Second half of a pass, after the data is out: requests are answered, the token lives until the node is there, then
//! the rest is settled.

use std::{sync::Arc, time::Duration};

use kamaji_api::{
    bootstrap::{ClientApproval, CloudProvider, KamajiConfig, ProviderIdSource, VersionCheck},
    conditions::{KamajiConfigCondition, Reason},
};
use semver::Version;

use super::{
    approval::approve::{self, Answers},
    data_secret::{Known, secret::Life},
    reconcile::{Pass, node_name},
    status::{self, Node, Progress, ProviderId},
    stop::Stop,
    tenants::{NodeFacts, Tenant},
};
use crate::{capi::machine::Machine, k8s::conditions, runtime::driver::Outcome};

/// After the data is out.
///
/// # Errors
/// When something could not be written, or the tenant does not answer.
pub async fn follow(
    pass: &Pass<'_>,
    tenant: &Arc<Tenant>,
    token: Known,
    progress: &mut Progress,
) -> Result<Outcome, Stop> {
    let (context, key, machine, now) = (pass.context, pass.key, pass.machine, pass.now);
    let joined_once = status::joined_once(pass.config);
    if joined_once && !tenant.nodes_listed() {
        // What is said about the node stays until the watch has listed, which wakes this config.
        return Ok(Outcome::Done);
    }
    let id = token.as_ref().and_then(|token| token.id.clone());
    let mut answers = Answers::default();
    if let Some(id) = &id
        && pass.config.spec.csr_approval.client == ClientApproval::Bound
    {
        answers = approve::answer(context, tenant, key, machine, id, &pass.hosts()).await?;
    }
    let Some(config) = context.configs.get(key) else {
        return Ok(Outcome::Done);
    };
    if let Some((name, node)) = joined(&config, machine, tenant) {
        if let Some(id) = &id {
            tenant.session.delete_token(id).await?;
            tenant.note_end(id);
        }
        progress.token = Some(status::Token::Removed(format!("Node {name} joined")));
        let (provider_id, outcome) = match settle_provider_id(&config, machine, tenant, &name, &node).await {
            Ok(provider_id) => (provider_id, Outcome::Done),
            Err(Stop::Closed(gate, outcome)) => (ProviderId::Unknown(gate), outcome),
            Err(failed @ Stop::Failed(_)) => return Err(failed),
        };
        let settled = !matches!(provider_id, ProviderId::Awaited | ProviderId::Unknown(_));
        progress.node = Some(Node::Joined {
            version: version_of(&config, machine, &node.kubelet_version),
            provider_id,
            name,
        });
        if settled {
            context.tenants.leave(&pass.cluster, key);
        }
        return Ok(outcome);
    }
    if joined_once {
        let name = node_name(&config, machine).unwrap_or_default();
        progress.node = Some(Node::Gone(name));
        return Ok(Outcome::Done);
    }
    // Reports are events: they end, or are not listed yet, while what they said still holds.
    let report = id
        .as_deref()
        .and_then(|id| tenant.report(id))
        .or_else(|| config.status.as_ref()?.last_report.clone());
    let again = answers.held.as_ref().map(|held| held.again);
    let held = answers.held.map(|held| held.gate).or(answers.denied).or_else(|| {
        let before = status::denied_before(&config, report.as_ref());
        before.filter(|_| !answers.approved)
    });
    progress.node = Some(Node::Waiting { report, held });
    let Some(token) = token else {
        return Ok(Outcome::Done);
    };
    let life = Life::of(&config);
    let created = token.created.as_ref().map_or(now, |time| time.0);
    let end = token.expiration.as_ref().map_or(now, |time| time.0);
    if life.over(created, now) {
        progress.token = Some(status::Token::Ended(token));
        return Ok(after(again));
    }
    let next = if life.last(created, end) {
        end.as_second() - now.as_second()
    } else {
        life.due_in(end, now)
    };
    progress.token = Some(status::Token::Alive(token));
    let next = again.map_or(next, |again| next.min(again));
    Ok(after(Some(next)))
}

fn after(seconds: Option<i64>) -> Outcome {
    seconds.map_or(Outcome::Done, |seconds| {
        Outcome::After(Duration::from_secs(seconds.max(1).unsigned_abs()))
    })
}

/// The node: the one this config claimed, or the one core bound the Machine to.
fn joined(config: &KamajiConfig, machine: &Machine, tenant: &Tenant) -> Option<(String, NodeFacts)> {
    let claim = config
        .status
        .as_ref()
        .and_then(|status| status.node.as_ref()?.name.clone());
    let by_id = || {
        // Adopted: the same provider id proves it as well.
        let name = node_name(config, machine)?;
        let node = tenant.node(&name)?;
        let id = &machine.spec.provider_id;
        (!id.is_empty() && node.provider_id == *id).then_some(name)
    };
    let name = claim
        .or_else(|| machine.node().map(ToOwned::to_owned))
        .or_else(by_id)?;
    let node = tenant.node(&name)?;
    Some((name, node))
}

async fn settle_provider_id(
    config: &KamajiConfig,
    machine: &Machine,
    tenant: &Tenant,
    name: &str,
    node: &NodeFacts,
) -> Result<ProviderId, Stop> {
    let registration = &config.spec.node_registration;
    let external = registration.cloud_provider == Some(CloudProvider::External);
    let ours = match registration.provider_id.source {
        ProviderIdSource::Auto => !external,
        ProviderIdSource::Machine => true,
        ProviderIdSource::CloudProvider | ProviderIdSource::Template | ProviderIdSource::None => false,
    };
    let wanted = machine.spec.provider_id.as_str();
    if !ours {
        return Ok(ProviderId::NotOurs);
    }
    if wanted.is_empty() {
        return Ok(ProviderId::Awaited);
    }
    if node.provider_id.is_empty() {
        tenant.session.set_provider_id(name, wanted).await?;
        return Ok(ProviderId::Set);
    }
    Ok(if node.provider_id == wanted {
        ProviderId::Set
    } else {
        ProviderId::Mismatch(node.provider_id.clone())
    })
}

/// The node's version against the Machine's.
fn version_of(config: &KamajiConfig, machine: &Machine, found: &str) -> Result<String, String> {
    let parse = |text: &str| Version::parse(text.trim_start_matches('v')).ok();
    let (Some(have), Some(want)) = (parse(found), parse(&machine.spec.version)) else {
        return Ok(found.to_owned());
    };
    let same_minor = (have.major, have.minor) == (want.major, want.minor);
    let same = same_minor && have.patch == want.patch;
    let fits = match config.spec.version_check {
        VersionCheck::Off => true,
        VersionCheck::Minor => same_minor,
        VersionCheck::Exact => same,
    };
    if fits {
        Ok(found.to_owned())
    } else {
        Err(format!(
            "the kubelet is {found}, the Machine asks for {}",
            machine.spec.version
        ))
    }
}

/// The machine joined and nothing is left to do for it.
pub fn finished(config: &KamajiConfig, machine: &Machine) -> bool {
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
