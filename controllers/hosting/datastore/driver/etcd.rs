//! etcd as a datastore: one role and one user per tenant over the prefix `/<schema>/`, users known by the common
//! name of their certificate, and an ownership mark outside every tenant's reach.
//!
//! Order is what makes a crash harmless. The mark is written first and in one transaction for schema and user, so
//! whatever exists without a mark is not ours; it is removed last, so a deletion that was cut short is found again.
//! Each step asks before it acts and accepts that it was done already.

use std::sync::Arc;
use std::time::Duration;

use etcd_client::{
    Certificate, Client, Compare, CompareOp, ConnectOptions, DeleteOptions, GetOptions, Identity, Permission,
    PermissionType, TlsOptions, Txn, TxnOp, TxnOpResponse, UserAddOptions,
};
use jiff::Timestamp;
use tokio::sync::Semaphore;

use super::super::names;
use super::{Credentials, Deleted, Error, Mark, Owner, Place};

/// Longest wait for one answer.
const CALL: Duration = Duration::from_secs(5);
/// Longest wait for a TCP connection when the cause of silence is looked for.
const PROBE: Duration = Duration::from_secs(2);
/// Tenants that are set up or removed at once in one etcd: each change of users makes it rebuild its permissions.
const AT_ONCE: usize = 4;
/// Keys that are removed in one request.
const BATCH: i64 = 1000;
/// How often a request is sent again because users changed while it was under way.
const STALE_RETRIES: u32 = 8;

const SCHEMA_MARKS: &str = "/capi-kamaji/schema/";
const USER_MARKS: &str = "/capi-kamaji/user/";
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

/// What is marked of a place.
struct Marks {
    schema: Option<Mark>,
    user: Option<Mark>,
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
            .ca_certificate(Certificate::from_pem(&credentials.authority_pem))
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

    /// Makes a tenant's place: mark, role, permission, user, grant.
    pub async fn ensure_tenant(&self, place: &Place, now: Timestamp) -> Result<(), Error> {
        check(place)?;
        let _turn = self.turns.acquire().await;
        self.claim(place, now).await?;
        self.ensure_role(&place.schema).await?;
        self.ensure_permission(&place.schema, PermissionType::Readwrite)
            .await?;
        self.ensure_user(&place.user, &place.schema).await
    }

    /// Removes a tenant's place: keys, role, user, and at the end the mark. Refused for a place that is marked for
    /// somebody else, or that exists and is not marked at all; a place that does not exist is removed already.
    pub async fn delete_tenant(&self, place: &Place) -> Result<Deleted, Error> {
        check(place)?;
        let _turn = self.turns.acquire().await;
        let marks = self.marks(place).await?;
        foreign(place, &marks)?;
        if marks.schema.is_none() && !place.adopt {
            return self.expect_nothing(place, &marks).await;
        }
        let mut keys = self.delete_keys(&place.schema).await?;
        let schema = place.schema.as_str();
        let removed = self
            .call(
                &format!("delete role {schema}"),
                |mut client: Client| async move { client.role_delete(schema).await },
            )
            .await;
        unless(removed, Known::Absent)?;
        if marks.user.is_some() || place.adopt {
            let user = place.user.as_str();
            let removed = self
                .call(&format!("delete user {user}"), |mut client: Client| async move {
                    client.user_delete(user).await
                })
                .await;
            unless(removed, Known::Absent)?;
        }
        // Nobody can write any more: what a late writer left goes too.
        keys += self.delete_keys(&place.schema).await?;
        self.unmark(place, &marks).await?;
        Ok(Deleted { keys })
    }

    /// Writes the ownership mark, or finds that it is written.
    async fn claim(&self, place: &Place, now: Timestamp) -> Result<(), Error> {
        let marks = self.marks(place).await?;
        foreign(place, &marks)?;
        if marks.schema.is_some() && marks.user.is_some() {
            return Ok(());
        }
        let first = marks.schema.is_none() && marks.user.is_none();
        if first && !place.adopt {
            if self.role_exists(&place.schema).await? || self.key_count(&place.schema).await? > 0 {
                return Err(foreign_schema(place, None));
            }
            if self.roles_of(&place.user).await?.is_some() {
                return Err(foreign_user(place, None));
            }
        }
        let mark = encode(&Mark {
            owner: place.owner.clone(),
            since: now,
        })?;
        let (schema, user) = mark_keys(place);
        let mut conditions = Vec::new();
        let mut writes = Vec::new();
        for (key, known) in [(schema, &marks.schema), (user, &marks.user)] {
            if known.is_none() {
                conditions.push(Compare::create_revision(key.as_str(), CompareOp::Equal, 0));
                writes.push(TxnOp::put(key, mark.clone(), None));
            }
        }
        if first && !place.adopt {
            let empty = Compare::create_revision(prefix(&place.schema), CompareOp::Equal, 0).with_prefix();
            conditions.push(empty);
        }
        let transaction = &Txn::new().when(conditions).and_then(writes);
        let written = self
            .call(
                &format!("mark schema {}", place.schema),
                |mut client: Client| async move { client.txn(transaction.clone()).await },
            )
            .await?;
        if written.succeeded() {
            return Ok(());
        }
        // Somebody was faster: either us, in another process, or a stranger.
        let marks = self.marks(place).await?;
        foreign(place, &marks)?;
        if marks.schema.is_some() && marks.user.is_some() {
            return Ok(());
        }
        Err(foreign_schema(place, None))
    }

