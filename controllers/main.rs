//! The `capi-kamaji` binary.

use std::process::ExitCode;

use capi_kamaji::args::{Cli, Command};
use clap::Parser as _;

#[cfg(target_os = "linux")]
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

#[tokio::main]
async fn main() -> ExitCode {
    // The one TLS provider of the process; a second install can only mean that it is there.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let result = match Cli::parse().command() {
        Command::Run(args) => Box::pin(capi_kamaji::run(*args)).await,
        Command::Crds => capi_kamaji::print::crds(),
        Command::Version(args) => capi_kamaji::print::version(args.output),
        Command::Completion { shell } => capi_kamaji::print::completion(shell),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!(error = format!("{error:#}"), "capi-kamaji ends");
            eprintln!("capi-kamaji: {error:#}");
            ExitCode::FAILURE
        }
    }
}
