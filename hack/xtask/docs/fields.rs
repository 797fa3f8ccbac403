//! Pages of the fields of each kind, from the schemas in the definitions.
//! Parts that are Kubernetes' own (a container, an affinity) are one row: their schema has no descriptions.

use anyhow::Context as _;
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::JSONSchemaProps;
use serde_json::Value;

use super::markdown;

/// Name and text of each page; a template has none of its own, since its spec is that of its kind.
pub fn pages() -> anyhow::Result<Vec<(String, String)>> {
    let mut pages = Vec::new();
    for crd in kamaji_api::crd::all_crds() {
        let kind = crd.spec.names.kind;
        if kind.ends_with("Template") {
            continue;
        }
        let version = crd
            .spec
            .versions
            .first()
            .with_context(|| format!("{kind} has no version"))?;
        let schema = version
            .schema
            .as_ref()
            .and_then(|schema| schema.open_api_v3_schema.as_ref());
        let properties = schema.and_then(|schema| schema.properties.as_ref());
        let properties = properties.with_context(|| format!("{kind} has no schema"))?;
        let mut text = format!(
            "# Fields of {kind}\n\n{}\n`apiVersion: {}/{}`, `kind: {kind}`. `kubectl explain {}` shows the same.\n",
            markdown::made_by("the types in `api/`"),
            crd.spec.group,
            version.name,
            crd.spec.names.plural,
        );
        for part in ["spec", "status"] {
            if let Some(schema) = properties.get(part) {
                markdown::add(
                    &mut text,
                    &format!("\n## {part}\n\n| field | type | meaning |\n|---|---|---|\n"),
                );
                rows(part, schema, &mut text);
            }
        }
        pages.push((format!("fields-{}", kind.to_ascii_lowercase()), text));
    }
    Ok(pages)
}

/// One row for each field below `path`.
fn rows(path: &str, schema: &JSONSchemaProps, text: &mut String) {
    for (name, field) in schema.properties.iter().flatten() {
        let required = schema.required.iter().flatten().any(|required| required == name);
        let path = format!("{path}.{name}");
        let inner = inner(field);
        let foreign = is_foreign(inner);
        markdown::add(
            text,
            &format!(
                "| `{path}` | {} | {} |\n",
                kind(field, foreign),
                markdown::cell(&meaning(field, required))
            ),
        );
        if !foreign {
            let below = if std::ptr::eq(inner, field) {
                path
            } else {
                format!("{path}[]")
            };
            rows(&below, inner, text);
        }
    }
}

/// The schema of the elements of a list, of the values of a map; the schema itself for everything else.
fn inner(schema: &JSONSchemaProps) -> &JSONSchemaProps {
    use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::{
        JSONSchemaPropsOrArray as List, JSONSchemaPropsOrBool as Map,
    };
    match (&schema.items, &schema.additional_properties) {
        (Some(List::Schema(items)), _) => inner(items),
        (_, Some(Map::Schema(values))) => inner(values),
        _ => schema,
    }
}

/// An object none of whose fields is described.
fn is_foreign(schema: &JSONSchemaProps) -> bool {
    schema
        .properties
        .as_ref()
        .is_some_and(|fields| fields.values().all(|field| field.description.is_none()))
}

fn kind(schema: &JSONSchemaProps, foreign: bool) -> String {
    use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::{
        JSONSchemaPropsOrArray as List, JSONSchemaPropsOrBool as Map,
    };
    match (&schema.items, &schema.additional_properties) {
        (Some(List::Schema(items)), _) => return format!("list of {}", kind(items, foreign)),
        (_, Some(Map::Schema(values))) => return format!("map of {}", kind(values, foreign)),
        _ => {}
    }
    let name = match schema.type_.as_deref() {
        Some("object") if foreign => "object of Kubernetes",
        Some(name) => name,
        None if schema.x_kubernetes_int_or_string == Some(true) => "integer or string",
        None => "any",
    };
    schema
        .format
        .as_ref()
        .filter(|format| *format == "date-time")
        .map_or_else(|| name.to_owned(), |_| "time".to_owned())
}

/// Description, whether it is required, default, allowed values, bounds and rules.
fn meaning(schema: &JSONSchemaProps, required: bool) -> String {
    let mut parts: Vec<String> = schema.description.iter().cloned().collect();
    if required {
        parts.push("Required.".to_owned());
    }
    if let Some(default) = schema.default.as_ref().filter(|default| is_plain(&default.0)) {
        parts.push(format!("Default: `{}`.", default.0));
    }
    if let Some(allowed) = &schema.enum_ {
        let allowed: Vec<String> = allowed
            .iter()
            .map(|value| format!("`{}`", plain(&value.0)))
            .collect();
        parts.push(format!("One of {}.", allowed.join(", ")));
    }
    // The whole range of a format says nothing to a reader.
    if let Some(minimum) = schema
        .minimum
        .filter(|bound| bound.total_cmp(&f64::from(i32::MIN)).is_ne())
    {
        parts.push(format!("At least {minimum}."));
    }
    if let Some(maximum) = schema
        .maximum
        .filter(|bound| bound.total_cmp(&f64::from(i32::MAX)).is_ne())
    {
        parts.push(format!("At most {maximum}."));
    }
    if let Some(length) = schema.max_length.filter(|_| schema.enum_.is_none()) {
        parts.push(format!("At most {length} characters."));
    }
    if let Some(items) = schema.max_items {
        parts.push(format!("At most {items} items."));
    }
    let rules = schema
        .x_kubernetes_validations
        .iter()
        .flatten()
        .filter_map(|rule| rule.message.as_deref());
    parts.extend(rules.map(|message| format!("Rule: {message}.").replace("..", ".")));
    parts.join(" ")
}

/// Whether a default fits into a cell.
fn is_plain(value: &Value) -> bool {
    match value {
        Value::Object(_) => false,
        Value::Array(list) => list.iter().all(|value| !value.is_object()),
        _ => true,
    }
}

fn plain(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_kind_has_a_page_with_its_own_fields() -> anyhow::Result<()> {
        let pages = pages()?;
        let names: Vec<&str> = pages.iter().map(|(name, _)| name.as_str()).collect();
        assert_eq!(names.len(), 4, "{names:?}");
        let (_, tenant) = pages
            .iter()
            .find(|(name, _)| name == "fields-tenantcontrolplane")
            .context("no page")?;
        assert!(
            tenant.contains("| `spec.kubernetes.version` | string |"),
            "{tenant}"
        );
        assert!(
            tenant.contains(
                "`spec.controlPlane.deployment.additionalContainers` | list of object of Kubernetes"
            )
        );
        Ok(())
    }
}
