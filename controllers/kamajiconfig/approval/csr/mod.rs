//! Decides whether a node's request for its first client certificate is approved. Pure: what was read and the time are
//! arguments; [`super::approve`] reads, claims the name and answers.
//!
//! The token leads to a KamajiConfig, the config to its Machine, the Machine to the one node name that the request may
//! ask for. What a kubelet asks for:
//! <https://kubernetes.io/docs/reference/access-authn-authz/kubelet-tls-bootstrapping/>.

use std::collections::BTreeSet;

use k8s_openapi::{api::certificates::v1::CertificateSigningRequest, jiff::Timestamp};
use kamaji_api::{bootstrap::NameSource, conditions::Reason};
use x509_parser::{
    certification_request::X509CertificationRequest,
    cri_attributes::ParsedCriAttribute,
    oid_registry::{OID_SIG_ED25519, OID_X509_COMMON_NAME, OID_X509_ORGANIZATION_NAME},
    prelude::FromDer as _,
    public_key::PublicKey,
};

use super::count;
use crate::kamajiconfig::names::unfit_for_node;

/// Seconds that a request waits for an older Node of the same name to be deleted.
pub const EXISTING_FOR: i64 = 600;

/// What happens to a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Decision {
    /// It is for others to answer.
    NoOpinion,
    /// It is denied, for good. Reason and message.
    Deny(Reason, String),
    /// It waits: it is decided again after so many seconds, or when something changes. Reason, message, seconds.
    Wait(Reason, String, i64),
    /// It is approved for the node of this name.
    Approve(String),
}

/// Name of the node that the request asks for, if the request is exactly what a kubelet sends.
///
/// # Errors
/// What is wrong with it.
pub fn node_of(request: &CertificateSigningRequest) -> Result<String, String> {
    let spec = &request.spec;
    let usages: BTreeSet<_> = spec.usages.iter().flatten().map(String::as_str).collect();
    let usual = BTreeSet::from(["digital signature", "client auth"]);
    let with_encipherment = BTreeSet::from(["digital signature", "client auth", "key encipherment"]);
    if usages != usual && usages != with_encipherment {
        return Err(format!(
            "its usages are {usages:?}, not those of a kubelet's client certificate"
        ));
    }
    if spec
        .expiration_seconds
        .is_some_and(|seconds| seconds > 366 * 86_400)
    {
        return Err("it asks for a certificate that is valid for more than a year".to_owned());
    }
    let der = only_block(&spec.request.0)?;
    let (rest, parsed) = X509CertificationRequest::from_der(&der)
        .map_err(|_| "it is not a certificate request (PKCS #10)".to_owned())?;
    if !rest.is_empty() {
        return Err("other data follows the request".to_owned());
    }
    let info = &parsed.certification_request_info;
    let asks =
        |attribute: &ParsedCriAttribute<'_>| matches!(attribute, ParsedCriAttribute::ExtensionRequest(_));
    if info
        .iter_attributes()
        .any(|attribute| asks(attribute.parsed_attribute()))
    {
        return Err("it asks for extensions".to_owned());
    }
    let key = &info.subject_pki;
    let strong = match key.parsed() {
        Ok(PublicKey::EC(point)) => point.key_size() >= 256,
        Ok(PublicKey::RSA(rsa)) => rsa.key_size() >= 2048,
        Ok(_) => key.algorithm.algorithm == OID_SIG_ED25519,
        Err(_) => false,
    };
    if !strong {
        return Err("its key is too weak".to_owned());
    }
    parsed
        .verify_signature()
        .map_err(|_| "it is not signed by its own key".to_owned())?;
    let mut names = Vec::new();
    let mut groups = Vec::new();
    for attribute in info.subject.iter_attributes() {
        let text = attribute
            .as_str()
            .map_err(|_| "its subject is not text".to_owned())?;
        if *attribute.attr_type() == OID_X509_COMMON_NAME {
            names.push(text);
        } else if *attribute.attr_type() == OID_X509_ORGANIZATION_NAME {
            groups.push(text);
        } else {
            return Err("its subject has more than a name and an organization".to_owned());
        }
    }
    let ([name], ["system:nodes"]) = (names.as_slice(), groups.as_slice()) else {
        return Err(format!(
            "its organizations are {groups:?}, a kubelet sends one name and system:nodes"
        ));
    };
    let Some(node) = name.strip_prefix("system:node:") else {
        return Err("its common name is not that of a node (system:node:NAME)".to_owned());
    };
    if let Some(why) = unfit_for_node(node) {
        return Err(format!("its common name names no node: {why}"));
    }
    Ok(node.to_owned())
}

/// The content of the one PEM block.
fn only_block(pem: &[u8]) -> Result<Vec<u8>, String> {
    use base64::Engine as _;
    const BEGIN: &str = "-----BEGIN CERTIFICATE REQUEST-----";
    const END: &str = "-----END CERTIFICATE REQUEST-----";
    let text = std::str::from_utf8(pem)
        .map_err(|_| "it is not PEM".to_owned())?
        .trim();
    let body = text
        .strip_prefix(BEGIN)
        .and_then(|text| text.strip_suffix(END))
        .filter(|body| !body.contains("-----"))
        .ok_or("it is not exactly one PEM block of a request")?;
    let packed: String = body.chars().filter(|c| !c.is_ascii_whitespace()).collect();
    base64::engine::general_purpose::STANDARD
        .decode(packed)
        .map_err(|_| "it is not PEM".to_owned())
}

