//! Networks outside of the lab on this machine's own kernel: what their machines reach, and that nothing reaches them.
//!
//! Needs root, iproute2, iptables and socat, and no lab: each test runs in network, mount and PID namespaces of its own,
//! where a bridge with the lab's addresses stands for the lab. They end with the test, and with all that is in them.

use std::{
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};

use anyhow::{Result, ensure};
use e2e::{
    lab::until::until,
    machines::{
        addresses::Network,
        nat::{Attachment, BRIDGE, Namespaces, within},
        outside::Outside,
        routes,
    },
};

const LAB: Attachment<'_> = Attachment {
    bridge: "cni0",
    host: std::net::Ipv4Addr::new(10, 88, 0, 1),
    prefix: 16,
};
/// A Service of the lab, as a tenant's endpoint is one, and the pod behind it.
const SERVICE: &str = "10.128.0.20";
const POD: &str = "10.88.1.5";
const PATIENCE: Duration = Duration::from_secs(20);

/// A directory and a bridge of one test.
struct World {
    directory: PathBuf,
    namespaces: Namespaces,
}

impl World {
    /// Runs `test` in namespaces of its own: in a second process, which this one starts.
    async fn run(name: &str, test: impl AsyncFnOnce(&Self) -> Result<()>) -> Result<()> {
        if std::env::var_os("KAMAJI_OWN_WORLD").is_some() {
            let directory = PathBuf::from("/run").join(name);
            tokio::fs::create_dir(&directory).await?;
            let namespaces = Namespaces::open(&directory).await?;
            let world = Self {
                directory,
                namespaces,
            };
            world.bridge().await?;
            return test(&world).await;
        }
        let able = "[ \"$(id -u)\" = 0 ] && which unshare nsenter ip iptables socat";
        if sh(None, able).await.is_err() {
            e2e::skip(
                "networks need root, and iproute2, iptables and socat, which hack/lab packages installs",
            );
            return Ok(());
        }
        // A /run of its own, so that whatever happens nothing is left in the machine's.
        let script = "mount -t tmpfs tmpfs /run && exec \"$@\"";
        let inner = tokio::process::Command::new("unshare")
            .args([
                "--net",
                "--mount",
                "--pid",
                "--fork",
                "--kill-child",
                "--mount-proc",
                "--",
            ])
            .args(["sh", "-c", script, "sh"])
            .arg(std::env::current_exe()?)
            .args([name, "--exact", "--nocapture"])
            .env("KAMAJI_OWN_WORLD", "yes")
            .output()
            .await?;
        let said = String::from_utf8_lossy(&inner.stdout);
        let complained = String::from_utf8_lossy(&inner.stderr);
        ensure!(inner.status.success(), "{said}{complained}");
        Ok(())
    }

    /// The lab's bridge with a pod behind a Service, which DNAT and masquerading lead to, as kube-proxy's rules do.
    async fn bridge(&self) -> Result<()> {
        sh(
            None,
            "ip link set lo up; sysctl -qw net.ipv4.ip_forward=1
             ip link add cni0 type bridge; ip address add 10.88.0.1/16 dev cni0; ip link set cni0 up",
        )
        .await?;
        let pod = self.machine(None, "cni0", POD, 16, "10.88.0.1").await?;
        serve(Some(&pod), 6443)?;
        sh(
            None,
            &format!(
                "iptables -t nat -A PREROUTING -d {SERVICE} -p tcp --dport 443 -j DNAT --to {POD}:6443
                 iptables -t nat -A POSTROUTING -d {POD} -p tcp --dport 6443 -j MASQUERADE"
            ),
        )
        .await
    }

    async fn network(&self, name: &str, uplink: u8) -> Result<(Outside, PathBuf)> {
        let network = outside(name, uplink);
        self.namespaces.set_up(&network, LAB).await?;
        let place = self.namespaces.living(name).await;
        Ok((network, place.ok_or_else(|| anyhow::anyhow!("no namespace"))?))
    }

