//! The custom resource definitions: generated from the types, then finished for Kubernetes.
//! Owns what the derived schemas cannot say; the types own everything else.

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::CustomResourceExt;
use schemars::{Schema, SchemaGenerator, json_schema};

use crate::bootstrap::{KamajiConfig, KamajiConfigTemplate};
use crate::controlplane::{KamajiControlPlane, KamajiControlPlaneTemplate};
use crate::datastore::DataStore;
use crate::tenantcontrolplane::TenantControlPlane;

/// Every definition of this project, in order of name.
pub fn all_crds() -> Vec<CustomResourceDefinition> {
    vec![
        DataStore::crd(),
        KamajiConfig::crd(),
        KamajiConfigTemplate::crd(),
        KamajiControlPlane::crd(),
        KamajiControlPlaneTemplate::crd(),
        TenantControlPlane::crd(),
    ]
}

/// Schema of a value of any type.
pub(crate) fn any_json(_: &mut SchemaGenerator) -> Schema {
    json_schema!({"x-kubernetes-preserve-unknown-fields": true})
}

/// Schema of an object whose fields another project defines.
pub(crate) fn any_object(_: &mut SchemaGenerator) -> Schema {
    json_schema!({"type": "object", "x-kubernetes-preserve-unknown-fields": true})
}
