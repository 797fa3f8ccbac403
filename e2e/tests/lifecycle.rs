//! The lifecycle of a cluster in the lab: sleep and wake, scaling, kills during creation, and deletion that leaves
//! nothing
//! behind and does not affect other clusters. Runs after `joined`, on the cluster that `hack/quickstart` created.

use std::{collections::BTreeSet, pin::pin, time::Duration};

use anyhow::{Context as _, Result, ensure};
use e2e::infra::capi;
use e2e::lab::{
    access::{Lab, value},
    audit::{self, Mark, OURS},
    cleanup::{afterwards, gone},
    clusters::{Cluster, QUICKSTART, Stage},
    datastore,
    machine::Inside,
    nodes::{heartbeat_since, uids},
    pods::{self, netexec},
    processes,
    snapshot::Snapshot,
    tenants::PATIENCE,
    until::until,
};
use futures::StreamExt as _;
use k8s_openapi::{
    api::{
        apps::v1::ReplicaSet,
        core::v1::{Node, Pod, Secret},
    },
    jiff::Timestamp,
};
use kube::{
    Api, Client, ResourceExt as _,
    api::{DynamicObject, ListParams, Patch, PatchParams, PostParams},
    runtime::watcher::{self, Event, watcher},
};
use rand::{Rng as _, SeedableRng as _, rngs::StdRng};
use serde_json::{Value, json};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio_util::task::AbortOnDropHandle;

/// Most requests to the management API for one Cluster with KamajiControlPlane and TenantControlPlane.
const CLUSTER_BUDGET: usize = 60;
/// Requests measured with the release before, printed beside today's.
const CLUSTER_BEFORE: usize = 54;
/// Time for which quiet clusters make no request.
const QUIET: Duration = Duration::from_mins(1);
/// The tenant's kube-controller-manager marks a silent node after this time; a sleep must outlast it.
const NODE_GRACE: Duration = Duration::from_secs(55);
/// A label that Cluster API copies from a Machine to its Node.
const RACK: &str = "node.cluster.x-k8s.io/rack";
/// The pod that lives through the sleep.
const SLEEPER: &str = "sleeper";

#[tokio::test]
async fn a_cluster_that_slept_wakes_with_the_same_nodes_and_pods() -> Result<()> {
    let lab = Lab::open().await?;
    let cluster = QUICKSTART.clone();
    afterwards(Box::pin(sleep_and_wake(&lab, &cluster)), async || {
        // Wherever the test ended, the cluster is awake again.
        cluster.scale(&lab, 1).await?;
        cluster.condition(&lab, "Available", "True").await?;
        gone(&pods_of(&cluster.client(&lab).await?), SLEEPER, PATIENCE).await
    })
    .await
}

fn pods_of(tenant: &Client) -> Api<Pod> {
    Api::namespaced(tenant.clone(), "default")
}

async fn sleep_and_wake(lab: &Lab, cluster: &Cluster) -> Result<()> {
    let tenant = cluster.client(lab).await?;
    let pods = pods_of(&tenant);
    pods.create(&PostParams::default(), &netexec(SLEEPER, None)?)
        .await?;
    let pod = until("the pod to be Ready", PATIENCE, async || {
        let pod = pods.get(SLEEPER).await?;
        Ok(pods::is_ready(&pod).then_some(pod))
    })
    .await?;
    let container = pods::running(&pod)?;
    let node = pod.spec.as_ref().and_then(|s| s.node_name.clone());
    let inside = Inside::of(&cluster.namespace, &node.context("no node")?).await?;
    let process = inside.pid_of(&container.id).await?;
    let before = (cluster.ca(lab).await?, uids(&tenant).await?);
    ensure!(!before.1.is_empty(), "there are no nodes");

    cluster.scale(lab, 0).await?;
    cluster.condition(lab, "Available", "False").await?;
    until("the control plane's pods to be gone", PATIENCE, async || {
        Ok(cluster.control_plane_pods(lab).await?.is_empty().then_some(()))
    })
    .await?;
    // Not a wait for an event: the sleep has to be longer than the grace, that is the test.
    tokio::time::sleep(NODE_GRACE).await;
    let woken = Timestamp::now();
    cluster.scale(lab, 1).await?;
    cluster.condition(lab, "Available", "True").await?;

    // What is read up to here was stored before the sleep. A Lease that is renewed comes from a kubelet of today.
    for node in before.1.keys() {
        heartbeat_since(&tenant, woken, node).await?;
    }
    cluster.nodes_ready(lab, before.1.len()).await?;
    let after = (cluster.ca(lab).await?, uids(&tenant).await?);
    // Not by assert_eq: that would print the key.
    ensure!(before.0 == after.0, "another CA");
    assert_eq!(before.1, after.1, "Node UIDs");
    until("log and exec of the pod", PATIENCE, async || {
        pods::log_and_exec(&pods, SLEEPER).await.map(Some)
    })
    .await?;
    let kept = pods.get(SLEEPER).await?;
    assert_eq!(kept.uid(), pod.uid(), "the very same pod");
    assert_eq!(pods::running(&kept)?, container, "the very same container");
    assert_eq!(container.restarts, 0);
    assert_eq!(
        inside.pid_of(&container.id).await?,
        process,
        "the very same process"
    );
    Ok(())
}