    async fn ensure_role(&self, role: &str) -> Result<(), Error> {
        if self.role_exists(role).await? {
            return Ok(());
        }
        let added = self
            .call(&format!("add role {role}"), |mut client: Client| async move {
                client.role_add(role).await
            })
            .await;
        unless(added, Known::Present)?;
        Ok(())
    }

    async fn ensure_permission(&self, schema: &str, kind: PermissionType) -> Result<(), Error> {
        let wanted = &Permission::new(kind, prefix(schema)).with_prefix();
        let operation = format!("read role {schema}");
        let role = self
            .call(&operation, |mut client: Client| async move {
                client.role_get(schema).await
            })
            .await?;
        if role.permissions().contains(wanted) {
            return Ok(());
        }
        self.call(
            &format!("grant role {schema} its prefix"),
            |mut client: Client| async move { client.role_grant_permission(schema, wanted.clone()).await },
        )
        .await?;
        Ok(())
    }

    /// A user without password (known by certificate) that has `role` and, but for root, nothing else.
    async fn ensure_user(&self, user: &str, role: &str) -> Result<(), Error> {
        let held = self.roles_of(user).await?;
        if held.is_none() {
            let added = self
                .call(&format!("add user {user}"), |mut client: Client| async move {
                    client
                        .user_add(user, "", Some(UserAddOptions::new().with_no_pwd()))
                        .await
                })
                .await;
            unless(added, Known::Present)?;
        }
        let held = held.unwrap_or_default();
        for other in held.iter().filter(|held| *held != role) {
            let revoked = self
                .call(
                    &format!("revoke role {other} from user {user}"),
                    |mut client: Client| async move { client.user_revoke_role(user, other.as_str()).await },
                )
                .await;
            unless(revoked, Known::Absent)?;
        }
        if !held.iter().any(|held| held == role) {
            self.call(
                &format!("grant role {role} to user {user}"),
                |mut client: Client| async move { client.user_grant_role(user, role).await },
            )
            .await?;
        }
        Ok(())
    }

    /// Removes every key of a schema in batches, so that no single request holds etcd up.
    async fn delete_keys(&self, schema: &str) -> Result<u64, Error> {
        let operation = format!("delete the keys of schema {schema}");
        let prefix = &prefix(schema);
        let mut deleted = 0;
        loop {
            let options = &GetOptions::new().with_prefix().with_keys_only().with_limit(BATCH);
            let found = self
                .call(&operation, |mut client: Client| async move {
                    client.get(prefix.as_str(), Some(options.clone())).await
                })
                .await?;
            let (Some(first), Some(last)) = (found.kvs().first(), found.kvs().last()) else {
                return Ok(deleted);
            };
            let first = first.key().to_vec();
            let mut end = last.key().to_vec();
            end.push(0);
            let (first, end) = (&first, &end);
            let gone = self
                .call(&operation, |mut client: Client| async move {
                    let range = DeleteOptions::new().with_range(end.clone());
                    client.delete(first.clone(), Some(range)).await
                })
                .await?;
            deleted += u64::try_from(gone.deleted()).unwrap_or_default();
        }
    }

    /// Removes the marks, if they are still the ones that were read.
    async fn unmark(&self, place: &Place, marks: &Marks) -> Result<(), Error> {
        let (schema, user) = mark_keys(place);
        let mut conditions = Vec::new();
        let mut writes = Vec::new();
        for (key, known) in [(schema, &marks.schema), (user, &marks.user)] {
            if let Some(mark) = known {
                conditions.push(Compare::value(key.as_str(), CompareOp::Equal, encode(mark)?));
                writes.push(TxnOp::delete(key, None));
            }
        }
        let transaction = &Txn::new().when(conditions).and_then(writes);
        self.call(
            &format!("remove the mark of schema {}", place.schema),
            |mut client: Client| async move { client.txn(transaction.clone()).await },
        )
        .await?;
        Ok(())
    }

