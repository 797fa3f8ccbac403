//! The TenantControlPlane that a KamajiControlPlane and its Cluster ask for. Pure.
//!
//! Every field of the spec goes through, also those the engine does not support yet: it says so itself. Labels and
//! annotations of the KamajiControlPlane stay where they are (contract.md 1.8). Source: hosting.md 1.1.

use k8s_openapi::{apimachinery::pkg::apis::meta::v1::ObjectMeta, jiff::Timestamp};
use kamaji_api::{
    addons::AddonImage,
    admission::AdmissionPlugin,
    controlplane::{ComponentSettings, ControlPlaneSettings, KamajiControlPlane},
    labels::{capi, field_manager, kamaji, ours},
    probes::{ControlPlaneProbes, ProbeSet},
    tenantcontrolplane::{
        Addons, ComponentArgs, ComponentResources, ComponentVolumeMounts, ControlPlane, DeploymentSpec,
        KubeletSpec, KubernetesSpec, RegistrySettings, TenantControlPlane, TenantControlPlaneSpec,
        default_strategy,
    },
};
use kube::ResourceExt;

use super::{endpoint::Choice, network};
use crate::{capi::cluster::Cluster, k8s::meta};

/// What the TenantControlPlane is made from.
#[derive(Clone, Copy)]
pub struct Wanted<'a> {
    /// The control plane.
    pub control_plane: &'a KamajiControlPlane,
    /// Its Cluster.
    pub cluster: &'a Cluster,
    /// The endpoint in force, if there is one.
    pub endpoint: Option<&'a Choice>,
    /// The tenant as it stands.
    pub tenant: Option<&'a TenantControlPlane>,
    /// The time.
    pub now: Timestamp,
}

/// The TenantControlPlane to apply.
pub fn tenant(wanted: Wanted<'_>) -> TenantControlPlane {
    let Wanted {
        control_plane,
        cluster,
        endpoint,
        ..
    } = wanted;
    let spec = &control_plane.spec;
    let mut made = TenantControlPlane::new(
        &control_plane.name_any(),
        TenantControlPlaneSpec {
            data_store: spec.data_store_name.clone(),
            data_store_schema: spec.data_store_schema.clone(),
            data_store_username: spec.data_store_username.clone(),
            data_store_overrides: spec.data_store_overrides.clone(),
            control_plane: ControlPlane {
                deployment: deployment(spec.replicas, &spec.settings, restarted_at(wanted)),
                service: network::service(&spec.network),
                ingress: network::ingress(&spec.network),
                gateway: network::gateway(&spec.network),
            },
            kubernetes: KubernetesSpec {
                version: version(&spec.version),
                kubelet: KubeletSpec {
                    preferred_address_types: spec.kubelet.preferred_address_types.clone(),
                    cgroupfs: spec.kubelet.cgroupfs,
                    configuration_json_patches: spec.kubelet.configuration_json_patches.clone(),
                },
                admission_controllers: if spec.admission_controllers.is_empty() {
                    AdmissionPlugin::defaults()
                } else {
                    spec.admission_controllers.clone()
                },
            },
            network_profile: network::profile(&spec.settings, &cluster.spec.cluster_network, endpoint),
            addons: addons(&spec.settings),
            ..TenantControlPlaneSpec::default()
        },
    );
    made.metadata = metadata(control_plane, cluster);
    made
}

fn metadata(control_plane: &KamajiControlPlane, cluster: &Cluster) -> ObjectMeta {
    let key = kamaji::KUBECONFIG_SECRET_KEY;
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
        annotations: control_plane
            .annotations()
            .get(key)
            .filter(|value| !value.is_empty())
            .map(|value| [(key.to_owned(), value.clone())].into()),
        owner_references: Some(vec![meta::controller_of(control_plane)]),
        ..ObjectMeta::default()
    }
}

/// Kamaji's spelling of a version: with `v`.
pub fn version(text: &str) -> String {
    if text.starts_with('v') {
        text.to_owned()
    } else {
        format!("v{text}")
    }
}

/// When the pods were last asked to restart: never taken back, since that would restart them again. A time before the
/// tenant was made asks for nothing.
fn restarted_at(wanted: Wanted<'_>) -> Option<String> {
    let asked = due(wanted.control_plane, wanted.now).filter(|after| {
        let made = wanted.tenant.and_then(|t| t.metadata.creation_timestamp.as_ref());
        made.is_some_and(|made| made.0 < *after)
    });
    let known = wanted.tenant.and_then(|tenant| {
        let pods = &tenant.spec.control_plane.deployment.pod_additional_metadata;
        pods.annotations.get(ours::RESTARTED_AT)
    });
    let known_time = known.and_then(|text| text.parse::<Timestamp>().ok());
    match (asked, known_time) {
        (Some(asked), since) if since.is_none_or(|since| since < asked) => Some(asked.to_string()),
        _ => known.cloned(),
    }
}

/// `rollout.after`, once it has passed.
fn due(control_plane: &KamajiControlPlane, now: Timestamp) -> Option<Timestamp> {
    rollout_after(control_plane).filter(|after| *after <= now)
}

/// `rollout.after`.
pub fn rollout_after(control_plane: &KamajiControlPlane) -> Option<Timestamp> {
    Some(control_plane.spec.rollout.as_ref()?.after.as_ref()?.0)
}

