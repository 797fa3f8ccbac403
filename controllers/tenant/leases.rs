//! The Leases by which konnectivity servers are counted. A server deletes its own through the API server of its pod, which
//! has ended by then: the server goes on for a while, so that requests can be finished through it. Other servers collect
//! it once it has expired. When konnectivity is turned off there is no other server.

use k8s_openapi::api::coordination::v1::Lease;
use kube::{
    Api, ResourceExt as _,
    api::{DeleteParams, ListParams},
};

use super::{
    client::{Connection, within},
    error::Error,
    konnectivity::NAMESPACE,
    list,
    pages::PAGE,
};

/// Label of the Leases: the default of the server.
const OF_SERVERS: &str = "k8s-app=konnectivity-server";
/// What their names begin with: a constant of the server.
const PREFIX: &str = "konnectivity-proxy-server-";

/// Deletes the Leases of servers, [`PAGE`] at most. Servers that have not ended yet must not be allowed to create them any
/// more.
///
/// # Errors
/// When a request fails.
pub async fn delete(connection: &Connection) -> Result<(), Error> {
    let leases: Api<Lease> = Api::namespaced(connection.client(), NAMESPACE);
    let of_servers = ListParams::default().labels(OF_SERVERS);
    let action = "list the Leases of konnectivity servers";
    let found = list::first(action, leases.clone(), of_servers, PAGE, |lease| lease.name_any()).await?;
    for name in found.into_iter().filter(|name| name.starts_with(PREFIX)) {
        let params = DeleteParams::default();
        let deletion = leases.delete(&name, &params);
        match within("delete the Lease of a konnectivity server", deletion).await {
            Ok(_) | Err(Error::Refused { code: 404, .. }) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}
