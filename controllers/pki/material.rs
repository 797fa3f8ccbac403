//! Key material as it is found: CAs made by us, by kubeadm, by Kamaji or by a user; keys in PKCS#1, SEC1 or
//! PKCS#8. Parsing only: nothing is issued and nothing is fetched here.
//!
//! Every error names the Secret and the key inside it, since it ends up in a condition that a user has to act on.

use std::{collections::BTreeMap, fmt};

use jiff::Timestamp;
use k8s_openapi::ByteString;
use rcgen::{Issuer, KeyPair, PublicKeyData};
use rustls::pki_types::{CertificateDer, pem::PemObject};
use sha2::{Digest, Sha256};
use x509_parser::prelude::{FromDer, X509Certificate};
use zeroize::{Zeroize, Zeroizing};

/// A private key as PEM text. Wiped on drop; never printed.
#[derive(Clone, PartialEq, Eq)]
pub struct PrivateKeyPem(Zeroizing<String>);

impl PrivateKeyPem {
    /// Takes the text over.
    pub fn new(pem: String) -> Self {
        Self(Zeroizing::new(pem))
    }

    /// The text itself, for the one place that stores it or hands it to TLS.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for PrivateKeyPem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[redacted]")
    }
}

/// The value of one key of a Secret. Wiped on drop; never printed.
#[derive(Clone, PartialEq, Eq)]
pub struct SecretBytes(Zeroizing<Vec<u8>>);

impl SecretBytes {
    /// Takes the bytes over.
    pub fn new(bytes: Vec<u8>) -> Self {
        Self(Zeroizing::new(bytes))
    }

    /// The bytes themselves, for the one place that stores them.
    pub fn expose(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Debug for SecretBytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[redacted]")
    }
}

/// Something read from a named location, such as a key of a Secret.
#[derive(Clone)]
pub struct Found<'a> {
    /// Where it stood, for a message: `Secret demo/demo-ca, key "tls.crt"`.
    pub location: String,
    /// The bytes.
    pub bytes: &'a [u8],
}

impl<'a> Found<'a> {
    /// A key of a Secret.
    pub fn in_secret(secret: &str, key: &str, bytes: &'a [u8]) -> Self {
        Self {
            location: location(secret, key),
            bytes,
        }
    }
}

fn location(secret: &str, key: &str) -> String {
    format!("Secret {secret}, key {key:?}")
}

/// What is wrong with key material.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// A Secret lacks a key.
    #[error("Secret {secret} has no key {key:?}")]
    Missing {
        /// `namespace/name`.
        secret: String,
        /// The key that was looked for.
        key: String,
    },
    /// A certificate cannot be read.
    #[error("{location} is not a PEM certificate")]
    NotACertificate {
        /// Where it stands.
        location: String,
    },
    /// A private key cannot be read.
    #[error("{location} is not a PEM private key (RSA, ECDSA or Ed25519 in PKCS#1, SEC1 or PKCS#8)")]
    NotAKey {
        /// Where it stands.
        location: String,
    },
    /// A signing certificate came with company.
    #[error("{location} holds {count} certificates; it must hold exactly the one that signs")]
    SeveralCertificates {
        /// Where they stand.
        location: String,
        /// How many there are.
        count: usize,
    },
    /// The certificate may not sign others.
    #[error("{location} is not a certificate authority (basic constraints lack CA)")]
    NotACa {
        /// Where it stands.
        location: String,
    },
    /// The pair does not belong together.
    #[error("{key} does not belong to the certificate in {certificate}: put a matching pair there")]
    KeyMismatch {
        /// Where the certificate stands.
        certificate: String,
        /// Where the key stands.
        key: String,
    },
    /// The CA's name has a shape that cannot be reproduced in the certificates it signs.
    #[error("{location} has a subject that cannot be used as an issuer (repeated or joined attributes)")]
    UnusableSubject {
        /// Where it stands.
        location: String,
    },
    /// The trust bundle does not contain the signing certificate.
    #[error("{bundle} does not contain the certificate in {certificate}")]
    BundleWithoutSigner {
        /// Where the bundle stands.
        bundle: String,
        /// Where the signing certificate stands.
        certificate: String,
    },
}

/// Which keys of a Secret hold a CA: the first pair that is present counts.
#[derive(Debug, Clone, Copy)]
pub struct CaKeys {
    /// Pairs of (certificate, private key), in order of preference.
    pub pairs: &'static [(&'static str, &'static str)],
    /// The trust bundle, where the Secret has one; the certificate otherwise.
    pub bundle: Option<&'static str>,
}

