//! Watches of a quiet tenant while another tenant of the same DataStore writes. A watch without a resourceVersion
//! starts at the newest revision of etcd, which the watch cache of a quiet resource reaches only if etcd reports its
//! progress. Without these reports each such watch fails after 3 seconds with «Too large resource version», and every
//! informer falls back to lists: <https://kubernetes.io/docs/reference/using-api/api-concepts/#streaming-lists>.

use std::{
    pin::pin,
    sync::atomic::{AtomicBool, Ordering},
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};
use e2e::lab::{access::Lab, clusters::VERSION, tenants::Scope};
use futures::TryStreamExt as _;
use k8s_openapi::api::core::v1::{ConfigMap, LimitRange};
use kube::{
    Api, Client,
    api::{Patch, PatchParams, PostParams, WatchEvent},
};
use serde_json::json;
use tokio::time::{Instant, sleep, timeout};

/// Watches that are opened, one after the other; the two kinds of [`QUERIES`] take turns.
const WATCHES: usize = 25;
/// The time until the first event of each.
const LIMIT: Duration = Duration::from_secs(1);
/// The time after which a watch counts as failed; the API server itself gives up after 3 s.
const GIVE_UP: Duration = Duration::from_secs(10);
/// The most that the neighbour writes.
const WRITES: u32 = 5_000;
/// A plain watch and a streaming list, both without a resourceVersion.
const QUERIES: [&str; 2] = [
    "watch=true&timeoutSeconds=20&allowWatchBookmarks=true",
    "watch=true&timeoutSeconds=20&allowWatchBookmarks=true&sendInitialEvents=true&resourceVersionMatch=NotOlderThan",
];

#[tokio::test]
async fn watches_of_a_quiet_tenant_open_at_once_while_its_neighbour_writes() -> Result<()> {
    let lab = Lab::open().await?;
    Scope::run(&lab, "watches", async |scope| {
        for name in ["quiet", "busy"] {
            scope.create(name, VERSION, json!({})).await?;
        }
        for name in ["quiet", "busy"] {
            scope.reaches(name, "Ready", VERSION).await?;
        }
        let (quiet, busy) = (scope.client("quiet").await?, scope.client("busy").await?);
        // The one object of its kind: what every watch reports first.
        let range = serde_json::from_value(json!({
            "metadata": { "name": "quiet" },
            "spec": { "limits": [{ "type": "Container", "max": { "cpu": "64" } }] },
        }))?;
        Api::<LimitRange>::namespaced(quiet.clone(), "default")
            .create(&PostParams::default(), &range)
            .await?;

        let before = failed_consistent_reads(&quiet).await?;
        let over = AtomicBool::new(false);
        let (written, watched) = tokio::join!(write(&busy, &over), async {
            let watched = watch(&quiet).await;
            over.store(true, Ordering::SeqCst);
            watched
        });
        let (written, mut times) = (written?, watched?);
        let after = failed_consistent_reads(&quiet).await?;
        times.sort();
        let slowest = times.last().copied().unwrap_or_default();
        println!(
            "{} watches without a resourceVersion on a quiet tenant, median {:.3} s, slowest {:.3} s; {written} writes \
             of its neighbour meanwhile; failed consistent reads: {before} before, {after} after",
            times.len(),
            times.get(times.len() / 2).copied().unwrap_or_default().as_secs_f64(),
            slowest.as_secs_f64()
        );
        ensure!(written > 0, "the neighbour wrote nothing");
        ensure!(slowest < LIMIT, "the slowest watch took {slowest:?}");
        ensure!(after == before, "{} consistent reads failed", after - before);
        Ok(())
    })
    .await
}

/// Opens the watches. The time until the first event of each.
async fn watch(quiet: &Client) -> Result<Vec<Duration>> {
    let mut times = Vec::new();
    for (number, query) in QUERIES.iter().cycle().take(WATCHES).enumerate() {
        // Writes of the neighbour have to come between two watches.
        sleep(Duration::from_millis(100)).await;
        let uri = format!("/api/v1/namespaces/default/limitranges?{query}");
        let started = Instant::now();
        let first = async {
            let request = http::Request::get(&uri).body(Vec::new())?;
            let mut events = pin!(quiet.request_events::<LimitRange>(request).await?);
            let event = events.try_next().await?.context("it ended without an event")?;
            match event {
                WatchEvent::Added(_) | WatchEvent::Bookmark(_) => anyhow::Ok(()),
                other => Err(anyhow::anyhow!("it began with {other:?}")),
            }
        };
        let opened = timeout(GIVE_UP, first).await.context("no event")?;
        opened.with_context(|| format!("watch {number} after {:?}: {uri}", started.elapsed()))?;
        times.push(started.elapsed());
    }
    Ok(times)
}

/// Writes a ConfigMap again and again until `over` is set. The number of writes.
async fn write(busy: &Client, over: &AtomicBool) -> Result<u32> {
    let maps = Api::<ConfigMap>::namespaced(busy.clone(), "default");
    let mut written = 0;
    while written < WRITES && !over.load(Ordering::SeqCst) {
        let map = json!({
            "apiVersion": "v1", "kind": "ConfigMap", "metadata": { "name": "busy" },
            "data": { "number": written.to_string() },
        });
        maps.patch("busy", &PatchParams::apply("e2e"), &Patch::Apply(map))
            .await?;
        written += 1;
        sleep(Duration::from_millis(20)).await;
    }
    Ok(written)
}

/// Sum of `apiserver_watch_cache_consistent_read_total{success="false"}` over all resources.
async fn failed_consistent_reads(tenant: &Client) -> Result<u64> {
    let request = http::Request::get("/metrics").body(Vec::new())?;
    failed(&tenant.request_text(request).await?)
}

/// The same in the text of `/metrics`. A text without the metric is an error: a counter that is not there does not
/// move either.
fn failed(metrics: &str) -> Result<u64> {
    let samples = || {
        metrics
            .lines()
            .filter(|line| line.starts_with("apiserver_watch_cache_consistent_read_total{"))
    };
    ensure!(
        samples().next().is_some(),
        "no apiserver_watch_cache_consistent_read_total"
    );
    samples()
        .filter(|line| line.contains(r#"success="false""#))
        .map(|line| {
            let value = line.rsplit(' ').next().unwrap_or_default();
            value.parse::<u64>().with_context(|| format!("no count: {line}"))
        })
        .sum()
}

#[test]
fn failed_consistent_reads_are_summed_over_resources() {
    let text = r#"# TYPE apiserver_watch_cache_consistent_read_total counter
apiserver_watch_cache_consistent_read_total{fallback="false",resource="pods",success="true"} 7
apiserver_watch_cache_consistent_read_total{fallback="true",resource="pods",success="false"} 2
apiserver_watch_cache_consistent_read_total{fallback="true",resource="nodes",success="false"} 3
"#;
    assert_eq!(failed(text).unwrap(), 5);
    assert!(failed("apiserver_other_total 1\n").is_err());
}
