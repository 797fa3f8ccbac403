//! MachinePools of machines that boot: with a Machine for each instance, and without. Needs the lab.

use std::{collections::BTreeSet, time::Instant};

use anyhow::{Context as _, Result, ensure};
use e2e::{
    infra::{api::LocalMachinePool, capi},
    lab::{
        access::Lab,
        cleanup::afterwards,
        clusters::{Cluster, VERSION, is_ready, nodes},
        machine::Inside,
        tenants::PATIENCE,
        until::until,
    },
};
use k8s_openapi::{api::core::v1::Secret, jiff::Timestamp};
use kamaji_api::bootstrap::{KamajiConfig, KamajiConfigTemplate};
use kube::{
    Api, ResourceExt as _,
    api::{DynamicObject, ListParams, Patch, PatchParams},
};
use serde_json::json;

/// The taint that Cluster API removes from Nodes that it knows.
const UNINITIALIZED: &str = "node.cluster.x-k8s.io/uninitialized";

/// A pool of a cluster, named like it.
struct Pool<'a> {
    lab: &'a Lab,
    cluster: &'a Cluster,
}

impl Pool<'_> {
    fn name(&self) -> &str {
        &self.cluster.name
    }

    fn api<K>(&self) -> Api<K>
    where
        K: kube::Resource<Scope = kube::core::NamespaceResourceScope, DynamicType = ()>,
    {
        Api::namespaced(self.lab.management.clone(), &self.cluster.namespace)
    }

    fn pools(&self) -> Api<DynamicObject> {
        let management = self.lab.management.clone();
        Api::namespaced_with(management, &self.cluster.namespace, &capi::machine_pools())
    }

    /// Creates it with one replica, and the settings of the template's workers.
    async fn create(&self, machines: bool) -> Result<()> {
        let templates: Api<KamajiConfigTemplate> = self.api();
        let workers = templates.get(&self.cluster.workers()).await?;
        let (name, namespace) = (self.name(), &self.cluster.namespace);
        let objects = [
            json!({
                "apiVersion": "bootstrap.cluster.x-k8s.io/v1alpha1", "kind": "KamajiConfig",
                "metadata": {"name": name, "namespace": namespace}, "spec": workers.spec.template.spec,
            }),
            json!({
                "apiVersion": "infrastructure.cluster.x-k8s.io/v1alpha1", "kind": "LocalMachinePool",
                "metadata": {"name": name, "namespace": namespace}, "spec": {"machines": machines},
            }),
            json!({
                "apiVersion": "cluster.x-k8s.io/v1beta2", "kind": "MachinePool",
                "metadata": {"name": name, "namespace": namespace},
                "spec": {
                    "clusterName": name, "replicas": 1,
                    "template": {"spec": {
                        "clusterName": name, "version": VERSION,
                        "bootstrap": {"configRef": {"apiGroup": "bootstrap.cluster.x-k8s.io", "kind": "KamajiConfig", "name": name}},
                        "infrastructureRef": {"apiGroup": "infrastructure.cluster.x-k8s.io", "kind": "LocalMachinePool", "name": name},
                    }},
                },
            }),
        ];
        for object in objects {
            self.cluster.apply(self.lab, &object.to_string()).await?;
        }
        Ok(())
    }

    /// Scales it through its scale subresource, as an autoscaler does, and waits for the Nodes.
    async fn scale(&self, replicas: usize) -> Result<()> {
        let began = Instant::now();
        let patch = Patch::Merge(json!({ "spec": { "replicas": replicas } }));
        self.pools()
            .patch_scale(self.name(), &PatchParams::default(), &patch)
            .await?;
        self.cluster.nodes_ready(self.lab, replicas).await?;
        self.settled(replicas).await?;
        eprintln!(
            "{}: {replicas} Nodes after {} s",
            self.name(),
            began.elapsed().as_secs()
        );
        Ok(())
    }

    /// Cluster API and the bootstrap provider know as many Nodes, and no others exist.
    async fn settled(&self, replicas: usize) -> Result<()> {
        let tenant = self.cluster.client(self.lab).await?;
        let what = format!("{replicas} Nodes of pool {} to be known", self.name());
        until(&what, PATIENCE, async || {
            let found = nodes(&tenant).await?;
            let tainted = found.iter().find(|node| {
                let taints = node.spec.iter().filter_map(|spec| spec.taints.as_ref()).flatten();
                taints.into_iter().any(|taint| taint.key == UNINITIALIZED)
            });
            ensure!(tainted.is_none(), "a Node keeps its taint: {tainted:?}");
            let names: BTreeSet<String> = found.iter().map(kube::ResourceExt::name_any).collect();
            ensure!(names.len() == replicas, "Nodes: {names:?}");
            let pool = self.pools().get(self.name()).await?;
            let refs = pool.data["status"]["nodeRefs"]
                .as_array()
                .cloned()
                .unwrap_or_default();
            let refs: BTreeSet<String> = refs
                .iter()
                .filter_map(|node| node["name"].as_str().map(ToOwned::to_owned))
                .collect();
            ensure!(refs == names, "status.nodeRefs: {refs:?}, Nodes: {names:?}");
            let config: KamajiConfig = self.api().get(self.name()).await?;
            let status = config.status.context("no status")?;
            let joined = status.nodes.iter().filter(|node| node.joined);
            let joined: BTreeSet<String> = joined.map(|node| node.name.clone()).collect();
            ensure!(joined == names, "status.nodes: {joined:?}, Nodes: {names:?}");
            Ok(Some(()))
        })
        .await
    }

    /// Names of its instances that run.
    async fn instances(&self) -> Result<BTreeSet<String>> {
        let pool: LocalMachinePool = self.api().get(self.name()).await?;
        let status = pool.status.context("no status")?;
        let running = status.instances.into_iter().filter(|instance| !instance.dead);
        Ok(running.map(|instance| instance.name).collect())
    }

    /// The token in its data, by its ID.
    async fn token(&self) -> Result<String> {
        let config: KamajiConfig = self.api().get(self.name()).await?;
        let token = config.status.and_then(|status| status.token?.id);
        token.context("no token in the status")
    }

    /// Has the token replaced: the status says that half of its life is over.
    async fn rotate(&self) -> Result<()> {
        let before = self.token().await?;
        let configs: Api<KamajiConfig> = self.api();
        let soon = Timestamp::from_second(Timestamp::now().as_second() + 600)?.to_string();
        let aged = json!({"status": {"token": {"expiration": soon}}});
        configs
            .patch_status(self.name(), &PatchParams::default(), &Patch::Merge(aged))
            .await?;
        let look = json!({"metadata": {"annotations": {"e2e/looked-at": soon}}});
        configs
            .patch(self.name(), &PatchParams::default(), &Patch::Merge(look))
            .await?;
        until("another token", PATIENCE, async || {
            Ok((self.token().await? != before).then_some(()))
        })
        .await
    }

    /// How many tokens of the provider exist in the cluster.
    async fn tokens(&self) -> Result<usize> {
        let tenant = self.cluster.client(self.lab).await?;
        let secrets: Api<Secret> = Api::namespaced(tenant, "kube-system");
        let ours = ListParams::default().labels("capi-kamaji.io/managed-by=kamaji-bootstrap");
        Ok(secrets.list(&ours).await?.items.len())
    }
}

