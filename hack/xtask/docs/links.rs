//! Links of the book, of the Markdown files in the root of the repository and of doc comments: their files, folders and
//! anchors exist. A path into the repository in `code` exists too.

use super::{
    markdown,
    tree::{Problem, Tree},
};

/// Files outside the book whose links are checked.
const ROOT_PAGES: [&str; 3] = ["README.md", "CONTRIBUTING.md", "CHANGELOG.md"];
/// Folders whose files `code` may name.
const FOLDERS: [&str; 9] = [
    ".ci/",
    "api/",
    "config/",
    "controllers/",
    "docs/",
    "e2e/",
    "hack/",
    "templates/",
    ".config/",
];

/// Everything that leads nowhere.
pub fn problems(tree: &Tree) -> Vec<Problem> {
    let mut problems = Vec::new();
    let summary = tree
        .text("docs/src/SUMMARY.md")
        .map(String::as_str)
        .unwrap_or_default();
    for (path, text) in tree.files_under("docs/src/", ".md") {
        let name = path.trim_start_matches("docs/src/");
        if name != "SUMMARY.md" && !summary.contains(&format!("({name})")) {
            problems.push(Problem::new(path, 1, "the page is not in docs/src/SUMMARY.md"));
        }
        problems.extend(of_page(tree, path, text, true));
    }
    for path in ROOT_PAGES {
        if let Some(text) = tree.text(path) {
            problems.extend(of_page(tree, path, text, false));
        }
    }
    for (path, text) in tree
        .files_under("", ".rs")
        .filter(|(path, _)| !path.starts_with("hack/xtask/docs/"))
    {
        problems.extend(of_source(tree, path, text));
    }
    problems
}

fn of_page(tree: &Tree, path: &str, text: &str, in_book: bool) -> Vec<Problem> {
    let mut problems = Vec::new();
    for (number, line) in markdown::prose(text) {
        for target in markdown::targets(line) {
            if let Err(why) = follow(tree, path, target, in_book) {
                problems.push(Problem::new(path, number, format!("link {target}: {why}")));
            }
        }
        for code in markdown::code(line).into_iter().filter(|code| is_path(code)) {
            if !tree.has(code) {
                problems.push(Problem::new(
                    path,
                    number,
                    format!("`{code}`: no such file or folder"),
                ));
            }
        }
    }
    problems
}

/// Whether code is a path into the repository, and not a pattern or a command.
fn is_path(code: &str) -> bool {
    let fine = |c: char| c.is_ascii_alphanumeric() || "._-/".contains(c);
    FOLDERS.iter().any(|folder| code.starts_with(folder)) && code.chars().all(fine)
}

fn follow(tree: &Tree, from: &str, target: &str, in_book: bool) -> Result<(), String> {
    if target.contains("://") || target.starts_with("mailto:") {
        return Ok(());
    }
    let (file, anchor) = target.split_once('#').unwrap_or((target, ""));
    let path = if file.is_empty() {
        from.to_owned()
    } else {
        resolve(from, file)
    };
    if !tree.has(&path) {
        return Err(format!("no such file as {path}"));
    }
    if in_book && !path.starts_with("docs/src/") {
        return Err(
            "it leaves the book, which is read without the repository; write the path as `code`".to_owned(),
        );
    }
    anchored(tree, &path, anchor)
}

/// Fails where the page has no such anchor.
fn anchored(tree: &Tree, path: &str, anchor: &str) -> Result<(), String> {
    let known = || {
        tree.text(path)
            .map(|text| markdown::anchors(text))
            .unwrap_or_default()
    };
    if anchor.is_empty() || known().iter().any(|known| known == anchor) {
        Ok(())
    } else {
        Err(format!("{path} has no heading #{anchor}"))
    }
}

/// A relative path, seen from a file.
fn resolve(from: &str, relative: &str) -> String {
    let mut parts: Vec<&str> = from.split('/').collect();
    parts.pop();
    for part in relative.split('/') {
        match part {
            "." | "" => {}
            ".." => {
                parts.pop();
            }
            name => parts.push(name),
        }
    }
    parts.join("/")
}

/// Pages of the book that a source names, such as `docs/src/architecture.md#names`.
fn of_source(tree: &Tree, path: &str, text: &str) -> Vec<Problem> {
    let mut problems = Vec::new();
    for (number, line) in (1..).zip(text.lines()) {
        for (at, _) in line.match_indices("docs/src/") {
            let rest = &line[at..];
            let fine = |c: char| c.is_ascii_alphanumeric() || "._-/#".contains(c);
            let end = rest.find(|c| !fine(c)).unwrap_or(rest.len());
            let target = rest[..end].trim_end_matches(['.', '/', '#']);
            let (page, anchor) = target.split_once('#').unwrap_or((target, ""));
            let found = if tree.has(page) {
                anchored(tree, page, anchor)
            } else {
                Err("no such page".to_owned())
            };
            if let Err(why) = found {
                problems.push(Problem::new(path, number, format!("{target}: {why}")));
            }
        }
    }
    problems
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(page: &str) -> Vec<String> {
        let tree = Tree::of(&[
            ("docs/src/SUMMARY.md", "- [A](a.md)\n- [B](sub/b.md)\n"),
            ("docs/src/a.md", page),
            ("docs/src/sub/b.md", "# Title\n[a](../a.md)\n"),
            ("api/lib.rs", "//! See docs/src/sub/b.md#title.\n"),
        ]);
        problems(&tree).iter().map(ToString::to_string).collect()
    }

    #[test]
    fn what_exists_is_no_problem() {
        let page = "# A\n[b](sub/b.md#title) [here](#a) [web](https://kubernetes.io) `api/lib.rs` `api/*.rs` `hack/test unit`\n";
        assert_eq!(found(page), [""; 0]);
    }

    #[test]
    fn a_link_that_leads_nowhere_is_reported_with_its_line() {
        assert_eq!(
            found("# A\n\n[b](c.md) [b](sub/b.md#none) [c](../../api/lib.rs)\n`api/none.rs`\n"),
            [
                "docs/src/a.md:3: link c.md: no such file as docs/src/c.md",
                "docs/src/a.md:3: link sub/b.md#none: docs/src/sub/b.md has no heading #none",
                "docs/src/a.md:3: link ../../api/lib.rs: it leaves the book, which is read without the repository; write \
                 the path as `code`",
                "docs/src/a.md:4: `api/none.rs`: no such file or folder",
            ]
        );
    }

    #[test]
    fn a_page_that_no_summary_names_and_a_source_that_names_no_page_are_reported() {
        let tree = Tree::of(&[
            ("docs/src/a.md", "# A\n"),
            ("api/lib.rs", "//! docs/src/b.md says more.\n"),
        ]);
        let found: Vec<String> = problems(&tree).iter().map(ToString::to_string).collect();
        assert_eq!(
            found,
            [
                "docs/src/a.md:1: the page is not in docs/src/SUMMARY.md",
                "api/lib.rs:1: docs/src/b.md: no such page"
            ]
        );
    }
}
