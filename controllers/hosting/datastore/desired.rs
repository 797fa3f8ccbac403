//! The objects of an etcd that the engine runs: namespace, Secrets, Service, NetworkPolicy, StatefulSet. Pure.
//!
//! They are in one namespace without clusterctl's labels, so that `clusterctl delete` does not delete it, and owned by
//! the DataStore, so that they are garbage-collected with it. The PersistentVolumeClaim is owned by the DataStore too, and
//! not by the StatefulSet: deleting the StatefulSet by mistake keeps the data.

use std::collections::BTreeMap;

use k8s_openapi::{
    ByteString,
    api::{
        apps::v1::{StatefulSet, StatefulSetSpec},
        core::v1::{
            Namespace, PersistentVolumeClaim, PersistentVolumeClaimSpec, PodTemplateSpec, Secret, Service,
            ServicePort, ServiceSpec, VolumeResourceRequirements,
        },
        networking::v1::{NetworkPolicy, NetworkPolicyIngressRule, NetworkPolicyPort, NetworkPolicySpec},
    },
    apimachinery::pkg::{
        apis::meta::v1::{LabelSelector, ObjectMeta},
        util::intstr::IntOrString,
    },
};
use kamaji_api::{
    datastore::DataStore,
    labels::{field_manager, kamaji, namespace, ours},
};
use serde_json::Value;

use super::{
    identity, member,
    parts::{self, CLIENT, CLUSTER_STATE, VOLUME},
    validate::Managed,
};
use crate::{
    k8s::{manifest::Manifest, meta::controller_of},
    pki::{issue::Material, spec::SecretSpec},
};

/// The error is a failed serialisation, which no Kubernetes type causes.
pub type Result<T> = std::result::Result<T, serde_json::Error>;

/// The namespace of all managed DataStores.
pub fn home() -> Result<Manifest> {
    let labels = [
        (kamaji::PROJECT, kamaji::PROJECT_VALUE),
        (ours::MANAGED_BY, field_manager::HOSTING),
        ("pod-security.kubernetes.io/enforce", "restricted"),
    ];
    Manifest::of(&Namespace {
        metadata: ObjectMeta {
            name: Some(namespace::DATASTORES.to_owned()),
            labels: Some(strings(&labels)),
            ..ObjectMeta::default()
        },
        ..Namespace::default()
    })
}

/// A Secret of key material.
pub fn secret(store: &DataStore, spec: &SecretSpec, material: &Material) -> Result<Manifest> {
    let data: BTreeMap<String, ByteString> = material.to_data();
    let mut metadata = metadata(store, &spec.name, spec.component);
    metadata.annotations = Some(material.annotations.clone());
    Manifest::of(&Secret {
        metadata,
        type_: Some(spec.secret_type.to_owned()),
        data: Some(data),
        ..Secret::default()
    })
}

/// How a member without data starts: `new` begins a datastore, and with `existing` etcd ends, since there is no other
/// member to get the data from. A member with data starts either way.
///
/// It is a Secret because those are followed anyway: a ConfigMap would need rights on all ConfigMaps.
pub fn start(store: &DataStore, managed: &Managed) -> Result<Manifest> {
    let state = if identity::may_begin(store) {
        "new"
    } else {
        "existing"
    };
    Manifest::of(&Secret {
        metadata: metadata(store, &parts::start(&managed.name), "etcd"),
        type_: Some("Opaque".to_owned()),
        data: Some(BTreeMap::from([(
            CLUSTER_STATE.to_owned(),
            ByteString(state.into()),
        )])),
        ..Secret::default()
    })
}

/// Start, Service, NetworkPolicy and StatefulSet, in the order in which they are applied. `ca` is the fingerprint of the CA: a
/// change of it rolls the pods, since etcd reloads renewed certificates but not its CA.
pub fn objects(store: &DataStore, managed: &Managed, ca: &str) -> Result<Vec<Manifest>> {
    Ok(vec![
        start(store, managed)?,
        service(store, managed)?,
        network_policy(store, managed)?,
        stateful_set(store, managed, ca)?,
    ])
}