/// `<tcp>-ca`: Cluster API's keys first (a user's Secret has only these), then kubeadm's.
pub const CLUSTER_CA_KEYS: CaKeys = CaKeys {
    pairs: &[("tls.crt", "tls.key"), ("ca.crt", "ca.key")],
    bundle: Some("ca.crt"),
};

/// `<tcp>-front-proxy-ca-certificate`.
pub const FRONT_PROXY_CA_KEYS: CaKeys = CaKeys {
    pairs: &[("front-proxy-ca.crt", "front-proxy-ca.key")],
    bundle: None,
};

/// A certificate authority that can sign.
pub struct Ca {
    certificate: CertificateDer<'static>,
    certificate_pem: String,
    bundle_pem: String,
    fingerprint: String,
    not_before: Timestamp,
    not_after: Timestamp,
    issuer: Issuer<'static, WipedKey>,
}

impl fmt::Debug for Ca {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Ca")
            .field("fingerprint", &self.fingerprint)
            .field("not_after", &self.not_after)
            .finish_non_exhaustive()
    }
}

impl Ca {
    /// Reads the CA that a Secret holds. `secret` is `namespace/name`.
    pub fn read(secret: &str, keys: CaKeys, data: &BTreeMap<String, ByteString>) -> Result<Self, Error> {
        let (certificate_key, private_key) = keys
            .pairs
            .iter()
            .copied()
            .find(|(certificate, _)| data.contains_key(*certificate))
            .or_else(|| keys.pairs.first().copied())
            .unwrap_or_default();
        let get = |key: &str| {
            data.get(key)
                .filter(|bytes| !bytes.0.is_empty())
                .map(|bytes| Found::in_secret(secret, key, &bytes.0))
                .ok_or_else(|| Error::Missing {
                    secret: secret.to_owned(),
                    key: key.to_owned(),
                })
        };
        let bundle = keys.bundle.and_then(|key| get(key).ok());
        Self::from_pem(&get(certificate_key)?, &get(private_key)?, bundle.as_ref())
    }

    /// Reads a CA from its parts.
    pub fn from_pem(
        certificate: &Found<'_>,
        key: &Found<'_>,
        bundle: Option<&Found<'_>>,
    ) -> Result<Self, Error> {
        let mut signers = certificates(certificate)?;
        if signers.len() > 1 {
            return Err(Error::SeveralCertificates {
                location: certificate.location.clone(),
                count: signers.len(),
            });
        }
        let der = signers.remove(0);
        let unreadable = || Error::NotACertificate {
            location: certificate.location.clone(),
        };
        let (_, parsed) = X509Certificate::from_der(&der).map_err(|_| unreadable())?;
        if !parsed.is_ca() {
            return Err(Error::NotACa {
                location: certificate.location.clone(),
            });
        }
        let pair = matching(&parsed, certificate, key)?;
        let not_before =
            Timestamp::from_second(parsed.validity().not_before.timestamp()).map_err(|_| unreadable())?;
        let not_after =
            Timestamp::from_second(parsed.validity().not_after.timestamp()).map_err(|_| unreadable())?;
        let bundle_pem = match bundle {
            None => pem_of(std::slice::from_ref(&der)),
            Some(found) => {
                let trusted = certificates(found)?;
                if !trusted.contains(&der) {
                    return Err(Error::BundleWithoutSigner {
                        bundle: found.location.clone(),
                        certificate: certificate.location.clone(),
                    });
                }
                pem_of(&trusted)
            }
        };
        let issuer = Issuer::from_ca_cert_der(&der, WipedKey(pair)).map_err(|_| Error::UnusableSubject {
            location: certificate.location.clone(),
        })?;
        Ok(Self {
            fingerprint: fingerprint(&der),
            certificate_pem: pem_of(std::slice::from_ref(&der)),
            certificate: der.clone(),
            bundle_pem,
            not_before,
            not_after,
            issuer,
        })
    }

    /// The signing certificate, and nothing but it.
    pub fn certificate_pem(&self) -> &str {
        &self.certificate_pem
    }

    /// Everything that is trusted where this CA is: the signing certificate among others.
    pub fn bundle_pem(&self) -> &str {
        &self.bundle_pem
    }

    /// SHA-256 of the signing certificate, lower-case hexadecimal.
    pub fn fingerprint(&self) -> &str {
        &self.fingerprint
    }

    /// Start of validity.
    pub fn not_before(&self) -> Timestamp {
        self.not_before
    }

    /// End of validity.
    pub fn not_after(&self) -> Timestamp {
        self.not_after
    }

    /// The signing certificate, encoded.
    pub(super) fn der(&self) -> &CertificateDer<'static> {
        &self.certificate
    }

    /// Who signs, for the issuing step.
    pub(super) fn issuer(&self) -> &Issuer<'static, impl rcgen::SigningKey + use<>> {
        &self.issuer
    }
}

