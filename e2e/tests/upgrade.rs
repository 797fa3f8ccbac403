//! One edit of a topology's version, one or two minor versions up: Cluster API takes the control plane through the version
//! in between, then the workers. Needs the lab, with the tools of `hack/test upgrade`; makes a cluster of its own.

use std::{
    collections::BTreeSet,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};
use e2e::lab::{
    access::Lab,
    cleanup::afterwards,
    clusters::{Cluster, OLDER, OLDEST, VERSION, is_ready, nodes},
    prober::Prober,
    topology::{clusters, edit, settled},
    until::until,
};
use kube::Client;
use serde_json::json;
use tokio_util::task::AbortOnDropHandle;

const WORKERS: usize = 2;
/// Time for three control planes and two new machines on a busy machine.
const PATIENCE: Duration = Duration::from_mins(15);
/// Pace at which the cluster is looked at.
const PACE: Duration = Duration::from_millis(250);
/// Longest time in all without an answer of the API server while two replicas take a version, on two busy cores.
const DOWN: Duration = Duration::from_secs(6);

/// What is seen of a cluster at one moment.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Sight {
    /// `spec.version` of the control plane.
    wanted: String,
    /// Versions of its pods as it reports them, ascending.
    running: Vec<String>,
    /// Version of the MachineDeployment.
    workers: String,
    /// Versions of the kubelets of Ready nodes; none while the API server does not answer.
    ready: Option<Vec<String>>,
}

#[tokio::test]
async fn contract_35_an_upgrade_by_one_minor_takes_the_control_plane_first_and_then_the_workers() -> Result<()>
{
    run("stepping", &[OLDER, VERSION]).await
}

#[tokio::test]
async fn contract_36_one_edit_takes_control_plane_and_workers_through_the_version_in_between() -> Result<()> {
    run("climbing", &[OLDEST, OLDER, VERSION]).await
}

/// Creates a cluster of the first version, asks for the last, and checks the way.
async fn run(name: &str, way: &[&str]) -> Result<()> {
    let lab = Lab::open().await?;
    let cluster = Cluster::new("default", name);
    afterwards(Box::pin(climb(&lab, &cluster, way)), async || {
        cluster.delete(&lab).await
    })
    .await
}

async fn climb(lab: &Lab, cluster: &Cluster, way: &[&str]) -> Result<()> {
    let ([first, .., last], steps) = (way, way.len() - 1) else {
        anyhow::bail!("no way")
    };
    // The lab has no konnectivity of the version in between.
    let variables = [("POD_CIDR", "10.247.0.0/16"), ("KONNECTIVITY", "false")];
    cluster.create_of_class(lab, first, (2, 2), &variables).await?;
    settled(lab, cluster, WORKERS).await?;
    cluster.scaled(lab, 2).await?;
    let tenant = cluster.client(lab).await?;
    let old: BTreeSet<String> = kubelets(&tenant, first).await?;
    assert_eq!(old.len(), WORKERS, "nodes of {first}");

    let seen = Arc::<Mutex<Vec<Sight>>>::default();
    let watching = AbortOnDropHandle::new(tokio::spawn(watch(lab.clone(), cluster.clone(), seen.clone())));
    let prober = Prober::start(lab.kubeconfig(&cluster.namespace, &cluster.name).await?);
    edit(lab, cluster, |spec| spec["topology"]["version"] = json!(last)).await?;
    until(
        &format!("{WORKERS} nodes of {last} and no other"),
        PATIENCE,
        async || {
            let new = kubelets(&tenant, last).await?;
            let all = nodes(&tenant).await?.len();
            ensure!(
                new.len() == WORKERS && all == WORKERS,
                "{} of {all} nodes",
                new.len()
            );
            Ok(Some(new))
        },
    )
    .await?;
    settled(lab, cluster, WORKERS).await?;
    let answers = prober.report(&way.join(" → "));
    drop(watching);
    let seen = seen.lock().unwrap_or_else(PoisonError::into_inner).clone();
    for sight in &seen {
        eprintln!("{sight:?}");
    }
    in_order(&seen, way)?;
    let new = kubelets(&tenant, last).await?;
    assert!(new.is_disjoint(&old), "a node was not replaced: {old:?} {new:?}");
    let bound = DOWN * u32::try_from(steps)?;
    assert!(answers.down < bound, "{:?}", answers.errors);
    let object = clusters(lab, cluster).get(&cluster.name).await?;
    // Cluster API 1.13 shows no plan.
    let plan = object.data.pointer("/status/controlPlane/upgradePlan");
    assert!(plan.is_none_or(|plan| plan == &json!([])), "{plan:?}");
    Ok(())
}

/// Names of the Ready nodes with a kubelet of this version.
async fn kubelets(tenant: &Client, version: &str) -> Result<BTreeSet<String>> {
    let nodes = nodes(tenant).await?;
    let of_version = nodes.iter().filter(|node| {
        let info = node.status.as_ref().and_then(|status| status.node_info.as_ref());
        is_ready(node) && info.is_some_and(|info| info.kubelet_version == version)
    });
    Ok(of_version.map(kube::ResourceExt::name_any).collect())
}

