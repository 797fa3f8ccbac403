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
        Ok(known) => {
            problems.extend(compare("reason", REASONS, &reason_entries(page(REASONS)), &known));
            problems.extend(reserved(page(REASONS), |reason| is_reported(tree, reason)));
        }
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

/// Entries that begin with «*Reserved*» although the reason is reported, and the other way round.
fn reserved(page: &str, is_reported: impl Fn(&str) -> bool) -> Vec<Problem> {
    let lines: Vec<&str> = page.lines().collect();
    let mut problems = Vec::new();
    for (line, name) in reason_entries(page) {
        let body = lines.iter().skip(line).find(|text| !text.is_empty());
        let is_reserved = body.is_some_and(|text| text.starts_with("*Reserved"));
        match (is_reserved, is_reported(name)) {
            (true, true) => {
                let text = format!("{name} is reported by the sources, and its entry begins with *Reserved*");
                problems.push(Problem::new(REASONS, line, text));
            }
            (false, false) => {
                let text = format!("{name} is reported by no source: its entry has to begin with *Reserved*");
                problems.push(Problem::new(REASONS, line, text));
            }
            _ => {}
        }
    }
    problems
}

/// Whether the program or the join script names a reason, tests aside.
fn is_reported(tree: &Tree, reason: &str) -> bool {
    let word = |text: &str, word: &str| {
        text.match_indices(word).any(|(at, found)| {
            !text[at + found.len()..].starts_with(|c: char| c.is_ascii_alphanumeric() || c == '_')
        })
    };
    let in_code = |(path, text): (&str, &str)| {
        let code = text.split("#[cfg(test)]\nmod tests {").next().unwrap_or_default();
        !path.ends_with("tests.rs")
            && !path.contains("/testing/")
            && !path.contains("/tests/")
            && word(code, &format!("Reason::{reason}"))
    };
    tree.files_under("controllers/", ".rs").any(in_code)
        || tree.files_under("templates/node/", "").any(|(_, text)| {
            [" ", "="]
                .iter()
                .any(|before| word(text, &format!("{before}{reason}")))
        })
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
    fn a_reserved_entry_is_about_what_nothing_reports() {
        let page = "### `One`\n\n*Reserved.* Text.\n\n### `Two`\n\nText.\n\n### `Three`\n\nText.\n\n\
                    ### `Four`\n\nText.\n";
        let sources = "Reason::One => x,\n#[cfg(test)]\nmod tests { Reason::Two }\n";
        let tree = Tree::of(&[
            ("controllers/a.rs", sources),
            ("templates/node/join.sh", "reason=Four\nfail Three \"why\""),
        ]);
        let found: Vec<String> = reserved(page, |reason| is_reported(&tree, reason))
            .iter()
            .map(ToString::to_string)
            .collect();
        assert_eq!(
            found,
            [
                "docs/src/operations/reasons.md:1: One is reported by the sources, and its entry begins with *Reserved*",
                "docs/src/operations/reasons.md:5: Two is reported by no source: its entry has to begin with *Reserved*",
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
