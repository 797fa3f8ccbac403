//! `lab-machines`: the machine host of the local infrastructure. Runs as root on the host, outside any cluster.

use std::{
    net::{Ipv4Addr, SocketAddr},
    path::PathBuf,
    sync::Arc,
};

use anyhow::{Context as _, Result};
use clap::{Args, Parser, Subcommand};
use e2e::{
    machines::{
        addresses::Network,
        host::{Host, Settings},
        images::{Image, Images},
        qemu::KERNEL,
        server::router,
    },
    run,
};

#[derive(Parser)]
#[command(
    version,
    about = "Boots the machines of the local infrastructure: containers of systemd-nspawn, or virtual machines of QEMU"
)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Serve the provider until a signal; machines go on without it.
    Run(Box<Run>),
    /// Remove every machine that the state directory knows of.
    Down {
        /// Directory of the machines' records and disks.
        #[arg(long)]
        state: PathBuf,
    },
}

#[derive(Args)]
struct Run {
    /// Directory of the machines' records and disks.
    #[arg(long)]
    state: PathBuf,
    /// Address and port to listen on: the bridge's own.
    #[arg(long, default_value = "10.88.0.1:7780")]
    listen: SocketAddr,
    /// File with the token that the provider shows.
    #[arg(long)]
    token_file: PathBuf,
    /// Images, as name=directory: `default`, and one named like each further version of Kubernetes. A directory with the file
    /// vmlinuz is the image of a virtual machine, any other the root filesystem of a container.
    #[arg(long = "image", required = true, value_parser = image)]
    images: Vec<(String, Image)>,
    /// Bridge that machines are attached to.
    #[arg(long, default_value = "cni0")]
    bridge: String,
    /// The host's own address on the bridge.
    #[arg(long, default_value = "10.88.0.1")]
    gateway: Ipv4Addr,
    /// Prefix length of the bridge's network.
    #[arg(long, default_value_t = 16)]
    prefix: u8,
    /// Addresses for machines; the bridge's own pods must not get them.
    #[arg(long, default_value = "10.88.64.0/18", value_parser = Network::parse)]
    pool: Network,
    /// Addresses on the bridge for the NAT of networks outside of the lab; nothing else must get them.
    #[arg(long, default_value = "10.88.32.0/24", value_parser = Network::parse)]
    uplinks: Network,
    /// Name server of the machines.
    #[arg(long, default_value = "10.88.0.1")]
    nameserver: Ipv4Addr,
    /// Registry that machines ask for every image, as http://host:port.
    #[arg(long)]
    mirror: Option<String>,
}

fn image(text: &str) -> Result<(String, Image), String> {
    let (name, path) = text.split_once('=').ok_or("write it as name=directory")?;
    let path = std::fs::canonicalize(path).map_err(|error| format!("{path}: {error}"))?;
    let image = if path.join(KERNEL).exists() {
        Image::Disk(path)
    } else {
        Image::Root(path)
    };
    Ok((name.to_owned(), image))
}

impl Run {
    fn settings(&self) -> Settings {
        Settings {
            bridge: self.bridge.clone(),
            gateway: self.gateway,
            prefix: self.prefix,
            pool: self.pool,
            uplinks: self.uplinks,
            nameserver: self.nameserver,
            mirror: self.mirror.clone(),
            images: self.images.iter().cloned().collect(),
        }
    }
}

#[tokio::main]
async fn main() -> Result<()> {
    run::log();
    match Cli::parse().command {
        Command::Run(run) => serve(*run).await,
        Command::Down { state } => down(state).await,
    }
}

async fn serve(args: Run) -> Result<()> {
    let token = std::fs::read_to_string(&args.token_file)
        .with_context(|| format!("cannot read {}", args.token_file.display()))?;
    anyhow::ensure!(!token.trim().is_empty(), "{} is empty", args.token_file.display());
    // Bound first: a second host service on the same state ends here, before it touches anything.
    let listener = tokio::net::TcpListener::bind(args.listen)
        .await
        .with_context(|| format!("cannot listen on {}", args.listen))?;
    let host = Arc::new(Host::open(args.settings(), &args.state).await?);
    tracing::info!(listen = %args.listen, state = %args.state.display(), "serving");
    axum::serve(listener, router(host, token.trim()))
        .with_graceful_shutdown(run::stopped())
        .await?;
    Ok(())
}

async fn down(state: PathBuf) -> Result<()> {
    if !state.exists() {
        return Ok(());
    }
    let settings = Settings {
        bridge: String::new(),
        gateway: Ipv4Addr::UNSPECIFIED,
        prefix: 32,
        pool: Network::new(Ipv4Addr::UNSPECIFIED, 32),
        uplinks: Network::new(Ipv4Addr::UNSPECIFIED, 32),
        nameserver: Ipv4Addr::UNSPECIFIED,
        mirror: None,
        images: Images::default(),
    };
    Host::open(settings, &state).await?.remove_all().await
}
