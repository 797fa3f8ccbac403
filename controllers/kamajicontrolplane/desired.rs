//! The TenantControlPlane for a KamajiControlPlane and its Cluster. Pure.
//!
//! Every field of the spec is passed on, also those that the engine does not support yet: it reports them itself.
//! Labels and annotations of the KamajiControlPlane are not passed on, because Cluster API and its tools set them for
//! this object alone. Structs of the API are destructured and built without `..`, so that a new field does not compile
//! before it is mapped here; [`super::field_paths`] has the way back.

use std::collections::BTreeMap;

use k8s_openapi::{apimachinery::pkg::apis::meta::v1::ObjectMeta, jiff::Timestamp};
use kamaji_api::{
    addons::AddonImage,
    admission::AdmissionPlugin,
    controlplane::{
        AddonSettings, ComponentSettings, ControlPlaneSettings, CoreDnsSettings, DeploymentSettings,
        KamajiControlPlane, KamajiControlPlaneSpec, KineSettings, KubeletSettings, Rollout,
    },
    labels::{capi, field_manager, kamaji, ours},
    probes::{ControlPlaneProbes, ProbeSet},
    tenantcontrolplane::{
        Addons, ComponentArgs, ComponentResources, ComponentSecurityContexts, ComponentVolumeMounts,
        ControlPlane, DeploymentSpec, KubeletSpec, KubernetesSpec, RegistrySettings, TenantControlPlane,
        TenantControlPlaneSpec, WritePermissions, default_strategy,
    },
};
use kube::ResourceExt;

use super::{
    endpoint::Choice,
    kept::Keeper,
    network::{self, Network},
    tenant::version_text,
};
use crate::{capi::cluster::Cluster, k8s::meta};

/// What the TenantControlPlane is computed from.
#[derive(Clone, Copy)]
pub struct Inputs<'a> {
    /// The control plane.
    pub control_plane: &'a KamajiControlPlane,
    /// Its Cluster.
    pub cluster: &'a Cluster,
    /// The endpoint to use, if there is one.
    pub endpoint: Option<&'a Choice>,
    /// Who keeps it where it is.
    pub keeper: &'a Keeper,
    /// The TenantControlPlane as it is.
    pub tenant: Option<&'a TenantControlPlane>,
    /// The time.
    pub now: Timestamp,
}

/// The TenantControlPlane to apply.
pub fn tenant(inputs: Inputs<'_>) -> TenantControlPlane {
    let Inputs {
        control_plane,
        cluster,
        endpoint,
        keeper,
        tenant: _,
        now: _,
    } = inputs;
    let KamajiControlPlaneSpec {
        version,
        replicas,
        // Its choice is an input of its own.
        control_plane_endpoint: _,
        settings,
    } = &control_plane.spec;
    let ControlPlaneSettings {
        data_store_name,
        data_store_schema,
        data_store_username,
        data_store_overrides,
        registry,
        network,
        deployment,
        api_server,
        controller_manager,
        scheduler,
        kine,
        admission_controllers,
        kubelet,
        addons,
        rollout: _,
        // For Machines that Cluster API creates for other control planes; it has no effect on this one.
        machine_template: _,
    } = settings;
    let Network {
        profile,
        service,
        ingress,
        gateway,
    } = network::network(network, addons, &cluster.spec.cluster_network, endpoint, keeper);
    let components = Components {
        registry,
        api_server,
        controller_manager,
        scheduler,
        kine,
    };
    let spec = TenantControlPlaneSpec {
        data_store: data_store_name.clone(),
        data_store_schema: data_store_schema.clone(),
        data_store_username: data_store_username.clone(),
        data_store_overrides: data_store_overrides.clone(),
        // No field of a KamajiControlPlane sets it.
        write_permissions: WritePermissions::default(),
        control_plane: ControlPlane {
            deployment: deployment_spec(*replicas, deployment, components, restarted_at(inputs)),
            service,
            ingress,
            gateway,
        },
        kubernetes: KubernetesSpec {
            version: version_text(version),
            kubelet: kubelet_spec(kubelet),
            admission_controllers: if admission_controllers.is_empty() {
                AdmissionPlugin::defaults()
            } else {
                admission_controllers.clone()
            },
        },
        network_profile: profile,
        addons: addons_spec(addons),
    };
    let mut desired = TenantControlPlane::new(&control_plane.name_any(), spec);
    desired.metadata = metadata(control_plane, cluster);
    desired
}

