//! A real kube-apiserver with its own etcd on loopback, for the duration of a test. No controller runs beside it, so
//! objects stay as they were written. Owns the two processes and their directory.

use std::{
    fs,
    net::Ipv4Addr,
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    sync::{
        Mutex, Weak,
        atomic::{AtomicU32, Ordering},
    },
    time::{Duration, Instant},
};

use anyhow::{Context, bail, ensure};
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::{
    Client, ResourceExt,
    api::{Api, Patch, PatchParams, PostParams},
    config::{AuthInfo, Config},
};

use crate::{etcd::tools, port};

/// Time an API server has to become ready on a busy machine.
const READY: Duration = Duration::from_mins(2);

/// File name of the API server's program: a full suite of `hack/test` chooses another version.
fn program() -> String {
    std::env::var("KAMAJI_API_SERVER").unwrap_or_else(|_| "kube-apiserver".to_owned())
}

/// How an API server is started.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// Version to behave like, `major.minor`; the binary's own when left out.
    pub emulated_version: Option<&'static str>,
    /// Further flags.
    pub arguments: Vec<String>,
    /// Further flags of its etcd.
    pub etcd_arguments: Vec<String>,
}

/// An API server. It ends, and its files go, when this is dropped.
pub struct TestApiServer {
    // In this order: the API server ends before its etcd.
    apiserver: Process,
    _etcd: Process,
    home: Home,
    url: String,
    ca: Vec<u8>,
    token: String,
}

impl TestApiServer {
    /// Starts one. `None` where the programs are not built, which is an error under `CI=true`.
    pub async fn start(options: &Options) -> anyhow::Result<Option<Self>> {
        for name in ["etcd", &program()] {
            let program = tools().join(name);
            if !program.exists() {
                if std::env::var("CI").is_ok_and(|value| value == "true") {
                    bail!("{} is needed here: hack/tools makes it", program.display());
                }
                crate::skip(&format!(
                    "{} is not built (hack/tools makes it)",
                    program.display()
                ));
                return Ok(None);
            }
        }
        // Another one may be installed already: that is fine.
        let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
        // A port that was free may be taken before the program has it.
        let mut last = None;
        for _ in 0..3 {
            match Self::attempt(options).await {
                Ok(server) => return Ok(Some(server)),
                Err(error) => last = Some(error),
            }
        }
        Err(last.context("no attempt was made")?)
    }

    /// One for all tests of a program: started by the first that asks, ended with the last that holds it.
    pub async fn shared(options: &Options) -> anyhow::Result<Option<std::sync::Arc<Self>>> {
        static TURN: tokio::sync::Mutex<()> = tokio::sync::Mutex::const_new(());
        static SHARED: Mutex<Weak<TestApiServer>> = Mutex::new(Weak::new());
        let _turn = TURN.lock().await;
        let running = SHARED.lock().ok().and_then(|shared| shared.upgrade());
        if running.is_some() {
            return Ok(running);
        }
        let Some(server) = Self::start(options).await? else {
            return Ok(None);
        };
        let server = std::sync::Arc::new(server);
        server.install_definitions().await?;
        if let Ok(mut shared) = SHARED.lock() {
            *shared = std::sync::Arc::downgrade(&server);
        }
        Ok(Some(server))
    }

    async fn attempt(options: &Options) -> anyhow::Result<Self> {
        let home = Home::new()?;
        let any = || port::free(Ipv4Addr::LOCALHOST.into());
        let (client, peer, secure) = (any()?, any()?, any()?);
        let etcd_url = format!("http://127.0.0.1:{client}");
        let peer_url = format!("http://127.0.0.1:{peer}");
        let mut etcd_arguments = vec![
            "--name=etcd-0".to_owned(),
            "--log-level=warn".to_owned(),
            // Nothing here outlives the test.
            "--unsafe-no-fsync".to_owned(),
            format!("--data-dir={}", home.file("etcd").display()),
            format!("--listen-client-urls={etcd_url}"),
            format!("--advertise-client-urls={etcd_url}"),
            format!("--listen-peer-urls={peer_url}"),
            format!("--initial-advertise-peer-urls={peer_url}"),
            format!("--initial-cluster=etcd-0={peer_url}"),
        ];
        etcd_arguments.extend(options.etcd_arguments.iter().cloned());
        let etcd = Process::start(&home, "etcd", &etcd_arguments)?;
        let ca = certificates(&home)?;
        let token = format!("{:032x}", rand::random::<u128>());
        fs::write(
            home.file("tokens.csv"),
            format!("{token},test-admin,test-admin,system:masters\n"),
        )?;
        let file = |name: &str| home.file(name).display().to_string();
        let mut arguments = vec![
            format!("--etcd-servers={etcd_url}"),
            "--bind-address=127.0.0.1".to_owned(),
            "--advertise-address=127.0.0.1".to_owned(),
            format!("--secure-port={secure}"),
            format!("--tls-cert-file={}", file("server.crt")),
            format!("--tls-private-key-file={}", file("server.key")),
            format!("--token-auth-file={}", file("tokens.csv")),
            format!("--service-account-key-file={}", file("server.pub")),
            format!("--service-account-signing-key-file={}", file("server.key")),
            "--service-account-issuer=https://kubernetes.default.svc".to_owned(),
            "--authorization-mode=Node,RBAC".to_owned(),
            "--service-cluster-ip-range=10.255.0.0/24".to_owned(),
            // No controller makes the default ServiceAccount, so pods would wait for it.
            "--disable-admission-plugins=ServiceAccount".to_owned(),
        ];
        if let Some(version) = options.emulated_version {
            arguments.push(format!("--emulated-version={version}"));
        }
        arguments.extend(options.arguments.iter().cloned());
        let apiserver = Process::start(&home, &program(), &arguments)?;
        let url = format!("https://127.0.0.1:{secure}");
        let mut this = Self {
            apiserver,
            _etcd: etcd,
            home,
            url,
            ca,
            token,
        };
        this.ready().await?;
        Ok(this)
    }

