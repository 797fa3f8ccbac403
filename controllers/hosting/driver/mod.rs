//! Requests to datastores. No other module talks to them.
//!
//! The controller of tenants calls three functions, all safe to repeat after a crash at any await:
//!
//! - [`super::datastore::access`]: the admin's connection to a DataStore, shared, opened if necessary;
//! - [`admin::Admin::ensure_tenant`]: ownership mark, role, permission, user, in an order in which everything that exists
//!   is already marked as ours;
//! - [`admin::Admin::delete_tenant`]: the reverse, refused without our mark.
//!
//! Every call is bounded in time. [`Error::class`] decides how it is retried.

use std::{
    collections::{BTreeMap, HashMap},
    fmt,
    sync::Arc,
};

use jiff::Timestamp;
use kamaji_api::{conditions::Reason, datastore::DataStore, labels::ours};
use kube::ResourceExt as _;
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};

use self::attempts::Attempts;
use crate::{
    k8s::error::Class,
    pki::{
        issue,
        material::{Ca, Error as MaterialError, Found, PrivateKeyPem},
        spec::Leaf,
    },
};

pub mod admin;
pub mod attempts;
pub mod etcd;
pub mod names;

/// The owner of a schema.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Owner {
    /// ID of the management cluster: the UID of its namespace `kube-system`.
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

/// The ownership mark, as it is stored. The time is not compared.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mark {
    /// The owner.
    #[serde(flatten)]
    pub owner: Owner,
    /// When the mark was written.
    pub since: Timestamp,
}

/// A tenant's schema and user in a datastore.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TenantSchema {
    /// Name of the schema: in etcd the prefix `/<schema>/` and the role.
    pub schema: String,
    /// Name of the user.
    pub user: String,
    /// The owner.
    pub owner: Owner,
    /// Take over a schema and user without a mark, as those of tenants that upstream Kamaji created. Never for a new
    /// tenant.
    pub adopt: bool,
    /// Schema and user were created before. A datastore without them is not the one with the data of the tenant.
    pub expected: bool,
}

/// Result of a deletion.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Deleted {
    /// Number of removed keys.
    pub keys: u64,
}

/// What a datastore tells about itself.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Health {
    /// Its version; the lowest of its members.
    pub version: String,
    /// Whether it answers a request for its status with the certificate of a tenant, once that was tried.
    pub answers_tenants: Option<bool>,
    /// Number of its members.
    pub members: usize,
    /// The members that do not answer.
    pub silent: Vec<Silent>,
    /// The fullest of its members.
    pub space: Space,
}

/// How much a datastore holds.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Space {
    /// Bytes.
    pub used: u64,
    /// Most bytes that it may use; 0 when it does not tell.
    pub quota: u64,
    /// It takes no writes, since it used them up.
    pub full: bool,
}

/// A member of a datastore that does not answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Silent {
    /// `host:port`.
    pub endpoint: String,
    /// Why.
    pub cause: String,
}

/// Endpoints and credentials of the admin of a datastore.
#[derive(Clone)]
pub struct Credentials {
    /// `host:port`, without scheme.
    pub endpoints: Vec<String>,
    /// CA of the datastore, PEM.
    pub ca_pem: String,
    /// Key of the CA, to sign the certificates of tenants.
    pub ca_key: Option<PrivateKeyPem>,
    /// The admin's certificate, PEM.
    pub certificate_pem: String,
    /// The admin's key.
    pub key: PrivateKeyPem,
    /// Locations of the CA's certificate and key, for messages.
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

/// Why a request to a datastore failed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// No endpoint answers, or none that can serve.
    #[error(
        "no answer from {endpoints} within {seconds} s: {detail}; check spec.endpoints of the DataStore, and that pods of \
         this cluster reach them"
    )]
    Unreachable {
        /// The endpoints, comma-separated.
        endpoints: String,
        /// Timeout in seconds.
        seconds: u64,
        /// The cause for each endpoint.
        detail: String,
    },
    /// It takes no writes, since its quota is used up.
    #[error(
        "{operation}: etcd used up its quota and takes no writes; the condition SpaceAvailable of the DataStore tells what to do"
    )]
    Full {
        /// The request.
        operation: String,
    },
    /// Other tenants are created or deleted.
    #[error(
        "{at_once} other tenants are created or deleted in this datastore, which is as many as are at the same time; this one \
         is tried again by itself"
    )]
    Busy {
        /// How many at the same time.
        at_once: usize,
    },
    /// The admin's certificate lacks permissions.
    #[error(
        "{operation}: permission denied; the common name of spec.tlsConfig.clientCertificate must be root"
    )]
    Denied {
        /// The request.
        operation: String,
    },
    /// The schema belongs to another tenant.
    #[error("schema {schema:?} belongs to {}", owner_text(.owner.as_deref()))]
    ForeignSchema {
        /// The schema.
        schema: String,
        /// Its owner; `None` without an ownership mark.
        owner: Option<Box<Owner>>,
    },
    /// The user belongs to another tenant.
    #[error("datastore user {user:?} belongs to {}", owner_text(.owner.as_deref()))]
    ForeignUser {
        /// The user.
        user: String,
        /// Its owner; `None` without an ownership mark.
        owner: Option<Box<Owner>>,
    },
    /// Schema and user were created before and do not exist.
    #[error("the datastore holds no data of schema {schema:?} that is marked as this tenant's")]
    DataMissing {
        /// The schema.
        schema: String,
    },
    /// A name is refused.
    #[error(transparent)]
    Name(#[from] names::Refusal),
    /// Certificates or endpoints cannot be used.
    #[error("credentials cannot be used: {0}")]
    Credentials(String),
    /// The datastore refused the request.
    #[error("{operation}: {detail}")]
    Refused {
        /// The request.
        operation: String,
        /// Its answer.
        detail: String,
    },
}