/// The PersistentVolumeClaim `name` with the DataStore as its owner.
pub fn adopted_claim(store: &DataStore, name: &str) -> Result<Manifest> {
    Manifest::of(&PersistentVolumeClaim {
        metadata: metadata(store, name, "etcd"),
        ..PersistentVolumeClaim::default()
    })
}

fn service(store: &DataStore, managed: &Managed) -> Result<Manifest> {
    let port = |name: &str, port: i32| ServicePort {
        name: Some(name.to_owned()),
        port,
        protocol: Some("TCP".to_owned()),
        target_port: Some(IntOrString::Int(port)),
        ..ServicePort::default()
    };
    Manifest::of(&Service {
        metadata: metadata(store, &managed.name, "etcd"),
        spec: Some(ServiceSpec {
            cluster_ip: Some("None".to_owned()),
            // Members resolve their names before they are ready.
            publish_not_ready_addresses: Some(true),
            selector: Some(selector(&managed.name)),
            ports: Some(vec![port("client", CLIENT)]),
            ..ServiceSpec::default()
        }),
        ..Service::default()
    })
}

fn network_policy(store: &DataStore, managed: &Managed) -> Result<Manifest> {
    let client = NetworkPolicyPort {
        port: Some(IntOrString::Int(CLIENT)),
        protocol: Some("TCP".to_owned()),
        ..NetworkPolicyPort::default()
    };
    let members = LabelSelector {
        match_labels: Some(selector(&managed.name)),
        ..LabelSelector::default()
    };
    Manifest::of(&NetworkPolicy {
        metadata: metadata(store, &managed.name, "etcd"),
        spec: Some(NetworkPolicySpec {
            pod_selector: Some(members),
            policy_types: Some(vec!["Ingress".to_owned()]),
            ingress: Some(vec![NetworkPolicyIngressRule {
                ports: Some(vec![client]),
                from: None,
            }]),
            ..NetworkPolicySpec::default()
        }),
    })
}

fn stateful_set(store: &DataStore, managed: &Managed, ca: &str) -> Result<Manifest> {
    let name = &managed.name;
    let labels = labels(store, "etcd");
    let set = StatefulSet {
        metadata: metadata(store, name, "etcd"),
        spec: Some(StatefulSetSpec {
            replicas: Some(managed.spec.replicas),
            service_name: Some(name.clone()),
            pod_management_policy: Some("Parallel".to_owned()),
            selector: LabelSelector {
                match_labels: Some(selector(name)),
                ..LabelSelector::default()
            },
            template: PodTemplateSpec {
                metadata: Some(ObjectMeta {
                    labels: Some(labels.clone()),
                    annotations: Some(strings(&[(ours::CA_FINGERPRINT, ca)])),
                    ..ObjectMeta::default()
                }),
                spec: Some(member::pod(managed)),
            },
            volume_claim_templates: Some(vec![claim(managed, labels)]),
            ..StatefulSetSpec::default()
        }),
        ..StatefulSet::default()
    };
    let resources = managed
        .spec
        .resources
        .as_ref()
        .map(|resources| resources.0.clone());
    Manifest::with_overlay(&set, |body| {
        let container = body.pointer_mut("/spec/template/spec/containers/0");
        if let (Some(Value::Object(container)), Some(resources)) = (container, resources) {
            container.insert("resources".to_owned(), resources);
        }
    })
}

fn claim(managed: &Managed, labels: BTreeMap<String, String>) -> PersistentVolumeClaim {
    let storage = &managed.spec.storage;
    PersistentVolumeClaim {
        metadata: ObjectMeta {
            name: Some(VOLUME.to_owned()),
            labels: Some(labels),
            ..ObjectMeta::default()
        },
        spec: Some(PersistentVolumeClaimSpec {
            access_modes: Some(vec!["ReadWriteOnce".to_owned()]),
            storage_class_name: storage.class_name.clone(),
            resources: Some(VolumeResourceRequirements {
                requests: Some(BTreeMap::from([("storage".to_owned(), storage.size.clone())])),
                ..VolumeResourceRequirements::default()
            }),
            ..PersistentVolumeClaimSpec::default()
        }),
        ..PersistentVolumeClaim::default()
    }
}

