//! What users and admins of a workload cluster get wrong: the condition names it, and what they mend works again.

use anyhow::{Result, ensure};
use e2e::lab::{
    access::Lab, cleanup::gone, clusters::Cluster, conditions::message, outside::Net, tenants::PATIENCE,
    until::until,
};
use k8s_openapi::api::{
    apps::v1::DaemonSet,
    coordination::v1::Lease,
    core::v1::{Pod, ServiceAccount},
    rbac::v1::{ClusterRoleBinding, RoleBinding},
};
use kube::{
    Api, Client, ResourceExt as _,
    api::{DeleteParams, ListParams},
};
use serde_json::{Value, json};

use crate::cluster::{PODS, reaches, tunnel_is_on, with_cluster, with_pod};

const SYSTEM: &str = "kube-system";
const AGENT: &str = "konnectivity-agent";
/// Port of the servers.
const PORT: u16 = 8132;

#[tokio::test]
async fn what_is_wrong_with_the_tunnel_is_named_and_mends() -> Result<()> {
    let lab = Lab::open().await?;
    let variables = [("NETWORK", "damage"), ("POD_CIDR", PODS)];
    with_cluster(&lab, "damage", &variables, async |cluster| {
        tunnel_is_on(&lab, cluster).await?;
        let tenant = cluster.client(&lab).await?;
        with_pod(&tenant, async |namespace, pod| {
            let world = World {
                lab: &lab,
                cluster,
                tenant: &tenant,
                namespace,
                pod: pod.name_any(),
            };
            world.ports_that_are_taken().await?;
            world.an_agent_that_does_not_start().await?;
            world.agents_of_an_old_version().await?;
            world.a_firewall_without_the_port_of_the_tunnel().await?;
            world.an_admin_who_deletes_it().await
        })
        .await
    })
    .await
}

struct World<'a> {
    lab: &'a Lab,
    cluster: &'a Cluster,
    tenant: &'a Client,
    namespace: &'a str,
    pod: String,
}

impl World<'_> {
    async fn konnectivity(&self, settings: Value) -> Result<()> {
        let spec = json!({ "addons": { "konnectivity": settings } });
        self.cluster.change(self.lab, spec).await
    }

    /// Waits for a reason on the control plane with a message that has these sentences.
    async fn reports(&self, reason: &str, sentences: &[&str]) -> Result<()> {
        let control_planes = self.cluster.control_planes(self.lab);
        let what = format!("reason {reason} with {sentences:?}");
        until(&what, PATIENCE, async || {
            let text = message(&control_planes, &self.cluster.name, reason).await?;
            ensure!(sentences.iter().all(|sentence| text.contains(sentence)), "{text}");
            eprintln!("{reason}: {text}");
            Ok(Some(()))
        })
        .await
    }

    async fn works(&self) -> Result<()> {
        until("exec through the tunnel", PATIENCE, async || {
            reaches(self.tenant, self.namespace, &self.pod).await.map(Some)
        })
        .await
    }

    async fn works_and_says_so(&self) -> Result<()> {
        self.works().await?;
        tunnel_is_on(self.lab, self.cluster).await
    }

    /// The API server's port, and that of another container: nothing changes in the running cluster.
    async fn ports_that_are_taken(&self) -> Result<()> {
        for port in [6443, 10257] {
            self.konnectivity(json!({ "server": { "port": port } })).await?;
            self.reports(
                "PortConflict",
                &[&port.to_string(), "spec.addons.konnectivity.server.port"],
            )
            .await?;
            self.works().await?;
        }
        self.konnectivity(json!({ "server": { "port": PORT } })).await?;
        self.works_and_says_so().await
    }

    /// An image without the program.
    async fn an_agent_that_does_not_start(&self) -> Result<()> {
        let pause = json!({ "image": "registry.k8s.io/pause", "version": "3.10.2" });
        self.konnectivity(json!({ "agent": pause })).await?;
        // The former agent stays until the new one is ready.
        self.reports(
            "AgentsNotRunning",
            &["1 of 2 konnectivity agents do not run", AGENT],
        )
        .await?;
        self.works().await?;
        self.konnectivity(json!({ "agent": { "image": null, "version": null } }))
            .await?;
        self.reports("NodesReachable", &[]).await?;
        self.works_and_says_so().await
    }

    async fn agents_of_an_old_version(&self) -> Result<()> {
        let images = async |wanted: &str| {
            until(&format!("agents of {wanted}"), PATIENCE, async || {
                let pods = Api::<Pod>::namespaced(self.tenant.clone(), SYSTEM);
                let agents = pods
                    .list(&ListParams::default().labels(&format!("k8s-app={AGENT}")))
                    .await?;
                let images: Vec<_> = agents
                    .iter()
                    .flat_map(|pod| pod.spec.iter().flat_map(|spec| &spec.containers))
                    .filter_map(|container| container.image.clone())
                    .collect();
                ensure!(
                    images.len() == 1 && images.iter().all(|image| image.ends_with(wanted)),
                    "{images:?}"
                );
                Ok(Some(()))
            })
            .await
        };
        self.konnectivity(json!({ "agent": { "version": "v0.34.0" } }))
            .await?;
        images(":v0.34.0").await?;
        self.works_and_says_so().await?;
        self.konnectivity(json!({ "agent": { "version": null } })).await?;
        images(":v0.36.0").await?;
        self.works_and_says_so().await
    }

    /// The nodes reach the API server, and not the port of the tunnel.
    async fn a_firewall_without_the_port_of_the_tunnel(&self) -> Result<()> {
        let net = Net::of(&self.cluster.name).await?;
        net.filter(PORT, true).await?;
        // A change of the control plane makes it look.
        self.konnectivity(json!({ "server": { "extraArgs": ["--v=1"] } }))
            .await?;
        self.reports("NodesNotReachable", &["its node has to reach", &PORT.to_string()])
            .await?;
        net.filter(PORT, false).await?;
        self.works_and_says_so().await
    }

    async fn an_admin_who_deletes_it(&self) -> Result<()> {
        let leases = Api::<Lease>::namespaced(self.tenant.clone(), SYSTEM);
        let all = ListParams::default().labels("k8s-app=konnectivity-server");
        for lease in leases.list(&all).await? {
            leases.delete(&lease.name_any(), &DeleteParams::default()).await?;
        }
        until("a Lease of the server", PATIENCE, async || {
            Ok((!leases.list(&all).await?.items.is_empty()).then_some(()))
        })
        .await?;
        self.works().await?;

        gone(
            &Api::<DaemonSet>::namespaced(self.tenant.clone(), SYSTEM),
            AGENT,
            PATIENCE,
        )
        .await?;
        gone(
            &Api::<ServiceAccount>::namespaced(self.tenant.clone(), SYSTEM),
            AGENT,
            PATIENCE,
        )
        .await?;
        for binding in ["system:konnectivity-server"] {
            gone(
                &Api::<ClusterRoleBinding>::all(self.tenant.clone()),
                binding,
                PATIENCE,
            )
            .await?;
        }
        let bindings = Api::<RoleBinding>::namespaced(self.tenant.clone(), SYSTEM);
        for binding in bindings.list(&ListParams::default()).await? {
            if binding.name_any().contains("konnectivity") {
                gone(&bindings, &binding.name_any(), PATIENCE).await?;
            }
        }
        // The book: a change applies it again.
        self.konnectivity(json!({ "agent": { "extraArgs": ["--v=1"] } }))
            .await?;
        self.works_and_says_so().await
    }
}