/// A key pair whose encoded form is wiped when it goes.
struct WipedKey(KeyPair);

impl Drop for WipedKey {
    fn drop(&mut self) {
        self.0.zeroize();
    }
}

impl PublicKeyData for WipedKey {
    fn der_bytes(&self) -> &[u8] {
        self.0.der_bytes()
    }

    fn algorithm(&self) -> &'static rcgen::SignatureAlgorithm {
        PublicKeyData::algorithm(&self.0)
    }
}

impl rcgen::SigningKey for WipedKey {
    fn sign(&self, message: &[u8]) -> Result<Vec<u8>, rcgen::Error> {
        self.0.sign(message)
    }
}

/// Every certificate of a PEM text, in order; at least one.
pub fn certificates(found: &Found<'_>) -> Result<Vec<CertificateDer<'static>>, Error> {
    let unreadable = || Error::NotACertificate {
        location: found.location.clone(),
    };
    let list: Vec<CertificateDer<'static>> = CertificateDer::pem_slice_iter(found.bytes)
        .collect::<Result<_, _>>()
        .map_err(|_| unreadable())?;
    if list.is_empty() || list.iter().any(|der| X509Certificate::from_der(der).is_err()) {
        return Err(unreadable());
    }
    Ok(list)
}

/// A private key in any of the usual encodings.
pub fn private_key(found: &Found<'_>) -> Result<KeyPair, Error> {
    let unreadable = || Error::NotAKey {
        location: found.location.clone(),
    };
    let der = rustls::pki_types::PrivateKeyDer::from_pem_slice(found.bytes).map_err(|_| unreadable())?;
    KeyPair::try_from(&der).map_err(|_| unreadable())
}

/// Reads the key that belongs to a certificate.
fn matching(
    parsed: &X509Certificate<'_>,
    certificate: &Found<'_>,
    key: &Found<'_>,
) -> Result<KeyPair, Error> {
    let pair = private_key(key)?;
    if parsed.public_key().subject_public_key.data.as_ref() == pair.der_bytes() {
        return Ok(pair);
    }
    Err(Error::KeyMismatch {
        certificate: certificate.location.clone(),
        key: key.location.clone(),
    })
}

/// Checks that a certificate, the first of its text, and a key belong together.
pub fn check_pair(certificate: &Found<'_>, key: &Found<'_>) -> Result<(), Error> {
    let list = certificates(certificate)?;
    let parsed = list.first().and_then(|der| X509Certificate::from_der(der).ok());
    let Some((_, parsed)) = parsed else {
        return Err(Error::NotACertificate {
            location: certificate.location.clone(),
        });
    };
    matching(&parsed, certificate, key).map(drop)
}

/// Whether a PEM public key (PKIX) is the public half of a private key.
pub fn is_pair(public: &Found<'_>, private: &Found<'_>) -> Result<bool, Error> {
    let unreadable = || Error::NotAKey {
        location: public.location.clone(),
    };
    let spki =
        rustls::pki_types::SubjectPublicKeyInfoDer::from_pem_slice(public.bytes).map_err(|_| unreadable())?;
    let (_, spki) = x509_parser::x509::SubjectPublicKeyInfo::from_der(&spki).map_err(|_| unreadable())?;
    Ok(spki.subject_public_key.data.as_ref() == private_key(private)?.der_bytes())
}

/// SHA-256 of a certificate, lower-case hexadecimal.
pub fn fingerprint(certificate: &[u8]) -> String {
    hex(&Sha256::digest(certificate))
}

pub(super) fn hex(bytes: &[u8]) -> String {
    use fmt::Write as _;
    bytes
        .iter()
        .fold(String::with_capacity(bytes.len() * 2), |mut text, byte| {
            // Writing to a String cannot fail.
            let _ = write!(text, "{byte:02x}");
            text
        })
}

fn pem_of(list: &[CertificateDer<'_>]) -> String {
    use base64::Engine as _;
    let mut text = String::new();
    for der in list {
        let encoded = base64::engine::general_purpose::STANDARD.encode(der);
        text.push_str("-----BEGIN CERTIFICATE-----\n");
        let mut rest = encoded.as_str();
        while !rest.is_empty() {
            let (line, tail) = rest.split_at(rest.len().min(64));
            text.push_str(line);
            text.push('\n');
            rest = tail;
        }
        text.push_str("-----END CERTIFICATE-----\n");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    const RSA_CA: &[u8] = include_bytes!("testdata/rsa-ca.crt");
    const EC_CA: &[u8] = include_bytes!("testdata/ec-ca.crt");
    const SEC1: &[u8] = include_bytes!("testdata/ec-sec1.key");

    fn found(bytes: &[u8]) -> Found<'_> {
        Found {
            location: "here".to_owned(),
            bytes,
        }
    }

    fn data(pairs: &[(&str, &[u8])]) -> BTreeMap<String, ByteString> {
        pairs
            .iter()
            .map(|(key, bytes)| ((*key).to_owned(), ByteString(bytes.to_vec())))
            .collect()
    }

    #[test]
    fn keys_of_every_usual_encoding_are_read() {
        for key in [
            &include_bytes!("testdata/rsa-pkcs1.key")[..],
            include_bytes!("testdata/rsa-pkcs8.key"),
        ] {
            Ca::from_pem(&found(RSA_CA), &found(key), None).unwrap();
        }
        for key in [SEC1, include_bytes!("testdata/ec-pkcs8.key")] {
            Ca::from_pem(&found(EC_CA), &found(key), None).unwrap();
        }
    }

    #[test]
    fn the_public_half_of_a_service_account_pair_is_recognised() {
        let public = found(include_bytes!("testdata/sa.pub"));
        assert!(is_pair(&public, &found(include_bytes!("testdata/rsa-pkcs1.key"))).unwrap());
        assert!(!is_pair(&public, &found(SEC1)).unwrap());
    }

    #[test]
    fn a_users_ca_with_cluster_api_keys_only_is_used() {
        let ca = Ca::read(
            "demo/demo-ca",
            CLUSTER_CA_KEYS,
            &data(&[("tls.crt", EC_CA), ("tls.key", SEC1)]),
        )
        .unwrap();
        assert_eq!(ca.bundle_pem(), ca.certificate_pem());
        // openssl x509 -in ec-ca.crt -outform der | sha256sum
        assert_eq!(ca.fingerprint().len(), 64);
        assert_eq!(ca.certificate_pem().as_bytes(), EC_CA);
    }

    #[test]
    fn a_key_that_does_not_match_is_named_with_its_secret() {
        let error = Ca::read(
            "demo/demo-ca",
            CLUSTER_CA_KEYS,
            &data(&[("tls.crt", RSA_CA), ("tls.key", SEC1)]),
        )
        .unwrap_err();
        assert_eq!(
            error.to_string(),
            "Secret demo/demo-ca, key \"tls.key\" does not belong to the certificate in Secret demo/demo-ca, \
             key \"tls.crt\": put a matching pair there"
        );
    }

    #[test]
    fn what_is_missing_or_unfit_is_named() {
        let read = |pairs: &[(&str, &[u8])]| {
            Ca::read("demo/demo-ca", CLUSTER_CA_KEYS, &data(pairs))
                .unwrap_err()
                .to_string()
        };
        assert_eq!(read(&[]), "Secret demo/demo-ca has no key \"tls.crt\"");
        assert_eq!(
            read(&[("tls.crt", EC_CA)]),
            "Secret demo/demo-ca has no key \"tls.key\""
        );
        assert!(read(&[("tls.crt", b"hello"), ("tls.key", SEC1)]).contains("not a PEM certificate"));
        assert!(read(&[("tls.crt", EC_CA), ("tls.key", b"hello")]).contains("not a PEM private key"));
        let leaf = include_bytes!("testdata/ec-leaf.crt");
        assert!(read(&[("tls.crt", leaf), ("tls.key", SEC1)]).contains("not a certificate authority"));
        let two = [EC_CA, RSA_CA].concat();
        assert!(read(&[("tls.crt", &two), ("tls.key", SEC1)]).contains("holds 2 certificates"));
        assert!(
            read(&[("tls.crt", EC_CA), ("tls.key", SEC1), ("ca.crt", RSA_CA)])
                .contains("does not contain the certificate")
        );
    }

    #[test]
    fn a_bundle_of_two_keeps_the_signer_apart() {
        let two = [RSA_CA, EC_CA].concat();
        let ca = Ca::read(
            "demo/demo-ca",
            CLUSTER_CA_KEYS,
            &data(&[("tls.crt", EC_CA), ("tls.key", SEC1), ("ca.crt", &two)]),
        )
        .unwrap();
        assert_eq!(ca.certificate_pem().matches("BEGIN").count(), 1);
        assert_eq!(ca.bundle_pem().matches("BEGIN").count(), 2);
    }

    #[test]
    fn nothing_secret_is_printed() {
        let text = String::from_utf8(SEC1.to_vec()).unwrap();
        assert_eq!(format!("{:?}", PrivateKeyPem::new(text)), "[redacted]");
        assert_eq!(format!("{:?}", SecretBytes::new(vec![1, 2, 3])), "[redacted]");
        let ca = Ca::from_pem(&found(EC_CA), &found(SEC1), None).unwrap();
        assert!(!format!("{ca:?}").contains("PRIVATE"));
    }
}
