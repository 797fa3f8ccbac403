//! The largest objects that the admin of a workload cluster, or a user of a namespace, can fill a list with. etcd accepts
//! 1.5 MiB an object, as protobuf; a Secret has a mebibyte.

use std::time::Instant;

use anyhow::{Context as _, Result};
use base64::{Engine as _, engine::general_purpose::STANDARD as BASE64};
use e2e::bootstrap::NS;
use futures::{StreamExt as _, stream};
use http::{Request, header};
use kube::Client;
use serde_json::{Value, json};

/// Objects that are created at the same time.
const AT_ONCE: usize = 8;
/// Objects between two lines that say how far it is.
const LINE: usize = 200;
/// In place of the name.
const NAME: &str = "@name@";
/// The answer has the metadata alone.
const METADATA: &str = "application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1";

/// Objects that differ in their name.
pub struct Large {
    path: String,
    text: String,
}

impl Large {
    /// Ready Nodes whose strings have so many bytes together: Kubernetes checks the length of neither. Annotations have
    /// 256 KiB at most.
    pub fn nodes(bytes: usize) -> Self {
        let text = "x".repeat(bytes / 2);
        Self::new(
            "/api/v1/nodes",
            &json!({
                "apiVersion": "v1", "kind": "Node", "metadata": {"name": NAME}, "spec": {"providerID": text},
                "status": {"nodeInfo": info(&text), "conditions": [{"type": "Ready", "status": "True"}]},
            }),
        )
    }

    /// Cluster role bindings with so many subjects, each of more than a hundred bytes.
    pub fn bindings(subjects: usize) -> Self {
        let subject = |at: usize| {
            let name = format!("{at}-{}", "x".repeat(60));
            json!({"apiGroup": "rbac.authorization.k8s.io", "kind": "Group", "name": name})
        };
        Self::new(
            "/apis/rbac.authorization.k8s.io/v1/clusterrolebindings",
            &json!({
                "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRoleBinding", "metadata": {"name": NAME},
                "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "view"},
                "subjects": (0..subjects).map(subject).collect::<Vec<_>>(),
            }),
        )
    }

    /// Secrets whose key `k` has so many bytes, which do not compress.
    pub fn secrets(bytes: usize) -> Self {
        let mut random = vec![0; bytes];
        rand::fill(&mut random[..]);
        Self::new(
            &format!("/api/v1/namespaces/{NS}/secrets"),
            &json!({
                "apiVersion": "v1", "kind": "Secret", "metadata": {"name": NAME}, "data": {"k": BASE64.encode(random)},
            }),
        )
    }

    fn new(path: &str, object: &Value) -> Self {
        Self {
            path: path.to_owned(),
            text: object.to_string(),
        }
    }

    /// Creates so many of them, with this name and a number.
    pub async fn create(&self, admin: &Client, name: &str, count: usize) -> Result<()> {
        let began = Instant::now();
        let created = stream::iter(0..count)
            .map(|number| self.create_one(admin, format!("{name}{number}")))
            .buffer_unordered(AT_ONCE);
        let mut created = std::pin::pin!(created);
        let mut done = 0;
        while let Some(result) = created.next().await {
            result?;
            done += 1;
            if done % LINE == 0 || done == count {
                let (each, seconds) = (self.text.len(), began.elapsed().as_secs());
                eprintln!(
                    "{done} of {count} at {}: {each} bytes each, {seconds} s",
                    self.path
                );
            }
        }
        Ok(())
    }

    async fn create_one(&self, admin: &Client, name: String) -> Result<()> {
        // Written and read as text: there is more of it than a client that is not optimized converts in minutes.
        let request = Request::post(&self.path)
            .header(header::CONTENT_TYPE, "application/json")
            .header(header::ACCEPT, METADATA)
            .body(self.text.replacen(NAME, &name, 1).into_bytes())?;
        admin.request_text(request).await.with_context(|| name)?;
        Ok(())
    }
}

/// All that has to be said of a kubelet.
pub fn info(version: &str) -> Value {
    json!({
        "kubeletVersion": version, "architecture": "", "bootID": "", "containerRuntimeVersion": "", "kernelVersion": "",
        "kubeProxyVersion": "", "machineID": "", "operatingSystem": "", "osImage": "", "systemUUID": "",
    })
}
