//! The subcommands that print.

use std::io::{Write as _, stdout};

/// Prints all CustomResourceDefinitions as one YAML stream.
///
/// # Errors
/// When standard output is closed.
pub fn crds() -> anyhow::Result<()> {
    let mut out = stdout().lock();
    for crd in kamaji_api::crd::all_crds() {
        writeln!(out, "---\n{}", serde_yaml::to_string(&crd)?)?;
    }
    Ok(())
}

/// Prints the version.
///
/// # Errors
/// When standard output is closed.
pub fn version() -> anyhow::Result<()> {
    writeln!(stdout().lock(), "capi-kamaji {}", env!("CARGO_PKG_VERSION"))?;
    Ok(())
}
