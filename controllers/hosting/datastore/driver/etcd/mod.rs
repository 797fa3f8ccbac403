//! etcd as a datastore: one role and one user per tenant over the prefix `/<schema>/`, users known by the common
//! name of their certificate, and an ownership mark outside every tenant's reach.
//!
//! Here: the connection, and one bounded call over it. [`access`] knows roles and users, [`tenant`] the order in
//! which a tenant's place is made and removed.

use std::{sync::Arc, time::Duration};

use etcd_client::{Certificate, Client, ConnectOptions, GetOptions, Identity, TlsOptions};
use tokio::sync::Semaphore;

use super::{Credentials, Error};

mod access;
mod tenant;

/// Longest wait for one answer.
const CALL: Duration = Duration::from_secs(5);
/// Longest wait for a TCP connection when the cause of silence is looked for.
const PROBE: Duration = Duration::from_secs(2);
/// Tenants that are set up or removed at once in one etcd: each change of users makes it rebuild its permissions.
const AT_ONCE: usize = 4;
/// How often a request is sent again because users changed while it was under way.
const STALE_RETRIES: u32 = 8;

/// Where the ownership marks of schemas stand.
const SCHEMA_MARKS: &str = "/capi-kamaji/schema/";
/// The administrator, as a user and as a role.
const ROOT: &str = "root";

/// The administrator of one etcd. Cheap to clone: clones share the connection.
#[derive(Clone)]
pub struct EtcdAdmin {
    client: Client,
    endpoints: Arc<[String]>,
    turns: Arc<Semaphore>,
}

impl std::fmt::Debug for EtcdAdmin {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("EtcdAdmin")
            .field("endpoints", &self.endpoints)
            .finish_non_exhaustive()
    }
}

/// Answers that a step expects.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Known {
    /// User, role, grant or permission is not there.
    Absent,
    /// User or role is there already.
    Present,
    /// Authentication is off.
    AuthOff,
}

enum Failure {
    Known(Known, Error),
    Other(Error),
}

impl From<Failure> for Error {
    fn from(failure: Failure) -> Self {
        match failure {
            Failure::Known(_, error) | Failure::Other(error) => error,
        }
    }
}

/// Turns one expected answer into `None`.
fn unless<T>(answer: Result<T, Failure>, expected: Known) -> Result<Option<T>, Error> {
    match answer {
        Ok(value) => Ok(Some(value)),
        Err(Failure::Known(known, _)) if known == expected => Ok(None),
        Err(failure) => Err(failure.into()),
    }
}

impl EtcdAdmin {
    /// Connects, and sees one authenticated answer.
    pub async fn connect(credentials: &Credentials) -> Result<Self, Error> {
        let endpoints: Vec<String> = credentials
            .endpoints
            .iter()
            .map(|endpoint| format!("https://{endpoint}"))
            .collect();
        let tls = TlsOptions::new()
            .ca_certificate(Certificate::from_pem(&credentials.ca_pem))
            .identity(Identity::from_pem(
                &credentials.certificate_pem,
                credentials.key.expose(),
            ));
        let options = ConnectOptions::new()
            .with_tls(tls)
            .with_connect_timeout(CALL)
            .with_keep_alive(Duration::from_secs(30), CALL)
            .with_keep_alive_while_idle(false);
        let client = Client::connect(&endpoints, Some(options))
            .await
            .map_err(|error| Error::Credentials(error.to_string()))?;
        let admin = Self {
            client,
            endpoints: credentials.endpoints.clone().into(),
            turns: Arc::new(Semaphore::new(AT_ONCE)),
        };
        admin.ping().await?;
        Ok(admin)
    }

    /// Sees one authenticated answer.
    pub async fn ping(&self) -> Result<(), Error> {
        self.call("read the ownership marks", |mut client: Client| async move {
            client
                .get(
                    SCHEMA_MARKS,
                    Some(GetOptions::new().with_prefix().with_count_only()),
                )
                .await
        })
        .await?;
        Ok(())
    }

    /// Whether users and roles are enforced. Without, tenants are not separated from each other.
    pub async fn auth_enabled(&self) -> Result<bool, Error> {
        let answer = self
            .call("ask whether authentication is on", |client: Client| async move {
                client
                    .auth_client()
                    .authenticate(ROOT.to_owned(), "-".to_owned())
                    .await
            })
            .await;
        match answer {
            Err(Failure::Known(Known::AuthOff, _)) => Ok(false),
            // Any other refusal comes from an etcd that checks.
            Ok(_)
            | Err(Failure::Known(..) | Failure::Other(Error::Refused { .. } | Error::Denied { .. })) => {
                Ok(true)
            }
            Err(Failure::Other(error)) => Err(error),
        }
    }

