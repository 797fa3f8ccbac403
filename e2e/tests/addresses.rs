//! A running cluster changes its addresses: names in the certificate, the type of its Service with port and address, and the
//! address for nodes. Its nodes stay, with the same UIDs, and are moved by hand before the former endpoint is given up.
//! Needs the lab; makes a cluster of its own.

use std::{collections::BTreeMap, process::Stdio, time::Duration};

use anyhow::{Context as _, Result, ensure};
use e2e::{
    infra::capi,
    lab::{
        access::{Lab, value},
        cleanup::afterwards,
        clusters::Cluster,
        machine::Inside,
        nodes::{heartbeat_since, uids},
        prober::Prober,
        tenants::PATIENCE,
        until::until,
    },
};
use k8s_openapi::{
    api::core::v1::{Secret, Service},
    jiff::Timestamp,
};
use kamaji_api::{
    controlplane::{Endpoint, KamajiControlPlane},
    labels::ours,
    tenantcontrolplane::TenantControlPlane,
};
use kube::{
    Api,
    api::{DynamicObject, Patch, PatchParams},
};
use serde_json::{Value, json};
use tokio::{io::AsyncWriteExt as _, process::Command};

/// Address of the host on the bridge of the machines.
const HOST: &str = "10.88.0.1";
/// A free node port.
const NODE_PORT: i32 = 30_443;
/// Another one, of konnectivity.
const TUNNEL_PORT: i32 = 30_132;
/// Longest time in all without an answer through the cluster IP while the pods are replaced, on two busy cores.
const GAP: Duration = Duration::from_secs(6);

#[tokio::test]
async fn hosting_peer_30_a_running_cluster_changes_its_addresses_and_keeps_its_nodes() -> Result<()> {
    let lab = Lab::open().await?;
    let cluster = Cluster::new("default", "moving");
    afterwards(Box::pin(moves(&lab, &cluster)), async || {
        cluster.delete(&lab).await
    })
    .await
}

async fn moves(lab: &Lab, cluster: &Cluster) -> Result<()> {
    cluster.create(lab, 2).await?;
    cluster.nodes_ready(lab, 2).await?;
    let nodes = uids(&cluster.client(lab).await?).await?;
    let inside = endpoint(lab, cluster).await?.host;
    let prober = Prober::start(lab.kubeconfig(&cluster.namespace, &cluster.name).await?);

    let names_too = json!({ "network": { "certSANs": ["api.example.org"] } });
    patch(lab, cluster, &names_too, None).await?;
    settled(lab, cluster, &nodes, async |_: &TenantControlPlane| {
        let names = names(lab, cluster).await?;
        ensure!(names.contains("DNS:api.example.org"), "{names}");
        Ok(())
    })
    .await?;
    answers(&prober, "certSANs")?;

    move_to_node_port(lab, cluster, &nodes).await?;
    answers(&prober, "from ClusterIP to NodePort")?;

    // Nodes get the cluster IP, at the new port.
    let advertised = format!("{inside}:{NODE_PORT}");
    let spec = json!({ "network": { "advertiseAddress": inside } });
    patch(lab, cluster, &spec, None).await?;
    settled(lab, cluster, &nodes, async |tenant: &TenantControlPlane| {
        let status = tenant.status.as_ref().context("no status")?;
        let found = status.worker_endpoint.as_deref();
        ensure!(found == Some(advertised.as_str()), "{found:?}");
        Ok(())
    })
    .await?;
    answers(&prober, "advertiseAddress")?;

    // A machine that joins now does so at the new endpoint.
    cluster.scale_workers(lab, 3).await?;
    cluster.nodes_ready(lab, 3).await?;
    move_nodes(lab, cluster, &nodes, &advertised).await?;
    release(lab, cluster, &nodes, true).await?;
    cluster.nodes_ready(lab, 3).await?;
    drop(prober);
    move_to_cluster_ip(lab, cluster, &inside).await
}

