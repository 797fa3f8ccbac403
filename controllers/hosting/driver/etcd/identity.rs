//! The id of an etcd, by which it is told from another one at the same endpoints, and from itself after it lost its data.

use etcd_client::{Client, Compare, CompareOp, Txn, TxnOp, TxnOpResponse};

use super::{super::Error, EtcdAdmin};

/// Key of the id.
const STORE: &str = "/capi-kamaji/store";

impl EtcdAdmin {
    /// The id, if etcd has one.
    pub async fn identity(&self) -> Result<Option<String>, Error> {
        let answer = self
            .call("read the id of the datastore", |mut client: Client| async move {
                client.get(STORE, None).await
            })
            .await?;
        answer.kvs().first().map(|kv| text(kv.value())).transpose()
    }

    /// Gives etcd the id `id`, unless it has one. Returns the one that it has.
    pub async fn identify(&self, id: &str) -> Result<String, Error> {
        let transaction = &Txn::new()
            .when([Compare::create_revision(STORE, CompareOp::Equal, 0)])
            .and_then([TxnOp::put(STORE, id, None)])
            .or_else([TxnOp::get(STORE, None)]);
        let answer = self
            .call("write the id of the datastore", |mut client: Client| async move {
                client.txn(transaction.clone()).await
            })
            .await?;
        let known = answer
            .op_responses()
            .into_iter()
            .find_map(|response| match response {
                TxnOpResponse::Get(found) => found.kvs().first().map(|kv| kv.value().to_vec()),
                TxnOpResponse::Put(_) | TxnOpResponse::Delete(_) | TxnOpResponse::Txn(_) => None,
            });
        known.map_or_else(|| Ok(id.to_owned()), |known| text(&known))
    }
}

fn text(value: &[u8]) -> Result<String, Error> {
    String::from_utf8(value.to_vec()).map_err(|_| Error::Refused {
        operation: "read the id of the datastore".to_owned(),
        detail: format!("{STORE} is not text; another version or a person wrote it"),
    })
}
