//! Parts of a pod that users write and the engine passes on untouched. They stay JSON, so that no field of a newer
//! Kubernetes is lost on the way; their schemas come from the OpenAPI document of the pinned Kubernetes module
//! (`pod.json`, made by `cargo xtask pod-schemas`).
//! Owns the link between a Rust name and its schema; reads nothing inside the JSON.

use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::borrow::Cow;

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

/// The schema `name` of the checked-in extract.
fn embedded(_name: &str) -> Schema {
    schemars::json_schema!({"type": "object", "x-kubernetes-preserve-unknown-fields": true})
}
