//! Convergence in memory: the controller against an API server that forgets nothing, with the engine and Cluster API
//! core played by the test. Every pass runs for real; only the watches are replaced by folding what changed.

use std::sync::Arc;

use k8s_openapi::api::core::v1::Secret;
use kamaji_api::{
    conditions::TenantControlPlaneCondition as Tenant,
    controlplane::{Endpoint, KamajiControlPlane, KamajiControlPlaneStatus},
    labels::{capi, go_provider, kamaji, ours},
    tenantcontrolplane::{CertificatesStatus, SecretStatus, TenantControlPlane},
};
use kube::{ResourceExt, api::PartialObjectMeta};
use serde_json::{Value, json};

use super::{Context, example, reconcile::reconcile};
use crate::{
    capi::machine::{Machine, MachinePool},
    k8s::{conditions, error::Class},
    pki::{
        issue,
        kubeconfig::Kubeconfig,
        material::PrivateKeyPem,
        spec::{AltNames, component},
    },
    runtime::driver::{Failure, Outcome},
    settings::Hosting,
    testing::{Change, FakeApi, path},
};

const CONTROL_PLANE: &str =
    "/apis/controlplane.cluster.x-k8s.io/v1alpha2/namespaces/demo/kamajicontrolplanes/alpha";
const TENANT: &str = "/apis/kamaji.clastix.io/v1alpha1/namespaces/demo/tenantcontrolplanes/alpha";

/// The controller, the API server, and what the test plays.
struct World {
    api: FakeApi,
    context: Arc<Context>,
    /// The engine does its part.
    engine: bool,
    /// Whose engine it is.
    hosting: Hosting,
    /// Address that the engine gets for a tenant.
    address: &'static str,
}

impl World {
    /// A Cluster and its control plane, nothing reconciled.
    fn new() -> Self {
        Self::of("alpha", Hosting::Embedded)
    }

    /// The control plane `alpha` of a Cluster of any name.
    fn of(cluster: &str, hosting: Hosting) -> Self {
        let api = FakeApi::default();
        let value = |object: Value, kind: &str, version: &str| {
            let mut object = object;
            object["kind"] = json!(kind);
            object["apiVersion"] = json!(version);
            object
        };
        let mut object = value(
            serde_json::to_value(example::cluster()).unwrap(),
            "Cluster",
            "cluster.x-k8s.io/v1beta2",
        );
        object["metadata"]["name"] = json!(cluster);
        api.edit(&path::cluster(cluster), &object);
        let mut object = value(
            serde_json::to_value(example::control_plane()).unwrap(),
            "KamajiControlPlane",
            "controlplane.cluster.x-k8s.io/v1alpha2",
        );
        object["metadata"]["labels"][capi::CLUSTER_NAME] = json!(cluster);
        object["metadata"]["ownerReferences"][0]["name"] = json!(cluster);
        api.edit(CONTROL_PLANE, &object);
        let context = fresh(&api, hosting);
        Self {
            api,
            context,
            engine: true,
            hosting,
            address: "192.0.2.1:6443",
        }
    }

    /// A new process: everything is listed again.
    fn restart(&mut self) {
        self.api.changes();
        self.context = fresh(&self.api, self.hosting);
        for object in self.api.objects() {
            fold(&self.context, &Change::listed(object));
        }
    }

    /// Folds what changed, plays the engine, reconciles what is due; `true` while anything happened.
    async fn round(&mut self) -> Result<bool, Failure> {
        let changes = self.api.changes();
        for change in &changes {
            fold(&self.context, change);
        }
        if self.engine {
            play_engine(&self.api, self.hosting, self.address);
        }
        let mut worked = !changes.is_empty();
        while !self.context.queue.is_empty() {
            let key = self.context.queue.next().await;
            let result = reconcile(&self.context, &key).await;
            self.context.queue.done(key.clone(), None);
            match result {
                Ok(_) => worked = true,
                // Somebody wrote meanwhile: again, with what the watches tell.
                Err(failure) if failure.class == Class::Conflict => {
                    self.context.queue.add(key);
                    return Ok(true);
                }
                Err(failure) => return Err(failure),
            }
        }
        Ok(worked)
    }

