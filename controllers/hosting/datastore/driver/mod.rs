//! The way into datastores: the one place of the hosting engine that talks to them.
//!
//! A tenant calls three things, all safe to call again after a crash at any await:
//!
//! - [`super::access`]: the administrator's connection to a DataStore, shared, opened where it is not open;
//! - [`etcd::EtcdAdmin::ensure_tenant`]: ownership mark, role, grant, user, in an order in which everything that
//!   exists is already marked as ours;
//! - [`etcd::EtcdAdmin::delete_tenant`]: the reverse, refused without our mark.
//!
//! Every call is bounded in time and its error says, by [`Error::class`], whether waiting helps.

use std::{
    collections::{BTreeMap, HashMap},
    fmt,
    sync::Arc,
};

use jiff::Timestamp;
use kamaji_api::{conditions::Reason, datastore::DataStore};
use kube::ResourceExt as _;
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};

use super::names;
use crate::{
    k8s::error::Class,
    pki::material::{Ca, Error as MaterialError, Found, PrivateKeyPem},
};

pub mod admin;
pub mod etcd;

/// Whose a schema is. Time is told, not compared.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Owner {
    /// Id of the management cluster: the UID of its namespace `kube-system`.
    pub cluster: String,
    /// Namespace of the tenant.
    pub namespace: String,
    /// Name of the tenant.
    pub name: String,
}

impl fmt::Display for Owner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            cluster,
            namespace,
            name,
        } = self;
        write!(f, "{namespace}/{name} of management cluster {cluster}")
    }
}

/// The ownership mark, as it is stored.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mark {
    /// Whose it is.
    #[serde(flatten)]
    pub owner: Owner,
    /// Since when.
    pub since: Timestamp,
}

/// A tenant's place in a datastore.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TenantSchema {
    /// Schema: prefix and role.
    pub schema: String,
    /// User.
    pub user: String,
    /// Whose it is.
    pub owner: Owner,
    /// Take over what exists without a mark: tenants made by Kamaji. Never for a new tenant.
    pub adopt: bool,
    /// The tenant was set up before: a datastore that knows nothing of it is not the one that holds its data.
    pub expected: bool,
}

/// What a deletion did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Deleted {
    /// Keys that were removed.
    pub keys: u64,
}

/// How to reach a datastore as its administrator.
#[derive(Clone)]
pub struct Credentials {
    /// `host:port`, without scheme.
    pub endpoints: Vec<String>,
    /// What the datastore's certificates are checked by, PEM.
    pub ca_pem: String,
    /// Key of the CA, for the certificates of tenants.
    pub ca_key: Option<PrivateKeyPem>,
    /// The administrator's certificate, PEM.
    pub certificate_pem: String,
    /// The administrator's key.
    pub key: PrivateKeyPem,
    /// Where the CA's certificate and key were found, for messages.
    pub ca_locations: (String, String),
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Credentials")
            .field("endpoints", &self.endpoints)
            .finish_non_exhaustive()
    }
}

impl Credentials {
    /// The CA that signs the certificates of tenants.
    pub fn ca(&self) -> Result<Ca, MaterialError> {
        let (certificate, key) = &self.ca_locations;
        let private = self.ca_key.as_ref().ok_or_else(|| MaterialError::NotAKey {
            location: key.clone(),
        })?;
        Ca::from_pem(
            &Found {
                location: certificate.clone(),
                bytes: self.ca_pem.as_bytes(),
            },
            &Found {
                location: key.clone(),
                bytes: private.expose().as_bytes(),
            },
            None,
        )
    }
}

/// Why a datastore did not do what it was asked.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// Nobody answers.
    #[error(
        "no answer from {endpoints} within {seconds} s: {detail}; check spec.endpoints of the DataStore, and that pods of \
         this cluster reach them"
    )]
    Unreachable {
        /// Who was asked.
        endpoints: String,
        /// For how long.
        seconds: u64,
        /// What is known of the cause.
        detail: String,
    },
    /// The administrator's certificate has not the rights.
    #[error("{operation}: permission denied; the client certificate must be of the user root")]
    Denied {
        /// What was asked.
        operation: String,
    },
    /// The schema is another tenant's.
    #[error("schema {schema:?} belongs to {}", whose(.owner.as_deref()))]
    ForeignSchema {
        /// The schema.
        schema: String,
        /// Whose it is, as far as it is marked.
        owner: Option<Box<Owner>>,
    },
    /// The user is another tenant's.
    #[error("datastore user {user:?} belongs to {}", whose(.owner.as_deref()))]
    ForeignUser {
        /// The user.
        user: String,
        /// Whose it is, as far as it is marked.
        owner: Option<Box<Owner>>,
    },
    /// What was set up once is not there.
    #[error("the datastore holds nothing of schema {schema:?}: no ownership mark, no role, no key")]
    DataMissing {
        /// The schema.
        schema: String,
    },
    /// A name must not be used.
    #[error(transparent)]
    Name(#[from] names::Refusal),
    /// Certificates or endpoints cannot be used.
    #[error("credentials cannot be used: {0}")]
    Credentials(String),
    /// The datastore refused for a reason of its own.
    #[error("{operation}: {detail}")]
    Refused {
        /// What was asked.
        operation: String,
        /// What it answered.
        detail: String,
    },
}

