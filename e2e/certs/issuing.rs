//! Issues self-signed serving certificates, and decides whether an issued one is still usable.

use std::collections::BTreeMap;

use anyhow::{Context as _, Result};
use k8s_openapi::{ByteString, api::core::v1::Secret};
use kube::ResourceExt as _;
use rcgen::{CertificateParams, DnType, ExtendedKeyUsagePurpose, KeyPair, KeyUsagePurpose};
use time::{Duration, OffsetDateTime};

use super::api::{ALT_NAMES, CERTIFICATE_NAME, CertificateSpec};

const LIFE: Duration = Duration::days(3650);
/// Clocks of lab and machines need not agree to the second.
const BACKDATE: Duration = Duration::hours(1);

/// Keys of a TLS Secret; the certificate is its own CA.
pub fn issue(spec: &CertificateSpec, now: OffsetDateTime) -> Result<BTreeMap<String, ByteString>> {
    let mut params = CertificateParams::new(spec.dns_names.clone()).context("not a DNS name")?;
    params.not_before = now - BACKDATE;
    params.not_after = now + LIFE;
    let name = spec.dns_names.first().context("spec.dnsNames is empty")?;
    params.distinguished_name.push(DnType::CommonName, name.as_str());
    for organization in spec.subject.iter().flat_map(|subject| &subject.organizations) {
        params
            .distinguished_name
            .push(DnType::OrganizationName, organization.as_str());
    }
    params.key_usages = vec![
        KeyUsagePurpose::DigitalSignature,
        KeyUsagePurpose::KeyEncipherment,
    ];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    let key = KeyPair::generate()?;
    let certificate = params.self_signed(&key)?.pem();
    Ok(BTreeMap::from([
        ("ca.crt".to_owned(), ByteString(certificate.clone().into_bytes())),
        ("tls.crt".to_owned(), ByteString(certificate.into_bytes())),
        ("tls.key".to_owned(), ByteString(key.serialize_pem().into_bytes())),
    ]))
}

/// Annotations by which [`serves`] knows its own.
pub fn annotations(certificate: &str, spec: &CertificateSpec) -> BTreeMap<String, String> {
    BTreeMap::from([
        (CERTIFICATE_NAME.to_owned(), certificate.to_owned()),
        (ALT_NAMES.to_owned(), spec.dns_names.join(",")),
    ])
}

/// Whether the Secret matches the Certificate.
pub fn serves(secret: &Secret, certificate: &str, spec: &CertificateSpec) -> bool {
    let held = secret.annotations();
    let complete = |data: &BTreeMap<String, ByteString>| {
        ["ca.crt", "tls.crt", "tls.key"]
            .iter()
            .all(|key| data.get(*key).is_some_and(|value| !value.0.is_empty()))
    };
    annotations(certificate, spec)
        .iter()
        .all(|(key, value)| held.get(key) == Some(value))
        && secret.data.as_ref().is_some_and(complete)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spec() -> CertificateSpec {
        CertificateSpec {
            dns_names: vec!["svc.ns.svc".to_owned(), "svc.ns.svc.cluster.local".to_owned()],
            secret_name: "cert".to_owned(),
            ..CertificateSpec::default()
        }
    }

    #[test]
    fn what_is_issued_serves_until_the_names_change() {
        let mut secret = Secret {
            data: Some(issue(&spec(), OffsetDateTime::UNIX_EPOCH).unwrap()),
            ..Secret::default()
        };
        secret.metadata.annotations = Some(annotations("c", &spec()));
        assert!(serves(&secret, "c", &spec()));
        assert!(!serves(&secret, "other", &spec()));
        let mut wider = spec();
        wider.dns_names.push("more".to_owned());
        assert!(!serves(&secret, "c", &wider));
        secret.data.as_mut().unwrap().remove("tls.key");
        assert!(!serves(&secret, "c", &spec()));
    }

    #[test]
    fn no_names_no_certificate() {
        let error = issue(&CertificateSpec::default(), OffsetDateTime::UNIX_EPOCH).unwrap_err();
        assert!(error.to_string().contains("dnsNames"), "{error}");
    }
}
