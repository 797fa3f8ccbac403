//! The custom resource definitions: generated from the types, then finished for Kubernetes.
//! Owns what the derived schemas cannot say; the types own everything else.
//! Source: DESIGN 2.1 (CEL that loads on Kubernetes 1.33, conversion None), contract.md 1.1.

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::{
    CustomResourceConversion, CustomResourceDefinition, JSON, JSONSchemaProps, JSONSchemaPropsOrArray,
    JSONSchemaPropsOrBool, ValidationRule,
};
use kube::CustomResourceExt;
use schemars::{Schema, SchemaGenerator, json_schema};
use serde_json::{Value, json};

use crate::bootstrap::{KamajiConfig, KamajiConfigTemplate};
use crate::conditions::REASON_PATTERN;
use crate::controlplane::{KamajiControlPlane, KamajiControlPlaneTemplate};
use crate::datastore::DataStore;
use crate::tenantcontrolplane::{self, TenantControlPlane};

/// What the type of a condition and similar names look like.
pub const QUALIFIED_NAME: &str = "^([a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*/)?\
     (([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])$";

/// Every definition of this project, in order of name.
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

/// A rule in CEL and what is said where it does not hold: which field, and what to do.
pub(crate) type Rule = (&'static str, &'static str);

/// Value of `x-kubernetes-validations`.
pub(crate) fn cel(rules: &[Rule]) -> Value {
    rules
        .iter()
        .map(|(rule, message)| json!({"rule": rule, "message": message}))
        .collect()
}

/// Longest version.
pub(crate) const VERSION_LENGTH: usize = 256;

/// A version of Kubernetes. No `semver()`: it came with Kubernetes 1.34.
pub(crate) const VERSION_RULES: &[Rule] = &[(
    "self.matches('^v?(0|[1-9][0-9]*)[.](0|[1-9][0-9]*)[.](0|[1-9][0-9]*)(-[0-9A-Za-z.-]+)?([+][0-9A-Za-z.-]+)?$')",
    "version must be a semantic version with three numbers, such as v1.36.3",
)];

/// An address, or nothing.
pub(crate) const IP_RULES: &[Rule] = &[(
    "self == '' || isIP(self)",
    "must be an IP address such as 192.0.2.10, not a name",
)];

/// Class of a load balancer.
pub(crate) const CLASS_RULES: &[Rule] = &[(
    "self == oldSelf",
    "loadBalancerClass cannot be changed; change the type of the Service first",
)];

/// Schema of a value of any type.
pub(crate) fn any_json(_: &mut SchemaGenerator) -> Schema {
    json_schema!({"x-kubernetes-preserve-unknown-fields": true})
}

/// Schema of an object whose fields another project defines.
pub(crate) fn any_object(_: &mut SchemaGenerator) -> Schema {
    json_schema!({"type": "object", "x-kubernetes-preserve-unknown-fields": true})
}

/// A list map of meta/v1 Condition, no longer than Cluster API takes.
pub(crate) fn conditions(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "array",
        "items": condition(),
        "maxItems": 32,
        "x-kubernetes-list-type": "map",
        "x-kubernetes-list-map-keys": ["type"],
    })
}

/// A list map of meta/v1 Condition as Gateways write it.
pub(crate) fn gateway_conditions(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "array",
        "items": condition(),
        "minItems": 1,
        "maxItems": 8,
        "x-kubernetes-list-type": "map",
        "x-kubernetes-list-map-keys": ["type"],
    })
}

/// meta/v1 Condition with the rules of its Go type.
fn condition() -> Value {
    json!({
        "type": "object",
        "required": ["lastTransitionTime", "message", "reason", "status", "type"],
        "properties": {
            "lastTransitionTime": {"type": "string", "format": "date-time"},
            "message": {"type": "string", "maxLength": 32768},
            "observedGeneration": {"type": "integer", "format": "int64", "minimum": 0},
            "reason": {"type": "string", "minLength": 1, "maxLength": 1024, "pattern": REASON_PATTERN},
            "status": {"type": "string", "enum": ["True", "False", "Unknown"]},
            "type": {"type": "string", "maxLength": 316, "pattern": QUALIFIED_NAME},
        },
    })
}

/// The definition as it is shipped.
fn finished(mut crd: CustomResourceDefinition, root_rules: &[Rule]) -> CustomResourceDefinition {
    crd.spec.names.list_kind = Some(format!("{}List", crd.spec.names.kind));
    crd.spec.conversion = Some(CustomResourceConversion {
        strategy: "None".to_owned(),
        webhook: None,
    });
    for version in &mut crd.spec.versions {
        let Some(root) = version
            .schema
            .as_mut()
            .and_then(|schema| schema.open_api_v3_schema.as_mut())
        else {
            continue;
        };
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

/// The definition with a spec that can be left out, because everything in it can.
fn spec_optional(mut crd: CustomResourceDefinition) -> CustomResourceDefinition {
    for version in &mut crd.spec.versions {
        let Some(root) = version
            .schema
            .as_mut()
            .and_then(|schema| schema.open_api_v3_schema.as_mut())
        else {
            continue;
        };
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

/// Names the fields that every object has.
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

/// Drops what generated schemas carry and Kubernetes has no use for, at every depth.
fn tidy(schema: &mut JSONSchemaProps) {
    schema.nullable = None;
    schema.title = None;
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
