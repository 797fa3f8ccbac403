//! The bootstrap provider against a real kube-apiserver and a real kube-controller-manager. One API server is both
//! the
//! management cluster and the workload cluster. Machines are simulated: they read the bootstrap data Secret and do
//! what a
//! kubelet does with it. The numbers are rows of `docs/src/reference/bootstrap.md`.

use std::{
    fs,
    path::PathBuf,
    process::{Child, Command, Stdio},
    sync::{Arc, LazyLock},
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
use e2e::{
    apiserver::{Options, TestApiServer},
    csr,
    etcd::tools,
};
use k8s_openapi::{
    ByteString,
    api::{
        certificates::v1::CertificateSigningRequest,
        core::v1::{Event, Node, Secret},
    },
    jiff::Timestamp,
};
use kamaji_api::bootstrap::KamajiConfig;
use kube::{
    Client, ResourceExt as _,
    api::{
        Api, ApiResource, DeleteParams, DynamicObject, GroupVersionKind, ListParams, Patch, PatchParams,
        PostParams,
    },
    config::{AuthInfo, Config},
};
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

const NS: &str = "team";
const CLUSTER: &str = "alpha";
/// The longest that anything with a budget may take here: three times the budget, since other tests run beside.
const fn budget(seconds: u64) -> Duration {
    Duration::from_secs(3 * seconds)
}
/// Who answers certificate requests and who makes tokens is written down.
static AUDIT: LazyLock<Value> = LazyLock::new(|| {
    json!({
        "apiVersion": "audit.k8s.io/v1", "kind": "Policy", "omitStages": ["RequestReceived"],
        "rules": [
            {
                "level": "Metadata", "verbs": ["update", "patch"],
                "resources": [{"group": "certificates.k8s.io", "resources": ["certificatesigningrequests/approval"]}],
            },
            {
                "level": "Metadata", "verbs": ["create"], "namespaces": ["kube-system"],
                "resources": [{"group": "", "resources": ["secrets"]}],
            },
            {"level": "None"},
        ],
    })
});

/// The API servers and programs of one test; everything ends when it is dropped.
struct World {
    server: TestApiServer,
    admin: Client,
    stop: CancellationToken,
    _manager: Running,
    home: Folder,
}

struct Running(Child);

impl Drop for Running {
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
    async fn start(name: &str) -> Result<Option<Self>> {
        if !tools().join("kube-controller-manager").exists() {
            ensure!(
                !std::env::var("CI").is_ok_and(|value| value == "true"),
                "kube-controller-manager is needed"
            );
            e2e::skip("kube-controller-manager is not built (hack/tools makes it)");
            return Ok(None);
        }
        let home = Folder(std::env::temp_dir().join(format!("kamaji-csr-{}-{name}", std::process::id())));
        fs::create_dir_all(&home.0)?;
        let pair = issue::ca("tenant", &AltNames::default(), Timestamp::now())?;
        fs::write(home.0.join("ca.crt"), &pair.cert_pem)?;
        fs::write(home.0.join("ca.key"), pair.key_pem.expose())?;
        fs::write(home.0.join("audit.yaml"), AUDIT.to_string())?;
        let file = |name: &str| home.0.join(name).display().to_string();
        let options = Options {
            arguments: vec![
                format!("--client-ca-file={}", file("ca.crt")),
                "--enable-bootstrap-token-auth".to_owned(),
                format!("--audit-policy-file={}", file("audit.yaml")),
                format!("--audit-log-path={}", file("audit.log")),
            ],
            ..Options::default()
        };
        let Some(server) = TestApiServer::start(&options).await? else {
            return Ok(None);
        };
        server.install_definitions().await?;
        let kubeconfig = server.kubeconfig()?;
        let log = fs::File::create(home.0.join("kcm.log"))?;
        let manager = Running(
            Command::new(tools().join("kube-controller-manager"))
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
                .context("kube-controller-manager does not start")?,
        );
        let admin = server.client()?;
        let world = Self {
            server,
            admin,
            stop: CancellationToken::new(),
            _manager: manager,
            home,
        };
        world.server.install_cluster_api().await?;
        world.cluster(&pair).await?;
        Ok(Some(world))
    }

    /// A provisioned and initialized Cluster, its CA, and our own identity in it.
    async fn cluster(&self, pair: &issue::Issued) -> Result<()> {
        self.server.namespace(NS).await?;
        self.apply(&json!({
            "apiVersion": "cluster.x-k8s.io/v1beta2", "kind": "Cluster", "metadata": {"name": CLUSTER, "namespace": NS},
            "spec": {"controlPlaneEndpoint": {"host": "127.0.0.1", "port": self.port()?}},
        }))
        .await?;
        self.status(
            "Cluster",
            CLUSTER,
            &json!({"initialization": {"infrastructureProvisioned": true, "controlPlaneInitialized": true}}),
        )
        .await?;
        let labels = json!({"cluster.x-k8s.io/cluster-name": CLUSTER});
        self.apply(&json!({
            "apiVersion": "v1", "kind": "Secret", "type": "cluster.x-k8s.io/secret",
            "metadata": {"name": format!("{CLUSTER}-ca"), "namespace": NS, "labels": labels},
            "stringData": {"tls.crt": self.ca()?},
        }))
        .await?;
        let ca = Ca::from_pem(
            &Found {
                location: "certificate".to_owned(),
                bytes: pair.cert_pem.as_bytes(),
            },
            &Found {
                location: "key".to_owned(),
                bytes: pair.key_pem.expose().as_bytes(),
            },
            None,
        )?;
        let leaf = issue::leaf(&Leaf::client(BOOTSTRAP_USER), &ca, Timestamp::now())?;
        let kubeconfig = Kubeconfig {
            cluster: CLUSTER.to_owned(),
            user: BOOTSTRAP_USER.to_owned(),
            server: format!("https://127.0.0.1:{}", self.port()?),
            ca_pem: self.ca()?,
            certificate_pem: leaf.cert_pem,
            key_pem: leaf.key_pem,
        };
        self.apply(&json!({
            "apiVersion": "v1", "kind": "Secret", "type": "cluster.x-k8s.io/secret",
            "metadata": {"name": format!("{CLUSTER}-kamaji-bootstrap"), "namespace": NS, "labels": labels},
            "stringData": {"value": kubeconfig.to_yaml()?.as_str()},
        }))
        .await?;
        for object in bootstrap_role::objects() {
            self.apply(&object).await?;
        }
        Ok(())
    }

    /// Runs the controller until the returned token is cancelled.
    fn run(&self) -> Result<CancellationToken> {
        let stop = self.stop.child_token();
        let role = Role {
            name: RoleName::Bootstrap,
            client: self.server.client()?,
            settings: Arc::new(Settings {
                namespaces: std::collections::BTreeSet::default(),
                hosting: Hosting::Embedded,
                default_datastore: DefaultDatastore::None,
                own_namespace: "capi-kamaji-bootstrap-system".to_owned(),
                pod_name: None,
                concurrency: 16,
                pod_overrides: PodOverrides::default(),
                external_ips: Vec::new(),
            }),
            metrics: Metrics::default(),
            readiness: Readiness::default(),
            stop: stop.clone(),
        };
        tokio::spawn(kamajiconfig::start(role));
        Ok(stop)
    }

    fn port(&self) -> Result<u16> {
        let config = self.server.config()?;
        config.cluster_url.port_u16().context("no port")
    }

    /// The CA of the API server's certificate, PEM.
    fn ca(&self) -> Result<String> {
        use base64::Engine as _;
        let config = self.server.config()?;
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

    fn api(&self, api_version: &str, kind: &str) -> Api<DynamicObject> {
        let (group, version) = api_version.split_once('/').unwrap_or(("", api_version));
        let resource = ApiResource::from_gvk(&GroupVersionKind::gvk(group, version, kind));
        Api::namespaced_with(self.admin.clone(), NS, &resource)
    }

    async fn apply(&self, object: &Value) -> Result<DynamicObject> {
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
            "" => Api::all_with(self.admin.clone(), &resource),
            namespace => Api::namespaced_with(self.admin.clone(), namespace, &resource),
        };
        let params = PatchParams::apply("test").force();
        api.patch(&name, &params, &Patch::Apply(object))
            .await
            .with_context(|| format!("{kind} {name}"))
    }

    async fn status(&self, kind: &str, name: &str, status: &Value) -> Result<()> {
        let api = self.api("cluster.x-k8s.io/v1beta2", kind);
        let patch = json!({"status": status});
        api.patch_status(name, &PatchParams::default(), &Patch::Merge(&patch))
            .await?;
        Ok(())
    }

    /// A Machine and its config.
    async fn machine(&self, name: &str, spec: Value) -> Result<()> {
        let labels = json!({"cluster.x-k8s.io/cluster-name": CLUSTER});
        let machine = self
            .apply(&json!({
                "apiVersion": "cluster.x-k8s.io/v1beta2", "kind": "Machine",
                "metadata": {"name": name, "namespace": NS, "labels": labels},
                "spec": {
                    "clusterName": CLUSTER, "version": "v1.36.3",
                    "bootstrap": {"configRef": {"apiGroup": "bootstrap.cluster.x-k8s.io", "kind": "KamajiConfig", "name": name}},
                    "infrastructureRef": {"apiGroup": "x.io", "kind": "X", "name": name},
                },
            }))
            .await?;
        self.apply(&json!({
            "apiVersion": "bootstrap.cluster.x-k8s.io/v1alpha1", "kind": "KamajiConfig",
            "metadata": {
                "name": name, "namespace": NS, "labels": labels,
                "ownerReferences": [{
                    "apiVersion": "cluster.x-k8s.io/v1beta2", "kind": "Machine", "name": name,
                    "uid": machine.uid(), "controller": true,
                }],
            },
            "spec": spec,
        }))
        .await?;
        Ok(())
    }

    async fn config(&self, name: &str) -> Result<KamajiConfig> {
        let api: Api<KamajiConfig> = Api::namespaced(self.admin.clone(), NS);
        Ok(api.get(name).await?)
    }

    async fn secret(&self, namespace: &str, name: &str) -> Result<Option<Secret>> {
        let api: Api<Secret> = Api::namespaced(self.admin.clone(), namespace);
        Ok(api.get_opt(name).await?)
    }

    /// The token of a machine whose data was announced.
    async fn token(&self, name: &str) -> Result<String> {
        until(
            &format!("{name} has its data"),
            Duration::from_secs(30),
            async || {
                let config = self.config(name).await?;
                let status = config.status.unwrap_or_default();
                if status.initialization.and_then(|done| done.data_secret_created) != Some(true) {
                    return Ok(None);
                }
                let secret = self.secret(NS, name).await?.context("announced and not there")?;
                Ok(Some(text(&secret, "token")))
            },
        )
        .await
    }

    /// What a machine with this token can do.
    fn bearer(&self, token: &str) -> Result<Client> {
        let mut config: Config = self.server.config()?;
        config.auth_info = AuthInfo {
            token: Some(token.to_owned().into()),
            ..AuthInfo::default()
        };
        config.default_retry = false;
        Ok(Client::try_from(config)?)
    }

    /// Posts the request of a kubelet for this node.
    async fn ask(&self, client: &Client, node: &str) -> Result<String> {
        self.ask_as(
            client,
            &format!("system:node:{node}"),
            "system:nodes",
            &csr::KUBELET_USAGES,
        )
        .await
    }

    async fn ask_as(&self, client: &Client, name: &str, group: &str, usages: &[&str]) -> Result<String> {
        let request = csr::request(name, group, usages)?;
        let api: Api<CertificateSigningRequest> = Api::all(client.clone());
        Ok(api.create(&PostParams::default(), &request).await?.name_any())
    }

    /// What became of a request: type and reason of its condition, and whether there is a certificate.
    async fn answer(&self, name: &str, within: Duration) -> Result<(String, String)> {
        let api: Api<CertificateSigningRequest> = Api::all(self.admin.clone());
        until(&format!("{name} is answered"), within, async || {
            let status = api.get(name).await?.status.unwrap_or_default();
            let first = status.conditions.unwrap_or_default().into_iter().next();
            Ok(first.map(|c| (c.type_, c.reason.unwrap_or_default())))
        })
        .await
    }

    /// Users who wrote the object of this name, by the API server's own record: one entry a write.
    fn writers(&self, name: &str) -> Result<Vec<String>> {
        let text = fs::read_to_string(self.home.0.join("audit.log"))?;
        // The last line may be half written.
        let events = text
            .lines()
            .filter_map(|line| serde_json::from_str::<Value>(line).ok());
        Ok(events
            .filter(|event| event["objectRef"]["name"] == name)
            .filter(|event| matches!(event["responseStatus"]["code"].as_u64(), Some(200 | 201)))
            .filter_map(|event| event["user"]["username"].as_str().map(str::to_owned))
            .collect())
    }

    async fn certificate(&self, name: &str) -> Result<Vec<u8>> {
        let api: Api<CertificateSigningRequest> = Api::all(self.admin.clone());
        until(
            &format!("{name} is signed"),
            Duration::from_secs(30),
            async || {
                Ok(api
                    .get(name)
                    .await?
                    .status
                    .and_then(|status| status.certificate)
                    .map(|bytes| bytes.0))
            },
        )
        .await
    }

    async fn node(&self, name: &str) -> Result<()> {
        let api: Api<Node> = Api::all(self.admin.clone());
        let node: Node = serde_json::from_value(json!({"metadata": {"name": name}}))?;
        api.create(&PostParams::default(), &node).await?;
        let status = json!({"status": {"nodeInfo": {
            "kubeletVersion": "v1.36.3", "architecture": "", "bootID": "", "containerRuntimeVersion": "", "kernelVersion": "",
            "kubeProxyVersion": "", "machineID": "", "operatingSystem": "", "osImage": "", "systemUUID": "",
        }}});
        api.patch_status(name, &PatchParams::default(), &Patch::Merge(&status))
            .await?;
        Ok(())
    }

    async fn condition(&self, name: &str, type_: &str, reason: &str) -> Result<String> {
        until(
            &format!("{name} says {type_} {reason}"),
            Duration::from_secs(30),
            async || {
                let conditions = self.config(name).await?.status.unwrap_or_default().conditions;
                let found = conditions.iter().find(|c| c.type_ == type_ && c.reason == reason);
                Ok(found.map(|c| c.message.clone()))
            },
        )
        .await
    }
}

fn text(secret: &Secret, key: &str) -> String {
    let bytes = secret.data.as_ref().and_then(|data| data.get(key));
    bytes
        .map(|bytes| String::from_utf8_lossy(&bytes.0).into_owned())
        .unwrap_or_default()
}

fn token_secret(token: &str) -> String {
    format!("bootstrap-token-{}", token.split('.').next().unwrap_or_default())
}

/// Looks until there is something, at most for a time.
async fn until<T>(what: &str, within: Duration, look: impl AsyncFn() -> Result<Option<T>>) -> Result<T> {
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

fn refused<T: std::fmt::Debug>(result: Result<T, kube::Error>) -> Result<String> {
    match result {
        Err(kube::Error::Api(status)) => Ok(format!("{} {}", status.code, status.message)),
        other => bail!("not refused: {other:?}"),
    }
}

/// Rows 2, 3, 5, 11, 13, 14, 16, 17, 59, 60: the way of one machine that behaves.
#[tokio::test(flavor = "multi_thread")]
#[expect(clippy::too_many_lines, reason = "the way of one machine is one story")]
async fn bootstrap_13_14_16_17_59_60_one_machine_joins_and_its_token_goes() -> Result<()> {
    let Some(world) = World::start("joins").await? else {
        return Ok(());
    };
    let controller = world.run()?;
    world.machine("m1", json!({})).await?;
    let token = world.token("m1").await?;
    let data = world.secret(NS, "m1").await?.context("no data")?;
    let cloud_config = text(&data, "value");
    ensure!(cloud_config.starts_with("#cloud-config\n") && text(&data, "format") == "cloud-config");
    ensure!(data.type_.as_deref() == Some("cluster.x-k8s.io/secret"));

    // 11: the token has the form of a bootstrap token, and is in no object but the two Secrets.
    let made = world
        .secret("kube-system", &token_secret(&token))
        .await?
        .context("no token")?;
    ensure!(text(&made, "auth-extra-groups") == "system:bootstrappers:kamaji:nodes");
    ensure!(
        !text(&made, "usage-bootstrap-authentication").is_empty()
            && text(&made, "usage-bootstrap-signing").is_empty()
    );
    let secret_part = token.split_once('.').context("no token")?.1.to_owned();
    let config = serde_json::to_string(&world.config("m1").await?)?;
    ensure!(!config.contains(&secret_part), "the KamajiConfig holds the token");
    let events: Api<k8s_openapi::api::events::v1::Event> = Api::all(world.admin.clone());
    ensure!(
        !serde_json::to_string(&events.list(&ListParams::default()).await?.items)?.contains(&secret_part)
    );

    // 16: the token is good for nothing else.
    let machine = world.bearer(&token)?;
    let secrets: Api<Secret> = Api::namespaced(machine.clone(), "kube-system");
    ensure!(refused(secrets.list(&ListParams::default()).await)?.starts_with("403"));
    let nodes: Api<Node> = Api::all(machine.clone());
    ensure!(refused(nodes.list(&ListParams::default()).await)?.starts_with("403"));
    let requests: Api<CertificateSigningRequest> = Api::all(machine.clone());
    ensure!(refused(requests.delete("x", &DeleteParams::default()).await)?.starts_with("403"));

    // 60: a report is named after its own token and no longer than it may be; other signers are refused.
    let reports: Api<Event> = Api::namespaced(machine.clone(), "kamaji-bootstrap");
    let report = |name: String, message: String| -> Result<Event> {
        Ok(serde_json::from_value(json!({
            "metadata": {"name": name}, "involvedObject": {"kind": "KamajiConfig", "namespace": "kamaji-bootstrap", "name": "m1"},
            "reason": "PreJoinFailed", "message": message, "type": "Warning", "lastTimestamp": Timestamp::now().to_string(),
        }))?)
    };
    let id = token.split('.').next().unwrap_or_default().to_owned();
    let params = PostParams::default();
    until("the policy is in force", Duration::from_secs(30), async || {
        let answer = reports
            .create(
                &params,
                &report(format!("zzzzzz.{}", rand::random::<u32>()), "x".to_owned())?,
            )
            .await;
        Ok(refused(answer)
            .ok()
            .filter(|why| why.contains("not named after the token")))
    })
    .await?;
    let long = reports
        .create(&params, &report(format!("{id}.long"), "x".repeat(2000))?)
        .await;
    ensure!(refused(long)?.contains("longer than 1024"));
    reports
        .create(
            &params,
            &report(
                format!("{id}.fine"),
                format!("command 0000 exited with 3 {token}"),
            )?,
        )
        .await?;
    let said = world.condition("m1", "NodeJoined", "PreJoinFailed").await?;
    ensure!(said == "command 0000 exited with 3 (token)", "{said}");
    let foreign: CertificateSigningRequest = serde_json::from_value(json!({
        "metadata": {"generateName": "x-"},
        "spec": {
            "signerName": "kubernetes.io/kube-apiserver-client", "usages": ["client auth"],
            "request": ByteString(csr::pem("alice", "people")?.into_bytes()),
        },
    }))?;
    let answer = refused(requests.create(&params, &foreign).await)?;
    ensure!(answer.contains("may only ask"), "{answer}");

    // 14: a token that was deleted by hand is restored.
    let tokens: Api<Secret> = Api::namespaced(world.admin.clone(), "kube-system");
    tokens
        .delete(&token_secret(&token), &DeleteParams::default())
        .await?;
    let back = until("the token is back", Duration::from_secs(5), async || {
        world.secret("kube-system", &token_secret(&token)).await
    })
    .await?;
    ensure!(text(&back, "token-secret") == secret_part);

    // 3 and 5: another process, and a lost status: the same data, the same token.
    controller.cancel();
    let configs: Api<KamajiConfig> = Api::namespaced(world.admin.clone(), NS);
    let lost = json!([{"op": "remove", "path": "/status"}]);
    configs
        .patch_status(
            "m1",
            &PatchParams::default(),
            &Patch::<()>::Json(serde_json::from_value(lost)?),
        )
        .await?;
    let mut again = world.run()?;
    ensure!(world.token("m1").await? == token);
    ensure!(text(&world.secret(NS, "m1").await?.context("no data")?, "value") == cloud_config);
    let ours = ListParams::default().labels("capi-kamaji.io/managed-by=kamaji-bootstrap");
    ensure!(tokens.list(&ours).await?.items.len() == 1);

    // 17: the kubelet's request is approved by us and signed.
    let posted = Instant::now();
    let request = world.ask(&machine, "m1").await?;
    let (type_, reason) = world.answer(&request, budget(2)).await?;
    println!("approved after {:?}, the budget is 2 s", posted.elapsed());
    ensure!(
        (type_.as_str(), reason.as_str()) == ("Approved", "KamajiTokenBound"),
        "{type_} {reason}"
    );
    let by = until("the answer is on record", budget(2), async || {
        Ok(Some(world.writers(&request)?).filter(|by| !by.is_empty()))
    })
    .await?;
    ensure!(by == [BOOTSTRAP_USER], "approved by {by:?}");
    ensure!(!world.certificate(&request).await?.is_empty());
    let claim = world
        .config("m1")
        .await?
        .status
        .and_then(|status| status.node)
        .context("no claim")?;
    ensure!(claim.name.as_deref() == Some("m1") && claim.approvals == Some(1));

    // 25: the kubelet restarts before it has stored its certificate.
    let second = world.ask(&machine, "m1").await?;
    ensure!(world.answer(&second, Duration::from_secs(10)).await?.0 == "Approved");

    // 13: the token is deleted when the Node appears, although the infrastructure has set no provider ID yet.
    world.node("m1").await?;
    let appeared = Instant::now();
    until("the token is gone", budget(5), async || {
        let there = world.secret("kube-system", &token_secret(&token)).await?;
        Ok(there.is_none().then_some(()))
    })
    .await?;
    println!("token gone after {:?}, the budget is 5 s", appeared.elapsed());
    world
        .condition("m1", "ProviderIDSet", "WaitingForProviderID")
        .await?;
    // A used token is not created again: not by another reconcile, and not by another process.
    let made = world.writers(&token_secret(&token))?;
    ensure!(!made.is_empty(), "the token was never made");
    for (round, restart) in [(1, false), (2, true)] {
        if restart {
            again.cancel();
            again = world.run()?;
        }
        let label = json!({"metadata": {"labels": {"round": round.to_string()}}});
        world
            .api("cluster.x-k8s.io/v1beta2", "Machine")
            .patch("m1", &PatchParams::default(), &Patch::Merge(label))
            .await?;
        // When another config is finished, the controller has reconciled this one too.
        let other = format!("other{round}");
        world.machine(&other, json!({})).await?;
        world.token(&other).await?;
        world.condition("m1", "NodeJoined", "NodeJoined").await?;
    }
    world
        .api("cluster.x-k8s.io/v1beta2", "Machine")
        .patch(
            "m1",
            &PatchParams::default(),
            &Patch::Merge(json!({"spec": {"providerID": "local:///m1"}})),
        )
        .await?;

    // 59: the provider id follows.
    let node: Api<Node> = Api::all(world.admin.clone());
    let given = Instant::now();
    until("the provider id is there", budget(5), async || {
        let id = node.get("m1").await?.spec.and_then(|spec| spec.provider_id);
        Ok((id.as_deref() == Some("local:///m1")).then_some(()))
    })
    .await?;
    println!("provider id there after {:?}, the budget is 5 s", given.elapsed());
    until("the token is refused", Duration::from_secs(15), async || {
        Ok(refused(nodes.list(&ListParams::default()).await)?
            .starts_with("401")
            .then_some(()))
    })
    .await?;
    world.condition("m1", "NodeJoined", "NodeJoined").await?;
    world
        .condition("m1", "BootstrapTokenValid", "TokenRemoved")
        .await?;
    world.condition("m1", "ProviderIDSet", "ProviderIDSet").await?;
    let after = world.writers(&token_secret(&token))?;
    ensure!(
        after == made,
        "the token was made {} times more",
        after.len() - made.len()
    );
    let status = world.config("m1").await?.status.context("no status")?;
    for condition in &status.conditions {
        let wanted = if kamaji_api::conditions::is_negative(&condition.type_) {
            "False"
        } else {
            "True"
        };
        ensure!(
            condition.status == wanted,
            "{} is {}: {}",
            condition.type_,
            condition.status,
            condition.message
        );
    }
    Ok(())
}

/// Rows 18, 19, 20, 21, 22, 23: machines and people that do not behave.
#[tokio::test(flavor = "multi_thread")]
#[expect(
    clippy::too_many_lines,
    reason = "one world for all who do not behave: starting one takes seconds"
)]
async fn bootstrap_18_to_23_hostile_requests_are_denied_and_foreign_ones_left_alone() -> Result<()> {
    let Some(world) = World::start("hostile").await? else {
        return Ok(());
    };
    world.node("existing").await?;
    let _controller = world.run()?;
    world.machine("a", json!({})).await?;
    world.machine("b", json!({})).await?;
    let (a, b) = (
        world.bearer(&world.token("a").await?)?,
        world.bearer(&world.token("b").await?)?,
    );
    let soon = Duration::from_secs(10);
    let denied = async |request: String, reason: &str| -> Result<()> {
        let answer = world.answer(&request, soon).await?;
        ensure!(
            answer == ("Denied".to_owned(), reason.to_owned()),
            "{answer:?}, not {reason}"
        );
        Ok(())
    };
    // 18, 19: names of others, existing or not.
    for name in ["existing", "b", "stranger"] {
        denied(world.ask(&a, name).await?, "NameMismatch").await?;
    }
    // 21: not what a kubelet sends.
    let client = ["digital signature", "client auth"];
    denied(
        world
            .ask_as(&a, "system:node:a", "system:masters", &client)
            .await?,
        "MalformedRequest",
    )
    .await?;
    denied(
        world.ask_as(&a, "cluster-admin", "system:nodes", &client).await?,
        "MalformedRequest",
    )
    .await?;
    // 17 still applies to both.
    for (client, name) in [(&a, "a"), (&b, "b")] {
        let request = world.ask(client, name).await?;
        ensure!(world.answer(&request, soon).await?.0 == "Approved");
    }
    // 20: a second name.
    denied(world.ask(&a, "a2").await?, "NameMismatch").await?;

    // 22: a person's and a kubeadm token's requests are not ours.
    let mut config = world.server.config()?;
    config.auth_info.impersonate = Some("alice".to_owned());
    let alice = Client::try_from(config)?;
    let kubeadm = "kubead.0123456789abcdef";
    world
        .apply(&json!({
            "apiVersion": "v1", "kind": "Secret", "type": "bootstrap.kubernetes.io/token",
            "metadata": {"name": "bootstrap-token-kubead", "namespace": "kube-system"},
            "stringData": {
                "token-id": "kubead", "token-secret": "0123456789abcdef", "usage-bootstrap-authentication": "true",
                "auth-extra-groups": "system:bootstrappers:kubeadm:default-node-token",
            },
        }))
        .await?;
    world
        .apply(&json!({
            "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRoleBinding", "metadata": {"name": "kubeadm:kubelet-bootstrap"},
            "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "system:node-bootstrapper"},
            "subjects": [
                {"apiGroup": "rbac.authorization.k8s.io", "kind": "Group", "name": "system:bootstrappers:kubeadm:default-node-token"},
                {"apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": "alice"},
            ],
        }))
        .await?;
    let person = until("alice may ask", soon, async || {
        Ok(world.ask(&alice, "person").await.ok())
    })
    .await?;
    let foreign = world.ask(&world.bearer(kubeadm)?, "worker").await?;

    // 23: two tokens race for one name that both may claim: exactly one gets it.
    let rounds = 10;
    let by_host_name = json!({"nodeRegistration": {"nameSource": "Hostname"}});
    for round in 0..rounds {
        for side in ["x", "y"] {
            world
                .machine(&format!("{side}{round}"), by_host_name.clone())
                .await?;
        }
    }
    for round in 0..rounds {
        let (x, y) = (format!("x{round}"), format!("y{round}"));
        let (one, two) = (
            world.bearer(&world.token(&x).await?)?,
            world.bearer(&world.token(&y).await?)?,
        );
        let name = format!("host{round}");
        let (first, second) = tokio::try_join!(world.ask(&one, &name), world.ask(&two, &name))?;
        let answers = [
            world.answer(&first, soon).await?.0,
            world.answer(&second, soon).await?.0,
        ];
        let approved = answers.iter().filter(|answer| *answer == "Approved").count();
        ensure!(approved == 1, "round {round}: {answers:?}");
    }

    let requests: Api<CertificateSigningRequest> = Api::all(world.admin.clone());
    for name in [person, foreign] {
        let status = requests.get(&name).await?.status.unwrap_or_default();
        ensure!(
            status.conditions.is_none_or(|list| list.is_empty()),
            "{name} was answered"
        );
    }
    Ok(())
}

