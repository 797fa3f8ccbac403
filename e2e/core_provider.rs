//! Cluster API's core provider, as one process beside a test's API server: its definitions, its webhooks and its
//! controllers, ClusterClass included. Owns the process.

use std::{
    net::Ipv4Addr,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};
use base64::Engine as _;
use futures::future::try_join_all;
use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};

use crate::{
    apiserver::{Home, Process, TestApiServer, certificates},
    etcd::tools,
    lab::until::until,
    objects::{self, text},
    port,
};

/// The program, in the folder of tools.
pub const PROGRAM: &str = "cluster-api-controller";
/// Time until it answers, on a busy machine.
const READY: Duration = Duration::from_mins(2);

/// The provider. It ends when this is dropped.
pub struct CoreProvider {
    process: Process,
    home: Home,
}

impl CoreProvider {
    /// Installs its definitions on `server` and starts it; then its webhooks, which need it.
    ///
    /// # Errors
    /// When its module is not there, the API server refuses an object, or it does not answer in time.
    pub async fn start(server: &TestApiServer) -> Result<Self> {
        let home = Home::new()?;
        certificates(&home)?;
        let ca = std::fs::read(home.file("ca.crt"))?;
        let ca = base64::engine::general_purpose::STANDARD.encode(ca);
        let any = || port::free(Ipv4Addr::LOCALHOST.into());
        let (webhooks, health, diagnostics) = (any()?, any()?, any()?);
        let objects = manifests(&module()?)?;
        let mut definitions = Vec::new();
        for object in objects
            .iter()
            .filter(|object| text(object, "/kind") == "CustomResourceDefinition")
        {
            let mut object = object.clone();
            if let Some(conversion) = object.pointer_mut("/spec/conversion/webhook/clientConfig") {
                redirect(conversion, webhooks, &ca);
            }
            definitions.push(serde_json::from_value(object)?);
        }
        try_join_all(definitions.iter().map(|definition| server.install(definition))).await?;
        let arguments = [
            format!("--kubeconfig={}", server.kubeconfig()?.display()),
            "--leader-elect=false".to_owned(),
            "--feature-gates=ClusterTopology=true".to_owned(),
            format!("--webhook-port={webhooks}"),
            format!("--webhook-cert-dir={}", home.path().display()),
            "--webhook-cert-name=server.crt".to_owned(),
            "--webhook-key-name=server.key".to_owned(),
            format!("--health-addr=127.0.0.1:{health}"),
            format!("--diagnostics-address=127.0.0.1:{diagnostics}"),
            "--insecure-diagnostics".to_owned(),
        ];
        let process = Process::start(&home, PROGRAM, &arguments)?;
        let mut this = Self { process, home };
        this.ready(health).await?;
        let client = server.client()?;
        for mut object in objects {
            let Some(hooks) = object.pointer_mut("/webhooks").and_then(Value::as_array_mut) else {
                continue;
            };
            for hook in hooks {
                redirect(&mut hook["clientConfig"], webhooks, &ca);
            }
            objects::apply(&client, &object, "test", false)
                .await
                .with_context(|| objects::title(&object))?;
        }
        Ok(this)
    }

    /// Waits until it answers; its end ends the wait.
    async fn ready(&mut self, port: u16) -> Result<()> {
        let end = tokio::time::Instant::now() + READY;
        loop {
            if let Some(status) = self.process.ended()? {
                anyhow::bail!("{PROGRAM} ended with {status}: {}", self.log());
            }
            if answers(port).await.unwrap_or(false) {
                return Ok(());
            }
            ensure!(
                tokio::time::Instant::now() < end,
                "{PROGRAM} is not ready after {READY:?}: {}",
                self.log()
            );
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    }

    /// The last lines that it wrote.
    pub fn log(&self) -> String {
        self.home.tail(&format!("{PROGRAM}.log"))
    }
}

/// Whether `/readyz` is answered with 200.
async fn answers(port: u16) -> Result<bool> {
    let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).await?;
    stream
        .write_all(b"GET /readyz HTTP/1.0\r\nHost: localhost\r\n\r\n")
        .await?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await?;
    Ok(answer.lines().next().is_some_and(|line| line.contains(" 200 ")))
}

/// Lets a webhook be called at this process instead of at a Service.
fn redirect(config: &mut Value, port: u16, ca: &str) {
    let path = text(config, "/service/path").to_owned();
    *config = json!({"url": format!("https://127.0.0.1:{port}{path}"), "caBundle": ca});
}

/// The folder of Cluster API's Go module, in the version that the lab has. Tools that come from a cache do not bring it.
///
/// # Errors
/// When Go cannot download it.
pub fn module() -> Result<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR"))
        .with_file_name("hack")
        .join("tools/capi");
    let output = Command::new("go")
        .args(["mod", "download", "-json", "sigs.k8s.io/cluster-api"])
        .current_dir(folder)
        .env("GOFLAGS", "-mod=readonly")
        .env("GOWORK", "off")
        .stdin(Stdio::null())
        .output()
        .context("go cannot run")?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "go mod download: {said}");
    let answer: Value = serde_json::from_slice(&output.stdout)?;
    let found = text(&answer, "/Dir");
    ensure!(!found.is_empty(), "go mod download: no folder in {answer}");
    Ok(PathBuf::from(found))
}

/// The objects that the provider is installed with.
fn manifests(module: &Path) -> Result<Vec<Value>> {
    let output = Command::new(tools().join("kubectl"))
        .arg("kustomize")
        .arg(module.join("core/config/default"))
        .stdin(Stdio::null())
        .output()
        .context("kubectl cannot run")?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "kubectl kustomize: {said}");
    objects::documents(&String::from_utf8(output.stdout)?)
}

/// Waits until the condition of an object is true, with its last words in the error.
///
/// # Errors
/// When it is not true in time.
pub async fn condition(
    api: &kube::Api<kube::api::DynamicObject>,
    name: &str,
    type_: &str,
    limit: Duration,
) -> Result<()> {
    until(&format!("{type_} of {name}"), limit, async || {
        let object = serde_json::to_value(api.get(name).await?)?;
        let conditions = object.pointer("/status/conditions").and_then(Value::as_array);
        let found = conditions.into_iter().flatten().find(|c| c["type"] == type_);
        let found = found.with_context(|| format!("no condition {type_}"))?;
        ensure!(found["status"] == "True", "{found}");
        let seen = found["observedGeneration"].as_i64();
        let current = object.pointer("/metadata/generation").and_then(Value::as_i64);
        ensure!(
            seen.is_none() || seen == current,
            "of generation {seen:?}: {found}"
        );
        Ok(Some(()))
    })
    .await
}
