//! The definitions on a real API server that emulates Kubernetes 1.33, the oldest supported management cluster: they are
//! served, accept valid objects, and reject invalid ones with a message that names the field and the fix.

mod accepted;
mod change;
mod creation;
mod exposure;
mod first_apply;
mod frozen;
mod full;
mod generate;
mod handoff;
mod manifests;
mod reach;
mod undecodable;

use std::sync::Arc;

use anyhow::{Context, Result, ensure};
use e2e::{
    apiserver::{Options, TestApiServer},
    objects::missing,
};
use full::full;
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kamaji_api::{
    bootstrap::{KamajiConfig, KamajiConfigTemplate},
    controlplane::{KamajiControlPlane, KamajiControlPlaneTemplate},
    datastore::DataStore,
    tenantcontrolplane::TenantControlPlane,
};
use kube::{
    Client, Resource,
    api::{Api, ApiResource, DynamicObject, Patch, PatchParams, PostParams},
    core::NamespaceResourceScope,
};
use manifests::{merged, minimal};
use serde_json::{Value, json};

/// The server all tests here share; none where it is not built.
async fn server() -> Result<Option<Arc<TestApiServer>>> {
    let options = Options {
        emulated_version: Some("1.33"),
        ..Options::default()
    };
    TestApiServer::shared(&options).await
}

/// Untyped access to the kind of a manifest.
fn api(client: &Client, manifest: &Value) -> Result<Api<DynamicObject>> {
    fn of<K: Resource<DynamicType = ()>>() -> ApiResource {
        ApiResource::erase::<K>(&())
    }
    let resource = match manifest["kind"].as_str().unwrap_or_default() {
        "TenantControlPlane" => of::<TenantControlPlane>(),
        "DataStore" => return Ok(Api::all_with(client.clone(), &of::<DataStore>())),
        "KamajiControlPlane" => of::<KamajiControlPlane>(),
        "KamajiControlPlaneTemplate" => of::<KamajiControlPlaneTemplate>(),
        "KamajiConfig" => of::<KamajiConfig>(),
        "KamajiConfigTemplate" => of::<KamajiConfigTemplate>(),
        other => anyhow::bail!("unknown kind {other}"),
    };
    Ok(Api::default_namespaced_with(client.clone(), &resource))
}

fn name(manifest: &Value) -> &str {
    manifest["metadata"]["name"].as_str().unwrap_or_default()
}

/// Server-side apply that refuses unknown fields.
async fn apply(client: &Client, manifest: &Value, dry_run: bool) -> kube::Result<DynamicObject> {
    let mut params = PatchParams::apply("test").force().validation_strict();
    params.dry_run = dry_run;
    let api = api(client, manifest).map_err(|error| kube::Error::Service(error.into()))?;
    api.patch(name(manifest), &params, &Patch::Apply(manifest)).await
}

/// Creation that is not kept.
async fn create(client: &Client, manifest: &Value) -> Result<kube::Result<DynamicObject>> {
    let params = PostParams {
        dry_run: true,
        field_manager: None,
    };
    let object: DynamicObject = serde_json::from_value(manifest.clone())?;
    Ok(api(client, manifest)?.create(&params, &object).await)
}