#[tokio::test]
async fn hosting_beyond_01_a_deleted_cluster_leaves_nothing_and_its_neighbour_everything() -> Result<()> {
    let lab = Lab::open().await?;
    let cluster = Cluster::new("default", "short-lived");
    afterwards(Box::pin(come_and_go(&lab, &cluster)), async || {
        cluster.delete(&lab).await
    })
    .await
}

async fn come_and_go(lab: &Lab, cluster: &Cluster) -> Result<()> {
    let neighbour = QUICKSTART.clone();
    let neighbour_schema = neighbour.schema(lab).await?;
    let mut before = Snapshot::at_rest(lab).await?;
    before.add("etcd", datastore::inventory(lab).await?);
    let keys = datastore::count(lab, &neighbour_schema).await?;
    ensure!(keys > 0, "the neighbour has no keys");

    let mark = Mark::now(lab).await?;
    cluster.create(lab, 1).await?;
    cluster.nodes_ready(lab, 1).await?;
    // With two clusters and their nodes in the lab there is a quiet minute. Requests before it are counted.
    audit::rest(lab, QUIET, 5 * QUIET).await?;
    let requests = mark.requests(&OURS).await?;
    eprintln!(
        "one Cluster with one worker: {} requests (before: {CLUSTER_BEFORE}, budget: {CLUSTER_BUDGET})",
        requests.len()
    );
    eprintln!("{}", audit::summary(&requests));
    let hosted = requests.iter().filter(|r| !r.user_agent.contains("(bootstrap)"));
    eprintln!(
        "of these by the control plane and hosting roles: {}",
        hosted.count()
    );
    // The budget is for a cluster without workers; a cluster with one worker stays within it too.
    audit::within(&requests, CLUSTER_BUDGET)?;

    cluster.delete(lab).await?;
    until(
        "nothing to be left of the cluster",
        Duration::from_mins(2),
        async || {
            let mut after = Snapshot::take(lab).await?;
            after.add("etcd", datastore::inventory(lab).await?);
            let diff = before.diff(&after);
            ensure!(diff.is_empty(), "\n{diff}");
            Ok(Some(()))
        },
    )
    .await?;
    let after = datastore::count(lab, &neighbour_schema).await?;
    // Events and leases of a living cluster come and go; its objects do not.
    assert_eq!(keys, after, "keys of the neighbour");
    neighbour.nodes_ready(lab, 2).await
}

/// Half of them while the control plane comes up, half while the node joins.
const KILLS: usize = 10;

#[tokio::test]
async fn hosting_beyond_10_kills_at_ten_random_moments_of_a_creation_do_no_harm() -> Result<()> {
    let lab = Lab::open().await?;
    let cluster = Cluster::new("default", "survivor");
    afterwards(Box::pin(survive(&lab, &cluster)), async || {
        cluster.delete(&lab).await
    })
    .await
}

async fn survive(lab: &Lab, cluster: &Cluster) -> Result<()> {
    let seed = std::env::var("KAMAJI_SEED")
        .ok()
        .and_then(|s| s.parse().ok())
        .unwrap_or_else(rand::random);
    eprintln!("seed {seed} (set KAMAJI_SEED to repeat)");
    let mut random = StdRng::seed_from_u64(seed);
    cluster.create(lab, 1).await?;
    let (found, mut tokens) = unbounded_channel();
    let watching = AbortOnDropHandle::new(tokio::spawn(watch_tokens(lab.clone(), cluster.clone(), found)));
    let mut ca = None;
    let mut hits = Vec::new();
    for number in 0..KILLS {
        if number == KILLS / 2 {
            until("the control plane to be Ready", PATIENCE, async || {
                Ok((cluster.stage(lab).await? > Stage::Hosting).then_some(()))
            })
            .await?;
        }
        hits.push(kill(lab, cluster, number, &mut random).await?);
        if let Ok(seen) = cluster.ca(lab).await {
            let first = ca.get_or_insert_with(|| seen.clone());
            ensure!(*first == seen, "the CA changed");
        }
    }
    // Where the kills hit is part of the test: at finished work they prove nothing.
    let count = |stage| hits.iter().filter(|hit| **hit == stage).count();
    let (hosting, joining) = (count(Stage::Hosting), count(Stage::Joining));
    ensure!(
        hosting > 0 && joining > 0 && hosting + joining >= KILLS * 4 / 5,
        "too few kills before the node joined (seed {seed}): {hits:?}"
    );

    cluster.nodes_ready(lab, 1).await?;
    ensure!(
        ca.context("the CA was never seen")? == cluster.ca(lab).await?,
        "the CA changed"
    );
    drop(watching);
    one_token(lab, cluster, &mut tokens).await?;
    let inventory = datastore::inventory(lab).await?;
    let schema = cluster.schema(lab).await?;
    for kind in ["user ", "role ", "prefix ", "key /capi-kamaji/schema/"] {
        let mine: Vec<_> = inventory
            .iter()
            .filter(|line| line.starts_with(kind) && line.contains("_survivor_"))
            .collect();
        assert_eq!(mine, [&format!("{kind}{schema}")], "one place in the datastore");
    }
    let sets = Api::<ReplicaSet>::namespaced(lab.management.clone(), &cluster.namespace);
    let selector = ListParams::default().labels(&format!("kamaji.clastix.io/name={}", cluster.name));
    assert_eq!(
        sets.list(&selector).await?.items.len(),
        1,
        "one Deployment revision"
    );
    Ok(())
}