/// Rows 1, 4, 6, 7, 8, 24 and other invalid input.
#[tokio::test(flavor = "multi_thread")]
async fn bootstrap_01_06_07_08_24_what_cannot_be_done_is_said_and_nothing_is_lost() -> Result<()> {
    let Some(world) = World::start("refused").await? else {
        return Ok(());
    };
    // 24: somebody approves every bootstrap token.
    world
        .apply(&json!({
            "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRoleBinding", "metadata": {"name": "too-wide"},
            "roleRef": {
                "apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole",
                "name": "system:certificates.k8s.io:certificatesigningrequests:nodeclient",
            },
            "subjects": [{"apiGroup": "rbac.authorization.k8s.io", "kind": "Group", "name": "system:bootstrappers"}],
        }))
        .await?;
    // 6: the name is taken.
    world
        .apply(&json!({
            "apiVersion": "v1", "kind": "Secret", "metadata": {
                "name": "taken", "namespace": NS, "labels": {"cluster.x-k8s.io/cluster-name": CLUSTER},
            },
            "stringData": {"value": "theirs"},
        }))
        .await?;
    // 1: nothing before the control plane is initialized.
    world
        .status(
            "Cluster",
            CLUSTER,
            &json!({"initialization": {"controlPlaneInitialized": false}}),
        )
        .await?;
    let _controller = world.run()?;
    world.machine("m", json!({})).await?;
    world.machine("taken", json!({})).await?;
    let label = json!({"nodeRegistration": {"labels": {"node-role.kubernetes.io/worker": ""}}});
    let Err(answer) = world.machine("label", label).await else {
        bail!("a label that no kubelet may set was accepted");
    };
    ensure!(
        format!("{answer:#}").contains("set node-role.kubernetes.io"),
        "{answer:#}"
    );
    world.machine("boss", json!({})).await?;
    world
        .api("cluster.x-k8s.io/v1beta2", "Machine")
        .patch(
            "boss",
            &PatchParams::default(),
            &Patch::Merge(json!({"metadata": {"labels": {"cluster.x-k8s.io/control-plane": ""}}})),
        )
        .await?;
    world
        .condition("m", "DataSecretAvailable", "WaitingForControlPlaneInitialized")
        .await?;
    ensure!(world.secret(NS, "m").await?.is_none());
    let tokens: Api<Secret> = Api::namespaced(world.admin.clone(), "kube-system");
    let ours = ListParams::default().labels("capi-kamaji.io/managed-by=kamaji-bootstrap");
    ensure!(tokens.list(&ours).await?.items.is_empty());
    world
        .condition("boss", "DataSecretAvailable", "ControlPlaneMachineNotSupported")
        .await?;
    world
        .status(
            "Cluster",
            CLUSTER,
            &json!({"initialization": {"controlPlaneInitialized": true}}),
        )
        .await?;
    let token = world.token("m").await?;
    let message = world
        .condition("m", "CSRApprovalStrict", "AutoApprovalBound")
        .await?;
    ensure!(message.contains("too-wide"), "{message}");
    let message = world
        .condition("taken", "DataSecretAvailable", "SecretNameTaken")
        .await?;
    ensure!(message.contains("Secret taken"), "{message}");
    ensure!(text(&world.secret(NS, "taken").await?.context("gone")?, "value") == "theirs");
    ensure!(world.secret(NS, "boss").await?.is_none());

    // 4: a pause is reported and nothing is written.
    let configs: Api<KamajiConfig> = Api::namespaced(world.admin.clone(), NS);
    let pause = json!({"metadata": {"annotations": {"cluster.x-k8s.io/paused": ""}}});
    configs
        .patch("m", &PatchParams::default(), &Patch::Merge(&pause))
        .await?;
    world.condition("m", "Paused", "Paused").await?;
    let go_on = json!({"metadata": {"annotations": {"cluster.x-k8s.io/paused": null}}});
    configs
        .patch("m", &PatchParams::default(), &Patch::Merge(&go_on))
        .await?;
    world.condition("m", "Paused", "NotPaused").await?;

    // 8: the token is deleted with the config, which waits for nothing.
    configs.delete("m", &DeleteParams::default()).await?;
    until("the token is gone", Duration::from_secs(10), async || {
        Ok(world
            .secret("kube-system", &token_secret(&token))
            .await?
            .is_none()
            .then_some(()))
    })
    .await?;
    ensure!(configs.get_opt("m").await?.is_none());
    Ok(())
}

