//! `lab-cert-issuer`: a replacement of cert-manager for the lab, which runs outside the cluster.

use anyhow::{Context as _, Result};
use clap::Parser;
use e2e::{certs::serving, run};
use kube::Client;
use tokio_util::sync::CancellationToken;

/// Issues self-signed certificates and injects CA bundles; finds the cluster by KUBECONFIG.
#[derive(Parser)]
#[command(version)]
struct Cli {
    /// Install the definitions, wait until they are served, and end.
    #[arg(long)]
    install_only: bool,
}

#[tokio::main]
async fn main() -> Result<()> {
    let cli = Cli::parse();
    run::log();
    run::crypto();
    let client = Client::try_default()
        .await
        .context("no access to the management cluster")?;
    serving::install(&client).await?;
    if !cli.install_only {
        let stop = CancellationToken::new();
        let serving = tokio::spawn(Box::pin(serving::serve(client, stop.clone())));
        run::stopped().await;
        stop.cancel();
        serving.await?;
    }
    Ok(())
}
