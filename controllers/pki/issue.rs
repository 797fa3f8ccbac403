//! Issuing with rcgen: ECDSA P-256 for everything but the ServiceAccount pair, which is RSA-2048 because cloud
//! identity federation wants RS256 (DESIGN 2.5). Leaves live a year, CAs ten; validity starts a few minutes
//! early for clocks that lag. What leaves this file is complete data of a Secret, or an error; never half of it.

use std::collections::BTreeMap;

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::ByteString;
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, KeyPair,
    KeyUsagePurpose, PKCS_ECDSA_P256_SHA256, PKCS_RSA_SHA256, SanType,
};
use sha2::{Digest, Sha256};
use x509_parser::prelude::{FromDer, X509Certificate};
use zeroize::Zeroize;

use super::{
    annotations as on,
    kubeconfig::{self, Kubeconfig},
    material::{Ca, PrivateKeyPem, SecretBytes, fingerprint, hex},
    spec::{AltNames, Content, KubeconfigIdentity, Leaf, SecretSpec, Signer, Usage},
};

/// Life of a leaf.
const LEAF_LIFE: SignedDuration = SignedDuration::from_hours(365 * 24);
/// Life of a CA.
const CA_LIFE: SignedDuration = SignedDuration::from_hours(3652 * 24);
/// How far validity starts before now.
const BACKDATE: SignedDuration = SignedDuration::from_mins(5);

/// Why nothing was issued.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A name cannot stand in a certificate.
    #[error("{name:?} cannot stand in a certificate: {source}")]
    Name {
        /// The name.
        name: String,
        /// What is wrong with it.
        #[source]
        source: rcgen::Error,
    },
    /// The CA that has to sign was not given.
    #[error("the {0} CA is not at hand")]
    MissingCa(Signer),
    /// The CA is over before the certificate would begin.
    #[error("the signing CA expired at {0}")]
    CaExpired(Timestamp),
    /// The issued certificate would not chain to its CA.
    #[error("the CA's subject cannot be reproduced as an issuer; use one with plain, single attributes")]
    IssuerName,
    /// The provider refused.
    #[error("key or signature cannot be made: {0}")]
    Crypto(#[from] rcgen::Error),
    /// A time is out of range.
    #[error("validity is out of range")]
    Time,
    /// A kubeconfig could not be written.
    #[error(transparent)]
    Kubeconfig(#[from] kubeconfig::Error),
}

/// A certificate with its key.
#[derive(Debug, Clone)]
pub struct Issued {
    /// The certificate, and nothing but it.
    pub cert_pem: String,
    /// Its key, PKCS#8.
    pub key_pem: PrivateKeyPem,
    /// Start of validity.
    pub not_before: Timestamp,
    /// End of validity.
    pub not_after: Timestamp,
    /// SHA-256 of the certificate.
    pub fingerprint: String,
}

/// Data and annotations of one Secret, to be applied together.
#[derive(Debug, Clone)]
pub struct Material {
    /// The Secret's data.
    pub data: BTreeMap<String, SecretBytes>,
    /// Annotations that [`super::policy`] judges by.
    pub annotations: BTreeMap<String, String>,
}

impl Material {
    /// The data as the API type holds it, for the manifest.
    pub fn to_data(&self) -> BTreeMap<String, ByteString> {
        self.data
            .iter()
            .map(|(key, value)| (key.clone(), ByteString(value.expose().to_vec())))
            .collect()
    }
}

/// The CAs at hand.
#[derive(Debug, Clone, Copy, Default)]
pub struct Signers<'a> {
    /// The tenant's own.
    pub cluster: Option<&'a Ca>,
    /// The tenant's front proxy's.
    pub front_proxy: Option<&'a Ca>,
    /// The datastore's.
    pub datastore: Option<&'a Ca>,
}