fn metadata(control_plane: &KamajiControlPlane, cluster: &Cluster) -> ObjectMeta {
    // What the user says to the engine.
    let said = [kamaji::KUBECONFIG_SECRET_KEY, ours::MOVE_ENDPOINT];
    let said = said.into_iter().filter_map(|key| {
        let value = control_plane.annotations().get(key)?;
        (!value.is_empty()).then(|| (key.to_owned(), value.clone()))
    });
    let workers = Some(cluster.ready_workers()).filter(|count| *count > 0);
    let workers = workers.map(|count| (ours::READY_WORKERS.to_owned(), count.to_string()));
    let annotations: BTreeMap<_, _> = said.chain(workers).collect();
    ObjectMeta {
        name: Some(control_plane.name_any()),
        namespace: control_plane.namespace(),
        labels: Some(
            [
                (capi::CLUSTER_NAME.to_owned(), cluster.name_any()),
                (
                    ours::MANAGED_BY.to_owned(),
                    field_manager::CONTROL_PLANE.to_owned(),
                ),
            ]
            .into(),
        ),
        annotations: Some(annotations).filter(|all| !all.is_empty()),
        owner_references: Some(vec![meta::controller_of(control_plane)]),
        ..ObjectMeta::default()
    }
}

/// The time of the last restart that `rollout.after` requested. It is never taken back, because removing it would
/// restart the pods again. A time before the creation of the tenant restarts nothing.
fn restarted_at(inputs: Inputs<'_>) -> Option<String> {
    let requested = due(inputs.control_plane, inputs.now).filter(|after| {
        let created = inputs.tenant.and_then(|t| t.metadata.creation_timestamp.as_ref());
        created.is_some_and(|created| created.0 < *after)
    });
    let known = inputs.tenant.and_then(|tenant| {
        let pods = &tenant.spec.control_plane.deployment.pod_additional_metadata;
        pods.annotations.get(ours::RESTARTED_AT)
    });
    let known_time = known.and_then(|text| text.parse::<Timestamp>().ok());
    match requested {
        Some(requested) if known_time.is_none_or(|known| known < requested) => Some(requested.to_string()),
        Some(_) | None => known.cloned(),
    }
}

/// `rollout.after`, once it has passed.
fn due(control_plane: &KamajiControlPlane, now: Timestamp) -> Option<Timestamp> {
    rollout_after(control_plane).filter(|after| *after <= now)
}

/// `rollout.after`.
pub fn rollout_after(control_plane: &KamajiControlPlane) -> Option<Timestamp> {
    let Rollout { after } = control_plane.spec.rollout.as_ref()?;
    Some(after.as_ref()?.0)
}

/// Settings of the containers.
#[derive(Clone, Copy)]
struct Components<'a> {
    registry: &'a str,
    api_server: &'a ComponentSettings,
    controller_manager: &'a ComponentSettings,
    scheduler: &'a ComponentSettings,
    kine: &'a KineSettings,
}

/// Settings of the containers, by field of the TenantControlPlane.
struct Containers {
    registry_settings: RegistrySettings,
    extra_args: ComponentArgs,
    volume_mounts: ComponentVolumeMounts,
    resources: ComponentResources,
    probes: ControlPlaneProbes,
}

