//! Creates and deletes schema and user of a tenant in etcd.
//!
//! The order makes a crash harmless. The ownership mark is written first and in one transaction for schema and user, so
//! whatever exists without a mark is not ours; it is deleted last, so an interrupted deletion is continued.

use etcd_client::{
    Client, Compare, CompareOp, DeleteOptions, GetOptions, PermissionType, Txn, TxnOp, TxnOpResponse,
};
use jiff::Timestamp;

use super::{
    super::{Deleted, Error, Mark, Owner, TenantSchema, names},
    EtcdAdmin, SCHEMA_MARKS, prefix,
};

/// Prefix of the ownership marks of users.
const USER_MARKS: &str = "/capi-kamaji/user/";
/// Number of keys that are deleted in one request.
const BATCH: i64 = 1000;

/// The ownership marks of a tenant.
struct Marks {
    schema: Option<Mark>,
    user: Option<Mark>,
}

impl EtcdAdmin {
    /// Creates a tenant's schema and user, in this order: mark, role, permission, user, grant. Refused if they are expected
    /// to exist and do not: an empty schema would become another cluster with the same name.
    pub async fn ensure_tenant(&self, tenant: &TenantSchema, now: Timestamp) -> Result<(), Error> {
        check(tenant)?;
        let _turn = self.turn().await?;
        self.claim(tenant, now).await?;
        self.ensure_role(&tenant.schema).await?;
        self.ensure_permission(&tenant.schema, PermissionType::Readwrite)
            .await?;
        self.ensure_user(&tenant.user, &tenant.schema).await
    }

    /// Deletes keys, role, user, and at last the mark of a tenant. Refused if the mark names another owner, or if schema or
    /// user exist without a mark. Nothing is done if they do not exist.
    pub async fn delete_tenant(&self, tenant: &TenantSchema) -> Result<Deleted, Error> {
        check(tenant)?;
        let _turn = self.turn().await?;
        let marks = self.marks(tenant).await?;
        foreign(tenant, &marks)?;
        if marks.schema.is_none() && !tenant.adopt {
            return self.expect_nothing(tenant, &marks).await;
        }
        let mut keys = self.delete_keys(&tenant.schema).await?;
        self.delete_role(&tenant.schema).await?;
        if marks.user.is_some() || tenant.adopt {
            self.delete_user(&tenant.user).await?;
        }
        // Without user and role nobody can write any more: delete what was written since.
        keys += self.delete_keys(&tenant.schema).await?;
        self.unmark(tenant, &marks).await?;
        Ok(Deleted { keys })
    }

    /// Writes the ownership marks, unless they exist.
    async fn claim(&self, tenant: &TenantSchema, now: Timestamp) -> Result<(), Error> {
        let marks = self.marks(tenant).await?;
        foreign(tenant, &marks)?;
        if marks.schema.is_some() && marks.user.is_some() {
            return Ok(());
        }
        // Schema and user are checked separately: one may be ours and the other not.
        let new_schema = marks.schema.is_none() && !tenant.adopt;
        if new_schema || (marks.schema.is_none() && tenant.expected) {
            let exists = self.schema_exists(&tenant.schema).await?;
            // Keys prove nothing here: an API server that finds an empty etcd writes its own at once.
            if tenant.expected && (new_schema || !exists) {
                return Err(missing(tenant));
            }
            if new_schema && exists {
                return Err(foreign_schema(tenant, None));
            }
        }
        let new_user = marks.user.is_none() && !tenant.adopt;
        if new_user && self.roles_of(&tenant.user).await?.is_some() {
            return Err(foreign_user(tenant, None));
        }
        let mark = encode(&Mark {
            owner: tenant.owner.clone(),
            since: now,
        })?;
        let (schema, user) = mark_keys(tenant);
        let mut conditions = Vec::new();
        let mut writes = Vec::new();
        for (key, known) in [(schema, &marks.schema), (user, &marks.user)] {
            if known.is_none() {
                conditions.push(Compare::create_revision(key.as_str(), CompareOp::Equal, 0));
                writes.push(TxnOp::put(key, mark.clone(), None));
            }
        }
        if new_schema {
            let empty = Compare::create_revision(prefix(&tenant.schema), CompareOp::Equal, 0).with_prefix();
            conditions.push(empty);
        }
        let transaction = &Txn::new().when(conditions).and_then(writes);
        let written = self
            .call(
                &format!("mark schema {}", tenant.schema),
                |mut client: Client| async move { client.txn(transaction.clone()).await },
            )
            .await?;
        if written.succeeded() {
            return Ok(());
        }
        // Somebody else was faster: another process of ours, or another owner.
        let marks = self.marks(tenant).await?;
        foreign(tenant, &marks)?;
        if marks.schema.is_some() && marks.user.is_some() {
            return Ok(());
        }
        Err(foreign_schema(tenant, None))
    }

