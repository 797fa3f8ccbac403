//! Reads existing key material: CAs of any origin (ours, kubeadm's, Kamaji's, a user's), keys in PKCS#1, SEC1 or PKCS#8.
//! Nothing is issued and nothing is fetched here.
//!
//! Every error names the Secret and the key in it, since users read it in a condition.

use data_encoding::HEXLOWER;
use rcgen::{KeyPair, PublicKeyData};
use rustls::pki_types::{CertificateDer, pem::PemObject};
use sha2::{Digest, Sha256};
use x509_parser::prelude::{FromDer, X509Certificate};

mod ca;
mod secret;
#[cfg(test)]
mod tests;

pub use self::{
    ca::{CLUSTER_CA_KEYS, Ca, CaKeys, FRONT_PROXY_CA_KEYS},
    secret::{PrivateKeyPem, SecretBytes},
};

/// Bytes and the location they were read from, such as a key of a Secret.
#[derive(Clone)]
pub struct Found<'a> {
    /// Location for messages, for example `Secret demo/demo-ca, key "tls.crt"`.
    pub location: String,
    /// The bytes.
    pub bytes: &'a [u8],
}

impl<'a> Found<'a> {
    /// The value of a key of a Secret; `secret` is `namespace/name`.
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

/// Why key material cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// A Secret lacks a key.
    #[error("Secret {secret} has no key {key:?}")]
    Missing {
        /// `namespace/name`.
        secret: String,
        /// The missing key.
        key: String,
    },
    /// A certificate cannot be read.
    #[error("{location} is not a PEM certificate; store one there")]
    NotACertificate {
        /// Its location.
        location: String,
    },
    /// A private key cannot be read.
    #[error("{location} is not a PEM private key (RSA, ECDSA or Ed25519 in PKCS#1, SEC1 or PKCS#8)")]
    NotAKey {
        /// Its location.
        location: String,
    },
    /// There is more than one certificate where exactly one must be.
    #[error("{location} holds {count} certificates; it must hold exactly the one that signs")]
    SeveralCertificates {
        /// Their location.
        location: String,
        /// How many there are.
        count: usize,
    },
    /// The certificate may not sign others.
    #[error("{location} is not a certificate authority (basic constraints lack CA)")]
    NotACa {
        /// Its location.
        location: String,
    },
    /// Certificate and key do not match.
    #[error("{key} does not belong to the certificate in {certificate}: put a matching pair there")]
    KeyMismatch {
        /// Location of the certificate.
        certificate: String,
        /// Location of the key.
        key: String,
    },
    /// The subject of the CA cannot be reproduced as the issuer of the certificates it signs.
    #[error("{location} has a subject that cannot be used as an issuer (repeated or joined attributes)")]
    UnusableSubject {
        /// Its location.
        location: String,
    },
    /// The trust bundle does not contain the signing certificate.
    #[error("{bundle} does not contain the certificate in {certificate}")]
    BundleWithoutSigner {
        /// Location of the bundle.
        bundle: String,
        /// Location of the signing certificate.
        certificate: String,
    },
}

/// Reads all certificates of a PEM text, in order; at least one.
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

/// Reads a private key in PKCS#1, SEC1 or PKCS#8.
pub fn private_key(found: &Found<'_>) -> Result<KeyPair, Error> {
    let unreadable = || Error::NotAKey {
        location: found.location.clone(),
    };
    let der = rustls::pki_types::PrivateKeyDer::from_pem_slice(found.bytes).map_err(|_| unreadable())?;
    KeyPair::try_from(&der).map_err(|_| unreadable())
}

/// Reads the private key of a certificate.
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

/// Checks that a key belongs to a certificate, the first of its text.
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

/// SHA-256 of a DER certificate, as 64 lower-case hexadecimal digits.
pub fn fingerprint(certificate: &[u8]) -> String {
    HEXLOWER.encode(&Sha256::digest(certificate))
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