    /// Rounds until nothing happens any more. A pass that fails is no fixpoint.
    async fn settle(&mut self) {
        for _ in 0..30 {
            if !self.round().await.unwrap() {
                return;
            }
        }
        panic!("no fixpoint: {:#?}", self.api.requests());
    }

    fn control_plane(&self) -> KamajiControlPlane {
        serde_json::from_value(self.api.get(CONTROL_PLANE).unwrap()).unwrap()
    }

    fn status(&self) -> KamajiControlPlaneStatus {
        self.control_plane().status.unwrap_or_default()
    }

    fn tenant(&self) -> TenantControlPlane {
        serde_json::from_value(self.api.get(TENANT).unwrap()).unwrap()
    }

    fn secret(&self, name: &str) -> Option<Secret> {
        self.api
            .get(&path::secret(name))
            .map(|secret| serde_json::from_value(secret).unwrap())
    }

    fn condition(&self, type_: &str) -> (String, String, String) {
        let status = self.status();
        let found = conditions::get(&status.conditions, type_).unwrap();
        (found.status.clone(), found.reason.clone(), found.message.clone())
    }

    fn initialized(&self) -> bool {
        self.status()
            .initialization
            .is_some_and(|known| known.control_plane_initialized == Some(true))
    }

    /// Everything but times, versions and UIDs.
    fn picture(&self) -> Vec<Value> {
        let mut objects = self.api.objects();
        for object in &mut objects {
            let metadata = object["metadata"].as_object_mut().unwrap();
            for key in ["uid", "resourceVersion", "ownerReferences", "generation"] {
                metadata.remove(key);
            }
            if let Some(annotations) = metadata.get_mut("annotations").and_then(Value::as_object_mut) {
                annotations.remove(ours::DIGEST);
            }
            if let Some(list) = object
                .pointer_mut("/status/conditions")
                .and_then(Value::as_array_mut)
            {
                for condition in list {
                    let condition = condition.as_object_mut().unwrap();
                    condition.remove("lastTransitionTime");
                    condition.remove("observedGeneration");
                }
            }
            if let Some(status) = object.get_mut("status").and_then(Value::as_object_mut) {
                status.remove("observedGeneration");
            }
        }
        objects
    }
}

fn fresh(api: &FakeApi, hosting: Hosting) -> Arc<Context> {
    Context::new(api.client(), None, hosting, |_| true)
}

/// What the watches do.
fn fold(context: &Context, change: &Change) {
    let index = &context.index;
    match change.kind() {
        "KamajiControlPlane" => context.control_planes.fold(change.event()),
        "Cluster" => context.clusters.fold(change.event()),
        "TenantControlPlane" => context.tenants.fold(change.event()),
        "Machine" => change.fold_child::<PartialObjectMeta<Machine>>(index, true),
        "MachinePool" => change.fold_child::<PartialObjectMeta<MachinePool>>(index, true),
        "Secret" => {
            if !change.label(capi::CLUSTER_NAME).is_null() {
                change.fold_child::<PartialObjectMeta<Secret>>(index, true);
            }
            let parts = [component::CA, component::ADMIN, component::BOOTSTRAP];
            if change
                .label(kamaji::COMPONENT)
                .as_str()
                .is_some_and(|part| parts.contains(&part))
            {
                change.fold_child::<PartialObjectMeta<Secret>>(&context.engine, true);
            }
        }
        other => panic!("nobody watches {other}"),
    }
}

