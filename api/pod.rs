//! Parts of a pod that users write and the engine passes on untouched. They stay JSON, so that no field of a newer
//! Kubernetes is lost on the way; their schemas come from the OpenAPI document of the pinned Kubernetes module
//! (`pod.json`, made by `cargo xtask pod-schemas`).
//! Owns the link between a Rust name and its schema; reads nothing inside the JSON.

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::borrow::Cow;
use std::sync::LazyLock;

/// Declares a transparent JSON type whose schema is the named one of `pod.json`.
macro_rules! opaque {
    ($( $(#[$doc:meta])* $name:ident = $schema:literal; )+) => { $(
        $(#[$doc])*
        #[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name(pub Value);

        impl $name {
            /// Reads the JSON as a typed view of one's choice; fields unknown to it stay in `self`.
            pub fn view<T: DeserializeOwned>(&self) -> serde_json::Result<T> {
                T::deserialize(&self.0)
            }
        }

        impl From<Value> for $name {
            fn from(value: Value) -> Self {
                Self(value)
            }
        }

        impl JsonSchema for $name {
            fn inline_schema() -> bool {
                true
            }

            fn schema_name() -> Cow<'static, str> {
                stringify!($name).into()
            }

            fn json_schema(_: &mut SchemaGenerator) -> Schema {
                embedded($schema)
            }
        }
    )+ };
}

opaque! {
    /// core/v1 Container.
    Container = "Container";
    /// core/v1 Volume.
    Volume = "Volume";
    /// core/v1 VolumeMount.
    VolumeMount = "VolumeMount";
    /// core/v1 Affinity.
    Affinity = "Affinity";
    /// core/v1 Toleration.
    Toleration = "Toleration";
    /// core/v1 TopologySpreadConstraint.
    TopologySpreadConstraint = "TopologySpreadConstraint";
    /// core/v1 ResourceRequirements.
    ResourceRequirements = "ResourceRequirements";
    /// core/v1 SecurityContext, of one container.
    SecurityContext = "SecurityContext";
    /// core/v1 PodSecurityContext.
    PodSecurityContext = "PodSecurityContext";
    /// apps/v1 DeploymentStrategy.
    DeploymentStrategy = "DeploymentStrategy";
}

/// The schema `name` of the checked-in extract; a schema that takes nothing where the extract has no such name, which
/// a test rules out.
pub(crate) fn embedded(name: &str) -> Schema {
    static EXTRACT: LazyLock<Value> =
        LazyLock::new(|| serde_json::from_str(include_str!("pod.json")).unwrap_or_default());
    Schema::try_from(EXTRACT["schemas"][name].clone()).unwrap_or_else(|_| false.into())
}

/// core/v1 `LoadBalancerStatus`.
pub(crate) fn load_balancer_status(_: &mut SchemaGenerator) -> Schema {
    embedded("LoadBalancerStatus")
}

/// networking.k8s.io/v1 `IngressLoadBalancerStatus`.
pub(crate) fn ingress_load_balancer_status(_: &mut SchemaGenerator) -> Schema {
    embedded("IngressLoadBalancerStatus")
}

/// A list map of apps/v1 `DeploymentCondition`.
pub(crate) fn deployment_conditions(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "array",
        "items": embedded("DeploymentCondition"),
        "x-kubernetes-list-type": "map",
        "x-kubernetes-list-map-keys": ["type"],
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_embedded_type_has_a_schema_without_holes() {
        fn no_holes(schema: &Value, path: &str) {
            if let Some(map) = schema.as_object() {
                assert!(
                    !map.contains_key("$ref") && !map.contains_key("description"),
                    "{path}"
                );
                assert!(
                    !map.contains_key("x-kubernetes-preserve-unknown-fields"),
                    "{path}"
                );
                for (key, value) in map {
                    no_holes(value, &format!("{path}.{key}"));
                }
            }
        }
        for name in [
            "Affinity",
            "Container",
            "DeploymentCondition",
            "DeploymentStrategy",
            "IngressLoadBalancerStatus",
            "LoadBalancerStatus",
            "PodSecurityContext",
            "ResourceRequirements",
            "SecurityContext",
            "Toleration",
            "TopologySpreadConstraint",
            "Volume",
            "VolumeMount",
        ] {
            let schema = embedded(name).to_value();
            assert_eq!(schema["type"], "object", "{name}");
            no_holes(&schema["properties"], name);
        }
    }

    #[test]
    fn fields_of_a_newer_kubernetes_survive() -> serde_json::Result<()> {
        let json = serde_json::json!({"name": "a", "fieldOfTomorrow": {"x": [1]}});
        let container: Container = serde_json::from_value(json.clone())?;
        assert_eq!(serde_json::to_value(&container)?, json);
        Ok(())
    }
}
