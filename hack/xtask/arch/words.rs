//! Words that do not belong into sources: kinds as text where the table of children has types, and papers that are not in
//! the repository. Pure.

use super::source::Source;

/// Files with kinds as text today. The list only becomes shorter.
pub const KINDS_KNOWN: &[&str] = &[];
/// Files that point to other papers today. The list only becomes shorter.
pub const PAPERS_KNOWN: &[&str] = &[];

/// Kinds of the engine's children.
const KINDS: [&str; 9] = [
    "ConfigMap",
    "Deployment",
    "Job",
    "NetworkPolicy",
    "PodDisruptionBudget",
    "Secret",
    "Service",
    "ServiceAccount",
    "StatefulSet",
];
/// Controllers' folders.
const CONTROLLERS: [&str; 3] = [
    "controllers/hosting/",
    "controllers/kamajiconfig/",
    "controllers/kamajicontrolplane/",
];
/// File names of papers that this project was made from.
const PAPERS: [&str; 6] = ["contract", "bootstrap", "hosting", "style", "infra", "lab"];
/// The one without an ending.
const PLAN: &str = concat!("DES", "IGN");

/// Kinds in quotes in a controller.
pub fn kinds(source: &Source) -> Vec<(String, String)> {
    if !CONTROLLERS.iter().any(|folder| source.path.starts_with(folder)) {
        return Vec::new();
    }
    let lines = (1..).zip(&source.literals);
    let of_line = |(number, line): (usize, &String)| {
        let quoted = |kind: &&str| line.contains(&format!("\"{kind}\""));
        let text = |kind| {
            format!(
                "{}:{number}: \"{kind}\": k8s/children knows the names of kinds",
                source.path
            )
        };
        KINDS.into_iter().filter(quoted).map(text).collect::<Vec<_>>()
    };
    lines
        .flat_map(of_line)
        .map(|text| (source.path.clone(), text))
        .collect()
}

/// References to papers that no reader of the repository has.
pub fn papers(source: &Source) -> Vec<(String, String)> {
    let mut found = Vec::new();
    for (number, line) in (1..).zip(source.text.lines()) {
        let named = line
            .split(|c: char| c.is_whitespace() || "()<>[]`'\",;".contains(c))
            .find(|word| {
                let paper = PAPERS.iter().any(|paper| word.contains(&format!("{paper}.md")));
                (paper && !word.contains("docs/")) || word.contains(PLAN)
            });
        if let Some(word) = named {
            let text = format!(
                "{}:{number}: «{word}» is not in this repository: say the reason, or name a page of docs/",
                source.path
            );
            found.push((source.path.clone(), text));
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kinds_are_types_in_controllers() {
        let text = "//! «\"Secret\"»\nlet a = (\"Secret\", \"Secrets\");\n#[cfg(test)]\nmod tests {\n    fn f() { \"Secret\"; }\n}\n";
        assert_eq!(
            kinds(&Source::new("controllers/hosting/engine.rs", text)).len(),
            1
        );
        assert!(kinds(&Source::new("controllers/k8s/children.rs", text)).is_empty());
    }

    #[test]
    fn papers_are_pages_of_the_book() {
        let paper = format!("{}.md", PAPERS[1]);
        let text = format!("//! See docs/src/reference/{paper}.\n//! By {paper} 4.\n//! By {PLAN} 3.\n");
        let found = papers(&Source::new("api/a.rs", &text));
        assert_eq!(found.len(), 2, "{found:?}");
        assert!(found[0].1.starts_with("api/a.rs:2: "), "{found:?}");
    }
}