/// From NodePort to another type: agents and nodes use the node ports for as long as the former endpoint is listed.
async fn move_to_cluster_ip(lab: &Lab, cluster: &Cluster, inside: &str) -> Result<()> {
    let nodes = uids(&cluster.client(lab).await?).await?;
    let exposed = format!("{HOST}:{NODE_PORT}");
    patch(
        lab,
        cluster,
        &json!({ "network": { "advertiseAddress": null } }),
        None,
    )
    .await?;
    settled(lab, cluster, &nodes, async |tenant: &TenantControlPlane| {
        let status = tenant.status.as_ref().context("no status")?;
        let (endpoint, reported) = (status.worker_endpoint.as_deref(), &status.conditions);
        ensure!(endpoint.is_none_or(|it| it == exposed), "{endpoint:?}");
        let tunnel = reported.iter().find(|known| known.type_ == "TunnelReady");
        ensure!(tunnel.is_some_and(|known| known.status == "True"), "{tunnel:?}");
        Ok(())
    })
    .await?;

    let node = nodes.keys().next().context("no node")?;
    let kubelet = format!("/api/v1/nodes/{node}/proxy/healthz");
    let tunnel = Prober::start_at(lab.kubeconfig(&cluster.namespace, &cluster.name).await?, kubelet);
    let spec = json!({ "network": { "serviceType": "ClusterIP", "serviceAddress": null } });
    let wanted = format!("{inside}:{NODE_PORT}");
    patch(lab, cluster, &spec, Some(&wanted)).await?;
    settled(lab, cluster, &nodes, async |tenant: &TenantControlPlane| {
        let status = tenant.status.as_ref().context("no status")?;
        let reported = status.control_plane_endpoint.as_deref();
        ensure!(reported == Some(wanted.as_str()), "{reported:?}");
        let ports = node_ports(lab, cluster).await?;
        let expected = [(NODE_PORT, Some(NODE_PORT)), (TUNNEL_PORT, Some(TUNNEL_PORT))];
        ensure!(ports == expected, "{ports:?}");
        Ok(())
    })
    .await?;
    answers(
        &tunnel,
        "a kubelet through the tunnel, from NodePort to ClusterIP",
    )?;
    // The nodes themselves have used the cluster IP before.
    release(lab, cluster, &nodes, false).await?;
    cluster.nodes_ready(lab, 3).await
}

/// Ports of the Service, each with its node port.
async fn node_ports(lab: &Lab, cluster: &Cluster) -> Result<Vec<(i32, Option<i32>)>> {
    let services = Api::<Service>::namespaced(lab.management.clone(), &cluster.namespace);
    let spec = services.get(&cluster.name).await?.spec.context("no spec")?;
    let ports = spec.ports.into_iter().flatten();
    Ok(ports.map(|port| (port.port, port.node_port)).collect())
}

/// Type, address and port of the Service change: that waits for a word.
async fn move_to_node_port(lab: &Lab, cluster: &Cluster, nodes: &BTreeMap<String, String>) -> Result<()> {
    let before = endpoint(lab, cluster).await?;
    let namespace = &cluster.namespace;
    let clusters =
        Api::<DynamicObject>::namespaced_with(lab.management.clone(), namespace, &capi::clusters());
    let port = json!({ "spec": { "clusterNetwork": { "apiServerPort": NODE_PORT } } });
    clusters
        .patch(&cluster.name, &PatchParams::default(), &Patch::Merge(&port))
        .await?;
    let exposed = json!({
        "network": { "serviceType": "NodePort", "serviceAddress": HOST },
        // Its port is a node port too.
        "addons": { "konnectivity": { "server": { "port": TUNNEL_PORT } } },
    });
    patch(lab, cluster, &exposed, None).await?;
    let wanted = format!("{HOST}:{NODE_PORT}");
    until("the condition that asks", PATIENCE, async || {
        let status = cluster.control_planes(lab).get(&cluster.name).await?.status;
        let conditions = status.map(|status| status.conditions).unwrap_or_default();
        let type_ = "TenantControlPlaneAddressReady";
        let found = conditions.iter().find(|known| known.type_ == type_);
        let found = found.context("no condition")?;
        let asks = found.message.contains(&format!("move-endpoint to {wanted}"));
        ensure!(found.reason == "EndpointChanged" && asks, "{found:?}");
        Ok(Some(()))
    })
    .await?;
    ensure!(endpoint(lab, cluster).await? == before, "it moved without a word");
    patch(lab, cluster, &json!({}), Some(&wanted)).await?;
    settled(lab, cluster, nodes, async |tenant: &TenantControlPlane| {
        let status = tenant.status.as_ref().context("no status")?;
        let reported = status.control_plane_endpoint.as_deref();
        ensure!(reported == Some(wanted.as_str()), "{reported:?}");
        let found = endpoint(lab, cluster).await?;
        ensure!(
            (found.host.as_str(), found.port) == (HOST, NODE_PORT),
            "{found:?}"
        );
        Ok(())
    })
    .await
}

/// Lets the nodes of before name the endpoint `advertised`, as the book says. The others have it.
async fn move_nodes(
    lab: &Lab,
    cluster: &Cluster,
    before: &BTreeMap<String, String>,
    advertised: &str,
) -> Result<()> {
    const FILE: &str = "/etc/kubernetes/kubelet.conf";
    for machine in cluster.machines(lab).await? {
        let (spec, status) = (&machine.data["spec"], &machine.data["status"]);
        let name = spec["infrastructureRef"]["name"].as_str();
        let machine = Inside::of(&cluster.namespace, name.context("no infrastructure")?).await?;
        let config = machine.run(&["cat", FILE]).await?;
        let node = status["nodeRef"]["name"].as_str().unwrap_or_default();
        let joined_before = before.contains_key(node);
        ensure!(config.contains(advertised) != joined_before, "{node}: {config}");
        if joined_before {
            let line = format!("s|^\\( *server: \\).*|\\1https://{advertised}|");
            machine.run(&["sed", "-i", &line, FILE]).await?;
            machine.run(&["systemctl", "restart", "kubelet"]).await?;
        }
    }
    Ok(())
}

