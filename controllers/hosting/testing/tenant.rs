//! The TenantControlPlane of the tests: all defaults. Tests only.

use kamaji_api::{
    admission::AdmissionPlugin,
    labels::ours,
    tenantcontrolplane::{
        KubernetesSpec, StorageSetupStatus, StorageStatus, TenantControlPlane, TenantControlPlaneSpec,
        TenantControlPlaneStatus,
    },
};
use kube::ResourceExt;
use serde_json::Value;

use crate::{
    hosting::tenantcontrolplane::{
        desired::inputs::Storage,
        validate::{Valid, validate},
    },
    k8s::merge_patch::merge_patch,
};

/// `demo/alpha`, with the defaults that the API server sets.
pub(in crate::hosting) fn tenant() -> TenantControlPlane {
    let spec = TenantControlPlaneSpec {
        data_store: Some("default".to_owned()),
        kubernetes: KubernetesSpec {
            version: "v1.36.3".to_owned(),
            admission_controllers: AdmissionPlugin::defaults(),
            ..KubernetesSpec::default()
        },
        ..TenantControlPlaneSpec::default()
    };
    let mut tenant = TenantControlPlane::new("alpha", spec);
    tenant.metadata.namespace = Some("demo".to_owned());
    tenant.metadata.uid = Some("00000000-0000-0000-0000-000000000001".to_owned());
    tenant.metadata.resource_version = Some("1".to_owned());
    tenant.metadata.generation = Some(1);
    tenant
}

/// The same, with this merged over its spec.
pub(in crate::hosting) fn with(change: &Value) -> TenantControlPlane {
    let mut tenant = tenant();
    let mut spec = serde_json::to_value(&tenant.spec).unwrap();
    merge_patch(&mut spec, change);
    tenant.spec = serde_json::from_value(spec).unwrap();
    tenant
}

/// Its validated spec.
pub(in crate::hosting) fn valid(tenant: &TenantControlPlane) -> Valid {
    validate(tenant, 0).unwrap()
}

/// Records schema `old` and user `older` in `store` as set up.
pub(in crate::hosting) fn set_up(tenant: &mut TenantControlPlane, store: &str) {
    tenant.status = Some(TenantControlPlaneStatus {
        storage: Some(StorageStatus {
            data_store_name: Some(store.to_owned()),
            setup: Some(StorageSetupStatus {
                schema: Some("old".to_owned()),
                user: Some("older".to_owned()),
                ..StorageSetupStatus::default()
            }),
            ..StorageStatus::default()
        }),
        ..TenantControlPlaneStatus::default()
    });
}

/// Annotates `tenant` with the names of schema and user.
pub(in crate::hosting) fn note(tenant: &mut TenantControlPlane, schema: &str, user: &str) {
    for (key, value) in [(ours::SCHEMA, schema), (ours::USER, user)] {
        tenant.annotations_mut().insert(key.to_owned(), value.to_owned());
    }
}

/// Its schema in the DataStore `default`.
pub(in crate::hosting) fn storage() -> Storage<'static> {
    Storage {
        store: "default",
        schema: "demo_alpha_bcdfghjk",
        endpoints: &[],
    }
}
