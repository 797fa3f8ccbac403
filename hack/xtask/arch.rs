//! `cargo xtask arch`: the dependency rules of the house, checked by a scan of the sources.
//! Owns the rules; `source` owns what counts as code. Source: style.md 3.3, DESIGN 3.

mod source;

use std::path::{Path, PathBuf};

use anyhow::{Context, ensure};

use source::Source;

/// Files that only think: values in, values out; time and entropy are arguments.
const PURE: [&str; 15] = [
    "backoff",
    "cloudinit",
    "conditions",
    "desired",
    "digest",
    "ignition",
    "names",
    "phase",
    "placement",
    "plan",
    "policy",
    "render",
    "spec",
    "status",
    "validate",
];
/// What a pure file may not mention.
const IMPURE: [&str; 16] = [
    "Api<",
    "Api::",
    "&Client",
    ": Client",
    "<Client",
    "kube::Client",
    "Instant::now",
    "OffsetDateTime::now_utc",
    "SystemTime",
    "Timestamp::now",
    "async",
    "rand",
    "reqwest",
    "std::env",
    "std::fs",
    "tokio",
];
/// What writes to an API server.
const WRITES: [&str; 9] = [
    "DeleteParams",
    "PatchParams",
    "PostParams",
    "patch_metadata",
    "patch_scale",
    "patch_status",
    "replace_status",
    "create_subresource",
    "patch_subresource",
];
/// Where writing is: to the management cluster, of the process's own Lease, and to foreign systems.
const WRITERS: [&str; 6] = [
    "controllers/k8s/apply.rs",
    "controllers/k8s/finalizer.rs",
    "controllers/k8s/status.rs",
    "controllers/runtime/leader.rs",
    "controllers/hosting/datastore/driver/",
    "controllers/tenant/",
];
/// Files that are named like pure ones and write by design.
const PURE_BY_NAME_ONLY: [&str; 1] = ["controllers/k8s/status.rs"];
/// Words that say nothing about what a file is for.
const BANNED_NAMES: [&str; 8] = [
    "common", "data2", "handler", "helper", "helpers", "manager", "process", "utils",
];
/// Who may use whom: module, and what it may not import.
const IMPORTS: [(&str, &[&str]); 9] = [
    (
        "k8s",
        &[
            "args",
            "capi",
            "hosting",
            "kamajiconfig",
            "kamajicontrolplane",
            "pki",
            "runtime",
            "tenant",
        ],
    ),
    (
        "capi",
        &[
            "args",
            "hosting",
            "kamajiconfig",
            "kamajicontrolplane",
            "pki",
            "runtime",
            "tenant",
        ],
    ),
    (
        "pki",
        &[
            "args",
            "capi",
            "hosting",
            "kamajiconfig",
            "kamajicontrolplane",
            "runtime",
            "tenant",
        ],
    ),
    ("tenant", &["hosting", "kamajiconfig", "kamajicontrolplane"]),
    ("runtime", &["hosting", "kamajiconfig", "kamajicontrolplane"]),
    ("hosting", &["kamajiconfig", "kamajicontrolplane"]),
    ("kamajiconfig", &["hosting", "kamajicontrolplane"]),
    ("kamajicontrolplane", &["hosting", "kamajiconfig"]),
    (
        "args",
        &[
            "capi",
            "hosting",
            "kamajiconfig",
            "kamajicontrolplane",
            "k8s",
            "pki",
            "tenant",
        ],
    ),
];
/// What the types may depend on.
const API_DEPENDENCIES: [&str; 5] = ["k8s-openapi", "kube", "schemars", "serde", "serde_json"];
const MAIN_LINES: usize = 40;
/// Lines of code a file may have, without tests, comments and blanks.
const LINES: usize = 400;

