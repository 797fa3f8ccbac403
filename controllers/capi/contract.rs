//! Which contract of Cluster API the kind of an infrastructure object follows, in which version, and what that version has:
//! from labels and schema of its definition. Pure. Source of the rules:
//! <https://cluster-api.sigs.k8s.io/developer/providers/contracts/overview#api-version-labels>.
//!
//! Cluster API reads infrastructure objects in this version. In another one the fields of the contract may have other names,
//! and the API server drops fields that it does not know without an error.

use std::collections::BTreeMap;

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::{
    CustomResourceDefinition, JSONSchemaProps,
};
use kamaji_api::{conditions::Reason, labels::capi};
use kube::{
    ResourceExt as _,
    core::{ApiResource, GroupVersionKind, Version},
};

use crate::k8s::problem::Problem;

/// A version of the contract between Cluster API and its providers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Contract {
    /// The one before, which Cluster API accepts until 1.16.
    V1Beta1,
    /// The current one.
    V1Beta2,
}

impl Contract {
    /// Cluster API takes the newest that a definition has a label for.
    const NEWEST_FIRST: [Self; 2] = [Self::V1Beta2, Self::V1Beta1];

    fn label(self) -> &'static str {
        match self {
            Self::V1Beta1 => capi::CONTRACT_V1BETA1,
            Self::V1Beta2 => capi::CONTRACT,
        }
    }

    /// The field by which an infrastructure object says that it is provisioned.
    pub fn provisioned(self) -> &'static [&'static str] {
        match self {
            Self::V1Beta1 => &["status", "ready"],
            Self::V1Beta2 => &["status", "initialization", "provisioned"],
        }
    }
}

/// What is known about a kind of infrastructure objects.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InfrastructureKind {
    /// Group, kind, plural, and the version that follows the contract.
    pub resource: ApiResource,
    /// The contract.
    pub contract: Contract,
    /// The version has `spec.controlPlaneEndpoint` with `host` and `port`.
    pub takes_endpoint: bool,
    /// The version has the field [`Contract::provisioned`].
    pub reports_provisioned: bool,
}

/// Name of the definition of a kind. Cluster API requires the name that follows from group and kind.
pub fn definition_name(group: &str, kind: &str) -> String {
    let guessed = ApiResource::from_gvk(&GroupVersionKind::gvk(group, "", kind));
    format!("{}.{group}", guessed.plural)
}

/// Reads a definition.
///
/// # Errors
/// It names no version that follows a known contract, or one that is not served.
pub fn read(definition: &CustomResourceDefinition) -> Result<InfrastructureKind, Problem> {
    let name = definition.name_any();
    let Some((contract, version)) = contract(definition.labels()) else {
        let (newest, before) = (capi::CONTRACT, capi::CONTRACT_V1BETA1);
        return Err(Problem::unwatched(
            Reason::NoContractLabel,
            format!(
                "CustomResourceDefinition {name} has neither the label {newest} nor {before}, so Cluster API cannot use it \
                 either; install a release of the infrastructure provider that has the label"
            ),
        ));
    };
    let spec = &definition.spec;
    let served = spec
        .versions
        .iter()
        .find(|known| known.name == version && known.served);
    let Some(served) = served else {
        return Err(Problem::unwatched(
            Reason::NoContractLabel,
            format!(
                "the label {} of CustomResourceDefinition {name} names {version}, which is not served; let the \
                 infrastructure provider's release and its definitions fit together",
                contract.label()
            ),
        ));
    };
    let schema = served
        .schema
        .as_ref()
        .and_then(|schema| schema.open_api_v3_schema.as_ref());
    let has = |path: &[&str], type_: &str| {
        let found = schema.and_then(|schema| below(schema, path));
        found.is_some_and(|found| found.type_.as_deref() == Some(type_))
    };
    let endpoint = |part, type_| has(&["spec", "controlPlaneEndpoint", part], type_);
    let gvk = GroupVersionKind::gvk(&spec.group, &version, &spec.names.kind);
    Ok(InfrastructureKind {
        resource: ApiResource::from_gvk_with_plural(&gvk, &spec.names.plural),
        contract,
        takes_endpoint: endpoint("host", "string") && endpoint("port", "integer"),
        reports_provisioned: has(contract.provisioned(), "boolean"),
    })
}

/// The newest contract with a label, and the newest version that the label lists.
fn contract(labels: &BTreeMap<String, String>) -> Option<(Contract, String)> {
    Contract::NEWEST_FIRST.into_iter().find_map(|contract| {
        let versions = labels
            .get(contract.label())?
            .split('_')
            .filter(|version| !version.is_empty());
        let newest = versions.max_by_key(|version| Version::parse(version).priority())?;
        Some((contract, newest.to_owned()))
    })
}

