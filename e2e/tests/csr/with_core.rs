//! MachinePools with Cluster API's own controllers, which hand the data to the infrastructure and find the Nodes. The test plays
//! the infrastructure provider of a `LocalMachinePool`.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use e2e::{
    bootstrap::{CLUSTER, NS, World, until},
    core_provider::{CoreProvider, PROGRAM},
    etcd::tools,
    infra::api::{LocalMachinePool, definitions},
    skip,
};
use k8s_openapi::api::core::v1::Node;
use kamaji_api::bootstrap::KamajiConfig;
use kube::{
    Api,
    api::{DynamicObject, Patch, PatchParams},
};
use serde_json::{Value, json};

const SOON: Duration = Duration::from_mins(1);
/// The taint that Cluster API removes from Nodes that it knows.
const UNINITIALIZED: &str = "node.cluster.x-k8s.io/uninitialized";

struct Core {
    world: World,
    pools: Api<DynamicObject>,
    _provider: CoreProvider,
}

impl Core {
    /// Cluster API's controllers beside the world's API server; they reach the workload cluster as its admin.
    async fn start(name: &str) -> Result<Option<Self>> {
        let Some(world) = World::start(name).await? else {
            return Ok(None);
        };
        if !tools().join(PROGRAM).exists() {
            skip("the core provider is not built (hack/tools makes it)");
            return Ok(None);
        }
        let provider = CoreProvider::start(&world.server).await?;
        for definition in definitions() {
            world.server.install(&definition).await?;
        }
        let kubeconfig = std::fs::read_to_string(world.server.kubeconfig()?)?;
        world
            .apply(&json!({
                "apiVersion": "v1", "kind": "Secret", "type": "cluster.x-k8s.io/secret",
                "metadata": {
                    "name": format!("{CLUSTER}-kubeconfig"), "namespace": NS,
                    "labels": {"cluster.x-k8s.io/cluster-name": CLUSTER},
                },
                "stringData": {"value": kubeconfig},
            }))
            .await?;
        let pools = world.api("cluster.x-k8s.io/v1beta2", "MachinePool");
        Ok(Some(Self {
            world,
            pools,
            _provider: provider,
        }))
    }

    /// What a user applies for a pool of one machine.
    async fn pool(&self, name: &str, spec: Value) -> Result<()> {
        let metadata = json!({"name": name, "namespace": NS});
        for object in [
            json!({
                "apiVersion": "infrastructure.cluster.x-k8s.io/v1alpha1", "kind": "LocalMachinePool",
                "metadata": metadata, "spec": {},
            }),
            json!({
                "apiVersion": "bootstrap.cluster.x-k8s.io/v1alpha1", "kind": "KamajiConfig",
                "metadata": metadata, "spec": spec,
            }),
            json!({
                "apiVersion": "cluster.x-k8s.io/v1beta2", "kind": "MachinePool", "metadata": metadata,
                "spec": {
                    "clusterName": CLUSTER, "replicas": 1,
                    "template": {"spec": {
                        "clusterName": CLUSTER, "version": "v1.36.3",
                        "bootstrap": {"configRef": {"apiGroup": "bootstrap.cluster.x-k8s.io", "kind": "KamajiConfig", "name": name}},
                        "infrastructureRef": {"apiGroup": "infrastructure.cluster.x-k8s.io", "kind": "LocalMachinePool", "name": name},
                    }},
                },
            }),
        ] {
            self.world.apply(&object).await?;
        }
        Ok(())
    }

    /// A value of a MachinePool, once it is not `before`.
    async fn value(&self, name: &str, pointer: &str, before: &Value) -> Result<Value> {
        until(&format!("{pointer} of {name}"), SOON, async || {
            let pool = self.pools.get(name).await?;
            let found = pool.data.pointer(pointer).cloned().unwrap_or_default();
            Ok((found != Value::Null && found != *before).then_some(found))
        })
        .await
    }

    async fn change(&self, name: &str, spec: Value) -> Result<()> {
        let configs: Api<KamajiConfig> = Api::namespaced(self.world.admin.clone(), NS);
        let patch = Patch::Merge(json!({ "spec": spec }));
        configs.patch(name, &PatchParams::default(), &patch).await?;
        Ok(())
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn contract_41_46_49_cluster_api_hands_out_the_data_of_a_pool_and_finds_its_nodes() -> Result<()> {
    let Some(core) = Core::start("pool-core").await? else {
        return Ok(());
    };
    let (data, name) = ("/spec/template/spec/bootstrap/dataSecretName", "p");
    let world = &core.world;
    let _controller = world.run()?;

    // 49: a config that fails, and one beside it that does not.
    let missing = json!({"controlPlane": {"caSecretRef": {"name": "missing"}}});
    core.pool("failing", missing).await?;
    world
        .condition("failing", "DataSecretAvailable", "WaitingForCertificates")
        .await?;
    core.pool(name, json!({})).await?;

    // 41: Cluster API owns the config and copies the name of the Secret.
    let first = core.value(name, data, &Value::Null).await?;
    let status = world.status_of(name).await?;
    ensure!(status.data_secret_name.as_deref() == first.as_str(), "{first}");
    core.change("failing", json!({"controlPlane": null})).await?;
    core.value("failing", data, &Value::Null).await?;

    // 46: another token is no other name, and another intent is.
    let (_, token) = world.pool_token(name, None).await?;
    world.age_token(name).await?;
    let (_, token) = world.pool_token(name, Some(&token)).await?;
    ensure!(core.pools.get(name).await?.data.pointer(data) == Some(&first));
    core.change(
        name,
        json!({"nodeRegistration": {"labels": {"example.com/round": "two"}}}),
    )
    .await?;
    core.value(name, data, &first).await?;

    // A machine joins, and the infrastructure reports it: its Node gets the provider ID, by which Cluster API finds it.
    let request = world.ask(&world.bearer(&token)?, "p-x7k2p").await?;
    ensure!(world.answer(&request, SOON).await?.0 == "Approved");
    world.node("p-x7k2p").await?;
    let nodes: Api<Node> = Api::all(world.admin.clone());
    let taint = json!({"spec": {"taints": [{"key": UNINITIALIZED, "effect": "NoSchedule"}]}});
    nodes
        .patch("p-x7k2p", &PatchParams::default(), &Patch::Merge(taint))
        .await?;
    let infra: Api<LocalMachinePool> = Api::namespaced(world.admin.clone(), NS);
    let ids = json!({"spec": {"providerIDList": [format!("local://{NS}/p-x7k2p")]}});
    infra
        .patch(name, &PatchParams::default(), &Patch::Merge(ids))
        .await?;
    let ready = json!({"status": {"ready": true, "replicas": 1, "initialization": {"provisioned": true}}});
    infra
        .patch_status(name, &PatchParams::default(), &Patch::Merge(ready))
        .await?;
    let found = core.value(name, "/status/nodeRefs/0/name", &Value::Null).await?;
    ensure!(found == "p-x7k2p", "{found}");
    until("the taint to be gone", SOON, async || {
        let spec = nodes.get("p-x7k2p").await?.spec.context("no spec")?;
        let tainted = spec
            .taints
            .iter()
            .flatten()
            .any(|taint| taint.key == UNINITIALIZED);
        Ok((!tainted).then_some(()))
    })
    .await?;
    let message = world.condition(name, "NodeJoined", "NodeJoined").await?;
    ensure!(message == "1 of 1 Nodes joined", "{message}");
    Ok(())
}
