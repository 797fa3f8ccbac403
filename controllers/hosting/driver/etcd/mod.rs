//! etcd as a datastore: one role and one user per tenant for the prefix `/<schema>/`, users authenticated by the common
//! name of their certificate, and an ownership mark that no tenant can access.
//!
//! This file has the connection and its bounded requests, [`members`] which member is asked, [`trouble`] what becomes
//! of one that fails, [`answers`] what errors mean, [`floor`] the versions that are safe, [`identity`] which etcd it is,
//! [`space`] how full it is, [`users`] roles and users, [`tenant`] the order in which schema and user of a tenant are
//! created and deleted.

use std::{sync::Arc, time::Duration};

use etcd_client::{Certificate, Client, ConnectOptions, GetOptions, Identity, TlsOptions};
use futures::future::join_all;
use parking_lot::Mutex;
use tokio::{
    sync::{Semaphore, SemaphorePermit},
    time::Instant,
};

use self::{
    answers::{Failure, failure, is_enabled},
    members::{Member, Members},
    trouble::{Meaning, Trouble},
};
use super::{Credentials, Error, Health, Silent};

mod answers;
pub mod floor;
mod identity;
mod members;
mod space;
mod tenant;
mod trouble;
mod users;

/// Timeout of one request to one member.
const CALL: Duration = Duration::from_secs(5);
/// How long a request is repeated while members answer that they cannot serve now. An election takes a second or two.
const PATIENCE: Duration = Duration::from_secs(10);
/// How long what etcd reported about itself is taken as it is.
const AGE: Duration = Duration::from_mins(9);
/// Pause before all members are asked again.
const PAUSE: Duration = Duration::from_millis(200);
/// Timeout of one TCP connection, made to find the cause of a timeout.
const PROBE: Duration = Duration::from_secs(2);
/// Number of tenants that are created or deleted at the same time in one etcd, which rebuilds its permission cache with
/// each change of users.
const AT_ONCE: usize = 4;
/// How long a tenant waits for its turn. Whoever waits holds a worker, which tenants of other datastores need.
const TURN: Duration = Duration::from_secs(2);
/// How often a request is repeated because users or roles changed while it was processed.
const STALE_RETRIES: u32 = 8;

/// Prefix of the ownership marks of schemas.
const SCHEMA_MARKS: &str = "/capi-kamaji/schema/";
/// Name of the admin user and of its role.
const ROOT: &str = "root";

/// The admin of one etcd. Cheap to clone: clones share the connection.
#[derive(Clone)]
pub struct EtcdAdmin {
    members: Arc<Members>,
    turns: Arc<Semaphore>,
    health: Arc<Mutex<Health>>,
    /// When etcd is asked about itself again.
    due: Arc<Mutex<Option<Instant>>>,
}

impl std::fmt::Debug for EtcdAdmin {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("EtcdAdmin")
            .field("endpoints", &self.endpoints())
            .finish_non_exhaustive()
    }
}

impl EtcdAdmin {
    /// Connects, and sends authenticated requests.
    pub async fn connect(credentials: &Credentials) -> Result<Self, Error> {
        let admin = Self::open(credentials).await?;
        admin.ping().await?;
        admin.look().await?;
        Ok(admin)
    }

    /// Prepares a connection. Nothing is sent.
    async fn open(credentials: &Credentials) -> Result<Self, Error> {
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
        Ok(Self {
            members: Arc::new(Members::open(&credentials.endpoints, &options).await?),
            turns: Arc::new(Semaphore::new(AT_ONCE)),
            health: Arc::default(),
            due: Arc::default(),
        })
    }

    /// Sends one authenticated request.
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

    /// What etcd reported about itself when it was last asked.
    pub fn health(&self) -> Health {
        self.health.lock().clone()
    }

    /// A member did not answer, or answers again, since etcd was last asked about itself; or that is long ago, or in doubt.
    pub fn has_news(&self) -> bool {
        if self.due.lock().is_some_and(|due| due <= Instant::now()) {
            return true;
        }
        let silent = |member: &&Member| member.is_silent();
        let now = self.members.all().iter().filter(silent).map(|m| &m.endpoint);
        !now.eq(self.health.lock().silent.iter().map(|member| &member.endpoint))
    }

    /// What etcd reported about itself may no longer be true.
    pub fn doubt(&self) {
        *self.due.lock() = Some(Instant::now());
    }

    /// Asks every member about itself.
    pub async fn look(&self) -> Result<(), Error> {
        let asked = self.members.all().iter().map(|member| async move {
            let status = |mut client: Client| async move { client.status().await };
            (member, Self::ask(member, &status).await)
        });
        let (mut versions, mut refused, mut silent) = (Vec::new(), None, Vec::new());
        let mut spaces = Vec::new();
        for (member, answer) in join_all(asked).await {
            match answer {
                Ok(status) => {
                    versions.push(status.version().to_owned());
                    spaces.push(space::of(&status));
                }
                Err(Trouble::Silent) => silent.push(member),
                Err(Trouble::Busy(_)) => {}
                Err(Trouble::Answer(error)) => refused = Some(error),
            }
        }
        if let Some(error) = refused {
            return Err(failure("read the status", &trouble::text(&error)).into());
        }
        if versions.is_empty() {
            return Err(self.unreachable(&[]).await);
        }
        let causes = join_all(silent.iter().map(|member| probe(&member.endpoint))).await;
        let silent = silent.iter().zip(causes).map(|(member, cause)| Silent {
            endpoint: member.endpoint.clone(),
            cause,
        });
        let version = floor::lowest(versions);
        let mut health = self.health.lock();
        // Another version may answer otherwise.
        let answers_tenants = health.answers_tenants.filter(|_| health.version == version);
        *health = Health {
            version,
            answers_tenants,
            members: self.members.all().len(),
            silent: silent.collect(),
            space: space::fullest(spaces),
        };
        *self.due.lock() = Some(Instant::now() + AGE);
        Ok(())
    }

