//! A tenant's place in etcd, made and removed.
//!
//! Order is what makes a crash harmless. The mark is written first and in one transaction for schema and user, so
//! whatever exists without a mark is not ours; it is removed last, so a deletion that was cut short is found again.

use etcd_client::{
    Client, Compare, CompareOp, DeleteOptions, GetOptions, PermissionType, Txn, TxnOp, TxnOpResponse,
};
use jiff::Timestamp;

use super::{
    super::{super::names, Deleted, Error, Mark, Owner, TenantSchema},
    EtcdAdmin, Known, SCHEMA_MARKS, prefix, unless,
};

/// Where the ownership marks of users stand.
const USER_MARKS: &str = "/capi-kamaji/user/";
/// Keys that are removed in one request.
const BATCH: i64 = 1000;

/// What is marked of a tenant.
struct Marks {
    schema: Option<Mark>,
    user: Option<Mark>,
}

impl EtcdAdmin {
    /// Makes a tenant's source: mark, role, permission, user, grant. Refused where one is expected and nothing of it is
    /// there: an empty schema would be another cluster under the same name.
    pub async fn ensure_tenant(&self, tenant: &TenantSchema, now: Timestamp) -> Result<(), Error> {
        check(tenant)?;
        let _turn = self.turns.acquire().await;
        self.claim(tenant, now).await?;
        self.ensure_role(&tenant.schema).await?;
        self.ensure_permission(&tenant.schema, PermissionType::Readwrite)
            .await?;
        self.ensure_user(&tenant.user, &tenant.schema).await
    }

    /// Removes a tenant's source: keys, role, user, and at the end the mark. Refused for a place that is marked for
    /// somebody else, or that exists and is not marked at all; a place that does not exist is removed already.
    pub async fn delete_tenant(&self, tenant: &TenantSchema) -> Result<Deleted, Error> {
        check(tenant)?;
        let _turn = self.turns.acquire().await;
        let marks = self.marks(tenant).await?;
        foreign(tenant, &marks)?;
        if marks.schema.is_none() && !tenant.adopt {
            return self.expect_nothing(tenant, &marks).await;
        }
        let mut keys = self.delete_keys(&tenant.schema).await?;
        let schema = tenant.schema.as_str();
        let removed = self
            .call(
                &format!("delete role {schema}"),
                |mut client: Client| async move { client.role_delete(schema).await },
            )
            .await;
        unless(removed, Known::Absent)?;
        if marks.user.is_some() || tenant.adopt {
            let user = tenant.user.as_str();
            let removed = self
                .call(&format!("delete user {user}"), |mut client: Client| async move {
                    client.user_delete(user).await
                })
                .await;
            unless(removed, Known::Absent)?;
        }
        // Nobody can write any more: what a late writer left goes too.
        keys += self.delete_keys(&tenant.schema).await?;
        self.unmark(tenant, &marks).await?;
        Ok(Deleted { keys })
    }

    /// Writes the ownership mark, or finds that it is written.
    async fn claim(&self, tenant: &TenantSchema, now: Timestamp) -> Result<(), Error> {
        let marks = self.marks(tenant).await?;
        foreign(tenant, &marks)?;
        if marks.schema.is_some() && marks.user.is_some() {
            return Ok(());
        }
        // Each name by itself: that one of them is ours says nothing about the other.
        let new_schema = marks.schema.is_none() && !tenant.adopt;
        if new_schema || (marks.schema.is_none() && tenant.expected) {
            let exists = self.schema_exists(&tenant.schema).await?;
            if tenant.expected && !exists {
                return Err(Error::DataMissing {
                    schema: tenant.schema.clone(),
                });
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
        // Somebody was faster: either us, in another process, or a stranger.
        let marks = self.marks(tenant).await?;
        foreign(tenant, &marks)?;
        if marks.schema.is_some() && marks.user.is_some() {
            return Ok(());
        }
        Err(foreign_schema(tenant, None))
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

    /// For a place without a mark: nothing of it may be there.
    async fn expect_nothing(&self, tenant: &TenantSchema, marks: &Marks) -> Result<Deleted, Error> {
        if self.schema_exists(&tenant.schema).await? {
            return Err(foreign_schema(tenant, None));
        }
        if marks.user.is_some() {
            let user = tenant.user.as_str();
            let removed = self
                .call(&format!("delete user {user}"), |mut client: Client| async move {
                    client.user_delete(user).await
                })
                .await;
            unless(removed, Known::Absent)?;
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
                    detail: "the mark cannot be read; it was written by another version or by hand"
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