/// The schema of a field.
pub fn below<'a>(schema: &'a JSONSchemaProps, path: &[&str]) -> Option<&'a JSONSchemaProps> {
    path.iter()
        .try_fold(schema, |schema, name| schema.properties.as_ref()?.get(*name))
}

#[cfg(test)]
mod tests {
    use rstest::rstest;
    use serde_json::{Value, json};

    use super::*;

    fn labels(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
        let owned = |(key, value): &(&str, &str)| (format!("cluster.x-k8s.io/{key}"), (*value).to_owned());
        pairs.iter().map(owned).collect()
    }

    #[rstest]
    #[case::one(&[("v1beta1", "v1alpha1")], Some((Contract::V1Beta1, "v1alpha1")))]
    #[case::newest_contract(&[("v1beta1", "v1beta1"), ("v1beta2", "v1beta2")], Some((Contract::V1Beta2, "v1beta2")))]
    #[case::same_version(&[("v1beta1", "v1alpha2"), ("v1beta2", "v1alpha2")], Some((Contract::V1Beta2, "v1alpha2")))]
    #[case::newest_version(&[("v1beta1", "v1beta1_v1beta2")], Some((Contract::V1Beta1, "v1beta2")))]
    #[case::by_value_not_by_place(&[("v1beta1", "v1beta2_v1beta10_v1beta1")], Some((Contract::V1Beta1, "v1beta10")))]
    #[case::stable_before_beta(&[("v1beta2", "v1_v2beta1")], Some((Contract::V1Beta2, "v1")))]
    #[case::empty_label(&[("v1beta2", ""), ("v1beta1", "v1")], Some((Contract::V1Beta1, "v1")))]
    #[case::unknown_contract(&[("v1beta3", "v1"), ("v1alpha4", "v1")], None)]
    #[case::none(&[], None)]
    fn the_labels_name_contract_and_version(
        #[case] pairs: &[(&str, &str)],
        #[case] expected: Option<(Contract, &str)>,
    ) {
        let expected = expected.map(|(contract, version)| (contract, version.to_owned()));
        assert_eq!(contract(&labels(pairs)), expected);
    }

    /// A definition with the versions `v1` (served or not) and `v2`, which have different schemas.
    fn definition(pairs: &[(&str, &str)], v1_is_served: bool) -> CustomResourceDefinition {
        let version = |name: &str, served: bool, endpoint: Value| {
            json!({
                "name": name, "served": served, "storage": name == "v2",
                "schema": {"openAPIV3Schema": {"type": "object", "properties": {
                    "spec": {"type": "object", "properties": {"controlPlaneEndpoint": {
                        "type": "object", "properties": endpoint,
                    }}},
                    "status": {"type": "object", "properties": {"ready": {"type": "boolean"}}},
                }}},
            })
        };
        let full = json!({"host": {"type": "string"}, "port": {"type": "integer"}});
        serde_json::from_value(json!({
            "metadata": {"name": "thatclusters.i.example", "labels": labels(pairs)},
            "spec": {
                "group": "i.example", "scope": "Namespaced",
                "names": {"kind": "ThatCluster", "plural": "thatclusters"},
                "versions": [
                    version("v1", v1_is_served, full),
                    version("v2", true, json!({"host": {"type": "string"}, "port": {"type": "string"}})),
                ],
            },
        }))
        .unwrap()
    }

    #[test]
    fn the_schema_of_the_contracts_version_decides_and_no_other() {
        let known = read(&definition(&[("v1beta1", "v1")], true)).unwrap();
        assert_eq!(known.resource.api_version, "i.example/v1");
        assert_eq!(known.resource.plural, "thatclusters");
        assert!(known.takes_endpoint && known.reports_provisioned);
        let known = read(&definition(&[("v1beta2", "v2")], true)).unwrap();
        assert!(!known.takes_endpoint, "the port is no number");
        assert!(
            !known.reports_provisioned,
            "status.ready belongs to the contract before"
        );
    }

    #[test]
    fn a_definition_that_cluster_api_cannot_use_is_named_with_the_label() {
        let message = |definition| {
            let problem = read(&definition).unwrap_err();
            assert_eq!(problem.reason, Reason::NoContractLabel);
            problem.message
        };
        let without = message(definition(&[], true));
        assert!(
            without.contains("thatclusters.i.example has neither the label cluster.x-k8s.io/v1beta2"),
            "{without}"
        );
        let not_served = message(definition(&[("v1beta2", "v1")], false));
        assert!(
            not_served.contains("names v1, which is not served"),
            "{not_served}"
        );
    }

    #[test]
    fn the_definition_of_a_kind_has_the_name_that_cluster_api_expects() {
        let group = "infrastructure.cluster.x-k8s.io";
        assert_eq!(
            definition_name(group, "AWSCluster"),
            format!("awsclusters.{group}")
        );
        assert_eq!(definition_name("i.example", "Policy"), "policies.i.example");
    }
}
