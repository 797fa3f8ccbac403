//! Fields that are accepted but have no effect yet, in one table. A field is removed from it when it is implemented.
//! The controllers set the condition `FieldNotSupported` from it. Of `machineTemplate` of KamajiControlPlane, which has no
//! effect by design, the infrastructure of Machines alone is listed: whoever sets it expects Machines. The rest are settings
//! for Machines that there may be, which a ClusterClass for several kinds of control planes has.

use crate::{
    bootstrap::{ClientApproval, Format, KamajiConfigSpec},
    controlplane::KamajiControlPlaneSpec,
    datastore::{DataStoreSpec, Driver},
    kubelet::CgroupDriver,
    tenantcontrolplane::TenantControlPlaneSpec,
};

/// A field that is accepted but has no effect yet.
pub struct Unsupported<S: 'static> {
    /// Path in the object, with the value if only some values have no effect.
    pub path: &'static str,
    /// Whether the spec sets the field.
    pub is_set: fn(&S) -> bool,
}

/// A spec with fields that are accepted but have no effect yet.
pub trait UnsupportedFields: Sized + 'static {
    /// The fields of this kind.
    const UNSUPPORTED: &'static [Unsupported<Self>];

    /// Paths of the fields that are set but have no effect, in the order of [`Self::UNSUPPORTED`].
    fn unsupported_fields(&self) -> Vec<&'static str> {
        Self::UNSUPPORTED
            .iter()
            .filter(|row| (row.is_set)(self))
            .map(|row| row.path)
            .collect()
    }

    /// Message of the condition `FieldNotSupported`; `None` while every field that is set has an effect.
    fn unsupported_message(&self) -> Option<String> {
        let fields = self.unsupported_fields();
        (!fields.is_empty()).then(|| {
            format!(
                "set but has no effect in this version: {}; remove it to clear this condition",
                fields.join(", ")
            )
        })
    }
}

impl UnsupportedFields for TenantControlPlaneSpec {
    const UNSUPPORTED: &'static [Unsupported<Self>] = &[
        Unsupported {
            path: "spec.controlPlane.ingress",
            is_set: |s| s.control_plane.ingress.is_some(),
        },
        Unsupported {
            path: "spec.controlPlane.gateway",
            is_set: |s| s.control_plane.gateway.is_some(),
        },
        Unsupported {
            path: "spec.dataStoreOverrides",
            is_set: |s| !s.data_store_overrides.is_empty(),
        },
        Unsupported {
            path: "spec.writePermissions",
            is_set: |s| !s.write_permissions.is_open(),
        },
        Unsupported {
            path: "spec.controlPlane.deployment.resources.kine",
            is_set: |s| s.control_plane.deployment.resources.kine.is_some(),
        },
        Unsupported {
            path: "spec.controlPlane.deployment.extraArgs.kine",
            is_set: |s| !s.control_plane.deployment.extra_args.kine.is_empty(),
        },
        Unsupported {
            path: "spec.kubernetes.kubelet.cgroupfs=cgroupfs",
            is_set: |s| s.kubernetes.kubelet.cgroupfs == Some(CgroupDriver::Cgroupfs),
        },
        Unsupported {
            path: "spec.kubernetes.kubelet.configurationJSONPatches",
            is_set: |s| !s.kubernetes.kubelet.configuration_json_patches.is_empty(),
        },
    ];
}

impl UnsupportedFields for DataStoreSpec {
    const UNSUPPORTED: &'static [Unsupported<Self>] = &[
        Unsupported {
            path: "spec.driver (only etcd)",
            is_set: |s| s.driver.is_some_and(|driver| driver != Driver::Etcd),
        },
        Unsupported {
            path: "spec.basicAuth",
            is_set: |s| s.basic_auth.is_some(),
        },
        Unsupported {
            path: "spec.managed.replicas=3",
            is_set: |s| s.managed.as_ref().is_some_and(|managed| managed.replicas > 1),
        },
    ];
}

impl UnsupportedFields for KamajiControlPlaneSpec {
    const UNSUPPORTED: &'static [Unsupported<Self>] = &[
        Unsupported {
            path: "spec.network.ingress",
            is_set: |s| s.network.ingress.is_some(),
        },
        Unsupported {
            path: "spec.network.gateway",
            is_set: |s| s.network.gateway.is_some(),
        },
        Unsupported {
            path: "spec.dataStoreOverrides",
            is_set: |s| !s.data_store_overrides.is_empty(),
        },
        Unsupported {
            path: "spec.kine",
            is_set: |s| !s.kine.is_empty(),
        },
        Unsupported {
            path: "spec.kubelet.cgroupfs=cgroupfs",
            is_set: |s| s.kubelet.cgroupfs == Some(CgroupDriver::Cgroupfs),
        },
        Unsupported {
            path: "spec.kubelet.configurationJSONPatches",
            is_set: |s| !s.kubelet.configuration_json_patches.is_empty(),
        },
        Unsupported {
            path: "spec.machineTemplate.spec.infrastructureRef (a hosted control plane has no Machines; a ClusterClass sets \
                   it with controlPlane.machineInfrastructure)",
            is_set: |s| {
                let machines = s.machine_template.as_ref();
                machines.is_some_and(|template| {
                    template
                        .spec
                        .as_ref()
                        .is_some_and(|spec| spec.infrastructure_ref.is_some())
                })
            },
        },
    ];
}

impl UnsupportedFields for KamajiConfigSpec {
    const UNSUPPORTED: &'static [Unsupported<Self>] = &[
        Unsupported {
            path: "spec.format=ignition",
            is_set: |s| s.format == Format::Ignition,
        },
        Unsupported {
            path: "spec.csrApproval.client=ControllerManager",
            is_set: |s| s.csr_approval.client == ClientApproval::ControllerManager,
        },
        Unsupported {
            path: "spec.csrApproval.client=External",
            is_set: |s| s.csr_approval.client == ClientApproval::External,
        },
    ];
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_field_without_effect_is_named_and_defaults_are_not() {
        let mut spec = TenantControlPlaneSpec::default();
        assert_eq!(spec.unsupported_message(), None);
        spec.kubernetes.kubelet.cgroupfs = Some(CgroupDriver::Cgroupfs);
        let path = "spec.kubernetes.kubelet.cgroupfs=cgroupfs";
        assert_eq!(spec.unsupported_fields(), [path]);
        assert!(spec.unsupported_message().is_some_and(|text| text.contains(path)));
    }

    #[test]
    fn of_the_settings_for_machines_their_infrastructure_alone_is_named() {
        let message = |machines: serde_json::Value| {
            let spec = serde_json::json!({ "version": "v1.36.3", "machineTemplate": { "spec": machines } });
            let spec: KamajiControlPlaneSpec = serde_json::from_value(spec).unwrap();
            spec.unsupported_message()
        };
        let infrastructure =
            serde_json::json!({ "infrastructureRef": { "apiGroup": "a", "kind": "B", "name": "c" } });
        let said = message(infrastructure).unwrap();
        assert!(
            said.contains(
                "spec.machineTemplate.spec.infrastructureRef (a hosted control plane has no Machines"
            )
        );
        assert_eq!(
            message(serde_json::json!({ "deletion": { "nodeDrainTimeoutSeconds": 1 } })),
            None
        );
    }

    #[test]
    fn no_default_of_any_kind_is_unsupported() {
        assert!(KamajiControlPlaneSpec::default().unsupported_fields().is_empty());
        assert!(KamajiConfigSpec::default().unsupported_fields().is_empty());
        assert!(DataStoreSpec::default().unsupported_fields().is_empty());
    }
}