impl<'a> Signers<'a> {
    fn get(&self, signer: Signer) -> Result<&'a Ca, Error> {
        match signer {
            Signer::Cluster => self.cluster,
            Signer::FrontProxy => self.front_proxy,
            Signer::Datastore => self.datastore,
        }
        .ok_or(Error::MissingCa(signer))
    }
}

/// Makes everything that is to stand in a Secret.
pub fn secret(spec: &SecretSpec, signers: Signers<'_>, now: Timestamp) -> Result<Material, Error> {
    let mut data = BTreeMap::new();
    let mut put = |key: &str, value: &[u8]| {
        data.insert(key.to_owned(), SecretBytes::new(value.to_vec()));
    };
    let mut record = Record::default();
    match &spec.content {
        Content::Ca {
            common_name,
            names,
            keys,
        } => {
            let issued = ca(common_name, names, now)?;
            for (certificate, key) in keys {
                put(certificate, issued.cert_pem.as_bytes());
                put(key, issued.key_pem.expose().as_bytes());
            }
            record.saw(&issued);
            record.ca = Some(issued.fingerprint);
        }
        Content::KeyPair { public, private } => {
            let mut pair = KeyPair::generate_for(&PKCS_RSA_SHA256)?;
            put(public, pair.public_key_pem().as_bytes());
            put(private, take_key(&mut pair).expose().as_bytes());
        }
        Content::Certificate {
            signer,
            leaf: wanted,
            bundle_key,
            certificate_key,
            private_key,
        } => {
            let by = signers.get(*signer)?;
            let issued = leaf(wanted, by, now)?;
            if let Some(key) = bundle_key {
                put(key, by.bundle_pem().as_bytes());
            }
            put(certificate_key, issued.cert_pem.as_bytes());
            put(private_key, issued.key_pem.expose().as_bytes());
            record.saw(&issued);
            record.signed_by(by);
        }
        Content::Kubeconfigs { cluster, identities } => {
            let by = signers.get(Signer::Cluster)?;
            for identity in identities {
                let issued = leaf(&identity.leaf, by, now)?;
                for file in &identity.files {
                    let text = kubeconfig_of(cluster, identity, &file.server, by, &issued).to_yaml()?;
                    put(&file.key, text.as_bytes());
                }
                record.saw(&issued);
            }
            record.signed_by(by);
        }
    }
    let annotations = record.annotations(spec, &data);
    Ok(Material { data, annotations })
}

/// Issues a leaf.
pub fn leaf(wanted: &Leaf, by: &Ca, now: Timestamp) -> Result<Issued, Error> {
    let not_after = add(now, LEAF_LIFE)?.min(by.not_after());
    let not_before = add(now, -BACKDATE)?.max(by.not_before());
    if not_after <= now {
        return Err(Error::CaExpired(by.not_after()));
    }
    let mut params = params(&wanted.common_name, &wanted.names, not_before, not_after)?;
    if let Some(group) = &wanted.organization {
        params
            .distinguished_name
            .push(DnType::OrganizationName, group.as_str());
    }
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = wanted
        .usages
        .iter()
        .map(|usage| match usage {
            Usage::Client => ExtendedKeyUsagePurpose::ClientAuth,
            Usage::Server => ExtendedKeyUsagePurpose::ServerAuth,
        })
        .collect();
    params.use_authority_key_identifier_extension = true;
    let mut pair = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?;
    let certificate = params.signed_by(&pair, by.issuer())?;
    if !chains(certificate.der(), by.der()) {
        return Err(Error::IssuerName);
    }
    Ok(Issued {
        cert_pem: certificate.pem(),
        key_pem: take_key(&mut pair),
        not_before,
        not_after,
        fingerprint: fingerprint(certificate.der()),
    })
}