/// The KamajiConfig whose token authenticated the request, and what else a decision depends on.
#[derive(Clone, Debug)]
pub struct Requester<'a> {
    /// The config is being deleted.
    pub config_deleting: bool,
    /// When the config was created.
    pub config_created: Option<Timestamp>,
    /// The token's Secret in the workload cluster carries this config's UID.
    pub token_is_ours: bool,
    /// What is known of the Machine that owns it, if it exists. A request for a MachinePool is none of a Machine: see
    /// [`super::pool`].
    pub machine: Option<MachineFacts<'a>>,
    /// Where the node's name comes from.
    pub name_source: NameSource,
    /// Name that the config claimed already; of a pool, the requested one if it is claimed.
    pub claimed: Option<&'a str>,
    /// `csrApproval.nodeNamePattern` does not match the requested name.
    pub misfits: bool,
    /// Other requests that were approved a short time ago.
    pub recent_approvals: usize,
    /// Host names of the API server, in lower case.
    pub endpoint_hosts: &'a [String],
    /// When the Node of the requested name was created, if there is one.
    pub node_created: Option<Timestamp>,
    /// Another config of the Cluster that claimed the name.
    pub claimed_by: Option<String>,
}

/// What a decision depends on of a Machine.
#[derive(Clone, Debug)]
pub struct MachineFacts<'a> {
    /// Name.
    pub name: &'a str,
    /// It is being deleted.
    pub deleting: bool,
    /// Its node, once Cluster API set `status.nodeRef`.
    pub node_ref: Option<&'a str>,
    /// Host names in its `status.addresses`.
    pub host_names: Vec<&'a str>,
}

/// Decides about a well-formed request for `node` that was created `age_seconds` ago.
pub fn decide(node: &str, requester: &Requester<'_>, age_seconds: i64) -> Decision {
    use Decision::{Deny, Wait};
    if let Some(refusal) = unknown_token(requester) {
        return refusal;
    }
    let Some(machine) = &requester.machine else {
        let message = "the Machine of the token does not exist yet".to_owned();
        return Wait(Reason::MachineNotEligible, message, 5);
    };
    if machine.deleting {
        return Deny(
            Reason::MachineNotEligible,
            "the Machine of the token is being deleted".to_owned(),
        );
    }
    if machine.node_ref.is_some_and(|name| name != node) {
        return Deny(
            Reason::MachineNotEligible,
            "the Machine of the token has another node".to_owned(),
        );
    }
    if let Some(why) = forbidden(node, requester) {
        return Deny(Reason::NameMismatch, why.to_owned());
    }
    if let Some(expected) = mismatch(node, machine, requester.name_source) {
        return Deny(Reason::NameMismatch, format!("the token is for {expected}"));
    }
    if requester.claimed.is_some_and(|name| name != node) {
        return Deny(
            Reason::NameMismatch,
            "a request with the same token claimed another name".to_owned(),
        );
    }
    if let Some(other) = &requester.claimed_by {
        return Deny(
            Reason::NameClaimed,
            format!("KamajiConfig {other} claimed the requested name"),
        );
    }
    if let Some(created) = requester.node_created {
        let again = requester.claimed == Some(node)
            && machine.node_ref.is_none()
            && requester.config_created.is_some_and(|config| created >= config);
        if !again {
            return exists(node, age_seconds);
        }
    }
    within_rate(node, requester)
}

/// Denies requests with a token that is not the config's.
pub(super) fn unknown_token(requester: &Requester<'_>) -> Option<Decision> {
    (requester.config_deleting || !requester.token_is_ours).then(|| {
        let message = "the token belongs to no KamajiConfig".to_owned();
        Decision::Deny(Reason::UnknownToken, message)
    })
}

/// Why no machine of the config may have the name, whatever else is known.
pub(super) fn forbidden(node: &str, requester: &Requester<'_>) -> Option<&'static str> {
    if requester.endpoint_hosts.iter().any(|host| host == node) {
        Some("the requested name is that of the API server")
    } else if requester.misfits {
        Some("the requested name does not match spec.csrApproval.nodeNamePattern")
    } else {
        None
    }
}

/// A Node of the name exists: the request waits for its deletion, and is denied in the end.
pub(super) fn exists(node: &str, age_seconds: i64) -> Decision {
    let message = format!("Node {node} exists already: delete it to let the machine join");
    if age_seconds < EXISTING_FOR {
        Decision::Wait(Reason::NodeExists, message, EXISTING_FOR - age_seconds)
    } else {
        Decision::Deny(Reason::NodeExists, message)
    }
}

/// Approves, unless requests for the node were approved too often.
pub(super) fn within_rate(node: &str, requester: &Requester<'_>) -> Decision {
    if requester.recent_approvals < count::MOST {
        return Decision::Approve(node.to_owned());
    }
    Decision::Deny(
        Reason::TooMany,
        format!(
            "{} requests of the machine were approved within 15 minutes: a later one is approved again",
            count::MOST
        ),
    )
}

/// The name that a request for the Machine has to ask for, if it is another one than `node`. If none is known, the first
/// claim counts.
fn mismatch(node: &str, machine: &MachineFacts<'_>, source: NameSource) -> Option<String> {
    if source == NameSource::MachineName {
        return (node != machine.name).then(|| machine.name.to_owned());
    }
    let known = |name: &&str| {
        let name = name.trim_end_matches('.').to_ascii_lowercase();
        name == node || name.split('.').next() == Some(node)
    };
    let names = &machine.host_names;
    (!names.is_empty() && !names.iter().any(known)).then(|| names.join(" or "))
}

#[cfg(test)]
pub(super) mod tests;
