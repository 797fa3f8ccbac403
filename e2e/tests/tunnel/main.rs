//! Workers behind a NAT: they join through the endpoint of their cluster, nothing of the lab opens a connection to them,
//! and what the API server needs of them goes through the tunnel. Needs the lab.

mod metrics;
mod webhook;

use std::{
    net::{IpAddr, SocketAddr},
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};
use e2e::lab::{
    access::Lab,
    cleanup::{afterwards, gone},
    clusters::{Cluster, nodes},
    outside::{Net, only_from_inside},
    pods::{self, netexec},
    tenants::PATIENCE,
    until::until,
};
use k8s_openapi::api::core::v1::{Namespace, Node, Pod};
use kube::{
    Api, Client, ResourceExt as _,
    api::{Patch, PatchParams, PostParams},
};
use serde_json::json;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

/// Port of the kubelet.
const KUBELET: u16 = 10250;
/// Ports of agnhost's `netexec`.
const NETEXEC: u16 = 8080;
/// Apart from the pods of the quickstart's cluster, to which the host has routes.
const PODS: &str = "10.250.0.0/16";

/// A cluster whose workers are in the network of this name, with variables of the template. The cluster goes however the
/// test ends, and the network with it.
async fn with_cluster(
    lab: &Lab,
    name: &str,
    network: &str,
    variables: &[(&str, &str)],
    test: impl AsyncFnOnce(&Cluster) -> Result<()>,
) -> Result<()> {
    let cluster = Cluster::new("default", name);
    let mut all = vec![("NETWORK", network)];
    all.extend_from_slice(variables);
    let run = async {
        cluster.create_with(lab, 1, &all).await?;
        cluster.nodes_ready(lab, 1).await?;
        test(&cluster).await
    };
    afterwards(Box::pin(run), async || cluster.delete(lab).await).await
}

/// The only Node and its address.
async fn worker(tenant: &Client) -> Result<(Node, IpAddr)> {
    let [node] = <[Node; 1]>::try_from(nodes(tenant).await?)
        .map_err(|nodes| anyhow::anyhow!("{} nodes", nodes.len()))?;
    let addresses = node.status.as_ref().and_then(|status| status.addresses.as_ref());
    let internal = addresses.into_iter().flatten().find(|a| a.type_ == "InternalIP");
    let address = internal.context("no InternalIP")?.address.parse()?;
    Ok((node, address))
}

