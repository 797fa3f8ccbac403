//! Definitions of the infrastructure providers, as test data. They are third-party data in the folder that `PROVIDER_CRDS`
//! names: `infra`, below it a folder for each provider, with a file for each kind.

use std::path::PathBuf;

use anyhow::{Context as _, Result};
use capi_kamaji::capi::contract;
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;

/// The definitions, each with the version of its contract as the stored one: no webhook converts here, so that fields which
/// only another version has would be lost. None without the folder, which is reported.
///
/// # Errors
/// When a file cannot be read, or a definition names no version of a contract.
pub fn all() -> Result<Option<Vec<CustomResourceDefinition>>> {
    of(|_| true)
}

/// Those of the providers that are wanted, by the names of their folders.
///
/// # Errors
/// Those of [`all`].
pub fn of(wanted: impl Fn(&str) -> bool) -> Result<Option<Vec<CustomResourceDefinition>>> {
    let Some(folder) = std::env::var_os("PROVIDER_CRDS") else {
        crate::skip("PROVIDER_CRDS not set");
        return Ok(None);
    };
    let mut all = Vec::new();
    for provider in std::fs::read_dir(PathBuf::from(folder).join("infra"))? {
        let provider = provider?;
        if !wanted(&provider.file_name().to_string_lossy()) {
            continue;
        }
        for file in std::fs::read_dir(provider.path())? {
            let path = file?.path();
            let definition = serde_yaml::from_str(&std::fs::read_to_string(&path)?)
                .with_context(|| path.display().to_string())?;
            all.push(stored_as_read(definition)?);
        }
    }
    Ok(Some(all))
}

/// The same with the version of the contract as the stored one.
///
/// # Errors
/// When it names no version of a contract.
pub fn stored_as_read(mut definition: CustomResourceDefinition) -> Result<CustomResourceDefinition> {
    let read = contract::read(&definition)?.resource.version;
    for version in &mut definition.spec.versions {
        version.storage = version.name == read;
    }
    Ok(definition)
}
