//! Reading a CA that the engine did not generate. Pure.

use k8s_openapi::api::core::v1::Secret;
use kamaji_api::{conditions::Reason, labels::ours};

use super::component::CaKeys;
use crate::{
    k8s::{error::Class, problem::Problem, row::Row},
    pki::{
        issue::content_hash_of,
        material::{self, CLUSTER_CA_KEYS, Ca},
    },
};

/// A CA that a user provides in `<tcp>-ca`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProvidedCa {
    /// Fingerprint of its certificate.
    pub fingerprint: String,
    /// Digest of the data of the Secret.
    pub hash: String,
    /// Digest of its public key.
    pub key: String,
    /// Which keys the Secret has.
    pub keys: CaKeys,
}

impl ProvidedCa {
    /// Reads the CA in `secret`, which is `name` (namespace and name) in messages.
    ///
    /// # Errors
    /// Certificate and key are not a usable CA.
    pub fn read(name: &str, secret: &Secret) -> Result<Self, Problem> {
        let data = secret.data.clone().unwrap_or_default();
        let ca = Ca::read(name, CLUSTER_CA_KEYS, &data).map_err(|error| unusable(&error))?;
        let has = |key: &str| data.get(key).is_some_and(|value| !value.0.is_empty());
        let (certificate, key) = if has("tls.crt") {
            ("tls.crt", "tls.key")
        } else {
            ("ca.crt", "ca.key")
        };
        Ok(Self {
            fingerprint: ca.fingerprint().to_owned(),
            hash: content_hash_of(secret),
            key: ca.key_digest().to_owned(),
            keys: CaKeys {
                bundle: if has("ca.crt") { "ca.crt" } else { certificate },
                certificate,
                key,
            },
        })
    }
}

/// Key material that cannot be used as it is. A Secret without our label is not watched, so it is read again.
pub fn unusable(error: &material::Error) -> Problem {
    let reason = match error {
        material::Error::KeyMismatch { .. } => Reason::CertificateAuthorityKeyMismatch,
        _ => Reason::CertificateAuthorityInvalid,
    };
    Problem::backoff(Class::Foreign, reason, error.to_string())
}

/// Digest of the data of a Secret, as the engine recorded it in an annotation; empty when it did not.
pub fn recorded_hash(row: &Row) -> String {
    row.annotations
        .get(ours::CONTENT_HASH)
        .cloned()
        .unwrap_or_default()
}
