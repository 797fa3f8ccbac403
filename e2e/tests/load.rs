//! Many machines join at once: their bootstrap data, their certificates, and what this provider does for them. Each
//! workload cluster is a real kube-apiserver with a real kube-controller-manager that signs; machines are hollow: they read
//! their data, request a certificate and register a Node. Needs some 15 GB of memory; `hack/test load` runs it.

use std::{
    collections::HashMap,
    fs,
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use capi_kamaji::kamajiconfig;
use e2e::{
    apiserver::{Options, TestApiServer},
    bootstrap::{NS, Signer, World, bearer, budget, node, until},
    csr,
};
use futures::{StreamExt as _, TryStreamExt as _, stream};
use http::{HeaderValue, header::USER_AGENT};
use k8s_openapi::api::certificates::v1::CertificateSigningRequest;
use kamaji_api::bootstrap::KamajiConfig;
use kube::{
    Api, Client, ResourceExt as _,
    api::{ListParams, PostParams},
    runtime::{WatchStreamExt as _, watcher},
};
use serde_json::json;
use tokio::runtime::{Builder, Runtime};
use tokio_util::task::AbortOnDropHandle;

/// Clusters with a few machines each. `KAMAJI_CLUSTERS` chooses fewer, for a computer with less memory.
const CLUSTERS: usize = 50;
const MACHINES_EACH: usize = 10;
/// Machines of the one large cluster.
const MACHINES_OF_ONE: usize = 100;
/// API servers that are started at once.
const AT_ONCE: usize = 4;
/// Name of the threads of this provider, and of its requests in the record.
const PROVIDER: &str = "provider";
/// The longest from a request to its certificate: three times two seconds, for each hundred machines that ask at once.
const PATIENCE: Duration = Duration::from_mins(1);

/// A workload cluster. In this order: the signer ends before its API server.
struct Tenant {
    name: String,
    _watch: AbortOnDropHandle<()>,
    _signer: Signer,
    /// When each request got its certificate.
    signed: Arc<Mutex<HashMap<String, Instant>>>,
    admin: Client,
    server: TestApiServer,
}

impl Tenant {
    async fn start(world: &World, name: String) -> Result<Self> {
        let mut arguments = world.tenant_arguments();
        arguments.extend(world.tenant_record(&name)?);
        let options = Options {
            arguments,
            ..Options::default()
        };
        let server = TestApiServer::start(&options).await?.context("no API server")?;
        world.tenant(&name, &server).await?;
        let admin = server.client()?;
        let signed = Arc::<Mutex<HashMap<_, _>>>::default();
        let watch = tokio::spawn(watch(admin.clone(), signed.clone()));
        Ok(Self {
            _watch: AbortOnDropHandle::new(watch),
            _signer: world.tenant_signer(&server)?,
            name,
            signed,
            admin,
            server,
        })
    }

    /// A machine with this token requests a certificate, gets it and becomes a Node. The time from the request to the
    /// certificate.
    async fn join(&self, token: &str, name: &str) -> Result<Duration> {
        let requests: Api<CertificateSigningRequest> = Api::all(bearer(&self.server, token)?);
        let request = csr::request(
            &format!("system:node:{name}"),
            "system:nodes",
            &csr::KUBELET_USAGES,
        )?;
        let asked = Instant::now();
        let request = requests
            .create(&PostParams::default(), &request)
            .await?
            .name_any();
        let what = format!("the certificate of {name} of {}", self.name);
        let signed = until(&what, budget(PATIENCE.as_secs()), async || {
            Ok(self
                .signed
                .lock()
                .ok()
                .and_then(|signed| signed.get(&request).copied()))
        })
        .await?;
        node(&self.admin, name).await?;
        Ok(signed.duration_since(asked))
    }
}

/// Notes when requests get their certificate.
async fn watch(admin: Client, signed: Arc<Mutex<HashMap<String, Instant>>>) {
    let requests = watcher(
        Api::<CertificateSigningRequest>::all(admin),
        watcher::Config::default(),
    );
    let mut requests = std::pin::pin!(requests.default_backoff().applied_objects());
    while let Some(request) = requests.next().await {
        let Ok(request) = request else { continue };
        let has = request
            .status
            .as_ref()
            .is_some_and(|status| status.certificate.is_some());
        if let (true, Ok(mut signed)) = (has, signed.lock()) {
            signed.entry(request.name_any()).or_insert_with(Instant::now);
        }
    }
}

/// This provider, on threads of its own.
struct Provider(Option<Runtime>);

impl Provider {
    fn start(world: &World) -> Result<Self> {
        let runtime = Builder::new_multi_thread()
            .worker_threads(2)
            .thread_name(PROVIDER)
            .enable_all()
            .build()?;
        let mut config = world.server.config()?;
        config
            .headers
            .push((USER_AGENT, HeaderValue::from_static(PROVIDER)));
        config.default_retry = false;
        // The tasks of a client are those of the runtime in which it is made.
        let client = {
            let _inside = runtime.enter();
            Client::try_from(config)?
        };
        runtime.spawn(kamajiconfig::start(world.role(client).0));
        Ok(Self(Some(runtime)))
    }
}

impl Drop for Provider {
    fn drop(&mut self) {
        if let Some(runtime) = self.0.take() {
            runtime.shutdown_background();
        }
    }
}

/// CPU time of the threads of this provider.
fn cpu() -> Result<Duration> {
    let mut ticks = 0;
    for thread in fs::read_dir("/proc/self/task")? {
        // A thread may end while it is looked at.
        let Ok(stat) = fs::read_to_string(thread?.path().join("stat")) else {
            continue;
        };
        let (name, rest) = stat.rsplit_once(')').context("no name")?;
        if !name.ends_with(&format!("({PROVIDER}")) {
            continue;
        }
        // utime and stime, fields 14 and 15 of proc(5), in hundredths of a second on Linux.
        for field in rest.split_whitespace().skip(11).take(2) {
            ticks += field.parse::<u64>()?;
        }
    }
    Ok(Duration::from_millis(10 * ticks))
}

/// Requests of this provider so far: to the management cluster, and to workload clusters.
fn requests(world: &World, tenants: &[Tenant]) -> Result<(usize, usize)> {
    let management = world
        .records("audit")?
        .iter()
        .filter(|event| event["userAgent"] == PROVIDER)
        .count();
    let mut others = 0;
    for tenant in tenants {
        others += world.records(&tenant.name)?.len();
    }
    Ok((management, others))
}

/// Creates `count` machines in each cluster, waits for all their data, and lets all join at once. Returns the figures.
async fn joins(world: &World, tenants: &[Tenant], count: usize) -> Result<String> {
    let (used, before) = (cpu()?, requests(world, tenants)?);
    let names: Vec<_> = tenants
        .iter()
        .flat_map(|tenant| (0..count).map(move |number| (tenant, format!("{}-{number:03}", tenant.name))))
        .collect();
    let began = Instant::now();
    stream::iter(&names)
        .map(async |(tenant, name)| world.machine_of(&tenant.name, name, json!({})).await)
        .buffer_unordered(16)
        .try_collect::<Vec<()>>()
        .await?;
    let configs: Api<KamajiConfig> = Api::namespaced(world.admin.clone(), NS);
    let tokens = until("all bootstrap data", budget(120), async || {
        let all = configs.list(&ListParams::default()).await?;
        let tokens = names.iter().map(async |(_, name)| world.token(name).await);
        let done = all
            .iter()
            .filter(|config| {
                config
                    .status
                    .as_ref()
                    .is_some_and(|s| s.data_secret_name.is_some())
            })
            .filter(|config| names.iter().any(|(_, name)| *name == config.name_any()))
            .count();
        if done < names.len() {
            return Ok(None);
        }
        Ok(Some(
            stream::iter(tokens).buffered(16).try_collect::<Vec<_>>().await?,
        ))
    })
    .await?;
    let data = began.elapsed();
    let joins = names
        .iter()
        .zip(&tokens)
        .map(async |((tenant, name), token)| tenant.join(token, name).await);
    let mut times = futures::future::try_join_all(joins).await?;
    until("all Nodes to be reported", budget(60), async || {
        let all = configs.list(&ListParams::default()).await?;
        let joined = all.iter().filter(|config| {
            let conditions = config.status.as_ref().map(|status| &status.conditions);
            names.iter().any(|(_, name)| *name == config.name_any())
                && conditions
                    .into_iter()
                    .flatten()
                    .any(|c| c.type_ == "NodeJoined" && c.status == "True")
        });
        Ok((joined.count() == names.len()).then_some(()))
    })
    .await?;
    times.sort();
    let (p50, p99) = (times[times.len() / 2], times[times.len() * 99 / 100]);
    let (cpu, after) = (cpu()?.saturating_sub(used), requests(world, tenants)?);
    #[expect(clippy::cast_precision_loss, reason = "hundreds")]
    let each = |count: usize| count as f64 / names.len() as f64;
    ensure!(p99 <= PATIENCE, "{p99:?} from the request to the certificate");
    Ok(format!(
        "{} clusters with {count} machines each: all data after {data:.1?}; from the request to the certificate {p50:.2?} \
         (p50), {p99:.2?} (p99); all joined after {:.1?}; a machine: {:.1} requests to the management cluster, {:.1} to its \
         workload cluster, {:.0?} of CPU",
        tenants.len(),
        began.elapsed(),
        each(after.0 - before.0),
        each(after.1 - before.1),
        cpu / u32::try_from(names.len())?,
    ))
}

#[tokio::test(flavor = "multi_thread")]
async fn machines_of_one_cluster_and_of_fifty_join_at_once() -> Result<()> {
    let policy = json!({
        "apiVersion": "audit.k8s.io/v1", "kind": "Policy", "omitStages": ["RequestReceived"],
        "rules": [{"level": "Metadata"}],
    });
    let Some(world) = World::recorded_by("load", &policy).await? else {
        return Ok(());
    };
    let chosen = std::env::var("KAMAJI_CLUSTERS").map(|text| text.parse());
    let clusters = chosen.unwrap_or(Ok(CLUSTERS))?;
    let began = Instant::now();
    let names = (0..=clusters).map(|number| format!("c{number:02}"));
    let tenants: Vec<_> = stream::iter(names)
        .map(|name| Tenant::start(&world, name))
        .buffered(AT_ONCE)
        .try_collect()
        .await?;
    println!("{} API servers after {:.0?}", tenants.len(), began.elapsed());
    let _provider = Provider::start(&world)?;
    let (one, many) = tenants.split_at(1);
    println!("{}", joins(&world, one, MACHINES_OF_ONE).await?);
    println!("{}", joins(&world, many, MACHINES_EACH).await?);
    Ok(())
}
