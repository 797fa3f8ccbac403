//! The objects of one tenant as we want them, one file a kind. Pure: a checked tenant goes in, manifests come out.
//!
//! Names, keys, labels and the etcd prefix are Kamaji's (hosting specification 2.2, 2.3, 2.7–2.9, 8); what is
//! hardened against it is DESIGN 2.7.

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kamaji_api::labels::{field_manager, kamaji, ours};
use kamaji_api::metadata::AdditionalMetadata;
use kamaji_api::tenantcontrolplane::TenantControlPlane;
use kube::ResourceExt;

use crate::k8s::conditions::quoted;
use crate::k8s::meta::controller_of;

pub mod containers;
pub mod deployment;
pub mod flags;
pub mod networkpolicy;
pub mod pdb;
pub mod secrets;
pub mod service;
pub mod volumes;

/// Failure to serialise what was just built; no Kubernetes type does that.
pub type Result<T> = std::result::Result<T, serde_json::Error>;

/// Metadata of an object of `tenant`; what the user adds loses against the engine's own.
pub(super) fn metadata(
    tenant: &TenantControlPlane,
    name: &str,
    component: &str,
    extra: Option<&AdditionalMetadata>,
) -> ObjectMeta {
    let mut labels = extra.map(|extra| extra.labels.clone()).unwrap_or_default();
    labels.extend(labels_of(tenant, component));
    let annotations = extra.map(|extra| extra.annotations.clone()).unwrap_or_default();
    ObjectMeta {
        name: Some(name.to_owned()),
        namespace: tenant.namespace(),
        labels: Some(labels),
        annotations: Some(annotations),
        owner_references: Some(vec![controller_of(tenant)]),
        ..ObjectMeta::default()
    }
}

/// Labels of every object of `tenant`.
pub(super) fn labels_of(tenant: &TenantControlPlane, component: &str) -> BTreeMap<String, String> {
    let mut labels = selector(tenant);
    labels.extend(
        [
            (kamaji::PROJECT, kamaji::PROJECT_VALUE),
            (kamaji::COMPONENT, component),
            (ours::MANAGED_BY, field_manager::HOSTING),
        ]
        .map(|(key, value)| (key.to_owned(), value.to_owned())),
    );
    labels
}

/// What a user switches by annotation of the TenantControlPlane.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Switch {
    /// See [`ours::NODE_RESTRICTION`].
    NodeRestriction,
    /// See [`ours::NETWORK_POLICY`].
    NetworkPolicy,
    /// See [`ours::VERIFY_KUBELETS`].
    VerifyKubelets,
}

impl Switch {
    const ALL: [Self; 3] = [Self::NodeRestriction, Self::NetworkPolicy, Self::VerifyKubelets];

    /// The annotation, and the only value of it that has an effect: the opposite of the default.
    fn annotation(self) -> (&'static str, &'static str) {
        match self {
            Self::NodeRestriction => (ours::NODE_RESTRICTION, ours::DISABLED),
            Self::NetworkPolicy => (ours::NETWORK_POLICY, ours::DISABLED),
            Self::VerifyKubelets => (ours::VERIFY_KUBELETS, ours::ENABLED),
        }
    }

    /// Whether it is switched away from its default.
    pub(super) fn is_set(self, tenant: &TenantControlPlane) -> bool {
        let (key, value) = self.annotation();
        tenant.annotations().get(key).is_some_and(|given| given == value)
    }

    /// Annotations with a value that says neither on nor off.
    pub(super) fn unknown(tenant: &TenantControlPlane) -> impl Iterator<Item = String> {
        Self::ALL.into_iter().filter_map(|switch| {
            let (key, _) = switch.annotation();
            let given = tenant.annotations().get(key)?;
            let known = [ours::ENABLED, ours::DISABLED].contains(&given.as_str());
            (!known).then(|| {
                let given = quoted(given);
                format!(
                    "annotation {key} ({given:?} is neither {} nor {})",
                    ours::ENABLED,
                    ours::DISABLED
                )
            })
        })
    }
}

