//! A Secret that is made immutable keeps its data, and can still be labelled and owned.

use std::sync::Arc;

use anyhow::{Context as _, Result, ensure};
use capi_kamaji::k8s::{apply::Applier, index::ChildIndex, key::ObjectKey, row::Row};
use k8s_openapi::api::core::v1::Secret;
use kamaji_api::labels::field_manager;
use kube::api::{Api, Patch, PatchParams, PostParams};
use serde_json::json;

#[tokio::test(flavor = "multi_thread")]
async fn a_frozen_secret_keeps_its_data_and_takes_labels() -> Result<()> {
    let Some(server) = super::server().await? else {
        return Ok(());
    };
    let client = server.client()?;
    let secrets: Api<Secret> = Api::default_namespaced(client.clone());
    let applier = Applier::new(client, field_manager::HOSTING, Arc::<ChildIndex>::default());
    let secret: Secret = serde_json::from_value(json!({
        "metadata": { "name": "frozen" }, "stringData": { "key": "value" },
    }))?;
    let made = secrets.create(&PostParams::default(), &secret).await?;
    let seen = Row::of::<Secret>(&made.metadata);
    let row = applier.freeze(&seen).await?;
    applier.freeze(&row).await?;
    // Somebody may have edited it since it was read.
    ensure!(applier.freeze(&seen).await.is_err(), "an earlier version");
    let edit = Patch::Merge(json!({ "stringData": { "key": "other" } }));
    let refused = secrets.patch("frozen", &PatchParams::default(), &edit).await;
    let error = refused.err().context("the data was changed")?.to_string();
    ensure!(error.contains("immutable"), "{error}");
    let key = ObjectKey::of::<Secret>("default", "frozen");
    let labels = json!({ "labels": { "capi-kamaji.io/managed-by": "kamaji-hosting" } });
    applier.record(&key, &row.uid, labels).await?;
    let now = secrets.get("frozen").await?;
    ensure!(now.data == made.data && now.immutable == Some(true), "{now:?}");
    // Another Secret of that name is left alone.
    let mut other = Row::clone(&row);
    "4f6d1c2e-0000-4000-8000-000000000001".clone_into(&mut other.uid);
    ensure!(applier.freeze(&other).await.is_err(), "another UID");
    Ok(())
}