/// The engine: Secrets, then a status in which everything is well. Does nothing where that is so already.
fn play_engine(api: &FakeApi, hosting: Hosting, address: &str) {
    let Some(object) = api.get(TENANT) else { return };
    let tenant: TenantControlPlane = serde_json::from_value(object).unwrap();
    let name = tenant.name_any();
    let secret = |part: &str, suffix: &str, data: Value| {
        let path = path::secret(&format!("{name}{suffix}"));
        if api.get(&path).is_some() {
            return;
        }
        api.edit(
            &path,
            &json!({
                "apiVersion": "v1", "kind": "Secret", "type": "Opaque",
                "metadata": {
                    "name": format!("{name}{suffix}"), "namespace": "demo",
                    "labels": { kamaji::COMPONENT: part },
                    "annotations": { ours::CONTENT_HASH: format!("hash-of-{suffix}") },
                    "ownerReferences": [{
                        "apiVersion": "kamaji.clastix.io/v1alpha1", "kind": "TenantControlPlane",
                        "name": name, "uid": tenant.uid(), "controller": true,
                    }],
                },
                "data": data,
            }),
        );
    };
    let kubeconfig = |user: &str| {
        let text = Kubeconfig {
            cluster: name.clone(),
            user: user.into(),
            server: "https://192.0.2.1:6443".into(),
            ca_pem: "CA".into(),
            certificate_pem: "CERT".into(),
            key_pem: PrivateKeyPem::new("KEY".into()),
        };
        json!(k8s_openapi::ByteString(
            text.to_yaml().unwrap().as_bytes().to_vec()
        ))
    };
    secret(
        component::CA,
        "-ca",
        json!({"ca.crt": "QQ==", "ca.key": "Qg==", "tls.crt": "QQ==", "tls.key": "Qg=="}),
    );
    secret(
        component::ADMIN,
        "-admin-kubeconfig",
        json!({"admin.conf": kubeconfig("kubernetes-admin")}),
    );
    if hosting == Hosting::Embedded {
        secret(
            component::BOOTSTRAP,
            "-bootstrap-kubeconfig",
            json!({"value": kubeconfig("kamaji-bootstrap:controller")}),
        );
    }
    let replicas = tenant.spec.control_plane.deployment.replicas;
    let mut well = example::running(&tenant.spec.kubernetes.version).status.unwrap();
    well.control_plane_endpoint = Some(address.to_owned());
    well.observed_generation = tenant.metadata.generation;
    well.certificates = Some(CertificatesStatus {
        ca: Some(SecretStatus {
            secret_name: Some(format!("{name}-ca")),
            ..SecretStatus::default()
        }),
        ..CertificatesStatus::default()
    });
    let resources = well.kubernetes_resources.as_mut().unwrap();
    let pods = resources.deployment.as_mut().unwrap();
    (pods.replicas, pods.updated_replicas) = (Some(replicas), Some(replicas));
    (pods.ready_replicas, pods.available_replicas) = (Some(replicas), Some(replicas));
    let said = tenant.status.as_ref().map(|status| status.conditions.clone());
    if said
        .as_ref()
        .is_some_and(|said| said.iter().any(|c| c.status == "False"))
    {
        return;
    }
    let status = json!({ "status": well });
    if tenant.status.as_ref() != Some(&well) {
        api.edit(TENANT, &status);
    }
}

#[tokio::test]
async fn a_control_plane_is_initialized_and_then_nothing_is_written() {
    let mut world = World::new();
    world.settle().await;
    assert!(world.initialized(), "{:#?}", world.status());
    let endpoint = Endpoint {
        host: "192.0.2.1".into(),
        port: 6443,
    };
    assert_eq!(world.control_plane().spec.control_plane_endpoint, Some(endpoint));
    assert_eq!(world.condition("Ready").0, "True");
    for condition in &world.status().conditions {
        let healthy = if kamaji_api::conditions::is_negative(&condition.type_) {
            "False"
        } else {
            "True"
        };
        assert_eq!(condition.status, healthy, "{condition:?}");
    }
    let requests = world.api.requests();
    assert!(requests.len() <= 20, "budget of a creation: {requests:#?}");
    // The same again, warm and after a restart.
    world.context.queue.add(path::key("alpha"));
    world.settle().await;
    world.restart();
    world.settle().await;
    assert_eq!(world.api.requests(), Vec::<String>::new());
}

#[tokio::test]
async fn contract_28_a_crash_after_any_write_converges_to_the_same() {
    let mut reference = World::new();
    reference.settle().await;
    let wanted = reference.picture();
    for writes in 1..20 {
        let mut world = World::new();
        world.api.die_after(Some(writes));
        // Whatever fails here fails as in a process that died.
        for _ in 0..10 {
            let _ = world.round().await;
        }
        world.api.die_after(None);
        world.restart();
        world.settle().await;
        assert_json_diff::assert_json_eq!(json!(world.picture()), json!(wanted));
    }
}

