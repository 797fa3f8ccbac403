//! DataStore (kamaji.clastix.io/v1alpha1): a place where tenants keep their state; Kamaji's API, and `spec.managed`
//! for an etcd that the engine runs itself. Source: hosting.md 1.5, DESIGN 2.8 and 7.

use crate::crd::{Rule, cel};
use crate::pod::ResourceRequirements;
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::CustomResource;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};

/// Names in a store that belong to the store itself, to Kubernetes or to the engine (hosting.md 7.1). The controller
/// checks again, with the beginnings of names that are reserved too.
macro_rules! reserved {
    () => {
        "!(self.lowerAscii() in ['root', 'admin', 'etcd', 'registry', 'kubernetes', 'postgres', 'mysql', 'nats'])"
    };
}

/// User of a tenant.
pub(crate) const NAME_RULES: &[Rule] = &[
    (
        "self == oldSelf",
        "dataStoreUsername cannot be changed; the tenant's data belongs to that user",
    ),
    (
        reserved!(),
        "dataStoreUsername is a reserved name, such as root; choose another, or leave it out and one is drawn",
    ),
];

/// Schema of a tenant.
pub(crate) const SCHEMA_RULES: &[Rule] = &[
    (
        "self == oldSelf",
        "dataStoreSchema cannot be changed; the tenant's data stands under it",
    ),
    (
        reserved!(),
        "dataStoreSchema is a reserved name, such as root; choose another, or leave it out and one is drawn",
    ),
];

/// Rules between fields of the spec. With `managed` the engine knows the rest itself.
const SPEC_RULES: &[Rule] = &[
    (
        "has(self.managed) || (has(self.driver) && has(self.endpoints) && size(self.endpoints) > 0)",
        "driver and endpoints are required; or set managed and the engine runs the store itself",
    ),
    (
        "!has(self.managed) || !(has(self.endpoints) || has(self.tlsConfig) || has(self.basicAuth)) && \
         (!has(self.driver) || self.driver == 'etcd')",
        "managed is an etcd with its own certificates: leave out endpoints, tlsConfig and basicAuth, and any driver but \
         etcd",
    ),
    (
        "has(self.managed) == has(oldSelf.managed)",
        "managed cannot be added to or taken from an existing DataStore; make another one",
    ),
    (
        "has(self.managed) || has(self.driver) == has(oldSelf.driver)",
        "driver cannot be unset; keep its value",
    ),
    (
        "has(self.managed) || !has(self.driver) || self.driver != 'etcd' || (has(self.tlsConfig) && \
         has(self.tlsConfig.certificateAuthority.privateKey) && \
         (has(self.tlsConfig.certificateAuthority.privateKey.secretReference) || \
         has(self.tlsConfig.certificateAuthority.privateKey.content)))",
        "tlsConfig.certificateAuthority.privateKey needs content or secretReference with driver etcd: tenants get \
         certificates of that CA",
    ),
    (
        "has(self.managed) || !has(self.driver) || self.driver != 'etcd' || (has(self.tlsConfig) && \
         has(self.tlsConfig.clientCertificate) && \
         (has(self.tlsConfig.clientCertificate.certificate.secretReference) || \
         has(self.tlsConfig.clientCertificate.certificate.content)))",
        "tlsConfig.clientCertificate.certificate needs content or secretReference with driver etcd",
    ),
    (
        "has(self.managed) || !has(self.driver) || self.driver != 'etcd' || (has(self.tlsConfig) && \
         has(self.tlsConfig.clientCertificate) && \
         (has(self.tlsConfig.clientCertificate.privateKey.secretReference) || \
         has(self.tlsConfig.clientCertificate.privateKey.content)))",
        "tlsConfig.clientCertificate.privateKey needs content or secretReference with driver etcd",
    ),
    (
        "!has(self.driver) || self.driver == 'etcd' || !has(self.tlsConfig) || \
         !has(self.tlsConfig.clientCertificate) || \
         has(self.tlsConfig.clientCertificate.certificate.secretReference) || \
         has(self.tlsConfig.clientCertificate.certificate.content)",
        "tlsConfig.clientCertificate.certificate needs content or secretReference, or leave clientCertificate out",
    ),
    (
        "!has(self.driver) || self.driver == 'etcd' || !has(self.basicAuth) || \
         has(self.basicAuth.username.secretReference) || has(self.basicAuth.username.content)",
        "basicAuth.username needs content or secretReference",
    ),
    (
        "!has(self.driver) || self.driver == 'etcd' || !has(self.basicAuth) || \
         has(self.basicAuth.password.secretReference) || has(self.basicAuth.password.content)",
        "basicAuth.password needs content or secretReference",
    ),
    (
        "!has(self.driver) || self.driver == 'etcd' || has(self.tlsConfig) || has(self.basicAuth)",
        "tlsConfig or basicAuth is required: without one of them anybody could read the tenants' data",
    ),
];

