//! Whether a node's request for its first client certificate is approved: token → KamajiConfig → Machine → name
//! (bootstrap.md 2.4). Pure: what was read and the time are arguments. Claiming the name and approving stand in
//! [`super::approve`].

use std::collections::BTreeSet;

use k8s_openapi::{api::certificates::v1::CertificateSigningRequest, jiff::Timestamp};
use kamaji_api::{bootstrap::NameSource, conditions::Reason, labels::ours};
use x509_parser::{
    certification_request::X509CertificationRequest,
    cri_attributes::ParsedCriAttribute,
    oid_registry::{OID_SIG_ED25519, OID_X509_COMMON_NAME, OID_X509_ORGANIZATION_NAME},
    prelude::FromDer as _,
    public_key::PublicKey,
};

use crate::{kamajiconfig::token, tenant::bootstrap_role::CLIENT_SIGNER};

/// Most approvals of one config: a kubelet that restarts asks again.
const MOST_APPROVALS: i32 = 5;
/// How long a request of a token that is not known here waits before it is denied.
pub const UNKNOWN_FOR: i64 = 30;
/// How long a request waits for a Node of that name to go.
pub const EXISTING_FOR: i64 = 600;

/// What is done about a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Decision {
    /// Not ours to answer.
    NoOpinion,
    /// No, for good.
    Deny(Reason, String),
    /// Not yet: look again after so many seconds, or when something changes.
    Wait(Reason, String, i64),
    /// Yes, for this node.
    Approve(String),
}

/// The token a request was made with, when it is one of ours and nobody decided yet (steps 0 and 1).
pub fn token_of(request: &CertificateSigningRequest) -> Option<&str> {
    let spec = &request.spec;
    let decided = request.status.as_ref().is_some_and(|status| {
        status.certificate.is_some() || status.conditions.as_ref().is_some_and(|list| !list.is_empty())
    });
    let group = spec
        .groups
        .iter()
        .flatten()
        .any(|group| group == ours::NODE_BOOTSTRAP_GROUP);
    if decided || !group || spec.signer_name != CLIENT_SIGNER {
        return None;
    }
    token::id_of_user(spec.username.as_deref()?)
}

/// The node a request asks for, when it is just what a kubelet sends (steps 2 and 3).
///
/// # Errors
/// What is wrong with it.
pub fn node_of(request: &CertificateSigningRequest) -> Result<String, String> {
    let spec = &request.spec;
    let usages: BTreeSet<_> = spec.usages.iter().flatten().map(String::as_str).collect();
    let wanted = BTreeSet::from(["digital signature", "client auth"]);
    let with_encipherment = BTreeSet::from(["digital signature", "client auth", "key encipherment"]);
    if usages != wanted && usages != with_encipherment {
        return Err(format!("usages are {usages:?}"));
    }
    if spec
        .expiration_seconds
        .is_some_and(|seconds| seconds > 366 * 86_400)
    {
        return Err("it asks for more than a year".to_owned());
    }
    let der = only_block(&spec.request.0)?;
    let (rest, parsed) =
        X509CertificationRequest::from_der(&der).map_err(|_| "it does not parse".to_owned())?;
    if !rest.is_empty() {
        return Err("data follows the request".to_owned());
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
        return Err(format!("its organizations are {groups:?}"));
    };
    let Some(node) = name.strip_prefix("system:node:") else {
        return Err("its name is not that of a node".to_owned());
    };
    if !can_be_node(node) {
        return Err("no node can have that name".to_owned());
    }
    Ok(node.to_owned())
}

/// The one PEM block.
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

/// Whether a node can have this name: a DNS name, and none by which pods or people reach the API server or themselves.
pub fn can_be_node(name: &str) -> bool {
    let first = name.split('.').next().unwrap_or_default();
    is_dns_name(name) && first != "kubernetes" && name != "localhost"
}

