//! A cluster of the ClusterClass `kamaji-local`, with Cluster API's topology controller as it is: what changes when its
//! topology changes, and what does not. Needs the lab. The first test creates the cluster, and it stays for the others, as
//! that of `hack/quickstart` does.

mod changes;
mod pause;
mod quiet;
mod refused;
mod replicas;
mod unhealthy;

use anyhow::Result;
use e2e::lab::{
    access::Lab,
    clusters::{Cluster, VERSION},
    topology::{clusters, settled},
};

/// Workers of the cluster.
const WORKERS: usize = 1;

/// The cluster of these tests, in order.
async fn cluster(lab: &Lab) -> Result<Cluster> {
    let cluster = Cluster::new("default", "classy");
    if clusters(lab, &cluster).get_opt(&cluster.name).await?.is_none() {
        // Apart from the pods of the quickstart's cluster, to which the host has routes.
        let variables = [("POD_CIDR", "10.246.0.0/16")];
        cluster.create_of_class(lab, VERSION, (1, 1), &variables).await?;
    }
    settled(lab, &cluster, WORKERS).await?;
    Ok(cluster)
}
