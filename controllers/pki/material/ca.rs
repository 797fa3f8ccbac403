//! A CA that can sign: its certificate, its key and its trust bundle.

use std::{collections::BTreeMap, fmt};

use jiff::Timestamp;
use k8s_openapi::ByteString;
use rcgen::{Issuer, KeyPair, PublicKeyData};
use rustls::pki_types::CertificateDer;
use x509_parser::prelude::{FromDer, X509Certificate};
use zeroize::Zeroize;

use super::{Error, Found, certificates, fingerprint, matching, pem_of};

/// The keys of a Secret under which a CA is read: the first pair that exists is used.
#[derive(Debug, Clone, Copy)]
pub struct CaKeys {
    /// Pairs of (certificate, private key), in order of preference.
    pub pairs: &'static [(&'static str, &'static str)],
    /// Key of the trust bundle, if the Secret may have one; the certificate is the bundle otherwise.
    pub bundle: Option<&'static str>,
}

/// `<tcp>-ca`: Cluster API's keys first (a user's Secret has these alone), then kubeadm's.
pub const CLUSTER_CA_KEYS: CaKeys = CaKeys {
    pairs: &[("tls.crt", "tls.key"), ("ca.crt", "ca.key")],
    bundle: Some("ca.crt"),
};

/// `<tcp>-front-proxy-ca-certificate`.
pub const FRONT_PROXY_CA_KEYS: CaKeys = CaKeys {
    pairs: &[("front-proxy-ca.crt", "front-proxy-ca.key")],
    bundle: None,
};

/// A CA that can sign. Its key is wiped from memory when it is dropped.
pub struct Ca {
    certificate: CertificateDer<'static>,
    certificate_pem: String,
    bundle_pem: String,
    fingerprint: String,
    key_digest: String,
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
    /// Reads the CA of a Secret. `secret` is `namespace/name`, for messages.
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

    /// Reads a CA from certificate, private key and, if there is one, trust bundle.
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
            key_digest: fingerprint(parsed.public_key().raw),
            certificate_pem: pem_of(std::slice::from_ref(&der)),
            certificate: der.clone(),
            bundle_pem,
            not_before,
            not_after,
            issuer,
        })
    }

    /// The signing certificate, PEM, without others.
    pub fn certificate_pem(&self) -> &str {
        &self.certificate_pem
    }

    /// The trust bundle, PEM: the signing certificate, and others during a rotation.
    pub fn bundle_pem(&self) -> &str {
        &self.bundle_pem
    }

    /// SHA-256 of the signing certificate, as 64 lower-case hexadecimal digits.
    pub fn fingerprint(&self) -> &str {
        &self.fingerprint
    }

    /// SHA-256 of the public key, in the same form. A renewed certificate has the same.
    pub fn key_digest(&self) -> &str {
        &self.key_digest
    }

    /// Start of validity.
    pub fn not_before(&self) -> Timestamp {
        self.not_before
    }

    /// End of validity.
    pub fn not_after(&self) -> Timestamp {
        self.not_after
    }

    /// The signing certificate, DER.
    pub(in crate::pki) fn der(&self) -> &CertificateDer<'static> {
        &self.certificate
    }

    /// The issuer, for [`crate::pki::issue`].
    pub(in crate::pki) fn issuer(&self) -> &Issuer<'static, impl rcgen::SigningKey + use<>> {
        &self.issuer
    }
}

/// A key pair that is wiped from memory when it is dropped.
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
