//! What is known about infrastructure kinds against the definitions of their providers. These are third-party data. They are
//! read from the folder that `PROVIDER_CRDS` names and are not part of the project.

use std::{collections::BTreeMap, io::Write as _, path::Path};

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::ResourceExt as _;

use super::{contract, quirks};

/// The definitions of infrastructure clusters, by name.
fn definitions(folder: &Path) -> BTreeMap<String, CustomResourceDefinition> {
    let mut all = BTreeMap::new();
    for provider in std::fs::read_dir(folder.join("infra")).unwrap() {
        for file in std::fs::read_dir(provider.unwrap().path()).unwrap() {
            let text = std::fs::read_to_string(file.unwrap().path()).unwrap();
            let definition: CustomResourceDefinition = serde_yaml::from_str(&text).unwrap();
            if definition.spec.names.kind.ends_with("Cluster") {
                all.insert(definition.name_any(), definition);
            }
        }
    }
    all
}

#[test]
fn what_is_known_about_each_kind_fits_its_definition() {
    let Some(folder) = std::env::var_os("PROVIDER_CRDS") else {
        // Written around the test harness, which captures output.
        let _ = writeln!(std::io::stderr(), "\nskipped: PROVIDER_CRDS not set");
        return;
    };
    let mut definitions = definitions(Path::new(&folder));
    let quirks = quirks::embedded().unwrap();
    for known in &quirks.kinds {
        let name = contract::definition_name(&known.group, &known.kind);
        assert_eq!(
            name,
            format!("{}.{}", known.plural(), known.group),
            "as the ClusterRole has it"
        );
        let Some(definition) = definitions.remove(&name) else {
            assert!(known.untested, "{name} has no definition");
            let _ = writeln!(std::io::stderr(), "\nnot tested: {name}");
            continue;
        };
        assert!(!known.untested, "{name} can be tested");
        let kind = contract::read(&definition).unwrap();
        assert!(kind.takes_endpoint, "{name}");
        assert!(!known.needs_manager() || kind.reports_provisioned, "{name}");
        for needed in &known.require {
            let path: Vec<&str> = needed.path.names().iter().map(String::as_str).collect();
            let has = |version: &str| {
                let versions = definition.spec.versions.iter();
                let found = versions.filter(|known| known.name == version);
                let mut schemas =
                    found.filter_map(|known| known.schema.as_ref()?.open_api_v3_schema.as_ref());
                schemas.any(|schema| contract::below(schema, &path).is_some())
            };
            let versions = if needed.versions.is_empty() {
                vec![kind.resource.version.clone()]
            } else {
                needed.versions.clone()
            };
            for version in versions.iter().filter(|_| path[0] != "metadata") {
                assert!(has(version), "{name} {version} has no {path:?}");
            }
        }
    }
    assert!(
        definitions.is_empty(),
        "nothing is known about {:?}",
        definitions.keys()
    );
}