/// Issues a CA that signs itself.
pub fn ca(common_name: &str, names: &AltNames, now: Timestamp) -> Result<Issued, Error> {
    let not_after = add(now, CA_LIFE)?;
    let not_before = add(now, -BACKDATE)?;
    let mut params = params(common_name, names, not_before, not_after)?;
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![
        KeyUsagePurpose::DigitalSignature,
        KeyUsagePurpose::KeyCertSign,
        KeyUsagePurpose::CrlSign,
    ];
    let mut pair = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?;
    let certificate = params.self_signed(&pair)?;
    Ok(Issued {
        cert_pem: certificate.pem(),
        key_pem: take_key(&mut pair),
        not_before,
        not_after,
        fingerprint: fingerprint(certificate.der()),
    })
}

fn kubeconfig_of(
    cluster: &str,
    identity: &KubeconfigIdentity,
    server: &str,
    by: &Ca,
    issued: &Issued,
) -> Kubeconfig {
    Kubeconfig {
        cluster: cluster.to_owned(),
        user: identity.user.clone(),
        server: server.to_owned(),
        ca_pem: by.bundle_pem().to_owned(),
        certificate_pem: issued.cert_pem.clone(),
        key_pem: issued.key_pem.clone(),
    }
}

fn params(
    common_name: &str,
    names: &AltNames,
    not_before: Timestamp,
    not_after: Timestamp,
) -> Result<CertificateParams, Error> {
    let mut params = CertificateParams::default();
    params.not_before = clock(not_before)?;
    params.not_after = clock(not_after)?;
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, common_name);
    for name in &names.dns {
        let dns = name.as_str().try_into().map_err(|source| Error::Name {
            name: name.clone(),
            source,
        })?;
        params.subject_alt_names.push(SanType::DnsName(dns));
    }
    params
        .subject_alt_names
        .extend(names.ip.iter().copied().map(SanType::IpAddress));
    Ok(params)
}

/// Whether a certificate names its CA byte for byte and carries its signature.
fn chains(certificate: &[u8], ca: &[u8]) -> bool {
    let (Ok((_, leaf)), Ok((_, root))) = (
        X509Certificate::from_der(certificate),
        X509Certificate::from_der(ca),
    ) else {
        return false;
    };
    leaf.issuer().as_raw() == root.subject().as_raw()
        && leaf.verify_signature(Some(root.public_key())).is_ok()
}

fn take_key(pair: &mut KeyPair) -> PrivateKeyPem {
    let text = PrivateKeyPem::new(pair.serialize_pem());
    pair.zeroize();
    text
}

fn add(at: Timestamp, span: SignedDuration) -> Result<Timestamp, Error> {
    at.checked_add(span).map_err(|_| Error::Time)
}

fn clock(at: Timestamp) -> Result<time::OffsetDateTime, Error> {
    time::OffsetDateTime::from_unix_timestamp(at.as_second()).map_err(|_| Error::Time)
}

/// What the annotations will say.
#[derive(Default)]
struct Record {
    not_before: Option<Timestamp>,
    not_after: Option<Timestamp>,
    ca: Option<String>,
    ends_with_ca: bool,
}

impl Record {
    /// Of several certificates the latest start and the earliest end count.
    fn saw(&mut self, issued: &Issued) {
        self.not_before = self.not_before.max(Some(issued.not_before));
        self.not_after = Some(
            self.not_after
                .map_or(issued.not_after, |end| end.min(issued.not_after)),
        );
    }

    fn signed_by(&mut self, by: &Ca) {
        self.ca = Some(by.fingerprint().to_owned());
        self.ends_with_ca = self.not_after >= Some(by.not_after());
    }

    fn annotations(
        self,
        spec: &SecretSpec,
        data: &BTreeMap<String, SecretBytes>,
    ) -> BTreeMap<String, String> {
        let whole = |at: Timestamp| {
            Timestamp::from_second(at.as_second())
                .map_or_else(|_| at.to_string(), |second| second.to_string())
        };
        let mut list = BTreeMap::from([
            (on::INPUTS_HASH.to_owned(), spec.inputs_hash()),
            (
                on::CONTENT_HASH.to_owned(),
                content_hash(data.iter().map(|(key, value)| (key.as_str(), value.expose()))),
            ),
        ]);
        list.extend(self.not_before.map(|at| (on::NOT_BEFORE.to_owned(), whole(at))));
        list.extend(self.not_after.map(|at| (on::NOT_AFTER.to_owned(), whole(at))));
        list.extend(self.ca.map(|sum| (on::CA_FINGERPRINT.to_owned(), sum)));
        if self.ends_with_ca {
            list.insert(on::ENDS_WITH_AUTHORITY.to_owned(), "true".to_owned());
        }
        list
    }
}

