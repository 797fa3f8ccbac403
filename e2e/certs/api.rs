//! `Issuer` and `Certificate` of cert-manager.io/v1, as far as the lab serves them.
//!
//! The API server prunes fields that this implementation does not know, so `kubectl get` shows which fields have an
//! effect.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

/// Annotation that requests a CA bundle: namespace and name of a Certificate.
pub const INJECT: &str = "cert-manager.io/inject-ca-from";
/// Annotation of an issued Secret: its Certificate.
pub const CERTIFICATE_NAME: &str = "cert-manager.io/certificate-name";
/// Annotation of an issued Secret: the names it is good for.
pub const ALT_NAMES: &str = "cert-manager.io/alt-names";

/// Source of certificates.
#[derive(CustomResource, Clone, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[kube(
    group = "cert-manager.io",
    version = "v1",
    kind = "Issuer",
    namespaced,
    status = "ConditionStatus",
    printcolumn = r#"{"name":"Ready","type":"string","jsonPath":".status.conditions[?(@.type==\"Ready\")].status"}"#
)]
#[serde(rename_all = "camelCase")]
pub struct IssuerSpec {
    /// The one source there is: each certificate signs itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "open_object")]
    pub self_signed: Option<Map<String, Value>>,
}

/// A certificate to be kept in a Secret.
#[derive(CustomResource, Clone, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[kube(
    group = "cert-manager.io",
    version = "v1",
    kind = "Certificate",
    namespaced,
    status = "ConditionStatus",
    shortname = "cert",
    shortname = "certs",
    printcolumn = r#"{"name":"Ready","type":"string","jsonPath":".status.conditions[?(@.type==\"Ready\")].status"}"#,
    printcolumn = r#"{"name":"Secret","type":"string","jsonPath":".spec.secretName"}"#
)]
#[serde(rename_all = "camelCase")]
pub struct CertificateSpec {
    /// DNS names.
    #[serde(default)]
    pub dns_names: Vec<String>,
    /// Issuer in the same namespace.
    pub issuer_ref: IssuerRef,
    /// Secret to keep it in.
    pub secret_name: String,
    /// Subject.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub subject: Option<Subject>,
}

/// Who issues.
#[derive(Clone, Debug, Default, Serialize, Deserialize, JsonSchema)]
pub struct IssuerRef {
    /// `Issuer`, also when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kind: Option<String>,
    /// Name.
    pub name: String,
}

/// Whom a certificate is about.
#[derive(Clone, Debug, Default, Serialize, Deserialize, JsonSchema)]
pub struct Subject {
    /// Organisations.
    #[serde(default)]
    pub organizations: Vec<String>,
}

/// Conditions and nothing else.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct ConditionStatus {
    /// Conditions.
    #[serde(default)]
    pub conditions: Vec<Condition>,
}

fn open_object(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
    schemars::json_schema!({"type": "object", "x-kubernetes-preserve-unknown-fields": true})
}