fn owner_text(owner: Option<&Owner>) -> String {
    owner.map_or_else(
        || "somebody unknown: it has no ownership mark".to_owned(),
        ToString::to_string,
    )
}

impl Error {
    /// Reason of the condition that reports it.
    pub fn reason(&self) -> Reason {
        match self {
            Self::Unreachable { .. } => Reason::DataStoreUnreachable,
            Self::Full { .. } => Reason::DataStoreFull,
            Self::Busy { .. } => Reason::DataStoreBusy,
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
            Self::Unreachable { .. }
            | Self::Full { .. }
            | Self::Busy { .. }
            | Self::Refused { .. }
            | Self::DataMissing { .. } => Class::Foreign,
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
    /// The id that the datastore holds; `None` until it was asked for, and while a datastore without one takes no writes.
    pub id: Option<String>,
    /// The admin's connection.
    pub admin: admin::Admin,
    /// `host:port` of each member, for the API servers of tenants.
    pub endpoints: Vec<String>,
    /// CA that signs the certificates of tenants.
    pub ca: Ca,
}

impl Access {
    /// Connects and sends one authenticated request.
    pub async fn open(credentials: &Credentials) -> Result<Self, Error> {
        Ok(Self {
            id: None,
            ca: credentials
                .ca()
                .map_err(|error| Error::Credentials(error.to_string()))?,
            admin: admin::Admin::Etcd(Box::new(etcd::EtcdAdmin::connect(credentials).await?)),
            endpoints: credentials.endpoints.clone(),
        })
    }

    /// Asks for the status with a certificate of a tenant's user, as its API server does, and records the answer. Nothing
    /// is sent once it is known: the certificates of all tenants are of one kind.
    pub async fn try_as_tenant(&self, user: &str, now: Timestamp) -> Result<(), Error> {
        if self.admin.health().answers_tenants.is_some() {
            return Ok(());
        }
        let issued = issue::leaf(&Leaf::client(user), &self.ca, now);
        let issued = issued.map_err(|error| Error::Credentials(error.to_string()))?;
        let credentials = Credentials {
            endpoints: self.endpoints.clone(),
            ca_pem: self.ca.certificate_pem().to_owned(),
            ca_key: None,
            certificate_pem: issued.cert_pem,
            key: issued.key_pem,
            ca_locations: (String::new(), String::new()),
        };
        self.admin.try_as(&credentials).await
    }
}

/// UID, generation and annotations of the DataStore a connection was opened for: a change of them opens a new one. What the
/// engine itself records is left out.
type Intent = (Option<String>, Option<i64>, Option<BTreeMap<String, String>>);

/// Connections of this process, one per DataStore.
#[derive(Default)]
pub struct Pool {
    open: Mutex<HashMap<String, (Intent, Arc<Access>)>>,
    attempts: Mutex<HashMap<String, (Intent, Arc<Attempts>)>>,
    /// Replaces every datastore, in convergence tests.
    #[cfg(test)]
    pub memory: Mutex<Option<admin::memory::Memory>>,
}

impl Pool {
    /// The open connection to this version of a DataStore.
    pub fn get(&self, store: &DataStore) -> Option<Arc<Access>> {
        let open = self.open.lock();
        let (intent, access) = open.get(&store.name_any())?;
        (*intent == intent_of(store)).then(|| access.clone())
    }

    /// The attempts to open this version of a DataStore.
    pub fn attempts(&self, store: &DataStore) -> Arc<Attempts> {
        let mut attempts = self.attempts.lock();
        // What nobody waits for tells nothing any more.
        attempts.retain(|_, (_, waiting)| Arc::strong_count(waiting) > 1);
        let (intent, of_this) = attempts.entry(store.name_any()).or_default();
        if *intent != intent_of(store) {
            (*intent, *of_this) = (intent_of(store), Arc::default());
        }
        of_this.clone()
    }

    /// Connects to a datastore.
    pub async fn open(&self, credentials: &Credentials) -> Result<Access, Error> {
        #[cfg(test)]
        if let Some(memory) = self.memory.lock().clone() {
            return Ok(Access {
                id: None,
                admin: admin::Admin::Memory(memory),
                endpoints: credentials.endpoints.clone(),
                ca: credentials
                    .ca()
                    .map_err(|error| Error::Credentials(error.to_string()))?,
            });
        }
        Access::open(credentials).await
    }

    /// Stores a connection. Returns `true` if endpoints or CA differ from those of the connection that was open before.
    pub fn put(&self, store: &DataStore, access: Access) -> (Arc<Access>, bool) {
        let access = Arc::new(access);
        let entry = (intent_of(store), access.clone());
        let before = self.open.lock().insert(store.name_any(), entry);
        let moved = before.is_some_and(|(_, before)| {
            before.endpoints != access.endpoints || before.ca.fingerprint() != access.ca.fingerprint()
        });
        (access, moved)
    }

    /// Drops the connection to a DataStore: after its deletion, new credentials, or a failure.
    pub fn forget(&self, store: &str) {
        self.open.lock().remove(store);
    }
}

fn intent_of(store: &DataStore) -> Intent {
    let meta = &store.metadata;
    let annotations = meta.annotations.clone().map(|mut annotations| {
        annotations.retain(|key, _| ![ours::STORE_ID, ours::STORE_CLAIM].contains(&key.as_str()));
        annotations
    });
    (
        meta.uid.clone(),
        meta.generation,
        annotations.filter(|left| !left.is_empty()),
    )
}
