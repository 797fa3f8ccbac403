//! Client certificate requests of kubelets, and what a stranger sends instead.

use k8s_openapi::{
    ByteString,
    api::certificates::v1::{
        CertificateSigningRequest, CertificateSigningRequestCondition, CertificateSigningRequestSpec,
        CertificateSigningRequestStatus,
    },
    jiff::Timestamp,
};
use kamaji_api::{bootstrap::NameSource, conditions::Reason};
use rcgen::{
    CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, KeyPair, PKCS_ECDSA_P256_SHA256,
    PKCS_ECDSA_P384_SHA384, PKCS_ED25519, PKCS_RSA_SHA256, SignatureAlgorithm,
};
use rstest::rstest;

use super::{Decision, EXISTING_FOR, MachineFacts, Requester, decide, node_of};
use crate::kamajiconfig::tenants::requests::token_of;

fn pem_of(params: &CertificateParams, algorithm: &'static SignatureAlgorithm) -> String {
    let key = KeyPair::generate_for(algorithm).unwrap();
    params.serialize_request(&key).unwrap().pem().unwrap()
}

fn params(name: &str, groups: &[&str]) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, name);
    if let [group] = groups {
        params.distinguished_name.push(DnType::OrganizationName, *group);
    }
    params
}

fn request(pem: String) -> CertificateSigningRequest {
    CertificateSigningRequest {
        spec: CertificateSigningRequestSpec {
            signer_name: "kubernetes.io/kube-apiserver-client-kubelet".to_owned(),
            username: Some("system:bootstrap:abc123".to_owned()),
            groups: Some(vec![
                "system:bootstrappers".to_owned(),
                "system:bootstrappers:kamaji:nodes".to_owned(),
                "system:authenticated".to_owned(),
            ]),
            usages: Some(vec!["digital signature".to_owned(), "client auth".to_owned()]),
            request: ByteString(pem.into_bytes()),
            ..CertificateSigningRequestSpec::default()
        },
        ..CertificateSigningRequest::default()
    }
}

fn good() -> CertificateSigningRequest {
    request(pem_of(
        &params("system:node:worker-1", &["system:nodes"]),
        &PKCS_ECDSA_P256_SHA256,
    ))
}

#[test]
fn bootstrap_17_the_request_of_a_kubelet_is_read() {
    assert_eq!(token_of(&good()), Some("abc123"));
    assert_eq!(node_of(&good()), Ok("worker-1".to_owned()));
    let mut with_encipherment = good();
    with_encipherment
        .spec
        .usages
        .as_mut()
        .unwrap()
        .push("key encipherment".to_owned());
    assert!(node_of(&with_encipherment).is_ok());
    for algorithm in [&PKCS_ECDSA_P384_SHA384, &PKCS_ED25519, &PKCS_RSA_SHA256] {
        let other = request(pem_of(
            &params("system:node:worker-1", &["system:nodes"]),
            algorithm,
        ));
        assert_eq!(node_of(&other), Ok("worker-1".to_owned()));
    }
}

#[test]
fn bootstrap_22_requests_of_others_are_left_alone() {
    let mut human = good();
    human.spec.username = Some("alice".to_owned());
    let mut kubeadm = good();
    kubeadm.spec.groups = Some(vec!["system:bootstrappers:kubeadm:default-node-token".to_owned()]);
    let mut serving = good();
    serving.spec.signer_name = "kubernetes.io/kubelet-serving".to_owned();
    let mut decided = good();
    decided.status = Some(CertificateSigningRequestStatus {
        conditions: Some(vec![CertificateSigningRequestCondition {
            type_: "Denied".to_owned(),
            ..CertificateSigningRequestCondition::default()
        }]),
        ..CertificateSigningRequestStatus::default()
    });
    for request in [human, kubeadm, serving, decided] {
        assert_eq!(token_of(&request), None);
    }
}

