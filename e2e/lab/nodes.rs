//! What is read of Nodes to tell whether they are the same as before, and whether their kubelets live.

use std::collections::BTreeMap;

use anyhow::{Context as _, Result, ensure};
use k8s_openapi::{api::coordination::v1::Lease, jiff::Timestamp};
use kube::{Api, Client, ResourceExt as _};

use super::{clusters::nodes, tenants::PATIENCE, until::until};

/// UIDs of the Nodes by name.
///
/// # Errors
/// When the API server does not answer.
pub async fn uids(tenant: &Client) -> Result<BTreeMap<String, String>> {
    Ok(nodes(tenant)
        .await?
        .iter()
        .map(|node| (node.name_any(), node.uid().unwrap_or_default()))
        .collect())
}

/// Waits until the kubelet of `node` has renewed its Lease after `moment`.
///
/// # Errors
/// When the time is over.
pub async fn heartbeat_since(tenant: &Client, moment: Timestamp, node: &str) -> Result<()> {
    let leases = Api::<Lease>::namespaced(tenant.clone(), "kube-node-lease");
    until(&format!("a heartbeat of {node}"), PATIENCE, async || {
        let renewed = leases.get(node).await?.spec.and_then(|s| s.renew_time);
        let renewed = renewed.context("never renewed")?.0;
        ensure!(
            renewed > moment,
            "last one at {renewed}, waited for since {moment}"
        );
        Ok(Some(()))
    })
    .await
}
