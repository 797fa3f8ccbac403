//! `cargo xtask components`: `config/{rbac,manager,metadata.yaml}`, and with `--out` a provider repository that
//! clusterctl installs from. Owns which object is in which file; the output is the same on every machine.
//! The files have no variables, so they can also be applied with kubectl. Layout and file names follow clusterctl's
//! provider contract: <https://cluster-api.sigs.k8s.io/developer/providers/contracts/clusterctl>.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

use anyhow::{Context, bail, ensure};
use kamaji_api::quirks::{EMBEDDED, Quirks};
use serde_json::{Value, json};

use crate::{
    checkout,
    crds::sorted,
    objects,
    provider::{PROVIDERS, Provider, VERSION, image},
};

/// Arguments of the task.
#[derive(clap::Args)]
pub struct Args {
    /// Folder of the provider repository to write; without it, config/ is written.
    #[arg(long)]
    out: Option<PathBuf>,
    /// Version of the release.
    #[arg(long, default_value = VERSION)]
    version: String,
    /// Image to run instead of the release's own.
    #[arg(long)]
    image: Option<String>,
    /// Write nothing; fail where a file of config/ is not what it should be.
    #[arg(long, conflicts_with = "out")]
    check: bool,
}

/// Minor releases and the contract that each speaks; the newest last.
const SERIES: [(u64, u64, &str); 1] = [(0, 1, "v1beta2")];

/// Runs the task.
pub fn run(args: &Args) -> anyhow::Result<()> {
    if let Some(out) = &args.out {
        let image = args.image.clone().unwrap_or_else(|| image(&args.version));
        return write(out, &release(&args.version, &image)?);
    }
    let folder = config();
    let files = sources()?;
    if !args.check {
        return write(&folder, &files);
    }
    let wrong = differences(&folder, &files);
    ensure!(
        wrong.is_empty(),
        "not current: {}; run `cargo xtask components`",
        wrong.join(", ")
    );
    Ok(())
}

fn config() -> PathBuf {
    checkout::root().join("config")
}

/// What is committed under `config/`, beside the CRDs.
fn sources() -> anyhow::Result<BTreeMap<String, String>> {
    let mut files = BTreeMap::from([("metadata.yaml".to_owned(), stream(&[metadata()])?)]);
    for provider in &PROVIDERS {
        let name = provider.short;
        files.insert(
            format!("manager/{name}.yaml"),
            stream(&objects::process(provider, &image(VERSION)))?,
        );
        files.insert(
            format!("rbac/{name}.yaml"),
            stream(&objects::rights(provider, &quirks()?))?,
        );
    }
    let note = |text: String| format!("# Made by `cargo xtask components`; edit hack/xtask instead.\n{text}");
    Ok(files.into_iter().map(|(name, text)| (name, note(text))).collect())
}

/// The files of a release, in the layout of a provider repository.
fn release(version: &str, image: &str) -> anyhow::Result<BTreeMap<String, String>> {
    ensure!(
        listed(version),
        "version {version}: want vX.Y.Z of a series in metadata.yaml ({SERIES:?})"
    );
    let mut files = BTreeMap::new();
    for provider in &PROVIDERS {
        let folder = format!("{}/{version}", provider.label);
        files.insert(
            format!("{folder}/{}", provider.file),
            stream(&everything(provider, image)?)?,
        );
        files.insert(format!("{folder}/metadata.yaml"), stream(&[metadata()])?);
    }
    Ok(files)
}

/// Namespace first, then definitions, rights, and the process last.
fn everything(provider: &Provider, image: &str) -> anyhow::Result<Vec<Value>> {
    let mut process = objects::process(provider, image);
    let deployment = process.pop().context("no Deployment")?;
    let mut all = process;
    for crd in kamaji_api::crd::all_crds() {
        if provider.groups.contains(&crd.spec.group.as_str()) {
            all.push(objects::labelled(provider, serde_json::to_value(crd)?));
        }
    }
    all.extend(objects::rights(provider, &quirks()?));
    all.push(deployment);
    Ok(all)
}

/// The infrastructure kinds that the control plane provider knows.
fn quirks() -> anyhow::Result<Quirks> {
    Ok(serde_yaml::from_str(EMBEDDED)?)
}

