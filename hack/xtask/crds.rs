//! `cargo xtask crds`: writes `config/crd`, one file a definition, the same bytes on every machine.
//! Owns the names and layout of the files; their content comes from `kamaji_api::crd`.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::{Path, PathBuf},
};

use anyhow::{Context, bail};
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use serde_json::Value;

use crate::checkout;

/// Arguments of the task.
#[derive(clap::Args)]
pub struct Args {
    /// Write nothing; fail where a file is not what it should be.
    #[arg(long)]
    check: bool,
}

/// Folder of the definitions.
pub fn folder() -> PathBuf {
    checkout::root().join("config/crd")
}

/// Runs the task.
pub fn run(args: &Args) -> anyhow::Result<()> {
    let folder = folder();
    let files = files()?;
    if args.check {
        let wrong = differences(&folder, &files)?;
        if !wrong.is_empty() {
            bail!("not current: {}; run `cargo xtask crds`", wrong.join(", "));
        }
        return Ok(());
    }
    std::fs::create_dir_all(&folder)?;
    for name in strangers(&folder, &files)? {
        std::fs::remove_file(folder.join(name))?;
    }
    for (name, text) in &files {
        std::fs::write(folder.join(name), text).with_context(|| format!("write {name}"))?;
    }
    Ok(())
}

/// Every file: name and text.
pub fn files() -> anyhow::Result<BTreeMap<String, String>> {
    kamaji_api::crd::all_crds()
        .iter()
        .map(|crd| {
            let name = crd.metadata.name.clone().context("a definition without a name")?;
            Ok((format!("{name}.yaml"), text(crd)?))
        })
        .collect()
}

fn text(crd: &CustomResourceDefinition) -> anyhow::Result<String> {
    let sorted = sorted(serde_json::to_value(crd)?);
    Ok(format!(
        "# Made by `cargo xtask crds`; edit the types in api/ instead.\n{}",
        serde_yaml::to_string(&sorted)?
    ))
}

/// The same JSON with the keys of every object in order, whatever map the JSON crate was built with.
pub fn sorted(value: Value) -> Value {
    match value {
        Value::Object(map) => {
            let map: BTreeMap<_, _> = map.into_iter().map(|(key, value)| (key, sorted(value))).collect();
            Value::Object(map.into_iter().collect())
        }
        Value::Number(number) => whole(&number).map_or(Value::Number(number), Value::from),
        Value::Array(list) => Value::Array(list.into_iter().map(sorted).collect()),
        other => other,
    }
}

/// A number such as `1.0`, which the definition's type writes for a bound, as the whole number it is.
fn whole(number: &serde_json::Number) -> Option<i64> {
    number
        .as_f64()
        .filter(|_| !number.is_i64())
        .and_then(|float| format!("{float}").parse().ok())
}

/// Names of files that differ, are missing, or do not belong there.
fn differences(folder: &Path, files: &BTreeMap<String, String>) -> anyhow::Result<Vec<String>> {
    let mut wrong: BTreeSet<String> = strangers(folder, files)?.into_iter().collect();
    for (name, text) in files {
        if std::fs::read_to_string(folder.join(name)).ok().as_ref() != Some(text) {
            wrong.insert(name.clone());
        }
    }
    Ok(wrong.into_iter().collect())
}

/// Definitions in the folder that nothing makes any more.
fn strangers(folder: &Path, files: &BTreeMap<String, String>) -> anyhow::Result<Vec<String>> {
    let mut names = Vec::new();
    if folder.is_dir() {
        for entry in std::fs::read_dir(folder)? {
            let name = entry?.file_name().to_string_lossy().into_owned();
            if name.ends_with(".x-k8s.io.yaml") || name.ends_with(".kamaji.clastix.io.yaml") {
                names.extend((!files.contains_key(&name)).then_some(name));
            }
        }
    }
    names.sort();
    Ok(names)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn committed_definitions_are_current() -> anyhow::Result<()> {
        let wrong = differences(&folder(), &files()?)?;
        assert!(wrong.is_empty(), "not current: {wrong:?}; run `cargo xtask crds`");
        Ok(())
    }

    /// `kubectl` and Go's YAML read these as booleans where they stand bare.
    #[test]
    fn no_value_is_a_boolean_by_accident() -> anyhow::Result<()> {
        for (name, text) in files()? {
            for line in text.lines() {
                let value = line
                    .trim_start()
                    .trim_start_matches("- ")
                    .rsplit(": ")
                    .next()
                    .unwrap_or_default();
                let bare =
                    ["on", "off", "yes", "no", "y", "n"].contains(&value.to_ascii_lowercase().as_str());
                assert!(!bare, "{name}: {line}");
            }
        }
        Ok(())
    }

    #[test]
    fn a_definition_fits_the_annotation_of_client_side_apply() -> anyhow::Result<()> {
        for crd in kamaji_api::crd::all_crds() {
            let bytes = serde_json::to_vec(&crd)?.len();
            assert!(bytes < 128 * 1024, "{:?}: {bytes} bytes", crd.metadata.name);
        }
        Ok(())
    }
}
