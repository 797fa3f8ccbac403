//! The custom resource definitions: generated from the types, then completed for Kubernetes.
//! Owns what concerns a definition as a whole (names, conversion, root rules); the types own everything else.
//! There is one version of each kind and no webhook server, so the conversion strategy is `None`.

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::{
    CustomResourceConversion, CustomResourceDefinition, JSON, JSONSchemaProps, JSONSchemaPropsOrArray,
    JSONSchemaPropsOrBool, ValidationRule,
};
use kube::CustomResourceExt;
use serde_json::json;

use crate::{
    bootstrap::{KamajiConfig, KamajiConfigTemplate},
    controlplane::{KamajiControlPlane, KamajiControlPlaneTemplate},
    datastore::DataStore,
    schema::Rule,
    tenantcontrolplane::{self, TenantControlPlane},
};

/// A time before the year 9999: the last of it is beyond what can be decoded, and a format has no end.
const BEFORE_9999: &str = "^([0-8][0-9]{3}|9([0-8][0-9]{2}|9([0-8][0-9]|9[0-8])))-";

/// Every definition of this project, sorted by name.
pub fn all_crds() -> Vec<CustomResourceDefinition> {
    vec![
        finished(DataStore::crd(), &[]),
        spec_optional(finished(KamajiConfig::crd(), &[])),
        finished(KamajiConfigTemplate::crd(), &[]),
        finished(KamajiControlPlane::crd(), &[]),
        finished(KamajiControlPlaneTemplate::crd(), &[]),
        finished(TenantControlPlane::crd(), tenantcontrolplane::ROOT_RULES),
    ]
}

/// The definition as it is shipped.
fn finished(mut crd: CustomResourceDefinition, root_rules: &[Rule]) -> CustomResourceDefinition {
    crd.spec.names.list_kind = Some(format!("{}List", crd.spec.names.kind));
    crd.spec.conversion = Some(CustomResourceConversion {
        strategy: "None".to_owned(),
        webhook: None,
    });
    for root in roots(&mut crd) {
        tidy(root);
        identify(root);
        if !root_rules.is_empty() {
            let rules = root_rules.iter().map(|(rule, message)| ValidationRule {
                rule: (*rule).to_owned(),
                message: Some((*message).to_owned()),
                ..Default::default()
            });
            root.x_kubernetes_validations = Some(rules.collect());
        }
    }
    crd
}

/// The definition with an optional spec, because every field of the spec is optional.
fn spec_optional(mut crd: CustomResourceDefinition) -> CustomResourceDefinition {
    for root in roots(&mut crd) {
        root.required = None;
        if let Some(spec) = root
            .properties
            .as_mut()
            .and_then(|properties| properties.get_mut("spec"))
        {
            spec.default = Some(JSON(json!({})));
        }
    }
    crd
}

/// The schema of each version.
fn roots(crd: &mut CustomResourceDefinition) -> impl Iterator<Item = &mut JSONSchemaProps> {
    let versions = crd.spec.versions.iter_mut();
    versions.filter_map(|version| version.schema.as_mut()?.open_api_v3_schema.as_mut())
}

/// Declares the fields that every object has.
fn identify(root: &mut JSONSchemaProps) {
    let properties = root.properties.get_or_insert_default();
    for (name, kind) in [
        ("apiVersion", "string"),
        ("kind", "string"),
        ("metadata", "object"),
    ] {
        let property = JSONSchemaProps {
            type_: Some(kind.to_owned()),
            ..Default::default()
        };
        properties.insert(name.to_owned(), property);
    }
}

/// Removes, at every depth, what generated schemas contain and Kubernetes does not use, and bounds times and numbers.
fn tidy(schema: &mut JSONSchemaProps) {
    schema.nullable = None;
    schema.title = None;
    if schema.format.as_deref() == Some("date-time") {
        schema.pattern = Some(BEFORE_9999.to_owned());
    }
    if schema.format.as_deref() == Some("int32") {
        bound_to_int32(schema);
    }
    if schema
        .format
        .as_ref()
        .is_some_and(|format| format.starts_with("uint"))
    {
        schema.format = None;
    }
    if schema.default.as_ref().is_some_and(|default| default.0.is_null()) {
        schema.default = None;
    }
    if let Some(values) = &mut schema.enum_ {
        values.retain(|value| !value.0.is_null());
    }
    if let Some(text) = &mut schema.description {
        *text = text.split_whitespace().collect::<Vec<_>>().join(" ");
    }
    if schema.x_kubernetes_int_or_string == Some(true) {
        let one = |kind: &str| JSONSchemaProps {
            type_: Some(kind.to_owned()),
            ..Default::default()
        };
        schema.any_of = Some(vec![one("integer"), one("string")]);
        schema.one_of = None;
        schema.type_ = None;
        schema.format = None;
        // Quantities have a pattern; the others are a port or a number of pods, or the name or the percentage of one.
        if schema.pattern.is_none() {
            bound_to_int32(schema);
        }
    } else {
        for inner in [&mut schema.any_of, &mut schema.one_of, &mut schema.all_of]
            .into_iter()
            .flatten()
            .flatten()
        {
            tidy(inner);
        }
    }
    for inner in schema
        .properties
        .iter_mut()
        .flat_map(std::collections::BTreeMap::values_mut)
    {
        tidy(inner);
    }
    match &mut schema.items {
        Some(JSONSchemaPropsOrArray::Schema(inner)) => tidy(inner),
        Some(JSONSchemaPropsOrArray::Schemas(list)) => list.iter_mut().for_each(tidy),
        None => {}
    }
    if let Some(JSONSchemaPropsOrBool::Schema(inner)) = &mut schema.additional_properties {
        tidy(inner);
    }
}

/// Bounds a number to what decodes. API servers before 1.36 ignore the format `int32`, and keep larger numbers.
fn bound_to_int32(schema: &mut JSONSchemaProps) {
    schema.minimum.get_or_insert_with(|| f64::from(i32::MIN));
    schema.maximum.get_or_insert_with(|| f64::from(i32::MAX));
}
