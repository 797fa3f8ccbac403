//! Clusters of these tests, and what their API servers are asked for.

use std::{net::IpAddr, time::Duration};

use anyhow::{Context as _, Result, ensure};
use e2e::lab::{
    access::Lab,
    cleanup::{afterwards, gone},
    clusters::{Cluster, nodes},
    pods::{self, netexec},
    tenants::PATIENCE,
    until::until,
};
use k8s_openapi::api::core::v1::{Namespace, Node, Pod};
use kube::{Api, Client, api::PostParams};
use serde_json::json;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    time::timeout,
};

/// Port of the kubelet.
pub const KUBELET: u16 = 10250;
/// Ports of agnhost's `netexec`.
pub const NETEXEC: u16 = 8080;
/// Apart from the pods of the quickstart's cluster, to which the host has routes.
pub const PODS: &str = "10.250.0.0/16";

/// A cluster with variables of the template, `NETWORK` among them. It has one worker and one API server where they name no
/// other number. The cluster goes however the test ends, and the network with it.
///
/// # Errors
/// Of the test; else when the worker does not join, or the cluster does not go.
pub async fn with_cluster(
    lab: &Lab,
    name: &str,
    variables: &[(&str, &str)],
    test: impl AsyncFnOnce(&Cluster) -> Result<()>,
) -> Result<()> {
    let cluster = Cluster::new("default", name);
    let run = async {
        cluster.create_with(lab, 1, variables).await?;
        cluster.nodes_ready(lab, 1).await?;
        test(&cluster).await
    };
    afterwards(Box::pin(run), async || cluster.delete(lab).await).await
}

/// The only Node and its address.
///
/// # Errors
/// When there is another number of Nodes, or it has no address.
pub async fn worker(tenant: &Client) -> Result<(Node, IpAddr)> {
    let [node] = <[Node; 1]>::try_from(nodes(tenant).await?)
        .map_err(|nodes| anyhow::anyhow!("{} nodes", nodes.len()))?;
    let addresses = node.status.as_ref().and_then(|status| status.addresses.as_ref());
    let internal = addresses.into_iter().flatten().find(|a| a.type_ == "InternalIP");
    let address = internal.context("no InternalIP")?.address.parse()?;
    Ok((node, address))
}

/// A namespace in a workload cluster with a `netexec` pod that is Ready, for the time of a test.
///
/// # Errors
/// Of the test; else when the pod does not become Ready.
pub async fn with_pod(tenant: &Client, test: impl AsyncFnOnce(&str, &Pod) -> Result<()>) -> Result<()> {
    let namespace = format!("e2e-{:08x}", rand::random::<u32>());
    let namespaces = Api::<Namespace>::all(tenant.clone());
    let body = serde_json::from_value(json!({ "metadata": { "name": namespace } }))?;
    namespaces.create(&PostParams::default(), &body).await?;
    let run = async {
        let pods = Api::<Pod>::namespaced(tenant.clone(), &namespace);
        until("the default ServiceAccount", PATIENCE, async || {
            let made = pods
                .create(&PostParams::default(), &netexec("answers", None)?)
                .await;
            made.map(Some).map_err(Into::into)
        })
        .await?;
        let pod = until("the pod to be Ready", PATIENCE, async || {
            let pod = pods.get("answers").await?;
            Ok(pods::is_ready(&pod).then_some(pod))
        })
        .await?;
        test(&namespace, &pod).await
    };
    afterwards(Box::pin(run), async || {
        gone(&namespaces, &namespace, PATIENCE).await
    })
    .await
}

/// The address of a pod.
///
/// # Errors
/// When it has none.
pub fn address_of(pod: &Pod) -> Result<IpAddr> {
    let ip = pod.status.as_ref().and_then(|status| status.pod_ip.as_deref());
    Ok(ip.context("no pod IP")?.parse()?)
}

/// Waits until the tunnel of a new cluster works: each API server reaches the kubelet of a node.
///
/// # Errors
/// When it does not.
pub async fn tunnel_is_on(lab: &Lab, cluster: &Cluster) -> Result<()> {
    cluster.condition(lab, "TunnelReady", "True").await
}

/// Runs something in a pod through `client`, and asks its server through the proxy of the API server: the first takes the
/// agent of the pod's node, the second any.
///
/// # Errors
/// When either fails, or both take more than three seconds.
pub async fn reaches(client: &Client, namespace: &str, pod: &str) -> Result<()> {
    let answers = async {
        pods::log_and_exec(&Api::namespaced(client.clone(), namespace), pod).await?;
        let path = format!("/api/v1/namespaces/{namespace}/pods/http:{pod}:{NETEXEC}/proxy/hostname");
        let answer = client
            .request_text(http::Request::get(path).body(Vec::new())?)
            .await?;
        ensure!(answer == pod, "{answer}");
        Ok(())
    };
    timeout(Duration::from_secs(3), answers)
        .await
        .context("no answer in 3 s")?
}

/// Asks a `netexec` pod for its host name through a port that the API server forwards.
///
/// # Errors
/// When another answer comes, or none.
pub async fn port_forward(pods: &Api<Pod>, name: &str) -> Result<()> {
    let mut forwarded = pods.portforward(name, &[NETEXEC]).await?;
    let mut stream = forwarded.take_stream(NETEXEC).context("no stream")?;
    stream
        .write_all(b"GET /hostname HTTP/1.1\r\nHost: pod\r\nConnection: close\r\n\r\n")
        .await?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await?;
    // The answer is complete. Which side closes the connection first does not matter.
    forwarded.abort();
    ensure!(answer.ends_with(name), "{answer}");
    Ok(())
}