    /// Turns authentication on, for an etcd that we run: role and user `root` first.
    pub async fn ensure_auth(&self) -> Result<(), Error> {
        if self.auth_enabled().await? {
            return Ok(());
        }
        self.ensure_role(ROOT).await?;
        self.ensure_user(ROOT, ROOT).await?;
        self.call("turn authentication on", |mut client: Client| async move {
            client.auth_enable().await
        })
        .await?;
        Ok(())
    }

    /// Number of keys of a schema.
    pub async fn key_count(&self, schema: &str) -> Result<u64, Error> {
        let prefix = &prefix(schema);
        let found = self
            .call(
                &format!("count the keys of schema {schema}"),
                |mut client: Client| async move {
                    client
                        .get(
                            prefix.as_str(),
                            Some(GetOptions::new().with_prefix().with_count_only()),
                        )
                        .await
                },
            )
            .await?;
        Ok(u64::try_from(found.count()).unwrap_or_default())
    }

    /// One bounded request. A request that met a change of users on its way is sent again.
    async fn call<T, F>(&self, operation: &str, ask: impl Fn(Client) -> F) -> Result<T, Failure>
    where
        F: Future<Output = Result<T, etcd_client::Error>> + Send,
    {
        let mut attempt = 0;
        loop {
            let answer = tokio::time::timeout(CALL, Box::pin(ask(self.client.clone()))).await;
            match answer {
                Ok(Ok(value)) => return Ok(value),
                Ok(Err(error)) if is_stale(&error) && attempt < STALE_RETRIES => attempt += 1,
                Ok(Err(error)) => return Err(self.failure(operation, &error).await),
                Err(_) => return Err(Failure::Other(self.unreachable().await)),
            }
        }
    }

    async fn failure(&self, operation: &str, error: &etcd_client::Error) -> Failure {
        let refused = |detail: &str| Error::Refused {
            operation: operation.to_owned(),
            detail: detail.to_owned(),
        };
        let etcd_client::Error::GRpcStatus(status) = error else {
            return match error {
                etcd_client::Error::TransportError(_) | etcd_client::Error::IoError(_) => {
                    Failure::Other(self.unreachable().await)
                }
                other => Failure::Other(refused(&other.to_string())),
            };
        };
        let message = status.message();
        let known = |known| Failure::Known(known, refused(message));
        match message.trim_start_matches("etcdserver: ") {
            "user name not found"
            | "role name not found"
            | "role is not granted to the user"
            | "permission is not granted to the role" => known(Known::Absent),
            "user name already exists" | "role name already exists" => known(Known::Present),
            "authentication is not enabled" => known(Known::AuthOff),
            "permission denied" => Failure::Other(Error::Denied {
                operation: operation.to_owned(),
            }),
            _ => match status.code() as i32 {
                // Unknown is how a broken transport shows, among others; then DeadlineExceeded and Unavailable.
                2 if message.contains("transport error") => Failure::Other(self.unreachable().await),
                4 | 14 if !message.starts_with("etcdserver:") => Failure::Other(self.unreachable().await),
                _ => Failure::Other(refused(message)),
            },
        }
    }

    /// Why nobody answered, as far as a connection attempt shows.
    async fn unreachable(&self) -> Error {
        let mut details = Vec::new();
        for endpoint in self.endpoints.iter() {
            let detail = probe(endpoint).await;
            details.push(format!("{endpoint}: {detail}"));
        }
        Error::Unreachable {
            endpoints: self.endpoints.join(", "),
            seconds: CALL.as_secs(),
            detail: details.join("; "),
        }
    }
}

/// The keys of a schema begin with this.
fn prefix(schema: &str) -> String {
    format!("/{schema}/")
}

/// What a bare connection to an endpoint comes to.
async fn probe(endpoint: &str) -> String {
    let attempt = async {
        match tokio::net::lookup_host(endpoint).await {
            Err(_) => "the name does not resolve".to_owned(),
            Ok(_) => match tokio::net::TcpStream::connect(endpoint).await {
                Err(error) => error.kind().to_string(),
                Ok(_) => {
                    "accepts connections, but does not answer over TLS with these certificates".to_owned()
                }
            },
        }
    };
    let patience = tokio::time::timeout(PROBE, attempt).await;
    patience.unwrap_or_else(|_| "does not accept connections".to_owned())
}

/// Users or roles changed between the check of a request and its turn.
fn is_stale(error: &etcd_client::Error) -> bool {
    matches!(error, etcd_client::Error::GRpcStatus(status)
        if status.message() == "etcdserver: revision of auth store is old")
}
