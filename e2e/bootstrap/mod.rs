//! The bootstrap provider against a real kube-apiserver and a real kube-controller-manager. One API server is both the
//! management cluster and the workload cluster. Machines are simulated: they read the bootstrap data Secret and do what a
//! kubelet does with it.

mod machine;
mod pool;
mod record;

pub use machine::{answer, bearer, kubelet, node};
pub use record::Write;

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail, ensure};
use capi_kamaji::{
    kamajiconfig,
    pki::{
        issue,
        kubeconfig::Kubeconfig,
        material::{Ca, Found},
        spec::{AltNames, BOOTSTRAP_USER, Leaf},
    },
    runtime::{http::Readiness, metrics::Metrics, role::Role},
    settings::{DefaultDatastore, Hosting, PodOverrides, RoleName, Settings},
    tenant::bootstrap_role,
};
use k8s_openapi::{api::core::v1::Secret, jiff::Timestamp};
use kamaji_api::bootstrap::KamajiConfig;
use kube::{
    Client,
    api::{Api, ApiResource, DynamicObject, GroupVersionKind, Patch, PatchParams},
};
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use crate::{
    apiserver::{Options, TestApiServer},
    etcd::tools,
};

/// Namespace of the Clusters.
pub const NS: &str = "team";
/// The Cluster whose API server answers.
pub const CLUSTER: &str = "alpha";
/// The longest that anything with a budget may take: three times the budget, since other tests run beside.
pub const fn budget(seconds: u64) -> Duration {
    Duration::from_secs(3 * seconds)
}

/// The API servers and programs of one test; everything ends when it is dropped.
pub struct World {
    /// The API server.
    pub server: TestApiServer,
    /// A member of `system:masters`.
    pub admin: Client,
    /// What signs client certificates.
    signer: issue::Issued,
    stop: CancellationToken,
    _manager: Signer,
    home: Folder,
}

/// A kube-controller-manager that signs certificates of nodes, renews them, and deletes tokens that have ended.
pub struct Signer(Child);

