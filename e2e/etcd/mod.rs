//! A real etcd for the duration of a test, with the arguments and certificates of a member of a managed DataStore, and
//! `etcdctl` and plain TLS connections to inspect it from outside.

pub mod members;

use std::{
    fs,
    io::{Read as _, Write as _},
    net::{IpAddr, Ipv4Addr, SocketAddr, TcpStream},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    time::{Duration, Instant},
};

use anyhow::{Context, bail};
use capi_kamaji::{
    hosting::{
        datastore::{
            desired, parts,
            validate::{Valid, validate},
        },
        driver::Credentials,
    },
    pki::{
        issue::{self, Issued},
        material::{Ca, Found},
        spec::{AltNames, Content, Leaf},
    },
};
use etcd_client::{Certificate, Client, ConnectOptions, Identity, TlsOptions};
use k8s_openapi::{
    api::core::v1::{Container, Secret},
    jiff::Timestamp,
};
use kamaji_api::datastore::{DataStore, DataStoreSpec, ManagedEtcd};
use kube::ResourceExt as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, pem::PemObject as _};

use crate::port;

/// Folder of the built tools: `KAMAJI_TOOLS_BIN`, else `.lab/bin` of this checkout.
pub fn tools() -> PathBuf {
    std::env::var_os("KAMAJI_TOOLS_BIN").map_or_else(
        || Path::new(env!("CARGO_MANIFEST_DIR")).join("../.lab/bin"),
        PathBuf::from,
    )
}

/// Name of the DataStore whose member is run.
const STORE: &str = "default";

/// How often a start is tried: another test may have taken a port meanwhile.
const STARTS: usize = 3;
/// Longest time until an etcd is healthy.
const START: Duration = Duration::from_mins(1);

/// An etcd of one member that wants client certificates. It ends, and its files go, when this is dropped.
pub struct Etcd {
    child: Child,
    home: PathBuf,
    arguments: Vec<String>,
    endpoint: String,
    peer_port: u16,
    ca: Ca,
    ca_pair: Issued,
}

impl Etcd {
    /// Starts one on loopback. `None` where etcd is not built, which is an error under `CI=true`.
    pub async fn start() -> anyhow::Result<Option<Self>> {
        Self::start_at(IpAddr::V4(Ipv4Addr::LOCALHOST)).await
    }

    /// The same at another address of this machine, where pods of a lab reach it.
    pub async fn start_at(address: IpAddr) -> anyhow::Result<Option<Self>> {
        if !built()? {
            return Ok(None);
        }
        let mut last = None;
        for _ in 0..STARTS {
            match Self::attempt(address).await {
                Ok(etcd) => return Ok(Some(etcd)),
                Err(error) => last = Some(error),
            }
        }
        Err(last.context("no attempt was made")?)
    }

    async fn attempt(address: IpAddr) -> anyhow::Result<Self> {
        let home = home()?;
        let ca_pair = issue::ca("etcd", &AltNames::default(), Timestamp::now())?;
        let ca = read(&ca_pair)?;
        fs::create_dir_all(home.join("pki"))?;
        fs::write(home.join("pki/ca.crt"), ca.certificate_pem())?;
        store(&home, "pki/tls", &server(address, &ca)?)?;
        let loopback = IpAddr::V4(Ipv4Addr::LOCALHOST);
        let (client, peer_port, probes) =
            (port::free(address)?, port::free(loopback)?, port::free(loopback)?);
        let endpoint = SocketAddr::new(address, client).to_string();
        let member = rendered(&[])?;
        let arguments = member.arguments.iter().map(|argument| {
            argument
                .replace("/var/lib/etcd", &home.display().to_string())
                .replace("/etc/etcd", &home.display().to_string())
                .replace("0.0.0.0:2379", &endpoint)
                .replace("0.0.0.0:2381", &format!("127.0.0.1:{probes}"))
                .replace(":2380", &format!(":{peer_port}"))
        });
        let arguments: Vec<String> = arguments.collect();
        let mut this = Self {
            child: spawn(&home, &arguments, &member)?,
            home,
            arguments,
            endpoint,
            peer_port,
            ca,
            ca_pair,
        };
        this.identity("root")?;
        if this.serves().await? {
            return Ok(this);
        }
        bail!("etcd ended: {}", fs::read_to_string(this.home.join("log"))?)
    }

