//! Watches over an API server that answers from a script: objects that do not decode, and objects that do again.

use std::{
    convert::Infallible,
    sync::atomic::{AtomicBool, Ordering},
};

use http::{Method, Request, Response};
use http_body_util::BodyExt as _;
use k8s_openapi::api::core::v1::Service;
use kamaji_api::tenantcontrolplane::TenantControlPlane;
use kube::client::Body;
use parking_lot::Mutex;
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use super::*;
use crate::{
    runtime::http::Readiness,
    settings::{DefaultDatastore, Hosting, PodOverrides, RoleName},
};

/// A server that lists `items` and then sends `events`, once each; what is written to it is noted.
#[derive(Clone, Default)]
struct Script {
    items: Arc<[Value]>,
    events: Arc<Mutex<Vec<Value>>>,
    open: Arc<AtomicBool>,
    written: Arc<Mutex<Vec<(String, Value)>>>,
}

impl Script {
    fn client(&self) -> Client {
        let script = self.clone();
        let service = tower::service_fn(move |request: Request<Body>| {
            let script = script.clone();
            async move { Ok::<_, Infallible>(script.answer(request).await) }
        });
        Client::new(service, "default")
    }

    async fn answer(&self, request: Request<Body>) -> Response<Body> {
        let (parts, body) = request.into_parts();
        let text = |value: &Value| Response::new(Body::from(value.to_string().into_bytes()));
        if parts.method != Method::GET {
            let bytes = body.collect().await.unwrap().to_bytes();
            let body: Value = serde_json::from_slice(&bytes).unwrap();
            let path = format!("{} {}", parts.method, parts.uri);
            self.written.lock().push((path, body.clone()));
            return text(&body);
        }
        if !parts.uri.query().unwrap_or_default().contains("watch=") {
            return text(&json!({ "metadata": { "resourceVersion": "10" }, "items": &*self.items }));
        }
        while !self.open.swap(false, Ordering::SeqCst) {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        let lines: Vec<_> = self
            .events
            .lock()
            .drain(..)
            .map(|event| event.to_string())
            .collect();
        Response::new(Body::from((lines.join("\n") + "\n").into_bytes()))
    }

    /// Sends `object` as changed.
    fn change(&self, object: &Value) {
        self.events
            .lock()
            .push(json!({ "type": "MODIFIED", "object": object }));
        self.open.store(true, Ordering::SeqCst);
    }

    fn watches(&self) -> (Watches, Metrics) {
        let metrics = Metrics::default();
        let role = Role {
            name: RoleName::Hosting,
            client: self.client(),
            settings: Arc::new(Settings {
                namespaces: std::collections::BTreeSet::new(),
                hosting: Hosting::Embedded,
                default_datastore: DefaultDatastore::None,
                own_namespace: "system".to_owned(),
                pod_name: None,
                concurrency: 1,
                pod_overrides: PodOverrides::default(),
                external_ips: Vec::new(),
                skip_infrastructure: false,
                infrastructure_quirks: None,
            }),
            metrics: metrics.clone(),
            readiness: Readiness::default(),
            stop: CancellationToken::new(),
        };
        (Watches::new(&role, "kamaji-hosting"), metrics)
    }
}

/// Waits for what another task does.
async fn until(mut holds: impl FnMut() -> bool) {
    let wait = async {
        while !holds() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), wait).await.unwrap();
}

fn tenant(name: &str, version: u64, port: u64) -> Value {
    json!({
        "apiVersion": "kamaji.clastix.io/v1alpha1", "kind": "TenantControlPlane",
        "metadata": { "name": name, "namespace": "demo", "uid": format!("uid-{name}"), "resourceVersion": version.to_string() },
        "spec": {
            "controlPlane": { "deployment": {}, "service": { "serviceType": "ClusterIP" } },
            "kubernetes": { "version": "v1.36.0", "kubelet": {} },
            "networkProfile": { "port": port },
        },
        "status": { "kubernetesResources": { "version": { "version": "v1.36.0", "status": "Levitating" } } },
    })
}