    /// Deletes all keys of a schema in batches, so that no request blocks etcd for long.
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

    /// Deletes the marks, if they are unchanged since they were read.
    async fn unmark(&self, tenant: &TenantSchema, marks: &Marks) -> Result<(), Error> {
        let (schema, user) = mark_keys(tenant);
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
            &format!("remove the mark of schema {}", tenant.schema),
            |mut client: Client| async move { client.txn(transaction.clone()).await },
        )
        .await?;
        Ok(())
    }

    /// For a schema without a mark: neither schema nor user may exist.
    async fn expect_nothing(&self, tenant: &TenantSchema, marks: &Marks) -> Result<Deleted, Error> {
        if self.schema_exists(&tenant.schema).await? {
            // An API server that finds an empty etcd writes its own keys at once.
            return Err(if tenant.expected {
                missing(tenant)
            } else {
                foreign_schema(tenant, None)
            });
        }
        if marks.user.is_some() {
            self.delete_user(&tenant.user).await?;
            self.unmark(tenant, marks).await?;
        } else if self.roles_of(&tenant.user).await?.is_some() {
            return Err(foreign_user(tenant, None));
        }
        Ok(Deleted { keys: 0 })
    }

    async fn schema_exists(&self, schema: &str) -> Result<bool, Error> {
        Ok(self.role_exists(schema).await? || self.key_count(schema).await? > 0)
    }

    async fn marks(&self, tenant: &TenantSchema) -> Result<Marks, Error> {
        let (schema, user) = mark_keys(tenant);
        let reads = &Txn::new().and_then(vec![TxnOp::get(schema, None), TxnOp::get(user, None)]);
        let answer = self
            .call(
                &format!("read the mark of schema {}", tenant.schema),
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
                    operation: format!("read the mark of schema {}", tenant.schema),
                    detail: "the ownership mark is not readable; another version or a person wrote it"
                        .to_owned(),
                }),
        };
        Ok(Marks {
            schema: next()?,
            user: next()?,
        })
    }
}

fn check(tenant: &TenantSchema) -> Result<(), Error> {
    names::check_usable("schema", &tenant.schema)?;
    names::check_usable("datastore user", &tenant.user)?;
    Ok(())
}

fn foreign(tenant: &TenantSchema, marks: &Marks) -> Result<(), Error> {
    let other = |mark: &Option<Mark>| {
        mark.as_ref()
            .filter(|mark| mark.owner != tenant.owner)
            .map(|mark| mark.owner.clone())
    };
    if let Some(owner) = other(&marks.schema) {
        return Err(foreign_schema(tenant, Some(owner)));
    }
    if let Some(owner) = other(&marks.user) {
        return Err(foreign_user(tenant, Some(owner)));
    }
    Ok(())
}

fn missing(tenant: &TenantSchema) -> Error {
    Error::DataMissing {
        schema: tenant.schema.clone(),
    }
}

fn foreign_schema(tenant: &TenantSchema, owner: Option<Owner>) -> Error {
    Error::ForeignSchema {
        schema: tenant.schema.clone(),
        owner: owner.map(Box::new),
    }
}

fn foreign_user(tenant: &TenantSchema, owner: Option<Owner>) -> Error {
    Error::ForeignUser {
        user: tenant.user.clone(),
        owner: owner.map(Box::new),
    }
}

fn mark_keys(tenant: &TenantSchema) -> (String, String) {
    (
        format!("{SCHEMA_MARKS}{}", tenant.schema),
        format!("{USER_MARKS}{}", tenant.user),
    )
}

fn encode(mark: &Mark) -> Result<Vec<u8>, Error> {
    serde_json::to_vec(mark).map_err(|error| Error::Refused {
        operation: "write the ownership mark".to_owned(),
        detail: error.to_string(),
    })
}