    /// Waits until it serves; `false` when it ended instead, or took too long.
    async fn serves(&mut self) -> anyhow::Result<bool> {
        let began = Instant::now();
        while self.child.try_wait()?.is_none() && began.elapsed() < START {
            if self.ctl("root", &["endpoint", "health"]).is_ok() {
                return Ok(true);
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        Ok(false)
    }

    /// Kills it, without a chance to say goodbye.
    pub fn kill(&mut self) -> anyhow::Result<()> {
        self.child.kill()?;
        self.child.wait()?;
        Ok(())
    }

    /// Kills it and deletes its data, as a claim that is deleted takes the volume along.
    pub fn lose_volume(&mut self) -> anyhow::Result<()> {
        self.kill()?;
        Ok(fs::remove_dir_all(self.home.join("data"))?)
    }

    /// Starts it as the member of a DataStore with these annotations; `false` when it ended instead of serving.
    pub async fn start_again(&mut self, notes: &[(&str, &str)]) -> anyhow::Result<bool> {
        self.child = spawn(&self.home, &self.arguments, &rendered(notes)?)?;
        self.serves().await
    }

    /// Stops it from doing anything, with its connections open, or lets it go on.
    pub fn freeze(&self, frozen: bool) -> anyhow::Result<()> {
        signal(&self.child, frozen)
    }

    /// `host:port`.
    pub fn endpoint(&self) -> &str {
        &self.endpoint
    }

    /// The CA of its certificates.
    pub fn ca(&self) -> &Issued {
        &self.ca_pair
    }

    /// A certificate of the admin.
    pub fn admin(&self) -> anyhow::Result<Issued> {
        self.client("root")
    }

    fn client(&self, user: &str) -> anyhow::Result<Issued> {
        Ok(issue::leaf(&Leaf::client(user), &self.ca, Timestamp::now())?)
    }

    /// The admin's credentials.
    pub fn credentials(&self) -> anyhow::Result<Credentials> {
        self.credentials_of("root")
    }

    /// The same with another user's certificate.
    pub fn credentials_of(&self, user: &str) -> anyhow::Result<Credentials> {
        let issued = self.client(user)?;
        Ok(Credentials {
            endpoints: vec![self.endpoint.clone()],
            ca_pem: self.ca_pair.cert_pem.clone(),
            ca_key: Some(self.ca_pair.key_pem.clone()),
            certificate_pem: issued.cert_pem,
            key: issued.key_pem,
            ca_locations: ("the test's CA".to_owned(), "the test's key".to_owned()),
        })
    }

    /// A connection with a user's certificate, for requests that no command of etcdctl sends.
    pub async fn connect(&self, user: &str) -> anyhow::Result<Client> {
        let issued = self.client(user)?;
        let tls = TlsOptions::new()
            .ca_certificate(Certificate::from_pem(&self.ca_pair.cert_pem))
            .identity(Identity::from_pem(&issued.cert_pem, issued.key_pem.expose()));
        let options = ConnectOptions::new()
            .with_tls(tls)
            .with_timeout(Duration::from_secs(10));
        Ok(Client::connect([format!("https://{}", self.endpoint)], Some(options)).await?)
    }

    /// Creates a client certificate with this common name, for [`Etcd::ctl`].
    pub fn identity(&self, user: &str) -> anyhow::Result<()> {
        let issued = self.client(user)?;
        store(&self.home, user, &issued)
    }

    /// Runs etcdctl as a user and returns what it prints; an error holds what it complained about.
    pub fn ctl(&self, user: &str, arguments: &[&str]) -> anyhow::Result<String> {
        self.ctl_with_input(user, arguments, "")
    }

    /// The same with text on its standard input.
    pub fn ctl_with_input(&self, user: &str, arguments: &[&str], input: &str) -> anyhow::Result<String> {
        let file = |name: String| self.home.join(name);
        let mut child = Command::new(tools().join("etcdctl"))
            .args([
                "--endpoints",
                &format!("https://{}", self.endpoint),
                "--command-timeout",
                "10s",
            ])
            .arg("--cacert")
            .arg(file("pki/ca.crt".to_owned()))
            .arg("--cert")
            .arg(file(format!("{user}.crt")))
            .arg("--key")
            .arg(file(format!("{user}.key")))
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()?;
        if let Some(mut pipe) = child.stdin.take() {
            pipe.write_all(input.as_bytes())?;
        }
        let output = child.wait_with_output()?;
        if !output.status.success() {
            bail!("{}", String::from_utf8_lossy(&output.stderr));
        }
        Ok(String::from_utf8(output.stdout)?)
    }

    /// What the port for other members answers on `address` to who shows this certificate: the first line, or an
    /// error.
    /// `user` is one of [`Etcd::identity`], or `pki/tls` for the member itself.
    pub fn ask_as_peer(&self, address: IpAddr, user: &str) -> anyhow::Result<String> {
        let pem = |name: String| self.home.join(name);
        let mut roots = rustls::RootCertStore::empty();
        roots.add(CertificateDer::from_pem_file(pem("pki/ca.crt".to_owned()))?)?;
        let config = rustls::ClientConfig::builder()
            .with_root_certificates(roots)
            .with_client_auth_cert(
                vec![CertificateDer::from_pem_file(pem(format!("{user}.crt")))?],
                PrivateKeyDer::from_pem_file(pem(format!("{user}.key")))?,
            )?;
        let connection = rustls::ClientConnection::new(Arc::new(config), ServerName::try_from("localhost")?)?;
        let socket = TcpStream::connect((address, self.peer_port))?;
        let mut stream = rustls::StreamOwned::new(connection, socket);
        stream.write_all(b"GET /members HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")?;
        let mut answer = Vec::new();
        // The member closes the connection without a TLS shutdown; only the bytes before matter.
        let read = stream.read_to_end(&mut answer);
        if answer.is_empty() {
            read?;
        }
        Ok(String::from_utf8_lossy(&answer)
            .lines()
            .next()
            .unwrap_or_default()
            .to_owned())
    }

    /// The same with the values of the keys.
    pub fn dump(&self) -> anyhow::Result<Vec<String>> {
        let mut list = self.listing()?;
        let text = self.ctl("root", &["get", "", "--prefix"])?;
        list.extend(text.lines().map(|line| format!("pair {line}")));
        Ok(list)
    }

    /// Everything that is stored, one line each: users, roles and keys.
    pub fn listing(&self) -> anyhow::Result<Vec<String>> {
        let mut list = Vec::new();
        for (what, arguments) in [
            ("user", &["user", "list"][..]),
            ("role", &["role", "list"]),
            ("key", &["get", "", "--prefix", "--keys-only"]),
        ] {
            let text = self.ctl("root", arguments)?;
            list.extend(
                text.lines()
                    .filter(|line| !line.is_empty())
                    .map(|line| format!("{what} {line}")),
            );
        }
        Ok(list)
    }
}

impl Drop for Etcd {
    fn drop(&mut self) {
        // It is being thrown away: nothing useful can be done about an error.
        let _ = self.child.kill();
        let _ = self.child.wait();
        let _ = fs::remove_dir_all(&self.home);
    }
}

/// Stops a process from doing anything, or lets it go on.
fn signal(child: &Child, frozen: bool) -> anyhow::Result<()> {
    let signal = if frozen { "-STOP" } else { "-CONT" };
    let sent = Command::new("kill")
        .args([signal, &child.id().to_string()])
        .status()?;
    anyhow::ensure!(sent.success(), "process {} gets no signal", child.id());
    Ok(())
}

/// Whether the tools are there. That they are not is an error under `CI=true`.
fn built() -> anyhow::Result<bool> {
    let (etcd, ctl) = (tools().join("etcd"), tools().join("etcdctl"));
    if etcd.exists() && ctl.exists() {
        // Another one may be installed already: that is fine.
        let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
        return Ok(true);
    }
    if std::env::var("CI").is_ok_and(|value| value == "true") {
        bail!("{} and {} are needed here", etcd.display(), ctl.display());
    }
    eprintln!("skipped: {} is not built (hack/tools makes it)", etcd.display());
    Ok(false)
}

/// A new folder for the files of one etcd.
fn home() -> anyhow::Result<PathBuf> {
    static NUMBER: AtomicU32 = AtomicU32::new(0);
    let number = NUMBER.fetch_add(1, Ordering::SeqCst);
    let home = std::env::temp_dir().join(format!("kamaji-etcd-{}-{number}", std::process::id()));
    fs::create_dir_all(&home)?;
    Ok(home)
}

/// A certificate for a member of a managed DataStore that listens on `address`.
fn server(address: IpAddr, ca: &Ca) -> anyhow::Result<Issued> {
    let Content::Certificate { mut leaf, .. } = parts::server(STORE).content else {
        bail!("the server's Secret holds no certificate");
    };
    leaf.names.ip.insert(address);
    Ok(issue::leaf(&leaf, ca, Timestamp::now())?)
}

/// How a member is started.
struct Member {
    arguments: Vec<String>,
    /// Name and value of its variable.
    variable: (String, String),
}

fn spawn(home: &Path, arguments: &[String], member: &Member) -> anyhow::Result<Child> {
    let (name, value) = &member.variable;
    Command::new(tools().join("etcd"))
        .args(arguments)
        .args(["--log-level", "warn"])
        .env(name, value)
        .stdout(Stdio::null())
        .stderr(fs::File::create(home.join("log"))?)
        .spawn()
        .context("etcd does not start")
}

/// The member of a managed DataStore with these annotations.
fn rendered(notes: &[(&str, &str)]) -> anyhow::Result<Member> {
    let spec = DataStoreSpec {
        managed: Some(ManagedEtcd::default()),
        ..DataStoreSpec::default()
    };
    let mut datastore = DataStore::new(STORE, spec);
    let notes = notes
        .iter()
        .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()));
    datastore.annotations_mut().extend(notes);
    let Valid::Managed(managed) = validate(&datastore)? else {
        bail!("not a managed DataStore");
    };
    let manifests = desired::objects(&datastore, &managed, "")?;
    let container = manifests
        .iter()
        .find_map(|manifest| manifest.body().pointer("/spec/template/spec/containers/0"))
        .context("no object runs etcd")?;
    let container: Container = serde_json::from_value(container.clone())?;
    let variable = container
        .env
        .into_iter()
        .flatten()
        .next()
        .context("no variable")?;
    let key = variable.value_from.and_then(|from| from.secret_key_ref);
    let key = key.context("no Secret in the variable")?.key;
    let start: Secret = serde_json::from_value(desired::start(&datastore, &managed)?.body().clone())?;
    let value = start
        .data
        .and_then(|mut data| data.remove(&key))
        .context("no key")?;
    Ok(Member {
        arguments: container.args.context("no arguments")?,
        variable: (variable.name, String::from_utf8(value.0)?),
    })
}

fn read(pair: &Issued) -> anyhow::Result<Ca> {
    let found = |text: &'static str| text.to_owned();
    Ok(Ca::from_pem(
        &Found {
            location: found("certificate"),
            bytes: pair.cert_pem.as_bytes(),
        },
        &Found {
            location: found("key"),
            bytes: pair.key_pem.expose().as_bytes(),
        },
        None,
    )?)
}

fn store(home: &Path, name: &str, issued: &Issued) -> anyhow::Result<()> {
    fs::write(home.join(format!("{name}.crt")), &issued.cert_pem)?;
    fs::write(home.join(format!("{name}.key")), issued.key_pem.expose())?;
    Ok(())
}