/// Runs the task.
pub fn run() -> anyhow::Result<()> {
    let broken = check(&root())?;
    ensure!(
        broken.is_empty(),
        "{} rules broken:\n{}",
        broken.len(),
        broken.join("\n")
    );
    Ok(())
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

fn check(root: &Path) -> anyhow::Result<Vec<String>> {
    let mut broken = Vec::new();
    for folder in ["api", "controllers", "e2e", "hack/xtask"] {
        for path in rust_files(&root.join(folder))? {
            let text = std::fs::read_to_string(&path).with_context(|| format!("read {}", path.display()))?;
            let name = path.strip_prefix(root)?.to_string_lossy().replace('\\', "/");
            broken.extend(violations(&Source::new(&name, &text)));
        }
    }
    broken.extend(api_dependencies(&std::fs::read_to_string(
        root.join("api/Cargo.toml"),
    )?));
    broken.sort();
    Ok(broken)
}

fn rust_files(folder: &Path) -> anyhow::Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    for entry in std::fs::read_dir(folder).with_context(|| format!("list {}", folder.display()))? {
        let path = entry?.path();
        if path.is_dir() {
            files.extend(rust_files(&path)?);
        } else if path.extension().is_some_and(|end| end == "rs") {
            files.push(path);
        }
    }
    Ok(files)
}

/// Every rule on one file; tests in files of their own only have a head and a name.
fn violations(source: &Source) -> Vec<String> {
    if source.stem().ends_with("tests") {
        return house(source);
    }
    let rules = [house, pure, writing, importing, types];
    rules.iter().flat_map(|rule| rule(source)).collect()
}

fn at(source: &Source, lines: &[usize], rule: &str) -> Vec<String> {
    lines
        .iter()
        .map(|line| format!("{}:{line}: {rule}", source.path))
        .collect()
}

/// Names, heads, sizes.
fn house(source: &Source) -> Vec<String> {
    let mut broken = Vec::new();
    if !source.text.starts_with("//!") {
        broken.push(format!(
            "{}:1: begins with no `//!` that says what it owns",
            source.path
        ));
    }
    let words = source.path.trim_end_matches(".rs").split(['/', '_', '-']);
    broken.extend(words.filter(|word| BANNED_NAMES.contains(word)).map(|word| {
        format!(
            "{}: «{word}» says nothing about what the file is for",
            source.path
        )
    }));
    if source.path == "controllers/main.rs" && source.code.len() > MAIN_LINES {
        broken.push(format!("{}: more than {MAIN_LINES} lines", source.path));
    }
    broken.extend(length(source));
    for (number, line) in (1..).zip(&source.code) {
        if line.contains("#[allow(") || line.contains("#![allow(") {
            broken.extend(at(source, &[number], "`allow`: write `expect` with a reason"));
        }
        let html = line.contains("#[template(") && !source.text.contains("escape = \"none\"");
        if html {
            broken.extend(at(
                source,
                &[number],
                "a template without `escape = \"none\"` writes HTML",
            ));
        }
    }
    broken
}

/// One concept a file; tests are as long as they need.
fn length(source: &Source) -> Option<String> {
    let path = source.path.as_str();
    if source.stem().ends_with("tests") || path.starts_with("e2e/tests/") {
        return None;
    }
    let lines = source.code.iter().filter(|line| !line.trim().is_empty()).count();
    (lines > LINES)
        .then(|| format!("{path}: {lines} lines of code, at most {LINES}: one concept a file, split it"))
}

/// Pure files do no I/O and read neither clock nor chance.
fn pure(source: &Source) -> Vec<String> {
    let path = source.path.as_str();
    let named = path.starts_with("controllers/")
        && !PURE_BY_NAME_ONLY.contains(&path)
        && PURE.iter().any(|name| {
            source.stem() == *name
                || source.stem().starts_with(&format!("{name}_"))
                || path.contains(&format!("/{name}/"))
        });
    if !named && !says_pure(&source.text) {
        return Vec::new();
    }
    IMPURE
        .iter()
        .flat_map(|word| {
            at(
                source,
                &source.lines_with(word),
                &format!("`{word}` in a file that only thinks"),
            )
        })
        .collect()
}

/// The head says «Pure», as a word that ends or begins a sentence.
fn says_pure(text: &str) -> bool {
    let mut words = text
        .lines()
        .map_while(|line| line.strip_prefix("//!"))
        .flat_map(str::split_whitespace);
    words.any(|word| matches!(word, "Pure" | "Pure." | "Pure:" | "Pure,"))
}

