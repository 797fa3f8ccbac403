//! Where a module's file is: `foo/mod.rs` for a module with children, `foo.rs` for one without, and never `#[path]`. Pure.

use std::collections::BTreeSet;

use super::source::Source;

/// Files that break the rule today. The list only becomes shorter.
pub const KNOWN: &[&str] = &[];

/// What breaks the rule: the file, and why.
pub fn misplaced(sources: &[Source]) -> Vec<(String, String)> {
    let paths: BTreeSet<&str> = sources.iter().map(|source| source.path.as_str()).collect();
    let beside = |folder: &str| {
        let folder = format!("{folder}/");
        paths.iter().filter(|path| path.starts_with(&folder)).count()
    };
    let mut found = Vec::new();
    for source in sources {
        let path = source.path.as_str();
        // Cargo looks for the root of a crate where it looks for it: that is no module's file.
        let root = path.starts_with("e2e/tests/") || path.starts_with("api/tests/");
        let stem = path.trim_end_matches(".rs");
        if let Some(folder) = stem.strip_suffix("/mod") {
            if beside(folder) == 1 {
                found.push((
                    path.to_owned(),
                    format!("{path}: a module without children is {folder}.rs"),
                ));
            }
        } else if !root && beside(stem) > 0 {
            found.push((
                path.to_owned(),
                format!("{path}: a module with children is {stem}/mod.rs"),
            ));
        }
        for (number, line) in (1..).zip(source.text.lines()) {
            // The RBAC rules of the controllers are data that xtask reads without linking the product.
            let rules = path == "hack/xtask/access.rs" && line.ends_with("/rbac.rs\"]");
            if line.trim_start().starts_with("#[path") && !rules {
                let text = format!("{path}:{number}: `#[path]`: a module's file has the module's name");
                found.push((path.to_owned(), text));
            }
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_module_with_children_is_a_folder() {
        let sources = [
            "api/a.rs",
            "api/a/b.rs",
            "api/c/mod.rs",
            "api/c/d.rs",
            "api/e/mod.rs",
            "e2e/tests/x.rs",
            "e2e/tests/x/y.rs",
        ]
        .map(|path| Source::new(path, "//! X.\n"));
        let found: Vec<_> = misplaced(&sources).into_iter().map(|(path, _)| path).collect();
        assert_eq!(found, ["api/a.rs", "api/e/mod.rs"]);
    }

    #[test]
    fn a_path_attribute_is_refused() {
        let source = Source::new("api/a.rs", "//! X.\n#[cfg(test)]\n#[path = \"b.rs\"]\nmod b;\n");
        assert_eq!(misplaced(&[source]).len(), 1);
    }
}
