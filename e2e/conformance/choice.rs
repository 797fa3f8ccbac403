//! Which of Kubernetes' conformance tests run in the lab. Pure.

use std::collections::BTreeMap;

use anyhow::{Context as _, Result, bail, ensure};
use serde::Deserialize;

/// The special interest groups whose tests run, in the order of the table.
pub const GROUPS: [&str; 6] = [
    "sig-api-machinery",
    "sig-auth",
    "sig-cli",
    "sig-network",
    "sig-node",
    "sig-apps",
];

/// Marks of tests that need the cluster for themselves, or long.
const LEFT_OUT: [&str; 3] = ["[Serial]", "[Slow]", "[Disruptive]"];

/// Tests that need an image which the lab's registry does not have: a test and its images a line.
pub const IMAGES: &str = include_str!("images.txt");

/// The tests of [`GROUPS`] that are not left out.
#[derive(Debug, PartialEq, Eq)]
pub struct Choice {
    /// Tests that run.
    pub run: Vec<String>,
    /// Tests that do not, with the images that they miss.
    pub without_image: BTreeMap<String, String>,
}

/// The group of a test.
pub fn group(test: &str) -> Option<&'static str> {
    let (name, _) = test.strip_prefix('[')?.split_once(']')?;
    GROUPS.into_iter().find(|group| *group == name)
}

/// Names of the tests in the output of `e2e.test --list-conformance-tests`.
///
/// # Errors
/// When that is no list of tests.
pub fn names(listed: &str) -> Result<Vec<String>> {
    #[derive(Deserialize)]
    struct Test {
        codename: String,
    }
    let tests: Vec<Test> = serde_yaml::from_str(listed).context("no list of conformance tests")?;
    ensure!(!tests.is_empty(), "the list of conformance tests is empty");
    Ok(tests.into_iter().map(|test| test.codename).collect())
}

/// Chooses among the conformance tests; `images` is a text like [`IMAGES`].
///
/// # Errors
/// When `images` names a test twice or one that is not among those to choose from: it has another name in this version.
pub fn choose(conformance: &[String], images: &str) -> Result<Choice> {
    let mut without_image = without_image(images)?;
    let mut choice = Choice {
        run: Vec::new(),
        without_image: BTreeMap::new(),
    };
    for test in conformance {
        if group(test).is_none() || LEFT_OUT.iter().any(|mark| test.contains(mark)) {
            continue;
        }
        match without_image.remove(test) {
            Some(images) => {
                choice.without_image.insert(test.clone(), images);
            }
            None => choice.run.push(test.clone()),
        }
    }
    if !without_image.is_empty() {
        let names: Vec<_> = without_image.into_keys().collect();
        bail!(
            "e2e/conformance/images.txt lists tests that do not exist or never run:\n{}",
            names.join("\n")
        );
    }
    Ok(choice)
}

/// Reads a text like [`IMAGES`]: tests, and the images that they miss.
///
/// # Errors
/// When a line is no test with images, or names one again.
pub fn without_image(images: &str) -> Result<BTreeMap<String, String>> {
    let mut tests = BTreeMap::new();
    for line in images.lines().filter(|line| !line.starts_with('#')) {
        let (test, images) = line
            .split_once(" | ")
            .with_context(|| format!("«{line}» is not «test | images»"))?;
        let before = tests.insert(test.to_owned(), images.to_owned());
        ensure!(
            before.is_none(),
            "e2e/conformance/images.txt lists «{test}» twice"
        );
    }
    Ok(tests)
}

impl Choice {
    /// The tests whose names contain `part` alone.
    pub fn only(&mut self, part: &str) {
        self.run.retain(|test| test.contains(part));
    }

    /// A regular expression for ginkgo's `--focus` that matches the tests that run and no others. Ginkgo compares it with the
    /// name of the suite followed by that of the test.
    pub fn focus(&self) -> String {
        let names: Vec<_> = self.run.iter().map(|test| literal(test)).collect();
        format!(" ({})$", names.join("|"))
    }
}

/// A regular expression of Go for this text.
fn literal(text: &str) -> String {
    let mut expression = String::new();
    for character in text.chars() {
        if character.is_ascii_punctuation() {
            expression.push('\\');
        }
        expression.push(character);
    }
    expression
}

#[cfg(test)]
mod tests {
    use super::*;

    const LISTED: &str = "
- testname: Watch
  codename: '[sig-api-machinery] Watchers should see [Conformance]'
- testname: Long name
  codename: '[sig-node] Pods should (not) be *updated* with a name that is folded because
    it is long [NodeConformance] [Conformance]'
- codename: '[sig-apps] Daemon set [Serial] should run [Conformance]'
- codename: '[sig-apps] CronJob should not run [Slow] [Conformance]'
- codename: '[sig-storage] Volumes should mount [Conformance]'
- codename: '[sig-node] Secrets should be read [Conformance]'
";
    const WATCH: &str = "[sig-api-machinery] Watchers should see [Conformance]";
    const PODS: &str = "[sig-node] Pods should (not) be *updated* with a name that is folded because it is long \
                        [NodeConformance] [Conformance]";
    const SECRETS: &str = "[sig-node] Secrets should be read [Conformance]";

    fn chosen(images: &str) -> Result<Choice> {
        choose(&names(LISTED).unwrap(), images)
    }

    #[test]
    fn the_tests_of_the_groups_run_unless_they_are_serial_slow_or_miss_an_image() {
        let choice = chosen(&format!("# test | images\n{SECRETS} | busybox, nginx\n")).unwrap();
        assert_eq!(choice.run, [WATCH, PODS]);
        assert_eq!(
            choice.without_image,
            BTreeMap::from([(SECRETS.to_owned(), "busybox, nginx".to_owned())])
        );
    }

    #[test]
    fn a_listed_test_that_never_runs_is_an_error_that_names_it() {
        for unknown in [
            "[sig-node] Secrets are gone [Conformance]",
            "[sig-storage] Volumes should mount [Conformance]",
            "[sig-apps] Daemon set [Serial] should run [Conformance]",
        ] {
            let error = chosen(&format!("{unknown} | busybox\n")).unwrap_err().to_string();
            assert!(error.contains(unknown), "{error}");
        }
        let twice = chosen(&format!("{SECRETS} | busybox\n{SECRETS} | nginx\n"));
        assert!(twice.unwrap_err().to_string().contains("twice"));
        assert!(chosen("no image\n").is_err());
    }

    #[test]
    fn the_focus_takes_names_literally() {
        let mut choice = chosen("").unwrap();
        choice.only("Pods");
        assert_eq!(
            choice.focus(),
            r" (\[sig\-node\] Pods should \(not\) be \*updated\* with a name that is folded because it is long \[NodeConformance\] \[Conformance\])$"
        );
    }

    #[test]
    fn something_else_than_a_list_is_an_error() {
        assert!(names("unknown flag").is_err());
        assert!(names("[]").is_err());
    }

    #[test]
    fn the_list_of_images_names_each_test_once_and_never_what_the_registry_has() {
        let tests = without_image(IMAGES).unwrap();
        assert!(!tests.is_empty());
        for (test, images) in tests {
            assert!(group(&test).is_some(), "{test}");
            for image in images.split(", ") {
                assert!(!["agnhost", "pause", ""].contains(&image), "{test}: {images}");
            }
        }
    }
}
