//! MachinePools, and configs that they own.

use std::time::Duration;

use anyhow::{Context as _, Result};
use k8s_openapi::jiff::Timestamp;
use kamaji_api::bootstrap::{KamajiConfig, KamajiConfigStatus};
use kube::{
    ResourceExt as _,
    api::{Api, Patch, PatchParams},
};
use serde_json::{Value, json};

use super::{CLUSTER, NS, World, text, until};

/// Version of Cluster API's objects.
const VERSION: &str = "cluster.x-k8s.io/v1beta2";

impl World {
    /// A MachinePool and its config.
    pub async fn pool(&self, name: &str, replicas: u32, spec: Value) -> Result<()> {
        let labels = json!({"cluster.x-k8s.io/cluster-name": CLUSTER});
        let pool = self
            .apply(&json!({
                "apiVersion": VERSION, "kind": "MachinePool",
                "metadata": {"name": name, "namespace": NS, "labels": labels},
                "spec": {
                    "clusterName": CLUSTER, "replicas": replicas,
                    "template": {"spec": {
                        "clusterName": CLUSTER, "version": "v1.36.3",
                        "bootstrap": {"configRef": {"apiGroup": "bootstrap.cluster.x-k8s.io", "kind": "KamajiConfig", "name": name}},
                        "infrastructureRef": {"apiGroup": "x.io", "kind": "X", "name": name},
                    }},
                },
            }))
            .await?;
        self.apply(&json!({
            "apiVersion": "bootstrap.cluster.x-k8s.io/v1alpha1", "kind": "KamajiConfig",
            "metadata": {
                "name": name, "namespace": NS, "labels": labels,
                "ownerReferences": [{
                    "apiVersion": VERSION, "kind": "MachinePool", "name": name, "uid": pool.uid(), "controller": true,
                }],
            },
            "spec": spec,
        }))
        .await?;
        Ok(())
    }

    /// Merges into the spec of a MachinePool.
    pub async fn change_pool(&self, name: &str, spec: Value) -> Result<()> {
        let patch = Patch::Merge(json!({ "spec": spec }));
        self.api(VERSION, "MachinePool")
            .patch(name, &PatchParams::default(), &patch)
            .await?;
        Ok(())
    }

    /// The status of a config.
    pub async fn status_of(&self, name: &str) -> Result<KamajiConfigStatus> {
        Ok(self.config(name).await?.status.unwrap_or_default())
    }

    /// Name of the data Secret of a pool, and its token, once the data was announced and is not that of `before`.
    pub async fn pool_token(&self, name: &str, before: Option<&str>) -> Result<(String, String)> {
        until(
            &format!("{name} has its data"),
            Duration::from_secs(30),
            async || {
                let status = self.status_of(name).await?;
                let Some(secret) = status.data_secret_name else {
                    return Ok(None);
                };
                let data = self
                    .secret(NS, &secret)
                    .await?
                    .context("announced and not there")?;
                let token = text(&data, "token");
                let announced = status.token.and_then(|token| token.id);
                let current = announced.is_some_and(|id| token.starts_with(&id));
                Ok((current && Some(token.as_str()) != before).then_some((secret, token)))
            },
        )
        .await
    }

    /// Lets the token of a pool be past half of its life, as the status says, and has the config looked at.
    pub async fn age_token(&self, name: &str) -> Result<()> {
        let configs: Api<KamajiConfig> = Api::namespaced(self.admin.clone(), NS);
        let soon = Timestamp::from_second(Timestamp::now().as_second() + 600)?.to_string();
        let status = json!({"status": {"token": {"expiration": soon}}});
        configs
            .patch_status(name, &PatchParams::default(), &Patch::Merge(status))
            .await?;
        let label = json!({"metadata": {"labels": {"aged": "true"}}});
        configs
            .patch(name, &PatchParams::default(), &Patch::Merge(label))
            .await?;
        Ok(())
    }
}
