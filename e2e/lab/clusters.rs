//! Clusters as users create them: the output of `clusterctl generate cluster`, applied with kubectl.

use std::sync::LazyLock;

use anyhow::{Context as _, Result, ensure};
pub use capi_kamaji::k8s::ready::node as is_ready;
use k8s_openapi::api::core::v1::{Node, Pod, Secret};
use kamaji_api::{
    controlplane::KamajiControlPlane,
    labels,
    tenantcontrolplane::{TenantControlPlane, VersionPhase},
};
use kube::{
    Api, Client,
    api::{ApiResource, DynamicObject, GroupVersionKind, ListParams, Patch, PatchParams},
};
use serde_json::{Value, json};
use tokio::{io::AsyncWriteExt as _, process::Command};

use super::{
    access::{Lab, value},
    cleanup::gone,
    pods,
    tenants::PATIENCE,
    until::until,
};
use crate::infra::capi;

/// The version that the lab's machines carry.
pub const VERSION: &str = "v1.36.3";
/// The version that control planes are upgraded from; the lab has no machines of it.
pub const OLDER: &str = "v1.35.4";
/// The version that a chain of upgrades starts from; the suite of upgrades has machines of it.
pub const OLDEST: &str = "v1.34.4";

/// The cluster that `hack/quickstart` creates.
pub static QUICKSTART: LazyLock<Cluster> = LazyLock::new(|| Cluster::new("default", "quickstart"));

