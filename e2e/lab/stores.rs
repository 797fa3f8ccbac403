//! DataStores that a test makes.

use anyhow::{Context as _, Result, ensure};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use capi_kamaji::pki::issue::Issued;
use kamaji_api::datastore::DataStore;
use kube::{Api, api::PostParams};
use serde_json::{Value, json};

use super::{conditions::PATIENCE, describe::not_true, until::until};

/// Creates a DataStore.
///
/// # Errors
/// When the API server refuses it.
pub async fn store(stores: &Api<DataStore>, name: &str, spec: &Value) -> Result<()> {
    let store: DataStore = serde_json::from_value(json!({
        "apiVersion": "kamaji.clastix.io/v1alpha1", "kind": "DataStore",
        "metadata": { "name": name }, "spec": spec,
    }))?;
    let created = stores.create(&PostParams::default(), &store).await;
    created.with_context(|| name.to_owned())?;
    Ok(())
}

/// Spec of a DataStore on an etcd of the user's own.
pub fn external(endpoints: &[String], ca: &Issued, client: &Issued) -> Value {
    let pair = |issued: &Issued| {
        json!({
            "certificate": { "content": STANDARD.encode(&issued.cert_pem) },
            "privateKey": { "content": STANDARD.encode(issued.key_pem.expose()) },
        })
    };
    json!({
        "driver": "etcd",
        "endpoints": endpoints,
        "tlsConfig": { "certificateAuthority": pair(ca), "clientCertificate": pair(client) },
    })
}

/// Waits until a DataStore is ready.
///
/// # Errors
/// When the time is over, with the conditions that are not good.
pub async fn ready(stores: &Api<DataStore>, name: &str) -> Result<()> {
    until(&format!("DataStore {name} to be ready"), PATIENCE, async || {
        let store = stores.get(name).await?;
        ensure!(
            store.status.as_ref().is_some_and(|status| status.ready),
            "{}",
            not_true(&serde_json::to_value(&store)?)
        );
        Ok(Some(()))
    })
    .await
}
