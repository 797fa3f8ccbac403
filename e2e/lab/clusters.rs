//! Clusters as users make them: `clusterctl generate cluster` piped into the API.

use std::sync::LazyLock;

use anyhow::{Context as _, Result, bail, ensure};
use k8s_openapi::api::core::v1::{Node, Pod, Secret};
use kube::{
    Api, Client,
    api::{DeleteParams, DynamicObject, ListParams, Patch, PatchParams},
    core::{ApiResource, GroupVersionKind},
};
use serde_json::{Value, json};
use tokio::{io::AsyncWriteExt as _, process::Command};

use super::{
    access::{Lab, value},
    tenants::{PATIENCE, not_true},
    until::until,
};

/// The version that the lab's machines carry.
pub const VERSION: &str = "v1.36.3";

/// The cluster that `hack/quickstart` makes.
pub static QUICKSTART: LazyLock<Cluster> = LazyLock::new(|| Cluster::new("default", "quickstart"));

/// A Cluster whose control plane has its name.
#[derive(Clone, Debug)]
pub struct Cluster {
    /// Namespace.
    pub namespace: String,
    /// Name.
    pub name: String,
}

impl Cluster {
    /// Names a cluster.
    pub fn new(namespace: &str, name: &str) -> Self {
        Self {
            namespace: namespace.to_owned(),
            name: name.to_owned(),
        }
    }

    /// Generates it from the template of the local infrastructure and applies it, as the README says.
    ///
    /// # Errors
    /// When clusterctl or kubectl fail.
    pub async fn create(&self, lab: &Lab, workers: u32) -> Result<()> {
        let config = lab
            .directory
            .join("repository/clusterctl.yaml")
            .display()
            .to_string();
        let workers = workers.to_string();
        let manifest = lab
            .tool(
                "clusterctl",
                &[
                    "generate",
                    "cluster",
                    &self.name,
                    "--config",
                    &config,
                    "--infrastructure",
                    "local",
                    "--target-namespace",
                    &self.namespace,
                    "--kubernetes-version",
                    VERSION,
                    "--control-plane-machine-count",
                    "1",
                    "--worker-machine-count",
                    &workers,
                ],
            )
            .await?;
        let mut apply = Command::new(lab.directory.join("bin/kubectl"))
            .args(["apply", "-f", "-"])
            .env("KUBECONFIG", lab.directory.join("management.kubeconfig"))
            .stdin(std::process::Stdio::piped())
            .stdout(std::process::Stdio::null())
            .spawn()?;
        apply
            .stdin
            .take()
            .context("no stdin")?
            .write_all(manifest.as_bytes())
            .await?;
        ensure!(
            apply.wait().await?.success(),
            "kubectl apply of cluster {} failed",
            self.name
        );
        Ok(())
    }

    /// Deletes it and waits until it is gone.
    ///
    /// # Errors
    /// When it does not go.
    pub async fn delete(&self, lab: &Lab) -> Result<()> {
        let clusters = self.api(lab, "cluster.x-k8s.io", "v1beta2", "Cluster", "clusters");
        clusters.delete(&self.name, &DeleteParams::default()).await?;
        until(
            &format!("cluster {} to be gone", self.name),
            PATIENCE,
            async || {
                let Some(cluster) = clusters.get_opt(&self.name).await? else {
                    return Ok(Some(()));
                };
                bail!("{}", not_true(&cluster.data))
            },
        )
        .await
    }

    /// The KamajiControlPlanes of its namespace.
    pub fn control_plane_api(&self, lab: &Lab) -> Api<DynamicObject> {
        self.api(
            lab,
            "controlplane.cluster.x-k8s.io",
            "v1alpha2",
            "KamajiControlPlane",
            "kamajicontrolplanes",
        )
    }

    fn api(&self, lab: &Lab, group: &str, version: &str, kind: &str, plural: &str) -> Api<DynamicObject> {
        let resource =
            ApiResource::from_gvk_with_plural(&GroupVersionKind::gvk(group, version, kind), plural);
        Api::namespaced_with(lab.management.clone(), &self.namespace, &resource)
    }

    /// Scales the control plane through its scale subresource, as `kubectl scale` does.
    ///
    /// # Errors
    /// When the API server refuses it.
    pub async fn scale(&self, lab: &Lab, replicas: i32) -> Result<()> {
        let patch = Patch::Merge(json!({ "spec": { "replicas": replicas } }));
        self.control_plane_api(lab)
            .patch_scale(&self.name, &PatchParams::default(), &patch)
            .await?;
        Ok(())
    }