/// Desired state of a DataStore. Without `managed`, `driver` and `endpoints` are required.
#[derive(CustomResource, Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[kube(
    group = "kamaji.clastix.io",
    version = "v1alpha1",
    kind = "DataStore",
    plural = "datastores",
    category = "kamaji",
    status = "DataStoreStatus",
    derive = "PartialEq",
    derive = "Default",
    doc = "DataStore is a place where tenant control planes keep their state.",
    printcolumn(name = "Driver", type_ = "string", json_path = ".spec.driver"),
    printcolumn(name = "Ready", type_ = "boolean", json_path = ".status.ready"),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp")
)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-validations" = cel(SPEC_RULES)))]
pub struct DataStoreSpec {
    /// Kind of store. Immutable. Left out with `managed`, which is etcd.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(extend("x-kubernetes-validations" = cel(&[("self == oldSelf", "driver cannot be changed; make another DataStore")])))]
    pub driver: Option<Driver>,
    /// `host:port` of each member, without scheme.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(
        length(min = 1, max = 32),
        inner(length(max = 260)),
        extend("x-kubernetes-validations" = cel(&[
            ("self.all(e, !e.contains('://') && e.contains(':'))", "every endpoint must be host:port without a scheme"),
        ]))
    )]
    pub endpoints: Vec<String>,
    /// User and password of the engine, for SQL and NATS.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub basic_auth: Option<BasicAuth>,
    /// CA and client certificate of the engine.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tls_config: Option<TlsConfig>,
    /// An etcd that the engine runs itself. It cannot be added to or taken from an existing DataStore. Deleting the
    /// DataStore, which waits until no tenant uses it, removes etcd and its volumes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub managed: Option<ManagedEtcd>,
}

impl DataStoreSpec {
    /// The driver in force: a managed store is etcd.
    pub fn effective_driver(&self) -> Option<Driver> {
        self.managed.as_ref().map(|_| Driver::Etcd).or(self.driver)
    }
}

/// Kind of store.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[schemars(inline)]
#[expect(missing_docs, reason = "the names are products")]
pub enum Driver {
    #[serde(rename = "etcd")]
    Etcd,
    #[serde(rename = "MySQL")]
    MySql,
    #[serde(rename = "PostgreSQL")]
    PostgreSql,
    #[serde(rename = "NATS")]
    Nats,
}

impl Driver {
    /// The name as it stands in the object.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Etcd => "etcd",
            Self::MySql => "MySQL",
            Self::PostgreSql => "PostgreSQL",
            Self::Nats => "NATS",
        }
    }
}

/// User and password.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(inline)]
pub struct BasicAuth {
    /// User.
    pub username: ContentRef,
    /// Password.
    pub password: ContentRef,
}

/// CA and client certificate.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(inline)]
pub struct TlsConfig {
    /// CA of the store; etcd needs its key too, to issue certificates for tenants.
    pub certificate_authority: CertificatePair,
    /// Client certificate of the engine; etcd needs it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub client_certificate: Option<ClientCertificate>,
}

/// Certificate and, where needed, its key.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(inline)]
pub struct CertificatePair {
    /// PEM certificate.
    pub certificate: ContentRef,
    /// PEM key.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub private_key: Option<ContentRef>,
}

