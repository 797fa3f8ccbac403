//! What breaks comes back by itself: servers, agents, nodes and the network between them.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use e2e::lab::{
    access::Lab,
    clusters::{Cluster, nodes},
    machine::Inside,
    outside::Net,
    processes,
    replicas::{Replica, replicas},
    tenants::PATIENCE,
    until::until,
};
use futures::future::try_join_all;
use k8s_openapi::api::core::v1::Pod;
use kube::{Api, Client, ResourceExt as _, api::ListParams};
use tokio::time::{Instant, sleep};

use crate::cluster::{PODS, reaches, tunnel_is_on, with_cluster, with_pod};

/// Time until one of the API servers reaches the pod again, and until each does.
const SOME: Duration = Duration::from_secs(5);
const EVERY: Duration = Duration::from_secs(20);
/// A fault may be noticed late, so a success counts when nothing has failed for this long.
const STEADY: Duration = Duration::from_secs(20);
/// The limit of these shared machines, as a multiple of the budgets.
const NOISE: u32 = 3;

#[tokio::test]
async fn the_tunnel_heals_after_each_loss_without_a_hand() -> Result<()> {
    let lab = Lab::open().await?;
    let variables = [("NETWORK", "healing"), ("POD_CIDR", PODS)];
    with_cluster(&lab, "healing", &variables, async |cluster| {
        let tenant = cluster.client(&lab).await?;
        with_pod(&tenant, async |namespace, pod| {
            cluster.scale_workers(&lab, 2).await?;
            cluster.nodes_ready(&lab, 2).await?;
            cluster.scale(&lab, 3).await?;
            cluster.scaled(&lab, 3).await?;
            tunnel_is_on(&lab, cluster).await?;
            until("an agent on each node", PATIENCE, async || {
                let agents = agents(&tenant).await?;
                Ok((agents.len() == 2).then_some(()))
            })
            .await?;
            losses(&lab, cluster, &tenant, (namespace, pod)).await
        })
        .await
    })
    .await
}

async fn losses(lab: &Lab, cluster: &Cluster, tenant: &Client, (namespace, pod): (&str, &Pod)) -> Result<()> {
    let name = pod.name_any();
    let here = pod.spec.as_ref().and_then(|spec| spec.node_name.clone());
    let here = here.context("the pod has no node")?;
    // Their pods stay, and so do the addresses of these.
    let servers = replicas(lab, cluster, 3).await?;
    let recovers = async |what: &str| in_time(what, &servers, namespace, &name).await;
    recovers("nothing has happened").await?;

    let first = servers.first().context("no server")?;
    processes::kill_container(&first.pod, "konnectivity-server").await?;
    recovers("one of three servers is killed").await?;

    for agent in agents(tenant).await? {
        let on = agent.spec.as_ref().and_then(|spec| spec.node_name.clone());
        if on.as_deref() == Some(&*here) {
            kill_agent(lab, cluster, &agent).await?;
        }
    }
    recovers("the agent of the pod's node is killed").await?;

    let net = Net::of("healing").await?;
    net.cut().await?;
    // The length of the cut, not a wait for something.
    sleep(Duration::from_mins(1)).await;
    net.mend().await?;
    recovers("the network is back after a minute").await?;

    let other = nodes(tenant).await?.into_iter().map(|node| node.name_any());
    let other = other
        .into_iter()
        .find(|node| *node != here)
        .context("no other node")?;
    machine_of(lab, cluster, &other).await?.kill().await?;
    recovers("another node with an agent is gone").await
}

/// Agents that are Ready.
async fn agents(tenant: &Client) -> Result<Vec<Pod>> {
    let pods = Api::<Pod>::namespaced(tenant.clone(), "kube-system");
    let agents = ListParams::default().labels("k8s-app=konnectivity-agent");
    let mut found = pods.list(&agents).await?.items;
    found.retain(e2e::lab::pods::is_ready);
    Ok(found)
}

async fn kill_agent(lab: &Lab, cluster: &Cluster, agent: &Pod) -> Result<()> {
    let node = agent.spec.as_ref().and_then(|spec| spec.node_name.as_deref());
    let machine = machine_of(lab, cluster, node.context("no node")?).await?;
    let pid = machine.pid_of(&e2e::lab::pods::running(agent)?.id).await?;
    machine.run(&["kill", "-KILL", &pid.to_string()]).await?;
    Ok(())
}

/// The machine of a Node.
async fn machine_of(lab: &Lab, cluster: &Cluster, node: &str) -> Result<Inside> {
    let machines = cluster.machines(lab).await?;
    let machine = machines
        .iter()
        .find(|machine| machine.data["status"]["nodeRef"]["name"] == node);
    let machine = machine.with_context(|| format!("no Machine of Node {node}"))?;
    let name = machine.data["spec"]["infrastructureRef"]["name"].as_str();
    Inside::of(&cluster.namespace, name.context("no infrastructure")?).await
}

/// Measures from now on when everything works again, and asserts the limits.
async fn in_time(what: &str, servers: &[Replica], namespace: &str, pod: &str) -> Result<()> {
    let began = Instant::now();
    let times = try_join_all(
        servers
            .iter()
            .map(async |server| heals(&server.client, namespace, pod, began).await),
    )
    .await
    .with_context(|| what.to_owned())?;
    let (some, every) = (times.iter().min(), times.iter().max());
    let (some, every) = (some.context("no server")?, every.context("no server")?);
    eprintln!(
        "{what}: through some server after {:.1} s, through every after {:.1} s",
        some.as_secs_f64(),
        every.as_secs_f64()
    );
    ensure!(*some <= SOME * NOISE, "{what}: {some:?} through some server");
    ensure!(*every <= EVERY * NOISE, "{what}: {every:?} through every server");
    Ok(())
}

/// The moment of the last failure after `began`, once nothing has failed for [`STEADY`].
async fn heals(client: &Client, namespace: &str, pod: &str, began: Instant) -> Result<Duration> {
    let (mut last, mut error) = (began, None);
    while last.elapsed() < STEADY {
        ensure!(began.elapsed() < EVERY * NOISE + STEADY, "still fails: {error:?}");
        if let Err(seen) = reaches(client, namespace, pod).await {
            last = Instant::now();
            error = Some(format!("{seen:#}"));
        }
        // The pace of the attempts.
        sleep(Duration::from_millis(300)).await;
    }
    Ok(last - began)
}
