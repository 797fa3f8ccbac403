//! `cargo xtask docs`: writes the generated pages and pictures of the book in `docs/`, and checks what is written by
//! hand against the code: links, paths, anchors, an entry for each condition and reason, the rows that tests name.
//! Owns which page is made from what. Each module below makes one kind of page and returns its text and its problems.

mod fields;
mod infrastructure;
mod links;
mod markdown;
mod metrics;
mod names;
mod operations;
mod picture;
mod presets;
mod rows;
mod templates;
mod tree;

use std::collections::BTreeMap;

use anyhow::{Context as _, bail};

use tree::{Problem, Tree};

use crate::checkout;

/// Folder of the generated reference pages.
const REFERENCE: &str = "docs/src/reference";

/// Arguments of the task.
#[derive(clap::Args)]
pub struct Args {
    /// Write nothing; fail with the file and line of everything that is stale or leads nowhere.
    #[arg(long)]
    check: bool,
}

/// Runs the task.
pub fn run(args: &Args) -> anyhow::Result<()> {
    let mut tree = Tree::read(&checkout::root())?;
    let (pages, mut problems) = generate(&tree)?;
    if args.check {
        problems.extend(stale(&tree, &pages));
    } else {
        write(&tree, &pages)?;
    }
    tree.put_all(&pages);
    problems.extend(operations::problems(&tree));
    problems.extend(links::problems(&tree));
    problems.sort();
    if problems.is_empty() {
        return Ok(());
    }
    let list: Vec<String> = problems.iter().map(ToString::to_string).collect();
    bail!("{} problems in the book:\n{}", list.len(), list.join("\n"))
}

/// Every generated file by its path, and the problems in what they are made from.
fn generate(tree: &Tree) -> anyhow::Result<(BTreeMap<String, String>, Vec<Problem>)> {
    let mut pages = BTreeMap::new();
    let mut problems = Vec::new();
    for page in rows::PAGES {
        let (text, wrong) = rows::page(tree, page)?;
        pages.insert(format!("{REFERENCE}/{}.md", page.name), text);
        problems.extend(wrong);
    }
    problems.extend(rows::strangers(tree));
    pages.insert(format!("{REFERENCE}/conditions.md"), names::conditions(tree)?);
    pages.insert(format!("{REFERENCE}/labels.md"), names::labels(tree)?);
    pages.insert(format!("{REFERENCE}/flags.md"), flags(tree)?);
    pages.insert(format!("{REFERENCE}/metrics.md"), metrics::page(tree)?);
    pages.insert(format!("{REFERENCE}/infrastructure.md"), infrastructure::page()?);
    pages.insert(format!("{REFERENCE}/presets.md"), presets::page()?);
    let (text, wrong) = templates::page(tree)?;
    pages.insert(format!("{REFERENCE}/templates.md"), text);
    problems.extend(wrong);
    for (name, text) in fields::pages()? {
        pages.insert(format!("{REFERENCE}/{name}.md"), text);
    }
    for (path, text) in tree.files_under("docs/src/pictures/", ".txt") {
        let svg = picture::render(text).with_context(|| path.to_owned())?;
        pages.insert(format!("{}.svg", path.trim_end_matches(".txt")), svg);
    }
    Ok((pages, problems))
}

/// The page of flags is a snapshot of a unit test, which compares it with the flags: this program does not link the
/// product, so that the everyday checks build fast.
fn flags(tree: &Tree) -> anyhow::Result<String> {
    let (path, snapshot) = tree
        .files_under("controllers/snapshots/", "__flags.snap")
        .next()
        .context("no snapshot of the flags in controllers/snapshots: run the unit tests of controllers/reference.rs")?;
    let body = snapshot
        .splitn(3, "---\n")
        .nth(2)
        .with_context(|| format!("{path} is no snapshot"))?;
    let from = "`controllers/args.rs`, by a snapshot of `controllers/reference.rs`";
    Ok(format!("# Command line\n\n{}\n{body}", markdown::made_by(from)))
}

fn write(tree: &Tree, pages: &BTreeMap<String, String>) -> anyhow::Result<()> {
    for (path, text) in pages {
        if tree.text(path) != Some(text) {
            let file = checkout::root().join(path);
            if let Some(folder) = file.parent() {
                std::fs::create_dir_all(folder)?;
            }
            std::fs::write(&file, text).with_context(|| format!("write {path}"))?;
        }
    }
    Ok(())
}

/// One problem for each generated file that is missing or not what it should be, at the first line that differs.
fn stale(tree: &Tree, pages: &BTreeMap<String, String>) -> Vec<Problem> {
    pages
        .iter()
        .filter(|(path, text)| tree.text(path) != Some(*text))
        .map(|(path, text)| {
            let old = tree.text(path).map(String::as_str).unwrap_or_default();
            let same = old.lines().zip(text.lines()).take_while(|(old, new)| old == new);
            Problem::new(path, same.count() + 1, "not current: run `cargo xtask docs`")
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stale_page_is_reported_at_the_line_that_differs() {
        let tree = Tree::of(&[("docs/src/a.md", "one\ntwo\n"), ("docs/src/b.md", "same\n")]);
        let pages = BTreeMap::from([
            ("docs/src/a.md".to_owned(), "one\n2\n".to_owned()),
            ("docs/src/b.md".to_owned(), "same\n".to_owned()),
            ("docs/src/c.md".to_owned(), "new\n".to_owned()),
        ]);
        let found: Vec<String> = stale(&tree, &pages).iter().map(ToString::to_string).collect();
        assert_eq!(
            found,
            [
                "docs/src/a.md:2: not current: run `cargo xtask docs`",
                "docs/src/c.md:1: not current: run `cargo xtask docs`",
            ]
        );
    }
}