fn containers(components: Components<'_>, defaults: ProbeSet) -> Containers {
    let Components {
        registry,
        api_server,
        controller_manager,
        scheduler,
        kine,
    } = components;
    let ComponentSettings {
        container_image_name: api_server_image,
        extra_args: api_server_args,
        extra_volume_mounts: api_server_mounts,
        probes: api_server_probes,
        resources: api_server_resources,
    } = api_server.clone();
    let ComponentSettings {
        container_image_name: controller_manager_image,
        extra_args: controller_manager_args,
        extra_volume_mounts: controller_manager_mounts,
        probes: controller_manager_probes,
        resources: controller_manager_resources,
    } = controller_manager.clone();
    let ComponentSettings {
        container_image_name: scheduler_image,
        extra_args: scheduler_args,
        extra_volume_mounts: scheduler_mounts,
        probes: scheduler_probes,
        resources: scheduler_resources,
    } = scheduler.clone();
    let KineSettings {
        extra_args: kine_args,
        resources: kine_resources,
    } = kine.clone();
    let images = RegistrySettings::default();
    let ProbeSet {
        liveness,
        readiness,
        startup,
    } = defaults;
    Containers {
        registry_settings: RegistrySettings {
            registry: registry.to_owned(),
            // No field of a KamajiControlPlane sets it.
            tag_suffix: None,
            api_server_image: api_server_image.unwrap_or(images.api_server_image),
            controller_manager_image: controller_manager_image.unwrap_or(images.controller_manager_image),
            scheduler_image: scheduler_image.unwrap_or(images.scheduler_image),
        },
        extra_args: ComponentArgs {
            api_server: api_server_args,
            controller_manager: controller_manager_args,
            scheduler: scheduler_args,
            kine: kine_args,
        },
        volume_mounts: ComponentVolumeMounts {
            api_server: api_server_mounts,
            controller_manager: controller_manager_mounts,
            scheduler: scheduler_mounts,
        },
        resources: ComponentResources {
            api_server: api_server_resources,
            controller_manager: controller_manager_resources,
            scheduler: scheduler_resources,
            kine: kine_resources,
        },
        probes: ControlPlaneProbes {
            liveness,
            readiness,
            startup,
            api_server: api_server_probes,
            controller_manager: controller_manager_probes,
            scheduler: scheduler_probes,
        },
    }
}

fn deployment_spec(
    replicas: i32,
    settings: &DeploymentSettings,
    components: Components<'_>,
    restarted_at: Option<String>,
) -> DeploymentSpec {
    let DeploymentSettings {
        node_selector,
        runtime_class_name,
        additional_metadata,
        mut pod_additional_metadata,
        service_account_name,
        strategy,
        affinity,
        tolerations,
        topology_spread_constraints,
        probes,
        extra_init_containers,
        extra_containers,
        extra_volumes,
        // The condition FoundExternalReferenceClient reports that it has no effect.
        external_cluster_reference: _,
    } = settings.clone();
    let Containers {
        registry_settings,
        extra_args,
        volume_mounts,
        resources,
        probes,
    } = containers(components, probes.unwrap_or_default());
    if let Some(time) = restarted_at {
        pod_additional_metadata
            .annotations
            .insert(ours::RESTARTED_AT.to_owned(), time);
    }
    DeploymentSpec {
        registry_settings,
        replicas,
        node_selector,
        runtime_class_name,
        tolerations,
        affinity,
        topology_spread_constraints,
        strategy: strategy.unwrap_or_else(default_strategy),
        resources,
        extra_args,
        additional_metadata,
        pod_additional_metadata,
        additional_init_containers: extra_init_containers,
        additional_containers: extra_containers,
        additional_volumes: extra_volumes,
        additional_volume_mounts: volume_mounts,
        probes: (probes != ControlPlaneProbes::default()).then_some(probes),
        service_account_name: service_account_name.unwrap_or_else(|| "default".to_owned()),
        // No field of a KamajiControlPlane sets these three.
        automount_service_account_token: None,
        container_security_contexts: ComponentSecurityContexts::default(),
        pod_security_context: None,
    }
}

fn kubelet_spec(settings: &KubeletSettings) -> KubeletSpec {
    let KubeletSettings {
        preferred_address_types,
        cgroupfs,
        configuration_json_patches,
    } = settings.clone();
    KubeletSpec {
        preferred_address_types,
        cgroupfs,
        configuration_json_patches,
    }
}