fn metadata() -> Value {
    let series: Vec<Value> = SERIES
        .iter()
        .map(|(major, minor, contract)| json!({"major": major, "minor": minor, "contract": contract}))
        .collect();
    json!({
        "apiVersion": "clusterctl.cluster.x-k8s.io/v1alpha3", "kind": "Metadata", "releaseSeries": series,
    })
}

/// A strict version of a series whose contract is in metadata.yaml.
fn listed(version: &str) -> bool {
    let Some(numbers) = version.strip_prefix('v') else {
        return false;
    };
    let core = numbers.split(['-', '+']).next().unwrap_or_default();
    let parts: Option<Vec<u64>> = core.split('.').map(|part| part.parse().ok()).collect();
    matches!(parts.as_deref(), Some([major, minor, _]) if SERIES.iter().any(|s| (s.0, s.1) == (*major, *minor)))
}

fn stream(objects: &[Value]) -> anyhow::Result<String> {
    let mut text = String::new();
    for object in objects {
        if !text.is_empty() {
            text.push_str("---\n");
        }
        text.push_str(&serde_yaml::to_string(&sorted(object.clone()))?);
    }
    Ok(text)
}

fn write(folder: &Path, files: &BTreeMap<String, String>) -> anyhow::Result<()> {
    for (name, text) in files {
        let path = folder.join(name);
        let Some(parent) = path.parent() else {
            bail!("{name}: no folder")
        };
        std::fs::create_dir_all(parent)?;
        std::fs::write(&path, text).with_context(|| format!("write {}", path.display()))?;
    }
    Ok(())
}

