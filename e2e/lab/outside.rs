//! A network outside of the lab, as the machine host has made it: what is reached in it, from it, and from the lab.

use std::{
    net::{IpAddr, SocketAddr},
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};

use anyhow::{Context as _, Result, bail, ensure};
use k8s_openapi::api::core::v1::Pod;
use kube::{Api, api::PostParams};
use rand::random;
use serde_json::json;
use tokio::{net::TcpSocket, process::Command, time::timeout};

use super::{
    access::{DATA, HOST, Lab},
    cleanup::{afterwards, gone},
    machine::records,
    pods::AGNHOST,
    tenants::PATIENCE,
    until::until,
};
use crate::machines::{nat::within, outside::Outside};

/// The lab's bridge (`hack/lib/net.sh`).
const BRIDGE: &str = "cni0";
/// A server of the lab that everything on the bridge reaches: the registry.
const REGISTRY: u16 = 5000;
/// How long an attempt to connect may take. On one machine an answer comes within milliseconds.
const ATTEMPT: Duration = Duration::from_secs(3);

/// A network that has machines.
pub struct Net {
    /// Name, range and outer address.
    pub is: Outside,
    namespace: PathBuf,
}

impl Net {
    /// The network of this name.
    ///
    /// # Errors
    /// When no machine is in it.
    pub async fn of(name: &str) -> Result<Self> {
        let networks = records().await?.into_iter().filter_map(|record| record.network);
        let is = networks.into_iter().find(|network| network.name == name);
        Ok(Self {
            is: is.with_context(|| format!("no machine is in network {name}"))?,
            namespace: Path::new(DATA).join("machines/networks").join(name),
        })
    }

    /// Whether its gateway, and so a machine in it, can connect to a server.
    ///
    /// # Errors
    /// When the attempt cannot be made.
    pub async fn reaches(&self, to: SocketAddr) -> Result<bool> {
        let dial = format!("exec 3<>/dev/tcp/{}/{}", to.ip(), to.port());
        let seconds = ATTEMPT.as_secs().to_string();
        let status = within(Some(&self.namespace), "timeout")
            .args([&*seconds, "bash", "-c", &*dial])
            .stdin(Stdio::null())
            .stderr(Stdio::null())
            .status()
            .await?;
        Ok(status.success())
    }

    /// Takes the network from the lab, as when its line is cut. Neither end is notified.
    ///
    /// # Errors
    /// When there is no such link.
    pub async fn cut(&self) -> Result<()> {
        link(&self.is.link(), "down").await
    }

    /// Lets nothing through from the machines to this TCP port, or lets it through again.
    ///
    /// # Errors
    /// When iptables fails, with what it says.
    pub async fn filter(&self, port: u16, drop: bool) -> Result<()> {
        let port = port.to_string();
        let change = if drop { "--insert" } else { "--delete" };
        let output = within(Some(&self.namespace), "iptables")
            .args([
                "--wait",
                change,
                "FORWARD",
                "--protocol",
                "tcp",
                "--dport",
                &*port,
                "--jump",
                "DROP",
            ])
            .stdin(Stdio::null())
            .output()
            .await?;
        let said = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success(), "iptables {change}: {said}");
        Ok(())
    }

    /// Undoes [`Self::cut`].
    ///
    /// # Errors
    /// When there is no such link.
    pub async fn mend(&self) -> Result<()> {
        link(&self.is.link(), "up").await
    }
}

async fn link(name: &str, state: &str) -> Result<()> {
    let arguments = ["link", "set", "dev", name, state];
    let output = Command::new("ip").args(arguments).output().await?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "ip link set {name} {state}: {said}");
    Ok(())
}

/// Asserts that a server in `net` answers there, and that neither the host nor a pod of the management cluster can connect
/// to it.
///
/// # Errors
/// When it does not answer in its network, when something else reaches it, or when the attempts prove nothing.
pub async fn only_from_inside(lab: &Lab, net: &Net, to: SocketAddr) -> Result<()> {
    let inside = format!("{to} to answer in network {}", net.is.name);
    until(&inside, PATIENCE, async || {
        Ok(net.reaches(to).await?.then_some(()))
    })
    .await?;
    let registry = SocketAddr::new(HOST.into(), REGISTRY);
    ensure!(
        net.reaches(registry).await?,
        "the lab is not reached from {}",
        net.is.name
    );

    ensure!(!host_reaches(to).await?, "the host reaches {to}");
    let outer = SocketAddr::new(IpAddr::V4(net.is.uplink), to.port());
    ensure!(!host_reaches(outer).await?, "the host reaches {outer}");
    // The same pod reaches a server of the lab, so it is able to.
    ensure!(
        pod_reaches(lab, registry).await?,
        "a pod does not reach {registry}"
    );
    for to in [to, outer] {
        ensure!(
            !pod_reaches(lab, to).await?,
            "a pod of the management cluster reaches {to}"
        );
    }
    Ok(())
}

/// Whether the host can connect to an address by the lab's bridge. Bound to it, the attempt leaves this machine by no
/// other way.
///
/// # Errors
/// When the attempt cannot be made.
pub async fn host_reaches(to: SocketAddr) -> Result<bool> {
    let socket = TcpSocket::new_v4()?;
    socket.bind_device(Some(BRIDGE.as_bytes()))?;
    Ok(matches!(timeout(ATTEMPT, socket.connect(to)).await, Ok(Ok(_))))
}

/// Whether a pod of the management cluster can connect to an address.
///
/// # Errors
/// When the pod does not end.
pub async fn pod_reaches(lab: &Lab, to: SocketAddr) -> Result<bool> {
    let pods = Api::<Pod>::namespaced(lab.management.clone(), "default");
    let name = format!("e2e-reach-{:08x}", random::<u32>());
    let pod = serde_json::from_value(json!({
        "metadata": { "name": name },
        "spec": {
            "restartPolicy": "Never",
            "terminationGracePeriodSeconds": 0,
            "automountServiceAccountToken": false,
            "containers": [{
                "name": "agnhost",
                "image": AGNHOST,
                "args": ["connect", to.to_string(), format!("--timeout={}s", ATTEMPT.as_secs())],
            }],
        },
    }))?;
    pods.create(&PostParams::default(), &pod).await?;
    let what = format!("pod {name} to end");
    let ended = until(&what, PATIENCE, async || {
        let phase = pods.get(&name).await?.status.and_then(|status| status.phase);
        match phase.as_deref() {
            Some("Succeeded") => Ok(Some(true)),
            Some("Failed") => Ok(Some(false)),
            other => bail!("phase {other:?}"),
        }
    });
    afterwards(Box::pin(ended), async || gone(&pods, &name, PATIENCE).await).await
}