/// Writing is in few places.
fn writing(source: &Source) -> Vec<String> {
    if !source.path.starts_with("controllers/") || WRITERS.iter().any(|place| source.path.starts_with(place))
    {
        return Vec::new();
    }
    let rule = "writing to the API server is k8s/{apply,finalizer,status}'s";
    WRITES
        .iter()
        .flat_map(|word| at(source, &source.lines_with(word), &format!("`{word}`: {rule}")))
        .collect()
}

/// `api` ← `k8s` ← `capi` ← controllers, which do not know each other.
fn importing(source: &Source) -> Vec<String> {
    let Some(inside) = source.path.strip_prefix("controllers/") else {
        return Vec::new();
    };
    let module = inside
        .trim_end_matches(".rs")
        .split('/')
        .next()
        .unwrap_or_default();
    let Some((_, forbidden)) = IMPORTS.iter().find(|(name, _)| *name == module) else {
        return Vec::new();
    };
    statements(&source.code)
        .iter()
        .flat_map(|(number, statement)| {
            forbidden
                .iter()
                .filter(|other| imports(statement, other))
                .map(move |other| format!("{}:{number}: `{module}` uses `{other}`", source.path))
        })
        .collect()
}

/// Lines with their numbers; a `use` that goes over several lines is one.
fn statements(code: &[String]) -> Vec<(usize, String)> {
    let mut all: Vec<(usize, String)> = Vec::new();
    let mut open = false;
    for (number, line) in (1..).zip(code) {
        if let Some((_, statement)) = all.last_mut().filter(|_| open) {
            statement.push(' ');
            statement.push_str(line.trim());
        } else {
            let words: Vec<&str> = line.split_whitespace().collect();
            open = matches!(words.as_slice(), ["use", ..])
                || matches!(words.as_slice(), [visible, "use", ..] if visible.starts_with("pub"));
            all.push((number, line.clone()));
        }
        open &= !line.contains(';');
    }
    all
}

/// The statement names `crate::module`, alone or in a group.
fn imports(statement: &str, module: &str) -> bool {
    let is = |path: &str| {
        let rest = path.trim().strip_prefix(module);
        rest.is_some_and(|rest| !rest.starts_with(|c: char| c.is_alphanumeric() || c == '_'))
    };
    statement
        .split("crate::")
        .skip(1)
        .any(|rest| match rest.strip_prefix('{') {
            Some(group) => members(group).iter().any(|path| is(path)),
            None => is(rest),
        })
}

/// What stands in a group of imports, up to the brace that closes it; groups inside stay whole.
fn members(group: &str) -> Vec<&str> {
    let (mut all, mut depth, mut from) = (Vec::new(), 0_usize, 0);
    for (at, c) in group.char_indices() {
        match c {
            '{' => depth += 1,
            '}' if depth == 0 => {
                all.push(&group[from..at]);
                return all;
            }
            '}' => depth -= 1,
            ',' if depth == 0 => {
                all.push(&group[from..at]);
                from = at + 1;
            }
            _ => {}
        }
    }
    all.push(&group[from..]);
    all
}

/// The types reach no cluster.
fn types(source: &Source) -> Vec<String> {
    if !source.path.starts_with("api/") || source.path.starts_with("api/tests/") {
        return Vec::new();
    }
    [
        "kube::Client",
        "kube::Api",
        "tokio",
        "async",
        "std::fs",
        "std::env",
    ]
    .iter()
    .flat_map(|word| {
        at(
            source,
            &source.lines_with(word),
            &format!("`{word}`: the types do no I/O"),
        )
    })
    .collect()
}

