//! Which text is evaluated on the machine, and which text a reader of YAML takes for something else than text. Pure.

use kamaji_api::bootstrap::{ContentFormat, KamajiConfigSpec};

/// Signs that begin and end what cloud-init evaluates.
const EXPRESSIONS: [(&str, &str); 3] = [("{{", "}}"), ("{%", "%}"), ("{#", "#}")];

/// How often something begins in `text` that cloud-init would evaluate.
pub fn expressions(text: &str) -> usize {
    EXPRESSIONS
        .iter()
        .map(|(open, _)| text.matches(open).count())
        .sum()
}

/// The text holds what cloud-init would evaluate.
pub fn is_expression(text: &str) -> bool {
    expressions(text) > 0
}

/// Every expression that opens closes, in order.
pub fn is_balanced(text: &str) -> bool {
    let mut rest = text;
    while let Some((at, close)) = EXPRESSIONS
        .into_iter()
        .filter_map(|(open, close)| rest.find(open).map(|at| (at, close)))
        .min()
    {
        let after = &rest[at + 2..];
        let Some(end) = after.find(close) else {
            return false;
        };
        rest = &after[end + 2..];
    }
    true
}

/// Something of the data may be evaluated on the machine, and with it all of the data is.
pub fn may_be_templated(spec: &KamajiConfigSpec) -> bool {
    let registration = &spec.node_registration;
    let templates = [&registration.name_template, &registration.provider_id.template];
    templates.into_iter().flatten().any(|text| is_expression(text))
        || spec
            .files
            .iter()
            .any(|file| file.content_format == ContentFormat::Jinja)
}

/// One line that every reader takes for text, and that is never evaluated.
pub fn is_inert(text: &str) -> bool {
    !text.chars().any(char::is_control) && !is_expression(text) && !ambiguous(text)
}

/// A single line that is a number, a time or a special mark in YAML 1.1 and text in YAML 1.2: writers of 1.2 leave it
/// unquoted.
pub fn ambiguous(text: &str) -> bool {
    let body = text.strip_prefix(['+', '-']).unwrap_or(text);
    matches!(text, "=" | "<<")
        || (body.starts_with(|c: char| c.is_ascii_digit() || c == '.')
            && body
                .chars()
                .all(|c| c.is_ascii_hexdigit() || "_:.+-xoTtZz ".contains(c)))
}