fn metadata(store: &DataStore, name: &str, component: &str) -> ObjectMeta {
    ObjectMeta {
        name: Some(name.to_owned()),
        namespace: Some(namespace::DATASTORES.to_owned()),
        labels: Some(labels(store, component)),
        owner_references: Some(vec![controller_of(store)]),
        ..ObjectMeta::default()
    }
}

fn labels(store: &DataStore, component: &str) -> BTreeMap<String, String> {
    let name = store.metadata.name.as_deref().unwrap_or_default();
    strings(&[
        (kamaji::PROJECT, kamaji::PROJECT_VALUE),
        (kamaji::COMPONENT, component),
        (ours::MANAGED_BY, field_manager::HOSTING),
        (ours::DATASTORE, name),
    ])
}

fn selector(name: &str) -> BTreeMap<String, String> {
    strings(&[(ours::DATASTORE, name), (kamaji::COMPONENT, "etcd")])
}

fn strings(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
    pairs
        .iter()
        .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()))
        .collect()
}

#[cfg(test)]
mod tests {
    use kamaji_api::datastore::DataStoreSpec;

    use super::{
        super::{
            parts::{admin, ca, endpoints, server},
            validate::{Valid, validate},
        },
        *,
    };
    use crate::pki::spec::Content;

    fn example() -> (DataStore, Managed) {
        let mut store = DataStore::new(
            "default",
            DataStoreSpec {
                managed: Some(kamaji_api::datastore::ManagedEtcd::default()),
                ..DataStoreSpec::default()
            },
        );
        store.metadata.uid = Some("0000".to_owned());
        let Valid::Managed(managed) = validate(&store).unwrap() else {
            panic!("not managed");
        };
        (store, *managed)
    }

    #[test]
    fn the_objects_of_a_managed_etcd() {
        let (store, managed) = example();
        let text: Vec<String> = objects(&store, &managed, "aa")
            .unwrap()
            .iter()
            .map(|manifest| serde_yaml::to_string(manifest.body()).unwrap())
            .collect();
        insta::assert_snapshot!(text.join("---\n"));
    }

    #[test]
    fn the_namespace_is_restricted_and_without_labels_of_clusterctl() {
        let body = home().unwrap().body().to_string();
        assert!(body.contains("\"pod-security.kubernetes.io/enforce\":\"restricted\""));
        assert!(!body.contains("cluster.x-k8s.io/provider") && !body.contains("clusterctl"));
    }

    #[test]
    fn the_certificate_covers_the_endpoints() {
        let (_, managed) = example();
        assert_eq!(
            endpoints(&managed),
            ["default-0.default.capi-kamaji-datastores.svc:2379"]
        );
        let Content::Certificate { leaf, .. } = server("default").content else {
            panic!("not a certificate");
        };
        assert!(leaf.names.dns.contains("*.default.capi-kamaji-datastores.svc"));
    }

    #[test]
    fn only_the_admin_is_root_and_nobody_is_in_system_masters() {
        let text = |spec: &SecretSpec| serde_json::to_string(&spec.content).unwrap();
        assert!(text(&admin("default")).contains("\"root\""));
        for spec in [ca("default"), server("default"), admin("default")] {
            assert!(!text(&spec).contains("system:masters"), "{}", spec.name);
        }
    }

    #[test]
    fn resources_of_the_spec_replace_the_defaults() {
        let (mut store, _) = example();
        store.spec.managed.as_mut().unwrap().resources =
            Some(serde_json::json!({"limits": {"memory": "1Gi"}, "claims": [{"name": "x"}]}).into());
        let Valid::Managed(managed) = validate(&store).unwrap() else {
            panic!("not managed");
        };
        let body = stateful_set(&store, &managed, "aa").unwrap().body().clone();
        let resources = body
            .pointer("/spec/template/spec/containers/0/resources")
            .unwrap();
        assert_eq!(
            resources,
            &serde_json::json!({"limits": {"memory": "1Gi"}, "claims": [{"name": "x"}]})
        );
    }
}