fn addons_spec(settings: &AddonSettings) -> Addons {
    let AddonSettings {
        core_dns,
        kube_proxy,
        konnectivity,
    } = settings.clone();
    let core_dns = core_dns.map(|settings| {
        let CoreDnsSettings {
            image_repository,
            image_tag,
            // `network` maps them to the network profile.
            dns_service_ips: _,
        } = settings;
        AddonImage {
            image_repository,
            image_tag,
        }
    });
    Addons {
        core_dns,
        kube_proxy,
        konnectivity,
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use kamaji_api::labels::ours;
    use serde_json::{Value, json};

    use super::*;
    use crate::kamajicontrolplane::example;

    fn desired(control_plane: &KamajiControlPlane) -> TenantControlPlane {
        tenant(Inputs {
            control_plane,
            cluster: &example::cluster(),
            endpoint: None,
            keeper: &Keeper::Nobody,
            tenant: None,
            now: example::now(),
        })
    }

    /// Every field of the spec, each with a value of its own.
    fn everything() -> KamajiControlPlane {
        let mut control_plane = example::control_plane();
        control_plane.spec = serde_json::from_value(json!({
            "version": "1.36.3",
            "replicas": 3,
            "dataStoreName": "store",
            "dataStoreSchema": "schema",
            "dataStoreUsername": "someone",
            "dataStoreOverrides": [{"resource": "/events", "dataStore": "other"}],
            "registry": "registry.example.org",
            "network": {
                "serviceType": "LoadBalancer", "serviceAddress": "192.0.2.1", "advertiseAddress": "192.0.2.2",
                "serviceLabels": {"service-label": "a"}, "serviceAnnotations": {"service-annotation": "b"},
                "additionalServicePorts": [{"name": "extra", "port": 1234, "targetPort": 4321}],
                "loadBalancerConfig": {"loadBalancerClass": "lb.example.org/x", "loadBalancerSourceRanges": ["10.9.0.0/16"]},
                "certSANs": ["san.example.org"], "dnsServiceIPs": ["10.96.0.53"],
                "gateway": {"name": "gw", "namespace": "gw-ns", "hostname": "gw.example.org:443", "sectionName": "tls",
                            "port": 8443, "extraLabels": {"gw-label": "c"}, "extraAnnotations": {"gw-annotation": "d"}},
                "ingress": {"className": "nginx", "hostname": "in.example.org:444",
                            "extraLabels": {"in-label": "e"}, "extraAnnotations": {"in-annotation": "f"}}
            },
            "deployment": {
                "nodeSelector": {"pool": "g"}, "runtimeClassName": "gvisor",
                "additionalMetadata": {"labels": {"deployment-label": "h"}},
                "podAdditionalMetadata": {"annotations": {"pod-annotation": "i"}},
                "serviceAccountName": "account", "strategy": {"type": "Recreate"},
                "affinity": {"futureField": {"weight": 7}}, "tolerations": [{"key": "tolerated"}],
                "topologySpreadConstraints": [{"topologyKey": "zone-key"}],
                "probes": {"liveness": {"timeoutSeconds": 11}},
                "extraInitContainers": [{"name": "init-extra"}], "extraContainers": [{"name": "side-extra"}],
                "extraVolumes": [{"name": "volume-extra"}]
            },
            "apiServer": {"containerImageName": "api-image", "extraArgs": ["--api=1"],
                          "extraVolumeMounts": [{"name": "api-mount", "mountPath": "/a"}],
                          "probes": {"readiness": {"timeoutSeconds": 12}}, "resources": {"limits": {"cpu": "13"}}},
            "controllerManager": {"containerImageName": "kcm-image", "extraArgs": ["--kcm=1"],
                          "extraVolumeMounts": [{"name": "kcm-mount", "mountPath": "/k"}],
                          "probes": {"readiness": {"timeoutSeconds": 14}}, "resources": {"limits": {"cpu": "15"}}},
            "scheduler": {"containerImageName": "scheduler-image", "extraArgs": ["--scheduler=1"],
                          "extraVolumeMounts": [{"name": "scheduler-mount", "mountPath": "/s"}],
                          "probes": {"readiness": {"timeoutSeconds": 16}}, "resources": {"limits": {"cpu": "17"}}},
            "kine": {"extraArgs": ["--kine=1"], "resources": {"limits": {"cpu": "18"}}},
            "admissionControllers": ["NodeRestriction"],
            "kubelet": {"preferredAddressTypes": ["Hostname"], "cgroupfs": "cgroupfs",
                        "configurationJSONPatches": [{"op": "add", "path": "/patched", "value": 19}]},
            "addons": {"coreDNS": {"imageRepository": "dns.example.org", "imageTag": "v20"},
                       "kubeProxy": {"imageRepository": "proxy.example.org", "imageTag": "v21"},
                       "konnectivity": {"server": {"port": 8222}, "agent": {}}}
        }))
        .unwrap();
        control_plane
    }

    /// Every string and every number in a value.
    fn leaves(value: &Value, found: &mut BTreeSet<String>) {
        match value {
            Value::Object(map) => map.values().for_each(|value| leaves(value, found)),
            Value::Array(list) => list.iter().for_each(|value| leaves(value, found)),
            Value::String(text) => {
                found.insert(text.clone());
            }
            Value::Number(number) => {
                found.insert(number.to_string());
            }
            Value::Bool(_) | Value::Null => {}
        }
    }

    #[test]
    fn the_tenant_of_a_minimal_control_plane() {
        insta::assert_yaml_snapshot!(desired(&example::control_plane()));
    }

    #[test]
    fn every_field_of_the_spec_is_passed_on() {
        let mut control_plane = everything();
        let annotations = control_plane.metadata.annotations.get_or_insert_default();
        annotations.insert(kamaji::KUBECONFIG_SECRET_KEY.into(), "super-admin.conf".into());
        insta::assert_yaml_snapshot!(desired(&control_plane));

        // Every value of the KamajiControlPlane is in the TenantControlPlane.
        let (mut set, mut got) = (BTreeSet::new(), BTreeSet::new());
        leaves(&serde_json::to_value(&control_plane.spec).unwrap(), &mut set);
        leaves(
            &serde_json::to_value(desired(&control_plane).spec).unwrap(),
            &mut got,
        );
        let lost: Vec<_> = set.difference(&got).collect();
        // The version gets its `v`, and the host name of the Gateway loses the port that the parent reference has.
        assert_eq!(lost, ["1.36.3", "gw.example.org:443"]);
    }

    #[test]
    fn contract_25_no_metadata_of_the_control_plane_is_passed_on() {
        let mut control_plane = example::control_plane();
        control_plane.metadata.labels.get_or_insert_default().extend([
            ("topology.cluster.x-k8s.io/owned".to_owned(), String::new()),
            ("mine".to_owned(), "x".to_owned()),
        ]);
        control_plane
            .metadata
            .annotations
            .get_or_insert_default()
            .extend([
                (capi::PAUSED.to_owned(), String::new()),
                (
                    "kubectl.kubernetes.io/last-applied-configuration".to_owned(),
                    "{}".to_owned(),
                ),
            ]);
        let metadata = desired(&control_plane).metadata;
        let labels: Vec<_> = metadata.labels.unwrap().into_keys().collect();
        assert_eq!(labels, [ours::MANAGED_BY, capi::CLUSTER_NAME]);
        assert_eq!(metadata.annotations, None);
    }

    #[test]
    fn rollout_after_restarts_once_and_is_never_taken_back() {
        let restart = |after: Option<&str>, known: Option<&str>| {
            let mut control_plane = example::control_plane();
            if let Some(after) = after {
                control_plane.spec.rollout = Some(serde_json::from_value(json!({"after": after})).unwrap());
            }
            let mut before = example::tenant();
            if let Some(known) = known {
                let pods = &mut before.spec.control_plane.deployment.pod_additional_metadata;
                pods.annotations.insert(ours::RESTARTED_AT.into(), known.into());
            }
            let desired = tenant(Inputs {
                control_plane: &control_plane,
                cluster: &example::cluster(),
                endpoint: None,
                keeper: &Keeper::Nobody,
                tenant: Some(&before),
                now: example::now(),
            });
            let pods = desired.spec.control_plane.deployment.pod_additional_metadata;
            pods.annotations.get(ours::RESTARTED_AT).cloned()
        };
        let (early, past, later, future) = (
            "2026-03-01T10:00:00Z",
            "2026-03-01T11:30:00Z",
            "2026-03-01T11:45:00Z",
            "2026-03-01T13:00:00Z",
        );
        assert_eq!(restart(Some(past), None).as_deref(), Some(past));
        assert_eq!(restart(Some(later), Some(past)).as_deref(), Some(later));
        assert_eq!(
            restart(Some(past), Some(later)).as_deref(),
            Some(later),
            "never taken back"
        );
        assert_eq!(
            restart(None, Some(past)).as_deref(),
            Some(past),
            "nor when the field is removed"
        );
        assert_eq!(restart(Some(future), None), None, "not before its time");
        assert_eq!(restart(Some(early), None), None, "the tenant is younger");
    }
}