#[tokio::test]
async fn contract_08_what_others_need_existed_before_initialized_was_seen() {
    let mut world = World::new();
    let mut history = Vec::new();
    for _ in 0..30 {
        let changes = world.api.changes();
        for change in &changes {
            fold(&world.context, change);
        }
        history.extend(changes.into_iter().map(|change| change.object));
        if !world.round().await.unwrap() {
            break;
        }
    }
    let first = |holds: &dyn Fn(&Value) -> bool| history.iter().position(holds);
    let is =
        |object: &Value, kind: &str, name: &str| object["kind"] == kind && object["metadata"]["name"] == name;
    let labelled = |object: &Value| object["metadata"]["labels"][capi::CLUSTER_NAME] == "alpha";
    let initialized = first(&|object| {
        is(object, "KamajiControlPlane", "alpha")
            && object["status"]["initialization"]["controlPlaneInitialized"] == true
    });
    let before = [
        first(&|object| is(object, "Secret", "alpha-ca") && labelled(object)),
        first(&|object| is(object, "Secret", "alpha-kubeconfig") && labelled(object)),
        first(&|object| {
            is(object, "KamajiControlPlane", "alpha")
                && object["spec"]["controlPlaneEndpoint"]["port"] == 6443
        }),
    ];
    for earlier in before {
        assert!(
            earlier.is_some() && earlier < initialized,
            "{earlier:?} of {before:?} is not before {initialized:?}"
        );
    }
}

#[tokio::test]
async fn contract_09_the_kubeconfig_has_the_form_of_the_contract() {
    let mut world = World::new();
    world.settle().await;
    let secret = world.secret("alpha-kubeconfig").unwrap();
    assert_eq!(secret.type_.as_deref(), Some(capi::SECRET_TYPE));
    assert_eq!(secret.labels()[capi::CLUSTER_NAME], "alpha");
    let owner = &secret.owner_references()[0];
    assert_eq!(
        (owner.kind.as_str(), owner.controller),
        ("KamajiControlPlane", Some(true))
    );
    let read = Kubeconfig::parse(&secret.data.unwrap()["value"].0).unwrap();
    assert_eq!(read.context(), "alpha-admin@alpha");
    assert_eq!(read.server, "https://192.0.2.1:6443");
    let bootstrap = world.secret("alpha-kamaji-bootstrap").unwrap();
    let read = Kubeconfig::parse(&bootstrap.data.unwrap()["value"].0).unwrap();
    assert_eq!(
        (read.user.as_str(), read.cluster.as_str()),
        ("kamaji-bootstrap:controller", "alpha")
    );
}

#[tokio::test]
async fn contract_03_without_an_owner_nothing_is_made_and_the_owner_starts_it() {
    let mut world = World::new();
    let owners = world.api.get(CONTROL_PLANE).unwrap()["metadata"]["ownerReferences"].clone();
    world
        .api
        .edit(CONTROL_PLANE, &json!({"metadata": {"ownerReferences": null}}));
    world.settle().await;
    assert!(world.api.get(TENANT).is_none());
    assert_eq!(world.condition("Available").1, "WaitingForOwner");
    assert_eq!(
        world.status().external_managed_control_plane,
        Some(true),
        "contract_06"
    );
    world
        .api
        .edit(CONTROL_PLANE, &json!({"metadata": {"ownerReferences": owners}}));
    world.settle().await;
    assert!(world.initialized());
}

#[tokio::test]
async fn contract_14_paused_edits_wait_and_go_on_without_any_other_event() {
    for pause in [
        (
            path::cluster("alpha").as_str(),
            json!({"spec": {"paused": true}}),
            json!({"spec": {"paused": null}}),
        ),
        (
            CONTROL_PLANE,
            json!({"metadata": {"annotations": {capi::PAUSED: ""}}}),
            json!({"metadata": {"annotations": {capi::PAUSED: null}}}),
        ),
    ] {
        let mut world = World::new();
        world.settle().await;
        world.api.edit(pause.0, &pause.1);
        world.settle().await;
        assert_eq!(world.condition("Paused").0, "True");
        world.api.edit(CONTROL_PLANE, &json!({"spec": {"replicas": 3}}));
        world.settle().await;
        assert_eq!(world.tenant().spec.control_plane.deployment.replicas, 2);
        world.api.edit(pause.0, &pause.2);
        world.settle().await;
        assert_eq!(world.condition("Paused").0, "False");
        assert_eq!(world.tenant().spec.control_plane.deployment.replicas, 3);
    }
}