/// What Service, Deployment, NetworkPolicy and PodDisruptionBudget find the pods by.
pub fn selector(tenant: &TenantControlPlane) -> BTreeMap<String, String> {
    BTreeMap::from([(kamaji::NAME.to_owned(), tenant.name_any())])
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use kamaji_api::tenantcontrolplane::TenantControlPlane;
    use serde_json::{Value, json};

    use super::deployment::{Inputs, OUR_AUTHORITY};
    use super::*;
    use crate::hosting::testing::tenant as example;
    use crate::k8s::manifest::Manifest;
    use crate::pki::spec::component;

    fn deployment_of(tenant: &TenantControlPlane) -> Value {
        let valid = example::valid(tenant);
        let hashes = BTreeMap::from([
            (component::CA, "ca-digest".to_owned()),
            (component::API_SERVER, "api-server-digest".to_owned()),
        ]);
        let inputs = Inputs {
            tenant,
            valid: &valid,
            storage: example::storage(),
            advertise: Some("10.0.0.7".parse().unwrap()),
            authority: OUR_AUTHORITY,
            hashes: &hashes,
            config_hash: "config-digest",
        };
        deployment::render(&inputs).unwrap().body().clone()
    }

    /// The object without the digest of itself.
    fn shown(body: &Value) -> Value {
        let mut body = body.clone();
        if let Some(annotations) = body
            .pointer_mut("/metadata/annotations")
            .and_then(Value::as_object_mut)
        {
            annotations.remove(crate::k8s::digest::ANNOTATION);
        }
        body
    }

    fn snapshot(name: &str, manifest: &Manifest) {
        insta::assert_yaml_snapshot!(name, shown(manifest.body()));
    }

    #[test]
    fn objects_of_a_default_tenant() {
        let tenant = example::tenant();
        snapshot("service", &service::render(&tenant).unwrap());
        snapshot("networkpolicy", &networkpolicy::render(&tenant).unwrap().unwrap());
        snapshot("pdb", &pdb::render(&tenant).unwrap().unwrap());
        snapshot(
            "datastore-config",
            &secrets::datastore_config(&tenant, "schema", "user").unwrap(),
        );
        insta::assert_yaml_snapshot!("deployment", shown(&deployment_of(&tenant)));
    }

    #[test]
    fn hosting_beyond_06_only_the_controller_manager_sees_the_authority_key() {
        let body = deployment_of(&example::tenant());
        let pod = &body["spec"]["template"]["spec"];
        let with_key: Vec<&str> = pod["volumes"]
            .as_array()
            .unwrap()
            .iter()
            .filter(|volume| {
                let items = volume.to_string();
                items.contains("\"tls.key\"") || items.contains("ca.key\"")
            })
            .filter_map(|volume| volume["name"].as_str())
            .collect();
        assert_eq!(with_key, ["kube-controller-manager"]);
        for container in pod["containers"].as_array().unwrap() {
            let mounts = container["volumeMounts"].as_array().unwrap();
            assert_eq!(mounts.len(), 1, "one volume a container");
            assert_eq!(mounts[0]["name"], container["name"]);
        }
    }

    #[test]
    fn one_replica_needs_no_budget_and_no_spread() {
        let mut tenant = example::tenant();
        tenant.spec.control_plane.deployment.replicas = 1;
        assert!(pdb::render(&tenant).unwrap().is_none());
        let body = deployment_of(&tenant);
        assert!(
            body["spec"]["template"]["spec"]
                .get("topologySpreadConstraints")
                .is_none()
        );
    }

    #[test]
    fn hosting_peer_12_13_14_the_users_parts_are_laid_over() {
        let mut tenant = example::tenant();
        let asked = &mut tenant.spec.control_plane.deployment;
        asked.pod_additional_metadata.labels = [("team".to_owned(), "blue".to_owned())].into();
        asked.strategy = json!({ "type": "Recreate" }).into();
        asked.pod_security_context = Some(json!({ "fsGroup": 7, "someNewField": true }).into());
        asked.container_security_contexts.scheduler = Some(json!({ "runAsUser": 1000 }).into());
        asked.resources.api_server = Some(json!({ "requests": { "cpu": "1" } }).into());
        asked.additional_containers = vec![json!({ "name": "side", "image": "x" }).into()];
        asked.additional_volumes = vec![json!({ "name": "mine", "emptyDir": {} }).into()];
        asked.additional_volume_mounts.api_server =
            vec![json!({ "name": "mine", "mountPath": "/mine" }).into()];
        asked.topology_spread_constraints = vec![json!({ "maxSkew": 2, "topologyKey": "zone" }).into()];
        let body = deployment_of(&tenant);
        assert_eq!(body["spec"]["strategy"], json!({ "type": "Recreate" }));
        let pod = &body["spec"]["template"]["spec"];
        assert_eq!(body["spec"]["template"]["metadata"]["labels"]["team"], "blue");
        assert_eq!(pod["securityContext"]["fsGroup"], 7);
        assert_eq!(pod["securityContext"]["someNewField"], true);
        assert_eq!(
            pod["securityContext"]["runAsNonRoot"], true,
            "the engine's others stay"
        );
        let names: Vec<&str> = pod["containers"]
            .as_array()
            .unwrap()
            .iter()
            .filter_map(|container| container["name"].as_str())
            .collect();
        assert_eq!(
            names,
            [
                "side",
                "kube-apiserver",
                "kube-scheduler",
                "kube-controller-manager"
            ]
        );
        assert_eq!(pod["containers"][1]["resources"]["requests"]["cpu"], "1");
        assert_eq!(pod["containers"][1]["volumeMounts"][0]["mountPath"], "/mine");
        assert_eq!(pod["containers"][2]["securityContext"]["runAsUser"], 1000);
        assert_eq!(
            pod["containers"][2]["securityContext"]["allowPrivilegeEscalation"],
            false
        );
        assert_eq!(pod["volumes"][0]["name"], "mine");
        assert_eq!(
            pod["topologySpreadConstraints"][0]["labelSelector"]["matchLabels"],
            json!({ "kamaji.clastix.io/name": "alpha" })
        );
    }

    #[test]
    fn scaling_replaces_no_pod() {
        let tenant = example::tenant();
        let template = |body: &Value| body["spec"]["template"].clone();
        let before = deployment_of(&tenant);
        assert_eq!(template(&before), template(&deployment_of(&tenant)));
        let mut scaled = tenant.clone();
        scaled.spec.control_plane.deployment.replicas = 3;
        assert_eq!(template(&before), template(&deployment_of(&scaled)));
    }
}