/// Notes each change of what is seen.
async fn watch(lab: Lab, cluster: Cluster, seen: Arc<Mutex<Vec<Sight>>>) {
    let mut ticks = tokio::time::interval(PACE);
    loop {
        ticks.tick().await;
        if let Ok(sight) = look(&lab, &cluster).await {
            let mut seen = seen.lock().unwrap_or_else(PoisonError::into_inner);
            if seen.last() != Some(&sight) {
                seen.push(sight);
            }
        }
    }
}

/// Read in the order in which a rule would be broken: workers before the control plane, versions before what is wanted.
async fn look(lab: &Lab, cluster: &Cluster) -> Result<Sight> {
    let workers = cluster.machine_deployments(lab).get(&cluster.workers()).await?;
    let workers = workers.data["spec"]["template"]["spec"]["version"].as_str();
    let workers = workers.context("no version")?.to_owned();
    let object = cluster.control_planes(lab).get(&cluster.name).await?;
    let running = object.status.context("no status")?.versions;
    let ready = async {
        let nodes = nodes(&cluster.client(lab).await?).await?;
        let mut versions: Vec<_> = nodes
            .iter()
            .filter(|node| is_ready(node))
            .filter_map(|node| Some(node.status.as_ref()?.node_info.as_ref()?.kubelet_version.clone()))
            .collect();
        versions.sort();
        Ok::<_, anyhow::Error>(versions)
    };
    Ok(Sight {
        wanted: object.spec.version,
        running: running.into_iter().map(|version| version.version).collect(),
        workers,
        ready: ready.await.ok(),
    })
}

/// The rules of an upgrade in what was seen one after the other.
fn in_order(seen: &[Sight], way: &[&str]) -> Result<()> {
    let mut wanted: Vec<&str> = seen.iter().map(|sight| sight.wanted.as_str()).collect();
    wanted.dedup();
    ensure!(wanted == way, "versions of the control plane: {wanted:?}");
    let mut workers: Vec<&str> = seen.iter().map(|sight| sight.workers.as_str()).collect();
    workers.dedup();
    // Kubelets may be three minor versions older, so the workers change once.
    let ends: Vec<&str> = way.first().into_iter().chain(way.last()).copied().collect();
    ensure!(workers == ends, "versions of the workers: {workers:?}");
    for (before, sight) in seen.iter().zip(seen.iter().skip(1)) {
        let place = way
            .iter()
            .position(|version| *version == sight.wanted)
            .unwrap_or_default();
        let allowed = &way[place.saturating_sub(1)..=place];
        ensure!(
            sight
                .running
                .iter()
                .all(|version| allowed.contains(&version.as_str())),
            "the control plane is more than one minor version ahead: {sight:?}"
        );
        ensure!(
            before.wanted == sight.wanted || before.running == [before.wanted.clone()],
            "the next version was taken before the last one was everywhere: {before:?} {sight:?}"
        );
        ensure!(
            before.workers == sight.workers || way.last().is_some_and(|last| sight.running == [*last]),
            "the workers were changed before the control plane was done: {sight:?}"
        );
        ensure!(
            sight.ready.as_ref().is_none_or(|ready| ready.len() >= WORKERS),
            "a worker went before another took its place: {sight:?}"
        );
    }
    Ok(())
}

#[test]
fn what_breaks_a_rule_of_an_upgrade_is_found() {
    let way = [OLDEST, OLDER, VERSION];
    let sight = |wanted: &str, running: &[&str], workers: &str| Sight {
        wanted: wanted.to_owned(),
        running: running.iter().map(|version| (*version).to_owned()).collect(),
        workers: workers.to_owned(),
        ready: Some(vec![String::new(); WORKERS]),
    };
    let good = [
        sight(OLDEST, &[OLDEST], OLDEST),
        sight(OLDER, &[OLDEST], OLDEST),
        sight(OLDER, &[OLDEST, OLDER], OLDEST),
        sight(OLDER, &[OLDER], OLDEST),
        sight(VERSION, &[OLDER, VERSION], OLDEST),
        sight(VERSION, &[VERSION], OLDEST),
        sight(VERSION, &[VERSION], VERSION),
    ];
    in_order(&good, &way).unwrap();
    assert!(in_order(&good[3..], &way).is_err(), "a step less");
    for (place, bad) in [
        (3, sight(VERSION, &[OLDEST, OLDER], OLDEST)),
        (4, sight(VERSION, &[OLDEST, VERSION], OLDEST)),
        (5, sight(VERSION, &[OLDER, VERSION], VERSION)),
        (2, sight(OLDER, &[OLDER], OLDER)),
    ] {
        let mut seen = good.to_vec();
        seen[place] = bad;
        assert!(in_order(&seen, &way).is_err(), "{:?}", seen[place]);
    }
    let mut seen = good.to_vec();
    seen[5].ready = Some(vec![VERSION.to_owned()]);
    assert!(in_order(&seen, &way).is_err(), "a node less");
}
