//! What a crate depends on: the types on little, and every crate on nothing that none of its sources names. Pure.

use super::source::Source;

/// What the types may depend on.
const API_DEPENDENCIES: [&str; 5] = ["k8s-openapi", "kube", "schemars", "serde", "serde_json"];

/// Names of dependencies with their lines, from a Cargo.toml; those of the workspace's table are none of a crate.
fn dependencies(manifest: &str) -> Vec<(usize, &str)> {
    let mut inside = false;
    let mut found = Vec::new();
    for (number, line) in (1..).zip(manifest.lines()) {
        if let Some(table) = line.strip_prefix('[') {
            inside = table.trim_end_matches(']').ends_with("dependencies") && !table.starts_with("workspace");
        } else if inside && line.contains('=') && !line.starts_with([' ', '#', '}', ']']) {
            found.push((number, line.split(['.', '=', ' ']).next().unwrap_or_default()));
        }
    }
    found
}

/// Dependencies of the crate in `folder` that none of its sources names.
pub fn unused(path: &str, manifest: &str, sources: &[Source], folder: &str) -> Vec<String> {
    let own: Vec<&Source> = sources
        .iter()
        .filter(|source| source.path.starts_with(folder))
        .collect();
    let named = |name: &str| {
        let name = name.replace('-', "_");
        own.iter().any(|source| source.names(&name))
    };
    let unused = dependencies(manifest)
        .into_iter()
        .filter(|(_, name)| !named(name));
    unused
        .map(|(number, name)| format!("{path}:{number}: no source in {folder} names the dependency `{name}`"))
        .collect()
}

/// The types need no client and no runtime.
pub fn of_types(manifest: &str) -> Vec<String> {
    let section = manifest.split("\n[dependencies]").nth(1).unwrap_or_default();
    let section = section.split("\n[").next().unwrap_or_default();
    let mut broken = Vec::new();
    for line in section.lines().filter(|line| line.contains('=')) {
        let name = line.split(['.', '=', ' ']).next().unwrap_or_default();
        if !API_DEPENDENCIES.contains(&name) {
            broken.push(format!("api/Cargo.toml: dependency `{name}` is not on the list"));
        }
        for feature in ["\"client\"", "\"runtime\""] {
            if name == "kube" && line.contains(feature) {
                broken.push(format!("api/Cargo.toml: kube with {feature}"));
            }
        }
    }
    broken
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_types_depend_on_little() {
        let manifest = "[package]\n[dependencies]\nserde.workspace = true\ntokio = \"1\"\n\
                        kube = { features = [\"client\"] }\n[lints]\nworkspace = true\n";
        assert_eq!(of_types(manifest).len(), 2);
    }

    #[test]
    fn a_dependency_that_no_source_names_is_unused() {
        let manifest = "[workspace.dependencies]\nclap = \"4\"\n[dependencies]\n# Why.\nserde.workspace = true\n\
                        yaml-serde = { version = \"1\", features = [\n  \"a\",\n] }\n[target.'cfg(unix)'.dependencies]\n\
                        libc = \"0\"\n[dev-dependencies]\nrstest = \"1\"\n[lints]\nworkspace = true\n";
        let text = "//! X. Not libc.\nuse serde::Serialize;\n#[cfg(test)]\nmod tests {\n    use rstest::rstest;\n}\n";
        let found = unused(
            "e2e/Cargo.toml",
            manifest,
            &[Source::new("e2e/a.rs", text)],
            "e2e/",
        );
        assert_eq!(found.len(), 2, "{found:?}");
        assert!(
            found[0].contains("yaml-serde") && found[1].contains("libc"),
            "{found:?}"
        );
    }
}