    /// A network namespace with one address, as a machine is, on a bridge of `place`. Returns its file.
    async fn machine(
        &self,
        place: Option<&Path>,
        bridge: &str,
        address: &str,
        prefix: u8,
        gateway: &str,
    ) -> Result<PathBuf> {
        let id = tokio::fs::read_dir(&self.directory).await?;
        let id = entries(id).await?;
        let file = self.directory.join(format!("machine-{id}"));
        let path = file.display();
        sh(None, &format!("touch {path}; unshare --net={path} true")).await?;
        sh(
            place,
            &format!(
                "ip link add vb-{id} type veth peer name host0 netns {path}
                 ip link set vb-{id} master {bridge} up"
            ),
        )
        .await?;
        sh(
            Some(&file),
            &format!(
                "ip link set lo up; ip address add {address}/{prefix} dev host0; ip link set host0 up
                 ip route add default via {gateway}"
            ),
        )
        .await?;
        Ok(file)
    }
}

fn outside(name: &str, uplink: u8) -> Outside {
    Outside {
        name: name.to_owned(),
        range: Network::new([192, 168, 0, 0].into(), 24),
        uplink: [10, 88, 32, uplink].into(),
    }
}

async fn entries(mut directory: tokio::fs::ReadDir) -> Result<usize> {
    let mut count = 0;
    while directory.next_entry().await?.is_some() {
        count += 1;
    }
    Ok(count)
}

/// Runs a script in a network and returns nothing; the first command that fails ends it.
async fn sh(place: Option<&Path>, script: &str) -> Result<()> {
    let output = within(place, "sh").args(["-ec", script]).output().await?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{script}: {said}");
    Ok(())
}

/// Answers every connection in a network with the address that it came from.
fn serve(place: Option<&Path>, port: u16) -> Result<()> {
    within(place, "socat")
        .arg(format!("TCP-LISTEN:{port},fork,reuseaddr"))
        .arg("SYSTEM:echo from $SOCAT_PEERADDR")
        .stdin(Stdio::null())
        .spawn()?;
    Ok(())
}