/// Progress of the creation of a cluster.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Stage {
    /// The TenantControlPlane is not Ready.
    Hosting,
    /// It is Ready, and no node has joined.
    Joining,
    /// There is a node.
    Joined,
}

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

    /// Generates it from the template of the local infrastructure and applies it, as the README describes.
    ///
    /// # Errors
    /// When clusterctl or kubectl fail.
    pub async fn create(&self, lab: &Lab, workers: u32) -> Result<()> {
        self.create_with(lab, workers, &[]).await
    }

    /// The same with variables of the template.
    ///
    /// # Errors
    /// When clusterctl or kubectl fail.
    pub async fn create_with(&self, lab: &Lab, workers: u32, variables: &[(&str, &str)]) -> Result<()> {
        let manifest = self.generate(lab, VERSION, (1, workers), None, variables).await?;
        self.apply(lab, &manifest).await
    }

    /// Creates it as one of the ClusterClass `kamaji-local`, which is installed with the first one, with this version, these
    /// replicas of the control plane and of the workers, and variables of the template.
    ///
    /// # Errors
    /// When clusterctl or kubectl fail.
    pub async fn create_of_class(
        &self,
        lab: &Lab,
        version: &str,
        replicas: (u32, u32),
        variables: &[(&str, &str)],
    ) -> Result<()> {
        let manifest = self
            .generate(lab, version, replicas, Some("class"), variables)
            .await?;
        self.apply(lab, &manifest).await
    }

    /// Creates it with virtual machines as workers, whose KamajiConfig has an empty spec.
    ///
    /// # Errors
    /// When clusterctl or kubectl fail.
    pub async fn create_virtual(&self, lab: &Lab, workers: u32, variables: &[(&str, &str)]) -> Result<()> {
        let manifest = self
            .generate(lab, VERSION, (1, workers), Some("virtual"), variables)
            .await?;
        self.apply(lab, &manifest).await
    }

    /// What clusterctl makes of the local infrastructure's template, or of a flavor of it.
    async fn generate(
        &self,
        lab: &Lab,
        version: &str,
        (control_planes, workers): (u32, u32),
        flavor: Option<&str>,
        variables: &[(&str, &str)],
    ) -> Result<String> {
        let config = lab
            .directory
            .join("repository/clusterctl.yaml")
            .display()
            .to_string();
        let (control_planes, workers) = (control_planes.to_string(), workers.to_string());
        let mut arguments = vec![
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
            version,
            "--control-plane-machine-count",
            &control_planes,
            "--worker-machine-count",
            &workers,
        ];
        arguments.extend(flavor.iter().flat_map(|flavor| ["--flavor", *flavor]));
        lab.tool_with("clusterctl", &arguments, variables).await
    }

    /// Applies a manifest of the cluster with kubectl.
    ///
    /// # Errors
    /// When kubectl fails.
    pub async fn apply(&self, lab: &Lab, manifest: &str) -> Result<()> {
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

    /// Deletes it, if it is there, and waits until it is gone.
    ///
    /// # Errors
    /// When it does not go.
    pub async fn delete(&self, lab: &Lab) -> Result<()> {
        let clusters = Api::namespaced_with(lab.management.clone(), &self.namespace, &capi::clusters());
        gone::<DynamicObject>(&clusters, &self.name, PATIENCE).await
    }

    /// Its Machines.
    ///
    /// # Errors
    /// When they cannot be listed.
    pub async fn machines(&self, lab: &Lab) -> Result<Vec<DynamicObject>> {
        let machines = Api::namespaced_with(lab.management.clone(), &self.namespace, &capi::machines());
        let selector = ListParams::default().labels(&format!("{}={}", labels::capi::CLUSTER_NAME, self.name));
        Ok(machines.list(&selector).await?.items)
    }

    /// The KamajiControlPlanes of its namespace.
    pub fn control_planes(&self, lab: &Lab) -> Api<KamajiControlPlane> {
        Api::namespaced(lab.management.clone(), &self.namespace)
    }

    /// Scales the control plane through its scale subresource, as `kubectl scale` does.
    ///
    /// # Errors
    /// When the API server refuses it.
    pub async fn scale(&self, lab: &Lab, replicas: i32) -> Result<()> {
        let patch = Patch::Merge(json!({ "spec": { "replicas": replicas } }));
        self.control_planes(lab)
            .patch_scale(&self.name, &PatchParams::default(), &patch)
            .await?;
        Ok(())
    }

    /// Merges `spec` into the spec of the control plane.
    ///
    /// # Errors
    /// When the API server refuses it.
    pub async fn change(&self, lab: &Lab, spec: Value) -> Result<()> {
        let patch = Patch::Merge(json!({ "spec": spec }));
        self.control_planes(lab)
            .patch(&self.name, &PatchParams::default(), &patch)
            .await?;
        Ok(())
    }

    /// The MachineDeployments of its namespace.
    pub fn machine_deployments(&self, lab: &Lab) -> Api<DynamicObject> {
        let kind = GroupVersionKind::gvk(capi::GROUP, "v1beta2", "MachineDeployment");
        let resource = ApiResource::from_gvk_with_plural(&kind, "machinedeployments");
        Api::namespaced_with(lab.management.clone(), &self.namespace, &resource)
    }

    /// Name of the MachineDeployment of the template.
    pub fn workers(&self) -> String {
        format!("{}-md-0", self.name)
    }

    /// Scales the workers of the template.
    ///
    /// # Errors
    /// When the API server refuses it.
    pub async fn scale_workers(&self, lab: &Lab, replicas: u32) -> Result<()> {
        self.scale_deployment(lab, &self.workers(), replicas).await
    }

    /// Scales a MachineDeployment.
    ///
    /// # Errors
    /// When the API server refuses it.
    pub async fn scale_deployment(&self, lab: &Lab, name: &str, replicas: u32) -> Result<()> {
        let patch = Patch::Merge(json!({ "spec": { "replicas": replicas } }));
        self.machine_deployments(lab)
            .patch(name, &PatchParams::default(), &patch)
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
                let object = self.control_planes(lab).get(&self.name).await?;
                let conditions = object.status.map(|s| s.conditions).unwrap_or_default();
                let condition = conditions.into_iter().find(|c| c.type_ == type_);
                let condition = condition.with_context(|| format!("no condition {type_}"))?;
                ensure!(condition.status == status, "{condition:?}");
                Ok(Some(()))
            },
        )
        .await
    }

    /// Waits until the control plane has and reports this many replicas, also in its scale subresource.
    ///
    /// # Errors
    /// When the time is over.
    pub async fn scaled(&self, lab: &Lab, replicas: i32) -> Result<()> {
        let control_planes = self.control_planes(lab);
        let in_namespace = Api::<Pod>::namespaced(lab.management.clone(), &self.namespace);
        let what = format!("{replicas} replicas of control plane {}", self.name);
        until(&what, PATIENCE, async || {
            let scale = control_planes.get_scale(&self.name).await?;
            let asked = scale.spec.and_then(|s| s.replicas);
            ensure!(asked == Some(replicas), "scale.spec.replicas: {asked:?}");
            let counted = scale.status.context("no scale.status")?;
            ensure!(
                counted.replicas == replicas,
                "scale.status.replicas: {}",
                counted.replicas
            );
            let selector = counted
                .selector
                .filter(|text| !text.is_empty())
                .context("no scale.status.selector")?;
            let selected = in_namespace
                .list(&ListParams::default().labels(&selector))
                .await?
                .items;
            let ready = selected.iter().filter(|pod| pods::is_ready(pod)).count();
            ensure!(
                i32::try_from(selected.len()).ok() == Some(replicas) && ready == selected.len(),
                "{selector} selects {} pods, {ready} of them Ready",
                selected.len()
            );

            let object = control_planes.get(&self.name).await?;
            let generation = object.metadata.generation;
            let status = object.status.context("no status")?;
            ensure!(status.observed_generation == generation, "not observed yet");
            ensure!(
                status.ready_replicas == Some(replicas),
                "readyReplicas: {:?}",
                status.ready_replicas
            );
            for (type_, wanted) in [
                ("ScalingUp", "False"),
                ("ScalingDown", "False"),
                ("RollingOut", "False"),
                ("Available", "True"),
            ] {
                let condition = status.conditions.iter().find(|c| c.type_ == type_);
                let condition = condition.with_context(|| format!("no condition {type_}"))?;
                ensure!(condition.status == wanted, "{condition:?}");
            }
            Ok(Some(()))
        })
        .await
    }

    /// How far its creation has come.
    ///
    /// # Errors
    /// When the management cluster does not answer.
    pub async fn stage(&self, lab: &Lab) -> Result<Stage> {
        let tenants = Api::<TenantControlPlane>::namespaced(lab.management.clone(), &self.namespace);
        let hosted = tenants.get_opt(&self.name).await?;
        let version = hosted
            .and_then(|tenant| tenant.status?.kubernetes_resources?.version)
            .is_some_and(|version| version.status == VersionPhase::Ready);
        if !version {
            return Ok(Stage::Hosting);
        }
        // Its kubeconfig may still be missing.
        let Ok(tenant) = self.client(lab).await else {
            return Ok(Stage::Joining);
        };
        let joined = nodes(&tenant).await.is_ok_and(|nodes| !nodes.is_empty());
        Ok(if joined { Stage::Joined } else { Stage::Joining })
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
        let tenant = self.tenant(lab).await?;
        let setup = tenant.status.and_then(|s| s.storage?.setup?.schema);
        setup.context("no schema in the status")
    }

    /// Its TenantControlPlane.
    ///
    /// # Errors
    /// When there is none yet.
    pub async fn tenant(&self, lab: &Lab) -> Result<TenantControlPlane> {
        let tenants = Api::namespaced(lab.management.clone(), &self.namespace);
        Ok(tenants.get(&self.name).await?)
    }

    /// A client, as its admin.
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
