//! Answers certificate requests made with a config's token: the claim is written first, then the approval, so that a
//! crash between the two leaves a name claimed by its rightful owner and nothing approved (bootstrap.md 2.4, step 9).

use std::sync::Arc;

use k8s_openapi::{api::certificates::v1::CertificateSigningRequest, jiff::Timestamp};
use kamaji_api::{
    bootstrap::{KamajiConfig, NodeStatus},
    conditions::Reason,
    labels::{capi, field_manager, ours},
};
use kube::{Api, ResourceExt as _};

use super::{
    Context,
    csr::{self, Decision, Facts, MachineFacts},
    gates::Gate,
    plan,
    status::seconds,
    tenants::{NodeFacts, Tenant},
};
use crate::{
    capi::machine::Machine,
    k8s::{error::Class, key::RootKey, status},
    runtime::driver::Failure,
    tenant::nodes::Trouble,
};

/// What holds the requests up, if something does.
pub struct Held {
    /// For the condition.
    pub gate: Gate,
    /// Seconds after which to look again.
    pub again: i64,
}

/// Answers what is open for `token`.
///
/// # Errors
/// When a claim could not be written, or the tenant did not take the answer.
pub async fn answer(
    context: &Context,
    tenant: &Arc<Tenant>,
    key: &RootKey,
    machine: Option<&Machine>,
    token: &str,
    endpoint_host: &str,
) -> Result<Option<Held>, Failure> {
    let mut held = None;
    for request in tenant.requests(token) {
        let name = request.name_any();
        let asked = match csr::node_of(&request) {
            Ok(node) => node,
            Err(why) => {
                tell(tenant, &request, false, Reason::MalformedRequest, &why).await?;
                tenant.answered(token, &name);
                continue;
            }
        };
        // One claim at a time in a tenant.
        let _claims = tenant.claims.lock().await;
        // The newest config: the last answer may have written a claim.
        let Some(config) = context.configs.get(key) else {
            return Ok(None);
        };
        match decide(
            context,
            tenant,
            &config,
            machine,
            (token, endpoint_host),
            &asked,
            &request,
        )
        .await?
        {
            Decision::NoOpinion => {}
            Decision::Deny(reason, message) => {
                context
                    .events
                    .warn(
                        &*config,
                        reason.as_str(),
                        &format!("denied a certificate for node {asked}: {message}"),
                    )
                    .await;
                tell(tenant, &request, false, reason, &message).await?;
            }
            Decision::Wait(reason, message, again) => {
                held = Some(Held {
                    gate: Gate::closed(reason, message),
                    again,
                });
                continue;
            }
            Decision::Approve(node) => {
                claim(context, &config, &node).await?;
                let message = format!("token {token} of KamajiConfig {key} for node {node}");
                tell(tenant, &request, true, Reason::KamajiTokenBound, &message).await?;
                tenant.wait(key, Some(token), Some(&node));
                tracing::info!(config = %key, node, request = name, "approved the certificate of a node");
            }
        }
        tenant.answered(token, &name);
    }
    Ok(held)
}

async fn decide(
    context: &Context,
    tenant: &Tenant,
    config: &KamajiConfig,
    machine: Option<&Machine>,
    (token, endpoint_host): (&str, &str),
    asked: &str,
    request: &CertificateSigningRequest,
) -> Result<Decision, Failure> {
    let secret = tenant.session.token(token).await.map_err(foreign)?;
    let uid = config.uid().unwrap_or_default();
    let node = tenant.session.node(asked).await.map_err(foreign)?;
    let known = config.status.as_ref().and_then(|status| status.node.as_ref());
    let status = machine.and_then(|machine| machine.status.as_ref());
    let facts = Facts {
        config_deleting: config.metadata.deletion_timestamp.is_some(),
        config_created: config.metadata.creation_timestamp.as_ref().map(|time| time.0),
        token_is_ours: secret.is_some_and(|secret| secret.labels().get(ours::OWNER_UID) == Some(&uid)),
        machine: machine.map(|machine| MachineFacts {
            name: machine.metadata.name.as_deref().unwrap_or_default(),
            deleting: machine.metadata.deletion_timestamp.is_some(),
            node_ref: machine.node(),
            host_names: status
                .into_iter()
                .flat_map(|status| &status.addresses)
                .filter(|address| {
                    ["Hostname", "InternalDNS", "ExternalDNS"].contains(&address.type_.as_str())
                })
                .map(|address| address.address.as_str())
                .collect(),
        }),
        name_source: plan::name_source(&config.spec),
        claimed: known.and_then(|node| node.name.as_deref()),
        approvals: known.and_then(|node| node.approvals).unwrap_or(0),
        endpoint_host,
        node_created: node.as_ref().and_then(|node| NodeFacts::of(node).created),
        claimed_by: claimed_by(context, config, asked),
    };
    let made = request.metadata.creation_timestamp.as_ref().map(|time| time.0);
    let age = made.map_or(0, |made| Timestamp::now().as_second() - made.as_second());
    Ok(csr::decide(asked, &facts, age))
}

/// Another config of the cluster that claimed the name. A scan: once for each request.
fn claimed_by(context: &Context, config: &KamajiConfig, node: &str) -> Option<String> {
    let cluster = config.labels().get(capi::CLUSTER_NAME);
    context
        .configs
        .all()
        .iter()
        .filter(|other| other.uid() != config.uid() && other.namespace() == config.namespace())
        .filter(|other| other.labels().get(capi::CLUSTER_NAME) == cluster)
        .filter(|other| other.metadata.deletion_timestamp.is_none())
        .find(|other| {
            let claim = other.status.as_ref().and_then(|status| status.node.as_ref());
            claim.and_then(|claim| claim.name.as_deref()) == Some(node)
        })
        .map(|other| other.name_any())
}

/// Writes the claim, only if nobody wrote the config meanwhile.
async fn claim(context: &Context, config: &KamajiConfig, node: &str) -> Result<(), Failure> {
    let mut new = config.status.clone().unwrap_or_default();
    let known = new.node.get_or_insert_default();
    *known = NodeStatus {
        name: Some(node.to_owned()),
        claimed_at: known
            .claimed_at
            .clone()
            .or_else(|| Some(seconds(Timestamp::now()))),
        approvals: Some(known.approvals.unwrap_or(0) + 1),
    };
    let api = Api::namespaced(context.client.clone(), &config.namespace().unwrap_or_default());
    status::apply_unchanged(
        &api,
        &context.configs,
        config,
        config.status.as_ref(),
        &new,
        field_manager::BOOTSTRAP,
    )
    .await?;
    Ok(())
}

async fn tell(
    tenant: &Tenant,
    request: &CertificateSigningRequest,
    approve: bool,
    reason: Reason,
    message: &str,
) -> Result<(), Failure> {
    match tenant.session.answer(request, approve, reason, message).await {
        // Gone meanwhile: nobody waits for the answer.
        Ok(()) | Err(Trouble::Refused { code: 404, .. }) => Ok(()),
        Err(error) => Err(foreign(error)),
    }
}

/// Trouble with a tenant as a failure of the pass.
pub fn foreign(error: Trouble) -> Failure {
    let class = match error.code() {
        Some(409) => Class::Conflict,
        _ => Class::Foreign,
    };
    Failure::new(class, error)
}
