//! Virtual machines: their own kernel, control groups v2, the service manager's driver and a clock of their own. Their
//! KamajiConfig has an empty spec. Needs the lab with the disk of `hack/tools/machine-disk`.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use e2e::{
    infra::capi,
    lab::{
        access::{DATA, Lab},
        cleanup::afterwards,
        clusters::{Cluster, is_ready, nodes},
        machine::records,
        pods,
        until::until,
    },
};
use http::Request;
use k8s_openapi::api::core::v1::{Node, Pod};
use kamaji_api::bootstrap::KamajiConfigTemplate;
use kube::{
    Api, Client, ResourceExt as _,
    api::{Patch, PatchParams, PostParams},
};
use serde_json::{Value, json};

/// Time for a machine to boot and join: its processors are emulated.
const PATIENCE: Duration = Duration::from_mins(12);
/// The kubelet's configuration, as it is in force after the machine has joined with defaults alone.
const DEFAULTS: [(&str, &str); 8] = [
    ("cgroupDriver", r#""systemd""#),
    ("failCgroupV1", "true"),
    ("failSwapOn", "true"),
    ("protectKernelDefaults", "true"),
    ("readOnlyPort", "null"),
    ("rotateCertificates", "true"),
    ("serializeImagePulls", "true"),
    ("streamingConnectionIdleTimeout", r#""4h0m0s""#),
];

#[tokio::test]
async fn an_empty_config_joins_debian_12_with_defaults_alone() -> Result<()> {
    defaults("virtual", "(bookworm)").await
}

#[tokio::test]
async fn an_empty_config_joins_debian_13_with_defaults_alone() -> Result<()> {
    defaults("virtual-trixie", "(trixie)").await
}

async fn defaults(image: &str, release: &str) -> Result<()> {
    let lab = Lab::open().await?;
    let cluster = Cluster::new("default", image);
    afterwards(
        Box::pin(joins_with_defaults(&lab, &cluster, image, release)),
        async || cluster.delete(&lab).await,
    )
    .await
}

async fn joins_with_defaults(lab: &Lab, cluster: &Cluster, image: &str, release: &str) -> Result<()> {
    let variables = [("POD_CIDR", "10.247.0.0/16"), ("MACHINE_IMAGE", image)];
    cluster.create_virtual(lab, 1, &variables).await?;
    let node = joined(lab, cluster).await?;
    let info = node
        .status
        .as_ref()
        .and_then(|status| status.node_info.as_ref())
        .context("no nodeInfo")?;
    let host = std::fs::read_to_string("/proc/sys/kernel/osrelease")?;
    ensure!(info.kernel_version != host.trim(), "the kernel is the host's");
    ensure!(info.os_image.contains(release), "{}", info.os_image);
    eprintln!(
        "{}: {}, kernel {}, {}",
        node.name_any(),
        info.os_image,
        info.kernel_version,
        info.container_runtime_version
    );

    let tenant = cluster.client(lab).await?;
    let config = until("the agent of the tunnel to run", PATIENCE, async || {
        configuration(&tenant, &node.name_any()).await.map(Some)
    })
    .await?;
    for (field, expected) in DEFAULTS {
        eprintln!("| `{field}` | `{}` |", config[field]);
        assert_eq!(config[field].to_string(), expected, "{field}");
    }
    let pods = Api::<Pod>::namespaced(tenant, "default");
    pods.create(&PostParams::default(), &pods::netexec("netexec", None)?)
        .await?;
    until("a pod to be Ready", PATIENCE, async || {
        Ok(pods::is_ready(&pods.get("netexec").await?).then_some(()))
    })
    .await?;
    // It may not have written its first line yet.
    until("log and exec", PATIENCE, async || {
        pods::log_and_exec(&pods, "netexec").await.map(Some)
    })
    .await
}

/// The configuration in force, as the kubelet tells it.
async fn configuration(tenant: &Client, node: &str) -> Result<Value> {
    let request = Request::get(format!("/api/v1/nodes/{node}/proxy/configz")).body(Vec::new())?;
    let answer: Value = tenant.request(request).await?;
    Ok(answer["kubeletconfig"].clone())
}

#[tokio::test]
async fn bootstrap_56_a_clock_that_is_an_hour_off_and_set_after_30_s_does_not_end_the_join() -> Result<()> {
    let lab = Lab::open().await?;
    let cluster = Cluster::new("default", "late-clock");
    afterwards(Box::pin(late_clock(&lab, &cluster)), async || {
        cluster.delete(&lab).await
    })
    .await
}

/// Says on the console what time it is, now and after 30 s, when it takes the time of the lab's registry.
const SET_THE_CLOCK: &str = r#"echo "clock-at-boot $(date +%s)" >/dev/ttyS0
systemd-run --on-active=30 sh -c 'date -s "$(curl -sI http://10.88.0.1:5000/v2/ | sed -n "s/^[Dd]ate: //p" | tr -d "\r")"; echo "clock-set $(date +%s)" >/dev/ttyS0'"#;

async fn late_clock(lab: &Lab, cluster: &Cluster) -> Result<()> {
    let variables = [("POD_CIDR", "10.248.0.0/16"), ("CLOCK_OFFSET_SECONDS", "-3600")];
    cluster.create_virtual(lab, 0, &variables).await?;
    let templates = Api::<KamajiConfigTemplate>::namespaced(lab.management.clone(), &cluster.namespace);
    let patch =
        Patch::Merge(json!({ "spec": { "template": { "spec": { "preJoinCommands": [SET_THE_CLOCK] } } } }));
    templates
        .patch(&cluster.workers(), &PatchParams::default(), &patch)
        .await?;
    cluster.scale_workers(lab, 1).await?;
    joined(lab, cluster).await?;

    let console = console(lab, cluster).await?;
    let clock = |word: &str| -> Result<i64> {
        let after = console
            .split_once(word)
            .with_context(|| format!("{word}: {console}"))?
            .1;
        let number = after.split_whitespace().next().context("no time")?;
        number.parse().context("no time")
    };
    let (boot, set) = (clock("clock-at-boot ")?, clock("clock-set ")?);
    eprintln!("the clock was {} s off for 30 s", set - boot - 30);
    ensure!((3500..3800).contains(&(set - boot)), "{boot} {set}");
    Ok(())
}

/// Waits until the only Machine's Node is Ready.
async fn joined(lab: &Lab, cluster: &Cluster) -> Result<Node> {
    until("the Node to be Ready", PATIENCE, async || {
        let nodes = nodes(&cluster.client(lab).await?).await?;
        Ok(nodes.into_iter().find(is_ready))
    })
    .await
}

/// What the only machine has written to its console.
async fn console(lab: &Lab, cluster: &Cluster) -> Result<String> {
    let machines = cluster.machines(lab).await?;
    let local = machines
        .first()
        .and_then(capi::local_machine)
        .context("no infrastructure")?;
    let all = records().await?;
    let mut own = all
        .iter()
        .filter(|record| record.namespace == cluster.namespace && record.name == local);
    let record = own.next().context("the machine host does not know it")?;
    let file = format!("{DATA}/machines/machines/{}/console.log", record.id);
    Ok(String::from_utf8_lossy(&tokio::fs::read(file).await?).into_owned())
}
