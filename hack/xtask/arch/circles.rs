//! Import circles: files or folders beside each other that import each other. Pure.
//!
//! `mod.rs` of a folder wires its children and is no part of the folder's graph. Tests count for nothing.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use super::source::{Source, paths};

/// Circles that exist today: the folder, and its members from first to last. The list only becomes shorter.
pub const KNOWN: &[&str] = &[];

/// Folders whose path is `crate::` to the files below.
const CRATES: [&str; 4] = ["api", "controllers", "e2e", "hack/xtask"];

/// Where one file imports another: line of the first import.
type Graph<'a> = BTreeMap<&'a str, BTreeMap<&'a str, String>>;

/// Every circle: its name as in [`KNOWN`], and the imports of the shortest way round.
pub fn circles(sources: &[Source]) -> Vec<(String, Vec<String>)> {
    let files: Vec<(&Source, Module)> = sources
        .iter()
        .filter_map(|source| Some((source, module(&source.path)?)))
        .collect();
    let modules: BTreeSet<&Module> = files.iter().map(|(_, module)| module).collect();
    let tests: Vec<Module> = files.iter().flat_map(|(s, m)| test_modules(s, m)).collect();
    let is_test = |m: &Module| {
        tests.iter().any(|test| starts_with(m, test)) || m.path.iter().any(|p| p.ends_with("tests"))
    };
    let mut imports: BTreeMap<String, BTreeMap<(String, String), String>> = BTreeMap::new();
    for (source, from) in files.iter().filter(|(_, m)| !is_test(m)) {
        for (line, path) in paths(&source.code) {
            let Some(to) = target(from, &path, &modules).filter(|to| !is_test(to)) else {
                continue;
            };
            let shared = from.path.iter().zip(&to.path).take_while(|(a, b)| a == b).count();
            if let (Some(a), Some(b)) = (from.path.get(shared), to.path.get(shared)) {
                let folder = [&[from.root.to_owned()], &from.path[..shared]].concat().join("/");
                let edge = (a.clone(), b.clone());
                let text = format!("{}:{line}: imports {}", source.path, path.join("::"));
                imports.entry(folder).or_default().entry(edge).or_insert(text);
            }
        }
    }
    imports
        .iter()
        .flat_map(|(folder, edges)| within(folder, edges))
        .collect()
}

/// The circles of one folder.
fn within(folder: &str, edges: &BTreeMap<(String, String), String>) -> Vec<(String, Vec<String>)> {
    let mut graph = Graph::new();
    for ((from, to), text) in edges {
        graph.entry(from).or_default().insert(to, text.clone());
    }
    let reach: BTreeMap<&str, BTreeSet<&str>> =
        graph.keys().map(|node| (*node, reached(&graph, node))).collect();
    let mut done = BTreeSet::new();
    let mut found = Vec::new();
    for (node, ahead) in &reach {
        if !ahead.contains(node) || done.contains(node) {
            continue;
        }
        let members: Vec<&str> = ahead
            .iter()
            .filter(|other| reach.get(*other).is_some_and(|back| back.contains(node)))
            .copied()
            .collect();
        done.extend(members.iter().copied());
        let rounds = members.iter().filter_map(|from| shortest(&graph, from));
        let imports = rounds.min_by_key(Vec::len).unwrap_or_default();
        found.push((format!("{folder}: {}", members.join(", ")), imports));
    }
    found
}

/// What can be reached from a node by one import or more.
fn reached<'a>(graph: &Graph<'a>, from: &str) -> BTreeSet<&'a str> {
    let mut found = BTreeSet::new();
    let mut ahead = vec![from];
    while let Some(node) = ahead.pop() {
        for next in graph.get(node).into_iter().flat_map(BTreeMap::keys) {
            if found.insert(*next) {
                ahead.push(next);
            }
        }
    }
    found
}

/// The imports of the shortest way from a node to itself.
fn shortest(graph: &Graph, start: &str) -> Option<Vec<String>> {
    let mut seen = BTreeSet::new();
    let mut ahead = VecDeque::from([(start, Vec::new())]);
    while let Some((node, way)) = ahead.pop_front() {
        for (next, import) in graph.get(node).into_iter().flatten() {
            let way = [way.as_slice(), std::slice::from_ref(import)].concat();
            if *next == start {
                return Some(way);
            }
            if seen.insert(*next) {
                ahead.push_back((next, way));
            }
        }
    }
    None
}

/// A module by its crate and path; `mod.rs` is its folder's.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Module {
    root: &'static str,
    path: Vec<String>,
}

