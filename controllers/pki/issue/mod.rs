//! Issues key material with rcgen: ECDSA P-256, except for the ServiceAccount key pair, which is RSA-2048 because workload
//! identity federation of cloud providers accepts RS256 only. Certificates are valid for one year, CAs for ten, from five
//! minutes before now for clocks that lag. The result is the complete data of a Secret, or an error.

use std::collections::BTreeMap;

use data_encoding::HEXLOWER;
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::{ByteString, api::core::v1::Secret};
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, KeyPair,
    KeyUsagePurpose, PKCS_ECDSA_P256_SHA256, PKCS_RSA_SHA256, SanType,
};
use sha2::{Digest, Sha256};
use x509_parser::prelude::{FromDer, X509Certificate};
use zeroize::Zeroize;

#[cfg(test)]
mod tests;

use super::{
    annotations as on,
    kubeconfig::{self, Kubeconfig},
    material::{Ca, PrivateKeyPem, SecretBytes, fingerprint},
    spec::{AltNames, Content, KubeconfigIdentity, Leaf, SecretSpec, Signer, Usage},
};

/// Lifetime of a client or server certificate.
const LEAF_LIFE: SignedDuration = SignedDuration::from_hours(365 * 24);
/// Lifetime of a CA.
const CA_LIFE: SignedDuration = SignedDuration::from_hours(3652 * 24);
/// How long before now validity starts.
const BACKDATE: SignedDuration = SignedDuration::from_mins(5);

/// Why nothing was issued.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A name cannot be part of a certificate.
    #[error("{name:?} cannot be a DNS name of a certificate: {source}")]
    Name {
        /// The name.
        name: String,
        /// What is wrong with it.
        #[source]
        source: rcgen::Error,
    },
    /// The signing CA was not passed.
    #[error("the {0} CA that signs this certificate was not read")]
    MissingCa(Signer),
    /// The signing CA has expired.
    #[error("the signing CA expired at {0}")]
    CaExpired(Timestamp),
    /// The issued certificate would not chain to its CA.
    #[error("the CA's subject cannot be reproduced as an issuer; use one with plain, single attributes")]
    IssuerName,
    /// The crypto provider failed.
    #[error("cannot generate a key or a signature: {0}")]
    Crypto(#[from] rcgen::Error),
    /// A time is out of range.
    #[error("the validity period is out of range")]
    Time,
    /// A kubeconfig cannot be serialised.
    #[error(transparent)]
    Kubeconfig(#[from] kubeconfig::Error),
}

/// A certificate with its key.
#[derive(Debug, Clone)]
pub struct Issued {
    /// The certificate, PEM, without its CA.
    pub cert_pem: String,
    /// Its key, PKCS#8 in PEM.
    pub key_pem: PrivateKeyPem,
    /// Start of validity.
    pub not_before: Timestamp,
    /// End of validity.
    pub not_after: Timestamp,
    /// SHA-256 of the certificate, as 64 lower-case hexadecimal digits.
    pub fingerprint: String,
}

impl Issued {
    fn new(
        certificate: &rcgen::Certificate,
        mut pair: KeyPair,
        not_before: Timestamp,
        not_after: Timestamp,
    ) -> Self {
        Self {
            cert_pem: certificate.pem(),
            key_pem: take_key(&mut pair),
            not_before,
            not_after,
            fingerprint: fingerprint(certificate.der()),
        }
    }
}

/// Data and annotations of one Secret, to be applied together.
#[derive(Debug, Clone)]
pub struct Material {
    /// The Secret's data.
    pub data: BTreeMap<String, SecretBytes>,
    /// Annotations that [`super::policy`] decides from.
    pub annotations: BTreeMap<String, String>,
}

impl Material {
    /// The data as type of the API, for a manifest.
    pub fn to_data(&self) -> BTreeMap<String, ByteString> {
        self.data
            .iter()
            .map(|(key, value)| (key.clone(), ByteString(value.expose().to_vec())))
            .collect()
    }
}

/// The CAs that were read.
#[derive(Debug, Clone, Copy, Default)]
pub struct Signers<'a> {
    /// The tenant's CA.
    pub cluster: Option<&'a Ca>,
    /// The tenant's front proxy CA.
    pub front_proxy: Option<&'a Ca>,
    /// The datastore's CA.
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

/// Issues the content of a Secret. `signers` must contain the CA of [`SecretSpec::signer`].
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
            record.add(&issued);
            record.ca = Some(issued.fingerprint);
        }
        Content::KeyPair { public, private } => {
            let mut pair = KeyPair::generate_for(&PKCS_RSA_SHA256)?;
            put(public, pair.public_key_pem().as_bytes());
            put(private, take_key(&mut pair).expose().as_bytes());
        }
        Content::Certificate {
            signer,
            leaf: desired,
            bundle_key,
            certificate_key,
            private_key,
        } => {
            let by = signers.get(*signer)?;
            let issued = leaf(desired, by, now)?;
            if let Some(key) = bundle_key {
                put(key, by.bundle_pem().as_bytes());
            }
            put(certificate_key, issued.cert_pem.as_bytes());
            put(private_key, issued.key_pem.expose().as_bytes());
            record.add(&issued);
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
                record.add(&issued);
            }
            record.signed_by(by);
        }
    }
    let annotations = record.annotations(spec, &data);
    Ok(Material { data, annotations })
}

