//! Memory of the process that is shipped, under a hostile tenant and a hostile user of a namespace.

use std::{
    fs,
    path::PathBuf,
    process::{Child, Command, Stdio},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
        mpsc,
    },
    thread,
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};
use e2e::bootstrap::{NS, World, until};
use futures::{StreamExt as _, stream};
use k8s_openapi::{
    ByteString,
    api::{
        core::v1::{Node, Secret},
        rbac::v1::ClusterRoleBinding,
    },
};
use kube::{
    Api,
    api::{ObjectMeta, Patch, PatchParams, PostParams},
};
use serde_json::{Value, json};

/// Nodes of the tenant.
const NODES: usize = 1000;
/// Bytes of each: a page of them is as large as an answer may be.
const NODE: usize = 150_000;
/// Nodes that grow to what etcd accepts while they are watched.
const GROWING: usize = 20;
const LARGEST: usize = 1_400_000;
/// Bindings of the tenant, and the subjects of each.
const BINDINGS: usize = 100;
const SUBJECTS: usize = 4000;
/// Files of one config, and the Secrets that they name.
const FILES: usize = 200;
const SECRETS: usize = 20;
const MIB: usize = 1 << 20;
/// Configs with such files.
const CONFIGS: usize = 8;
/// Largest memory of the process.
const MOST: usize = 100 * MIB;
/// Time between two looks at its memory.
const LOOK: Duration = Duration::from_millis(5);

#[tokio::test(flavor = "multi_thread")]
async fn a_hostile_tenant_and_a_hostile_user_leave_the_process_small() -> Result<()> {
    let _turn = super::turn().await;
    let Some(world) = World::start("memory").await? else {
        return Ok(());
    };
    all(NODES, async |number| {
        node(&world, &format!("n{number}"), NODE).await
    })
    .await?;
    all(BINDINGS, async |number| binding(&world, number).await).await?;
    let bytes = ByteString(incompressible());
    all(SECRETS, async |number| large_secret(&world, number, &bytes).await).await?;

    let provider = Provider::start(&world)?;
    world.machine("m", json!({})).await?;
    let token = world.token("m").await.with_context(|| provider.log())?;
    let files: Vec<Value> = (0..FILES)
        .map(|at| json!({"path": format!("/etc/f{at}"), "contentFrom": {"secret": {"name": format!("large{}", at % SECRETS), "key": "k"}}}))
        .collect();
    for number in 0..CONFIGS {
        world
            .machine(&format!("files{number}"), json!({"files": files}))
            .await?;
    }
    all(GROWING, async |number| {
        let nodes: Api<Node> = Api::all(world.admin.clone());
        let grow = json!({"status": {"nodeInfo": info(&"x".repeat(LARGEST))}});
        nodes
            .patch_status(
                &format!("n{number}"),
                &PatchParams::default(),
                &Patch::Merge(&grow),
            )
            .await?;
        Ok(())
    })
    .await?;
    for number in 0..CONFIGS {
        world
            .condition(&format!("files{number}"), "DataSecretAvailable", "TooLarge")
            .await?;
    }
    // Whoever sees this Node has seen the others.
    let request = world.ask(&world.bearer(&token)?, "m").await?;
    let (answer, _) = world.answer(&request, Duration::from_secs(30)).await?;
    ensure!(answer == "Approved", "{answer}");
    node(&world, "m", 100).await?;
    until("the machine joined", Duration::from_mins(1), async || {
        let status = world.config("m").await?.status.unwrap_or_default();
        let mut conditions = status.conditions.iter();
        Ok(conditions
            .any(|condition| condition.type_ == "NodeJoined" && condition.status == "True")
            .then_some(()))
    })
    .await
    .with_context(|| provider.log())?;
    let most = provider.largest()?;
    println!(
        "bootstrap provider beside {NODES} Nodes of {NODE} bytes, {GROWING} of {LARGEST}, {BINDINGS} bindings with {SUBJECTS} \
         subjects and {CONFIGS} configs with {FILES} files of 1 MiB: {} MiB at most, without mapped files; the budget is 100 MiB",
        most / MIB,
    );
    ensure!(most <= MOST, "{} MiB", most / MIB);
    Ok(())
}

/// Does it for each number below `count`, some at a time.
async fn all(count: usize, each: impl AsyncFn(usize) -> Result<()>) -> Result<()> {
    let results: Vec<Result<()>> = stream::iter(0..count)
        .map(|number| each(number))
        .buffer_unordered(8)
        .collect()
        .await;
    results.into_iter().collect()
}

/// A Node whose strings have so many bytes together.
async fn node(world: &World, name: &str, bytes: usize) -> Result<()> {
    let nodes: Api<Node> = Api::all(world.admin.clone());
    let text = "x".repeat(bytes / 2);
    let node = json!({
        "metadata": {"name": name}, "spec": {"providerID": text}, "status": {"nodeInfo": info(&text)},
    });
    nodes
        .create(&PostParams::default(), &serde_json::from_value(node)?)
        .await?;
    Ok(())
}

