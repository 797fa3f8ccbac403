//! Objects that do not decode, on a real API server: the API server accepts them, an older or newer program wrote
//! them, and every role has to start and serve all others nevertheless.

use std::{
    io::Write,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use anyhow::{Context, Result, bail, ensure};
use capi_kamaji::{
    hosting, kamajiconfig, kamajicontrolplane,
    runtime::{
        http::{self, Readiness},
        metrics::Metrics,
        role::Role,
        telemetry::without_bodies,
    },
    settings::{DefaultDatastore, Hosting, PodOverrides, RoleName, Settings},
};
use e2e::{
    apiserver::{Options, TestApiServer},
    lab::until::until,
};
use k8s_openapi::{
    api::events::v1::Event, apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition,
};
use kamaji_api::{bootstrap::KamajiConfig, conditions::Reason, tenantcontrolplane::TenantControlPlane};
use kube::{
    Client, Resource,
    api::{Api, ApiResource, DynamicObject, ListParams, Patch, PatchParams, PostParams},
};
use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};
use tokio_util::sync::CancellationToken;
use tracing_subscriber::{EnvFilter, layer::SubscriberExt as _, util::SubscriberInitExt as _};

use crate::manifests::{merged, minimal};

const NAMESPACE: &str = "undecodable";
/// Time for a role to start and to report what it found.
const PATIENCE: Duration = Duration::from_mins(1);
/// Stands in for a secret in an inline file. No log may contain it.
const NEEDLE: &str = "needle-of-an-inline-file-5f2c81";
/// A number that the API server accepts as a port of the pod with the definition of Kamaji, and that is no i32. No log may contain it either.
const PORT: u64 = 99_999_999_999;

#[tokio::test]
async fn objects_that_do_not_decode_are_reported_and_stop_no_role() -> Result<()> {
    let Some(server) = TestApiServer::start(&Options::default()).await? else {
        return Ok(());
    };
    server.install_definitions().await?;
    server.install_cluster_api().await?;
    let client = server.client()?;
    relax(&client).await?;
    server.namespace(NAMESPACE).await?;

    create(&client, minimal("TenantControlPlane", "good"), None).await?;
    let port = json!({ "spec": { "controlPlane": { "service": { "additionalPorts": [
        { "name": "a", "port": 8080, "targetPort": PORT },
    ] } } } });
    create(&client, merged(minimal("TenantControlPlane", "port"), port), None).await?;
    let phase = json!({ "kubernetesResources": { "version": { "status": "HibernatingDeeply" } } });
    create(&client, minimal("TenantControlPlane", "tomorrow"), Some(phase)).await?;
    let loud = json!({ "spec": {
        "files": [{ "path": "/etc/a", "content": NEEDLE }],
        "kubelet": { "verbosity": "loud" },
    } });
    create(&client, merged(minimal("KamajiConfig", "loud"), loud), None).await?;

    // The objects exist before the roles start, as after a restart of the process.
    let log = Log::capture();
    let stop = CancellationToken::new();
    let _stopped = stop.clone().drop_guard();
    let metrics = ready(&server, &stop).await?;

    let path = "spec.controlPlane.service.additionalPorts[0].targetPort";
    reported::<TenantControlPlane>(&client, "port", path).await?;
    reported::<KamajiConfig>(&client, "loud", "spec.kubelet.verbosity").await?;
    for name in ["good", "tomorrow"] {
        let what = format!("{name} to be reconciled");
        until(&what, PATIENCE, async || {
            let found = raw::<TenantControlPlane>(&client).get(name).await?;
            let conditions = &found.data["status"]["conditions"];
            let valid = condition(conditions, "SpecValid").context("no SpecValid")?;
            ensure!(valid["status"] == "True", "{conditions}");
            condition(conditions, "DataStoreReady").context("no DataStoreReady")?;
            Ok(Some(()))
        })
        .await?;
    }

    let metrics = metrics.text()?;
    for sample in [
        "capi_kamaji_undecodable_objects{kind=\"TenantControlPlane\"} 1",
        "capi_kamaji_undecodable_objects{kind=\"KamajiConfig\"} 1",
        "capi_kamaji_applies_total{controller=\"hosting\",result=\"sent\"} ",
        "capi_kamaji_applies_total{controller=\"kamajicontrolplane\",result=\"skipped\"} ",
        "capi_kamaji_tenant_connections{controller=\"tenantcontrolplane\"} 0",
        "capi_kamaji_tenant_connections{controller=\"kamajiconfig\"} 0",
        "capi_kamaji_queue_depth{controller=\"datastore\"} ",
    ] {
        ensure!(metrics.contains(sample), "no {sample}:\n{metrics}");
    }
    let text = log.text();
    ensure!(text.contains("targetPort"), "the log names no path:\n{text}");
    for body in [NEEDLE, &PORT.to_string(), "HibernatingDeeply"] {
        ensure!(!text.contains(body), "the log contains a body: {body}");
    }
    Ok(())
}

