//! A tenant's place in etcd, made and removed.
//!
//! Order is what makes a crash harmless. The mark is written first and in one transaction for schema and user, so
//! whatever exists without a mark is not ours; it is removed last, so a deletion that was cut short is found again.

use etcd_client::{
    Client, Compare, CompareOp, DeleteOptions, GetOptions, PermissionType, Txn, TxnOp, TxnOpResponse,
};
use jiff::Timestamp;

use super::super::super::names;
use super::super::{Deleted, Error, Mark, Owner, Place};
use super::{EtcdAdmin, Known, SCHEMA_MARKS, prefix, unless};

/// Where the ownership marks of users stand.
const USER_MARKS: &str = "/capi-kamaji/user/";
/// Keys that are removed in one request.
const BATCH: i64 = 1000;

/// What is marked of a place.
struct Marks {
    schema: Option<Mark>,
    user: Option<Mark>,
}

impl EtcdAdmin {
    /// Makes a tenant's place: mark, role, permission, user, grant. Refused where one is expected and nothing of it is
    /// there: an empty schema would be another cluster under the same name.
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
        // Each name by itself: that one of them is ours says nothing about the other.
        let new_schema = marks.schema.is_none() && !place.adopt;
        if new_schema || (marks.schema.is_none() && place.expected) {
            let exists = self.schema_exists(&place.schema).await?;
            if place.expected && !exists {
                return Err(Error::DataMissing {
                    schema: place.schema.clone(),
                });
            }
            if new_schema && exists {
                return Err(foreign_schema(place, None));
            }
        }
        let new_user = marks.user.is_none() && !place.adopt;
        if new_user && self.roles_of(&place.user).await?.is_some() {
            return Err(foreign_user(place, None));
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
        if new_schema {
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
        if self.schema_exists(&place.schema).await? {
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

    async fn schema_exists(&self, schema: &str) -> Result<bool, Error> {
        Ok(self.role_exists(schema).await? || self.key_count(schema).await? > 0)
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
}

fn check(place: &Place) -> Result<(), Error> {
    names::check_usable("schema", &place.schema)?;
    names::check_usable("datastore user", &place.user)?;
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
