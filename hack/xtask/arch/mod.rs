//! `cargo xtask arch`: rules on who imports whom, who does I/O and how files are named, checked by a scan of the sources.
//! The rules are those of CONTRIBUTING.md. This file owns those on single files; `source` knows what is code.

mod circles;
mod dependencies;
mod imports;
mod modules;
mod reads;
mod source;
#[cfg(test)]
mod tests;
mod words;
mod writes;

use std::path::{Path, PathBuf};

use anyhow::{Context, ensure};

use source::Source;

use crate::checkout;

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
const WRITERS: [&str; 7] = [
    "controllers/k8s/apply/",
    "controllers/k8s/finalizer.rs",
    "controllers/k8s/root.rs",
    "controllers/k8s/status.rs",
    "controllers/runtime/leader.rs",
    "controllers/hosting/driver/",
    "controllers/tenant/",
];
/// Files that are named like pure ones and write by design.
const PURE_BY_NAME_ONLY: [&str; 1] = ["controllers/k8s/status.rs"];
/// Words that say nothing about what a file is for.
const BANNED_NAMES: [&str; 8] = [
    "common", "data2", "handler", "helper", "helpers", "manager", "process", "utils",
];
/// Crates, by the folders of their sources.
const CRATES: [(&str, &str); 4] = [
    ("Cargo.toml", "controllers/"),
    ("api/Cargo.toml", "api/"),
    ("e2e/Cargo.toml", "e2e/"),
    ("hack/xtask/Cargo.toml", "hack/xtask/"),
];
const MAIN_LINES: usize = 40;
/// Lines of code a file may have, without tests, comments and blanks.
const LINES: usize = 400;

/// Runs the task.
pub fn run() -> anyhow::Result<()> {
    let broken = check(&checkout::root())?;
    ensure!(
        broken.is_empty(),
        "{}\n{} broken by these lines; CONTRIBUTING.md has the rules",
        broken.join("\n"),
        if broken.len() == 1 {
            "a rule is"
        } else {
            "rules are"
        }
    );
    Ok(())
}

/// Broken rules, and known exceptions that are none any more.
fn check(root: &Path) -> anyhow::Result<Vec<String>> {
    let mut sources = Vec::new();
    for folder in ["api", "controllers", "e2e", "hack/xtask"] {
        for path in rust_files(&root.join(folder))? {
            let text = std::fs::read_to_string(&path).with_context(|| format!("read {}", path.display()))?;
            let name = path.strip_prefix(root)?.to_string_lossy().replace('\\', "/");
            sources.push(Source::new(&name, &text));
        }
    }
    sources.sort_by(|a, b| a.path.cmp(&b.path));
    let mut broken: Vec<String> = sources.iter().flat_map(violations).collect();
    for (manifest, folder) in CRATES {
        let text = std::fs::read_to_string(root.join(manifest))?;
        broken.extend(dependencies::unused(manifest, &text, &sources, folder));
        if folder == "api/" {
            broken.extend(dependencies::of_types(&text));
        }
    }
    let circles = circles::circles(&sources).into_iter().map(|(circle, ties)| {
        let text = format!("circle in {circle}\n  {}", ties.join("\n  "));
        (circle, text)
    });
    for (found, known) in [
        (circles.collect(), circles::KNOWN),
        (modules::misplaced(&sources), modules::KNOWN),
        (product(&sources).flat_map(reads::reads).collect(), reads::KNOWN),
        (
            product(&sources).flat_map(words::kinds).collect(),
            words::KINDS_KNOWN,
        ),
        (
            sources.iter().flat_map(words::papers).collect(),
            words::PAPERS_KNOWN,
        ),
        (sources.iter().flat_map(writes::files).collect(), writes::KNOWN),
    ] {
        broken.extend(found.iter().filter_map(|(file, text)| unknown(known, file, text)));
        broken.extend(spent(known, &found));
    }
    broken.sort();
    Ok(broken)
}

/// A finding that is not among the known ones.
fn unknown(known: &[&str], key: &str, text: &str) -> Option<String> {
    (!known.contains(&key)).then(|| text.to_owned())
}

/// Known findings that are none any more.
fn spent(known: &[&str], found: &[(String, String)]) -> Vec<String> {
    let gone = known
        .iter()
        .filter(|known| !found.iter().any(|(key, _)| key == *known));
    gone.map(|known| {
        format!("{known}: is in a list of known exceptions in hack/xtask/arch and needs none any more")
    })
    .collect()
}

/// Files without those of tests.
fn product(sources: &[Source]) -> impl Iterator<Item = &Source> {
    sources.iter().filter(|source| {
        let path = &source.path;
        !source.is_test() && !path.contains("/testing") && !path.ends_with("/example.rs")
    })
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
    if source.is_test() {
        return house(source);
    }
    let rules = [house, pure, writing, imports::forbidden, types];
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
    if source.is_test() || path.starts_with("e2e/tests/") {
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