    /// For a place without a mark: nothing of it may be there.
    async fn expect_nothing(&self, place: &Place, marks: &Marks) -> Result<Deleted, Error> {
        if self.role_exists(&place.schema).await? || self.key_count(&place.schema).await? > 0 {
            return Err(foreign_schema(place, None));
        }
        if marks.user.is_some() {
            let user = place.user.as_str();
            let removed = self
                .call(&format!("delete user {user}"), |mut client: Client| async move {
                    client.user_delete(user).await
                })
                .await;
            unless(removed, Known::Absent)?;
            self.unmark(place, marks).await?;
        } else if self.roles_of(&place.user).await?.is_some() {
            return Err(foreign_user(place, None));
        }
        Ok(Deleted { keys: 0 })
    }

    async fn role_exists(&self, role: &str) -> Result<bool, Error> {
        let answer = self
            .call(&format!("read role {role}"), |mut client: Client| async move {
                client.role_get(role).await
            })
            .await;
        Ok(unless(answer, Known::Absent)?.is_some())
    }

    async fn roles_of(&self, user: &str) -> Result<Option<Vec<String>>, Error> {
        let answer = self
            .call(&format!("read user {user}"), |mut client: Client| async move {
                client.user_get(user).await
            })
            .await;
        Ok(unless(answer, Known::Absent)?.map(|user| user.roles().to_vec()))
    }

    async fn marks(&self, place: &Place) -> Result<Marks, Error> {
        let (schema, user) = mark_keys(place);
        let reads = &Txn::new().and_then(vec![TxnOp::get(schema, None), TxnOp::get(user, None)]);
        let answer = self
            .call(
                &format!("read the mark of schema {}", place.schema),
                |mut client: Client| async move { client.txn(reads.clone()).await },
            )
            .await?;
        let mut values = answer.op_responses().into_iter().map(|response| match response {
            TxnOpResponse::Get(found) => found.kvs().first().map(|kv| kv.value().to_vec()),
            TxnOpResponse::Put(_) | TxnOpResponse::Delete(_) | TxnOpResponse::Txn(_) => None,
        });
        let mut next = || match values.next().flatten() {
            None => Ok(None),
            Some(value) => serde_json::from_slice(&value)
                .map(Some)
                .map_err(|_| Error::Refused {
                    operation: format!("read the mark of schema {}", place.schema),
                    detail: "the mark cannot be read; it was written by another version or by hand"
                        .to_owned(),
                }),
        };
        Ok(Marks {
            schema: next()?,
            user: next()?,
        })
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
            let attempt =
                tokio::time::timeout(PROBE, tokio::net::TcpStream::connect(endpoint.as_str())).await;
            let detail = match attempt {
                Err(_) => "does not accept connections".to_owned(),
                Ok(Err(error)) => error.kind().to_string(),
                Ok(Ok(_)) => {
                    "accepts connections, but does not answer over TLS with these certificates".to_owned()
                }
            };
            details.push(format!("{endpoint}: {detail}"));
        }
        Error::Unreachable {
            endpoints: self.endpoints.join(", "),
            seconds: CALL.as_secs(),
            detail: details.join("; "),
        }
    }
}

fn check(place: &Place) -> Result<(), Error> {
    names::check("spec.dataStoreSchema", &place.schema)?;
    names::check("spec.dataStoreUsername", &place.user)?;
    Ok(())
}

fn foreign(place: &Place, marks: &Marks) -> Result<(), Error> {
    let other = |mark: &Option<Mark>| {
        mark.as_ref()
            .filter(|mark| mark.owner != place.owner)
            .map(|mark| mark.owner.clone())
    };
    if let Some(owner) = other(&marks.schema) {
        return Err(foreign_schema(place, Some(owner)));
    }
    if let Some(owner) = other(&marks.user) {
        return Err(foreign_user(place, Some(owner)));
    }
    Ok(())
}

fn foreign_schema(place: &Place, owner: Option<Owner>) -> Error {
    Error::ForeignSchema {
        schema: place.schema.clone(),
        owner: owner.map(Box::new),
    }
}

fn foreign_user(place: &Place, owner: Option<Owner>) -> Error {
    Error::ForeignUser {
        user: place.user.clone(),
        owner: owner.map(Box::new),
    }
}

fn prefix(schema: &str) -> String {
    format!("/{schema}/")
}

fn mark_keys(place: &Place) -> (String, String) {
    (
        format!("{SCHEMA_MARKS}{}", place.schema),
        format!("{USER_MARKS}{}", place.user),
    )
}

fn encode(mark: &Mark) -> Result<Vec<u8>, Error> {
    serde_json::to_vec(mark).map_err(|error| Error::Refused {
        operation: "write the ownership mark".to_owned(),
        detail: error.to_string(),
    })
}

/// Users or roles changed between the check of a request and its turn.
fn is_stale(error: &etcd_client::Error) -> bool {
    matches!(error, etcd_client::Error::GRpcStatus(status)
        if status.message() == "etcdserver: revision of auth store is old")
}
