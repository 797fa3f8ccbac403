//! Who writes files: the product writes none, and neither does a unit test outside a folder that it makes and removes.
//! `hack/test unit` looks whether anything is left; this names the line before a test runs. Pure.

use super::source::Source;

/// Files that write in tests: each makes its folder in `std::env::temp_dir()` and removes it, and `goldens.rs` writes
/// when it is asked to. The list only becomes shorter.
pub const KNOWN: &[&str] = &[
    "controllers/kamajiconfig/bootstrapdata/join/machine.rs",
    "controllers/testing/goldens.rs",
    "e2e/lab/logs.rs",
    "e2e/lab/processes.rs",
    "e2e/machines/record.rs",
];

/// What makes or changes a file.
const WRITES: [&str; 9] = [
    "File::create",
    "File::create_new",
    "OpenOptions",
    "fs::copy",
    "fs::create_dir",
    "fs::create_dir_all",
    "fs::rename",
    "fs::write",
    "symlink",
];

/// Writes in the types and controllers, and in unit tests elsewhere: the file, and the line.
pub fn files(source: &Source) -> Vec<(String, String)> {
    let path = source.path.as_str();
    // Suites are no unit tests.
    if path.starts_with("e2e/tests/") {
        return Vec::new();
    }
    let everywhere = path.starts_with("api/") || path.starts_with("controllers/") || source.is_test();
    let mut found = Vec::new();
    for word in WRITES {
        for number in source.lines_of_all_with(word) {
            if everywhere || source.is_test_line(number) {
                let text = format!(
                    "{path}:{number}: `{word}`: a unit test writes only in a folder that it makes in \
                     `std::env::temp_dir()` and removes; hack/xtask/arch/writes.rs names the files that do"
                );
                found.push((path.to_owned(), text));
            }
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(path: &str, text: &str) -> Vec<String> {
        let source = Source::new(path, text);
        files(&source).into_iter().map(|(_, text)| text).collect()
    }

    #[test]
    fn a_unit_test_that_writes_is_named_with_its_line() {
        let text = "//! X.\nfn f() {}\n#[cfg(test)]\nmod tests {\n    fn g() {\n        fs::write(\"x\", \"\");\n    }\n}\n";
        for path in [
            "controllers/k8s/names.rs",
            "api/labels.rs",
            "e2e/run.rs",
            "hack/xtask/main.rs",
        ] {
            let found = found(path, text);
            assert_eq!(found.len(), 1, "{path}");
            assert!(
                found[0].starts_with(&format!("{path}:6: `fs::write`: ")),
                "{found:?}"
            );
        }
        assert_eq!(
            found("hack/xtask/arch/tests.rs", "fn g() {\n    File::create(x);\n}\n").len(),
            1
        );
    }

    #[test]
    fn programs_of_the_repository_write() {
        let text = "//! X.\nfn f() {\n    fs::write(\"x\", \"\");\n}\n";
        assert_eq!(found("hack/xtask/crds.rs", text).len(), 0);
        assert_eq!(found("e2e/tests/api.rs", text).len(), 0);
        assert_eq!(found("controllers/print.rs", text).len(), 1);
    }
}
