//! The pages that say what to do: each condition type of each kind and each reason has an entry, and no entry is about
//! something that does not exist. An entry of a reason is a heading that is the reason; an entry of a condition is a row
//! of the table below the heading of its kind.

use std::collections::BTreeMap;

use super::{
    markdown,
    names::{self, KINDS, Name},
    tree::{Problem, Tree},
};

const CONDITIONS: &str = "docs/src/operations/conditions.md";
const REASONS: &str = "docs/src/operations/reasons.md";

/// What lacks an entry or has one too many.
pub fn problems(tree: &Tree) -> Vec<Problem> {
    let page = |path| tree.text(path).map(String::as_str).unwrap_or_default();
    let mut problems = Vec::new();
    match names::reasons(tree) {
        Ok(known) => problems.extend(compare("reason", REASONS, &reason_entries(page(REASONS)), &known)),
        Err(error) => problems.push(Problem::new("api/conditions.rs", 1, format!("{error:#}"))),
    }
    for kind in &KINDS {
        let entries = condition_entries(page(CONDITIONS), kind.name);
        match names::types(tree, kind) {
            Ok(known) => {
                let what = format!("condition of {}", kind.name);
                problems.extend(compare(&what, CONDITIONS, &entries, &known));
            }
            Err(error) => problems.push(Problem::new("api/conditions.rs", 1, format!("{error:#}"))),
        }
    }
    problems
}

/// Line and name of each heading of level three.
fn reason_entries(page: &str) -> Vec<(usize, &str)> {
    let entries = markdown::headings(page).filter(|heading| heading.level == 3);
    entries
        .map(|heading| (heading.line, heading.text.trim_matches('`')))
        .collect()
}

/// Line and name of each row of the table below the heading of a kind.
fn condition_entries<'a>(page: &'a str, kind: &str) -> Vec<(usize, &'a str)> {
    let mut here = false;
    let mut entries = Vec::new();
    for (line, text) in markdown::prose(page) {
        if let Some(title) = text.strip_prefix("## ") {
            here = title.trim() == kind;
        } else if let Some(name) = text
            .strip_prefix("| `")
            .and_then(|rest| rest.split('`').next())
            .filter(|_| here)
        {
            entries.push((line, name));
        }
    }
    entries
}

fn compare(what: &str, page: &str, entries: &[(usize, &str)], known: &[Name]) -> Vec<Problem> {
    let mut problems = Vec::new();
    let mut used = BTreeMap::new();
    for (line, name) in entries {
        if !known.iter().any(|known| known.text == *name) {
            problems.push(Problem::new(page, *line, format!("{name} is no {what}")));
        } else if let Some(first) = used.insert(*name, *line) {
            problems.push(Problem::new(
                page,
                *line,
                format!("{name} has an entry in line {first} already"),
            ));
        }
    }
    for name in known.iter().filter(|name| !used.contains_key(name.text.as_str())) {
        let text = format!("{what} {} has no entry in {page}", name.text);
        problems.push(Problem::new(&name.path, name.line, text));
    }
    problems
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(line: usize, text: &str) -> Name {
        Name {
            path: "api/conditions.rs".into(),
            line,
            text: text.into(),
            doc: String::new(),
            group: String::new(),
        }
    }

    #[test]
    fn a_name_without_an_entry_and_an_entry_without_a_name_are_reported() {
        let page = "# Reasons\n\n## All\n\n### `One`\n\nText.\n\n### `Three`\n\n### `One`\n";
        let problems = compare(
            "reason",
            REASONS,
            &reason_entries(page),
            &[name(7, "One"), name(9, "Two")],
        );
        let found: Vec<String> = problems.iter().map(ToString::to_string).collect();
        assert_eq!(
            found,
            [
                "docs/src/operations/reasons.md:9: Three is no reason",
                "docs/src/operations/reasons.md:11: One has an entry in line 5 already",
                "api/conditions.rs:9: reason Two has no entry in docs/src/operations/reasons.md",
            ]
        );
    }

    #[test]
    fn conditions_are_the_rows_below_their_kind() {
        let page = "## A\n\n| condition | what |\n|---|---|\n| `Ready` | x |\n\n## B\n\n| `Paused` | y |\n";
        assert_eq!(condition_entries(page, "A"), [(5, "Ready")]);
        assert_eq!(condition_entries(page, "B"), [(9, "Paused")]);
    }
}
