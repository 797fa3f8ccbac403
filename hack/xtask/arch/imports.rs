//! Which module may use which. Pure.

use super::source::Source;

/// Who may use whom: module, and what it may not import.
const IMPORTS: [(&str, &[&str]); 9] = [
    (
        "k8s",
        &[
            "args",
            "capi",
            "hosting",
            "kamajiconfig",
            "kamajicontrolplane",
            "pki",
            "runtime",
            "tenant",
        ],
    ),
    (
        "capi",
        &[
            "args",
            "hosting",
            "kamajiconfig",
            "kamajicontrolplane",
            "pki",
            "runtime",
            "tenant",
        ],
    ),
    (
        "pki",
        &[
            "args",
            "capi",
            "hosting",
            "kamajiconfig",
            "kamajicontrolplane",
            "runtime",
            "tenant",
        ],
    ),
    ("tenant", &["hosting", "kamajiconfig", "kamajicontrolplane"]),
    ("runtime", &["hosting", "kamajiconfig", "kamajicontrolplane"]),
    ("hosting", &["kamajiconfig", "kamajicontrolplane"]),
    ("kamajiconfig", &["hosting", "kamajicontrolplane"]),
    ("kamajicontrolplane", &["hosting", "kamajiconfig"]),
    (
        "args",
        &[
            "capi",
            "hosting",
            "kamajiconfig",
            "kamajicontrolplane",
            "k8s",
            "pki",
            "tenant",
        ],
    ),
];

/// `api` ← `k8s` ← `capi` ← controllers, which do not know each other.
pub fn forbidden(source: &Source) -> Vec<String> {
    let Some(inside) = source.path.strip_prefix("controllers/") else {
        return Vec::new();
    };
    let module = inside
        .trim_end_matches(".rs")
        .split('/')
        .next()
        .unwrap_or_default();
    let Some((_, forbidden)) = IMPORTS.iter().find(|(name, _)| *name == module) else {
        return Vec::new();
    };
    statements(&source.code)
        .iter()
        .flat_map(|(number, statement)| {
            forbidden
                .iter()
                .filter(|other| names(statement, other))
                .map(move |other| format!("{}:{number}: `{module}` uses `{other}`", source.path))
        })
        .collect()
}

/// Lines with their numbers; a `use` that goes over several lines is one.
fn statements(code: &[String]) -> Vec<(usize, String)> {
    let mut all: Vec<(usize, String)> = Vec::new();
    let mut open = false;
    for (number, line) in (1..).zip(code) {
        if let Some((_, statement)) = all.last_mut().filter(|_| open) {
            statement.push(' ');
            statement.push_str(line.trim());
        } else {
            let words: Vec<&str> = line.split_whitespace().collect();
            open = matches!(words.as_slice(), ["use", ..])
                || matches!(words.as_slice(), [visible, "use", ..] if visible.starts_with("pub"));
            all.push((number, line.clone()));
        }
        open &= !line.contains(';');
    }
    all
}

/// The statement names `crate::module`, alone or in a group.
fn names(statement: &str, module: &str) -> bool {
    let is = |path: &str| {
        let rest = path.trim().strip_prefix(module);
        rest.is_some_and(|rest| !rest.starts_with(|c: char| c.is_alphanumeric() || c == '_'))
    };
    statement
        .split("crate::")
        .skip(1)
        .any(|rest| match rest.strip_prefix('{') {
            Some(group) => members(group).iter().any(|path| is(path)),
            None => is(rest),
        })
}

/// The content of a group of imports, up to the brace that closes it; groups inside stay whole.
fn members(group: &str) -> Vec<&str> {
    let (mut all, mut depth, mut from) = (Vec::new(), 0_usize, 0);
    for (at, c) in group.char_indices() {
        match c {
            '{' => depth += 1,
            '}' if depth == 0 => {
                all.push(&group[from..at]);
                return all;
            }
            '}' => depth -= 1,
            ',' if depth == 0 => {
                all.push(&group[from..at]);
                from = at + 1;
            }
            _ => {}
        }
    }
    all.push(&group[from..]);
    all
}
