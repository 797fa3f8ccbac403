//! Pages of names that are part of the API: condition types and reasons, labels and annotations. They are read from
//! the sources of `api/` with their doc comments, which no compiled program carries.

use anyhow::{Context as _, ensure};
use kamaji_api::conditions::{
    DataStoreCondition, KamajiConfigCondition, KamajiControlPlaneCondition, Reason,
    TenantControlPlaneCondition, is_negative,
};

use super::{markdown, tree::Tree};

/// A name with its doc comment.
#[derive(Debug, PartialEq, Eq)]
pub struct Name {
    /// Where it is declared.
    pub path: String,
    /// Number of the line.
    pub line: usize,
    /// The text that goes over the wire.
    pub text: String,
    /// Its doc comment, on one line.
    pub doc: String,
    /// The comment `// --- words ---` above it, or the module it is in.
    pub group: String,
}

/// A kind and the condition types that its objects have.
pub struct Kind {
    /// Name of the kind.
    pub name: &'static str,
    /// Name of the enum in `api/conditions.rs`.
    pub types: &'static str,
    known: fn() -> Vec<&'static str>,
}

/// The kinds with conditions.
pub const KINDS: [Kind; 4] = [
    Kind {
        name: "KamajiControlPlane",
        types: "KamajiControlPlaneCondition",
        known: || {
            KamajiControlPlaneCondition::ALL
                .iter()
                .map(|name| name.as_str())
                .collect()
        },
    },
    Kind {
        name: "KamajiConfig",
        types: "KamajiConfigCondition",
        known: || {
            KamajiConfigCondition::ALL
                .iter()
                .map(|name| name.as_str())
                .collect()
        },
    },
    Kind {
        name: "TenantControlPlane",
        types: "TenantControlPlaneCondition",
        known: || {
            TenantControlPlaneCondition::ALL
                .iter()
                .map(|name| name.as_str())
                .collect()
        },
    },
    Kind {
        name: "DataStore",
        types: "DataStoreCondition",
        known: || DataStoreCondition::ALL.iter().map(|name| name.as_str()).collect(),
    },
];

/// Every reason.
pub fn reasons(tree: &Tree) -> anyhow::Result<Vec<Name>> {
    let known: Vec<_> = Reason::ALL.iter().map(|reason| reason.as_str()).collect();
    declared(tree, "Reason", &known)
}

/// The condition types of a kind.
pub fn types(tree: &Tree, kind: &Kind) -> anyhow::Result<Vec<Name>> {
    declared(tree, kind.types, &(kind.known)())
}

/// The page of conditions and reasons.
pub fn conditions(tree: &Tree) -> anyhow::Result<String> {
    let mut page = format!(
        "# Conditions and reasons\n\n{}\nA condition is *negative* when it is healthy while `False`; every other one is \
         healthy while `True`. What to do about each of them is in [Conditions](../operations/conditions.md) and \
         [Reasons](../operations/reasons.md).\n",
        markdown::made_by("`api/conditions.rs`")
    );
    for kind in &KINDS {
        markdown::add(
            &mut page,
            &format!(
                "\n## {}\n\n| condition | polarity | meaning |\n|---|---|---|\n",
                kind.name
            ),
        );
        for name in types(tree, kind)? {
            let polarity = if is_negative(&name.text) {
                "negative"
            } else {
                "positive"
            };
            let doc = without_links(name.doc.trim_start_matches("Negative: "));
            markdown::add(
                &mut page,
                &format!(
                    "| `{}` | {polarity} | {} |\n",
                    name.text,
                    markdown::cell(&sentence(&doc))
                ),
            );
        }
    }
    page.push_str("\n## Reasons\n");
    let mut group = String::new();
    for name in reasons(tree)? {
        if name.group != group {
            markdown::add(
                &mut page,
                &format!(
                    "\n### {}\n\n| reason | meaning |\n|---|---|\n",
                    title(&name.group)
                ),
            );
            group.clone_from(&name.group);
        }
        let doc = markdown::cell(&without_links(&name.doc));
        let anchor = name.text.to_ascii_lowercase();
        markdown::add(
            &mut page,
            &format!(
                "| [`{}`](../operations/reasons.md#{anchor}) | {doc} |\n",
                name.text
            ),
        );
    }
    Ok(page)
}

/// The page of labels, annotations and the other names of `api/labels.rs`.
pub fn labels(tree: &Tree) -> anyhow::Result<String> {
    let mut page = format!(
        "# Labels, annotations and other names\n\n{}\nEvery name that other programs, or other parts of this one, look \
         for.\n",
        markdown::made_by("`api/labels.rs`")
    );
    let (_, text) = tree
        .files_under("api/labels", ".rs")
        .next()
        .context("no file api/labels.rs")?;
    let names = constants(text);
    ensure!(!names.is_empty(), "api/labels.rs declares no name");
    let mut group = String::new();
    for name in names {
        if name.group != group {
            markdown::add(
                &mut page,
                &format!(
                    "\n## {}\n\n| name | meaning |\n|---|---|\n",
                    sentence(&name.group)
                ),
            );
            group.clone_from(&name.group);
        }
        markdown::add(
            &mut page,
            &format!(
                "| `{}` | {} |\n",
                name.text,
                markdown::cell(&without_links(&name.doc))
            ),
        );
    }
    Ok(page)
}