#[test]
fn bootstrap_21_whatever_a_kubelet_does_not_send_is_refused() {
    let refused = |request: &CertificateSigningRequest, why: &str| {
        let answer = node_of(request).unwrap_err();
        assert!(answer.contains(why), "{answer}");
    };
    let subject =
        |name: &str, groups: &[&str]| request(pem_of(&params(name, groups), &PKCS_ECDSA_P256_SHA256));
    refused(&subject("system:node:w", &["system:masters"]), "organizations");
    refused(&subject("system:node:w", &[]), "organizations");
    refused(&subject("worker", &["system:nodes"]), "not that of a node");
    refused(&subject("system:node:", &["system:nodes"]), "no node can have");
    refused(
        &subject("system:node:UPPER", &["system:nodes"]),
        "no node can have",
    );
    refused(
        &subject("system:node:../x", &["system:nodes"]),
        "no node can have",
    );
    let long = format!("system:node:a.{}", "b".repeat(62));
    refused(&subject(&long, &["system:nodes"]), "at most 63 characters");
    for name in ["kubernetes", "kubernetes.default", "localhost"] {
        let name = format!("system:node:{name}");
        refused(&subject(&name, &["system:nodes"]), "no node can have");
    }
    assert!(
        node_of(&subject("system:node:kubernetes-workers-1", &["system:nodes"])).is_ok(),
        "a Machine of a cluster with that name"
    );
    refused(&request(RSA_1024.to_owned()), "too weak");

    let mut named = params("system:node:w", &["system:nodes"]);
    named.subject_alt_names = vec![rcgen::SanType::DnsName("w".try_into().unwrap())];
    refused(&request(pem_of(&named, &PKCS_ECDSA_P256_SHA256)), "extensions");
    let mut purposes = params("system:node:w", &["system:nodes"]);
    purposes.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    refused(&request(pem_of(&purposes, &PKCS_ECDSA_P256_SHA256)), "extensions");
    let mut located = params("system:node:w", &["system:nodes"]);
    located.distinguished_name.push(DnType::LocalityName, "x");
    refused(
        &request(pem_of(&located, &PKCS_ECDSA_P256_SHA256)),
        "more than a name",
    );

    let mut server = good();
    server.spec.usages = Some(vec!["digital signature".to_owned(), "server auth".to_owned()]);
    refused(&server, "usages");
    let mut long = good();
    long.spec.expiration_seconds = Some(i32::MAX);
    refused(&long, "more than a year");

    let pem = String::from_utf8(good().spec.request.0).unwrap();
    refused(&request(pem.repeat(2)), "one PEM block");
    refused(&request(format!("x{pem}")), "one PEM block");
    refused(
        &request(pem.replace("CERTIFICATE REQUEST", "CERTIFICATE")),
        "one PEM block",
    );
    refused(&request("\u{0}".to_owned()), "one PEM block");
    refused(&request(pem.replace("MI", "AA")), "");
    let mut der = super::only_block(pem.as_bytes()).unwrap();
    *der.last_mut().unwrap() ^= 1;
    let packed = crate::kamajiconfig::bootstrapdata::document::base64(&der);
    let broken =
        format!("-----BEGIN CERTIFICATE REQUEST-----\n{packed}\n-----END CERTIFICATE REQUEST-----\n");
    refused(&request(broken), "");
}

/// As a kubelet sends it, but for the size of its key, which no library here generates any more.
const RSA_1024: &str = include_str!("testdata/rsa-1024.csr.pem");

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(second).unwrap()
}

static HOSTS: std::sync::LazyLock<[String; 2]> =
    std::sync::LazyLock::new(|| ["api.example.com", "192.0.2.1"].map(str::to_owned));

pub(in crate::kamajiconfig::approval) fn requester() -> Requester<'static> {
    Requester {
        config_deleting: false,
        config_created: Some(at(1000)),
        token_is_ours: true,
        machine: Some(MachineFacts {
            name: "worker-1",
            deleting: false,
            node_ref: None,
            host_names: Vec::new(),
        }),
        name_source: NameSource::MachineName,
        claimed: None,
        misfits: false,
        recent_approvals: 0,
        endpoint_hosts: &*HOSTS,
        node_created: None,
        claimed_by: None,
    }
}

impl<'a> Requester<'a> {
    fn machine(&mut self) -> &mut MachineFacts<'a> {
        self.machine.as_mut().unwrap()
    }
}

pub(in crate::kamajiconfig::approval) fn reason(decision: &Decision) -> Option<Reason> {
    match decision {
        Decision::Deny(reason, _) => Some(*reason),
        _ => None,
    }
}

