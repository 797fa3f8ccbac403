//! How the chosen tests ended, from the report that ginkgo writes as JSON. Pure.

use std::{collections::BTreeMap, fmt::Write as _};

use anyhow::{Context as _, Result};
use serde::Deserialize;

use super::choice::Choice;

/// How many characters of a failure are shown; the whole is in ginkgo's output.
const SHOWN: usize = 300;
/// Why a test has not passed when the run ended before it.
const NOT_RUN: &str = "did not run";

/// How the tests of a [`Choice`] that run have ended.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Results {
    /// Tests that passed.
    pub passed: Vec<String>,
    /// The others, with the reason: a test that is skipped, or that is not in the report, has not passed.
    pub failed: BTreeMap<String, String>,
    /// What went wrong outside of tests.
    pub outside: Vec<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Suite {
    special_suite_failure_reasons: Option<Vec<String>>,
    spec_reports: Option<Vec<Spec>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Spec {
    container_hierarchy_texts: Option<Vec<String>>,
    leaf_node_type: String,
    leaf_node_text: String,
    state: String,
    failure: Option<Failure>,
    #[serde(default)]
    captured_ginkgo_writer_output: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Failure {
    #[serde(default)]
    message: String,
}

impl Results {
    /// Reads the report of a run of `choice`.
    ///
    /// # Errors
    /// When it is no report of ginkgo.
    pub fn read(report: &str, choice: &Choice) -> Result<Self> {
        let suites: Vec<Suite> = serde_json::from_str(report).context("no report of ginkgo")?;
        let mut results = Self::default();
        let mut tests = BTreeMap::new();
        for suite in suites {
            results
                .outside
                .extend(suite.special_suite_failure_reasons.into_iter().flatten());
            for spec in suite.spec_reports.into_iter().flatten() {
                if spec.leaf_node_type == "It" {
                    tests.insert(spec.name(), spec);
                } else if !matches!(spec.state.as_str(), "passed" | "skipped") {
                    results
                        .outside
                        .push(format!("{}: {}", spec.leaf_node_type, spec.why()));
                }
            }
        }
        for test in &choice.run {
            let why = match tests.get(test) {
                Some(spec) if spec.state == "passed" => {
                    results.passed.push(test.clone());
                    continue;
                }
                Some(spec) => spec.why(),
                None => NOT_RUN.to_owned(),
            };
            results.failed.insert(test.clone(), why);
        }
        Ok(results)
    }

    /// What is to be said when not every test has passed. Tests that did not run are counted, the others named.
    pub fn complaint(&self) -> Option<String> {
        if self.failed.is_empty() && self.outside.is_empty() {
            return None;
        }
        let mut text = format!(
            "{} of {} conformance tests have not passed",
            self.failed.len(),
            self.failed.len() + self.passed.len()
        );
        let not_run = self.failed.values().filter(|why| *why == NOT_RUN).count();
        if not_run > 0 {
            // Writing to a String does not fail.
            let _ = write!(text, ", {not_run} of them did not run");
        }
        for line in &self.outside {
            let _ = write!(text, "\n{line}");
        }
        for (test, why) in self.failed.iter().filter(|(_, why)| *why != NOT_RUN) {
            let _ = write!(text, "\n{test}\n    {why}");
        }
        Some(text)
    }
}

impl Spec {
    fn name(&self) -> String {
        let mut texts = self.container_hierarchy_texts.clone().unwrap_or_default();
        texts.push(self.leaf_node_text.clone());
        texts.join(" ")
    }

    /// Why it has not passed.
    fn why(&self) -> String {
        if let Some(image) = missed_image(&self.captured_ginkgo_writer_output) {
            return format!(
                "the registry of the lab does not have {image}: list the test in e2e/conformance/images.txt"
            );
        }
        let message = self.failure.as_ref().map(|failure| failure.message.trim());
        let text = match message.filter(|message| !message.is_empty()) {
            Some(message) => format!("{}: {}", self.state, message.replace('\n', " ")),
            None if self.state == "skipped" => NOT_RUN.to_owned(),
            None => self.state.clone(),
        };
        match text.char_indices().nth(SHOWN) {
            Some((end, _)) => format!("{}…", text.get(..end).unwrap_or_default()),
            None => text,
        }
    }
}

/// The image that a kubelet has not found, according to the events in the output of a test that failed.
fn missed_image(output: &str) -> Option<&str> {
    output.lines().find_map(|line| {
        let (_, event) = line.split_once("Failed to pull image \"")?;
        let (image, why) = event.split_once('"')?;
        why.contains("not found").then_some(image)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// In the form of ginkgo 2.28.1.
    const REPORT: &str = include_str!("testdata/report.json");

    fn choice(run: &[&str]) -> Choice {
        Choice {
            run: run.iter().map(|&test| test.to_owned()).collect(),
            without_image: BTreeMap::new(),
        }
    }

    fn results(run: &[&str]) -> Results {
        Results::read(REPORT, &choice(run)).unwrap()
    }

    #[test]
    fn a_test_that_passed_is_counted_under_its_whole_name() {
        let found = results(&["[sig-node] Pods should start [Conformance]"]);
        assert_eq!(found.passed, ["[sig-node] Pods should start [Conformance]"]);
        assert!(found.failed.is_empty());
    }

    #[test]
    fn every_other_end_is_a_failure_with_its_reason() {
        for (name, reason) in [
            (
                "[sig-node] Pods should stop [Conformance]",
                "failed: the pod is still there: expected not found",
            ),
            (
                "[sig-node] Pods should be skipped [Conformance]",
                "skipped: at least 3 nodes are needed",
            ),
            ("[sig-node] Pods should be unknown [Conformance]", "did not run"),
        ] {
            let found = results(&[name]);
            assert!(found.passed.is_empty());
            assert_eq!(found.failed.get(name).map(String::as_str), Some(reason));
        }
    }

    #[test]
    fn a_failure_for_want_of_an_image_names_the_image_and_what_to_do() {
        let name = "[sig-node] Pods should pull [Conformance]";
        let complaint = results(&[name]).complaint().unwrap();
        assert!(complaint.contains(name), "{complaint}");
        assert!(
            complaint.contains("registry.k8s.io/e2e-test-images/busybox:1.37.0-1: list the test in"),
            "{complaint}"
        );
    }

    #[test]
    fn an_image_that_is_there_but_not_pulled_in_time_is_no_missed_image() {
        let event = "event for x: {kubelet a} Failed: Failed to pull image \"a/b:1\": connection refused";
        assert_eq!(missed_image(event), None);
        assert_eq!(
            missed_image(&event.replace("connection refused", "not found")),
            Some("a/b:1")
        );
    }

    #[test]
    fn what_fails_outside_of_tests_is_said_and_tests_that_did_not_run_are_counted() {
        let names = [
            "[sig-node] Pods should stop [Conformance]",
            "[sig-node] Pods should be left out [Serial]",
            "[sig-node] Pods should be unknown [Conformance]",
        ];
        let complaint = results(&names).complaint().unwrap();
        assert_eq!(
            complaint.lines().collect::<Vec<_>>(),
            [
                "3 of 3 conformance tests have not passed, 2 of them did not run",
                "Interrupted by Timeout",
                "SynchronizedBeforeSuite: failed: no node is schedulable",
                "[sig-node] Pods should stop [Conformance]",
                "    failed: the pod is still there: expected not found",
            ]
        );
    }

    #[test]
    fn a_report_without_a_failure_raises_no_complaint() {
        let good = r#"[{"SpecialSuiteFailureReasons": null, "SpecReports": [{"ContainerHierarchyTexts": ["a"],
            "LeafNodeType": "It", "LeafNodeText": "b", "State": "passed"}]}]"#;
        assert_eq!(Results::read(good, &choice(&["a b"])).unwrap().complaint(), None);
        assert!(Results::read("{}", &choice(&[])).is_err());
    }

    #[test]
    fn a_long_failure_is_shown_in_part() {
        let spec = Spec {
            container_hierarchy_texts: None,
            leaf_node_type: "It".to_owned(),
            leaf_node_text: String::new(),
            state: "failed".to_owned(),
            failure: Some(Failure {
                message: "ä".repeat(SHOWN),
            }),
            captured_ginkgo_writer_output: String::new(),
        };
        assert_eq!(spec.why().chars().count(), SHOWN + 1);
    }
}
