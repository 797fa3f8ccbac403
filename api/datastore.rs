//! DataStore (kamaji.clastix.io/v1alpha1): an etcd, SQL or NATS server that holds the state of tenants. The API is
//! Kamaji's, with `spec.managed` in addition, for an etcd that the engine runs itself.

use k8s_openapi::apimachinery::pkg::{api::resource::Quantity, apis::meta::v1::Condition};
use kube::CustomResource;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};

use crate::{
    pod::ResourceRequirements,
    schema::{Rule, cel},
};

/// Names that etcd, an SQL server or the engine uses itself. The controller also rejects reserved prefixes.
macro_rules! reserved {
    () => {
        "!(self.lowerAscii() in ['root', 'admin', 'etcd', 'registry', 'kubernetes', 'postgres', 'mysql', 'nats'])"
    };
}

/// Rules of a tenant's user name.
pub(crate) const NAME_RULES: &[Rule] = &[
    (
        "self == oldSelf",
        "dataStoreUsername cannot be changed; the tenant's data belongs to that user",
    ),
    (
        reserved!(),
        "dataStoreUsername is a reserved name, such as root; choose another name, or omit the field to have one generated",
    ),
];

/// Rules of a tenant's schema name.
pub(crate) const SCHEMA_RULES: &[Rule] = &[
    (
        "self == oldSelf",
        "dataStoreSchema cannot be changed; the tenant's data is stored under it",
    ),
    (
        reserved!(),
        "dataStoreSchema is a reserved name, such as root; choose another name, or omit the field to have one generated",
    ),
];

/// Rules between fields of the spec. With `managed` the engine sets everything else itself.
const SPEC_RULES: &[Rule] = &[
    (
        "has(self.managed) || (has(self.driver) && has(self.endpoints) && size(self.endpoints) > 0)",
        "driver and endpoints are required; or set managed to let the engine run etcd",
    ),
    (
        "!has(self.managed) || !(has(self.endpoints) || has(self.tlsConfig) || has(self.basicAuth)) && \
         (!has(self.driver) || self.driver == 'etcd')",
        "managed is an etcd with its own certificates: leave out endpoints, tlsConfig and basicAuth, and any driver but \
         etcd",
    ),
    (
        "has(self.managed) == has(oldSelf.managed)",
        "managed cannot be added to or removed from an existing DataStore; create another DataStore",
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
         certificates issued by that CA",
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
        "tlsConfig.clientCertificate.certificate needs content or secretReference, or omit clientCertificate",
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
    doc = "DataStore is an etcd, SQL or NATS server that holds the state of tenant control planes.",
    printcolumn(name = "Driver", type_ = "string", json_path = ".spec.driver"),
    printcolumn(name = "Ready", type_ = "boolean", json_path = ".status.ready"),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp")
)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-validations" = cel(SPEC_RULES)))]
pub struct DataStoreSpec {
    /// Kind of datastore. Immutable. Omit it with `managed`, which runs etcd.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(extend("x-kubernetes-validations" = cel(&[("self == oldSelf", "driver cannot be changed; create another DataStore")])))]
    pub driver: Option<Driver>,
    /// Endpoints as `host:port`, without a scheme.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(
        length(min = 1, max = 32),
        inner(length(max = 260)),
        extend("x-kubernetes-validations" = cel(&[
            ("self.all(e, !e.contains('://') && e.contains(':'))", "every endpoint must be host:port without a scheme"),
        ]))
    )]
    pub endpoints: Vec<String>,
    /// User and password that the engine uses, for SQL and NATS.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub basic_auth: Option<BasicAuth>,
    /// CA, and the client certificate that the engine uses.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tls_config: Option<TlsConfig>,
    /// An etcd that the engine runs. It cannot be added to or removed from an existing DataStore. Deletion of the
    /// DataStore waits until no tenant uses it, and then removes etcd with its volumes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub managed: Option<ManagedEtcd>,
}

impl DataStoreSpec {
    /// The driver in effect: a managed DataStore is etcd.
    pub fn effective_driver(&self) -> Option<Driver> {
        self.managed.as_ref().map(|_| Driver::Etcd).or(self.driver)
    }
}

/// Kind of datastore.
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
    /// The value as it is spelled in the object.
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
    /// CA of the datastore. The etcd driver also requires its key, to issue client certificates for tenants.
    pub certificate_authority: CertificatePair,
    /// Client certificate that the engine uses. Required for etcd.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub client_certificate: Option<ClientCertificate>,
}

/// A certificate and, where required, its key.
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

/// Inline bytes, or a reference to a Secret. Inline bytes take precedence.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
#[schemars(inline)]
pub struct ContentRef {
    /// The bytes, base64 encoded.
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

/// An etcd that the engine runs, with TLS, compaction and quota.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
#[schemars(inline)]
pub struct ManagedEtcd {
    /// Number of members: 1 or 3. Immutable.
    #[schemars(extend("x-kubernetes-validations" = cel(&[
        ("self in [1, 3]", "managed.replicas must be 1 or 3: an etcd needs an odd number of members"),
        ("self == oldSelf", "managed.replicas cannot be changed; create another DataStore"),
    ])))]
    pub replicas: i32,
    /// Volume of each member.
    pub storage: ManagedStorage,
    /// Resources of each member.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub resources: Option<ResourceRequirements>,
    /// Version of etcd, such as `3.6.16`. Defaults to the version that the engine ships.
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
    ("self == oldSelf", "managed.storage cannot be changed; create another DataStore"),
])))]
pub struct ManagedStorage {
    /// Size of the PersistentVolumeClaim, such as `8Gi`. Immutable.
    #[schemars(schema_with = "size")]
    pub size: Quantity,
    /// StorageClass of the PersistentVolumeClaim. Defaults to the default class of the cluster. Immutable.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub class_name: Option<String>,
}

/// A quantity as a string: a bare number would be read back as another type.
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
    /// Whether tenants can use the DataStore.
    pub ready: bool,
    /// TenantControlPlanes that use the DataStore, as `namespace/name`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub used_by: Vec<String>,
    /// Generation of the spec that the controller last observed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// Conditions of the object.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "crate::schema::conditions")]
    pub conditions: Vec<Condition>,
    /// Id of the datastore with the data, which the datastore holds too. Another one is not used.
    #[serde(rename = "storeID", skip_serializing_if = "Option::is_none")]
    pub store_id: Option<String>,
    /// Only with `spec.managed`: the objects that the engine created.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub managed: Option<ManagedStatus>,
}

/// The objects that the engine created for a managed DataStore.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
#[schemars(inline)]
pub struct ManagedStatus {
    /// Namespace of the StatefulSet, the Services, the Secrets and the PersistentVolumeClaims.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub namespace: Option<String>,
    /// Endpoints of the members, as `host:port`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub endpoints: Vec<String>,
    /// Number of ready members.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ready_replicas: Option<i32>,
    /// Version of etcd that runs.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub version: Option<String>,
    /// UID of the PersistentVolumeClaim with the data.
    #[serde(rename = "claimUID", skip_serializing_if = "Option::is_none")]
    pub claim_uid: Option<String>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_managed_store_is_etcd_without_a_driver() {
        let managed = DataStoreSpec {
            managed: Some(ManagedEtcd::default()),
            ..Default::default()
        };
        assert_eq!(managed.effective_driver(), Some(Driver::Etcd));
        assert_eq!(DataStoreSpec::default().effective_driver(), None);
    }
}