/// Digest of a Secret's data in key order, each part with its length.
pub fn content_hash<'a>(data: impl Iterator<Item = (&'a str, &'a [u8])>) -> String {
    let mut digest = Sha256::new();
    for (key, value) in data {
        for part in [key.as_bytes(), value] {
            digest.update((part.len() as u64).to_be_bytes());
            digest.update(part);
        }
    }
    let mut text = hex(&digest.finalize());
    text.truncate(32);
    text
}

#[cfg(test)]
mod tests {
    use super::{
        super::{
            material::{CLUSTER_CA_KEYS, FRONT_PROXY_CA_KEYS, Found, certificates},
            policy::{self, Decision, Input},
            spec::{self, Tenant, component},
        },
        *,
    };

    fn now() -> Timestamp {
        "2026-11-21T04:00:00Z".parse().unwrap()
    }

    fn specs() -> Vec<SecretSpec> {
        spec::tenant(&Tenant {
            namespace: "demo".to_owned(),
            name: "alpha".to_owned(),
            cluster_domain: "cluster.local".to_owned(),
            service_addresses: vec!["10.96.0.1".parse().unwrap()],
            hosts: vec!["192.0.2.7".to_owned()],
            port: 6443,
            endpoint: "alpha.example.com:6443".to_owned(),
            datastore_user: Some("demo_alpha_0a1b2c3d".to_owned()),
            ..Tenant::default()
        })
    }

    /// All Secrets of a tenant, made in one pass.
    fn issue_all() -> Vec<(SecretSpec, Material)> {
        let specs = specs();
        let find = |component: &str| specs.iter().find(|spec| spec.component == component).unwrap();
        let make = |spec: &SecretSpec| secret(spec, Signers::default(), now()).unwrap();
        let (ca, front) = (make(find(component::CA)), make(find(component::FRONT_PROXY_CA)));
        let cluster = Ca::read("demo/alpha-ca", CLUSTER_CA_KEYS, &ca.to_data()).unwrap();
        let proxy = Ca::read("demo/front", FRONT_PROXY_CA_KEYS, &front.to_data()).unwrap();
        let etcd = made_elsewhere();
        let signers = Signers {
            cluster: Some(&cluster),
            front_proxy: Some(&proxy),
            datastore: Some(&etcd),
        };
        specs
            .iter()
            .map(|spec| match spec.component {
                component::CA => (spec.clone(), ca.clone()),
                component::FRONT_PROXY_CA => (spec.clone(), front.clone()),
                _ => (spec.clone(), secret(spec, signers, now()).unwrap()),
            })
            .collect()
    }

    /// A kubeadm-style CA: RSA, PKCS#1.
    fn made_elsewhere() -> Ca {
        let found = |bytes| Found {
            location: "here".to_owned(),
            bytes,
        };
        Ca::from_pem(
            &found(include_bytes!("testdata/rsa-ca.crt")),
            &found(include_bytes!("testdata/rsa-pkcs1.key")),
            None,
        )
        .unwrap()
    }

