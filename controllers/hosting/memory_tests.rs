//! What ten thousand tenants take in memory, and how long they take to be listed.
//!
//! The tenants are copies of one that the convergence model made ready, with every object that the engine makes for it
//! and its pods. Heap is counted for this thread alone, as the allocator of the binary counts it: other tests run beside.

#![cfg(target_os = "linux")]

use std::time::Duration;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kamaji_api::{
    labels::{field_manager, kamaji, ours},
    tenantcontrolplane::TenantControlPlane,
};
use kube::{Resource as _, runtime::watcher::Event};
use serde_json::{Value, json};

use super::{engine::Engine, tenantcontrolplane::tests::ready_objects, testing};
use crate::{
    k8s::{
        children::{self, Visitor, Watched},
        kind::Kind,
        row::Row,
    },
    settings::DefaultDatastore,
    testing::FakeApi,
};

/// Heap that one default tenant may take: its object, its rows and all indexes.
const BYTES_PER_TENANT: u64 = 12 * 1024;
/// How much longer ten times the tenants may take to be listed.
const RATIO: f64 = 13.0;
const FEW: usize = 1_000;
const MANY: usize = 10_000;

/// Makes the row of one object for the tenant of this number.
type MakeRow = Box<dyn Fn(usize) -> Row>;

/// One tenant, to be copied.
struct Template {
    tenant: TenantControlPlane,
    rows: Vec<MakeRow>,
}

impl Template {
    async fn new() -> Self {
        let mut objects = ready_objects().await;
        let of_kind = |kind: &str| {
            objects
                .iter()
                .find(|object| object["kind"] == kind)
                .unwrap()
                .clone()
        };
        let tenant: TenantControlPlane = serde_json::from_value(of_kind("TenantControlPlane")).unwrap();
        let deployment = of_kind("Deployment");
        let replicas = deployment["spec"]["replicas"].as_u64().unwrap_or(1);
        objects.extend((0..replicas).map(|number| pod(&deployment, number)));
        let mut rows = Rows {
            objects: &objects,
            made: Vec::new(),
        };
        children::each(&mut rows);
        Self {
            tenant,
            rows: rows.made,
        }
    }

    /// The tenant of this number.
    fn tenant(&self, number: usize) -> TenantControlPlane {
        let mut tenant = self.tenant.clone();
        rename(tenant.meta_mut(), number, 0);
        tenant
    }
}

fn pod(deployment: &Value, number: u64) -> Value {
    let name = deployment["metadata"]["name"].as_str().unwrap();
    let mut labels = deployment["spec"]["template"]["metadata"]["labels"].clone();
    labels[ours::MANAGED_BY] = field_manager::HOSTING.into();
    json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {
            "name": format!("{name}-7d4b9c5f6-abcd{number}"), "namespace": "demo", "uid": "u", "labels": labels,
            "ownerReferences": [{
                "apiVersion": "apps/v1", "kind": "ReplicaSet", "name": format!("{name}-7d4b9c5f6"), "uid": "u",
                "controller": true,
            }],
        },
    })
}

struct Rows<'a> {
    objects: &'a [Value],
    made: Vec<MakeRow>,
}

impl Visitor for Rows<'_> {
    fn visit<K: Watched>(&mut self) {
        let kind = Kind::of::<K>().name();
        let made = |object: &&Value| {
            object["kind"] == kind && object["metadata"]["labels"][ours::MANAGED_BY] == field_manager::HOSTING
        };
        for object in self.objects.iter().filter(made) {
            let object: K = serde_json::from_value(object.clone()).unwrap();
            let part = self.made.len() + 1;
            self.made.push(Box::new(move |number| {
                let mut object = object.clone();
                rename(object.meta_mut(), number, part);
                object.row()
            }));
        }
    }
}