fn whose(owner: Option<&Owner>) -> String {
    owner.map_or_else(
        || "somebody who left no ownership mark".to_owned(),
        ToString::to_string,
    )
}

impl Error {
    /// Reason of the condition that tells it.
    pub fn reason(&self) -> Reason {
        match self {
            Self::Unreachable { .. } => Reason::DataStoreUnreachable,
            Self::Denied { .. } => Reason::DataStoreUnauthorized,
            Self::ForeignSchema { .. } => Reason::SchemaOwnedByAnother,
            Self::ForeignUser { .. } => Reason::UserOwnedByAnother,
            Self::DataMissing { .. } => Reason::DataMissing,
            Self::Name(names::Refusal::Reserved { .. }) => Reason::ReservedName,
            Self::Name(names::Refusal::Malformed { .. }) => Reason::InvalidSpec,
            Self::Credentials(_) => Reason::CredentialsInvalid,
            Self::Refused { .. } => Reason::InternalError,
        }
    }

    /// How to retry.
    pub fn class(&self) -> Class {
        match self {
            Self::Unreachable { .. } | Self::Refused { .. } | Self::DataMissing { .. } => Class::Foreign,
            Self::Denied { .. } => Class::Denied,
            Self::ForeignSchema { .. } | Self::ForeignUser { .. } | Self::Name(_) | Self::Credentials(_) => {
                Class::Invalid
            }
        }
    }
}

/// An open DataStore.
#[derive(Debug)]
pub struct Access {
    /// The administrator's connection.
    pub admin: admin::Admin,
    /// `host:port` of each member, for the API servers of tenants.
    pub endpoints: Vec<String>,
    /// Signs the certificates of tenants.
    pub ca: Ca,
}

impl Access {
    /// Connects and sees one authenticated answer.
    pub async fn open(credentials: &Credentials) -> Result<Self, Error> {
        Ok(Self {
            ca: credentials
                .ca()
                .map_err(|error| Error::Credentials(error.to_string()))?,
            admin: admin::Admin::Etcd(Box::new(etcd::EtcdAdmin::connect(credentials).await?)),
            endpoints: credentials.endpoints.clone(),
        })
    }
}

/// What a connection was opened for: it is opened anew when the DataStore changes, or somebody touches it.
type Intent = (Option<String>, Option<i64>, Option<BTreeMap<String, String>>);

/// Connections of this process, one per DataStore.
#[derive(Default)]
pub struct Pool {
    open: Mutex<HashMap<String, (Intent, Arc<Access>)>>,
    /// What stands for every datastore, in the convergence model.
    #[cfg(test)]
    pub memory: Mutex<Option<admin::memory::Memory>>,
}

impl Pool {
    /// What is open to this DataStore as it stands.
    pub fn get(&self, store: &DataStore) -> Option<Arc<Access>> {
        let open = self.open.lock();
        let (intent, access) = open.get(&store.name_any())?;
        (*intent == intent_of(store)).then(|| access.clone())
    }

    /// Connects to a datastore.
    pub async fn open(&self, credentials: &Credentials) -> Result<Access, Error> {
        #[cfg(test)]
        if let Some(memory) = self.memory.lock().clone() {
            return Ok(Access {
                admin: admin::Admin::Memory(memory),
                endpoints: credentials.endpoints.clone(),
                ca: credentials
                    .ca()
                    .map_err(|error| Error::Credentials(error.to_string()))?,
            });
        }
        Access::open(credentials).await
    }

    /// Keeps what was opened. `true` when it has other endpoints, or another CA, than what was open before.
    pub fn put(&self, store: &DataStore, access: Access) -> (Arc<Access>, bool) {
        let access = Arc::new(access);
        let entry = (intent_of(store), access.clone());
        let before = self.open.lock().insert(store.name_any(), entry);
        let moved = before.is_some_and(|(_, before)| {
            before.endpoints != access.endpoints || before.ca.fingerprint() != access.ca.fingerprint()
        });
        (access, moved)
    }

    /// Lets go of a DataStore: it is gone, its credentials changed, or it failed.
    pub fn forget(&self, store: &str) {
        self.open.lock().remove(store);
    }
}

fn intent_of(store: &DataStore) -> Intent {
    let meta = &store.metadata;
    (meta.uid.clone(), meta.generation, meta.annotations.clone())
}
