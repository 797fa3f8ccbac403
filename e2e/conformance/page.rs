//! The page of the book about conformance: the results of a run, and the tests that need another image. Pure.

use std::{collections::BTreeMap, fmt::Write as _};

use anyhow::{Context as _, Result};

use super::{
    choice::{Choice, GROUPS, group},
    report::Results,
};

/// The table of a run: for each group how many tests passed, failed, and did not run for want of an image.
pub fn table(choice: &Choice, results: &Results) -> String {
    let mut table = String::from("| tests of | passed | failed | need another image |\n|---|---|---|---|\n");
    let mut row = |name: &str, of: &dyn Fn(&str) -> bool| {
        let passed = results.passed.iter().filter(|test| of(test)).count();
        let failed = results.failed.keys().filter(|test| of(test)).count();
        let without = choice.without_image.keys().filter(|test| of(test)).count();
        // Writing to a String does not fail.
        let _ = writeln!(table, "| {name} | {passed} | {failed} | {without} |");
    };
    for name in GROUPS {
        row(name, &|test| group(test) == Some(name));
    }
    row("all", &|_| true);
    table
}

/// The page with what a run has found; `run` is a sentence about when and on what it ran.
///
/// # Errors
/// When the page has no place for it.
pub fn with_results(page: &str, run: &str, choice: &Choice, results: &Results) -> Result<String> {
    let mut text = format!("{run}\n\n{}", table(choice, results));
    if !results.failed.is_empty() {
        text.push_str("\nFailed:\n\n");
        for test in results.failed.keys() {
            let _ = writeln!(text, "- `{test}`");
        }
    }
    put(page, "results", &text)
}

/// The page with the tests that need an image which the lab's registry does not have.
///
/// # Errors
/// When the page has no place for them.
pub fn with_images(page: &str, without_image: &BTreeMap<String, String>) -> Result<String> {
    let mut text = String::from("| test | images |\n|---|---|\n");
    for (test, images) in without_image {
        let _ = writeln!(text, "| `{test}` | {images} |");
    }
    put(page, "images", &text)
}

/// Replaces what is between the comments `name: begin` and `name: end`.
fn put(page: &str, name: &str, text: &str) -> Result<String> {
    let (begin, end) = (
        format!("<!-- {name}: begin -->\n"),
        format!("<!-- {name}: end -->\n"),
    );
    let place = || format!("the page has no place for {name}");
    let (before, rest) = page.split_once(&begin).with_context(place)?;
    let (_, after) = rest.split_once(&end).with_context(place)?;
    Ok(format!("{before}{begin}\n{text}\n{end}{after}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::conformance::choice::{IMAGES, without_image};

    const PASSED: &str = "[sig-auth] Accounts should be *made* [Conformance]";
    const FAILED: &str = "[sig-node] Pods should start [Conformance]";
    const WITHOUT: &str = "[sig-node] Secrets should be read [Conformance]";

    fn run() -> (Choice, Results) {
        let choice = Choice {
            run: vec![PASSED.to_owned(), FAILED.to_owned()],
            without_image: BTreeMap::from([(WITHOUT.to_owned(), "busybox".to_owned())]),
        };
        let results = Results {
            passed: vec![PASSED.to_owned()],
            failed: BTreeMap::from([(FAILED.to_owned(), "failed".to_owned())]),
            outside: Vec::new(),
        };
        (choice, results)
    }

    #[test]
    fn the_table_counts_each_group_and_all() {
        let (choice, results) = run();
        let table = table(&choice, &results);
        for row in [
            "| sig-api-machinery | 0 | 0 | 0 |",
            "| sig-auth | 1 | 0 | 0 |",
            "| sig-node | 0 | 1 | 1 |",
            "| all | 1 | 1 | 1 |",
        ] {
            assert!(table.lines().any(|line| line == row), "no {row} in\n{table}");
        }
    }

    const PAGE: &str = "# A\n<!-- results: begin -->\nold\n<!-- results: end -->\nB\n<!-- images: begin -->\n<!-- images: end -->\nC\n";

    #[test]
    fn a_run_replaces_the_results_before_and_names_what_failed() {
        let (choice, results) = run();
        let page = with_results(PAGE, "Run today.", &choice, &results).unwrap();
        assert!(
            page.starts_with("# A\n<!-- results: begin -->\n\nRun today.\n\n| tests of"),
            "{page}"
        );
        assert!(
            page.contains(&format!(
                "\nFailed:\n\n- `{FAILED}`\n\n<!-- results: end -->\nB\n"
            )),
            "{page}"
        );
        assert!(!page.contains("old"), "{page}");
        assert_eq!(
            with_results(&page, "Run today.", &choice, &results).unwrap(),
            page
        );
        assert!(with_results("# A\n", "Run today.", &choice, &results).is_err());
    }

    #[test]
    fn tests_without_an_image_have_a_row_each() {
        let page = with_images(PAGE, &run().0.without_image).unwrap();
        assert!(
            page.contains(&format!(
                "|---|---|\n| `{WITHOUT}` | busybox |\n\n<!-- images: end -->\nC\n"
            )),
            "{page}"
        );
    }

    #[test]
    fn the_book_lists_the_tests_without_an_image() {
        let page = include_str!("../../docs/src/conformance.md");
        let should = with_images(page, &without_image(IMAGES).unwrap()).unwrap();
        let rows = |text: &str| -> Vec<String> { text.lines().map(str::to_owned).collect() };
        let (is, should) = (rows(page), rows(&should));
        let missing: Vec<_> = should.iter().filter(|row| !is.contains(row)).collect();
        let surplus: Vec<_> = is.iter().filter(|row| !should.contains(row)).collect();
        assert!(
            missing.is_empty() && surplus.is_empty(),
            "docs/src/conformance.md misses {missing:#?}, and has {surplus:#?}"
        );
    }
}