    /// Waits for a condition of the control plane.
    ///
    /// # Errors
    /// When the time is over.
    pub async fn condition(&self, lab: &Lab, type_: &str, status: &str) -> Result<()> {
        until(
            &format!("{type_}={status} of control plane {}", self.name),
            PATIENCE,
            async || {
                let object = self.control_plane_api(lab).get(&self.name).await?;
                let conditions = object
                    .data
                    .pointer("/status/conditions")
                    .and_then(Value::as_array)
                    .cloned();
                let condition = conditions.into_iter().flatten().find(|c| c["type"] == type_);
                let condition = condition.with_context(|| format!("no condition {type_}"))?;
                ensure!(condition["status"] == status, "{condition}");
                Ok(Some(()))
            },
        )
        .await
    }

    /// One word about how far it is.
    pub async fn phase(&self, lab: &Lab) -> String {
        let Ok(object) = self.control_plane_api(lab).get(&self.name).await else {
            return "no object".into();
        };
        if object
            .data
            .pointer("/status/initialization/controlPlaneInitialized")
            == Some(&Value::Bool(true))
        {
            return "initialized".into();
        }
        let conditions = object
            .data
            .pointer("/status/conditions")
            .and_then(Value::as_array);
        let available = conditions
            .into_iter()
            .flatten()
            .find(|c| c["type"] == "Available");
        available
            .and_then(|c| c["reason"].as_str())
            .unwrap_or("no condition")
            .to_owned()
    }

    /// Certificate and key of its CA.
    ///
    /// # Errors
    /// When the Secret is not there.
    pub async fn ca(&self, lab: &Lab) -> Result<(Vec<u8>, Vec<u8>)> {
        let secrets = Api::<Secret>::namespaced(lab.management.clone(), &self.namespace);
        let ca = secrets.get(&format!("{}-ca", self.name)).await?;
        Ok((
            value(&ca, "tls.crt").context("no tls.crt")?,
            value(&ca, "tls.key").context("no tls.key")?,
        ))
    }

    /// Its prefix in the datastore.
    ///
    /// # Errors
    /// When the tenant has none yet.
    pub async fn schema(&self, lab: &Lab) -> Result<String> {
        let tenants = self.api(
            lab,
            "kamaji.clastix.io",
            "v1alpha1",
            "TenantControlPlane",
            "tenantcontrolplanes",
        );
        let tenant = tenants.get(&self.name).await?;
        let schema = tenant
            .data
            .pointer("/status/storage/setup/schema")
            .and_then(Value::as_str);
        Ok(schema.context("no schema in the status")?.to_owned())
    }

    /// A client, as its administrator.
    ///
    /// # Errors
    /// When there is no kubeconfig.
    pub async fn client(&self, lab: &Lab) -> Result<Client> {
        lab.tenant(&self.namespace, &self.name).await
    }

    /// Pods of the hosted control plane.
    ///
    /// # Errors
    /// When they cannot be listed.
    pub async fn control_plane_pods(&self, lab: &Lab) -> Result<Vec<Pod>> {
        let pods = Api::<Pod>::namespaced(lab.management.clone(), &self.namespace);
        let selector = ListParams::default().labels(&format!("kamaji.clastix.io/name={}", self.name));
        Ok(pods.list(&selector).await?.items)
    }

    /// Waits until this many nodes are Ready.
    ///
    /// # Errors
    /// When the time is over.
    pub async fn nodes_ready(&self, lab: &Lab, count: usize) -> Result<()> {
        until(
            &format!("{count} Ready nodes of {}", self.name),
            2 * PATIENCE,
            async || {
                let tenant = self.client(lab).await?;
                let nodes = nodes(&tenant).await?;
                let ready = nodes.iter().filter(|node| is_ready(node)).count();
                ensure!(ready == count, "{ready} of {} nodes are Ready", nodes.len());
                Ok(Some(()))
            },
        )
        .await
    }
}

/// The Nodes of a cluster.
///
/// # Errors
/// When its API server does not answer.
pub async fn nodes(tenant: &Client) -> Result<Vec<Node>> {
    let api = Api::<Node>::all(tenant.clone());
    Ok(api.list(&ListParams::default()).await?.items)
}

/// The kubelet reports the Node Ready.
pub fn is_ready(node: &Node) -> bool {
    let conditions = node.status.as_ref().and_then(|s| s.conditions.as_ref());
    conditions
        .into_iter()
        .flatten()
        .any(|c| c.type_ == "Ready" && c.status == "True")
}
