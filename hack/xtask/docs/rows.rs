//! The acceptance lists: `docs/rows/*.txt` holds number and sentence of each row, a test names the rows that it proves.
//! A file has a line `# Title` before each group of rows, and `12. Sentence` for a row; the number may end in a letter.
//! A test is named `<list>_12_<words>`, `<list>_12_13_<words>` or `<list>_12_to_15_<words>`.

use std::collections::BTreeMap;

use anyhow::Context as _;

use super::{
    markdown,
    tree::{Problem, Tree},
};

/// A page of the reference.
pub struct Page {
    /// File name without `.md`.
    pub name: &'static str,
    title: &'static str,
    intro: &'static str,
    lists: &'static [List],
}

/// One list of rows.
struct List {
    /// How the names of its tests begin, before the number.
    prefix: &'static str,
    /// Heading of the list; empty where the page has one list only.
    title: &'static str,
    file: &'static str,
}

/// The pages with lists.
pub const PAGES: &[Page] = &[
    Page {
        name: "cluster-api-contract",
        title: "Cluster API contract",
        intro: "What the providers owe to Cluster API (contract v1beta2), to `clusterctl` and to the users of the Go \
                provider.",
        lists: &[List {
            prefix: "contract",
            title: "",
            file: "docs/rows/contract.txt",
        }],
    },
    Page {
        name: "bootstrap",
        title: "Bootstrap provider",
        intro: "What the bootstrap provider does with a KamajiConfig, its token, the node's certificate requests and \
                the node itself.",
        lists: &[List {
            prefix: "bootstrap",
            title: "",
            file: "docs/rows/bootstrap.txt",
        }],
    },
    Page {
        name: "hosting",
        title: "Hosting engine",
        intro: "What the hosting engine does with a TenantControlPlane and a DataStore: first what upstream Kamaji \
                does too, then what it adds.",
        lists: &[
            List {
                prefix: "hosting_peer",
                title: "Behaviour of upstream Kamaji",
                file: "docs/rows/hosting-upstream.txt",
            },
            List {
                prefix: "hosting_beyond",
                title: "Beyond upstream Kamaji",
                file: "docs/rows/hosting-beyond.txt",
            },
        ],
    },
];

/// How names of tests may begin that must name a row.
const FAMILIES: [&str; 3] = ["contract_", "bootstrap_", "hosting_"];

/// Where tests are.
const SOURCES: [&str; 4] = ["api/", "controllers/", "e2e/", "hack/xtask/"];

/// A row.
struct Row<'a> {
    line: usize,
    number: &'a str,
    sentence: &'a str,
    group: &'a str,
}

/// A test that names rows.
struct Test<'a> {
    path: &'a str,
    line: usize,
    name: &'a str,
}

/// The text of a page, and what is wrong with its lists and their tests.
pub fn page(tree: &Tree, page: &Page) -> anyhow::Result<(String, Vec<Problem>)> {
    let files: Vec<String> = page.lists.iter().map(|list| format!("`{}`", list.file)).collect();
    let mut text = format!(
        "# {}\n\n{}\n{}\nEach row is one sentence and the tests that prove it. A row without a test is not proven \
         yet, and may not be true yet.\n",
        page.title,
        markdown::made_by(&format!("{} and the names of the tests", files.join(" and "))),
        page.intro,
    );
    let mut problems = Vec::new();
    for list in page.lists {
        let source = tree
            .text(list.file)
            .with_context(|| format!("no file {}", list.file))?;
        let rows = parse(list.file, source, &mut problems);
        let tests: Vec<Test<'_>> = tests(tree)
            .filter(|test| numbers(list.prefix, test.name).is_some())
            .collect();
        problems.extend(unknown(list, &rows, &tests));
        if !list.title.is_empty() {
            markdown::add(&mut text, &format!("\n## {}\n", list.title));
        }
        text.push_str(&table(list, &rows, &tests));
    }
    Ok((text, problems))
}