    /// Asks for the status with the credentials of a tenant, and records whether it was answered.
    pub async fn try_as(&self, tenant: &Credentials) -> Result<(), Error> {
        let answered = match Self::open(tenant).await?.look().await {
            Ok(()) => true,
            Err(Error::Denied { .. }) => false,
            Err(error) => return Err(error),
        };
        self.health.lock().answers_tenants = Some(answered);
        Ok(())
    }

    /// Whether authentication is enabled. Without it, tenants can read each other's data.
    pub async fn auth_enabled(&self) -> Result<bool, Error> {
        let answer = self
            .call(
                "check whether authentication is enabled",
                |client: Client| async move {
                    client
                        .auth_client()
                        .authenticate(ROOT.to_owned(), "-".to_owned())
                        .await
                },
            )
            .await;
        is_enabled(answer)
    }

    /// Enables authentication in a managed etcd, after creating the role and user `root`.
    pub async fn ensure_auth(&self) -> Result<(), Error> {
        if self.auth_enabled().await? {
            return Ok(());
        }
        self.ensure_role(ROOT).await?;
        self.ensure_user(ROOT, ROOT).await?;
        self.call("enable authentication", |mut client: Client| async move {
            client.auth_enable().await
        })
        .await?;
        Ok(())
    }

    /// Waits for one of the turns in which tenants are created and deleted.
    async fn turn(&self) -> Result<SemaphorePermit<'_>, Error> {
        match tokio::time::timeout(TURN, self.turns.acquire()).await {
            Ok(Ok(turn)) => Ok(turn),
            // The semaphore is never closed.
            Ok(Err(_)) | Err(_) => Err(Error::Busy { at_once: AT_ONCE }),
        }
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

    /// Sends one request, to one member after the other until one answers. While members answer that they cannot serve
    /// now, all are asked again until a deadline.
    ///
    /// A request that was executed may be sent again, since its answer can get lost. Every caller accepts that.
    async fn call<T, F>(&self, operation: &str, ask: impl Fn(Client) -> F) -> Result<T, Failure>
    where
        F: Future<Output = Result<T, etcd_client::Error>> + Send,
    {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let mut busy = Vec::new();
            for member in self.members.in_turn() {
                match Self::ask(member, &ask).await {
                    Ok(value) => return Ok(value),
                    Err(Trouble::Silent) => {}
                    Err(Trouble::Busy(why)) => busy.push((member.endpoint.as_str(), why)),
                    Err(Trouble::Answer(error)) => return Err(failure(operation, &trouble::text(&error))),
                }
            }
            if busy.is_empty() || Instant::now() >= deadline {
                return Err(Failure::Other(self.unreachable(&busy).await));
            }
            tokio::time::sleep(PAUSE).await;
        }
    }

    /// Sends one request to one member with a timeout, again if users or roles changed while it was processed.
    async fn ask<T, F>(member: &Member, ask: &impl Fn(Client) -> F) -> Result<T, Trouble>
    where
        F: Future<Output = Result<T, etcd_client::Error>> + Send,
    {
        let mut attempt = 0;
        let answer = loop {
            let sent = Box::pin(ask(member.client.clone()));
            let error = match tokio::time::timeout(CALL, sent).await {
                Ok(Ok(value)) => break Ok(value),
                Ok(Err(error)) => error,
                Err(_) => break Err(Trouble::Silent),
            };
            match trouble::of(&error) {
                Meaning::Stale if attempt < STALE_RETRIES => attempt += 1,
                Meaning::Stale | Meaning::Answer => break Err(Trouble::Answer(error)),
                Meaning::Busy => break Err(Trouble::Busy(trouble::text(&error))),
                Meaning::Silent => break Err(Trouble::Silent),
            }
        };
        member.note(!matches!(answer, Err(Trouble::Silent)));
        answer
    }

    fn endpoints(&self) -> Vec<&str> {
        self.members
            .all()
            .iter()
            .map(|member| member.endpoint.as_str())
            .collect()
    }

    /// The cause for each member: what it answered, or the result of a TCP connection to it.
    async fn unreachable(&self, busy: &[(&str, String)]) -> Error {
        let endpoints = self.endpoints();
        let details = endpoints.iter().map(|endpoint| async move {
            let answered = busy.iter().find(|(member, _)| member == endpoint);
            let detail = match answered {
                Some((_, why)) => why.clone(),
                None => probe(endpoint).await,
            };
            format!("{endpoint}: {detail}")
        });
        let seconds = if busy.is_empty() { CALL } else { PATIENCE };
        Error::Unreachable {
            endpoints: endpoints.join(", "),
            seconds: seconds.as_secs(),
            detail: join_all(details).await.join("; "),
        }
    }
}

/// Prefix of the keys of a schema.
fn prefix(schema: &str) -> String {
    format!("/{schema}/")
}

/// Result of a TCP connection to an endpoint.
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
    let result = tokio::time::timeout(PROBE, attempt).await;
    result.unwrap_or_else(|_| "does not accept connections".to_owned())
}
