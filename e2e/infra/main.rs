//! `infra-local`: the local infrastructure provider and its clusterctl files.

use std::io::Write as _;

use anyhow::{Context as _, Result};
use clap::{Parser, Subcommand};
use e2e::{
    infra::{components, grants, local_cluster, local_machine, local_machine_pool},
    machines::client::HostClient,
    run,
};
use kube::Client;
use tokio_util::sync::CancellationToken;

#[derive(Parser)]
#[command(version, about = "Cluster API infrastructure provider over the machine host")]
enum Cli {
    /// Reconcile `LocalCluster`, `LocalMachine` and `LocalMachinePool`.
    Provider {
        /// URL of the machine host.
        #[arg(long, env = "LAB_MACHINES_URL")]
        host: String,
        /// Token of the machine host.
        #[arg(long, env = "LAB_MACHINES_TOKEN", hide_env_values = true)]
        token: String,
    },
    /// Grant the provider access to the bootstrap data Secret of each Machine.
    Grants,
    /// Print one of the files that clusterctl reads.
    #[command(subcommand)]
    Print(Print),
}

#[derive(Subcommand)]
enum Print {
    /// `infrastructure-components.yaml`.
    Components {
        /// Image of the provider.
        #[arg(long)]
        image: String,
    },
    /// `metadata.yaml`.
    Metadata,
}

#[tokio::main]
async fn main() -> Result<()> {
    run::log();
    match Cli::parse() {
        Cli::Provider { host, token } => {
            let client = client().await?;
            let stop = stop();
            let reach = || HostClient::new(&host, &token);
            let ended = || stop.clone().cancelled_owned();
            futures::future::join3(
                local_cluster::serve(client.clone(), ended()),
                Box::pin(local_machine::serve(client.clone(), reach(), ended())),
                Box::pin(local_machine_pool::serve(client.clone(), reach(), ended())),
            )
            .await;
            Ok(())
        }
        Cli::Grants => {
            grants::serve(client().await?, stop().cancelled_owned()).await;
            Ok(())
        }
        Cli::Print(Print::Components { image }) => print(&components::components(&image)?),
        Cli::Print(Print::Metadata) => print(&components::metadata()?),
    }
}

async fn client() -> Result<Client> {
    run::crypto();
    Client::try_default()
        .await
        .context("no access to the management cluster")
}

fn stop() -> CancellationToken {
    let token = CancellationToken::new();
    let stopped = token.clone();
    tokio::spawn(async move {
        run::stopped().await;
        stopped.cancel();
    });
    token
}

fn print(text: &str) -> Result<()> {
    std::io::stdout().write_all(text.as_bytes())?;
    Ok(())
}
