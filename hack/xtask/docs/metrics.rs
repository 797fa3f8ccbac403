//! The page of metrics, from the source that declares them: calls of `register`, the struct of families, and the structs
//! of their labels.

use anyhow::{Context as _, ensure};

use super::{markdown, tree::Tree};

const SOURCE: &str = "controllers/runtime/metrics.rs";
/// In front of each name.
const PREFIX: &str = "capi_kamaji_";

/// A metric.
#[derive(Debug, PartialEq, Eq)]
struct Metric {
    name: String,
    kind: String,
    labels: Vec<String>,
    help: String,
}

/// The page.
pub fn page(tree: &Tree) -> anyhow::Result<String> {
    let text = tree.text(SOURCE).map(String::as_str).unwrap_or_default();
    let found = registered(text)?;
    ensure!(!found.is_empty(), "{SOURCE} registers no metric");
    let mut page = format!(
        "# Metrics\n\n{}\nThe process serves them at `/metrics` of `--diagnostics-address`, in the text format of \
         Prometheus. Labels never hold names of objects. A histogram has the usual `_bucket`, `_sum` and `_count`.\n\n\
         | metric | type | labels | meaning |\n|---|---|---|---|\n",
        markdown::made_by(&format!("`{SOURCE}`"))
    );
    for metric in found {
        let suffix = if metric.kind == "counter" { "_total" } else { "" };
        let labels: Vec<String> = metric.labels.iter().map(|label| format!("`{label}`")).collect();
        let row = format!(
            "| `{PREFIX}{}{suffix}` | {} | {} | {}. |\n",
            metric.name,
            metric.kind,
            labels.join(", "),
            markdown::cell(&metric.help)
        );
        markdown::add(&mut page, &row);
    }
    Ok(page)
}

/// What each call of `register` says, with the type of its family.
fn registered(text: &str) -> anyhow::Result<Vec<Metric>> {
    let mut found = Vec::new();
    for call in text.split(".register(").skip(1) {
        let parts: Vec<&str> = call.splitn(5, '"').collect();
        let [_, name, _, help, rest] = parts[..] else {
            continue;
        };
        let family = rest.split(".clone()").next().unwrap_or_default();
        let family = family.rsplit(|c: char| !is_word(c)).next().unwrap_or_default();
        let (labels, kind) =
            declared(text, family).with_context(|| format!("{SOURCE}: no family {family}"))?;
        found.push(Metric {
            name: name.to_owned(),
            kind: kind.to_ascii_lowercase(),
            labels: fields(text, labels),
            help: help.to_owned(),
        });
    }
    Ok(found)
}

/// Type of the labels and of the metric of the field `family: Family<Labels, Counter>`.
fn declared<'a>(text: &'a str, family: &str) -> Option<(&'a str, &'a str)> {
    let opening = format!(" {family}: Family<");
    let types = text.split_once(&opening)?.1.split(['>', '<']).next()?;
    let (labels, kind) = types.split_once(", ")?;
    Some((labels, kind))
}

/// Names of the fields of a struct of labels.
fn fields(text: &str, name: &str) -> Vec<String> {
    let opening = format!("struct {name} {{");
    let body = text
        .split_once(&opening)
        .and_then(|(_, rest)| rest.split('}').next());
    let names = body
        .unwrap_or_default()
        .lines()
        .filter_map(|line| line.trim().split_once(": "));
    names
        .map(|(field, _)| field.trim_start_matches("pub ").to_owned())
        .collect()
}

fn is_word(c: char) -> bool {
    c.is_ascii_alphanumeric() || c == '_'
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn metrics_are_read_with_their_types_and_labels() -> anyhow::Result<()> {
        let text = "struct Request {\n    role: &'static str,\n    code: u16,\n}\nstruct Metrics {\n    requests: \
                    Family<Request, Counter>,\n}\nregistry.register(\n    \"api_requests\",\n    \"Requests\",\n    \
                    self.requests.clone(),\n);\n";
        let metric = Metric {
            name: "api_requests".to_owned(),
            kind: "counter".to_owned(),
            labels: vec!["role".to_owned(), "code".to_owned()],
            help: "Requests".to_owned(),
        };
        assert_eq!(registered(text)?, [metric]);
        assert!(registered(&text.replace("requests: ", "others: ")).is_err());
        Ok(())
    }
}
