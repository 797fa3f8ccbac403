//! Machines, and what they do with their bootstrap data: they ask for a certificate and register a Node.

use std::time::Duration;

use anyhow::{Context as _, Result};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use k8s_openapi::api::{certificates::v1::CertificateSigningRequest, core::v1::Node};
use kube::{
    Client, ResourceExt as _,
    api::{Api, Patch, PatchParams, PostParams},
    config::{AuthInfo, Config},
};
use serde_json::{Value, json};

use super::{CLUSTER, NS, World, text, until};
use crate::{apiserver::TestApiServer, csr};

/// What a machine with this token can do at an API server.
pub fn bearer(server: &TestApiServer, token: &str) -> Result<Client> {
    let mut config: Config = server.config()?;
    config.auth_info = AuthInfo {
        token: Some(token.to_owned().into()),
        ..AuthInfo::default()
    };
    config.default_retry = false;
    Ok(Client::try_from(config)?)
}

/// What a node can do at an API server with the client certificate of its kubelet. Both PEM.
pub fn kubelet(server: &TestApiServer, certificate: &[u8], key: &str) -> Result<Client> {
    let mut config: Config = server.config()?;
    config.auth_info = AuthInfo {
        client_certificate_data: Some(STANDARD.encode(certificate)),
        client_key_data: Some(STANDARD.encode(key).into()),
        ..AuthInfo::default()
    };
    Ok(Client::try_from(config)?)
}

/// A Node, as its kubelet registers it.
pub async fn node(admin: &Client, name: &str) -> Result<()> {
    let api: Api<Node> = Api::all(admin.clone());
    let node: Node = serde_json::from_value(json!({"metadata": {"name": name}}))?;
    api.create(&PostParams::default(), &node).await?;
    let status = json!({"status": {"nodeInfo": {
        "kubeletVersion": "v1.36.3", "architecture": "", "bootID": "", "containerRuntimeVersion": "", "kernelVersion": "",
        "kubeProxyVersion": "", "machineID": "", "operatingSystem": "", "osImage": "", "systemUUID": "",
    }}});
    api.patch_status(name, &PatchParams::default(), &Patch::Merge(&status))
        .await?;
    Ok(())
}

/// What became of a request: type and reason of its condition.
pub async fn answer(admin: &Client, name: &str, within: Duration) -> Result<(String, String)> {
    let api: Api<CertificateSigningRequest> = Api::all(admin.clone());
    until(&format!("{name} is answered"), within, async || {
        let status = api.get(name).await?.status.unwrap_or_default();
        let first = status.conditions.unwrap_or_default().into_iter().next();
        Ok(first.map(|c| (c.type_, c.reason.unwrap_or_default())))
    })
    .await
}

impl World {
    /// A Machine and its config.
    pub async fn machine(&self, name: &str, spec: Value) -> Result<()> {
        self.machine_of(CLUSTER, name, spec).await
    }

    /// A Machine of a Cluster, and its config.
    pub async fn machine_of(&self, cluster: &str, name: &str, spec: Value) -> Result<()> {
        let labels = json!({"cluster.x-k8s.io/cluster-name": cluster});
        let machine = self
            .apply(&json!({
                "apiVersion": "cluster.x-k8s.io/v1beta2", "kind": "Machine",
                "metadata": {"name": name, "namespace": NS, "labels": labels},
                "spec": {
                    "clusterName": cluster, "version": "v1.36.3",
                    "bootstrap": {"configRef": {"apiGroup": "bootstrap.cluster.x-k8s.io", "kind": "KamajiConfig", "name": name}},
                    "infrastructureRef": {"apiGroup": "x.io", "kind": "X", "name": name},
                },
            }))
            .await?;
        self.apply(&json!({
            "apiVersion": "bootstrap.cluster.x-k8s.io/v1alpha1", "kind": "KamajiConfig",
            "metadata": {
                "name": name, "namespace": NS, "labels": labels,
                "ownerReferences": [{
                    "apiVersion": "cluster.x-k8s.io/v1beta2", "kind": "Machine", "name": name,
                    "uid": machine.uid(), "controller": true,
                }],
            },
            "spec": spec,
        }))
        .await?;
        Ok(())
    }

    /// The token of a machine whose data was announced.
    pub async fn token(&self, name: &str) -> Result<String> {
        until(
            &format!("{name} has its data"),
            Duration::from_secs(30),
            async || {
                let config = self.config(name).await?;
                let status = config.status.unwrap_or_default();
                if status.initialization.and_then(|done| done.data_secret_created) != Some(true) {
                    return Ok(None);
                }
                let secret = self.secret(NS, name).await?.context("announced and not there")?;
                Ok(Some(text(&secret, "token")))
            },
        )
        .await
    }

    /// What a machine with this token can do.
    pub fn bearer(&self, token: &str) -> Result<Client> {
        bearer(&self.server, token)
    }

    /// Posts the request of a kubelet for this node.
    pub async fn ask(&self, client: &Client, node: &str) -> Result<String> {
        self.ask_as(
            client,
            &format!("system:node:{node}"),
            "system:nodes",
            &csr::KUBELET_USAGES,
        )
        .await
    }

    /// Posts a request for this name in this group.
    pub async fn ask_as(&self, client: &Client, name: &str, group: &str, usages: &[&str]) -> Result<String> {
        let request = csr::request(name, group, usages)?;
        let api: Api<CertificateSigningRequest> = Api::all(client.clone());
        Ok(api.create(&PostParams::default(), &request).await?.name_any())
    }

    /// What became of a request: type and reason of its condition, and whether there is a certificate.
    pub async fn answer(&self, name: &str, within: Duration) -> Result<(String, String)> {
        answer(&self.admin, name, within).await
    }

    /// The certificate that was issued for a request.
    pub async fn certificate(&self, name: &str) -> Result<Vec<u8>> {
        let api: Api<CertificateSigningRequest> = Api::all(self.admin.clone());
        until(
            &format!("{name} is signed"),
            Duration::from_secs(30),
            async || {
                Ok(api
                    .get(name)
                    .await?
                    .status
                    .and_then(|status| status.certificate)
                    .map(|bytes| bytes.0))
            },
        )
        .await
    }

    /// A Node, as its kubelet registers it.
    pub async fn node(&self, name: &str) -> Result<()> {
        node(&self.admin, name).await
    }

    /// Waits until a condition of a config has this reason, and returns its message.
    pub async fn condition(&self, name: &str, type_: &str, reason: &str) -> Result<String> {
        until(
            &format!("{name} says {type_} {reason}"),
            Duration::from_secs(30),
            async || {
                let conditions = self.config(name).await?.status.unwrap_or_default().conditions;
                let found = conditions.iter().find(|c| c.type_ == type_ && c.reason == reason);
                Ok(found.map(|c| c.message.clone()))
            },
        )
        .await
    }
}
