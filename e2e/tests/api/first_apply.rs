//! The first apply of an owned object: one request either creates the object or leaves an existing one unchanged, and a
//! later apply can remove what it set.

use std::sync::Arc;

use anyhow::{Context, Result, ensure};
use capi_kamaji::k8s::{apply::Applier, index::ChildIndex, manifest::Manifest};
use k8s_openapi::api::core::v1::Service;
use kamaji_api::labels::field_manager;
use kube::api::{Api, PostParams};
use serde_json::{Value, json};

fn ours(name: &str, more: &Value) -> Result<Manifest> {
    let mut service = json!({
        "metadata": {
            "name": name, "namespace": "default",
            "labels": { "kamaji.clastix.io/project": "kamaji", "kamaji.clastix.io/name": name },
            "ownerReferences": [{
                "apiVersion": "kamaji.clastix.io/v1alpha1", "kind": "TenantControlPlane", "name": name,
                "uid": "4f6d1c2e-0000-4000-8000-000000000001", "controller": true, "blockOwnerDeletion": true,
            }],
        },
        "spec": {
            "selector": { "kamaji.clastix.io/name": name },
            "ports": [{ "name": "kube-apiserver", "port": 6443, "protocol": "TCP" }],
        },
    });
    if let (Some(spec), Some(more)) = (service["spec"].as_object_mut(), more.as_object()) {
        spec.extend(more.clone());
    }
    let service: Service = serde_json::from_value(service)?;
    Manifest::of(&service).context("a manifest")
}

#[tokio::test(flavor = "multi_thread")]
async fn the_first_apply_makes_or_leaves_alone() -> Result<()> {
    let Some(server) = super::server().await? else {
        return Ok(());
    };
    let client = server.client()?;
    let services: Api<Service> = Api::default_namespaced(client.clone());
    let applier = || {
        Applier::new(
            client.clone(),
            field_manager::HOSTING,
            Arc::<ChildIndex>::default(),
        )
    };

    let made = applier();
    made.apply(&ours("fresh", &json!({ "sessionAffinity": "ClientIP" }))?)
        .await?;
    made.apply(&ours("fresh", &json!({}))?).await?;
    let affinity = services
        .get("fresh")
        .await?
        .spec
        .and_then(|spec| spec.session_affinity);
    ensure!(
        affinity.as_deref() == Some("None"),
        "what is not asked for any more is given up, not {affinity:?}"
    );
    // A process that knows nothing of it takes its own over.
    applier().apply(&ours("fresh", &json!({}))?).await?;

    let theirs: Service = serde_json::from_value(json!({
        "metadata": { "name": "web" },
        "spec": { "selector": { "app": "web" }, "ports": [{ "port": 80 }] },
    }))?;
    services.create(&PostParams::default(), &theirs).await?;
    let before = services.get("web").await?;
    let Err(error) = applier().apply(&ours("web", &json!({}))?).await else {
        anyhow::bail!("somebody else's Service was taken");
    };
    ensure!(error.is_foreign(), "{error}");
    ensure!(services.get("web").await? == before, "it was touched");
    Ok(())
}
