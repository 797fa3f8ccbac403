//! Repository chores, run as `cargo xtask <task>`: one module a task, this file only picks.

mod access;
mod arch;
mod checkout;
mod components;
mod crds;
mod docs;
mod kubelets;
mod objects;
mod podschemas;
mod provider;

use std::io::Write as _;

use clap::{Parser, Subcommand};

/// Repository chores.
#[derive(Parser)]
#[command(name = "xtask")]
struct Args {
    #[command(subcommand)]
    task: Task,
}

/// The chores.
#[derive(Subcommand)]
enum Task {
    /// Check who imports whom and which files do I/O.
    Arch,
    /// Write the custom resource definitions to config/crd.
    Crds(crds::Args),
    /// Write config/{rbac,manager}, or with --out a provider repository for clusterctl.
    Components(components::Args),
    /// Write the generated pages and pictures of the book in docs/, and check its links and entries.
    Docs(docs::Args),
    /// Take the fields and feature gates of kubelets from the pinned Kubernetes modules into api/kubelets.json.
    Kubelets(kubelets::Args),
    /// Print the reference of the providers' image.
    ImageName,
    /// Take the schemas of embedded pod types from the pinned Kubernetes module into api/pod.json.
    PodSchemas(podschemas::Args),
}

fn main() -> std::process::ExitCode {
    let Err(error) = run() else {
        return std::process::ExitCode::SUCCESS;
    };
    // A broken rule has no use for the backtrace that RUST_BACKTRACE asks for.
    let _ = writeln!(std::io::stderr(), "{error:#}");
    std::process::ExitCode::FAILURE
}

fn run() -> anyhow::Result<()> {
    match Args::parse().task {
        Task::Crds(args) => crds::run(&args),
        Task::Arch => arch::run(),
        Task::Components(args) => components::run(&args),
        Task::Docs(args) => docs::run(&args),
        Task::Kubelets(args) => kubelets::run(&args),
        Task::ImageName => image_name(),
        Task::PodSchemas(args) => podschemas::run(&args),
    }
}

fn image_name() -> anyhow::Result<()> {
    writeln!(std::io::stdout(), "{}", provider::image(provider::VERSION))?;
    Ok(())
}
