//! TenantControlPlanes of one test, in a namespace of its own that enforces Pod Security `restricted`.

use std::time::Duration;

use anyhow::{Context as _, Result};
use futures::future::try_join_all;
use k8s_openapi::api::core::v1::{Namespace, Pod, Secret};
use kamaji_api::tenantcontrolplane::TenantControlPlane;
use kube::{
    Api, Client, ResourceExt as _,
    api::{ListParams, PostParams},
    config::Kubeconfig,
};
use serde_json::{Value, json};

use super::{
    access::{Lab, client, value},
    cleanup::{afterwards, gone},
    describe::not_true,
    until::until,
};

/// Time for a control plane to become Ready on a busy machine.
pub const PATIENCE: Duration = Duration::from_mins(5);

/// A namespace of one test, which [`Scope::run`] creates and removes.
pub struct Scope {
    /// Its name.
    pub name: String,
    lab: Lab,
}

impl Scope {
    /// Runs `test` in a new namespace `e2e-<what>-<random>`, which goes with all its tenants however the test
    /// ends.
    ///
    /// # Errors
    /// Of the test; else when the namespace cannot be made, lets a privileged pod in, or does not go.
    pub async fn run(lab: &Lab, what: &str, test: impl AsyncFnOnce(&Self) -> Result<()>) -> Result<()> {
        let scope = Self::open(lab, what).await?;
        let test = async {
            scope.refuses_privileged_pods().await?;
            test(&scope).await
        };
        afterwards(Box::pin(test), async || scope.close().await).await
    }

    async fn open(lab: &Lab, what: &str) -> Result<Self> {
        let name = format!("e2e-{what}-{:06x}", rand::random::<u32>() & 0x00ff_ffff);
        let namespace = serde_json::from_value(json!({
            "metadata": { "name": name, "labels": { "pod-security.kubernetes.io/enforce": "restricted" } },
        }))?;
        Api::<Namespace>::all(lab.management.clone())
            .create(&PostParams::default(), &namespace)
            .await?;
        Ok(Self {
            name,
            lab: lab.clone(),
        })
    }

    /// Checks that the API server enforces `restricted` here, so that a control plane that runs in it needs no more.
    async fn refuses_privileged_pods(&self) -> Result<()> {
        let pods = Api::<Pod>::namespaced(self.lab.management.clone(), &self.name);
        let pod: Pod = serde_json::from_value(json!({
            "metadata": { "name": "privileged" },
            "spec": { "containers": [{
                "name": "privileged", "image": "registry.k8s.io/pause",
                "securityContext": { "privileged": true },
            }] },
        }))?;
        let dry = PostParams {
            dry_run: true,
            ..PostParams::default()
        };
        until("a privileged pod to be refused", PATIENCE, async || {
            match pods.create(&dry, &pod).await {
                // Until the namespace has its ServiceAccount that is the reason for a refusal.
                Err(kube::Error::Api(refused))
                    if refused.code == 403
                        && refused.message.contains("violates PodSecurity \"restricted:") =>
                {
                    Ok(Some(()))
                }
                Err(error) => Err(error.into()),
                Ok(_) => anyhow::bail!("it was let in"),
            }
        })
        .await
    }

    /// TenantControlPlanes of the namespace.
    pub fn tenants(&self) -> Api<TenantControlPlane> {
        Api::namespaced(self.lab.management.clone(), &self.name)
    }

    /// Creates a tenant: ClusterIP, one replica, no add-ons, `changes` merged into its spec.
    ///
    /// # Errors
    /// When the API server refuses it.
    pub async fn create(&self, name: &str, version: &str, changes: Value) -> Result<TenantControlPlane> {
        let mut body = json!({
            "apiVersion": "kamaji.clastix.io/v1alpha1",
            "kind": "TenantControlPlane",
            "metadata": { "name": name },
            "spec": {
                "controlPlane": {
                    "deployment": { "replicas": 1 },
                    "service": { "serviceType": "ClusterIP" },
                },
                "kubernetes": { "version": version, "kubelet": {} },
                "networkProfile": { "port": 6443 },
                "addons": {},
            },
        });
        merge(&mut body["spec"], changes);
        let tenant: TenantControlPlane = serde_json::from_value(body)?;
        Ok(self.tenants().create(&PostParams::default(), &tenant).await?)
    }

    /// Waits for a status of the tenant's version, for example `Ready`, at this version.
    ///
    /// # Errors
    /// When the time is over, with the conditions that are not good.
    pub async fn reaches(&self, name: &str, status: &str, version: &str) -> Result<TenantControlPlane> {
        until(
            &format!("{name} to be {status} at {version}"),
            PATIENCE,
            async || {
                let tenant = self.tenants().get(name).await?;
                let json = serde_json::to_value(&tenant)?;
                let at = json.pointer("/status/kubernetesResources/version");
                let seen = |field: &str| {
                    at.and_then(|v| v.get(field))
                        .and_then(Value::as_str)
                        .unwrap_or_default()
                };
                if seen("status") == status && seen("version") == version {
                    return Ok(Some(tenant));
                }
                anyhow::bail!("{} at {}; {}", seen("status"), seen("version"), not_true(&json))
            },
        )
        .await
    }

    /// The admin kubeconfig that works from the management cluster.
    ///
    /// # Errors
    /// When the Secret is not there.
    pub async fn admin(&self, name: &str) -> Result<Kubeconfig> {
        let secrets = Api::<Secret>::namespaced(self.lab.management.clone(), &self.name);
        let secret = secrets.get(&format!("{name}-admin-kubeconfig")).await?;
        let bytes = value(&secret, "admin.conf").context("no admin.conf")?;
        Ok(Kubeconfig::from_yaml(&String::from_utf8(bytes)?)?)
    }

    /// A client of the tenant, as its admin.
    ///
    /// # Errors
    /// When there is no usable kubeconfig.
    pub async fn client(&self, name: &str) -> Result<Client> {
        client(self.admin(name).await?).await
    }

    /// Deletes the tenant and waits until it is gone.
    ///
    /// # Errors
    /// When it does not go.
    pub async fn delete(&self, name: &str) -> Result<()> {
        gone(&self.tenants(), name, PATIENCE).await
    }

    /// Deletes what is left in the namespace, and the namespace.
    async fn close(&self) -> Result<()> {
        let tenants = self.tenants().list(&ListParams::default()).await?.items;
        try_join_all(
            tenants
                .iter()
                .map(async |tenant| self.delete(&tenant.name_any()).await),
        )
        .await?;
        let namespaces = Api::<Namespace>::all(self.lab.management.clone());
        gone(&namespaces, &self.name, PATIENCE).await
    }
}

/// A JSON merge patch (RFC 7386).
fn merge(into: &mut Value, from: Value) {
    match (into, from) {
        (Value::Object(into), Value::Object(from)) => {
            for (key, value) in from {
                merge(into.entry(key).or_insert(Value::Null), value);
            }
        }
        (into, from) => *into = from,
    }
}
