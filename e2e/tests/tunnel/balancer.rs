//! A control plane behind a load balancer that forwards one port: nodes join through it, and the tunnel does not come up. The
//! test is the load balancer: it reports an address of its own on the Service, and forwards connections.

use std::net::{Ipv4Addr, SocketAddr};

use anyhow::{Context as _, Result, ensure};
use e2e::lab::{
    access::Lab,
    cleanup::afterwards,
    clusters::{Cluster, VERSION},
    conditions::message,
    tenants::PATIENCE,
    until::until,
};
use k8s_openapi::api::core::v1::Service;
use kube::{
    Api,
    api::{Patch, PatchParams},
};
use serde_json::json;
use tokio::{
    io::copy_bidirectional,
    net::{TcpListener, TcpStream},
    process::Command,
};
use tokio_util::task::AbortOnDropHandle;

use crate::cluster::{PODS, tunnel_is_on};

/// Address of the load balancer, on the bridge of the machines and apart from every other.
const ADDRESS: Ipv4Addr = Ipv4Addr::new(10, 88, 32, 250);
const BRIDGE: &str = "cni0";
/// Port of the API server.
const API: u16 = 6443;
/// Port of the tunnel.
const TUNNEL: u16 = 8132;

#[tokio::test]
async fn a_load_balancer_that_forwards_one_port_is_named() -> Result<()> {
    let lab = Lab::open().await?;
    let cluster = Cluster::new("default", "balanced");
    ip("replace").await?;
    afterwards(Box::pin(balanced(&lab, &cluster)), async || {
        cluster.delete(&lab).await?;
        ip("del").await
    })
    .await
}

async fn balanced(lab: &Lab, cluster: &Cluster) -> Result<()> {
    let variables = [("CONTROL_PLANE_SERVICE_TYPE", "LoadBalancer"), ("POD_CIDR", PODS)];
    cluster.create_of_class(lab, VERSION, (1, 1), &variables).await?;
    let control_planes = cluster.control_planes(lab);
    let waits = message(&control_planes, &cluster.name, "WaitingForLoadBalancer").await?;
    eprintln!("WaitingForLoadBalancer: {waits}");

    let services = Api::<Service>::namespaced(lab.management.clone(), &cluster.namespace);
    let spec = services.get(&cluster.name).await?.spec.context("no spec")?;
    let inside: std::net::IpAddr = spec.cluster_ip.context("no cluster IP")?.parse()?;
    let _api = forward(API, (inside, API).into()).await?;
    // Mode Proxy: kube-proxy leaves the address to whoever has it.
    let reported =
        json!({ "status": { "loadBalancer": { "ingress": [{ "ip": ADDRESS, "ipMode": "Proxy" }] } } });
    services
        .patch_status(&cluster.name, &PatchParams::default(), &Patch::Merge(&reported))
        .await?;
    cluster.nodes_ready(lab, 1).await?;

    let address = format!("its node has to reach {ADDRESS}:{TUNNEL}, through firewall and load balancer");
    until("the port of the tunnel to be named", PATIENCE, async || {
        let text = message(&control_planes, &cluster.name, "NodesNotReachable").await?;
        ensure!(text.contains(&address), "{text}");
        eprintln!("NodesNotReachable: {text}");
        Ok(Some(()))
    })
    .await?;

    let _tunnel = forward(TUNNEL, (inside, TUNNEL).into()).await?;
    tunnel_is_on(lab, cluster).await
}

/// Forwards connections to a port of the load balancer until it is dropped.
async fn forward(port: u16, to: SocketAddr) -> Result<AbortOnDropHandle<()>> {
    let listener = TcpListener::bind((ADDRESS, port)).await?;
    let task = tokio::spawn(async move {
        while let Ok((mut from, _)) = listener.accept().await {
            tokio::spawn(async move {
                if let Ok(mut to) = TcpStream::connect(to).await {
                    // Either side may end the connection at any time.
                    let _ = copy_bidirectional(&mut from, &mut to).await;
                }
            });
        }
    });
    Ok(AbortOnDropHandle::new(task))
}

/// Adds the address to the host, or takes it away.
async fn ip(what: &str) -> Result<()> {
    let address = format!("{ADDRESS}/32");
    let status = Command::new("ip")
        .args(["address", what, &address, "dev", BRIDGE])
        .status()
        .await?;
    ensure!(status.success(), "ip address {what} {address} failed");
    Ok(())
}
