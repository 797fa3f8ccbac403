//! Each way in which an infrastructure object gets an endpoint, or gets none.

use kamaji_api::conditions::Reason;
use kube::core::{ApiResource, GroupVersionKind};
use rstest::rstest;

use super::*;
use crate::capi::contract::Contract;

fn kind(contract: Contract) -> InfrastructureKind {
    InfrastructureKind {
        resource: ApiResource::from_gvk(&GroupVersionKind::gvk("i.example", "v1", "ThatCluster")),
        contract,
        takes_endpoint: true,
        reports_provisioned: true,
    }
}

fn at(host: &str, port: i32) -> Endpoint {
    Endpoint {
        host: host.into(),
        port,
    }
}

/// `ThatCluster a` with this `spec.controlPlaneEndpoint`.
fn object(endpoint: &Value) -> DynamicObject {
    serde_json::from_value(json!({
        "apiVersion": "i.example/v1", "kind": "ThatCluster",
        "metadata": {"name": "a", "namespace": "demo", "uid": "u", "resourceVersion": "7"},
        "spec": {"controlPlaneEndpoint": endpoint},
    }))
    .unwrap()
}

/// The object, with the host written by these field managers.
fn owned(endpoint: &Value, managers: &[&str]) -> DynamicObject {
    let mut object = object(endpoint);
    let entries = managers.iter().map(|manager| {
        json!({
            "manager": manager, "operation": "Apply", "apiVersion": "i.example/v1", "fieldsType": "FieldsV1",
            "fieldsV1": {"f:spec": {"f:controlPlaneEndpoint": {"f:host": {}, "f:port": {}}}},
        })
    });
    let entries: Vec<_> = entries
        .map(|entry| serde_json::from_value(entry).unwrap())
        .collect();
    object.metadata.managed_fields = Some(entries);
    object
}

fn quirk(text: &str) -> Quirk {
    serde_yaml::from_str(text).unwrap()
}

/// Decides for 192.0.2.1:6443 while the Cluster has no endpoint.
fn decide_for(quirk: &Quirk, object: &DynamicObject) -> Result<Decision, Problem> {
    let endpoint = at("192.0.2.1", 6443);
    let wanted = Wanted {
        endpoint: &endpoint,
        of_cluster: None,
    };
    decide(&kind(Contract::V1Beta2), quirk, object, wanted)
}

const WRITE: Decision = Decision {
    endpoint: true,
    provisioned: false,
    manager: Manager::Provider,
};

#[rstest]
#[case::unset(json!(null), true)]
#[case::empty(json!({"host": "", "port": 0}), true)]
#[case::port_of_a_webhook(json!({"port": 6443}), true)]
#[case::equal(json!({"host": "192.0.2.1", "port": 6443}), false)]
#[case::host_without_port(json!({"host": "192.0.2.1"}), true)]
#[case::host_with_port_0(json!({"host": "192.0.2.1", "port": 0}), true)]
fn an_endpoint_that_is_missing_is_written_and_one_that_is_there_is_left(
    #[case] current: Value,
    #[case] writes: bool,
) {
    let decision = decide_for(&Quirk::default(), &object(&current)).unwrap();
    assert_eq!(
        decision,
        Decision {
            endpoint: writes,
            ..Decision::default()
        }
    );
}

#[test]
fn an_endpoint_of_somebody_else_is_never_replaced_and_he_is_named() {
    let other = json!({"host": "198.51.100.9", "port": 443});
    for managers in [&["that-manager"][..], &["kamaji-endpoint", "kubectl"], &[]] {
        let problem = decide_for(&Quirk::default(), &owned(&other, managers)).unwrap_err();
        assert_eq!(problem.reason, Reason::EndpointConflict);
        let by = if managers.is_empty() {
            "somebody".to_owned()
        } else {
            managers.join(", ")
        };
        assert_eq!(
            problem.message,
            format!(
                "ThatCluster a has the endpoint 198.51.100.9:443, set by {by}, and the control plane has 192.0.2.1:6443; \
                 remove it there, or set it to this one"
            )
        );
    }
    let port_alone = json!({"host": "192.0.2.1", "port": 443});
    assert_eq!(
        decide_for(&Quirk::default(), &object(&port_alone))
            .unwrap_err()
            .reason,
        Reason::EndpointConflict
    );
}