/// Sets a name, UIDs and a version of realistic length.
fn rename(meta: &mut ObjectMeta, number: usize, part: usize) {
    let tenant = format!("tenant-{number:06}");
    let uid = |part: usize| format!("{number:08x}-{part:04x}-4000-8000-000000000000");
    meta.namespace = Some(format!("team-{:04}", number % 500));
    meta.name = meta.name.take().map(|name| name.replace("alpha", &tenant));
    meta.uid = Some(uid(part));
    meta.resource_version = Some((1_000_000 + number * 100 + part).to_string());
    for owner in meta.owner_references.iter_mut().flatten() {
        owner.name = owner.name.replace("alpha", &tenant);
        owner.uid = uid(if owner.kind == "ReplicaSet" {
            part + 1000
        } else {
            0
        });
    }
    if let Some(name) = meta
        .labels
        .as_mut()
        .and_then(|labels| labels.get_mut(kamaji::NAME))
    {
        *name = tenant;
    }
}

async fn engine() -> std::sync::Arc<Engine> {
    let api = FakeApi::default();
    let namespace = json!({ "apiVersion": "v1", "kind": "Namespace", "metadata": { "name": "kube-system" } });
    api.edit("/api/v1/namespaces/kube-system", &namespace);
    testing::engine(&api, DefaultDatastore::Managed).await
}

/// Lists this many tenants as the watches do. Returns the processor time, and the heap before anybody is woken.
fn fill(engine: &Engine, template: &Template, tenants: usize) -> (Duration, u64) {
    let (before, started) = (heap(), processor_time());
    let watch = engine.index.watch();
    engine.index.hold();
    engine.tenants.hold();
    engine.index.fold(watch, Event::Init);
    engine.tenants.fold(Event::Init);
    for number in 0..tenants {
        engine.tenants.fold(Event::InitApply(template.tenant(number)));
    }
    let objects = heap() - before;
    for number in 0..tenants {
        for row in &template.rows {
            engine.index.fold(watch, Event::InitApply(row(number)));
        }
    }
    engine.index.fold(watch, Event::InitDone);
    engine.tenants.fold(Event::InitDone);
    // Each row has a fingerprint, as after an apply.
    for row in engine.index.all() {
        assert!(engine.index.is_untouched(&row));
    }
    let bytes = heap() - before;
    let part = |bytes: u64| bytes / u64::try_from(tenants).unwrap();
    eprintln!(
        "{tenants}: {} bytes an object, {} bytes its rows",
        part(objects),
        part(bytes - objects)
    );
    engine.index.release();
    engine.tenants.release();
    assert_eq!(engine.tenant_queue.len(), tenants, "each is woken once");
    (processor_time().saturating_sub(started), bytes)
}

/// Bytes that this thread has allocated and not freed, rounded up to size classes of the allocator.
fn heap() -> u64 {
    use tikv_jemalloc_ctl::thread;
    let allocated = thread::allocatedp::read().unwrap().get();
    allocated - thread::deallocatedp::read().unwrap().get()
}

/// Time that this thread has spent on a processor: unlike the time of day, it does not grow while other processes run.
fn processor_time() -> Duration {
    let fields = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap();
    Duration::from_nanos(fields.split(' ').next().unwrap().parse().unwrap())
}

#[tokio::test]
async fn ten_thousand_tenants_fit_in_memory_and_are_listed_in_linear_time() {
    let template = Template::new().await;
    let mut few = Duration::MAX;
    for _ in 0..3 {
        few = few.min(fill(&*engine().await, &template, FEW).0);
    }
    let (many, bytes) = fill(&*engine().await, &template, MANY);
    let each = bytes / u64::try_from(MANY).unwrap();
    let ratio = many.as_secs_f64() / few.as_secs_f64();
    eprintln!(
        "a tenant with {} rows takes {each} bytes; {FEW} are listed in {few:?}, {MANY} in {many:?}, {ratio:.1} times",
        template.rows.len()
    );
    assert!(
        each <= BYTES_PER_TENANT,
        "{each} bytes a tenant, at most {BYTES_PER_TENANT}"
    );
    assert!(
        ratio <= RATIO,
        "{MANY} tenants take {ratio:.1} times as long as {FEW}"
    );
}
