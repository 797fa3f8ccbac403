//! Which text is a template, and which text a YAML parser reads as something other than text. Pure.
//!
//! cloud-init evaluates Jinja in all of a user-data document whose first line is `## template: jinja`
//! (<https://cloudinit.readthedocs.io/en/latest/explanation/instancedata.html>), so one template among the files
//! concerns all other text as well.

use kamaji_api::bootstrap::{ContentFormat, KamajiConfigSpec};

/// Marks that begin and end an expression, a statement and a comment of Jinja.
const EXPRESSIONS: [(&str, &str); 3] = [("{{", "}}"), ("{%", "%}"), ("{#", "#}")];

/// How many expressions begin in `text`.
pub fn expressions(text: &str) -> usize {
    EXPRESSIONS
        .iter()
        .map(|(open, _)| text.matches(open).count())
        .sum()
}

/// At least one expression begins in `text`.
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

/// The bootstrap data may hold a template, so that all of it is evaluated on the machine.
pub fn may_be_templated(spec: &KamajiConfigSpec) -> bool {
    let registration = &spec.node_registration;
    let templates = [&registration.name_template, &registration.provider_id.template];
    templates
        .into_iter()
        .flatten()
        .chain(registration.label_templates.values())
        .any(|text| is_expression(text))
        || spec
            .files
            .iter()
            .any(|file| file.content_format == ContentFormat::Jinja)
}

/// Names at the top of cloud-init's instance data, below which the metadata is.
const INSTANCE_DATA: [&str; 2] = ["ds", "v1"];
/// Further names that cloud-init knows without them.
const INSTANCE_NAMES: [&str; 3] = ["availability_zone", "instance_id", "local_hostname"];

/// The first name of the instance's metadata that an expression in `text` reads. Expressions of other programs, such as Go
/// templates, have other names.
pub fn instance_name(text: &str) -> Option<&str> {
    let mut rest = text;
    while let Some((at, close)) = EXPRESSIONS
        .into_iter()
        .filter_map(|(open, close)| rest.find(open).map(|at| (at, close)))
        .min()
    {
        let after = &rest[at + 2..];
        let end = after.find(close).unwrap_or(after.len());
        let of_name = |c: char| c.is_ascii_alphanumeric() || "._[]'".contains(c);
        let mut words = after[..end].split(|c| !of_name(c));
        if let Some(word) = words.find(|word| is_instance_name(word)) {
            return Some(word);
        }
        rest = &after[end..];
    }
    None
}

fn is_instance_name(word: &str) -> bool {
    let below = |rest: &str| {
        let mut characters = rest.chars();
        let first = characters.next();
        let second = characters.next();
        first == Some('[') || (first == Some('.') && second.is_some_and(|c| c.is_ascii_alphabetic()))
    };
    INSTANCE_NAMES.contains(&word)
        || INSTANCE_DATA
            .iter()
            .any(|name| word.strip_prefix(name).is_some_and(below))
}

/// One line that every YAML parser reads as text, and that is never evaluated.
pub fn is_inert(text: &str) -> bool {
    !text.chars().any(char::is_control) && !is_expression(text) && !is_ambiguous(text)
}

/// A line that is a number, a time or a special mark in YAML 1.1 and text in YAML 1.2. Serializers of YAML 1.2 leave it
/// unquoted, and cloud-init parses YAML 1.1.
pub fn is_ambiguous(text: &str) -> bool {
    let body = text.strip_prefix(['+', '-']).unwrap_or(text);
    matches!(text, "=" | "<<")
        || (body.starts_with(|c: char| c.is_ascii_digit() || c == '.')
            && body
                .chars()
                .all(|c| c.is_ascii_hexdigit() || "_:.+-xoTtZz ".contains(c)))
}

#[cfg(test)]
mod tests {
    use super::instance_name;

    #[test]
    fn expressions_that_read_the_metadata_of_the_instance_are_told_from_others() {
        for (text, name) in [
            (
                "hostnamectl set-hostname \"{{ ds.meta_data.hostname }}\"",
                "ds.meta_data.hostname",
            ),
            ("echo {{ds['meta_data']['uuid']}}", "ds['meta_data']['uuid']"),
            ("{{ x }} {{ v1.local_hostname | lower }}", "v1.local_hostname"),
            ("{% if ds.meta_data.zone %}a{% endif %}", "ds.meta_data.zone"),
            ("echo {{ local_hostname }}", "local_hostname"),
        ] {
            assert_eq!(instance_name(text), Some(name), "{text}");
        }
        for text in [
            "docker inspect -f '{{ .State.Status }}' x",
            "kubectl get -o go-template='{{ range .items }}{{ .v1.name }}{{ end }}'",
            "x -o '{{ if eq .apiVersion \"apps/v1\" }}{{ end }}'",
            "x -o '{{ if eq .version \"v1.36.3\" }}{{ end }}'",
            "{{ region }}",
            "cloud-init query ds.meta_data.hostname",
        ] {
            assert_eq!(instance_name(text), None, "{text}");
        }
    }
}
