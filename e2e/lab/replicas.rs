//! The API servers of a control plane one by one, each at its own pod.

use anyhow::{Context as _, Result, ensure};
use http::Uri;
use k8s_openapi::api::core::v1::Pod;
use kube::{Client, ResourceExt as _};

use super::{
    access::{Lab, client},
    clusters::Cluster,
    pods::is_ready,
};

/// One API server.
pub struct Replica {
    /// Its pod, as it was read.
    pub pod: Pod,
    /// A client of this API server alone, as the admin of the cluster.
    pub client: Client,
}

/// The API servers of a cluster.
///
/// # Errors
/// When there are not `count` ready pods and no other, or there is no kubeconfig.
pub async fn replicas(lab: &Lab, cluster: &Cluster, count: usize) -> Result<Vec<Replica>> {
    let pods = cluster.control_plane_pods(lab).await?;
    let ready = pods.iter().filter(|pod| is_ready(pod)).count();
    ensure!(
        pods.len() == count && ready == count,
        "{} pods, {ready} of them Ready",
        pods.len()
    );
    let mut found = Vec::new();
    for pod in pods {
        let mut kubeconfig = lab.kubeconfig(&cluster.namespace, &cluster.name).await?;
        let ip = pod.status.as_ref().and_then(|status| status.pod_ip.as_deref());
        let ip = ip.with_context(|| format!("{} has no address", pod.name_any()))?;
        for named in &mut kubeconfig.clusters {
            let known = named.cluster.as_mut().context("no cluster")?;
            let server: Uri = known.server.as_deref().context("no server")?.parse()?;
            let host = server.host().context("no host")?.to_owned();
            let port = server.port_u16().context("no port")?;
            known.server = Some(format!("https://{ip}:{port}"));
            // The certificate names the endpoint, not the pod.
            known.tls_server_name.get_or_insert(host);
        }
        let client = client(kubeconfig).await?;
        found.push(Replica { pod, client });
    }
    Ok(found)
}