#[tokio::test]
async fn contract_15_a_paused_deletion_tears_nothing_down() {
    let mut world = World::new();
    world.settle().await;
    world
        .api
        .edit(&path::cluster("alpha"), &json!({"spec": {"paused": true}}));
    world.api.delete(CONTROL_PLANE);
    world.settle().await;
    assert!(world.api.get(TENANT).is_some());
    world
        .api
        .edit(&path::cluster("alpha"), &json!({"spec": {"paused": false}}));
    world.settle().await;
    assert!(world.api.get(CONTROL_PLANE).is_none() && world.api.get(TENANT).is_none());
}

#[tokio::test]
async fn contract_21_22_deletion_waits_for_workers_then_for_the_tenant_and_leaves_nothing() {
    let mut world = World::new();
    world.settle().await;
    world.api.edit(
        &path::machine("m0"),
        &json!({
            "apiVersion": "cluster.x-k8s.io/v1beta2", "kind": "Machine",
            "metadata": {"name": "m0", "namespace": "demo", "labels": {capi::CLUSTER_NAME: "alpha"}},
        }),
    );
    world
        .api
        .edit(TENANT, &json!({"metadata": {"finalizers": [kamaji::FINALIZER]}}));
    world.api.delete(CONTROL_PLANE);
    world.settle().await;
    assert_eq!(
        world.condition("Deleting"),
        (
            "True".into(),
            "WaitingForWorkersDeletion".into(),
            "the API serves until these are gone: Machine/m0".into()
        )
    );
    assert!(world.tenant().metadata.deletion_timestamp.is_none());
    world.api.delete(&path::machine("m0"));
    world.settle().await;
    assert!(world.tenant().metadata.deletion_timestamp.is_some());
    assert_eq!(
        world.condition("Deleting").1,
        "WaitingForTenantControlPlaneDeletion"
    );
    world.api.edit(TENANT, &json!({"metadata": {"finalizers": []}}));
    world.settle().await;
    let left: Vec<_> = world.api.objects().iter().map(|o| o["kind"].clone()).collect();
    assert_eq!(left, ["Cluster"]);
}

#[tokio::test]
async fn contract_20_initialized_stays_when_the_pods_die() {
    let mut world = World::new();
    world.settle().await;
    let mut broken = world.tenant();
    example::say(
        &mut broken,
        Tenant::Available,
        "False",
        "APIServerUnreachable",
        "no answer",
    );
    world.engine = false;
    world.api.edit(TENANT, &json!({"status": broken.status}));
    world.settle().await;
    assert_eq!(world.condition("Available").1, "APIServerUnreachable");
    assert!(world.initialized());
}

#[tokio::test]
async fn a_foreign_edit_or_delete_is_repaired() {
    let mut world = World::new();
    world.settle().await;
    let wanted = world.picture();
    world.api.edit(
        &path::secret("alpha-kubeconfig"),
        &json!({"data": {"value": "aGE="}}),
    );
    world.api.delete(&path::secret("alpha-kamaji-bootstrap"));
    world
        .api
        .edit(TENANT, &json!({"spec": {"networkProfile": {"port": 1}}}));
    world.settle().await;
    assert_json_diff::assert_json_eq!(json!(world.picture()), json!(wanted));
}

