//! Pods of the suites inside a workload cluster.

use anyhow::{Context as _, Result};
pub use capi_kamaji::k8s::ready::pod as is_ready;
use k8s_openapi::{api::core::v1::Pod, apimachinery::pkg::apis::meta::v1::Time};
use kube::{
    Api,
    api::{AttachParams, LogParams},
};
use serde_json::json;
use tokio::io::AsyncReadExt as _;

/// The image of the pods of suites.
pub const AGNHOST: &str = "registry.k8s.io/e2e-test-images/agnhost:2.63.0";

/// A pod of agnhost's `netexec`, on `node` or wherever the scheduler puts it.
///
/// # Errors
/// Never, in fact: the text is a pod.
pub fn netexec(name: &str, node: Option<&str>) -> Result<Pod> {
    Ok(serde_json::from_value(json!({
        "metadata": { "name": name, "labels": { "app": name } },
        "spec": {
            "nodeName": node,
            "terminationGracePeriodSeconds": 0,
            "tolerations": [{ "operator": "Exists" }],
            "containers": [{
                "name": "agnhost",
                "image": AGNHOST,
                "command": ["/agnhost", "netexec", "--http-port=8080"],
                "ports": [{ "containerPort": 8080 }],
            }],
        },
    }))?)
}

/// Reads the log of a `netexec` pod and runs a command in it, through the API server and the kubelet.
///
/// # Errors
/// When either does not work.
pub async fn log_and_exec(pods: &Api<Pod>, name: &str) -> Result<()> {
    let log = pods.logs(name, &LogParams::default()).await?;
    anyhow::ensure!(log.contains("8080"), "log of {name}: {log}");
    let command = ["/agnhost", "--version"];
    let mut attached = pods
        .exec(name, command, &AttachParams::default().stderr(true))
        .await?;
    let mut out = String::new();
    let mut stdout = attached.stdout().context("no stdout")?;
    stdout.read_to_string(&mut out).await?;
    attached.join().await?;
    anyhow::ensure!(out.starts_with("app version"), "exec in {name} printed {out:?}");
    Ok(())
}

/// Identity of a running container.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Running {
    /// Id, without the runtime's name.
    pub id: String,
    /// When it started.
    pub since: Time,
    /// How often it was replaced.
    pub restarts: i32,
}

/// The container of a pod that has one, while it runs.
///
/// # Errors
/// When it does not run.
pub fn running(pod: &Pod) -> Result<Running> {
    let statuses = pod.status.as_ref().and_then(|s| s.container_statuses.as_ref());
    let container = statuses
        .and_then(|list| list.first())
        .context("no container yet")?;
    let state = container.state.as_ref().and_then(|s| s.running.as_ref());
    let id = container.container_id.as_deref().context("no container id")?;
    Ok(Running {
        id: id.rsplit('/').next().unwrap_or_default().to_owned(),
        since: state
            .and_then(|s| s.started_at.clone())
            .context("it does not run")?,
        restarts: container.restart_count,
    })
}