fn table(list: &List, rows: &[Row<'_>], tests: &[Test<'_>]) -> String {
    let level = if list.title.is_empty() { "##" } else { "###" };
    let proven = rows
        .iter()
        .filter(|row| !proofs(list, row, tests).is_empty())
        .count();
    let mut text = format!("\n{proven} of {} rows have a test.\n", rows.len());
    let mut group = "";
    for row in rows {
        if row.group != group {
            group = row.group;
            markdown::add(
                &mut text,
                &format!("\n{level} {group}\n\n| row | behaviour | tests |\n|---|---|---|\n"),
            );
        }
        let proofs = proofs(list, row, tests);
        let proofs = if proofs.is_empty() {
            "no test yet".to_owned()
        } else {
            proofs.join("<br>")
        };
        markdown::add(
            &mut text,
            &format!(
                "| {} | {} | {proofs} |\n",
                row.number,
                markdown::cell(row.sentence)
            ),
        );
    }
    text
}

/// The tests of a row, as text.
fn proofs(list: &List, row: &Row<'_>, tests: &[Test<'_>]) -> Vec<String> {
    let names = |test: &&Test<'_>| {
        numbers(list.prefix, test.name).is_some_and(|all| all.contains(&row.number.to_owned()))
    };
    let mut found: Vec<String> = tests
        .iter()
        .filter(names)
        .map(|test| format!("`{}` ({})", test.name, test.path))
        .collect();
    found.sort();
    found.dedup();
    found
}

/// Rows of a file; a number used twice or a line that is no row is a problem.
fn parse<'a>(path: &str, text: &'a str, problems: &mut Vec<Problem>) -> Vec<Row<'a>> {
    let mut rows: Vec<Row<'a>> = Vec::new();
    let mut used: BTreeMap<&str, usize> = BTreeMap::new();
    let mut group = "";
    for (line, content) in (1..).zip(text.lines()) {
        if let Some(title) = content.strip_prefix("# ") {
            group = title;
        } else if let Some((number, sentence)) =
            content.split_once(". ").filter(|(number, _)| is_number(number))
        {
            if let Some(first) = used.insert(number, line) {
                let twice = format!("row {number} is used twice, first in line {first}");
                problems.push(Problem::new(path, line, twice));
            }
            rows.push(Row {
                line,
                number,
                sentence,
                group,
            });
        } else if !content.is_empty() {
            problems.push(Problem::new(path, line, "neither `# Title` nor `12. Sentence`"));
        }
    }
    for row in rows.iter().filter(|row| row.group.is_empty()) {
        problems.push(Problem::new(path, row.line, "a row before the first `# Title`"));
    }
    rows
}

/// `12` or `12a`, without leading zeros.
fn is_number(text: &str) -> bool {
    let digits = text.trim_end_matches(|c: char| c.is_ascii_lowercase());
    text.len() - digits.len() <= 1
        && !digits.is_empty()
        && !digits.starts_with('0')
        && digits.bytes().all(|b| b.is_ascii_digit())
}

/// The rows that the name of a test lists after `prefix`; nothing where it is no test of that list.
fn numbers(prefix: &str, name: &str) -> Option<Vec<String>> {
    let rest = name.strip_prefix(prefix)?.strip_prefix('_')?;
    let mut found: Vec<String> = Vec::new();
    let mut words = rest.split('_').peekable();
    while let Some(word) = words.next() {
        if let Some(number) = number(word) {
            found.push(number);
        } else if word == "to" {
            let (Some(from), Some(to)) = (
                found.last()?.parse::<u32>().ok(),
                words.peek()?.parse::<u32>().ok(),
            ) else {
                break;
            };
            found.extend((from + 1..to).map(|number| number.to_string()));
        } else {
            break;
        }
    }
    (!found.is_empty()).then_some(found)
}

/// A word of a name as a row's number.
fn number(word: &str) -> Option<String> {
    let word = word.trim_start_matches('0');
    is_number(word).then(|| word.to_owned())
}

/// Tests that name a row which the list has not.
fn unknown(list: &List, rows: &[Row<'_>], tests: &[Test<'_>]) -> Vec<Problem> {
    let mut problems = Vec::new();
    for test in tests {
        for number in numbers(list.prefix, test.name).unwrap_or_default() {
            if !rows.iter().any(|row| row.number == number) {
                let text = format!(
                    "test {} names row {number}, which {} has not",
                    test.name, list.file
                );
                problems.push(Problem::new(test.path, test.line, text));
            }
        }
    }
    problems
}