#[tokio::test]
async fn contract_24_a_renewed_admin_certificate_is_copied_and_a_users_kubeconfig_is_not_touched() {
    let mut world = World::new();
    world.settle().await;
    world.api.delete(&path::secret("alpha-admin-kubeconfig"));
    world.api.requests();
    world.settle().await;
    assert!(world.api.requests().is_empty(), "the same bytes are no news");
    world.api.edit(
        &path::secret("alpha-admin-kubeconfig"),
        &json!({"metadata": {"annotations": {ours::CONTENT_HASH: "renewed"}}}),
    );
    world.settle().await;
    let wrote = format!("PATCH {}", path::secret("alpha-kubeconfig"));
    assert!(world.api.requests().contains(&wrote));

    for label in [json!({capi::CLUSTER_NAME: "alpha"}), json!({})] {
        let mut world = World::new();
        world.api.edit(
            &path::secret("alpha-kubeconfig"),
            &json!({
                "apiVersion": "v1", "kind": "Secret", "type": "Opaque", "data": {"value": "bWluZQ=="},
                "metadata": {"name": "alpha-kubeconfig", "namespace": "demo", "labels": label},
            }),
        );
        world.settle().await;
        assert!(world.initialized());
        let secret = world.secret("alpha-kubeconfig").unwrap();
        assert_eq!(secret.data.unwrap()["value"].0, b"mine");
    }
}

#[tokio::test]
async fn a_tenant_of_somebody_else_is_left_alone() {
    let mut world = World::new();
    world.engine = false;
    world.api.edit(
        TENANT,
        &json!({
            "apiVersion": "kamaji.clastix.io/v1alpha1", "kind": "TenantControlPlane",
            "metadata": {"name": "alpha", "namespace": "demo"},
            "spec": serde_json::to_value(&example::tenant().spec).unwrap(),
        }),
    );
    let before = world.api.get(TENANT);
    world.settle().await;
    assert_eq!(world.condition("TenantControlPlaneCreated").1, "OwnedByAnother");
    world.api.delete(CONTROL_PLANE);
    world.settle().await;
    assert!(world.api.get(CONTROL_PLANE).is_none());
    assert_eq!(world.api.get(TENANT), before);
}

#[tokio::test]
async fn contract_29_under_a_new_uid_and_without_status_the_same_tenant_goes_on() {
    let mut world = World::new();
    world.settle().await;
    let (tenant, authority) = (world.tenant().uid(), world.secret("alpha-ca").unwrap().data);
    world.api.edit(
        CONTROL_PLANE,
        &json!({"metadata": {"uid": "another-uid"}, "status": null}),
    );
    world.restart();
    world.settle().await;
    assert!(world.initialized());
    assert_eq!(world.tenant().uid(), tenant);
    assert_eq!(world.secret("alpha-ca").unwrap().data, authority);
    for owned in [
        world.tenant().owner_references().to_vec(),
        world
            .secret("alpha-kubeconfig")
            .unwrap()
            .owner_references()
            .to_vec(),
    ] {
        assert_eq!(owned.len(), 1);
        assert_eq!(owned[0].uid, "another-uid");
    }
}

#[tokio::test]
async fn contract_16_scaling_shows_in_conditions_and_versions_stay() {
    let mut world = World::new();
    world.settle().await;
    for (replicas, up, down) in [(3, "True", "False"), (1, "False", "True"), (0, "False", "True")] {
        world.engine = false;
        world
            .api
            .edit(CONTROL_PLANE, &json!({"spec": {"replicas": replicas}}));
        world.settle().await;
        assert_eq!(world.condition("ScalingUp").0, up, "to {replicas}");
        assert_eq!(world.condition("ScalingDown").0, down, "to {replicas}");
        world.engine = true;
        world.context.queue.add(path::key("alpha"));
        world.settle().await;
        assert_eq!(world.status().replicas, Some(replicas));
        assert_eq!(world.condition("ScalingDown").0, "False");
        assert_eq!(world.status().version.as_deref(), Some("v1.36.3"));
        assert!(world.initialized());
    }
    assert_eq!(world.condition("Available").1, "Sleeping");
}

#[tokio::test]
async fn contract_30_what_is_deleted_for_a_move_leaves_the_tenant_and_its_data() {
    let mut world = World::new();
    world.settle().await;
    world.api.edit(
        CONTROL_PLANE,
        &json!({"metadata": {"annotations": {capi::DELETE_FOR_MOVE: ""}}}),
    );
    world.api.delete(CONTROL_PLANE);
    world.settle().await;
    assert!(world.api.get(CONTROL_PLANE).is_none());
    let tenant = world.tenant();
    assert!(tenant.metadata.deletion_timestamp.is_none() && tenant.owner_references().is_empty());
}

