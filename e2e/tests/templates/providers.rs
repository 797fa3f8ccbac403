//! Our providers and their objects as clusterctl shows them.

use std::collections::BTreeMap;

use anyhow::{Context as _, Result};
use e2e::{
    clusterctl::{CLUSTER, Clusterctl},
    lab::describe,
    objects::{self, documents, text},
};
use kube::api::{Patch, PatchParams};
use serde_json::{Value, json};

use super::{generated, place::Place, samples};

/// A condition of a control plane that serves.
fn condition(type_: &str, status: &str) -> Value {
    json!({
        "type": type_, "status": status, "reason": "Tested", "message": "", "observedGeneration": 1,
        "lastTransitionTime": "2026-01-02T03:04:05Z",
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn contract_62_clusterctl_describe_reads_version_and_counters_of_the_control_plane() -> Result<()> {
    let (Some(place), Some(clusterctl)) = (Place::shared().await?, Clusterctl::find()?) else {
        return Ok(());
    };
    let client = place.client()?;
    let namespace = "described";
    place.server().namespace(namespace).await?;
    let files = place.files()?;
    let file = files
        .iter()
        .find(|file| file.name == "local")
        .context("no template")?;
    let variables = samples::required(&generated::variables(&clusterctl, file).await?);
    let all = place.generated(&clusterctl, file, &variables, namespace).await?;
    for object in &all {
        objects::apply(&client, object, "its-user", false).await?;
    }
    let is_control_plane = |object: &&Value| text(object, "/kind") == "KamajiControlPlane";
    let object = all.iter().find(is_control_plane).context("no control plane")?;
    let status = json!({"status": {
        "replicas": 1, "readyReplicas": 1, "availableReplicas": 1, "upToDateReplicas": 1,
        "version": "v1.36.3", "versions": [{"version": "v1.36.3", "replicas": 1}],
        "initialization": {"controlPlaneInitialized": true},
        "conditions": [condition("Available", "True"), condition("RollingOut", "False"), condition("Paused", "False")],
    }});
    let api = objects::api(&client, object).await?;
    api.patch_status(CLUSTER, &PatchParams::default(), &Patch::Merge(&status))
        .await?;

    let kubeconfig = place.server().kubeconfig()?.display().to_string();
    let arguments = [
        "describe",
        "cluster",
        CLUSTER,
        "-n",
        namespace,
        "--kubeconfig",
        &kubeconfig,
        "--show-conditions",
        "all",
    ];
    let printed = clusterctl.run(&arguments, &BTreeMap::new()).await?;
    let row = describe::control_plane(&printed).with_context(|| printed.clone())?;
    assert_eq!(row, ["v1.36.3", "1/1", "1", "1", "1"], "{printed}");
    let shown = describe::read(&printed);
    let of_control_plane: Vec<_> = shown
        .iter()
        .filter(|c| c.object.starts_with("KamajiControlPlane "))
        .collect();
    assert!(of_control_plane.len() >= 3, "{printed}");
    assert!(
        of_control_plane.iter().all(|c| c.status != "Unknown"),
        "{printed}"
    );
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn contract_56_clusterctl_generates_both_providers_and_no_variable_is_unset() -> Result<()> {
    let Some(clusterctl) = Clusterctl::find()? else {
        return Ok(());
    };
    let program = std::env::current_exe()?;
    let xtask = program
        .parent()
        .and_then(|folder| folder.parent())
        .context("no folder")?
        .join("xtask");
    if !xtask.exists() {
        e2e::skip(&format!(
            "{} is not built (cargo build --bin xtask makes it)",
            xtask.display()
        ));
        return Ok(());
    }
    let folder = std::env::temp_dir().join(format!("kamaji-components-{}", std::process::id()));
    let made = tokio::process::Command::new(xtask)
        .args(["components", "--out"])
        .arg(&folder)
        .output()
        .await?;
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    let mut providers = Vec::new();
    for (type_, label, file) in [
        (
            "ControlPlaneProvider",
            "control-plane-kamaji",
            "control-plane-components.yaml",
        ),
        (
            "BootstrapProvider",
            "bootstrap-kamaji",
            "bootstrap-components.yaml",
        ),
    ] {
        let release = std::fs::read_dir(folder.join(label))?
            .next()
            .context("no release")??;
        providers.push(json!({"name": "kamaji", "type": type_, "url": release.path().join(file)}));
    }
    let configuration = folder.join("clusterctl.yaml");
    std::fs::write(&configuration, json!({ "providers": providers }).to_string())?;
    let configuration = configuration.display().to_string();
    for (flag, label) in [
        ("--control-plane", "control-plane-kamaji"),
        ("--bootstrap", "bootstrap-kamaji"),
    ] {
        let version = std::fs::read_dir(folder.join(label))?
            .next()
            .context("no release")??;
        let name = format!("kamaji:{}", version.file_name().to_string_lossy());
        let arguments = ["generate", "provider", flag, &name, "--config", &configuration];
        let printed = clusterctl.run(&arguments, &BTreeMap::new()).await?;
        assert!(!printed.contains("${"), "{label}");
        let objects = documents(&printed)?;
        let labelled = |object: &Value| object["metadata"]["labels"]["cluster.x-k8s.io/provider"] == label;
        assert!(
            objects.len() > 5 && objects.iter().all(labelled),
            "{label}: {}",
            objects.len()
        );
        // Without a variable that nobody set, there is nothing to describe but what has a default.
        let arguments = [
            "generate",
            "provider",
            flag,
            &name,
            "--config",
            &configuration,
            "--describe",
        ];
        let described = clusterctl.run(&arguments, &BTreeMap::new()).await?;
        assert!(described.contains("kamaji"), "{described}");
    }
    std::fs::remove_dir_all(&folder)?;
    Ok(())
}
