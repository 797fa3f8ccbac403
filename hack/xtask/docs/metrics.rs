//! The page of metrics, from the source that declares them.

use anyhow::ensure;

use super::{markdown, tree::Tree};

const SOURCE: &str = "controllers/runtime/metrics.rs";

/// The page.
pub fn page(tree: &Tree) -> anyhow::Result<String> {
    let text = tree.text(SOURCE).map(String::as_str).unwrap_or_default();
    let found = registered(text);
    ensure!(!found.is_empty(), "{SOURCE} registers no metric");
    let mut page = format!(
        "# Metrics\n\n{}\nThe process serves them at `/metrics` of `--diagnostics-address`, in the text format of \
         Prometheus. Labels never hold names of objects.\n\n| metric | meaning |\n|---|---|\n",
        markdown::made_by(&format!("`{SOURCE}`"))
    );
    for (name, help) in found {
        markdown::add(
            &mut page,
            &format!("| `capi_kamaji_{name}` | {} |\n", markdown::cell(&help)),
        );
    }
    Ok(page)
}

/// Name and help of each call of `register`.
fn registered(text: &str) -> Vec<(String, String)> {
    let calls = text.split(".register(").skip(1);
    calls
        .filter_map(|call| {
            let mut texts = call.split('"').skip(1).step_by(2);
            Some((texts.next()?.to_owned(), texts.next()?.to_owned()))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_helps_are_read() {
        let text = "registry.register(\n    \"a\",\n    \"Help of a\",\n    x,\n);\nregistry.register(\"b\", \"B\", y);";
        let of = |name: &str, help: &str| (name.to_owned(), help.to_owned());
        assert_eq!(registered(text), [of("a", "Help of a"), of("b", "B")]);
    }
}
