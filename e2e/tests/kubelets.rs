//! Kubelets of every supported minor version join one control plane of the newest one, with data from one template. Needs the
//! lab, with the tools of `hack/test kubelets`; makes a cluster of its own.

use std::{collections::BTreeMap, time::Duration};

use anyhow::{Context as _, Result, ensure};
use e2e::lab::{
    access::Lab,
    cleanup::afterwards,
    clusters::{Cluster, OLDER, OLDEST, VERSION, is_ready, nodes},
    conditions::{contains_all, message},
    logs::of_machine,
    machine::Inside,
    until::until,
    workers,
};
use kamaji_api::{
    bootstrap::KamajiConfig,
    kubelets::{EMBEDDED, Kubelets},
    labels,
};
use kube::{Api, ResourceExt as _, api::ListParams};

/// The oldest minor version that may join a control plane of the newest; the suite has machines of it.
const FIRST: &str = "v1.33.13";
/// Versions that cannot join the control plane, and what is said about them.
const REFUSED: [(&str, &str); 2] = [
    ("v1.32.9", "more than three minors older"),
    ("v1.37.0", "newer than the control plane"),
];
/// Time until four machines have booted on a busy machine.
const PATIENCE: Duration = Duration::from_mins(10);

#[tokio::test]
async fn bootstrap_48_kubelets_of_every_minor_version_join_one_control_plane() -> Result<()> {
    let lab = Lab::open().await?;
    let cluster = Cluster::new("default", "kubelets");
    afterwards(Box::pin(join(&lab, &cluster)), async || {
        cluster.delete(&lab).await
    })
    .await
}

async fn join(lab: &Lab, cluster: &Cluster) -> Result<()> {
    let variables = [("POD_CIDR", "10.248.0.0/16")];
    cluster.create_with(lab, 1, &variables).await?;
    for version in [FIRST, OLDEST, OLDER] {
        worker(lab, cluster, version).await?;
    }
    let versions = [FIRST, OLDEST, OLDER, VERSION];
    let ready = until("a Ready node of each version", PATIENCE, async || {
        let tenant = cluster.client(lab).await?;
        let ready: BTreeMap<String, String> = nodes(&tenant)
            .await?
            .iter()
            .filter(|node| is_ready(node))
            .filter_map(|node| {
                let info = node.status.as_ref()?.node_info.as_ref()?;
                Some((info.kubelet_version.clone(), node.name_any()))
            })
            .collect();
        ensure!(
            ready.keys().eq(versions.map(ToOwned::to_owned).iter()),
            "{ready:?}"
        );
        Ok(Some(ready))
    })
    .await?;
    for (version, node) in &ready {
        // The Machine has its node a moment after that is Ready.
        let machine = until("the Machine of the node", PATIENCE, async || {
            machine_of(lab, cluster, node).await.map(Some)
        })
        .await?;
        let inside = Inside::of(&cluster.namespace, &machine).await?;
        let found = inside.run(&["/usr/local/bin/kubelet", "--version"]).await?;
        ensure!(found.trim() == format!("Kubernetes {version}"), "{node}: {found}");
        // A kubelet reads a configuration with a field that it does not know, and says this about it.
        let log = of_machine(&inside).await?;
        ensure!(log.contains("kubelet"), "{node}: there is no log");
        ensure!(
            !log.contains("Using lenient decoding"),
            "{node}, {version}: the kubelet does not know all of its configuration"
        );
        ensure!(
            !log.contains("unrecognized feature gate"),
            "{node}, {version}: an unknown gate"
        );
        gates_are_those_of_the_kubelet(&inside, version)
            .await
            .with_context(|| format!("{node}, {version}"))?;
    }
    for (version, why) in REFUSED {
        refused(lab, cluster, version, why).await?;
    }
    Ok(())
}

/// The kubelet itself knows every gate of our data with its default, and those that it has locked are those of our data.
async fn gates_are_those_of_the_kubelet(inside: &Inside, version: &str) -> Result<()> {
    let known: Kubelets = serde_json::from_str(EMBEDDED)?;
    let kubelet = known.minors.values().find(|kubelet| kubelet.version == version);
    let gates = &kubelet.context("no data of this version")?.gates;
    let locked = || gates.iter().filter(|(_, gate)| gate.locked().is_some());
    // It reads the gates before its configuration, and ends there.
    let said = async |gates: Vec<String>| {
        let gates = format!("--feature-gates={}", gates.join(","));
        let command = ["/usr/local/bin/kubelet", &gates, "--config=/nonexistent"];
        let ended = inside.run(&command).await;
        let ended = ended.err().context("the kubelet started")?;
        anyhow::Ok(format!("{ended:#}"))
    };
    let defaults = gates
        .iter()
        .map(|(name, gate)| format!("{name}={}", gate.default()));
    let text = said(defaults.collect()).await?;
    ensure!(
        text.contains("failed to load kubelet config file"),
        "it refuses its own defaults: {text}"
    );
    let others = locked().map(|(name, gate)| format!("{name}={}", !gate.default()));
    let text = said(others.collect()).await?;
    for (name, _) in locked() {
        ensure!(
            text.contains(&format!("cannot set feature gate {name} to")),
            "{name} is not locked: {text}"
        );
    }
    Ok(())
}

/// Name of the infrastructure object of a node's Machine.
async fn machine_of(lab: &Lab, cluster: &Cluster, node: &str) -> Result<String> {
    let machines = cluster.machines(lab).await?;
    let machine = machines
        .iter()
        .find(|machine| machine.data["status"]["nodeRef"]["name"] == node);
    let machine = machine.with_context(|| format!("no Machine of node {node}"))?;
    let name = machine.data["spec"]["infrastructureRef"]["name"].as_str();
    Ok(name.context("no infrastructure object")?.to_owned())
}

/// Creates one worker of another version, from the templates of the cluster's workers.
async fn worker(lab: &Lab, cluster: &Cluster, version: &str) -> Result<String> {
    let name = format!("{}-{}", cluster.name, version.replace('.', "-"));
    let template = cluster.workers();
    let with = (workers::own_bootstrap(cluster), template.as_str());
    workers::add(lab, cluster, (&name, 1), version, with).await?;
    Ok(name)
}

/// A machine whose kubelet cannot work with the control plane gets no data, and the reason names both versions.
async fn refused(lab: &Lab, cluster: &Cluster, version: &str, why: &str) -> Result<()> {
    let deployment = worker(lab, cluster, version).await?;
    let configs: Api<KamajiConfig> = Api::namespaced(lab.management.clone(), &cluster.namespace);
    let selector = ListParams::default().labels(&format!(
        "{}={},cluster.x-k8s.io/deployment-name={deployment}",
        labels::capi::CLUSTER_NAME,
        cluster.name
    ));
    let config = until(&format!("a config of {version}"), PATIENCE, async || {
        Ok(configs.list(&selector).await?.items.into_iter().next())
    })
    .await?;
    let text = message(&configs, &config.name_any(), "VersionSkew").await?;
    contains_all(&text, &[version, VERSION, why]);
    let now = configs.get(&config.name_any()).await?;
    let created = now
        .status
        .and_then(|status| status.initialization?.data_secret_created);
    ensure!(created.is_none(), "{version}: there is data");
    // No machine is left that waits for ever.
    cluster.scale_deployment(lab, &deployment, 0).await?;
    Ok(())
}