fn deployment(
    replicas: i32,
    settings: &ControlPlaneSettings,
    restarted_at: Option<String>,
) -> DeploymentSpec {
    let pods = &settings.deployment;
    let defaults = RegistrySettings::default();
    let image = |component: &ComponentSettings, default: String| {
        component.container_image_name.clone().unwrap_or(default)
    };
    let (api_server, manager, scheduler) = (
        &settings.api_server,
        &settings.controller_manager,
        &settings.scheduler,
    );
    let mut pod_metadata = pods.pod_additional_metadata.clone();
    if let Some(time) = restarted_at {
        pod_metadata
            .annotations
            .insert(ours::RESTARTED_AT.to_owned(), time);
    }
    DeploymentSpec {
        registry_settings: RegistrySettings {
            registry: settings.registry.clone(),
            tag_suffix: None,
            api_server_image: image(api_server, defaults.api_server_image),
            controller_manager_image: image(manager, defaults.controller_manager_image),
            scheduler_image: image(scheduler, defaults.scheduler_image),
        },
        replicas,
        node_selector: pods.node_selector.clone(),
        runtime_class_name: pods.runtime_class_name.clone(),
        tolerations: pods.tolerations.clone(),
        affinity: pods.affinity.clone(),
        topology_spread_constraints: pods.topology_spread_constraints.clone(),
        strategy: pods.strategy.clone().unwrap_or_else(default_strategy),
        resources: ComponentResources {
            api_server: api_server.resources.clone(),
            controller_manager: manager.resources.clone(),
            scheduler: scheduler.resources.clone(),
            kine: settings.kine.resources.clone(),
        },
        extra_args: ComponentArgs {
            api_server: api_server.extra_args.clone(),
            controller_manager: manager.extra_args.clone(),
            scheduler: scheduler.extra_args.clone(),
            kine: settings.kine.extra_args.clone(),
        },
        additional_metadata: pods.additional_metadata.clone(),
        pod_additional_metadata: pod_metadata,
        additional_init_containers: pods.extra_init_containers.clone(),
        additional_containers: pods.extra_containers.clone(),
        additional_volumes: pods.extra_volumes.clone(),
        additional_volume_mounts: ComponentVolumeMounts {
            api_server: api_server.extra_volume_mounts.clone(),
            controller_manager: manager.extra_volume_mounts.clone(),
            scheduler: scheduler.extra_volume_mounts.clone(),
        },
        probes: probes(settings),
        service_account_name: pods
            .service_account_name
            .clone()
            .unwrap_or_else(|| "default".to_owned()),
        ..DeploymentSpec::default()
    }
}

fn probes(settings: &ControlPlaneSettings) -> Option<ControlPlaneProbes> {
    let all: ProbeSet = settings.deployment.probes.clone().unwrap_or_default();
    let made = ControlPlaneProbes {
        liveness: all.liveness,
        readiness: all.readiness,
        startup: all.startup,
        api_server: settings.api_server.probes.clone(),
        controller_manager: settings.controller_manager.probes.clone(),
        scheduler: settings.scheduler.probes.clone(),
    };
    (made != ControlPlaneProbes::default()).then_some(made)
}

fn addons(settings: &ControlPlaneSettings) -> Addons {
    Addons {
        core_dns: settings.addons.core_dns.as_ref().map(|dns| AddonImage {
            image_repository: dns.image_repository.clone(),
            image_tag: dns.image_tag.clone(),
        }),
        kube_proxy: settings.addons.kube_proxy.clone(),
        konnectivity: settings.addons.konnectivity.clone(),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use kamaji_api::labels::ours;
    use serde_json::{Value, json};

    use super::*;
    use crate::kamajicontrolplane::example;

    fn made(control_plane: &KamajiControlPlane) -> TenantControlPlane {
        tenant(Wanted {
            control_plane,
            cluster: &example::cluster(),
            endpoint: None,
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

    /// Every text and every number in a value.
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
    fn the_tenant_of_a_bare_control_plane() {
        insta::assert_yaml_snapshot!(made(&example::control_plane()));
    }

    #[test]
    fn every_field_of_the_spec_arrives() {
        let mut control_plane = everything();
        let annotations = control_plane.metadata.annotations.get_or_insert_default();
        annotations.insert(kamaji::KUBECONFIG_SECRET_KEY.into(), "super-admin.conf".into());
        insta::assert_yaml_snapshot!(made(&control_plane));

        // Nothing that somebody wrote is lost on the way.
        let (mut asked, mut got) = (BTreeSet::new(), BTreeSet::new());
        leaves(&serde_json::to_value(&control_plane.spec).unwrap(), &mut asked);
        leaves(
            &serde_json::to_value(made(&control_plane).spec).unwrap(),
            &mut got,
        );
        let lost: Vec<_> = asked.difference(&got).collect();
        // The version gets its `v`, the Gateway's host loses the port that the parent reference has.
        assert_eq!(lost, ["1.36.3", "gw.example.org:443"]);
    }

    #[test]
    fn contract_25_nothing_of_the_objects_own_metadata_goes_down() {
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
        let metadata = made(&control_plane).metadata;
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
            let made = tenant(Wanted {
                control_plane: &control_plane,
                cluster: &example::cluster(),
                endpoint: None,
                tenant: Some(&before),
                now: example::now(),
            });
            let pods = made.spec.control_plane.deployment.pod_additional_metadata;
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
            "never back"
        );
        assert_eq!(
            restart(None, Some(past)).as_deref(),
            Some(past),
            "nor when it is left out"
        );
        assert_eq!(restart(Some(future), None), None, "not before its time");
        assert_eq!(restart(Some(early), None), None, "the tenant is younger");
    }
}
