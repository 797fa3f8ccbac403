//! A whole cluster's life in the lab: sleep and wake, kills in the middle of a creation, deletion that leaves
//! nothing and touches no neighbour. Runs after `joined`, on the cluster that `hack/quickstart` made.

use std::{collections::BTreeMap, time::Duration};

use anyhow::{Context as _, Result, ensure};
use e2e::lab::{
    access::{Lab, value},
    audit::{self, Mark, OURS},
    clusters::{Cluster, QUICKSTART, nodes},
    datastore,
    snapshot::Snapshot,
    tenants::PATIENCE,
    until::until,
};
use k8s_openapi::api::{
    apps::v1::ReplicaSet,
    core::v1::{Pod, Secret},
};
use kube::{
    Api, ResourceExt as _,
    api::{DeleteParams, ListParams, Patch, PatchParams, PostParams},
};
use rand::{Rng as _, SeedableRng as _};
use serde_json::json;

/// DESIGN 4: management API requests for one Cluster with KamajiControlPlane and TenantControlPlane.
const CLUSTER_BUDGET: usize = 60;
/// The tenant's kube-controller-manager marks a silent node after this time; a sleep must outlast it.
const NODE_GRACE: Duration = Duration::from_secs(55);

#[tokio::test]
async fn a_cluster_that_slept_wakes_with_the_same_nodes_and_pods() -> Result<()> {
    let lab = Lab::open().await?;
    let cluster = QUICKSTART.clone();
    let tenant = cluster.client(&lab).await?;
    let pods = Api::<Pod>::namespaced(tenant.clone(), "default");
    let pod: Pod = serde_json::from_value(json!({
        "metadata": { "name": "sleeper" },
        "spec": {
            "terminationGracePeriodSeconds": 0,
            "containers": [{ "name": "pause", "image": "registry.k8s.io/pause:3.10.2" }],
        },
    }))?;
    pods.create(&PostParams::default(), &pod).await?;
    let running = until("the pod to run", PATIENCE, async || {
        let pod = pods.get("sleeper").await?;
        Ok((pod.status.as_ref().and_then(|s| s.phase.as_deref()) == Some("Running")).then_some(pod))
    })
    .await?;
    let before = (cluster.ca(&lab).await?, node_uids(&tenant).await?);

    cluster.scale(&lab, 0).await?;
    cluster.condition(&lab, "Available", "False").await?;
    until("the control plane's pods to be gone", PATIENCE, async || {
        Ok(cluster.control_plane_pods(&lab).await?.is_empty().then_some(()))
    })
    .await?;
    // Not a wait for an event: the sleep has to be longer than the grace, that is the test.
    tokio::time::sleep(NODE_GRACE).await;
    cluster.scale(&lab, 1).await?;
    cluster.condition(&lab, "Available", "True").await?;

    cluster.nodes_ready(&lab, before.1.len()).await?;
    let after = (cluster.ca(&lab).await?, node_uids(&tenant).await?);
    assert_eq!(before, after, "CA and Node UIDs");
    let woken = pods.get("sleeper").await?;
    assert_eq!(woken.uid(), running.uid(), "the very same pod");
    assert_eq!(woken.status.and_then(|s| s.phase).as_deref(), Some("Running"));
    pods.delete("sleeper", &DeleteParams::default()).await?;
    until("the pod to be gone", PATIENCE, async || {
        Ok(pods.get_opt("sleeper").await?.is_none().then_some(()))
    })
    .await?;
    Ok(())
}

async fn node_uids(tenant: &kube::Client) -> Result<BTreeMap<String, String>> {
    Ok(nodes(tenant)
        .await?
        .iter()
        .map(|n| (n.name_any(), n.uid().unwrap_or_default()))
        .collect())
}

#[tokio::test]
async fn hosting_beyond_01_a_deleted_cluster_leaves_nothing_and_its_neighbour_everything() -> Result<()> {
    let lab = Lab::open().await?;
    let neighbour = QUICKSTART.clone();
    let neighbour_schema = neighbour.schema(&lab).await?;
    let mut before = Snapshot::at_rest(&lab).await?;
    before.add("etcd", datastore::inventory(&lab).await?);
    let keys = datastore::count(&lab, &neighbour_schema).await?;

    let cluster = Cluster::new("default", "short-lived");
    let mark = Mark::now(&lab).await?;
    cluster.create(&lab, 1).await?;
    cluster.nodes_ready(&lab, 1).await?;
    audit::settled(&lab).await?;
    let requests = mark.requests(&OURS).await?;
    let strangers = audit::strangers(&requests);
    assert!(strangers.is_empty(), "unknown user agents: {strangers:#?}");
    println!("one Cluster with one worker: {} requests", requests.len());
    println!("{}", audit::summary(&requests));
    let hosted: Vec<_> = requests
        .iter()
        .filter(|r| !r.user_agent.contains("(bootstrap)"))
        .cloned()
        .collect();
    println!(
        "of these by the control plane and hosting roles: {}",
        hosted.len()
    );
    assert!(hosted.len() <= CLUSTER_BUDGET, "{} requests", hosted.len());

    cluster.delete(&lab).await?;
    let left = until(
        "nothing to be left of the cluster",
        Duration::from_mins(2),
        async || {
            let mut after = Snapshot::take(&lab).await?;
            after.add("etcd", datastore::inventory(&lab).await?);
            let diff = before.diff(&after);
            ensure!(diff.is_empty(), "\n{diff}");
            Ok(Some(diff))
        },
    )
    .await?;
    assert!(left.is_empty());
    let after = datastore::count(&lab, &neighbour_schema).await?;
    // Events and leases of a living cluster come and go; its objects do not.
    assert_eq!(keys, after, "keys of the neighbour");
    neighbour.nodes_ready(&lab, 2).await
}

