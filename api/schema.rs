//! Schemas and rules that several types share, in the form that schemars and Kubernetes expect.
//! Owns what a derived schema cannot express; each field selects its rules beside its declaration.
//! Every rule must compile on Kubernetes 1.33, the oldest supported management cluster.

use schemars::{Schema, SchemaGenerator, json_schema};
use serde_json::{Value, json};

use crate::conditions::REASON_PATTERN;

/// Pattern of condition types and similar qualified names.
pub const QUALIFIED_NAME: &str = "^([a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*/)?\
     (([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])$";

/// A CEL rule, and the message if it does not hold: which field, and what to do.
pub(crate) type Rule = (&'static str, &'static str);

/// Value of `x-kubernetes-validations`.
pub(crate) fn cel(rules: &[(&str, &str)]) -> Value {
    rules
        .iter()
        .map(|(rule, message)| json!({"rule": rule, "message": message}))
        .collect()
}

/// Maximum length of a version.
pub(crate) const VERSION_LENGTH: usize = 256;

/// Rules of a Kubernetes version. The CEL library `semver()` requires Kubernetes 1.34.
pub(crate) const VERSION_RULES: &[Rule] = &[(
    "self.matches('^v?(0|[1-9][0-9]*)[.](0|[1-9][0-9]*)[.](0|[1-9][0-9]*)(-[0-9A-Za-z.-]+)?([+][0-9A-Za-z.-]+)?$')",
    "version must be a semantic version with three numbers, such as v1.36.3",
)];

/// An IP address, or an empty string.
pub(crate) const IP_RULES: &[Rule] = &[(
    "self == '' || isIP(self)",
    "must be an IP address such as 192.0.2.10, not a name",
)];

/// Rules of a load balancer class.
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

/// A list map of meta/v1 Condition, with the maximum length that Cluster API accepts.
pub(crate) fn conditions(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "array",
        "items": condition(),
        "maxItems": 32,
        "x-kubernetes-list-type": "map",
        "x-kubernetes-list-map-keys": ["type"],
    })
}

/// A list map of meta/v1 Condition, with the bounds of the Gateway API.
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