#[tokio::test]
async fn the_bootstrap_provider_writes_bootstrap_tokens_and_no_other_secret() -> Result<()> {
    let Some(world) = World::start("secrets").await? else {
        return Ok(());
    };
    let kubeconfig = world
        .secret(NS, &format!("{CLUSTER}-kamaji-bootstrap"))
        .await?
        .and_then(|secret| secret.data?.remove("value"))
        .context("no kubeconfig")?;
    let kubeconfig = kube::config::Kubeconfig::from_yaml(&String::from_utf8(kubeconfig.0)?)?;
    let config =
        kube::Config::from_custom_kubeconfig(kubeconfig, &kube::config::KubeConfigOptions::default()).await?;
    let secrets = Api::<Secret>::namespaced(Client::try_from(config)?, "kube-system");
    let create = async |name: &str, type_: &str| {
        let secret: Secret = serde_json::from_value(json!({
            "metadata": {
                "name": name,
                "annotations": { "kubernetes.io/service-account.name": "clusterrole-aggregation-controller" },
            },
            "type": type_,
        }))?;
        anyhow::Ok(secrets.create(&PostParams::default(), &secret).await)
    };
    // A policy takes a moment to be in force.
    until("other Secrets to be refused", budget(20), async || {
        let name = format!("bootstrap-token-{}", "a".repeat(6));
        match create(&name, "kubernetes.io/service-account-token").await? {
            Err(kube::Error::Api(status)) => {
                Ok(status.message.contains("bootstrap tokens alone").then_some(()))
            }
            Err(error) => Err(error.into()),
            Ok(_) => {
                secrets.delete(&name, &DeleteParams::default()).await?;
                Ok(None)
            }
        }
    })
    .await?;
    for type_ in ["kubernetes.io/service-account-token", "Opaque"] {
        let refused = create("a", type_).await?.unwrap_err();
        ensure!(
            refused.to_string().contains("bootstrap tokens alone"),
            "{refused}"
        );
    }
    create("bootstrap-token-abcdef", "bootstrap.kubernetes.io/token").await??;
    let other = json!({ "type": "Opaque" });
    let changed = secrets
        .patch(
            "bootstrap-token-abcdef",
            &PatchParams::default(),
            &Patch::Merge(other),
        )
        .await;
    ensure!(changed.is_err(), "the type of a Secret is immutable");
    Ok(())
}