/// `beta-ca` as a user makes it: no label, certificate and key.
fn give_authority(world: &World, key_of_another: bool) -> Value {
    let make = |name: &str| issue::ca(name, &AltNames::default(), example::now()).unwrap();
    let (one, two) = (make("one"), make("two"));
    let key = if key_of_another { &two } else { &one };
    let bytes = |text: &str| json!(k8s_openapi::ByteString(text.as_bytes().to_vec()));
    let data = json!({"tls.crt": bytes(&one.cert_pem), "tls.key": bytes(key.key_pem.expose())});
    world.api.edit(
        &path::secret("beta-ca"),
        &json!({
            "apiVersion": "v1", "kind": "Secret", "type": "Opaque",
            "metadata": {"name": "beta-ca", "namespace": "demo"}, "data": data,
        }),
    );
    data
}

#[tokio::test]
async fn a_users_authority_under_the_clusters_name_is_used_and_never_lost() {
    let mut world = World::of("beta", Hosting::Embedded);
    let given = give_authority(&world, false);
    world.settle().await;
    assert!(world.initialized(), "{:#?}", world.status());
    let users = world.api.get(&path::secret("beta-ca")).unwrap();
    assert_eq!(
        users["metadata"]["labels"][capi::CLUSTER_NAME],
        "beta",
        "core sees it"
    );
    assert_eq!((&users["data"], &users["type"]), (&given, &json!("Opaque")));
    assert_eq!(world.api.get(&path::secret("alpha-ca")).unwrap()["data"], given);
    world.api.requests();
    world.restart();
    world.settle().await;
    assert_eq!(world.api.requests(), [format!("GET {}", path::secret("beta-ca"))]);

    // It goes, as garbage collection or a hand would have it, and comes back before the engine makes another.
    world.engine = false;
    world.api.delete(&path::secret("alpha-ca"));
    world.settle().await;
    assert_eq!(world.api.get(&path::secret("alpha-ca")).unwrap()["data"], given);

    let other = give_authority(&world, false);
    assert_ne!(other, given);
    world.settle().await;
    assert_eq!(
        world.condition("CertificatesAvailable").1,
        "CertificateAuthorityDiffers"
    );
    assert_eq!(world.condition("Ready").0, "False");
    assert_eq!(
        world.api.get(&path::secret("alpha-ca")).unwrap()["data"],
        given,
        "nodes trust this one"
    );
    world.api.edit(&path::secret("beta-ca"), &json!({"data": given}));
    world.settle().await;
    assert_eq!(world.condition("CertificatesAvailable").0, "True");

    world.api.delete(CONTROL_PLANE);
    world.settle().await;
    let left: Vec<_> = world
        .api
        .objects()
        .iter()
        .map(|object| object["metadata"]["name"].clone())
        .collect();
    assert_eq!(left, ["beta-ca", "beta"], "the user's own and the Cluster");
}

#[tokio::test]
async fn a_users_authority_that_does_not_fit_is_looked_at_again() {
    let mut world = World::of("beta", Hosting::Embedded);
    give_authority(&world, true);
    world.settle().await;
    assert!(world.api.get(TENANT).is_none());
    assert_eq!(
        world.condition("CertificatesAvailable").1,
        "CertificateAuthorityKeyMismatch"
    );
    let again = reconcile(&world.context, &path::key("alpha")).await;
    assert_eq!(
        again.unwrap(),
        Outcome::Waiting,
        "no watch tells of a Secret without a label"
    );
    give_authority(&world, false);
    world.context.queue.add(path::key("alpha"));
    world.settle().await;
    assert!(world.initialized());
}

#[tokio::test]
async fn under_another_engine_no_authority_is_seeded_and_no_bootstrap_kubeconfig_is_needed() {
    let mut world = World::of("beta", Hosting::External);
    let mut bare = World::of("alpha", Hosting::External);
    bare.settle().await;
    assert_eq!(bare.condition("Ready").0, "True", "{:#?}", bare.status());
    assert!(bare.secret("alpha-kamaji-bootstrap").is_none());

    give_authority(&world, false);
    world.api.edit(
        &path::secret("beta-ca"),
        &json!({"metadata": {"labels": {capi::CLUSTER_NAME: "beta"}}}),
    );
    world.engine = false;
    world.settle().await;
    assert!(world.api.get(TENANT).is_some() && world.secret("alpha-ca").is_none());
}