fn info(version: &str) -> Value {
    json!({
        "kubeletVersion": version, "architecture": "", "bootID": "", "containerRuntimeVersion": "", "kernelVersion": "",
        "kubeProxyVersion": "", "machineID": "", "operatingSystem": "", "osImage": "", "systemUUID": "",
    })
}

async fn binding(world: &World, number: usize) -> Result<()> {
    let bindings: Api<ClusterRoleBinding> = Api::all(world.admin.clone());
    let subject = |at: usize| {
        let name = format!("{at}-{}", "x".repeat(60));
        json!({"apiGroup": "rbac.authorization.k8s.io", "kind": "Group", "name": name})
    };
    let binding = serde_json::from_value(json!({
        "metadata": {"name": format!("hostile{number}")},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "view"},
        "subjects": (0..SUBJECTS).map(subject).collect::<Vec<_>>(),
    }))?;
    bindings.create(&PostParams::default(), &binding).await?;
    Ok(())
}

/// A Secret of almost a mebibyte.
async fn large_secret(world: &World, number: usize, bytes: &ByteString) -> Result<()> {
    let secrets: Api<Secret> = Api::namespaced(world.admin.clone(), NS);
    let secret = Secret {
        metadata: ObjectMeta {
            name: Some(format!("large{number}")),
            ..ObjectMeta::default()
        },
        data: Some([("k".to_owned(), bytes.clone())].into()),
        ..Secret::default()
    };
    secrets.create(&PostParams::default(), &secret).await?;
    Ok(())
}

/// Almost a mebibyte.
fn incompressible() -> Vec<u8> {
    let mut bytes = vec![0; MIB - 200];
    rand::fill(&mut bytes[..]);
    bytes
}

/// The binary, with the role `bootstrap` alone. It ends when this is dropped.
struct Provider {
    child: Child,
    log: PathBuf,
    /// Most bytes that were seen.
    most: Arc<AtomicUsize>,
    /// Looks until this is dropped.
    _looking: mpsc::Sender<()>,
}

impl Provider {
    fn start(world: &World) -> Result<Self> {
        let cargo = std::env::var("CARGO").unwrap_or_else(|_| "cargo".to_owned());
        // Beside the program of this test, so that what is measured is what was built from these sources.
        let built = Command::new(cargo)
            .args(["build", "--locked", "--quiet", "--workspace", "--bin=capi-kamaji"])
            .stdin(Stdio::null())
            .status()
            .context("cargo does not start")?;
        ensure!(built.success(), "the binary is not built: {built}");
        let here = std::env::current_exe()?;
        let target = here
            .parent()
            .and_then(|deps| deps.parent())
            .context("no target folder")?;
        let log = world.file("provider.log");
        let file = fs::File::create(&log)?;
        let child = Command::new(target.join("capi-kamaji"))
            .args([
                "run",
                "--controllers=bootstrap",
                "--leader-elect=false",
                "--diagnostics-address=127.0.0.1:0",
            ])
            .env("KUBECONFIG", world.server.kubeconfig()?)
            .stdin(Stdio::null())
            .stdout(file.try_clone()?)
            .stderr(file)
            .spawn()
            .context("the provider does not start")?;
        let most = Arc::new(AtomicUsize::new(0));
        let (looking, stop) = mpsc::channel();
        let (path, seen) = (format!("/proc/{}/status", child.id()), most.clone());
        thread::spawn(move || {
            while stop.recv_timeout(LOOK) == Err(mpsc::RecvTimeoutError::Timeout) {
                if let Some(bytes) = fs::read_to_string(&path).ok().and_then(|text| anonymous(&text)) {
                    seen.fetch_max(bytes, Ordering::Relaxed);
                }
            }
        });
        Ok(Self {
            child,
            log,
            most,
            _looking: looking,
        })
    }

    /// Most bytes that it was seen to have in memory, at a look each [`LOOK`]. Mapped files do not count: fifty
    /// megabytes of a binary that is not optimized, and read from the disk again whenever the memory is needed.
    fn largest(&self) -> Result<usize> {
        let now = fs::read_to_string(format!("/proc/{}/status", self.child.id()))?;
        let now = anonymous(&now).with_context(|| format!("the process has ended: {}", self.log()))?;
        Ok(self.most.load(Ordering::Relaxed).max(now))
    }

    /// Its last lines.
    fn log(&self) -> String {
        let text = fs::read_to_string(&self.log).unwrap_or_default();
        let lines: Vec<_> = text.lines().rev().take(15).collect();
        lines.into_iter().rev().collect::<Vec<_>>().join("\n")
    }
}

impl Drop for Provider {
    fn drop(&mut self) {
        // It is being thrown away: nothing useful can be done about an error.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Bytes of memory that are no file's, by the status file of a process.
fn anonymous(status: &str) -> Option<usize> {
    let line = status.lines().find_map(|line| line.strip_prefix("RssAnon:"))?;
    let kib: usize = line.trim().strip_suffix(" kB")?.parse().ok()?;
    Some(kib * 1024)
}
