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

use super::csr::{self, Decision, Facts, MachineFacts};
use crate::{
    capi::machine::Machine,
    k8s::{
        key::RootKey,
        status::{self, Guard},
    },
    kamajiconfig::{
        Context,
        bootstrapdata::inputs,
        preconditions::Gate,
        status::seconds,
        stop::Stop,
        tenants::{NodeFacts, Tenant},
    },
    tenant::nodes::Trouble,
};

/// What came of the requests.
#[derive(Default)]
pub struct Answers {
    /// What holds one up.
    pub held: Option<Held>,
    /// Why the last one was denied.
    pub denied: Option<Gate>,
    /// One was approved.
    pub approved: bool,
}

/// What holds a request up.
pub struct Held {
    /// For the condition.
    pub gate: Gate,
    /// Seconds after which to look again.
    pub again: i64,
}

/// Answers what is open for `token`. `hosts` are those of the API server.
///
/// # Errors
/// When a claim could not be written, or the tenant did not take the answer.
pub async fn answer(
    context: &Context,
    tenant: &Arc<Tenant>,
    key: &RootKey,
    machine: &Machine,
    token: &str,
    hosts: &[String],
) -> Result<Answers, Stop> {
    let mut answers = Answers::default();
    for request in tenant.requests(token) {
        let name = request.name_any();
        let well_formed = csr::node_of(&request);
        // One claim at a time in a tenant.
        let _claims = tenant.claims.lock().await;
        // The newest config: the last answer may have written a claim.
        let Some(config) = context.configs.get(key) else {
            return Ok(answers);
        };
        let decision = match &well_formed {
            Ok(asked) => decide(context, tenant, &config, machine, (token, hosts), asked, &request).await?,
            Err(why) => Decision::Deny(Reason::MalformedRequest, why.clone()),
        };
        match decision {
            Decision::NoOpinion => {}
            Decision::Deny(reason, message) => {
                let asked = well_formed.map_or_else(|_| String::new(), |node| format!(" for node {node}"));
                let note = format!("denied certificate request {name}{asked}: {message}");
                tell(tenant, &request, false, reason, &message).await?;
                context.events.warn(&*config, reason.as_str(), &note).await;
                answers.denied = Some(Gate::closed(reason, note));
            }
            Decision::Wait(reason, message, again) => {
                answers.held = Some(Held {
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
                answers.approved = true;
                tracing::info!(config = %key, node, request = name, "approved the certificate of a node");
            }
        }
        tenant.answered(&name);
    }
    Ok(answers)
}

async fn decide(
    context: &Context,
    tenant: &Tenant,
    config: &KamajiConfig,
    machine: &Machine,
    (token, endpoint_hosts): (&str, &[String]),
    asked: &str,
    request: &CertificateSigningRequest,
) -> Result<Decision, Stop> {
    let secret = tenant.session.token(token).await?;
    let uid = config.uid().unwrap_or_default();
    let node = tenant.session.node(asked).await?;
    let known = config.status.as_ref().and_then(|status| status.node.as_ref());
    let status = machine.status.as_ref();
    let facts = Facts {
        config_deleting: config.metadata.deletion_timestamp.is_some(),
        config_created: config.metadata.creation_timestamp.as_ref().map(|time| time.0),
        token_is_ours: secret.is_some_and(|secret| secret.labels().get(ours::OWNER_UID) == Some(&uid)),
        machine: Some(MachineFacts {
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
        name_source: inputs::name_source(&config.spec),
        claimed: known.and_then(|node| node.name.as_deref()),
        approvals: known.and_then(|node| node.approvals).unwrap_or(0),
        endpoint_hosts,
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
async fn claim(context: &Context, config: &KamajiConfig, node: &str) -> Result<(), Stop> {
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
    status::apply(
        &api,
        &context.configs,
        config,
        &new,
        field_manager::BOOTSTRAP,
        Guard::Unchanged,
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
) -> Result<(), Stop> {
    match tenant.session.answer(request, approve, reason, message).await {
        // Gone meanwhile: nobody waits for the answer.
        Ok(()) | Err(Trouble::Refused { code: 404, .. }) => Ok(()),
        Err(error) => Err(error.into()),
    }
}