    fn of<'a>(all: &'a [(SecretSpec, Material)], component: &str) -> &'a Material {
        &all.iter()
            .find(|(spec, _)| spec.component == component)
            .unwrap()
            .1
    }

    /// Runs assertions on a parsed certificate.
    fn inspect(pem: &[u8], look: impl FnOnce(&X509Certificate<'_>)) {
        let der = certificates(&Found {
            location: "here".to_owned(),
            bytes: pem,
        })
        .unwrap()
        .remove(0);
        look(&X509Certificate::from_der(&der).unwrap().1);
    }

    #[test]
    fn the_api_server_certificate_is_what_go_clients_verify() {
        let all = issue_all();
        let root = of(&all, component::CA).data["ca.crt"].expose().to_vec();
        inspect(
            of(&all, component::API_SERVER).data["apiserver.crt"].expose(),
            |leaf| {
                inspect(&root, |root| {
                    leaf.verify_signature(Some(root.public_key())).unwrap();
                    assert!(root.is_ca());
                    assert_eq!(leaf.issuer().as_raw(), root.subject().as_raw());
                    assert!(root.validity().time_to_expiration().is_some());
                });
                let usage = leaf.extended_key_usage().unwrap().unwrap().value;
                assert!(usage.server_auth && !usage.client_auth && !usage.code_signing);
                let names = &leaf
                    .subject_alternative_name()
                    .unwrap()
                    .unwrap()
                    .value
                    .general_names;
                let shown: Vec<String> = names.iter().map(ToString::to_string).collect();
                for name in [
                    "kubernetes.default.svc.cluster.local",
                    "alpha.demo.svc",
                    "alpha.example.com",
                ] {
                    assert!(
                        shown.iter().any(|text| text.contains(name)),
                        "{name} in {shown:?}"
                    );
                }
                assert!(!leaf.is_ca());
                let (start, end) = (
                    leaf.validity().not_before.timestamp(),
                    leaf.validity().not_after.timestamp(),
                );
                assert_eq!(start, now().as_second() - 300, "backdated for clocks that lag");
                assert_eq!(end - now().as_second(), 365 * 86_400);
            },
        );
    }

    #[test]
    fn the_datastore_client_is_a_client_and_no_master() {
        let all = issue_all();
        let material = of(&all, component::DATASTORE);
        assert_eq!(
            material.data["ca.crt"].expose(),
            made_elsewhere().bundle_pem().as_bytes()
        );
        inspect(material.data["server.crt"].expose(), |leaf| {
            assert_eq!(leaf.subject().to_string(), "CN=demo_alpha_0a1b2c3d");
            let usage = leaf.extended_key_usage().unwrap().unwrap().value;
            assert!(usage.client_auth && !usage.server_auth && !usage.code_signing);
        });
    }

    #[test]
    fn kubeconfigs_carry_their_identity_and_the_right_server() {
        let all = issue_all();
        let admin = of(&all, component::ADMIN);
        let read = |key: &str| Kubeconfig::parse(admin.data[key].expose()).unwrap();
        assert_eq!(read("admin.conf").server, "https://alpha.example.com:6443");
        assert_eq!(read("super-admin.svc").server, "https://alpha.demo.svc:6443");
        assert_eq!(
            read("admin.conf").certificate_pem,
            read("admin.svc").certificate_pem
        );
        inspect(read("admin.conf").certificate_pem.as_bytes(), |leaf| {
            assert_eq!(
                leaf.subject().to_string(),
                "CN=kubernetes-admin, O=kubeadm:cluster-admins"
            );
        });
        let scheduler =
            Kubeconfig::parse(of(&all, component::SCHEDULER).data["scheduler.conf"].expose()).unwrap();
        assert_eq!(scheduler.server, "https://127.0.0.1:6443");
        assert_eq!(scheduler.user, "system:kube-scheduler");
    }

    #[test]
    fn the_service_account_pair_is_rsa_and_a_pair() {
        let all = issue_all();
        let data = of(&all, component::SERVICE_ACCOUNT).data.clone();
        let found = |key: &str| (key.to_owned(), data[key].expose().to_vec());
        let (public, private) = (found("sa.pub"), found("sa.key"));
        let as_found = |pair: &'static str, bytes| Found {
            location: pair.to_owned(),
            bytes,
        };
        assert!(
            super::super::material::is_pair(&as_found("sa.pub", &public.1), &as_found("sa.key", &private.1))
                .unwrap()
        );
        let pair = super::super::material::private_key(&as_found("sa.key", &private.1)).unwrap();
        assert_eq!(pair.algorithm(), &PKCS_RSA_SHA256);
    }

    #[test]
    fn what_was_just_issued_is_kept() {
        let all = issue_all();
        let cluster = of(&all, component::CA).annotations[on::CA_FINGERPRINT].clone();
        for (spec, material) in &all {
            let ca = match spec.signer() {
                Some(Signer::Datastore) => made_elsewhere().fingerprint().to_owned(),
                Some(Signer::FrontProxy) => {
                    of(&all, component::FRONT_PROXY_CA).annotations[on::CA_FINGERPRINT].clone()
                }
                _ => cluster.clone(),
            };
            let decision = policy::decide(Input {
                spec,
                tenant: "demo/alpha",
                observed: Some(&material.annotations),
                ca: Some(&ca),
                now: now(),
            });
            assert!(
                matches!(decision, Decision::Keep { .. }),
                "{}: {decision:?}",
                spec.name
            );
        }
    }

    #[test]
    fn a_leaf_never_outlives_its_ca() {
        let by = made_elsewhere();
        let late = by
            .not_after()
            .checked_sub(SignedDuration::from_hours(24))
            .unwrap();
        let issued = leaf(&Leaf::client("someone"), &by, late).unwrap();
        assert_eq!(issued.not_after, by.not_after());
        let over = by
            .not_after()
            .checked_add(SignedDuration::from_hours(24))
            .unwrap();
        assert!(matches!(
            leaf(&Leaf::client("someone"), &by, over),
            Err(Error::CaExpired(_))
        ));
    }

    #[test]
    fn under_a_ca_that_ends_soon_a_leaf_is_issued_once() {
        let by = made_elsewhere();
        let spec = spec::datastore("alpha", "someone");
        let at = |seconds: i64| {
            let before = SignedDuration::from_secs(seconds);
            by.not_after().checked_sub(before).unwrap()
        };
        // From nine hours down to the last minute.
        for left in [9 * 3600, 3600, 60] {
            let signers = Signers {
                datastore: Some(&by),
                ..Signers::default()
            };
            let made = secret(&spec, signers, at(left)).unwrap();
            let ask = |seconds: i64| {
                policy::decide(Input {
                    spec: &spec,
                    tenant: "demo/alpha",
                    observed: Some(&made.annotations),
                    ca: Some(by.fingerprint()),
                    now: at(seconds),
                })
            };
            for later in [left, left / 2, 1] {
                assert_eq!(
                    ask(later),
                    Decision::Keep {
                        renew_at: Some(by.not_after())
                    },
                    "{later} s before the end, made {left} s before it"
                );
            }
            assert_eq!(ask(0), Decision::Issue(policy::Reason::Expiring), "it is over");
        }
    }

    #[test]
    fn a_ca_whose_name_cannot_be_repeated_is_refused() {
        let found = |bytes| Found {
            location: "here".to_owned(),
            bytes,
        };
        let by = Ca::from_pem(
            &found(include_bytes!("testdata/ec-two-units-ca.crt")),
            &found(include_bytes!("testdata/ec-sec1.key")),
            None,
        )
        .unwrap();
        assert!(matches!(
            leaf(&Leaf::client("someone"), &by, by.not_before()),
            Err(Error::IssuerName)
        ));
    }

    #[test]
    fn no_key_is_printed() {
        for (_, material) in issue_all() {
            assert!(!format!("{material:?}").contains("PRIVATE"));
        }
    }

    #[test]
    fn the_content_hash_sees_every_boundary() {
        let of = |list: &[(&'static str, &'static [u8])]| content_hash(list.iter().copied());
        assert_ne!(of(&[("a", b"bc")]), of(&[("ab", b"c")]));
        assert_ne!(of(&[("a", b"b"), ("c", b"")]), of(&[("a", b""), ("c", b"b")]));
    }
}