#[tokio::test]
async fn hosting_beyond_10_kills_at_ten_random_moments_of_a_creation_do_no_harm() -> Result<()> {
    let lab = Lab::open().await?;
    let seed = std::env::var("KAMAJI_SEED")
        .ok()
        .and_then(|s| s.parse().ok())
        .unwrap_or_else(rand::random);
    println!("seed {seed} (set KAMAJI_SEED to repeat)");
    let mut random = rand::rngs::StdRng::seed_from_u64(seed);
    let cluster = Cluster::new("default", "survivor");
    cluster.create(&lab, 1).await?;
    let mut ca = None;
    for kill in 0..10 {
        let pause = Duration::from_millis(random.random_range(200..3000));
        // Random moments are the subject of the test.
        tokio::time::sleep(pause).await;
        let role = OURS[random.random_range(0..OURS.len())];
        let phase = cluster.phase(&lab).await;
        // A process that is just being restarted is waited for: ten kills hit.
        let killed = until("a process of ours to kill", PATIENCE, async || {
            let killed = kill_manager(&lab, role).await?;
            ensure!(!killed.is_empty(), "not running");
            Ok(Some(killed))
        })
        .await?;
        println!(
            "kill {kill}: {role} ({killed}) after {} ms, cluster: {phase}",
            pause.as_millis()
        );
        if let Ok(seen) = cluster.ca(&lab).await {
            let first = ca.get_or_insert_with(|| seen.clone());
            assert_eq!(*first, seen, "the CA changed");
        }
    }
    cluster.nodes_ready(&lab, 1).await?;
    assert_eq!(ca.context("the CA was never seen")?, cluster.ca(&lab).await?);

    let secrets = Api::<Secret>::namespaced(lab.management.clone(), &cluster.namespace);
    let selector = ListParams::default().labels(&format!("cluster.x-k8s.io/cluster-name={}", cluster.name));
    let tokens = secrets
        .list(&selector)
        .await?
        .items
        .iter()
        .filter(|s| value(s, "token").is_some())
        .count();
    assert_eq!(tokens, 1, "one token");
    let users = datastore::inventory(&lab).await?;
    let mine = users
        .iter()
        .filter(|l| l.starts_with("user ") && l.contains("_survivor_"))
        .count();
    assert_eq!(mine, 1, "one etcd user: {users:#?}");
    let sets = Api::<ReplicaSet>::namespaced(lab.management.clone(), &cluster.namespace);
    let selector = ListParams::default().labels(&format!("kamaji.clastix.io/name={}", cluster.name));
    assert_eq!(
        sets.list(&selector).await?.items.len(),
        1,
        "one Deployment revision"
    );
    cluster.delete(&lab).await
}

/// Kills the process of our pod in `namespace` with SIGKILL, by its PID on this host, and says which.
async fn kill_manager(lab: &Lab, namespace: &str) -> Result<String> {
    let pods = Api::<Pod>::namespaced(lab.management.clone(), namespace);
    let pod = pods
        .list(&ListParams::default())
        .await?
        .items
        .into_iter()
        .next()
        .context("no pod of ours")?;
    let status = pod
        .status
        .as_ref()
        .and_then(|s| s.container_statuses.as_ref()?.first()?.container_id.clone());
    let Some(id) = status else {
        return Ok(String::new());
    };
    let id = id.rsplit('/').next().unwrap_or_default().to_owned();
    // The container's cgroup names it: no other process can be meant.
    let script = format!(
        "for p in $(cat /sys/fs/cgroup/*/*/*/*{id}/cgroup.procs /sys/fs/cgroup/*/*/*/*/*{id}/cgroup.procs 2>/dev/null | sort -u); do \
         kill -KILL $p && echo $p; done; true"
    );
    let output = tokio::process::Command::new("sh")
        .args(["-c", &script])
        .output()
        .await?;
    Ok(String::from_utf8_lossy(&output.stdout)
        .split_whitespace()
        .collect::<Vec<_>>()
        .join(" "))
}

#[tokio::test]
async fn contract_16_scale_is_served_and_counted() -> Result<()> {
    let lab = Lab::open().await?;
    let cluster = QUICKSTART.clone();
    let patch = Patch::Merge(json!({ "metadata": { "annotations": { "e2e.example/touched": "1" } } }));
    cluster
        .control_plane_api(&lab)
        .patch(&cluster.name, &PatchParams::default(), &patch)
        .await?;
    cluster.condition(&lab, "ScalingUp", "False").await?;
    cluster.condition(&lab, "ScalingDown", "False").await
}