#[test]
fn our_own_endpoint_follows_the_control_plane_until_the_cluster_has_another() {
    let before = owned(&json!({"host": "192.0.2.7", "port": 6443}), &["kamaji-endpoint"]);
    assert_eq!(decide_for(&Quirk::default(), &before), Ok(WRITE));
    let (endpoint, other) = (at("192.0.2.1", 6443), at("192.0.2.7", 6443));
    let with = |of_cluster, quirk: &Quirk| {
        let wanted = Wanted {
            endpoint: &endpoint,
            of_cluster,
        };
        decide(&kind(Contract::V1Beta2), quirk, &before, wanted)
    };
    assert_eq!(
        with(Some(&endpoint), &Quirk::default()),
        Ok(WRITE),
        "after a move"
    );
    assert_eq!(
        with(Some(&other), &Quirk::default()).unwrap_err().reason,
        Reason::EndpointConflict
    );
    let immutable = with(None, &quirk("{immutable: true}")).unwrap_err();
    assert!(
        immutable
            .message
            .ends_with("it cannot be changed, so create it again without one"),
        "{}",
        immutable.message
    );
    let verified = with(None, &quirk("{mode: verify}")).unwrap_err();
    assert_eq!(verified.reason, Reason::EndpointConflict);
}

#[test]
fn a_kind_that_its_user_presets_is_compared_and_never_written() {
    let verify = quirk("{mode: verify}");
    for current in [json!(null), json!({"port": 443}), json!({"host": "192.0.2.1"})] {
        let problem = decide_for(&verify, &object(&current)).unwrap_err();
        assert_eq!(problem.reason, Reason::EndpointMustBePreset);
        assert!(
            problem.message.contains("to host 192.0.2.1 and port 6443"),
            "{}",
            problem.message
        );
    }
    let equal = json!({"host": "192.0.2.1", "port": 6443});
    assert_eq!(decide_for(&verify, &object(&equal)), Ok(Decision::default()));
}

#[test]
fn a_provider_that_would_take_an_endpoint_of_its_own_is_not_raced() {
    let needs = quirk(
        "require: [{path: spec.external, op: eq, value: true}, {versions: [v2], path: spec.lb, op: absent}]",
    );
    let mut object = object(&json!(null));
    let problem = decide_for(&needs, &object).unwrap_err();
    assert_eq!(problem.reason, Reason::HostedModeNotConfigured);
    assert!(
        problem.message.contains("ThatCluster a is not set up"),
        "{}",
        problem.message
    );
    assert!(
        problem.message.contains("it needs spec.external: true; set"),
        "{}",
        problem.message
    );
    object.data["spec"]["external"] = json!(true);
    assert_eq!(decide_for(&needs, &object), Ok(WRITE));
}

fn managed_by(value: &str) -> DynamicObject {
    let mut object = object(&json!(null));
    let annotations = [(capi::MANAGED_BY.to_owned(), value.to_owned())];
    object.metadata.annotations = Some(annotations.into());
    object
}

#[rstest]
#[case::ours("kamaji", "{}", true)]
#[case::another("terraform", "{}", false)]
#[case::any("terraform", "{anyManager: true}", true)]
#[case::needed(
    "kamaji",
    "require: [{path: \"metadata.annotations['cluster.x-k8s.io/managed-by']\", op: exists}]",
    true
)]
#[case::in_the_place_of_a_switch("kamaji", "require: [{path: spec.external, op: eq, value: true}]", true)]
fn an_object_that_was_handed_over_gets_its_endpoint_and_ours_is_reported_as_provisioned(
    #[case] value: &str,
    #[case] text: &str,
    #[case] provisioned: bool,
) {
    let expected = Decision {
        provisioned,
        manager: if provisioned {
            Manager::Ours
        } else {
            Manager::Another
        },
        ..WRITE
    };
    assert_eq!(decide_for(&quirk(text), &managed_by(value)), Ok(expected));
}

#[test]
fn a_provider_that_ignores_the_annotation_is_treated_as_if_it_were_not_there() {
    let ignored = quirk("{managed: ignored}");
    let expected = Decision {
        manager: Manager::ProviderUnaware,
        ..WRITE
    };
    assert_eq!(decide_for(&ignored, &managed_by("kamaji")), Ok(expected));
    let needs = quirk("{managed: ignored, require: [{path: spec.external, op: eq, value: true}]}");
    let problem = decide_for(&needs, &managed_by("kamaji")).unwrap_err();
    assert_eq!(problem.reason, Reason::HostedModeNotConfigured);
}

