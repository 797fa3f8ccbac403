//! Workers behind a NAT: they join through the endpoint of their cluster, nothing of the lab opens a connection to them,
//! and what the API server needs of them goes through the tunnel. Needs the lab.

mod balancer;
mod cluster;
mod damage;
mod metrics;
mod recovery;
mod rollout;
mod speed;
mod switch;

use std::{
    net::{IpAddr, SocketAddr},
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};
use e2e::lab::{
    access::Lab,
    clusters::Cluster,
    outside::{Net, only_from_inside},
    pods,
    until::until,
    webhook,
};
use k8s_openapi::api::core::v1::Pod;
use kube::{Api, ResourceExt as _};

use cluster::{
    KUBELET, NETEXEC, PODS, address_of, port_forward, tunnel_is_on, with_cluster, with_pod, worker,
};

#[tokio::test]
async fn a_worker_behind_a_nat_joins_and_nothing_of_the_lab_reaches_it() -> Result<()> {
    let lab = Lab::open().await?;
    with_cluster(
        &lab,
        "outside",
        &[("NETWORK", "outside"), ("POD_CIDR", PODS)],
        async |cluster| {
            let tenant = cluster.client(&lab).await?;
            let (_, address) = worker(&tenant).await?;
            let net = Net::of("outside").await?;
            ensure!(
                address == IpAddr::from([192, 168, 0, 2]),
                "the Node has address {address}"
            );
            only_from_inside(&lab, &net, SocketAddr::new(address, KUBELET)).await?;
            with_pod(&tenant, async |_, pod| {
                only_from_inside(&lab, &net, SocketAddr::new(address_of(pod)?, NETEXEC)).await
            })
            .await
        },
    )
    .await?;
    let left = Net::of("outside").await;
    ensure!(left.is_err(), "the network has outlived its machines");
    Ok(())
}

/// Two clusters with the same ranges of machines, pods and Services, each behind its own NAT.
async fn with_equal_clusters(lab: &Lab, test: impl AsyncFnOnce([&Cluster; 2]) -> Result<()>) -> Result<()> {
    with_cluster(lab, "left", &[("NETWORK", "left")], async |left| {
        with_cluster(lab, "right", &[("NETWORK", "right")], async |right| {
            test([left, right]).await
        })
        .await
    })
    .await
}

#[tokio::test]
async fn clusters_with_equal_ranges_join_side_by_side() -> Result<()> {
    let lab = Lab::open().await?;
    with_equal_clusters(&lab, async |[left, right]| {
        let (_, one) = worker(&left.client(&lab).await?).await?;
        let (_, two) = worker(&right.client(&lab).await?).await?;
        assert_eq!(one, two, "addresses of the machines");
        let (left, right) = (Net::of("left").await?.is, Net::of("right").await?.is);
        assert_eq!(left.range, right.range);
        assert_ne!(left.uplink, right.uplink);
        Ok(())
    })
    .await
}

#[tokio::test]
async fn each_of_two_clusters_with_equal_ranges_is_reached_through_its_own_tunnel() -> Result<()> {
    let lab = Lab::open().await?;
    with_equal_clusters(&lab, async |clusters| {
        for cluster in clusters {
            tunnel_is_on(&lab, cluster).await?;
        }
        for cluster in clusters {
            let tenant = cluster.client(&lab).await?;
            with_pod(&tenant, async |namespace, pod| {
                let pods = Api::<Pod>::namespaced(tenant.clone(), namespace);
                pods::log_and_exec(&pods, &pod.name_any()).await?;
                webhook::refuses(&tenant, namespace).await
            })
            .await
            .with_context(|| cluster.name.clone())?;
        }
        Ok(())
    })
    .await
}

#[tokio::test]
async fn through_the_tunnel_everything_works_that_the_api_server_does_with_nodes_and_pods() -> Result<()> {
    let lab = Lab::open().await?;
    let variables = [("NETWORK", "tunnel"), ("POD_CIDR", PODS)];
    with_cluster(&lab, "tunnel", &variables, async |cluster| {
        tunnel_is_on(&lab, cluster).await?;
        let tenant = cluster.client(&lab).await?;
        with_pod(&tenant, async |namespace, pod| {
            let pods = Api::<Pod>::namespaced(tenant.clone(), namespace);
            let name = pod.name_any();
            pods::log_and_exec(&pods, &name).await?;
            port_forward(&pods, &name).await?;
            webhook::refuses(&tenant, namespace).await?;
            metrics::top(&lab, cluster, &tenant).await?;

            let net = Net::of("tunnel").await?;
            net.cut().await?;
            tokio::time::sleep(Duration::from_mins(1)).await;
            net.mend().await?;
            let back = "logs and exec after a minute without network";
            until(back, Duration::from_secs(20), async || {
                pods::log_and_exec(&pods, &name).await.map(Some)
            })
            .await
        })
        .await
    })
    .await
}
