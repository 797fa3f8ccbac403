//! Repository chores, run as `cargo xtask <task>`: one module a task, this file only picks.

mod crds;
mod podschemas;

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
    /// Write the custom resource definitions to config/crd.
    Crds(crds::Args),
    /// Take the schemas of embedded pod types from the pinned Kubernetes module into api/pod.json.
    PodSchemas(podschemas::Args),
}

fn main() -> anyhow::Result<()> {
    match Args::parse().task {
        Task::Crds(args) => crds::run(&args),
        Task::PodSchemas(args) => podschemas::run(&args),
    }
}
