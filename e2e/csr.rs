//! Requests for client certificates, as kubelets make them.

use anyhow::Result;
use k8s_openapi::{ByteString, api::certificates::v1::CertificateSigningRequest};
use rcgen::{CertificateParams, DistinguishedName, DnType, KeyPair};
use serde_json::json;

/// What a kubelet may use its certificate for.
pub const KUBELET_USAGES: [&str; 2] = ["digital signature", "client auth"];

/// A request to the signer of kubelets for a name in a group.
///
/// # Errors
/// When no key can be made.
pub fn request(name: &str, group: &str, usages: &[&str]) -> Result<CertificateSigningRequest> {
    Ok(serde_json::from_value(json!({
        "metadata": {"generateName": "node-csr-"},
        "spec": {
            "signerName": "kubernetes.io/kube-apiserver-client-kubelet", "usages": usages,
            "request": ByteString(pem(name, group)?.into_bytes()),
        },
    }))?)
}

/// A certificate request for a name in a group, PEM.
///
/// # Errors
/// When no key can be made.
pub fn pem(name: &str, group: &str) -> Result<String> {
    Ok(keyed(name, group)?.0)
}

/// The same, with the private key, PEM.
///
/// # Errors
/// When no key can be made.
pub fn keyed(name: &str, group: &str) -> Result<(String, String)> {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, name);
    params.distinguished_name.push(DnType::OrganizationName, group);
    let key = KeyPair::generate()?;
    Ok((params.serialize_request(&key)?.pem()?, key.serialize_pem()))
}
