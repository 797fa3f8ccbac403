//! The managed DataStore of the lab, seen from the host.

use anyhow::{Context as _, Result};
use k8s_openapi::api::core::v1::Service;
use kube::{Api, api::ListParams};

use super::access::Lab;

/// `https://address:port` of the DataStore `default`; a Service address that the host reaches.
///
/// # Errors
/// When there is no managed DataStore.
pub async fn endpoint(lab: &Lab) -> Result<String> {
    let services =
        Api::<Service>::namespaced(lab.management.clone(), kamaji_api::labels::namespace::DATASTORES);
    let selector = ListParams::default().labels(&format!("{}=default", kamaji_api::labels::ours::DATASTORE));
    let found = services.list(&selector).await?.items;
    let address = found
        .iter()
        .filter_map(|s| s.spec.as_ref()?.cluster_ip.clone())
        .find(|ip| ip != "None")
        .context("the managed DataStore has no Service with an address")?;
    Ok(format!("https://{address}:2379"))
}