/// What a server says, or why it cannot be reached.
async fn ask(place: Option<&Path>, address: &str, port: u16) -> Result<String> {
    let output = within(place, "socat")
        .args(["-T", "1", "-u"])
        .arg(format!("TCP:{address}:{port},connect-timeout=1"))
        .arg("STDOUT")
        .stdin(Stdio::null())
        .output()
        .await?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{}", said.trim());
    Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

/// Waits until a server that was just started answers.
async fn answers(place: Option<&Path>, address: &str, port: u16) -> Result<String> {
    until(&format!("{address}:{port}"), PATIENCE, async || {
        ask(place, address, port).await.map(Some)
    })
    .await
}

#[tokio::test]
async fn machines_outside_reach_the_lab_and_each_other_and_nothing_reaches_them() -> Result<()> {
    let name = "machines_outside_reach_the_lab_and_each_other_and_nothing_reaches_them";
    World::run(name, async |world: &World| {
        let (_, net) = world.network("outside", 1).await?;
        let one = world
            .machine(Some(&net), BRIDGE, "192.168.0.2", 24, "192.168.0.1")
            .await?;
        let two = world
            .machine(Some(&net), BRIDGE, "192.168.0.3", 24, "192.168.0.1")
            .await?;
        // A pod of the second machine, with an address of the cluster's range.
        sh(Some(&two), "ip address add 10.244.1.7/32 dev lo").await?;
        let range = Network::parse("10.244.1.0/24").map_err(anyhow::Error::msg)?;
        routes::set(Some(&net), range, [192, 168, 0, 3].into()).await?;
        serve(Some(&two), 10250)?;

        // What the host serves, and the endpoint: a Service. The lab sees the address of the NAT, and no other.
        assert_eq!(answers(Some(&one), SERVICE, 443).await?, "from 10.88.0.1");
        assert!(
            ask(Some(&one), POD, 6443).await.is_err(),
            "a pod without a Service"
        );
        serve(None, 5000)?;
        assert_eq!(answers(Some(&one), "10.88.0.1", 5000).await?, "from 10.88.32.1");
        // In the network machines and their pods have the addresses that they say.
        assert_eq!(
            answers(Some(&one), "192.168.0.3", 10250).await?,
            "from 192.168.0.2"
        );
        assert_eq!(
            answers(Some(&one), "10.244.1.7", 10250).await?,
            "from 192.168.0.2"
        );

        let pod = world.machine(None, "cni0", "10.88.1.6", 16, "10.88.0.1").await?;
        assert_eq!(answers(Some(&pod), "10.88.0.1", 5000).await?, "from 10.88.1.6");
        for address in ["192.168.0.3", "192.168.0.1", "10.244.1.7", "10.88.32.1"] {
            for from in [None, Some(&*pod)] {
                let answer = ask(from, address, 10250).await;
                assert!(answer.is_err(), "{from:?} reaches {address}: {answer:?}");
            }
        }
        // Not even those that know the way: a route is not enough.
        for from in [None, Some(&*pod)] {
            let way = "ip route add 192.168.0.0/24 via 10.88.32.1; ip route add 10.244.1.0/24 via 10.88.32.1";
            sh(from, way).await?;
            for address in ["192.168.0.3", "192.168.0.1", "10.244.1.7"] {
                let answer = ask(from, address, 10250).await;
                assert!(
                    answer.is_err(),
                    "{from:?} reaches {address} by a route: {answer:?}"
                );
            }
        }
        Ok(())
    })
    .await
}

#[tokio::test]
async fn networks_with_equal_ranges_do_not_meet() -> Result<()> {
    World::run("networks_with_equal_ranges_do_not_meet", async |world: &World| {
        let mut machines = Vec::new();
        for (name, uplink) in [("one", 1), ("two", 2)] {
            let (_, net) = world.network(name, uplink).await?;
            let machine = world
                .machine(Some(&net), BRIDGE, "192.168.0.2", 24, "192.168.0.1")
                .await?;
            let range = Network::parse("10.244.0.0/24").map_err(anyhow::Error::msg)?;
            routes::set(Some(&net), range, [192, 168, 0, 2].into()).await?;
            machines.push((net, machine));
        }
        serve(None, 5000)?;
        let [one, two] = &*machines else { unreachable!() };
        assert_eq!(answers(Some(&one.1), "10.88.0.1", 5000).await?, "from 10.88.32.1");
        assert_eq!(answers(Some(&two.1), "10.88.0.1", 5000).await?, "from 10.88.32.2");
        // The same address is another machine in each of them.
        serve(Some(&two.1), 10250)?;
        let gateway = answers(Some(&two.0), "192.168.0.2", 10250).await?;
        assert_eq!(gateway, "from 192.168.0.1");
        assert!(ask(Some(&one.0), "192.168.0.2", 10250).await.is_err());
        Ok(())
    })
    .await
}

#[tokio::test]
async fn a_network_is_made_over_what_is_left_and_leaves_nothing() -> Result<()> {
    let name = "a_network_is_made_over_what_is_left_and_leaves_nothing";
    World::run(name, async |world: &World| {
        let before = seen().await?;
        let (network, net) = world.network("outside", 1).await?;
        let link = network.link();
        for damage in [
            "true".to_owned(),
            // The machine host was ended between two steps.
            format!("ip link delete dev {link}"),
            format!("nsenter --net={} -- iptables -F FORWARD", net.display()),
            // What another boot has left: the file without the namespace.
            format!("ip link delete dev {link}; umount {}", net.display()),
            // The namespace alone is gone, and something keeps its link.
            format!(
                "umount -l {0}; rm {0}; ip link delete dev {link}; ip link add {link} type veth peer name other",
                net.display()
            ),
        ] {
            sh(None, &damage).await?;
            let (_, net) = world.network("outside", 1).await?;
            let machine = world
                .machine(Some(&net), BRIDGE, "192.168.0.2", 24, "192.168.0.1")
                .await?;
            let answer = answers(Some(&machine), SERVICE, 443).await;
            assert_eq!(answer?, "from 10.88.0.1", "after {damage}");
            sh(None, "ip route add 192.168.0.0/24 via 10.88.32.1").await?;
            serve(Some(&machine), 10250)?;
            answers(Some(&net), "192.168.0.2", 10250).await?;
            assert!(ask(None, "192.168.0.2", 10250).await.is_err(), "after {damage}");
            sh(None, "ip route delete 192.168.0.0/24").await?;
            sh(Some(&machine), "ip link delete dev host0").await?;
            sh(None, "! ip link show dev other 2>/dev/null").await?;
        }
        world.namespaces.tear_down(&network).await?;
        assert_eq!(seen().await?, before);
        assert_eq!(world.namespaces.living("outside").await, None);
        world.namespaces.tear_down(&network).await
    })
    .await
}

/// Links, routes and rules here, and namespaces of networks.
async fn seen() -> Result<String> {
    let script = "ip -o link show | awk '{ print $2 }' | sort; ip route; iptables-save | grep -v '^[#:]'
        grep /networks/ /proc/self/mountinfo; find /run/*/networks";
    let output = within(None, "sh").args(["-c", script]).output().await?;
    Ok(String::from_utf8(output.stdout)?)
}