/// The variants of an enum of names, in the order of declaration; fails where they are not the `known` ones.
fn declared(tree: &Tree, types: &str, known: &[&str]) -> anyhow::Result<Vec<Name>> {
    let opening = format!("pub enum {types} {{");
    let found = tree
        .files_under("api/", ".rs")
        .find_map(|(path, text)| text.contains(&opening).then(|| variants(path, text, &opening)))
        .with_context(|| format!("no enum {types} in api/"))?;
    let texts: Vec<&str> = found.iter().map(|name| name.text.as_str()).collect();
    ensure!(
        texts == known,
        "the source of {types} is read as {texts:?}, compiled are {known:?}"
    );
    Ok(found)
}

fn variants(path: &str, text: &str, opening: &str) -> Vec<Name> {
    let mut names = Vec::new();
    let (mut doc, mut group) = (String::new(), String::new());
    let lines = (1..)
        .zip(text.lines())
        .skip_while(|(_, line)| !line.trim().starts_with(opening))
        .skip(1);
    for (line, content) in lines.take_while(|(_, line)| line.trim() != "}") {
        let content = content.trim();
        if let Some(more) = content.strip_prefix("///") {
            doc.push_str(more);
        } else if let Some(words) = content.strip_prefix("// ---") {
            words.trim_matches(['-', ' ']).clone_into(&mut group);
        } else if let Some(variant) = content
            .split(['=', ',', ' '])
            .next()
            .filter(|word| is_identifier(word))
        {
            let text = content.split('"').nth(1).unwrap_or(variant);
            names.push(Name {
                path: path.to_owned(),
                line,
                text: text.to_owned(),
                doc: std::mem::take(&mut doc).trim().to_owned(),
                group: group.clone(),
            });
        }
    }
    names
}

fn is_identifier(word: &str) -> bool {
    word.starts_with(|c: char| c.is_ascii_uppercase()) && word.chars().all(|c| c.is_ascii_alphanumeric())
}

/// The public texts of a file, grouped by the doc comment of the module they are in; tests are left out.
fn constants(text: &str) -> Vec<Name> {
    let mut names = Vec::new();
    let (mut doc, mut group) = (String::new(), String::new());
    for (line, content) in (1..)
        .zip(text.lines())
        .take_while(|(_, line)| line.trim() != "#[cfg(test)]")
    {
        let content = content.trim();
        if let Some(more) = content.strip_prefix("///") {
            doc.push_str(more);
        } else if content.starts_with("pub mod ") {
            std::mem::take(&mut doc).trim().clone_into(&mut group);
        } else if content.starts_with("pub const ") {
            names.push(Name {
                path: String::new(),
                line,
                text: content.split('"').nth(1).unwrap_or_default().to_owned(),
                doc: std::mem::take(&mut doc).trim().to_owned(),
                group: group.clone(),
            });
        }
    }
    names
}

/// A doc comment without the links that only Rust's documentation follows.
fn without_links(doc: &str) -> String {
    doc.replace("[`super::", "`")
        .replace("[`", "`")
        .replace("`]", "`")
}

/// The first sentence's end taken away, for headings; the rest as it is.
fn sentence(text: &str) -> String {
    let mut chars = text.trim_end_matches('.').chars();
    let body: String = chars
        .next()
        .map(|first| first.to_uppercase().chain(chars).collect())
        .unwrap_or_default();
    body
}

fn title(group: &str) -> String {
    if group.is_empty() {
        "Other".to_owned()
    } else {
        sentence(group)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn variants_are_read_with_their_words_and_groups() {
        let text = "named! {\n    /// All.\n    pub enum Reason {\n        // --- first ---\n        /// One\n        \
                    /// line.\n        One,\n        // --- second ---\n        /// Two.\n        Two = \"a/Two\",\n    }\n}\n";
        let found = variants("api/a.rs", text, "pub enum Reason {");
        let name = |line, text: &str, doc: &str, group: &str| Name {
            path: "api/a.rs".into(),
            line,
            text: text.into(),
            doc: doc.into(),
            group: group.into(),
        };
        assert_eq!(
            found,
            [
                name(7, "One", "One line.", "first"),
                name(10, "a/Two", "Two.", "second")
            ]
        );
    }

    #[test]
    fn constants_are_read_by_module() {
        let text = "/// Ours.\npub mod ours {\n    /// A [`label`].\n    pub const A: &str = \"a/b\";\n}\n";
        let found = constants(text);
        assert_eq!(
            (found[0].text.as_str(), found[0].group.as_str()),
            ("a/b", "Ours.")
        );
        assert_eq!(without_links(&found[0].doc), "A `label`.");
    }
}
