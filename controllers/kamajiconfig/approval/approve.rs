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
    bootstrap::KamajiConfig,
    conditions::Reason,
    labels::{field_manager, ours},
};
use kube::{Api, ResourceExt as _};

use super::{
    count,
    csr::{self, Decision, MachineFacts, Requester},
};
use crate::{
    capi::machine::Machine,
    k8s::{
        key::RootKey,
        problem::Problem,
        status::{self, Guard},
    },
    kamajiconfig::{
        Context,
        bootstrapdata::inputs,
        observe::refused,
        owner::Owner,
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
        if tenant.is_abused(key) {
            break;
        }
        let name = request.name_any();
        match decide_and_claim(scope, tenant, token, &request).await? {
            Decision::NoOpinion => {}
            Decision::Deny(reason, message) => {
                send(tenant, &request, false, reason, &message).await?;
                tracing::info!(config = %key, request = name, %reason, message, "denied a certificate request");
                if is_offence(reason) {
                    tenant.note_denial(key);
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
    let decision = decide(scope, &config, &node_name, &in_tenant, request);
    if let Decision::Approve(node) = &decision {
        claim(scope, &config, node, &uid(request)).await?;
    }
    Ok(decision)
}

/// What a decision depends on in the workload cluster.
struct InTenant {
    token: Option<Secret>,
    node: Option<Node>,
}

fn decide(
    scope: &Scope<'_>,
    config: &KamajiConfig,
    node_name: &str,
    in_tenant: &InTenant,
    request: &CertificateSigningRequest,
) -> Decision {
    let config_uid = config.uid().unwrap_or_default();
    let is_ours = |secret: &Secret| secret.labels().get(ours::OWNER_UID) == Some(&config_uid);
    let now = Timestamp::now();
    let node = in_tenant.node.as_ref();
    let known = config.status.as_ref().and_then(|status| status.node.as_ref());
    let requester = Requester {
        config_deleting: config.metadata.deletion_timestamp.is_some(),
        config_created: config.metadata.creation_timestamp.as_ref().map(|time| time.0),
        token_is_ours: in_tenant.token.as_ref().is_some_and(is_ours),
        owner: scope.owner.map(|machine| Some(facts(machine))),
        name_source: inputs::name_source(&scope.settings.registration, &scope.owner),
        claimed: known.and_then(|node| node.name.as_deref()),
        recent_approvals: count::recent(known, &uid(request), now),
        endpoint_hosts: &scope.hosts,
        node_created: node.and_then(|node| NodeFacts::of(node).created),
        claimed_by: claimed_by(scope.context, config, node_name),
    };
    let created = request.metadata.creation_timestamp.as_ref().map(|time| time.0);
    let age = created.map_or(0, |created| now.as_second() - created.as_second());
    csr::decide(node_name, &requester, age)
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
            let claim = other.status.as_ref().and_then(|status| status.node.as_ref());
            claim.and_then(|claim| claim.name.as_deref()) == Some(node)
        })
        .map(|other| other.name_any())
}

/// Writes the claim of a Machine's one node for this request, a UID, unless somebody wrote the config since it was read.
async fn claim(scope: &Scope<'_>, config: &KamajiConfig, node: &str, request: &str) -> Result<(), Problem> {
    match &scope.owner {
        Owner::Machine(_) => {}
        Owner::Pool(pool) => match *pool {},
    }
    let context = scope.context;
    let mut new = config.status.clone().unwrap_or_default();
    new.node = Some(count::approved(
        new.node.as_ref(),
        node,
        request,
        Timestamp::now(),
    ));
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