/// Checks that a request was refused with these words.
fn refused(what: &str, answer: kube::Result<DynamicObject>, words: &str) -> Result<()> {
    match answer {
        Ok(_) => anyhow::bail!("{what}: accepted, should say {words:?}"),
        Err(kube::Error::Api(status)) => {
            ensure!(status.code == 422, "{what}: {} {}", status.code, status.message);
            ensure!(
                status.message.contains(words),
                "{what}: says {:?}, not {words:?}",
                status.message
            );
            Ok(())
        }
        Err(other) => Err(other).with_context(|| what.to_owned()),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn definitions_are_structural_and_served() -> Result<()> {
    let Some(server) = server().await? else {
        return Ok(());
    };
    let definitions: Api<CustomResourceDefinition> = Api::all(server.client()?);
    let list = definitions.list(&kube::api::ListParams::default()).await?;
    assert_eq!(list.items.len(), kamaji_api::crd::all_crds().len());
    for definition in list {
        let conditions = definition
            .status
            .and_then(|status| status.conditions)
            .unwrap_or_default();
        let has = |kind: &str, status: &str| conditions.iter().any(|c| c.type_ == kind && c.status == status);
        assert!(
            has("Established", "True") && has("NamesAccepted", "True"),
            "{conditions:?}"
        );
        assert!(!has("NonStructuralSchema", "True"), "{conditions:?}");
        assert_eq!(
            definition.spec.conversion.map(|c| c.strategy).as_deref(),
            Some("None")
        );
        let labels = definition.metadata.labels.unwrap_or_default();
        if definition.spec.group.ends_with("cluster.x-k8s.io") {
            assert_eq!(
                labels.get("cluster.x-k8s.io/v1beta2"),
                definition.spec.versions.first().map(|v| &v.name)
            );
        }
        assert!(!labels.contains_key("cluster.x-k8s.io/v1beta1"));
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn minimal_objects_get_the_defaults_of_upstream() -> Result<()> {
    let Some(server) = server().await? else {
        return Ok(());
    };
    let client = server.client()?;
    for (manifest, defaults) in [
        (
            minimal("TenantControlPlane", "defaults"),
            json!({
                "controlPlane": {"deployment": {
                    "replicas": 2,
                    "registrySettings": {"registry": "registry.k8s.io", "apiServerImage": "kube-apiserver"},
                    "strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": "100%", "maxUnavailable": 0}},
                    "serviceAccountName": "default",
                }},
                "networkProfile": {"port": 6443, "clusterDomain": "cluster.local", "podCidr": "10.244.0.0/16"},
                "kubernetes": {"kubelet": {"preferredAddressTypes": ["InternalIP", "ExternalIP", "Hostname"]}},
            }),
        ),
        (
            minimal("KamajiControlPlane", "defaults"),
            json!({
                "replicas": 2,
                "registry": "registry.k8s.io",
                "network": {"serviceType": "LoadBalancer"},
                "kubelet": {"cgroupfs": "systemd", "preferredAddressTypes": ["InternalIP", "ExternalIP", "Hostname"]},
            }),
        ),
        (
            merged(
                minimal("TenantControlPlane", "addons"),
                json!({"spec": {"addons": {"konnectivity": {}}}}),
            ),
            json!({"addons": {"konnectivity": {
                "server": {"port": 8132, "image": "registry.k8s.io/kas-network-proxy/proxy-server"},
                "agent": {
                    "mode": "DaemonSet",
                    "hostNetwork": false,
                    "tolerations": [{"key": "CriticalAddonsOnly", "operator": "Exists"}],
                },
            }}}),
        ),
        (
            json!({
                "apiVersion": "kamaji.clastix.io/v1alpha1", "kind": "DataStore",
                "metadata": {"name": "managed-defaults"}, "spec": {"managed": {}},
            }),
            json!({"managed": {"replicas": 1, "storage": {"size": "8Gi"}}}),
        ),
    ] {
        let object = apply(&client, &manifest, true)
            .await
            .with_context(|| name(&manifest).to_owned())?;
        assert_eq!(
            missing(&defaults, &object.data["spec"], "spec"),
            None,
            "{}",
            name(&manifest)
        );
    }
    // Defaults of a machine that are spelled out.
    let said = merged(
        minimal("KamajiConfig", "said"),
        json!({"spec": {"format": "cloud-config", "auth": {"type": "BootstrapToken"}, "versionCheck": "Minor",
            "csrApproval": {"client": "Bound"}, "os": {"swap": "Disabled"}, "kubelet": {"cgroupV1": "Auto"}}}),
    );
    apply(&client, &said, true).await?;
    // Everything about a machine can be left out, the spec itself included.
    let bare = json!({
        "apiVersion": "bootstrap.cluster.x-k8s.io/v1alpha1", "kind": "KamajiConfig", "metadata": {"name": "bare"},
    });
    assert_eq!(apply(&client, &bare, true).await?.data["spec"], json!({}));
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn full_objects_are_kept_to_the_last_field() -> Result<()> {
    let Some(server) = server().await? else {
        return Ok(());
    };
    let client = server.client()?;
    for manifest in full() {
        let what = format!("{} {}", manifest["kind"], name(&manifest));
        // Strict: a field that the schema does not know is an error and no silent loss.
        apply(&client, &manifest, false)
            .await
            .with_context(|| what.clone())?;
        let kept = serde_json::to_value(api(&client, &manifest)?.get(name(&manifest)).await?)?;
        assert_eq!(missing(&manifest["spec"], &kept["spec"], "spec"), None, "{what}");
        // The same through our types: nothing is lost between reading and writing.
        let spec = match manifest["kind"].as_str().unwrap_or_default() {
            "TenantControlPlane" => typed::<TenantControlPlane>(&kept)?,
            "DataStore" => typed::<DataStore>(&kept)?,
            "KamajiControlPlane" => typed::<KamajiControlPlane>(&kept)?,
            "KamajiControlPlaneTemplate" => typed::<KamajiControlPlaneTemplate>(&kept)?,
            "KamajiConfig" => typed::<KamajiConfig>(&kept)?,
            _ => typed::<KamajiConfigTemplate>(&kept)?,
        };
        assert_eq!(
            missing(&manifest["spec"], &spec, "spec"),
            None,
            "{what} through our types"
        );
    }
    Ok(())
}

fn typed<K: serde::de::DeserializeOwned + serde::Serialize>(object: &Value) -> Result<Value> {
    let object: K = serde_json::from_value(object.clone())?;
    Ok(serde_json::to_value(object)?["spec"].clone())
}

#[tokio::test(flavor = "multi_thread")]
async fn manifests_of_upstream_users_are_accepted() -> Result<()> {
    let Some(server) = server().await? else {
        return Ok(());
    };
    let client = server.client()?;
    for (what, mut manifest) in creation::accepted() {
        if manifest["kind"] == "DataStore" {
            manifest["spec"]["basicAuth"] = Value::Null;
        }
        create(&client, &manifest).await?.with_context(|| what)?;
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn bad_input_is_refused_with_field_and_fix() -> Result<()> {
    let Some(server) = server().await? else {
        return Ok(());
    };
    let client = server.client()?;
    let rows = creation::refused_on_creation();
    assert!(rows.len() > 50);
    let mut wrong = Vec::new();
    for (what, manifest, words) in rows {
        if let Err(error) = refused(what, create(&client, &manifest).await?, words) {
            wrong.push(format!("{error:#}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_change_is_refused_with_field_and_fix() -> Result<()> {
    let Some(server) = server().await? else {
        return Ok(());
    };
    let client = server.client()?;
    let mut wrong = Vec::new();
    for (index, (what, before, after, words)) in change::refused_on_change().into_iter().enumerate() {
        let rename = json!({"metadata": {"name": format!("change-{index}")}});
        let (before, after) = (merged(before, rename.clone()), merged(after, rename));
        apply(&client, &before, false).await.with_context(|| what)?;
        if let Err(error) = refused(what, apply(&client, &after, true).await, words) {
            wrong.push(format!("{error:#}"));
        }
        // Applying the same again is no change.
        apply(&client, &before, true).await.with_context(|| what)?;
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn hosting_peer_25_26_version_steps_are_measured_against_what_runs() -> Result<()> {
    let Some(server) = server().await? else {
        return Ok(());
    };
    let client = server.client()?;
    let at = |version: &str| {
        merged(
            minimal("TenantControlPlane", "steps"),
            json!({"spec": {"kubernetes": {"version": version}}}),
        )
    };
    apply(&client, &at("v1.34.2"), false).await?;
    // Nothing runs yet: the version can still be corrected.
    apply(&client, &at("v1.36.3"), true).await?;
    apply(&client, &at("v1.33.0"), true).await?;
    let status = json!({
        "apiVersion": "kamaji.clastix.io/v1alpha1", "kind": "TenantControlPlane", "metadata": {"name": "steps"},
        "status": {"kubernetesResources": {"version": {"version": "v1.34.2", "status": "Ready"}}},
    });
    let steps = api(&client, &status)?;
    let params = PatchParams::apply("test-status").force();
    steps
        .patch_status("steps", &params, &Patch::Apply(&status))
        .await?;

    let step = "spec.kubernetes.version is more than one minor above the running version \
                (status.kubernetesResources.version.version): set the next minor version first";
    let back = "spec.kubernetes.version is below the running version \
                (status.kubernetesResources.version.version): a downgrade is not possible, set the running minor version or the \
                next one";
    refused("two minors", apply(&client, &at("v1.36.3"), true).await, step)?;
    refused("a downgrade", apply(&client, &at("v1.33.9"), true).await, back)?;
    refused("another major", apply(&client, &at("v2.34.0"), true).await, back)?;
    apply(&client, &at("v1.34.9"), true)
        .await
        .context("another patch")?;
    apply(&client, &at("v1.34.0"), true)
        .await
        .context("an older patch")?;
    // Two quick edits: the second is measured against what runs, not against the first.
    apply(&client, &at("v1.35.4"), false)
        .await
        .context("the next minor")?;
    refused(
        "two quick edits",
        apply(&client, &at("v1.36.3"), true).await,
        step,
    )?;
    apply(&client, &at("v1.34.2"), true)
        .await
        .context("back to what runs")?;
    // While the upgrade is under way the status can be written, and once it ended the next step is open.
    let mut upgraded = status.clone();
    upgraded["status"]["kubernetesResources"]["version"]["status"] = json!("Upgrading");
    steps
        .patch_status("steps", &params, &Patch::Apply(&upgraded))
        .await?;
    upgraded["status"]["kubernetesResources"]["version"] = json!({"version": "v1.35.4", "status": "Ready"});
    steps
        .patch_status("steps", &params, &Patch::Apply(&upgraded))
        .await?;
    apply(&client, &at("v1.36.3"), false)
        .await
        .context("the step after")?;
    Ok(())
}

/// Puts `scaled` to sleep through its scale subresource.
async fn sleep<K>(client: &Client, replicas: impl Fn(&K) -> i32) -> Result<()>
where
    K: Resource<DynamicType = (), Scope = NamespaceResourceScope>
        + Clone
        + std::fmt::Debug
        + serde::de::DeserializeOwned,
{
    let api: Api<K> = Api::default_namespaced(client.clone());
    assert_eq!(replicas(&api.get("scaled").await?), 2);
    let patch = json!({"spec": {"replicas": 0}});
    let scale = api
        .patch_scale("scaled", &PatchParams::default(), &Patch::Merge(&patch))
        .await?;
    assert_eq!(scale.spec.and_then(|spec| spec.replicas).unwrap_or_default(), 0);
    assert_eq!(replicas(&api.get("scaled").await?), 0);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn contract_16_the_scale_subresource_reads_and_writes_replicas() -> Result<()> {
    let Some(server) = server().await? else {
        return Ok(());
    };
    let client = server.client()?;
    apply(&client, &minimal("TenantControlPlane", "scaled"), false).await?;
    apply(&client, &minimal("KamajiControlPlane", "scaled"), false).await?;
    sleep::<TenantControlPlane>(&client, |tcp| tcp.spec.control_plane.deployment.replicas).await?;
    sleep::<KamajiControlPlane>(&client, |kcp| kcp.spec.replicas).await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn conditions_of_two_writers_coexist() -> Result<()> {
    let Some(server) = server().await? else {
        return Ok(());
    };
    let client = server.client()?;
    for kind in ["TenantControlPlane", "KamajiControlPlane", "KamajiConfig"] {
        let manifest = minimal(kind, "conditions");
        apply(&client, &manifest, false).await?;
        let api = api(&client, &manifest)?;
        for (writer, condition) in [("one", "Ready"), ("two", "Paused")] {
            let status = json!({
                "apiVersion": manifest["apiVersion"], "kind": kind, "metadata": {"name": "conditions"},
                "status": {"conditions": [{
                    "type": condition, "status": "False", "reason": "Pending", "message": "",
                    "lastTransitionTime": "2026-01-02T03:04:05Z",
                }]},
            });
            api.patch_status("conditions", &PatchParams::apply(writer), &Patch::Apply(&status))
                .await?;
        }
        let kept = api.get("conditions").await?.data;
        assert_eq!(
            kept["status"]["conditions"].as_array().map(Vec::len),
            Some(2),
            "{kind}"
        );
    }
    Ok(())
}