    /// Waits until `/readyz` answers; an end of the process ends the wait.
    async fn ready(&mut self) -> anyhow::Result<()> {
        let client = self.client()?;
        let deadline = Instant::now() + READY;
        loop {
            let request = http::Request::get("/readyz").body(Vec::new())?;
            if client.request_text(request).await.is_ok() {
                return Ok(());
            }
            if let Some(status) = self.apiserver.ended()? {
                bail!(
                    "kube-apiserver ended with {status}: {}",
                    self.home.tail("kube-apiserver.log")
                );
            }
            if Instant::now() > deadline {
                bail!(
                    "kube-apiserver is not ready after {READY:?}: {}",
                    self.home.tail("kube-apiserver.log")
                );
            }
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    }

    /// How to connect, as a member of `system:masters`.
    pub fn config(&self) -> anyhow::Result<Config> {
        let mut config = Config::new(self.url.parse()?);
        config.root_cert = Some(vec![self.ca.clone()]);
        config.auth_info = AuthInfo {
            token: Some(self.token.clone().into()),
            ..AuthInfo::default()
        };
        Ok(config)
    }

    /// A client of a member of `system:masters`.
    pub fn client(&self) -> anyhow::Result<Client> {
        Ok(Client::try_from(self.config()?)?)
    }

    /// A kubeconfig file for other programs.
    pub fn kubeconfig(&self) -> anyhow::Result<PathBuf> {
        let path = self.home.file("kubeconfig");
        let text = serde_json::json!({
            "apiVersion": "v1",
            "kind": "Config",
            "current-context": "test",
            "clusters": [{"name": "test", "cluster": {
                "server": self.url, "certificate-authority": self.home.file("ca.crt"),
            }}],
            "users": [{"name": "test", "user": {"token": self.token}}],
            "contexts": [{"name": "test", "context": {"cluster": "test", "user": "test"}}],
        });
        // Another test may read it at this moment.
        let part = self
            .home
            .file(&format!("kubeconfig-{:016x}", rand::random::<u64>()));
        fs::write(&part, text.to_string())?;
        fs::rename(&part, &path)?;
        Ok(path)
    }

    /// Installs our definitions and waits until each is served.
    pub async fn install_definitions(&self) -> anyhow::Result<()> {
        for definition in kamaji_api::crd::all_crds() {
            self.install(&definition).await?;
        }
        Ok(())
    }

    /// Applies a definition and waits until it is served.
    pub async fn install(&self, definition: &CustomResourceDefinition) -> anyhow::Result<()> {
        let definitions: Api<CustomResourceDefinition> = Api::all(self.client()?);
        let name = definition.name_any();
        let spec = &definition.spec;
        let version = spec
            .versions
            .iter()
            .find(|version| version.served)
            .context("no version")?;
        let path = format!("/apis/{}/{}/{}", spec.group, version.name, spec.names.plural);
        let params = PatchParams::apply("test").force();
        definitions
            .patch(&name, &params, &Patch::Apply(definition))
            .await
            .with_context(|| name.clone())?;
        let deadline = Instant::now() + READY;
        loop {
            let conditions = definitions
                .get(&name)
                .await?
                .status
                .and_then(|status| status.conditions)
                .unwrap_or_default();
            let established = conditions
                .iter()
                .any(|c| c.type_ == "Established" && c.status == "True");
            // A kind is served a moment after it is established.
            let list = http::Request::get(&path).body(Vec::new())?;
            if established && definitions.clone().into_client().request_text(list).await.is_ok() {
                return Ok(());
            }
            ensure!(Instant::now() < deadline, "{name} is not served: {conditions:?}");
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }

    /// Installs definitions of the kinds of Cluster API that the controllers watch. Their schemas accept anything.
    pub async fn install_cluster_api(&self) -> anyhow::Result<()> {
        let open = serde_json::json!({"type": "object", "x-kubernetes-preserve-unknown-fields": true});
        for (kind, plural) in [
            ("Cluster", "clusters"),
            ("Machine", "machines"),
            ("MachinePool", "machinepools"),
        ] {
            let definition = serde_json::from_value(serde_json::json!({
                "metadata": {"name": format!("{plural}.cluster.x-k8s.io")},
                "spec": {
                    "group": "cluster.x-k8s.io", "scope": "Namespaced",
                    "names": {"kind": kind, "plural": plural},
                    "versions": [{
                        "name": "v1beta2", "served": true, "storage": true, "subresources": {"status": {}},
                        "schema": {"openAPIV3Schema": {"type": "object", "properties": {"spec": open, "status": open}}},
                    }],
                },
            }))?;
            self.install(&definition).await?;
        }
        Ok(())
    }

    /// Creates a namespace.
    pub async fn namespace(&self, name: &str) -> anyhow::Result<()> {
        let namespaces: Api<k8s_openapi::api::core::v1::Namespace> = Api::all(self.client()?);
        let namespace = serde_json::from_value(serde_json::json!({"metadata": {"name": name}}))?;
        namespaces.create(&PostParams::default(), &namespace).await?;
        Ok(())
    }
}

/// A process that is ended when this is dropped.
pub(crate) struct Process {
    child: Child,
}

impl Process {
    /// Starts a tool; what it writes goes to a file of its name in `home`.
    pub(crate) fn start(home: &Home, name: &str, arguments: &[String]) -> anyhow::Result<Self> {
        let log = fs::File::create(home.file(&format!("{name}.log")))?;
        let child = Command::new(tools().join(name))
            .args(arguments)
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()
            .with_context(|| format!("{name} does not start"))?;
        Ok(Self { child })
    }

    /// How it ended, if it did.
    pub(crate) fn ended(&mut self) -> anyhow::Result<Option<ExitStatus>> {
        Ok(self.child.try_wait()?)
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // It is being thrown away: nothing useful can be done about an error.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A directory that is removed when this is dropped.
pub(crate) struct Home(PathBuf);

impl Home {
    pub(crate) fn new() -> anyhow::Result<Self> {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::SeqCst);
        let path = std::env::temp_dir().join(format!("kamaji-apiserver-{}-{number}", std::process::id()));
        fs::create_dir_all(&path)?;
        Ok(Self(path))
    }

    pub(crate) fn path(&self) -> &Path {
        &self.0
    }

    pub(crate) fn file(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    /// The last lines of a log.
    pub(crate) fn tail(&self, name: &str) -> String {
        let text = fs::read_to_string(self.file(name)).unwrap_or_default();
        let lines: Vec<_> = text.lines().rev().take(15).collect();
        lines.into_iter().rev().collect::<Vec<_>>().join("\n")
    }
}

impl Drop for Home {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// Writes a CA and a serving certificate for loopback. Returns the certificate of the CA in DER.
pub(crate) fn certificates(home: &Home) -> anyhow::Result<Vec<u8>> {
    let mut ca = rcgen::CertificateParams::default();
    ca.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    ca.distinguished_name.push(rcgen::DnType::CommonName, "test CA");
    let ca_key = rcgen::KeyPair::generate()?;
    let certificate = ca.self_signed(&ca_key)?;
    let issuer = rcgen::Issuer::new(ca, ca_key);
    let key = rcgen::KeyPair::generate()?;
    let mut server = rcgen::CertificateParams::new(vec!["localhost".to_owned(), "127.0.0.1".to_owned()])?;
    server
        .distinguished_name
        .push(rcgen::DnType::CommonName, "kube-apiserver");
    server.extended_key_usages = vec![rcgen::ExtendedKeyUsagePurpose::ServerAuth];
    fs::write(home.file("server.crt"), server.signed_by(&key, &issuer)?.pem())?;
    fs::write(home.file("server.key"), key.serialize_pem())?;
    // ServiceAccount tokens are signed by the same key.
    fs::write(home.file("server.pub"), key.public_key_pem())?;
    fs::write(home.file("ca.crt"), certificate.pem())?;
    Ok(certificate.der().to_vec())
}
