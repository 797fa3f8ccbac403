//! How fast exec works on a new node, and what a thousand of them leave behind.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use e2e::lab::{
    access::Lab,
    clusters::{is_ready, nodes},
    pods,
    processes::{Usage, usage},
    replicas::replicas,
    tenants::PATIENCE,
    until::until,
};
use futures::{StreamExt as _, TryStreamExt as _, stream};
use k8s_openapi::api::core::v1::Pod;
use kube::{
    Api, Client, ResourceExt as _,
    api::{AttachParams, ListParams},
};
use tokio::{
    io::AsyncReadExt as _,
    time::{Instant, sleep, timeout},
};

use crate::cluster::{PODS, tunnel_is_on, with_cluster, with_pod};

/// Time from a node being Ready to an exec on it, for 95 of 100 nodes.
const BUDGET: Duration = Duration::from_secs(1);
/// The limit of these shared machines, as a multiple of the budget.
const NOISE: u32 = 3;
/// Nodes that are measured.
const NODES: u32 = 10;
/// What is measured is fractions of a second.
const POLL: Duration = Duration::from_millis(50);
/// Calls of exec, and how many at once.
const CALLS: usize = 1000;
const AT_ONCE: usize = 4;
/// What the server may have more of after them: connections of probes that happen to be open, and pages of its heap.
const SOCKETS: usize = 4;
const KIB: u64 = 8 * 1024;

#[tokio::test]
async fn exec_works_a_second_after_a_node_is_ready_and_a_thousand_calls_leave_nothing() -> Result<()> {
    let lab = Lab::open().await?;
    let variables = [("NETWORK", "speed"), ("POD_CIDR", PODS)];
    with_cluster(&lab, "speed", &variables, async |cluster| {
        tunnel_is_on(&lab, cluster).await?;
        let tenant = cluster.client(&lab).await?;
        with_pod(&tenant, async |namespace, pod| {
            let pods = Api::<Pod>::namespaced(tenant.clone(), namespace);
            let used = async || {
                let server = replicas(&lab, cluster, 1).await?.pop().context("no server")?;
                usage(&server.pod, "konnectivity-server")
            };
            flat(&pods, &pod.name_any(), used).await
        })
        .await?;

        let mut waits = Vec::new();
        for count in 2..2 + NODES {
            cluster.scale_workers(&lab, count).await?;
            waits.push(until_exec(&tenant, count).await?);
        }
        waits.sort();
        // Of ten, the 95th percentile is the longest.
        let longest = waits.last().copied().unwrap_or_default();
        eprintln!("exec after a node is Ready: p95 {longest:?} of {waits:?}");
        ensure!(longest <= BUDGET * NOISE, "{waits:?}");
        Ok(())
    })
    .await
}

/// A thousand calls, after a hundred that fill what the server keeps.
async fn flat(pods: &Api<Pod>, name: &str, used: impl AsyncFn() -> Result<Usage>) -> Result<()> {
    let calls = async |count: usize| {
        stream::iter(0..count)
            .map(async |_| pods::log_and_exec(pods, name).await)
            .buffer_unordered(AT_ONCE)
            .try_collect::<Vec<()>>()
            .await
    };
    calls(CALLS / 10).await?;
    let before = used().await?;
    let began = Instant::now();
    calls(CALLS).await?;
    let took = began.elapsed();
    // A stream ends a moment after its call.
    let what = "the server to be as before";
    let after = until(what, Duration::from_secs(30), async || {
        let after = used().await?;
        let is_flat = after.sockets <= before.sockets + SOCKETS && after.kib <= before.kib + KIB;
        ensure!(is_flat, "{before:?}, then {after:?}");
        Ok(Some(after))
    })
    .await?;
    eprintln!("{CALLS} calls of exec in {took:.1?}: {before:?}, then {after:?}");
    Ok(())
}

/// Waits for this many Ready nodes, and until the kube-proxy of the newest runs: before a container runs there is nothing to
/// execute in. The time from then until an exec in it works.
async fn until_exec(tenant: &Client, count: u32) -> Result<Duration> {
    let end = Instant::now() + PATIENCE;
    let pods = Api::<Pod>::namespaced(tenant.clone(), "kube-system");
    let runs = async || -> Result<String> {
        let all = nodes(tenant).await?;
        let ready = all.iter().filter(|node| is_ready(node)).count();
        ensure!(
            u32::try_from(ready)? == count,
            "{ready} of {count} nodes are Ready"
        );
        let newest = all
            .iter()
            .max_by_key(|node| node.creation_timestamp().map(|time| time.0));
        let on_node = ListParams::default()
            .labels("k8s-app=kube-proxy")
            .fields(&format!(
                "spec.nodeName={}",
                newest.context("no node")?.name_any()
            ));
        let pod = pods.list(&on_node).await?.items.pop().context("no kube-proxy")?;
        pods::running(&pod)?;
        Ok(pod.name_any())
    };
    let pod = loop {
        match runs().await {
            Ok(pod) => break pod,
            Err(error) => ensure!(Instant::now() < end, "{error:#}"),
        }
        sleep(POLL).await;
    };
    let began = Instant::now();
    loop {
        match timeout(Duration::from_secs(3), version(&pods, &pod)).await {
            Ok(Ok(())) => return Ok(began.elapsed()),
            Ok(Err(error)) => ensure!(Instant::now() < end, "{error:#}"),
            Err(_) => ensure!(Instant::now() < end, "no answer in 3 s"),
        }
        sleep(POLL).await;
    }
}

/// Runs `kube-proxy --version` in a pod.
async fn version(pods: &Api<Pod>, name: &str) -> Result<()> {
    let command = ["/usr/local/bin/kube-proxy", "--version"];
    let mut attached = pods.exec(name, command, &AttachParams::default()).await?;
    let mut out = String::new();
    let mut stdout = attached.stdout().context("no stdout")?;
    stdout.read_to_string(&mut out).await?;
    attached.join().await?;
    ensure!(out.starts_with("Kubernetes v"), "{out:?}");
    Ok(())
}