/// Certificate and key.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(inline)]
pub struct ClientCertificate {
    /// PEM certificate.
    pub certificate: ContentRef,
    /// PEM key.
    pub private_key: ContentRef,
}

/// Bytes in place, or in a Secret; in place wins.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
#[schemars(inline)]
pub struct ContentRef {
    /// The bytes, base64.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(extend("format" = "byte"))]
    pub content: Option<String>,
    /// The Secret.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub secret_reference: Option<SecretKeyReference>,
}

/// A key of a Secret.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(inline, extend("x-kubernetes-map-type" = "atomic"))]
pub struct SecretKeyReference {
    /// Name of the Secret.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Namespace of the Secret.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub namespace: Option<String>,
    /// Key of the Secret.
    #[schemars(length(min = 1))]
    pub key_path: String,
}

/// An etcd that the engine runs itself, TLS, compaction and quota included.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
#[schemars(inline)]
pub struct ManagedEtcd {
    /// Fixed members: 1 or 3. Immutable.
    #[schemars(extend("x-kubernetes-validations" = cel(&[
        ("self in [1, 3]", "managed.replicas must be 1 or 3: an etcd needs an odd number of members"),
        ("self == oldSelf", "managed.replicas cannot be changed; make another DataStore"),
    ])))]
    pub replicas: i32,
    /// Volume of each member.
    pub storage: ManagedStorage,
    /// Resources of each member.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub resources: Option<ResourceRequirements>,
    /// Version of etcd, such as `3.6.16`; the engine's own when left out.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(
        length(max = 64),
        regex(pattern = "^v?[0-9]+[.][0-9]+[.][0-9]+(-[0-9A-Za-z.-]+)?$")
    )]
    pub version: Option<String>,
}

impl Default for ManagedEtcd {
    fn default() -> Self {
        Self {
            replicas: 1,
            storage: ManagedStorage::default(),
            resources: None,
            version: None,
        }
    }
}

/// Volume of a member.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
#[schemars(inline, extend("x-kubernetes-validations" = cel(&[
    ("self == oldSelf", "managed.storage cannot be changed; make another DataStore"),
])))]
pub struct ManagedStorage {
    /// Size of the claim, such as `8Gi`. Immutable.
    #[schemars(schema_with = "size")]
    pub size: Quantity,
    /// Class of the claim; the cluster's default when left out. Immutable.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub class_name: Option<String>,
}

/// A quantity as text: a bare number would not come back as one.
fn size(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "string",
        "maxLength": 32,
        "pattern": "^[0-9]+([.][0-9]+)?([KMGTPE]i|[kMGTPE])?$",
        "default": ManagedStorage::default().size,
    })
}

impl Default for ManagedStorage {
    fn default() -> Self {
        Self {
            size: Quantity("8Gi".to_owned()),
            class_name: None,
        }
    }
}

/// Observed state of a DataStore.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct DataStoreStatus {
    /// Whether tenants can be placed here.
    pub ready: bool,
    /// `namespace/name` of the TenantControlPlanes that use it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub used_by: Vec<String>,
    /// Generation of the spec that was last looked at.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// Conditions; types and reasons are listed in the project's `api/conditions.rs`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "crate::crd::conditions")]
    pub conditions: Vec<Condition>,
    /// Managed stores only: where the engine put its parts.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub managed: Option<ManagedStatus>,
}

/// Where the engine put the parts of a managed store.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
#[schemars(inline)]
pub struct ManagedStatus {
    /// Namespace of StatefulSet, Services, Secrets and claims.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub namespace: Option<String>,
    /// `host:port` of each member.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub endpoints: Vec<String>,
    /// Members that are ready.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ready_replicas: Option<i32>,
    /// Version that runs.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub version: Option<String>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_managed_store_is_etcd_without_saying_so() {
        let managed = DataStoreSpec {
            managed: Some(ManagedEtcd::default()),
            ..Default::default()
        };
        assert_eq!(managed.effective_driver(), Some(Driver::Etcd));
        assert_eq!(DataStoreSpec::default().effective_driver(), None);
    }
}