/// No node uses the former endpoint any more. The Service then has both ports, as node ports too where it is exposed.
async fn release(
    lab: &Lab,
    cluster: &Cluster,
    nodes: &BTreeMap<String, String>,
    is_exposed: bool,
) -> Result<()> {
    let tenants = Api::<TenantControlPlane>::namespaced(lab.management.clone(), &cluster.namespace);
    let released = json!({ "metadata": { "annotations": { ours::FORMER_ENDPOINTS: null } } });
    tenants
        .patch(&cluster.name, &PatchParams::default(), &Patch::Merge(&released))
        .await?;
    settled(lab, cluster, nodes, async |_: &TenantControlPlane| {
        let ports = node_ports(lab, cluster).await?;
        let expected = [NODE_PORT, TUNNEL_PORT].map(|port| (port, is_exposed.then_some(port)));
        ensure!(ports == expected, "{ports:?}");
        Ok(())
    })
    .await
}

/// Waits until the control plane is Ready and `check` passes; then every node that was there before is there, Ready, and
/// its kubelet lives.
async fn settled(
    lab: &Lab,
    cluster: &Cluster,
    before: &BTreeMap<String, String>,
    check: impl AsyncFn(&TenantControlPlane) -> Result<()>,
) -> Result<()> {
    until(
        "the control plane to be Ready with the change",
        PATIENCE,
        async || {
            let tenant = cluster.tenant(lab).await?;
            let status = tenant.status.as_ref().context("no status")?;
            ensure!(
                status.observed_generation == tenant.metadata.generation,
                "not observed"
            );
            for type_ in ["Ready", "EndpointReady", "DeploymentReady"] {
                let found = status.conditions.iter().find(|known| known.type_ == type_);
                ensure!(found.is_some_and(|known| known.status == "True"), "{found:?}");
            }
            check(&tenant).await?;
            Ok(Some(()))
        },
    )
    .await?;
    cluster.condition(lab, "Ready", "True").await?;
    let tenant = cluster.client(lab).await?;
    let since = Timestamp::now();
    for node in before.keys() {
        heartbeat_since(&tenant, since, node).await?;
    }
    let now = uids(&tenant).await?;
    for (node, uid) in before {
        ensure!(now.get(node) == Some(uid), "node {node} is another one: {now:?}");
    }
    cluster.nodes_ready(lab, now.len()).await
}

async fn endpoint(lab: &Lab, cluster: &Cluster) -> Result<Endpoint> {
    let control_plane = cluster.control_planes(lab).get(&cluster.name).await?;
    control_plane.spec.control_plane_endpoint.context("no endpoint")
}

/// Patches the spec of the control plane; `permitted` is the endpoint that it may move to.
async fn patch(lab: &Lab, cluster: &Cluster, spec: &Value, permitted: Option<&str>) -> Result<()> {
    let mut body = json!({ "spec": spec });
    if let Some(endpoint) = permitted {
        body["metadata"] = json!({ "annotations": { ours::MOVE_ENDPOINT: endpoint } });
    }
    let control_planes: Api<KamajiControlPlane> = cluster.control_planes(lab);
    control_planes
        .patch(&cluster.name, &PatchParams::default(), &Patch::Merge(&body))
        .await?;
    Ok(())
}

/// The names in the certificate of the API server, as OpenSSL prints them.
async fn names(lab: &Lab, cluster: &Cluster) -> Result<String> {
    let secrets = Api::<Secret>::namespaced(lab.management.clone(), &cluster.namespace);
    let secret = secrets
        .get(&format!("{}-api-server-certificate", cluster.name))
        .await?;
    let certificate = value(&secret, "apiserver.crt").context("no apiserver.crt")?;
    let mut openssl = Command::new("openssl")
        .args(["x509", "-noout", "-ext", "subjectAltName"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()?;
    openssl
        .stdin
        .take()
        .context("no stdin")?
        .write_all(&certificate)
        .await?;
    let output = openssl.wait_with_output().await?;
    ensure!(output.status.success(), "openssl failed");
    Ok(String::from_utf8(output.stdout)?)
}

/// The endpoint that nodes joined at has answered nearly all the time since the last report.
fn answers(prober: &Prober, what: &str) -> Result<()> {
    let seen = prober.report(what);
    ensure!(seen.down < GAP, "{what}: {:?}", seen.errors);
    Ok(())
}
