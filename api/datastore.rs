//! DataStore (kamaji.clastix.io/v1alpha1): a place where tenants keep their state; Kamaji's API, and `spec.managed`
//! for an etcd that the engine runs itself. Source: hosting.md 1.5, DESIGN 2.8 and 7.

use crate::pod::ResourceRequirements;
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

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
pub struct DataStoreSpec {
    /// Kind of store. Immutable. Left out with `managed`, which is etcd.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub driver: Option<Driver>,
    /// `host:port` of each member, without scheme.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub endpoints: Vec<String>,
    /// User and password of the engine, for SQL and NATS.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub basic_auth: Option<BasicAuth>,
    /// CA and client certificate of the engine.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tls_config: Option<TlsConfig>,
    /// An etcd that the engine runs itself. It cannot be added to or taken from an existing DataStore.
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
    pub content: Option<String>,
    /// The Secret.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub secret_reference: Option<SecretKeyReference>,
}

/// A key of a Secret.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(inline)]
pub struct SecretKeyReference {
    /// Name of the Secret.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Namespace of the Secret.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub namespace: Option<String>,
    /// Key of the Secret.
    pub key_path: String,
}

/// An etcd that the engine runs itself, TLS, compaction and quota included.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
#[schemars(inline)]
pub struct ManagedEtcd {
    /// Fixed members: 1 or 3. Immutable.
    pub replicas: i32,
    /// Volume of each member.
    pub storage: ManagedStorage,
    /// Resources of each member.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub resources: Option<ResourceRequirements>,
    /// Version of etcd, such as `3.6.5`; the engine's own when left out.
    #[serde(skip_serializing_if = "Option::is_none")]
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
#[schemars(inline)]
pub struct ManagedStorage {
    /// Size of the claim. Immutable.
    pub size: Quantity,
    /// Class of the claim; the cluster's default when left out. Immutable.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub class_name: Option<String>,
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
    #[serde(default)]
    pub ready: bool,
    /// `namespace/name` of the TenantControlPlanes that use it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub used_by: Vec<String>,
    /// Generation of the spec that was last looked at.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// Conditions; types and reasons are listed in the project's `api/conditions.rs`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["type"]))]
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
