//! What the definitions accept, decodes: objects that are generated from the schemas of our definitions go through a real
//! API server, and each that it accepts is read by our types.

use std::collections::BTreeMap;

use anyhow::{Context as _, Result, ensure};
use futures::{StreamExt as _, stream};
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kamaji_api::{
    bootstrap::{KamajiConfig, KamajiConfigTemplate},
    controlplane::{KamajiControlPlane, KamajiControlPlaneTemplate},
    datastore::DataStore,
    tenantcontrolplane::TenantControlPlane,
};
use kube::{
    Client,
    api::{DynamicObject, Patch, PatchParams, PostParams},
};
use rand::{SeedableRng as _, rngs::StdRng};
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::{api, apply, generate, manifests::minimal, server};

/// Objects of each kind and part. `KAMAJI_SEED` chooses others.
const OBJECTS: u64 = 300;
/// Of these, so many are accepted at least: a test without accepted objects tests nothing.
const ACCEPTED: usize = 30;

#[tokio::test(flavor = "multi_thread")]
async fn what_the_definitions_accept_decodes() -> Result<()> {
    let Some(server) = server().await? else {
        return Ok(());
    };
    let client = server.client()?;
    let seed = std::env::var("KAMAJI_SEED")
        .ok()
        .and_then(|seed| seed.parse().ok());
    let mut wrong = BTreeMap::new();
    for definition in kamaji_api::crd::all_crds() {
        let kind = definition.spec.names.kind.clone();
        if !minimal(&kind, "any")["apiVersion"]
            .as_str()
            .is_some_and(|version| version.starts_with(&definition.spec.group))
        {
            continue;
        }
        let parts = if kind.ends_with("Template") {
            &["spec"][..]
        } else {
            &["spec", "status"]
        };
        for part in parts {
            let accepted = try_part(&client, &definition, part, seed.unwrap_or(1), &mut wrong).await?;
            println!("{kind} {part}: {accepted} of {OBJECTS} generated objects were accepted and decoded");
            ensure!(accepted >= ACCEPTED, "{kind} {part}: {accepted} were accepted");
        }
    }
    let wrong: Vec<_> = wrong.into_values().collect();
    ensure!(
        wrong.is_empty(),
        "accepted, and do not decode:\n{}",
        wrong.join("\n")
    );
    Ok(())
}

/// Sends generated objects of one kind, which differ from the minimal one in `part`. Returns how many were accepted and
/// decoded; adds the others to `wrong`, one for each path.
async fn try_part(
    client: &Client,
    definition: &CustomResourceDefinition,
    part: &str,
    seed: u64,
    wrong: &mut BTreeMap<String, String>,
) -> Result<usize> {
    let kind = definition.spec.names.kind.as_str();
    let version = definition.spec.versions.first().context("no version")?;
    let schema = version.schema.as_ref().context("no schema")?;
    let schema = serde_json::to_value(&schema.open_api_v3_schema)?;
    let schema = &schema["properties"][part];
    ensure!(schema.is_object(), "{kind} has no schema of {part}");
    let base = minimal(kind, &format!("generated-{}", kind.to_lowercase()));
    if part == "status" {
        apply(client, &base, false).await?;
    }
    let objects = (0..OBJECTS).map(|number| {
        let mut random = StdRng::seed_from_u64(seed.wrapping_mul(1_000_003) + number);
        let mut object = base.clone();
        object[part] = generate::changed(object.get(part), schema, &mut random);
        object
    });
    let answers: Vec<_> = stream::iter(objects)
        .map(|object| send(client, part, object))
        .buffer_unordered(8)
        .collect()
        .await;
    let mut accepted = 0;
    for answer in answers {
        let Some((sent, kept)) = answer? else {
            continue;
        };
        match decode(kind, kept) {
            Ok(()) => accepted += 1,
            Err((path, why)) => {
                wrong.entry(format!("{kind} {path}")).or_insert_with(|| {
                    let pointer = format!("/{}", path.replace('[', ".").replace(']', "").replace('.', "/"));
                    let value = sent.pointer(&pointer).unwrap_or(&Value::Null);
                    format!(
                        "{kind} {path}: {why}: {}",
                        value.to_string().chars().take(200).collect::<String>()
                    )
                });
            }
        }
    }
    Ok(accepted)
}

/// Creates the object, or writes its status, without keeping it. What was sent and what would have been kept, if that is
/// accepted.
async fn send(client: &Client, part: &str, object: Value) -> Result<Option<(Value, Value)>> {
    let of_kind = api(client, &object)?;
    let answer = if part == "status" {
        let params = PatchParams {
            dry_run: true,
            ..PatchParams::default()
        };
        let name = object["metadata"]["name"].as_str().unwrap_or_default();
        let patch = serde_json::json!({"status": object["status"]});
        of_kind.patch_status(name, &params, &Patch::Merge(patch)).await
    } else {
        let params = PostParams {
            dry_run: true,
            field_manager: None,
        };
        let typed: DynamicObject = serde_json::from_value(object.clone())?;
        of_kind.create(&params, &typed).await
    };
    match answer {
        Ok(kept) => Ok(Some((object, serde_json::to_value(kept)?))),
        Err(kube::Error::Api(status)) if status.code < 500 => Ok(None),
        Err(error) => Err(error).with_context(|| object.to_string()),
    }
}

/// Reads an object by its type. The path of what does not decode, and why.
fn decode(kind: &str, object: Value) -> Result<(), (String, String)> {
    fn of<K: DeserializeOwned>(object: Value) -> Result<(), (String, String)> {
        match serde_path_to_error::deserialize::<_, K>(object) {
            Ok(_) => Ok(()),
            Err(error) => Err((error.path().to_string(), error.inner().to_string())),
        }
    }
    match kind {
        "TenantControlPlane" => of::<TenantControlPlane>(object),
        "DataStore" => of::<DataStore>(object),
        "KamajiControlPlane" => of::<KamajiControlPlane>(object),
        "KamajiControlPlaneTemplate" => of::<KamajiControlPlaneTemplate>(object),
        "KamajiConfig" => of::<KamajiConfig>(object),
        _ => of::<KamajiConfigTemplate>(object),
    }
}
