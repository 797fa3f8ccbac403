//! The templates as flavors of the infrastructure providers, from the overrides folder of clusterctl.

use anyhow::{Context as _, Result};
use e2e::{
    clusterctl::{CLUSTER, Clusterctl, VERSION},
    objects::{documents, text},
};
use serde_json::json;

use super::{files, generated, place::Place, samples};

/// Version of each provider in the configuration; it names the folder.
const RELEASE: &str = "v1.0.0";

#[tokio::test(flavor = "multi_thread")]
async fn the_overrides_folder_serves_templates_and_brings_their_classes() -> Result<()> {
    let (Some(place), Some(clusterctl)) = (Place::shared().await?, Clusterctl::find()?) else {
        return Ok(());
    };
    let kubeconfig = place.server().kubeconfig()?;
    let folder = kubeconfig.parent().context("no folder")?.join("flavors");
    // The class of a cluster is looked for in its namespace first.
    let namespace = "flavors";
    place.server().namespace(namespace).await?;
    let mut providers = Vec::new();
    for file in files::all()? {
        let label = format!("infrastructure-{}", file.infrastructure);
        let overrides = folder.join("overrides").join(&label).join(RELEASE);
        std::fs::create_dir_all(&overrides)?;
        std::fs::copy(&file.path, overrides.join(format!("{}.yaml", file.name)))?;
        let release = folder.join("repository").join(&label).join(RELEASE);
        std::fs::create_dir_all(&release)?;
        let provider = json!({
            "name": file.infrastructure, "type": "InfrastructureProvider",
            "url": release.join("infrastructure-components.yaml"),
        });
        if !providers.contains(&provider) {
            providers.push(provider);
        }
    }
    let configuration = folder.join("clusterctl.yaml");
    let settings = json!({"providers": providers, "overridesFolder": folder.join("overrides")});
    std::fs::write(&configuration, settings.to_string())?;
    let mut wrong = Vec::new();
    for file in place.files()? {
        let Some(flavor) = file.name.strip_prefix("cluster-template-") else {
            continue;
        };
        let variables = samples::required(&generated::variables(&clusterctl, &file).await?);
        let infrastructure = format!("{}:{RELEASE}", file.infrastructure);
        let (configuration, kubeconfig) = (
            configuration.display().to_string(),
            kubeconfig.display().to_string(),
        );
        let arguments = [
            "generate",
            "cluster",
            CLUSTER,
            "--infrastructure",
            &infrastructure,
            "--flavor",
            flavor,
            "--target-namespace",
            namespace,
            "--kubernetes-version",
            VERSION,
            "--config",
            &configuration,
            "--kubeconfig",
            &kubeconfig,
        ];
        match clusterctl.run(&arguments, &variables).await {
            Ok(generated) => {
                let objects = documents(&generated)?;
                let cluster = objects.iter().find(|object| text(object, "/kind") == "Cluster");
                let class = cluster
                    .map(|cluster| text(cluster, "/spec/topology/classRef/name"))
                    .unwrap_or_default();
                let brought = objects.iter().any(|object| {
                    text(object, "/kind") == "ClusterClass" && text(object, "/metadata/name") == class
                });
                if cluster.is_none() || (!class.is_empty() && !brought) {
                    wrong.push(format!("{flavor}: the class {class:?} does not come with it"));
                }
            }
            Err(error) => wrong.push(format!("{flavor}: {error:#}")),
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    Ok(())
}
