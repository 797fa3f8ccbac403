//! A tenant for tests: all defaults.

use kamaji_api::admission::AdmissionPlugin;
use kamaji_api::tenantcontrolplane::{KubernetesSpec, TenantControlPlane, TenantControlPlaneSpec};

use crate::hosting::tenantcontrolplane::{
    desired::deployment::Storage,
    validate::{Valid, validate},
};

/// `demo/alpha`, as the API server would default it.
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

pub(in crate::hosting) fn valid(tenant: &TenantControlPlane) -> Valid {
    validate(tenant).unwrap()
}

pub(in crate::hosting) fn storage() -> Storage<'static> {
    Storage {
        store: "default",
        schema: "demo_alpha_bcdfghjk",
        endpoints: &[],
    }
}