fn differences(folder: &Path, files: &BTreeMap<String, String>) -> Vec<String> {
    files
        .iter()
        .filter(|(name, text)| std::fs::read_to_string(folder.join(name)).ok().as_ref() != Some(text))
        .map(|(name, _)| name.clone())
        .collect()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    fn of(provider: &Provider) -> Vec<Value> {
        everything(provider, &image(VERSION)).unwrap()
    }

    fn text<'a>(object: &'a Value, pointer: &str) -> &'a str {
        object
            .pointer(pointer)
            .and_then(Value::as_str)
            .unwrap_or_default()
    }

    fn kinds<'a>(objects: &'a [Value], kind: &'a str) -> impl Iterator<Item = &'a Value> {
        objects.iter().filter(move |object| object["kind"] == kind)
    }

    #[test]
    fn committed_sources_are_current() {
        let wrong = differences(&config(), &sources().unwrap());
        assert!(
            wrong.is_empty(),
            "not current: {wrong:?}; run `cargo xtask components`"
        );
    }

    #[test]
    fn contract_58_each_file_has_one_namespace_and_its_objects_lie_in_it() {
        for provider in &PROVIDERS {
            let objects = of(provider);
            let namespaces: Vec<&str> = kinds(&objects, "Namespace")
                .map(|o| text(o, "/metadata/name"))
                .collect();
            assert_eq!(namespaces, [provider.namespace]);
            for object in &objects {
                let namespace = text(object, "/metadata/namespace");
                assert!(["", provider.namespace].contains(&namespace), "{object}");
            }
        }
    }

    #[test]
    fn contract_58_no_object_stands_in_both_files() {
        let mut seen = BTreeSet::new();
        for object in PROVIDERS.iter().flat_map(of) {
            let key = (
                text(&object, "/apiVersion").to_owned(),
                text(&object, "/kind").to_owned(),
                text(&object, "/metadata/namespace").to_owned(),
                text(&object, "/metadata/name").to_owned(),
            );
            assert!(seen.insert(key.clone()), "{key:?}");
        }
        assert_eq!(
            seen.iter()
                .filter(|key| key.1 == "CustomResourceDefinition")
                .count(),
            6
        );
    }

    #[test]
    fn contract_58_cluster_scoped_rights_begin_with_the_namespace() {
        for provider in &PROVIDERS {
            for object in of(provider) {
                if ["ClusterRole", "ClusterRoleBinding"].contains(&text(&object, "/kind")) {
                    let name = text(&object, "/metadata/name");
                    assert!(name.starts_with(&format!("{}-", provider.namespace)), "{name}");
                }
            }
        }
    }

    #[test]
    fn contract_57_clusterctl_finds_its_labels_and_a_container_named_manager() {
        for provider in &PROVIDERS {
            let objects = of(provider);
            for object in &objects {
                let labels = &object["metadata"]["labels"];
                assert_eq!(labels["cluster.x-k8s.io/provider"], provider.label, "{object}");
                assert_eq!(labels["clusterctl.cluster.x-k8s.io"], "", "{object}");
            }
            let deployments: Vec<&Value> = kinds(&objects, "Deployment").collect();
            assert_eq!(deployments.len(), 1);
            let container = &deployments[0]["spec"]["template"]["spec"]["containers"][0];
            assert_eq!(container["name"], "manager");
            assert_eq!(container["image"], image(VERSION));
            assert_eq!(container["imagePullPolicy"], "IfNotPresent");
        }
    }

    #[test]
    fn contract_63_the_image_is_a_full_reference_and_can_be_another() {
        let reference = image(VERSION);
        let (host, rest) = reference.split_once('/').unwrap();
        assert!(host.contains('.') && rest.contains(':'), "{reference}");
        let files = release(VERSION, "registry.test:5000/x:y").unwrap();
        let all: String = files.into_values().collect();
        assert_eq!(all.matches("image: registry.test:5000/x:y").count(), 2);
        assert!(!all.contains(&reference));
    }

    #[test]
    fn nothing_needs_certificates_webhooks_or_variables() {
        for provider in &PROVIDERS {
            let objects = of(provider);
            for object in &objects {
                assert!(!text(object, "/kind").contains("Webhook"), "{object}");
                assert!(!text(object, "/apiVersion").contains("cert-manager"), "{object}");
                assert_ne!(text(object, "/kind"), "Secret");
            }
            assert!(!stream(&objects).unwrap().contains("${"));
        }
    }

    #[test]
    fn contract_56_metadata_lists_the_release_and_the_contract_of_the_definitions() {
        assert!(listed(VERSION));
        assert!(listed("v0.1.7-rc.1"));
        for wrong in ["0.1.0", "v0.2.0", "v0.1", "latest", "v0.1.x"] {
            assert!(!listed(wrong), "{wrong}");
        }
        let contract = SERIES[SERIES.len() - 1].2;
        for crd in kamaji_api::crd::all_crds() {
            let labels = crd.metadata.labels.unwrap_or_default();
            if crd.spec.group.ends_with("cluster.x-k8s.io") {
                assert!(
                    labels.contains_key(&format!("cluster.x-k8s.io/{contract}")),
                    "{:?}",
                    crd.metadata.name
                );
            }
        }
    }

    #[test]
    fn pods_pass_the_restricted_profile() {
        for provider in &PROVIDERS {
            let objects = of(provider);
            let namespace = kinds(&objects, "Namespace").next().unwrap();
            assert_eq!(
                namespace["metadata"]["labels"]["pod-security.kubernetes.io/enforce"],
                "restricted"
            );
            let pod = &kinds(&objects, "Deployment").next().unwrap()["spec"]["template"]["spec"];
            assert_eq!(pod["securityContext"]["runAsNonRoot"], true);
            assert_eq!(pod["securityContext"]["seccompProfile"]["type"], "RuntimeDefault");
            let container = &pod["containers"][0]["securityContext"];
            assert_eq!(container["readOnlyRootFilesystem"], true);
            assert_eq!(container["allowPrivilegeEscalation"], false);
            assert_eq!(container["capabilities"]["drop"], json!(["ALL"]));
        }
    }

    #[test]
    fn a_subject_of_another_namespace_is_a_user_which_clusterctl_leaves_alone() {
        let objects = of(&PROVIDERS[0]);
        for binding in kinds(&objects, "ClusterRoleBinding").chain(kinds(&objects, "RoleBinding")) {
            for subject in binding["subjects"].as_array().unwrap() {
                let foreign = subject["namespace"] != PROVIDERS[0].namespace;
                assert_eq!(foreign, subject["kind"] == "User", "{subject}");
            }
        }
    }
}
