//! The files in `templates/cluster`, and what they have in common.

use std::{collections::BTreeSet, path::PathBuf};

use anyhow::{Context as _, Result};
use e2e::objects::{documents, text};

/// A file.
pub struct File {
    /// Its name without `.yaml`.
    pub name: String,
    /// Where it is.
    pub path: PathBuf,
    /// What it holds.
    pub text: String,
    /// The infrastructure that it is for.
    pub infrastructure: String,
}

impl File {
    /// It is a ClusterClass with its templates; clusterctl fills nothing in.
    pub fn is_class(&self) -> bool {
        self.name.starts_with("clusterclass-")
    }
}

/// All files, in order.
pub fn all() -> Result<Vec<File>> {
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR"))
        .with_file_name("templates")
        .join("cluster");
    let mut files = Vec::new();
    for entry in std::fs::read_dir(folder)? {
        let path = entry?.path();
        let name = path
            .file_stem()
            .context("no name")?
            .to_string_lossy()
            .into_owned();
        let rest = ["cluster-template-", "clusterclass-kamaji-"]
            .into_iter()
            .find_map(|prefix| name.strip_prefix(prefix))
            .unwrap_or(&name);
        let infrastructure = rest.split('-').next().unwrap_or_default().to_owned();
        let text = std::fs::read_to_string(&path)?;
        files.push(File {
            name,
            path,
            text,
            infrastructure,
        });
    }
    files.sort_by(|one, other| one.name.cmp(&other.name));
    Ok(files)
}

/// The manifest of the network plugin as a file has it, whatever range of the pods is its default.
fn network_plugin(text: &str) -> Option<String> {
    let mut documents = text
        .split(
            "
---
",
        )
        .map(str::trim_end);
    let plugin = documents.find(|document| {
        document.contains(
            "
  flannel.yaml: |
",
        )
    })?;
    let (before, range) = plugin.split_once("${POD_CIDR:=")?;
    let (_, after) = range.split_once('}')?;
    Some(format!("{before}{after}"))
}

#[test]
fn the_network_plugin_is_the_same_in_every_template() -> Result<()> {
    let files = all()?;
    let plugins: Vec<_> = files
        .iter()
        .filter_map(|file| network_plugin(&file.text).map(|plugin| (&file.name, plugin)))
        .collect();
    assert!(plugins.len() >= 3, "{}", plugins.len());
    let (_, first) = plugins.first().context("no plugin")?;
    let others: Vec<_> = plugins
        .iter()
        .filter(|(_, plugin)| plugin != first)
        .map(|(name, _)| name)
        .collect();
    assert!(others.is_empty(), "other than in {}: {others:?}", plugins[0].0);
    Ok(())
}

/// A percentage of machines is rounded down, so less than half would leave a dead worker of two as it is.
#[test]
fn a_dead_worker_of_two_is_replaced_and_others_after_it() -> Result<()> {
    let mut wrong = Vec::new();
    for file in all()? {
        let Some((_, limit)) = file.text.split_once("unhealthyLessThanOrEqualTo: ") else {
            continue;
        };
        let (percentage, _) = limit.split_once('%').context("no percentage")?;
        if 2 * percentage.parse::<u32>()? / 100 < 1 {
            wrong.push(format!("{}: {percentage} % of two workers is none", file.name));
        }
        if !file.text.contains("maxInFlight: 1") {
            wrong.push(format!("{}: several are replaced at once", file.name));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    Ok(())
}

#[test]
fn every_infrastructure_is_here_and_the_main_ones_have_a_class() -> Result<()> {
    let names: BTreeSet<_> = all()?.into_iter().map(|file| file.name).collect();
    for infrastructure in ["vsphere", "metal3", "openstack"] {
        for name in [
            format!("cluster-template-{infrastructure}"),
            format!("cluster-template-{infrastructure}-class"),
            format!("clusterclass-kamaji-{infrastructure}"),
        ] {
            assert!(names.contains(&name), "no {name}");
        }
    }
    Ok(())
}

/// A class has no variables of clusterctl, which would be filled in by whoever makes the first cluster of it; each of its own
/// variables is described and bounded, and each but the required ones has a default.
#[test]
fn variables_of_classes_are_described_bounded_and_have_defaults() -> Result<()> {
    let mut wrong = Vec::new();
    for file in all()?.iter().filter(|file| file.is_class()) {
        if file.text.contains("${") {
            wrong.push(format!("{}: a variable of clusterctl", file.name));
        }
        let objects = documents(&file.text)?;
        let class = objects
            .iter()
            .find(|object| text(object, "/kind") == "ClusterClass")
            .context("no class")?;
        assert_eq!(
            format!("clusterclass-{}", text(class, "/metadata/name")),
            file.name
        );
        for variable in class["spec"]["variables"].as_array().into_iter().flatten() {
            let name = text(variable, "/name");
            let schema = &variable["schema"]["openAPIV3Schema"];
            if variable["required"] == false && schema.get("default").is_none() {
                wrong.push(format!("{}: {name} has no default", file.name));
            }
            schema_problems(schema, &format!("{}: {name}", file.name), &mut wrong);
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    Ok(())
}

/// What a schema lacks: a description, and the bounds of its type.
fn schema_problems(schema: &serde_json::Value, at: &str, wrong: &mut Vec<String>) {
    let has = |key: &str| schema.get(key).is_some();
    let bounded = match text(schema, "/type") {
        "string" => has("enum") || has("maxLength"),
        "integer" => has("minimum") && has("maximum"),
        "array" => has("maxItems"),
        "object" => has("properties") || has("maxProperties"),
        _ => true,
    };
    if !bounded {
        wrong.push(format!("{at} has no bounds"));
    }
    let is_part = at.ends_with("[]") || at.ends_with("{}");
    if !is_part && !has("description") {
        wrong.push(format!("{at} has no description"));
    }
    for (name, part) in schema["properties"].as_object().into_iter().flatten() {
        schema_problems(part, &format!("{at}.{name}"), wrong);
    }
    for (key, mark) in [("items", "[]"), ("additionalProperties", "{}")] {
        if let Some(part) = schema.get(key) {
            schema_problems(part, &format!("{at}{mark}"), wrong);
        }
    }
}