/// RFC 1123 subdomain.
pub fn is_dns_name(text: &str) -> bool {
    let edge = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    let label = |label: &str| {
        let bytes = label.as_bytes();
        bytes.len() <= 63
            && bytes.first().is_some_and(|byte| edge(*byte))
            && bytes.last().is_some_and(|byte| edge(*byte))
            && bytes.iter().all(|byte| edge(*byte) || *byte == b'-')
    };
    text.len() <= 253 && text.split('.').all(label)
}

/// What a decision depends on beside the request.
#[derive(Clone, Debug)]
pub struct Facts<'a> {
    /// The config is being deleted.
    pub config_deleting: bool,
    /// When the config was made.
    pub config_created: Option<Timestamp>,
    /// The token's Secret in the tenant is this config's.
    pub token_is_ours: bool,
    /// The Machine, if it exists.
    pub machine: Option<MachineFacts<'a>>,
    /// Where the node's name comes from.
    pub name_source: NameSource,
    /// Name this config claimed already.
    pub claimed: Option<&'a str>,
    /// Approvals so far.
    pub approvals: i32,
    /// Hosts of the API server, in lower case.
    pub endpoint_hosts: &'a [String],
    /// When the Node of that name was made, if there is one.
    pub node_created: Option<Timestamp>,
    /// Another config of the cluster that claimed the name.
    pub claimed_by: Option<String>,
}

/// What a decision depends on of the Machine.
#[derive(Clone, Debug)]
pub struct MachineFacts<'a> {
    /// Name.
    pub name: &'a str,
    /// It is being deleted.
    pub deleting: bool,
    /// Its node, once core knows.
    pub node_ref: Option<&'a str>,
    /// Host names it reports.
    pub host_names: Vec<&'a str>,
}

/// Steps 4 to 7 of the algorithm, for the node that a well-formed request asks for.
pub fn decide(node: &str, facts: &Facts<'_>, age_seconds: i64) -> Decision {
    use Decision::{Approve, Deny, Wait};
    if facts.config_deleting || !facts.token_is_ours {
        return Deny(
            Reason::UnknownToken,
            "the token is not that of a living KamajiConfig".to_owned(),
        );
    }
    let Some(machine) = &facts.machine else {
        return Wait(
            Reason::MachineNotEligible,
            "its Machine is not known yet".to_owned(),
            5,
        );
    };
    if machine.deleting {
        return Deny(
            Reason::MachineNotEligible,
            "its Machine is being deleted".to_owned(),
        );
    }
    if machine.node_ref.is_some_and(|name| name != node) {
        return Deny(
            Reason::MachineNotEligible,
            "its Machine has another node".to_owned(),
        );
    }
    if facts.endpoint_hosts.iter().any(|host| host == node) {
        return Deny(Reason::NameMismatch, "that is the API server's name".to_owned());
    }
    if let Some(expected) = mismatch(node, machine, facts.name_source) {
        return Deny(Reason::NameMismatch, format!("the token is for {expected}"));
    }
    if facts.claimed.is_some_and(|name| name != node) {
        return Deny(Reason::NameMismatch, "the token claimed another name".to_owned());
    }
    if let Some(other) = &facts.claimed_by {
        return Deny(
            Reason::NameClaimed,
            format!("KamajiConfig {other} claimed the name"),
        );
    }
    if let Some(created) = facts.node_created {
        let again = facts.claimed == Some(node)
            && machine.node_ref.is_none()
            && facts.config_created.is_some_and(|config| created >= config);
        if !again {
            let message = format!("a Node {node} exists already");
            return if age_seconds < EXISTING_FOR {
                Wait(Reason::NodeExists, message, EXISTING_FOR - age_seconds)
            } else {
                Deny(Reason::NodeExists, message)
            };
        }
    }
    if facts.approvals >= MOST_APPROVALS {
        return Deny(
            Reason::TooMany,
            format!("{MOST_APPROVALS} requests were approved already"),
        );
    }
    Approve(node.to_owned())
}

/// The name the Machine stands for, when it is another one. Without any, the first claim counts.
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
mod tests;