impl Drop for Signer {
    fn drop(&mut self) {
        // It is being thrown away: nothing useful can be done about an error.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

struct Folder(PathBuf);

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

impl Drop for World {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

impl World {
    /// `None` where the programs are not built.
    pub async fn start(name: &str) -> Result<Option<Self>> {
        Self::recorded_by(name, &record::policy()).await
    }

    /// The same, with what the API server writes down of requests.
    pub async fn recorded_by(name: &str, policy: &Value) -> Result<Option<Self>> {
        if !tools().join("kube-controller-manager").exists() {
            ensure!(
                !std::env::var("CI").is_ok_and(|value| value == "true"),
                "kube-controller-manager is needed"
            );
            crate::skip("kube-controller-manager is not built (hack/tools makes it)");
            return Ok(None);
        }
        let home = Folder(std::env::temp_dir().join(format!("kamaji-csr-{}-{name}", std::process::id())));
        fs::create_dir_all(&home.0)?;
        let pair = issue::ca("tenant", &AltNames::default(), Timestamp::now())?;
        fs::write(home.0.join("ca.crt"), &pair.cert_pem)?;
        fs::write(home.0.join("ca.key"), pair.key_pem.expose())?;
        let mut arguments = tenant_arguments(&home.0);
        arguments.extend(record::arguments(&home.0, "audit", policy)?);
        let options = Options {
            arguments,
            ..Options::default()
        };
        let Some(server) = TestApiServer::start(&options).await? else {
            return Ok(None);
        };
        server.install_definitions().await?;
        let manager = signer(&home.0, &server)?;
        let admin = server.client()?;
        let world = Self {
            server,
            admin,
            signer: pair,
            stop: CancellationToken::new(),
            _manager: manager,
            home,
        };
        world.server.install_cluster_api().await?;
        world.server.namespace(NS).await?;
        let own = format!("https://127.0.0.1:{}", world.port()?);
        world.cluster(CLUSTER, &own).await?;
        for object in bootstrap_role::objects() {
            world.apply(&object).await?;
        }
        Ok(Some(world))
    }

    /// A provisioned and initialized Cluster, its CA, and our own identity in it. The bootstrap provider reaches its API
    /// server at `server`.
    pub async fn cluster(&self, name: &str, server: &str) -> Result<()> {
        self.cluster_at(name, server, &self.ca()?).await
    }

    /// The same, with an API server of its own, which has [`Self::tenant_arguments`].
    pub async fn tenant(&self, name: &str, server: &TestApiServer) -> Result<()> {
        let url = server.config()?.cluster_url.to_string();
        self.cluster_at(name, url.trim_end_matches('/'), &ca_of(server)?)
            .await?;
        let admin = server.client()?;
        for object in bootstrap_role::objects() {
            apply(&admin, &object).await?;
        }
        Ok(())
    }

    /// Flags of the API server of a tenant: it accepts our identity, and bootstrap tokens.
    pub fn tenant_arguments(&self) -> Vec<String> {
        tenant_arguments(&self.home.0)
    }

    /// Flags that write down what our identity requests of a tenant, in the file `<name>.log`.
    pub fn tenant_record(&self, name: &str) -> Result<Vec<String>> {
        let policy = json!({
            "apiVersion": "audit.k8s.io/v1", "kind": "Policy", "omitStages": ["RequestReceived"],
            "rules": [{"level": "Metadata", "users": [BOOTSTRAP_USER]}, {"level": "None"}],
        });
        record::arguments(&self.home.0, name, &policy)
    }

    /// Starts what signs certificates in a tenant.
    pub fn tenant_signer(&self, server: &TestApiServer) -> Result<Signer> {
        signer(&self.home.0, server)
    }

    async fn cluster_at(&self, name: &str, server: &str, server_ca: &str) -> Result<()> {
        self.apply(&json!({
            "apiVersion": "cluster.x-k8s.io/v1beta2", "kind": "Cluster", "metadata": {"name": name, "namespace": NS},
            "spec": {"controlPlaneEndpoint": {"host": "127.0.0.1", "port": self.port()?}},
        }))
        .await?;
        self.status(
            "Cluster",
            name,
            &json!({"initialization": {"infrastructureProvisioned": true, "controlPlaneInitialized": true}}),
        )
        .await?;
        let labels = json!({"cluster.x-k8s.io/cluster-name": name});
        self.apply(&json!({
            "apiVersion": "v1", "kind": "Secret", "type": "cluster.x-k8s.io/secret",
            "metadata": {"name": format!("{name}-ca"), "namespace": NS, "labels": labels},
            "stringData": {"tls.crt": server_ca},
        }))
        .await?;
        let ca = Ca::from_pem(
            &Found {
                location: "certificate".to_owned(),
                bytes: self.signer.cert_pem.as_bytes(),
            },
            &Found {
                location: "key".to_owned(),
                bytes: self.signer.key_pem.expose().as_bytes(),
            },
            None,
        )?;
        let leaf = issue::leaf(&Leaf::client(BOOTSTRAP_USER), &ca, Timestamp::now())?;
        let kubeconfig = Kubeconfig {
            cluster: name.to_owned(),
            user: BOOTSTRAP_USER.to_owned(),
            server: server.to_owned(),
            ca_pem: server_ca.to_owned(),
            certificate_pem: leaf.cert_pem,
            key_pem: leaf.key_pem,
        };
        self.apply(&json!({
            "apiVersion": "v1", "kind": "Secret", "type": "cluster.x-k8s.io/secret",
            "metadata": {"name": format!("{name}-kamaji-bootstrap"), "namespace": NS, "labels": labels},
            "stringData": {"value": kubeconfig.to_yaml()?.as_str()},
        }))
        .await?;
        Ok(())
    }

    /// Runs the controller until the returned token is cancelled.
    pub fn run(&self) -> Result<CancellationToken> {
        let (role, stop) = self.role(self.server.client()?);
        tokio::spawn(kamajiconfig::start(role));
        Ok(stop)
    }

    /// The controller with this client of the management cluster, which is not started, and what stops it.
    pub fn role(&self, client: Client) -> (Role, CancellationToken) {
        let stop = self.stop.child_token();
        let role = Role {
            name: RoleName::Bootstrap,
            client,
            settings: Arc::new(Settings {
                namespaces: std::collections::BTreeSet::default(),
                hosting: Hosting::Embedded,
                default_datastore: DefaultDatastore::None,
                own_namespace: "capi-kamaji-bootstrap-system".to_owned(),
                pod_name: None,
                concurrency: 16,
                pod_overrides: PodOverrides::default(),
                external_ips: Vec::new(),
                skip_infrastructure: false,
                infrastructure_quirks: None,
            }),
            metrics: Metrics::default(),
            readiness: Readiness::default(),
            stop: stop.clone(),
        };
        (role, stop)
    }

    fn port(&self) -> Result<u16> {
        let config = self.server.config()?;
        config.cluster_url.port_u16().context("no port")
    }

    /// The CA of the API server's certificate, PEM.
    pub fn ca(&self) -> Result<String> {
        ca_of(&self.server)
    }

    /// Untyped access to a kind in the namespace of the Clusters.
    pub fn api(&self, api_version: &str, kind: &str) -> Api<DynamicObject> {
        let (group, version) = api_version.split_once('/').unwrap_or(("", api_version));
        let resource = ApiResource::from_gvk(&GroupVersionKind::gvk(group, version, kind));
        Api::namespaced_with(self.admin.clone(), NS, &resource)
    }

    /// Applies an object as a user.
    pub async fn apply(&self, object: &Value) -> Result<DynamicObject> {
        apply(&self.admin, object).await
    }

    /// Merges into the status of an object of Cluster API.
    pub async fn status(&self, kind: &str, name: &str, status: &Value) -> Result<()> {
        let api = self.api("cluster.x-k8s.io/v1beta2", kind);
        let patch = json!({"status": status});
        api.patch_status(name, &PatchParams::default(), &Patch::Merge(&patch))
            .await?;
        Ok(())
    }
    /// The KamajiConfig of this name.
    pub async fn config(&self, name: &str) -> Result<KamajiConfig> {
        let api: Api<KamajiConfig> = Api::namespaced(self.admin.clone(), NS);
        Ok(api.get(name).await?)
    }

    /// The Secret of this name, if it exists.
    pub async fn secret(&self, namespace: &str, name: &str) -> Result<Option<Secret>> {
        let api: Api<Secret> = Api::namespaced(self.admin.clone(), namespace);
        Ok(api.get_opt(name).await?)
    }
}

fn signer(home: &Path, server: &TestApiServer) -> Result<Signer> {
    let kubeconfig = server.kubeconfig()?;
    let file = |name: &str| home.join(name).display().to_string();
    let log = fs::File::create(home.join("kcm.log"))?;
    let child = Command::new(tools().join("kube-controller-manager"))
        .args([
            format!("--kubeconfig={}", kubeconfig.display()),
            "--leader-elect=false".to_owned(),
            "--controllers=csrsigning,csrapproving,tokencleaner".to_owned(),
            format!("--cluster-signing-cert-file={}", file("ca.crt")),
            format!("--cluster-signing-key-file={}", file("ca.key")),
            "--secure-port=0".to_owned(),
        ])
        .stdin(Stdio::null())
        .stdout(log.try_clone()?)
        .stderr(log)
        .spawn()
        .context("kube-controller-manager does not start")?;
    Ok(Signer(child))
}

fn tenant_arguments(home: &Path) -> Vec<String> {
    vec![
        format!("--client-ca-file={}", home.join("ca.crt").display()),
        "--enable-bootstrap-token-auth".to_owned(),
    ]
}

/// The CA of an API server's certificate, PEM.
fn ca_of(server: &TestApiServer) -> Result<String> {
    use base64::Engine as _;
    let config = server.config()?;
    let der = config.root_cert.into_iter().flatten().next().context("no CA")?;
    let text = base64::engine::general_purpose::STANDARD.encode(der);
    let lines: Vec<_> = text
        .as_bytes()
        .chunks(64)
        .map(|line| String::from_utf8_lossy(line))
        .collect();
    Ok(format!(
        "-----BEGIN CERTIFICATE-----\n{}\n-----END CERTIFICATE-----\n",
        lines.join("\n")
    ))
}

/// Applies an object as a user.
async fn apply(admin: &Client, object: &Value) -> Result<DynamicObject> {
    let text = |pointer: &str| {
        object
            .pointer(pointer)
            .and_then(Value::as_str)
            .unwrap_or_default()
            .to_owned()
    };
    let (api_version, kind, name) = (text("/apiVersion"), text("/kind"), text("/metadata/name"));
    let (group, version) = api_version.split_once('/').unwrap_or(("", &api_version));
    let resource = ApiResource::from_gvk(&GroupVersionKind::gvk(group, version, &kind));
    let api: Api<DynamicObject> = match text("/metadata/namespace").as_str() {
        "" => Api::all_with(admin.clone(), &resource),
        namespace => Api::namespaced_with(admin.clone(), namespace, &resource),
    };
    let params = PatchParams::apply("test").force();
    api.patch(&name, &params, &Patch::Apply(object))
        .await
        .with_context(|| format!("{kind} {name}"))
}

/// The text of one key of a Secret.
pub fn text(secret: &Secret, key: &str) -> String {
    let bytes = secret.data.as_ref().and_then(|data| data.get(key));
    bytes
        .map(|bytes| String::from_utf8_lossy(&bytes.0).into_owned())
        .unwrap_or_default()
}

/// Name of the Secret of a token.
pub fn token_secret(token: &str) -> String {
    format!("bootstrap-token-{}", token.split('.').next().unwrap_or_default())
}

/// Looks until there is something, at most for a time.
pub async fn until<T>(what: &str, within: Duration, look: impl AsyncFn() -> Result<Option<T>>) -> Result<T> {
    let deadline = Instant::now() + within;
    loop {
        if let Some(found) = look().await? {
            return Ok(found);
        }
        if Instant::now() > deadline {
            bail!("not within {within:?}: {what}");
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

/// Code and message of a request that has to be refused.
pub fn refused<T: std::fmt::Debug>(result: Result<T, kube::Error>) -> Result<String> {
    match result {
        Err(kube::Error::Api(status)) => Ok(format!("{} {}", status.code, status.message)),
        other => bail!("not refused: {other:?}"),
    }
}