#[tokio::test]
async fn an_endpoint_of_ours_that_moved_is_told_also_when_the_tenant_was_made_again() {
    let mut world = World::new();
    world.settle().await;
    let published = world.control_plane().spec.control_plane_endpoint;
    world.address = "192.0.2.9:6443";
    world.api.delete(TENANT);
    world.settle().await;
    let (status, reason, message) = world.condition("ControlPlaneEndpointPatched");
    assert_eq!((status.as_str(), reason.as_str()), ("False", "EndpointChanged"));
    assert!(message.contains("192.0.2.9:6443 now"), "{message}");
    assert_eq!(world.control_plane().spec.control_plane_endpoint, published);
    assert!(world.tenant().spec.network_profile.cert_sans.is_empty());
    world.address = "192.0.2.1:6443";
    world.context.queue.add(path::key("alpha"));
    world.settle().await;
    assert_eq!(world.condition("ControlPlaneEndpointPatched").0, "True");
}

#[tokio::test]
async fn a_deletion_goes_on_when_the_cluster_is_gone_before_the_last_machine() {
    let mut world = World::new();
    world.settle().await;
    world.api.edit(
        &path::machine("m0"),
        &json!({
            "apiVersion": "cluster.x-k8s.io/v1beta2", "kind": "Machine",
            "metadata": {"name": "m0", "namespace": "demo", "labels": {capi::CLUSTER_NAME: "alpha"}},
        }),
    );
    world.api.delete(CONTROL_PLANE);
    world.api.delete(&path::cluster("alpha"));
    world.settle().await;
    assert_eq!(world.condition("Deleting").1, "WaitingForWorkersDeletion");
    world.api.delete(&path::machine("m0"));
    world.settle().await;
    assert!(world.api.objects().is_empty(), "{:#?}", world.api.objects());
}

#[tokio::test]
async fn a_kubeconfig_key_that_is_not_there_is_named() {
    let mut world = World::new();
    world.api.edit(
        CONTROL_PLANE,
        &json!({"metadata": {"annotations": {kamaji::KUBECONFIG_SECRET_KEY: "nope.conf"}}}),
    );
    world.settle().await;
    assert!(!world.initialized());
    let (_, reason, message) = world.condition("KubeadmResourcesCreated");
    assert_eq!(reason, "InvalidSpec");
    assert!(message.contains("it has admin.conf"), "{message}");
}

#[tokio::test]
async fn contract_31a_what_the_go_provider_holds_of_the_spec_is_given_up_once() {
    let mut world = World::new();
    let entry = |manager: &str, operation: &str, fields: Value| {
        json!({
            "manager": manager, "operation": operation, "fieldsType": "FieldsV1", "fieldsV1": fields,
            "apiVersion": "controlplane.cluster.x-k8s.io/v1alpha2",
        })
    };
    world.api.edit(
        CONTROL_PLANE,
        &json!({
            "metadata": {
                "finalizers": [go_provider::FINALIZER],
                "managedFields": [
                    entry("manager", "Update", json!({"f:metadata": {"f:finalizers": {}}, "f:spec": {"f:kine": {}}})),
                    entry("capi-topology", "Apply", json!({"f:spec": {"f:version": {}}})),
                ],
            },
            "spec": {"controlPlaneEndpoint": {"host": "192.0.2.1", "port": 6443}},
        }),
    );
    let before = world.control_plane().spec;
    world.settle().await;
    let fields = world.api.get(CONTROL_PLANE).unwrap()["metadata"]["managedFields"].clone();
    assert_eq!(fields[0]["fieldsV1"], json!({"f:metadata": {"f:finalizers": {}}}));
    assert_eq!(fields[1]["fieldsV1"], json!({"f:spec": {"f:version": {}}}));
    assert_eq!(world.control_plane().spec, before, "values stay");
    assert!(world.initialized());
    world.api.requests();
    world.restart();
    world.settle().await;
    assert_eq!(world.api.requests(), Vec::<String>::new());
}