/// A cluster with one pool, which go however the test ends.
async fn with_pool(
    name: &str,
    machines: bool,
    test: impl AsyncFnOnce(&Pool<'_>) -> Result<()>,
) -> Result<()> {
    let lab = Lab::open().await?;
    let cluster = Cluster::new("default", name);
    let run = async {
        cluster
            .create_with(&lab, 0, &[("POD_CIDR", "10.249.0.0/16")])
            .await?;
        cluster.condition(&lab, "Available", "True").await?;
        let pool = Pool {
            lab: &lab,
            cluster: &cluster,
        };
        pool.create(machines).await?;
        cluster.nodes_ready(&lab, 1).await?;
        pool.settled(1).await?;
        test(&pool).await
    };
    afterwards(Box::pin(run), async || cluster.delete(&lab).await).await
}

/// Grows, shrinks, loses an instance, and replaces its token between two joins.
async fn life(pool: &Pool<'_>) -> Result<()> {
    pool.scale(3).await?;
    pool.scale(1).await?;

    let before = pool.instances().await?;
    let [name] = <[String; 1]>::try_from(before.iter().cloned().collect::<Vec<_>>())
        .map_err(|names| anyhow::anyhow!("instances: {names:?}"))?;
    Inside::of(&pool.cluster.namespace, &name).await?.kill().await?;
    until("another instance", 2 * PATIENCE, async || {
        let now = pool.instances().await?;
        Ok((now.len() == 1 && !now.contains(&name)).then_some(()))
    })
    .await?;
    let tenant = pool.cluster.client(pool.lab).await?;
    until("its Node to be Ready", 2 * PATIENCE, async || {
        let found = nodes(&tenant).await?;
        let other = found.iter().any(|node| node.name_any() != name && is_ready(node));
        Ok(other.then_some(()))
    })
    .await?;
    pool.settled(1).await?;

    pool.rotate().await?;
    ensure!(pool.tokens().await? == 2, "{} tokens", pool.tokens().await?);
    pool.scale(2).await?;
    ensure!(pool.tokens().await? <= 2, "{} tokens", pool.tokens().await?);
    pool.scale(0).await
}

#[tokio::test]
async fn a_pool_grows_shrinks_and_replaces_what_dies() -> Result<()> {
    with_pool("pool", false, async |pool| life(pool).await).await
}

#[tokio::test]
async fn a_pool_with_a_machine_for_each_instance_does_the_same() -> Result<()> {
    with_pool("pool-machines", true, async |pool| {
        let machines = pool.cluster.machines(pool.lab).await?;
        let names: BTreeSet<String> = machines.iter().map(kube::ResourceExt::name_any).collect();
        ensure!(names == pool.instances().await?, "Machines: {names:?}");
        life(pool).await
    })
    .await
}

#[tokio::test]
async fn another_version_of_the_spec_replaces_the_instances_of_a_pool() -> Result<()> {
    with_pool("pool-update", false, async |pool| {
        let before = pool.instances().await?;
        let configs: Api<KamajiConfig> = pool.api();
        let labels = json!({"spec": {"nodeRegistration": {"labels": {"example.com/round": "two"}}}});
        configs
            .patch(pool.name(), &PatchParams::default(), &Patch::Merge(labels))
            .await?;
        until("other instances", 2 * PATIENCE, async || {
            let now = pool.instances().await?;
            Ok((now.len() == 1 && now.is_disjoint(&before)).then_some(()))
        })
        .await?;
        // The Node of the former instance is Ready for a while, until Cluster API deletes it.
        until("the Node of the new instance alone", 2 * PATIENCE, async || {
            let found = nodes(&pool.cluster.client(pool.lab).await?).await?;
            ensure!(
                found.len() == 1 && found[0].labels().contains_key("example.com/round"),
                "{} Nodes",
                found.len()
            );
            Ok(Some(()))
        })
        .await?;
        pool.cluster.nodes_ready(pool.lab, 1).await?;
        pool.settled(1).await?;
        Ok(())
    })
    .await
}