/// Starts every role in this process and waits until `/readyz` reports all of them as ready.
async fn ready(server: &TestApiServer, stop: &CancellationToken) -> Result<Metrics> {
    let (metrics, readiness) = (Metrics::default(), Readiness::default());
    let listener = http::bind(([127, 0, 0, 1], 0).into()).await?;
    let address = listener.local_addr()?;
    for name in [RoleName::ControlPlane, RoleName::Hosting, RoleName::Bootstrap] {
        readiness.set(name, false);
        let role = Role {
            name,
            client: server.client()?,
            settings: Arc::new(Settings {
                namespaces: std::collections::BTreeSet::default(),
                hosting: Hosting::Embedded,
                default_datastore: DefaultDatastore::None,
                own_namespace: "default".to_owned(),
                pod_name: None,
                concurrency: 4,
                pod_overrides: PodOverrides::default(),
                external_ips: Vec::new(),
                skip_infrastructure: false,
                infrastructure_quirks: None,
            }),
            metrics: metrics.clone(),
            readiness: readiness.clone(),
            stop: stop.clone(),
        };
        match name {
            RoleName::ControlPlane => tokio::spawn(kamajicontrolplane::start(role)),
            RoleName::Hosting => tokio::spawn(hosting::start(role)),
            RoleName::Bootstrap => tokio::spawn(kamajiconfig::start(role)),
        };
    }
    tokio::spawn(http::serve(listener, readiness, metrics.clone(), stop.clone()));
    until("every role to be ready", PATIENCE, async || {
        let mut stream = TcpStream::connect(address).await?;
        stream.write_all(b"GET /readyz HTTP/1.0\r\n\r\n").await?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await?;
        ensure!(answer.starts_with("HTTP/1.0 200"), "{answer}");
        Ok(Some(()))
    })
    .await?;
    Ok(metrics)
}

/// The object's condition and an Event about it name `path`.
async fn reported<K: Resource<DynamicType = ()>>(client: &Client, name: &str, path: &str) -> Result<()> {
    let reason = Reason::NotDecodable.as_str();
    until(&format!("{name} to be reported"), PATIENCE, async || {
        let found = raw::<K>(client).get(name).await?;
        let conditions = &found.data["status"]["conditions"];
        let valid = condition(conditions, "SpecValid").with_context(|| conditions.to_string())?;
        ensure!(valid["status"] == "False" && valid["reason"] == reason, "{valid}");
        ensure!(
            valid["message"].as_str().is_some_and(|text| text.contains(path)),
            "{valid}"
        );
        let events = Api::<Event>::namespaced(client.clone(), NAMESPACE);
        let events = events.list(&ListParams::default()).await?.items;
        let about = |event: &&Event| {
            let regarding = event.regarding.as_ref();
            event.reason.as_deref() == Some(reason) && regarding.and_then(|r| r.name.as_deref()) == Some(name)
        };
        let note = events.iter().find(about).and_then(|event| event.note.clone());
        ensure!(note.is_some_and(|note| note.contains(path)), "no Event");
        Ok(Some(()))
    })
    .await
}

fn condition<'a>(conditions: &'a Value, type_: &str) -> Option<&'a Value> {
    conditions.as_array()?.iter().find(|c| c["type"] == type_)
}

/// The API of a kind, without its type.
fn raw<K: Resource<DynamicType = ()>>(client: &Client) -> Api<DynamicObject> {
    Api::namespaced_with(client.clone(), NAMESPACE, &ApiResource::erase::<K>(&()))
}

/// Creates an object of [`minimal`], and writes `status` if there is one.
async fn create(client: &Client, object: Value, status: Option<Value>) -> Result<()> {
    let object: DynamicObject = serde_json::from_value(object)?;
    let types = object.types.clone().context("no kind")?;
    let api = match types.kind.as_str() {
        "TenantControlPlane" => raw::<TenantControlPlane>(client),
        "KamajiConfig" => raw::<KamajiConfig>(client),
        other => bail!("no API of {other}"),
    };
    let name = object.metadata.name.clone().context("no name")?;
    // The API server takes a moment to use a definition that changed.
    until(&format!("{name} to be accepted"), PATIENCE, async || {
        Ok(Some(api.create(&PostParams::default(), &object).await?))
    })
    .await?;
    let Some(status) = status else { return Ok(()) };
    let patch = Patch::Merge(json!({ "status": status }));
    until(
        &format!("the status of {name} to be accepted"),
        PATIENCE,
        async || {
            Ok(Some(
                api.patch_status(&name, &PatchParams::default(), &patch).await?,
            ))
        },
    )
    .await?;
    Ok(())
}

/// Makes the definitions accept what another version or the definition of Kamaji could: any port of the pod, any phase, and
/// any log verbosity.
async fn relax(client: &Client) -> Result<()> {
    let definitions = Api::<CustomResourceDefinition>::all(client.clone());
    for (name, fields) in [
        (
            "tenantcontrolplanes.kamaji.clastix.io",
            &[
                "spec/properties/controlPlane/properties/service/properties/additionalPorts/items/properties/targetPort",
                "status/properties/kubernetesResources/properties/version/properties/status",
            ][..],
        ),
        (
            "kamajiconfigs.bootstrap.cluster.x-k8s.io",
            &["spec/properties/kubelet/properties/verbosity"],
        ),
    ] {
        let mut definition = serde_json::to_value(definitions.get(name).await?)?;
        for field in fields {
            let pointer = format!("/spec/versions/0/schema/openAPIV3Schema/properties/{field}");
            *definition.pointer_mut(&pointer).context(pointer)? =
                json!({ "x-kubernetes-preserve-unknown-fields": true });
        }
        let definition = serde_json::from_value(definition)?;
        definitions
            .replace(name, &PostParams::default(), &definition)
            .await?;
    }
    Ok(())
}

/// What this process logs, at every level that is on by default.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl Log {
    /// Captures the log from now on.
    fn capture() -> Self {
        let log = Self::default();
        let writer = log.clone();
        // A subscriber of another test would only make the search fail, since it demands a line.
        let lines = tracing_subscriber::fmt::layer()
            .with_ansi(false)
            .with_writer(move || writer.clone());
        let _ = tracing_subscriber::registry()
            .with(EnvFilter::new("info"))
            .with(without_bodies())
            .with(lines)
            .try_init();
        log
    }

    fn text(&self) -> String {
        let bytes = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        String::from_utf8_lossy(&bytes).into_owned()
    }
}

impl Write for Log {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        all.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}