/// Kills one of our processes at a random moment and returns how far the creation had come.
async fn kill(lab: &Lab, cluster: &Cluster, number: usize, random: &mut StdRng) -> Result<Stage> {
    let pause = Duration::from_millis(random.random_range(100..1500));
    let role = OURS[random.random_range(0..OURS.len())];
    // Random moments are the subject of the test.
    tokio::time::sleep(pause).await;
    // A process that is just being restarted is waited for: every kill hits.
    let (stage, killed) = until("a process of ours to kill", PATIENCE, async || {
        let stage = cluster.stage(lab).await?;
        let killed = processes::kill(lab, role).await?;
        ensure!(!killed.is_empty(), "not running");
        Ok(Some((stage, killed)))
    })
    .await?;
    eprintln!(
        "kill {number}: {role} {killed:?} after {} ms: {stage:?}",
        pause.as_millis()
    );
    Ok(stage)
}

/// Collects every bootstrap token that appears in the cluster, from the moment its API server answers.
async fn watch_tokens(lab: Lab, cluster: Cluster, found: UnboundedSender<String>) {
    loop {
        if let Ok(tenant) = cluster.client(&lab).await {
            let secrets = Api::<Secret>::namespaced(tenant, "kube-system");
            let tokens = watcher::Config::default().fields("type=bootstrap.kubernetes.io/token");
            let mut events = pin!(watcher(secrets, tokens));
            while let Some(Ok(event)) = events.next().await {
                if let Event::Apply(secret) | Event::InitApply(secret) = event
                    && found.send(secret.name_any()).is_err()
                {
                    return;
                }
            }
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

/// One token was ever made, and it is the one in the one data Secret.
async fn one_token(lab: &Lab, cluster: &Cluster, found: &mut UnboundedReceiver<String>) -> Result<()> {
    let mut ever = BTreeSet::new();
    while let Ok(name) = found.try_recv() {
        ever.insert(name);
    }
    let secrets = Api::<Secret>::namespaced(lab.management.clone(), &cluster.namespace);
    let selector = ListParams::default().labels(&format!("cluster.x-k8s.io/cluster-name={}", cluster.name));
    let mut handed_out = BTreeSet::new();
    for secret in secrets.list(&selector).await? {
        if let Some(token) = value(&secret, "token") {
            let token = String::from_utf8(token)?;
            let (id, _) = token.split_once('.').context("not a token")?;
            ensure!(
                handed_out.insert(format!("bootstrap-token-{id}")),
                "two data Secrets"
            );
        }
    }
    assert_eq!(ever.len(), 1, "tokens ever seen in the cluster: {ever:?}");
    assert_eq!(ever, handed_out, "the token of the data Secret");
    Ok(())
}

/// That the data of a machine has none of the labels of its Machine is in `refusals`.
#[tokio::test]
async fn contract_53_a_label_of_a_machine_reaches_its_node_through_cluster_api() -> Result<()> {
    let lab = Lab::open().await?;
    let cluster = QUICKSTART.clone();
    let machine = cluster
        .machines(&lab)
        .await?
        .into_iter()
        .next()
        .context("no Machine")?;
    let node = machine
        .data
        .pointer("/status/nodeRef/name")
        .and_then(Value::as_str);
    let node = node.context("no Node")?;
    let machines =
        Api::<DynamicObject>::namespaced_with(lab.management.clone(), &cluster.namespace, &capi::machines());
    let nodes = Api::<Node>::all(cluster.client(&lab).await?);
    let label = async |value: Option<&str>| -> Result<()> {
        let change = Patch::Merge(json!({ "metadata": { "labels": { RACK: value } } }));
        machines
            .patch(&machine.name_any(), &PatchParams::default(), &change)
            .await?;
        until(
            "the Node to have the label of its Machine",
            PATIENCE,
            async || {
                let node = nodes.get(node).await?;
                Ok((node.labels().get(RACK).map(String::as_str) == value).then_some(()))
            },
        )
        .await
    };
    afterwards(label(Some("r7")), async || label(None).await).await
}

#[tokio::test]
async fn contract_16_the_scale_subresource_adds_a_replica_and_takes_it_away() -> Result<()> {
    let lab = Lab::open().await?;
    let cluster = QUICKSTART.clone();
    let test = async {
        cluster.scaled(&lab, 1).await?;
        cluster.scale(&lab, 2).await?;
        cluster.scaled(&lab, 2).await
    };
    afterwards(Box::pin(test), async || {
        cluster.scale(&lab, 1).await?;
        cluster.scaled(&lab, 1).await
    })
    .await
}