/// Tests whose name looks as if it named a row and belongs to no list.
pub fn strangers(tree: &Tree) -> Vec<Problem> {
    let lists = || PAGES.iter().flat_map(|page| page.lists);
    tests(tree)
        .filter(|test| FAMILIES.iter().any(|family| test.name.starts_with(family)))
        .filter(|test| test.name.split('_').any(|word| number(word).is_some()))
        .filter(|test| !lists().any(|list| numbers(list.prefix, test.name).is_some()))
        .map(|test| {
            let text = format!(
                "test {} has a number and names no row: `<list>_<row>_<words>`",
                test.name
            );
            Problem::new(test.path, test.line, text)
        })
        .collect()
}

/// Every test of the sources.
fn tests(tree: &Tree) -> impl Iterator<Item = Test<'_>> {
    SOURCES
        .into_iter()
        .flat_map(|folder| tree.files_under(folder, ".rs"))
        .flat_map(|(path, text)| {
            let mut marked = false;
            (1..).zip(text.lines()).filter_map(move |(line, content)| {
                let content = content.trim_start();
                if content.starts_with("#[") {
                    marked |= ["#[test", "#[tokio::test", "#[rstest"]
                        .iter()
                        .any(|mark| content.starts_with(mark));
                    return None;
                }
                if content.starts_with("//") {
                    return None;
                }
                let function = content
                    .trim_start_matches("pub ")
                    .trim_start_matches("async ")
                    .strip_prefix("fn ");
                let name = function.and_then(|rest| rest.split(['(', '<']).next());
                let test = std::mem::take(&mut marked).then_some(name).flatten();
                test.map(|name| Test { path, line, name })
            })
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(files: &[(&str, &str)]) -> Vec<String> {
        let tree = Tree::of(files);
        let (_, mut problems) = page(&tree, &PAGES[0]).unwrap();
        problems.extend(strangers(&tree));
        problems.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn names_of_tests_list_rows() {
        let of = |name| numbers("bootstrap", name).unwrap_or_default().join(" ");
        assert_eq!(of("bootstrap_01_06_words_7"), "1 6");
        assert_eq!(of("bootstrap_18_to_21_words"), "18 19 20 21");
        assert_eq!(of("bootstrap_31a_words"), "31a");
        assert_eq!(of("bootstrap_data"), "");
        assert_eq!(numbers("hosting_peer", "hosting_beyond_01_words"), None);
    }

    #[test]
    fn a_number_used_twice_and_a_line_that_is_no_row_are_reported() {
        let problems = found(&[(
            "docs/rows/contract.txt",
            "# A\n1. One.\n2. Two.\n1. Again.\nwords\n",
        )]);
        assert_eq!(
            problems,
            [
                "docs/rows/contract.txt:4: row 1 is used twice, first in line 2",
                "docs/rows/contract.txt:5: neither `# Title` nor `12. Sentence`",
            ]
        );
    }

    #[test]
    fn a_test_that_names_no_row_of_its_list_is_reported() {
        let source = "#[test]\nfn contract_01_fine() {}\n#[tokio::test]\nasync fn contract_9_wrong() {}\n\
                      #[test]\nfn hosting_14_no_list() {}\nfn contract_8_no_test() {}\n";
        let problems = found(&[("docs/rows/contract.txt", "# A\n1. One.\n"), ("api/a.rs", source)]);
        assert_eq!(
            problems,
            [
                "api/a.rs:4: test contract_9_wrong names row 9, which docs/rows/contract.txt has not",
                "api/a.rs:6: test hosting_14_no_list has a number and names no row: `<list>_<row>_<words>`",
            ]
        );
    }

    #[test]
    fn a_row_without_a_test_says_so() {
        let source = "#[test]\nfn contract_01_fine() {}\n";
        let tree = Tree::of(&[
            ("docs/rows/contract.txt", "# A\n1. One.\n2. Two.\n"),
            ("api/a.rs", source),
        ]);
        let (text, _) = page(&tree, &PAGES[0]).unwrap();
        assert!(
            text.contains("| 1 | One. | `contract_01_fine` (api/a.rs) |"),
            "{text}"
        );
        assert!(text.contains("| 2 | Two. | no test yet |"), "{text}");
        assert!(text.contains("1 of 2 rows have a test."), "{text}");
    }
}