/// Issues a client or server certificate. It expires with its CA at the latest.
pub fn leaf(desired: &Leaf, by: &Ca, now: Timestamp) -> Result<Issued, Error> {
    let not_after = add(now, LEAF_LIFE)?.min(by.not_after());
    let not_before = add(now, -BACKDATE)?.max(by.not_before());
    if not_after <= now {
        return Err(Error::CaExpired(by.not_after()));
    }
    let mut params = params(&desired.common_name, &desired.names, not_before, not_after)?;
    if let Some(group) = &desired.organization {
        params
            .distinguished_name
            .push(DnType::OrganizationName, group.as_str());
    }
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = desired
        .usages
        .iter()
        .map(|usage| match usage {
            Usage::Client => ExtendedKeyUsagePurpose::ClientAuth,
            Usage::Server => ExtendedKeyUsagePurpose::ServerAuth,
        })
        .collect();
    params.use_authority_key_identifier_extension = true;
    let pair = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?;
    let certificate = params.signed_by(&pair, by.issuer())?;
    if !chains(certificate.der(), by.der()) {
        return Err(Error::IssuerName);
    }
    Ok(Issued::new(&certificate, pair, not_before, not_after))
}

/// Issues a self-signed CA.
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
    let pair = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?;
    let certificate = params.self_signed(&pair)?;
    Ok(Issued::new(&certificate, pair, not_before, not_after))
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

/// Whether a certificate names its CA byte for byte and has its signature: Go clients compare the names as bytes.
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

/// The annotations to be.
#[derive(Default)]
struct Record {
    not_before: Option<Timestamp>,
    not_after: Option<Timestamp>,
    ca: Option<String>,
    ends_with_ca: bool,
}

impl Record {
    /// Of several certificates the latest start and the earliest end are recorded.
    fn add(&mut self, issued: &Issued) {
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

/// [`content_hash`] of the data of a Secret as it is in the cluster.
pub fn content_hash_of(secret: &Secret) -> String {
    let data = secret.data.iter().flatten();
    content_hash(data.map(|(key, value)| (key.as_str(), value.0.as_slice())))
}

/// Digest of the data of a Secret in key order, each key and value with its length: 32 hexadecimal digits.
pub fn content_hash<'a>(data: impl Iterator<Item = (&'a str, &'a [u8])>) -> String {
    let mut digest = Sha256::new();
    for (key, value) in data {
        for part in [key.as_bytes(), value] {
            digest.update((part.len() as u64).to_be_bytes());
            digest.update(part);
        }
    }
    let mut text = HEXLOWER.encode(&digest.finalize());
    text.truncate(32);
    text
}