fn module(path: &str) -> Option<Module> {
    let root = CRATES
        .into_iter()
        .find(|root| path.starts_with(&format!("{root}/")))?;
    let inside = path.strip_prefix(root)?.strip_prefix('/')?.strip_suffix(".rs")?;
    let mut path: Vec<String> = inside.split('/').map(str::to_owned).collect();
    if path.last().is_some_and(|last| last == "mod") {
        path.pop();
    }
    if path.len() == 1 && matches!(path[0].as_str(), "lib" | "main") {
        path.pop();
    }
    Some(Module { root, path })
}

fn starts_with(module: &Module, prefix: &Module) -> bool {
    module.root == prefix.root && module.path.starts_with(&prefix.path)
}

/// Modules that a file declares for tests only.
fn test_modules(source: &Source, module: &Module) -> Vec<Module> {
    let mut found = Vec::new();
    let mut for_tests = false;
    for line in source.text.lines().map(str::trim) {
        let declared = line
            .strip_suffix(';')
            .and_then(|l| l.split_once("mod ").map(|(_, name)| name));
        if let Some(name) = declared.filter(|_| for_tests) {
            let mut path = module.path.clone();
            path.push(name.to_owned());
            found.push(Module {
                root: module.root,
                path,
            });
        }
        for_tests = line == "#[cfg(test)]" || (for_tests && line.starts_with("#["));
    }
    found
}

/// The module that a path names: its longest beginning that is a module.
fn target(from: &Module, path: &[String], modules: &BTreeSet<&Module>) -> Option<Module> {
    let mut at = match path.first()?.as_str() {
        "crate" => Vec::new(),
        "self" | "super" => from.path.clone(),
        _ => return None,
    };
    let mut rest = path;
    while let Some((first, others)) = rest.split_first() {
        match first.as_str() {
            "crate" | "self" => {}
            "super" => {
                at.pop()?;
            }
            _ => break,
        }
        rest = others;
    }
    at.extend(rest.iter().cloned());
    loop {
        let module = Module {
            root: from.root,
            path: at.clone(),
        };
        if modules.contains(&module) {
            return Some(module);
        }
        at.pop()?;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(files: &[(&str, &str)]) -> Vec<(String, Vec<String>)> {
        let sources: Vec<_> = files.iter().map(|(path, text)| Source::new(path, text)).collect();
        circles(&sources)
    }

    #[test]
    fn files_that_import_each_other_are_a_circle() {
        let files = [
            ("controllers/pki/a.rs", "//! A.\nuse super::b::B;\n"),
            (
                "controllers/pki/b.rs",
                "//! B.\nuse crate::{\n    k8s,\n    pki::{c::C, f::F},\n};\n",
            ),
            ("controllers/pki/c.rs", "//! C.\nfn f() { super::a::g(); }\n"),
            // A longer way round by `e` and `f` is not shown.
            ("controllers/pki/f.rs", "//! F.\nuse super::e;\n"),
            ("controllers/pki/e.rs", "//! E.\nuse super::a;\n"),
            ("controllers/pki/d.rs", "//! D.\nuse super::a;\n"),
            ("controllers/pki/mod.rs", "//! P.\nmod a;\nuse a::A;\n"),
        ];
        let found = found(&files);
        assert_eq!(found.len(), 1, "{found:?}");
        assert_eq!(found[0].0, "controllers/pki: a, b, c, e, f");
        assert_eq!(
            found[0].1,
            [
                "controllers/pki/a.rs:2: imports super::b::B",
                "controllers/pki/b.rs:2: imports crate::pki::c::C",
                "controllers/pki/c.rs:2: imports super::a::g",
            ]
        );
    }

    #[test]
    fn folders_that_import_each_other_are_a_circle() {
        let files = [
            (
                "controllers/hosting/render/x.rs",
                "//! X.\nuse super::super::tenant::y::Y;\n",
            ),
            (
                "controllers/hosting/tenant/y.rs",
                "//! Y.\nuse crate::hosting::render::x::X;\n",
            ),
        ];
        assert_eq!(found(&files)[0].0, "controllers/hosting: render, tenant");
    }

    #[test]
    fn tests_parents_and_comments_close_no_circle() {
        let files = [
            (
                "api/a.rs",
                "//! A.\n#[cfg(test)]\nmod tests {\n    use crate::b;\n}\n// crate::b\n",
            ),
            ("api/b.rs", "//! B.\nuse crate::a;\n"),
            ("api/c/mod.rs", "//! C.\nmod d;\npub use self::d::D;\n"),
            ("api/c/d.rs", "//! D.\nuse super::E;\n"),
            ("api/lib.rs", "//! L.\n#[cfg(test)]\nmod model;\nmod a;\n"),
            ("api/model.rs", "//! M.\nuse crate::e;\n"),
            ("api/e.rs", "//! E.\n#[cfg(test)]\nuse crate::model;\n"),
        ];
        assert!(found(&files).is_empty(), "{:?}", found(&files));
    }
}
