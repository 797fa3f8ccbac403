//! A real etcd of three members for the duration of a test, each of which can be killed and started again. Clients need
//! certificates, as with a DataStore; the members talk to each other on loopback without.

use std::{
    fs,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    path::PathBuf,
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context as _, bail};
use capi_kamaji::{
    hosting::driver::{Credentials, etcd::EtcdAdmin},
    pki::{
        issue::{self, Issued},
        material::Ca,
        spec::{AltNames, Leaf},
    },
};
use k8s_openapi::jiff::Timestamp;

use super::{STARTS, built, home, read, server, signal, store, tools};
use crate::port;

/// How long the members may take until all of them answer.
const PATIENCE: Duration = Duration::from_mins(1);

/// Three members. They end, and their files go, when this is dropped.
pub struct Members {
    home: PathBuf,
    ca: Ca,
    ca_pair: Issued,
    address: IpAddr,
    ports: Vec<(u16, u16)>,
    running: Vec<Option<Child>>,
}

impl Members {
    /// Starts them on loopback. `None` where etcd is not built, which is an error under `CI=true`.
    pub async fn start() -> anyhow::Result<Option<Self>> {
        Self::start_at(IpAddr::V4(Ipv4Addr::LOCALHOST)).await
    }

    /// The same with another address of this machine for clients, where pods of a lab reach it.
    pub async fn start_at(address: IpAddr) -> anyhow::Result<Option<Self>> {
        if !built()? {
            return Ok(None);
        }
        let mut last = None;
        for _ in 0..STARTS {
            match Self::attempt(address).await {
                Ok(members) => return Ok(Some(members)),
                Err(error) => last = Some(error),
            }
        }
        Err(last.context("no attempt was made")?)
    }

    async fn attempt(address: IpAddr) -> anyhow::Result<Self> {
        let home = home()?;
        let loopback = IpAddr::V4(Ipv4Addr::LOCALHOST);
        let ca_pair = issue::ca("etcd", &AltNames::default(), Timestamp::now())?;
        let ca = read(&ca_pair)?;
        fs::write(home.join("ca.crt"), ca.certificate_pem())?;
        store(&home, "server", &server(address, &ca)?)?;
        let port = |_| Ok((port::free(address)?, port::free(loopback)?));
        let ports = (0..3).map(port).collect::<anyhow::Result<Vec<_>>>()?;
        let mut this = Self {
            home,
            ca,
            ca_pair,
            address,
            ports,
            running: vec![None, None, None],
        };
        for number in 0..3 {
            this.spawn(number)?;
        }
        // Nobody answers before a majority runs.
        this.until("an answer", async |this| {
            EtcdAdmin::connect(&this.credentials()?).await?;
            Ok(true)
        })
        .await?;
        Ok(this)
    }

    fn spawn(&mut self, number: usize) -> anyhow::Result<()> {
        let file = |name: String| self.home.join(name).display().to_string();
        let peer = |number: usize| format!("http://127.0.0.1:{}", self.ports[number].1);
        let cluster: Vec<String> = (0..3).map(|n| format!("m{n}={}", peer(n))).collect();
        let client = format!("https://{}", self.endpoint(number));
        let log = fs::OpenOptions::new()
            .create(true)
            .append(true)
            .open(file(format!("log-{number}")))?;
        let child = Command::new(tools().join("etcd"))
            .args(["--name", &format!("m{number}"), "--log-level", "warn"])
            .args(["--data-dir", &file(format!("data-{number}"))])
            .args([
                "--listen-client-urls",
                &client,
                "--advertise-client-urls",
                &client,
            ])
            .args(["--listen-peer-urls", &peer(number)])
            .args(["--initial-advertise-peer-urls", &peer(number)])
            .args(["--initial-cluster", &cluster.join(",")])
            .args([
                "--client-cert-auth",
                "--trusted-ca-file",
                &file("ca.crt".to_owned()),
            ])
            .args(["--cert-file", &file("server.crt".to_owned())])
            .args(["--key-file", &file("server.key".to_owned())])
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .context("etcd does not start")?;
        self.running[number] = Some(child);
        Ok(())
    }

    /// `host:port` of a member.
    pub fn endpoint(&self, number: usize) -> String {
        SocketAddr::new(self.address, self.ports[number].0).to_string()
    }

    /// The CA of their certificates.
    pub fn ca(&self) -> &Issued {
        &self.ca_pair
    }

    /// A certificate of the admin.
    pub fn admin(&self) -> anyhow::Result<Issued> {
        Ok(issue::leaf(&Leaf::client("root"), &self.ca, Timestamp::now())?)
    }

    /// The admin's credentials, with the endpoints of all members.
    pub fn credentials(&self) -> anyhow::Result<Credentials> {
        let issued = self.admin()?;
        Ok(Credentials {
            endpoints: (0..3).map(|number| self.endpoint(number)).collect(),
            ca_pem: self.ca_pair.cert_pem.clone(),
            ca_key: Some(self.ca_pair.key_pem.clone()),
            certificate_pem: issued.cert_pem,
            key: issued.key_pem,
            ca_locations: ("the test's CA".to_owned(), "the test's key".to_owned()),
        })
    }

    /// Kills a member, without a chance to say goodbye.
    pub fn kill(&mut self, number: usize) -> anyhow::Result<()> {
        if let Some(mut child) = self.running[number].take() {
            child.kill()?;
            child.wait()?;
        }
        Ok(())
    }

    /// Stops a member from doing anything, with its connections open, or lets it go on.
    pub fn freeze(&self, number: usize, frozen: bool) -> anyhow::Result<()> {
        let Some(child) = &self.running[number] else {
            bail!("member {number} does not run");
        };
        signal(child, frozen)
    }

    /// Starts a member that was killed.
    pub fn restart(&mut self, number: usize) -> anyhow::Result<()> {
        self.spawn(number)
    }

    /// Waits for something that the members do by themselves.
    pub async fn until(
        &self,
        what: &str,
        check: impl AsyncFn(&Self) -> anyhow::Result<bool>,
    ) -> anyhow::Result<()> {
        let started = Instant::now();
        loop {
            let last = check(self).await;
            if matches!(last, Ok(true)) {
                return Ok(());
            }
            if started.elapsed() > PATIENCE {
                bail!("no {what}: {last:?}");
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }
}

impl Drop for Members {
    fn drop(&mut self) {
        for number in 0..3 {
            // They are being thrown away: nothing useful can be done about an error.
            let _ = self.kill(number);
        }
        let _ = fs::remove_dir_all(&self.home);
    }
}
