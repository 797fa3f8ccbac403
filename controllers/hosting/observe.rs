//! Reads of the engine before its controllers start.

use k8s_openapi::api::core::v1::Namespace;
use kube::{Api, Client};

/// ID of the management cluster: the UID of its namespace `kube-system`, which no other cluster has.
///
/// # Errors
/// What the API server answered.
pub async fn cluster_id(client: &Client) -> kube::Result<String> {
    let namespaces: Api<Namespace> = Api::all(client.clone());
    let system = namespaces.get("kube-system").await?;
    Ok(system.metadata.uid.unwrap_or_default())
}
