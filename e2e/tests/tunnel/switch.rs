//! The tunnel of a running cluster goes off and on again, at any number of API servers.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use e2e::lab::{
    access::Lab,
    clusters::Cluster,
    conditions::{contains_all, message},
    replicas::replicas,
    tenants::PATIENCE,
    until::until,
};
use futures::future::try_join_all;
use k8s_openapi::api::{
    apps::v1::{DaemonSet, Deployment},
    coordination::v1::Lease,
    core::v1::{ConfigMap, Pod, Secret, Service, ServiceAccount},
    rbac::v1::{ClusterRole, ClusterRoleBinding, Role, RoleBinding},
};
use kube::{Api, Client, Resource, ResourceExt, api::ListParams};
use serde::de::DeserializeOwned;
use serde_json::json;
use tokio::time::Instant;

use crate::cluster::{PODS, reaches, tunnel_is_on, with_cluster, with_pod, worker};

/// Time until each agent has found each of the new servers.
const FOUND: Duration = Duration::from_secs(10);
/// The limit of these shared machines, as a multiple of that.
const NOISE: u32 = 3;

#[tokio::test]
async fn hosting_beyond_08_the_tunnel_goes_off_and_on_and_each_new_server_is_found() -> Result<()> {
    let lab = Lab::open().await?;
    let variables = [("NETWORK", "switch"), ("POD_CIDR", PODS)];
    with_cluster(&lab, "switch", &variables, async |cluster| {
        tunnel_is_on(&lab, cluster).await?;
        let tenant = cluster.client(&lab).await?;
        with_pod(&tenant, async |namespace, pod| {
            let pod = pod.name_any();
            off(&lab, cluster, &tenant).await?;

            cluster
                .change(&lab, json!({ "addons": { "konnectivity": {} } }))
                .await?;
            works(&lab, cluster, 1, namespace, &pod).await?;

            cluster.scale(&lab, 3).await?;
            cluster.scaled(&lab, 3).await?;
            let began = Instant::now();
            works(&lab, cluster, 3, namespace, &pod).await?;
            let found = began.elapsed();
            eprintln!(
                "each of 3 servers is found {:.1} s after the last is ready",
                found.as_secs_f64()
            );
            ensure!(found <= FOUND * NOISE, "{found:?}");

            off(&lab, cluster, &tenant).await?;
            cluster
                .change(&lab, json!({ "addons": { "konnectivity": {} } }))
                .await?;
            works(&lab, cluster, 3, namespace, &pod).await
        })
        .await
    })
    .await
}

/// Turns it off: nothing of it is left, and the condition names the node that is not reached and what to do.
async fn off(lab: &Lab, cluster: &Cluster, tenant: &Client) -> Result<()> {
    cluster
        .change(lab, json!({ "addons": { "konnectivity": null } }))
        .await?;
    until("nothing of konnectivity to be left", PATIENCE, async || {
        let left = left(lab, cluster, tenant).await?;
        ensure!(left.is_empty(), "{left:?}");
        Ok(Some(()))
    })
    .await?;
    let (node, _) = worker(tenant).await?;
    let text = message(&cluster.control_planes(lab), &cluster.name, "NodesNotReachable").await?;
    eprintln!("off: {text}");
    contains_all(&text, &[&node.name_any(), "or set spec.addons.konnectivity"]);
    never_restarted(lab, cluster).await
}

/// Each API server reaches the pod, and the condition says so.
async fn works(lab: &Lab, cluster: &Cluster, count: usize, namespace: &str, pod: &str) -> Result<()> {
    let what = format!("exec through each of {count} servers");
    until(&what, PATIENCE, async || {
        let servers = replicas(lab, cluster, count).await?;
        let all = servers.iter().map(async |server| {
            ensure!(
                containers(&server.pod)
                    .iter()
                    .any(|name| name == "konnectivity-server"),
                "{} has no server",
                server.pod.name_any()
            );
            reaches(&server.client, namespace, pod).await
        });
        try_join_all(all).await?;
        Ok(Some(()))
    })
    .await?;
    never_restarted(lab, cluster).await?;
    tunnel_is_on(lab, cluster).await
}

fn containers(pod: &Pod) -> Vec<String> {
    let spec = pod.spec.iter();
    spec.flat_map(|spec| &spec.containers)
        .map(|container| container.name.clone())
        .collect()
}

/// No container of the control plane has started twice: what it mounts was there.
async fn never_restarted(lab: &Lab, cluster: &Cluster) -> Result<()> {
    for pod in cluster.control_plane_pods(lab).await? {
        let statuses = pod
            .status
            .as_ref()
            .and_then(|status| status.container_statuses.as_ref());
        for status in statuses.into_iter().flatten() {
            let again = status.restart_count;
            ensure!(
                again == 0,
                "{} of {} has started {again} times more",
                status.name,
                pod.name_any()
            );
        }
    }
    Ok(())
}

/// What is named after konnectivity in the workload cluster, and beside its control plane.
async fn left(lab: &Lab, cluster: &Cluster, tenant: &Client) -> Result<Vec<String>> {
    let mut left = Vec::new();
    let system = "kube-system";
    left.extend(named(Api::<DaemonSet>::namespaced(tenant.clone(), system)).await?);
    left.extend(named(Api::<Deployment>::namespaced(tenant.clone(), system)).await?);
    left.extend(named(Api::<Pod>::namespaced(tenant.clone(), system)).await?);
    left.extend(named(Api::<ServiceAccount>::namespaced(tenant.clone(), system)).await?);
    left.extend(named(Api::<Role>::namespaced(tenant.clone(), system)).await?);
    left.extend(named(Api::<RoleBinding>::namespaced(tenant.clone(), system)).await?);
    left.extend(named(Api::<Lease>::namespaced(tenant.clone(), system)).await?);
    left.extend(named(Api::<ClusterRole>::all(tenant.clone())).await?);
    left.extend(named(Api::<ClusterRoleBinding>::all(tenant.clone())).await?);
    let of = |name: &String| name.contains(&cluster.name);
    let (management, namespace) = (lab.management.clone(), &cluster.namespace);
    left.extend(
        named(Api::<ConfigMap>::namespaced(management.clone(), namespace))
            .await?
            .into_iter()
            .filter(of),
    );
    left.extend(
        named(Api::<Secret>::namespaced(management.clone(), namespace))
            .await?
            .into_iter()
            .filter(of),
    );
    let service = Api::<Service>::namespaced(management, namespace)
        .get(&cluster.name)
        .await?;
    let ports = service.spec.context("no spec")?.ports.unwrap_or_default();
    let names = ports.into_iter().filter_map(|port| port.name);
    left.extend(
        names
            .filter(|name| is_of_konnectivity(name))
            .map(|name| format!("port {name}")),
    );
    let addons = cluster.tenant(lab).await?.status.and_then(|status| status.addons);
    if addons
        .and_then(|addons| addons.konnectivity)
        .is_some_and(|found| found.enabled)
    {
        left.push("status.addons.konnectivity.enabled".to_owned());
    }
    Ok(left)
}

async fn named<K>(api: Api<K>) -> Result<Vec<String>>
where
    K: Resource<DynamicType = ()> + Clone + DeserializeOwned + std::fmt::Debug,
{
    let kind = K::kind(&());
    let found = api.list(&ListParams::default()).await?.items;
    let names = found.iter().map(ResourceExt::name_any);
    Ok(names
        .filter(|name| is_of_konnectivity(name))
        .map(|name| format!("{kind} {name}"))
        .collect())
}

fn is_of_konnectivity(name: &str) -> bool {
    name.contains("konnectivity")
}