fn api_dependencies(manifest: &str) -> Vec<String> {
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

    fn broken(path: &str, text: &str) -> Vec<String> {
        violations(&Source::new(path, &format!("//! Head.\n{text}")))
    }

    #[test]
    fn this_repository_keeps_the_rules() {
        let broken = check(&root()).unwrap();
        assert!(broken.is_empty(), "\n{}", broken.join("\n"));
    }

    #[test]
    fn thinking_is_pure_by_file_name_and_by_folder() {
        let text = "async fn f() {}\n";
        for path in [
            "controllers/kamajiconfig/desired.rs",
            "controllers/hosting/tenantcontrolplane/desired/service.rs",
            "controllers/pki/policy.rs",
            "controllers/kamajiconfig/desired_files.rs",
        ] {
            assert_eq!(broken(path, text).len(), 1, "{path}");
        }
        assert!(broken("controllers/kamajiconfig/observe.rs", text).is_empty());
        assert!(broken("e2e/names.rs", text).is_empty());
    }

    #[test]
    fn thinking_is_pure_where_the_head_says_so() {
        let text = |head: &str| format!("//! {head}\nasync fn f() {{}}\n");
        for head in [
            "Sizes. Pure.",
            "Pure: time is an argument.",
            "What is due,\n//! and why. Pure.",
        ] {
            let source = Source::new("controllers/hosting/usage.rs", &text(head));
            assert_eq!(violations(&source).len(), 1, "{head}");
        }
        for head in ["What is pure: [`plan`].", "Impure."] {
            let source = Source::new("controllers/hosting/usage.rs", &text(head));
            assert!(violations(&source).is_empty(), "{head}");
        }
    }

    #[test]
    fn few_files_write() {
        let text = "use kube::api::PatchParams;\n";
        assert_eq!(broken("controllers/kamajicontrolplane/mod.rs", text).len(), 1);
        assert!(broken("controllers/k8s/apply.rs", text).is_empty());
        assert!(broken("controllers/tenant/addons.rs", text).is_empty());
    }

    #[test]
    fn controllers_do_not_know_each_other() {
        for (path, text) in [
            ("controllers/kamajiconfig/mod.rs", "use crate::hosting::x;\n"),
            (
                "controllers/hosting/mod.rs",
                "use crate::{k8s, kamajiconfig::y};\n",
            ),
            ("controllers/k8s/index.rs", "use crate::runtime;\n"),
            (
                "controllers/kamajiconfig/mod.rs",
                "use crate::{\n    k8s::{apply, row},\n    hosting::engine,\n};\n",
            ),
            (
                "controllers/kamajiconfig/mod.rs",
                "pub(crate) use crate::{\n    k8s,\n    hosting,\n};\n",
            ),
            (
                "controllers/kamajiconfig/mod.rs",
                "fn f() {\n    crate::hosting::x();\n}\n",
            ),
        ] {
            assert_eq!(broken(path, text).len(), 1, "{path}");
        }
        assert!(broken("controllers/kamajiconfig/mod.rs", "use crate::{k8s, capi};\n").is_empty());
        let inner =
            "use crate::{\n    k8s::{\n        hosting,\n        row,\n    },\n    hosting_words,\n};\n";
        assert!(broken("controllers/kamajiconfig/mod.rs", inner).is_empty());
        assert!(broken("controllers/lib.rs", "use crate::hosting;\n").is_empty());
    }

    #[test]
    fn names_heads_and_sizes() {
        assert_eq!(broken("controllers/k8s/event_handler.rs", "").len(), 1);
        assert_eq!(violations(&Source::new("e2e/x.rs", "fn f() {}\n")).len(), 1);
        assert_eq!(broken("controllers/main.rs", &"\n".repeat(40)).len(), 1);
        let long = "let a = 1;\n".repeat(400);
        assert!(broken("e2e/x.rs", &format!("{long}\n// one more\n")).is_empty());
        assert_eq!(broken("e2e/x.rs", &format!("{long}let b = 2;\n")).len(), 1);
        assert_eq!(broken("e2e/x.rs", "#[allow(dead_code)]\nfn f() {}\n").len(), 1);
    }

    #[test]
    fn the_types_depend_on_little() {
        let manifest = "[package]\n[dependencies]\nserde.workspace = true\ntokio = \"1\"\n\
                        kube = { features = [\"client\"] }\n[lints]\nworkspace = true\n";
        assert_eq!(api_dependencies(manifest).len(), 2);
    }
}