#[test]
fn provisioned_is_written_once_by_the_path_of_the_contract_and_never_into_a_schema_without_it() {
    let mut object = managed_by("kamaji");
    for (contract, status) in [
        (Contract::V1Beta1, json!({"ready": true})),
        (
            Contract::V1Beta2,
            json!({"initialization": {"provisioned": true}}),
        ),
    ] {
        let (kind, endpoint) = (kind(contract), at("192.0.2.1", 6443));
        let body = with_provisioned(&kind, &object);
        assert_eq!(body["status"], status);
        assert_eq!(body["metadata"], json!({"uid": "u", "resourceVersion": "7"}));
        let wanted = Wanted {
            endpoint: &endpoint,
            of_cluster: None,
        };
        object.data["status"] = json!({});
        assert!(took_provisioned(&kind, &object).is_err());
        assert!(
            decide(&kind, &Quirk::default(), &object, wanted)
                .unwrap()
                .provisioned
        );
        object.data["status"] = status;
        assert!(
            !decide(&kind, &Quirk::default(), &object, wanted)
                .unwrap()
                .provisioned
        );
        took_provisioned(&kind, &object).unwrap();
        let without = InfrastructureKind {
            reports_provisioned: false,
            ..kind
        };
        let problem = decide(&without, &Quirk::default(), &object, wanted).unwrap_err();
        assert_eq!(problem.reason, Reason::WriteHadNoEffect);
    }
}

#[test]
fn an_object_that_is_paused_or_going_is_left_alone() {
    let mut paused = object(&json!(null));
    paused.metadata.annotations = Some([(capi::PAUSED.to_owned(), String::new())].into());
    assert_eq!(
        decide_for(&Quirk::default(), &paused).unwrap_err().reason,
        Reason::Paused
    );
    let mut going = object(&json!(null));
    going.metadata.deletion_timestamp = serde_json::from_value(json!("2026-03-01T12:00:00Z")).unwrap();
    assert_eq!(
        decide_for(&Quirk::default(), &going).unwrap_err().reason,
        Reason::Deleting
    );
}

#[test]
fn the_apply_holds_one_field_and_what_ties_it_to_this_version_of_this_object() {
    let body = with_endpoint(
        &kind(Contract::V1Beta2),
        &object(&json!(null)),
        &at("fd00::1", 40000),
    );
    assert_eq!(
        body,
        json!({
            "apiVersion": "i.example/v1", "kind": "ThatCluster",
            "metadata": {"name": "a", "namespace": "demo", "uid": "u", "resourceVersion": "7"},
            "spec": {"controlPlaneEndpoint": {"host": "fd00::1", "port": 40000}},
        })
    );
}

#[test]
fn a_write_that_was_accepted_and_not_stored_is_noticed() {
    let wanted = at("192.0.2.1", 6443);
    let message = |stored: &Value| {
        let problem = took(&object(stored), &wanted).unwrap_err();
        assert_eq!(problem.reason, Reason::WriteHadNoEffect);
        problem.message
    };
    assert!(message(&json!(null)).contains("dropped it"));
    let changed = message(&json!({"host": "192.0.2.1", "port": 443}));
    assert!(
        changed.contains("has 192.0.2.1:443: a webhook changes it"),
        "{changed}"
    );
    took(&object(&json!({"host": "192.0.2.1", "port": 6443})), &wanted).unwrap();
}

#[test]
fn a_missing_right_is_told_with_the_clusterrole_that_gives_it() {
    let kind = kind(Contract::V1Beta2);
    let words = "thatclusters.i.example \"a\" is forbidden: User \"u\" cannot patch resource \"thatclusters\" in API group \
                 \"i.example\" in the namespace \"demo\"";
    let problem = missing_right(&kind, "patch", words).unwrap();
    assert_eq!(problem.reason, Reason::Forbidden);
    let (_, role) = problem.message.split_once("need: ").unwrap();
    let role: Value = serde_json::from_str(role).unwrap();
    assert_eq!(
        role["metadata"]["labels"]["controlplane.kamaji.clastix.io/aggregate-to-infra"],
        "true"
    );
    assert_eq!(
        role["rules"][0],
        json!({"apiGroups": ["i.example"], "resources": ["thatclusters"], "verbs": ["get", "patch"]})
    );
    let webhook = "admission webhook \"w.i.example\" denied the request: not today";
    assert_eq!(missing_right(&kind, "patch", webhook), None);
}