#[test]
fn bootstrap_17_token_machine_and_name_that_belong_together_are_approved() {
    assert_eq!(
        decide("worker-1", &requester(), 0),
        Decision::Approve("worker-1".to_owned())
    );
}

#[rstest]
#[case::of_another_machine("worker-2")]
#[case::unused("stranger")]
#[case::api_server("api.example.com")]
fn bootstrap_18_19_a_name_that_is_not_the_machines_is_denied(#[case] name: &str) {
    assert_eq!(reason(&decide(name, &requester(), 0)), Some(Reason::NameMismatch));
}

#[test]
fn a_name_that_the_pattern_does_not_match_is_denied_for_a_machine_too() {
    let mut known = requester();
    known.misfits = true;
    assert_eq!(reason(&decide("worker-1", &known, 0)), Some(Reason::NameMismatch));
}

#[test]
fn bootstrap_20_a_second_name_is_denied_whatever_the_source() {
    let mut known = requester();
    known.name_source = NameSource::Hostname;
    known.claimed = Some("host-a");
    assert_eq!(reason(&decide("host-b", &known, 0)), Some(Reason::NameMismatch));
    assert!(matches!(decide("host-a", &known, 0), Decision::Approve(_)));
}

#[test]
fn bootstrap_23_a_name_claimed_by_another_is_denied() {
    let mut known = requester();
    known.name_source = NameSource::Hostname;
    known.claimed_by = Some("ns/other".to_owned());
    assert_eq!(reason(&decide("host-a", &known, 0)), Some(Reason::NameClaimed));
}

#[test]
fn bootstrap_25_a_kubelet_that_restarted_is_approved_again_at_a_limited_rate() {
    let mut known = requester();
    known.claimed = Some("worker-1");
    known.recent_approvals = 4;
    known.node_created = Some(at(1001));
    assert!(matches!(decide("worker-1", &known, 0), Decision::Approve(_)));
    known.recent_approvals = 5;
    assert_eq!(reason(&decide("worker-1", &known, 0)), Some(Reason::TooMany));
}

#[test]
fn bootstrap_18_an_existing_node_is_waited_for_and_then_denied() {
    let mut known = requester();
    known.node_created = Some(at(999));
    assert!(matches!(
        decide("worker-1", &known, 0),
        Decision::Wait(Reason::NodeExists, _, EXISTING_FOR)
    ));
    assert_eq!(
        reason(&decide("worker-1", &known, EXISTING_FOR)),
        Some(Reason::NodeExists)
    );
    // Claimed, but older than the config: not the node of this machine.
    known.claimed = Some("worker-1");
    assert!(matches!(decide("worker-1", &known, 0), Decision::Wait(..)));
    // Claimed and younger, but core bound the Machine to it: it joined already.
    known.node_created = Some(at(1001));
    known.machine().node_ref = Some("worker-1");
    assert!(matches!(decide("worker-1", &known, 0), Decision::Wait(..)));
}

#[test]
fn machines_that_are_deleted_or_have_another_node_and_foreign_tokens_are_denied() {
    let mut gone = requester();
    gone.machine().deleting = true;
    assert_eq!(
        reason(&decide("worker-1", &gone, 0)),
        Some(Reason::MachineNotEligible)
    );
    let mut bound = requester();
    bound.machine().node_ref = Some("worker-9");
    assert_eq!(
        reason(&decide("worker-1", &bound, 0)),
        Some(Reason::MachineNotEligible)
    );
    let mut foreign = requester();
    foreign.token_is_ours = false;
    assert_eq!(
        reason(&decide("worker-1", &foreign, 0)),
        Some(Reason::UnknownToken)
    );
    let mut deleting = requester();
    deleting.config_deleting = true;
    assert_eq!(
        reason(&decide("worker-1", &deleting, 0)),
        Some(Reason::UnknownToken)
    );
}

#[test]
fn with_another_name_source_the_addresses_of_the_machine_decide() {
    let mut known = requester();
    known.name_source = NameSource::Hostname;
    known.machine().host_names = vec!["Host-A.example.com."];
    for name in ["host-a", "host-a.example.com"] {
        assert!(matches!(decide(name, &known, 0), Decision::Approve(_)), "{name}");
    }
    assert_eq!(reason(&decide("host-b", &known, 0)), Some(Reason::NameMismatch));
}