/// A namespace in a workload cluster with a `netexec` pod that is Ready, for the time of a test.
async fn with_pod(tenant: &Client, test: impl AsyncFnOnce(&str, &Pod) -> Result<()>) -> Result<()> {
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

fn address_of(pod: &Pod) -> Result<IpAddr> {
    let ip = pod.status.as_ref().and_then(|status| status.pod_ip.as_deref());
    Ok(ip.context("no pod IP")?.parse()?)
}

/// Turns the tunnel of a cluster on, and waits until an agent has connected: the first exec works.
async fn turn_tunnel_on(lab: &Lab, cluster: &Cluster) -> Result<()> {
    let patch = Patch::Merge(json!({ "spec": { "addons": { "konnectivity": {} } } }));
    let control_planes = cluster.control_planes(lab);
    control_planes
        .patch(&cluster.name, &PatchParams::default(), &patch)
        .await?;
    cluster.condition(lab, "RollingOut", "False").await?;
    let tenant = cluster.client(lab).await?;
    let (node, _) = worker(&tenant).await?;
    let proxied = format!("/api/v1/nodes/{}:{KUBELET}/proxy/healthz", node.name_any());
    until(
        "the kubelet's /healthz through the API server",
        PATIENCE,
        async || {
            let answer = tenant
                .request_text(http::Request::get(&proxied).body(Vec::new())?)
                .await?;
            ensure!(answer == "ok", "{answer}");
            Ok(Some(()))
        },
    )
    .await
}

/// Asks a `netexec` pod for its host name through a port that the API server forwards.
async fn port_forward(pods: &Api<Pod>, name: &str) -> Result<()> {
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

#[tokio::test]
async fn a_worker_behind_a_nat_joins_and_nothing_of_the_lab_reaches_it() -> Result<()> {
    let lab = Lab::open().await?;
    with_cluster(
        &lab,
        "outside",
        "outside",
        &[("POD_CIDR", PODS)],
        async |cluster| {
            let tenant = cluster.client(&lab).await?;
            let (_, address) = worker(&tenant).await?;
            let net = Net::of("outside").await?;
            ensure!(
                address == IpAddr::from([192, 168, 0, 2]),
                "the Node has address {address}"
            );
            only_from_inside(&lab, &net, SocketAddr::new(address, KUBELET)).await?;
            with_pod(&tenant, async |_, pod| {
                only_from_inside(&lab, &net, SocketAddr::new(address_of(pod)?, NETEXEC)).await
            })
            .await
        },
    )
    .await?;
    let left = Net::of("outside").await;
    ensure!(left.is_err(), "the network has outlived its machines");
    Ok(())
}

/// Two clusters with the same ranges of machines, pods and Services, each behind its own NAT.
async fn with_equal_clusters(lab: &Lab, test: impl AsyncFnOnce([&Cluster; 2]) -> Result<()>) -> Result<()> {
    with_cluster(lab, "left", "left", &[], async |left| {
        with_cluster(lab, "right", "right", &[], async |right| {
            test([left, right]).await
        })
        .await
    })
    .await
}

#[tokio::test]
async fn clusters_with_equal_ranges_join_side_by_side() -> Result<()> {
    let lab = Lab::open().await?;
    with_equal_clusters(&lab, async |[left, right]| {
        let (_, one) = worker(&left.client(&lab).await?).await?;
        let (_, two) = worker(&right.client(&lab).await?).await?;
        assert_eq!(one, two, "addresses of the machines");
        let (left, right) = (Net::of("left").await?.is, Net::of("right").await?.is);
        assert_eq!(left.range, right.range);
        assert_ne!(left.uplink, right.uplink);
        Ok(())
    })
    .await
}

#[tokio::test]
async fn each_of_two_clusters_with_equal_ranges_is_reached_through_its_own_tunnel() -> Result<()> {
    let lab = Lab::open().await?;
    with_equal_clusters(&lab, async |clusters| {
        for cluster in clusters {
            turn_tunnel_on(&lab, cluster).await?;
        }
        for cluster in clusters {
            let tenant = cluster.client(&lab).await?;
            with_pod(&tenant, async |namespace, pod| {
                let pods = Api::<Pod>::namespaced(tenant.clone(), namespace);
                pods::log_and_exec(&pods, &pod.name_any()).await?;
                webhook::refuses(&tenant, namespace).await
            })
            .await
            .with_context(|| cluster.name.clone())?;
        }
        Ok(())
    })
    .await
}

#[tokio::test]
async fn through_the_tunnel_everything_works_that_the_api_server_does_with_nodes_and_pods() -> Result<()> {
    let lab = Lab::open().await?;
    with_cluster(&lab, "tunnel", "tunnel", &[("POD_CIDR", PODS)], async |cluster| {
        turn_tunnel_on(&lab, cluster).await?;
        let tenant = cluster.client(&lab).await?;
        with_pod(&tenant, async |namespace, pod| {
            let pods = Api::<Pod>::namespaced(tenant.clone(), namespace);
            let name = pod.name_any();
            pods::log_and_exec(&pods, &name).await?;
            port_forward(&pods, &name).await?;
            webhook::refuses(&tenant, namespace).await?;
            metrics::top(&lab, cluster, &tenant).await?;

            let net = Net::of("tunnel").await?;
            net.cut().await?;
            tokio::time::sleep(Duration::from_mins(1)).await;
            net.mend().await?;
            let back = "logs and exec after a minute without network";
            until(back, Duration::from_secs(20), async || {
                pods::log_and_exec(&pods, &name).await.map(Some)
            })
            .await
        })
        .await
    })
    .await
}