#[tokio::test]
async fn a_root_that_does_not_decode_blinds_nobody_is_reported_and_heals() {
    let script = Script {
        items: Arc::from([tenant("bad", 7, 99_999_999_999), tenant("good", 8, 6443)]),
        ..Script::default()
    };
    let (mut watches, metrics) = script.watches();
    let store = Arc::new(Store::<TenantControlPlane>::default());
    let woken = Arc::new(Mutex::new(Vec::new()));
    let wakes = woken.clone();
    store.wake_on_intent(move |key| wakes.lock().push(key.name));
    watches.roots(script.client(), watcher::Config::default(), &store, "SpecValid");
    assert!(woken.lock().is_empty());
    watches.listed().await.unwrap();
    let (healthy, broken) = (RootKey::new("demo", "good"), RootKey::new("demo", "bad"));
    assert!(store.get(&healthy).is_some(), "also with a phase of tomorrow");
    assert!(store.get(&broken).is_none() && store.is_undecodable(&broken));
    assert_eq!(*woken.lock(), ["good"]);
    assert!(
        metrics
            .text()
            .unwrap()
            .contains("undecodable_objects{kind=\"TenantControlPlane\"} 1")
    );

    until(|| script.written.lock().len() == 2).await;
    let written = std::mem::take(&mut *script.written.lock());
    let (path, event) = &written[0];
    assert!(path.contains("/events"), "{path}");
    assert_eq!(event["reason"], "NotDecodable");
    let (place, applied) = &written[1];
    assert!(
        place.contains("/namespaces/demo/tenantcontrolplanes/bad/status")
            && place.contains("kamaji-hosting-decoding"),
        "{place}"
    );
    let condition = &applied["status"]["conditions"][0];
    assert_eq!(
        (&condition["type"], &condition["status"]),
        (&json!("SpecValid"), &json!("False"))
    );
    assert_eq!(condition["reason"], "NotDecodable");
    let message = condition["message"].as_str().unwrap();
    assert!(
        message.starts_with("spec.networkProfile.port: expected i32; "),
        "{message}"
    );

    script.change(&tenant("bad", 11, 6443));
    until(|| store.get(&broken).is_some()).await;
    assert!(!store.is_undecodable(&broken));
    until(|| woken.lock().contains(&"bad".to_owned())).await;
    assert!(
        metrics
            .text()
            .unwrap()
            .contains("undecodable_objects{kind=\"TenantControlPlane\"} 0")
    );

    // What decoded once stays as it was, and its controller leaves it alone.
    script.change(&tenant("good", 12, 99_999_999_999));
    until(|| store.is_undecodable(&healthy)).await;
    assert!(store.get(&healthy).is_some());
}

#[tokio::test]
async fn a_child_that_does_not_decode_is_a_row_of_its_metadata() {
    let service = |name: &str, ports: &Value| {
        json!({
            "apiVersion": "v1", "kind": "Service",
            "metadata": { "name": name, "namespace": "demo", "uid": name, "resourceVersion": "5" },
            "spec": { "ports": ports },
        })
    };
    let script = Script {
        items: Arc::from([
            service("bad", &json!("none")),
            service("good", &json!([{ "port": 1 }])),
        ]),
        ..Script::default()
    };
    let (mut watches, metrics) = script.watches();
    let index = Arc::new(ChildIndex::default());
    watches.children::<Service>(script.client(), watcher::Config::default(), &index);
    watches.listed().await.unwrap();
    let facts = |name: &str| index.find::<Service>("demo", name).unwrap().facts.clone();
    assert_eq!(facts("bad"), crate::k8s::row::Facts::Metadata);
    assert!(matches!(facts("good"), crate::k8s::row::Facts::Service(_)));
    assert!(
        metrics
            .text()
            .unwrap()
            .contains("undecodable_objects{kind=\"Service\"} 1")
    );
    assert!(script.written.lock().is_empty(), "it is nobody's root");
}

#[tokio::test]
async fn a_watch_that_ends_ends_what_relies_on_it() {
    let script = Script::default();
    let (mut watches, _metrics) = script.watches();
    watches.spawn(
        "Service",
        futures::stream::iter([Ok(Event::<Service>::InitDone)]),
        |_| {},
    );
    watches.listed().await.unwrap();
    let error = watches.during(std::future::pending::<()>()).await.unwrap_err();
    assert_eq!(error.to_string(), "the watch of Service ended");

    let (mut watches, _metrics) = script.watches();
    watches.spawn(
        "Service",
        futures::stream::iter([Ok(Event::<Service>::Init)]),
        |_| {},
    );
    let error = watches.listed().await.unwrap_err();
    assert_eq!(
        error.to_string(),
        "the watch of Service ended before its first list"
    );
}
