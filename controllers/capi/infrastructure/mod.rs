//! What to do with the infrastructure object of a Cluster, so that it has the endpoint of the control plane. Pure.
//!
//! An endpoint that somebody else set is never replaced, and nothing but `spec.controlPlaneEndpoint` is written. The one
//! exception is an object whose user handed it over with `cluster.x-k8s.io/managed-by`: its provider leaves it alone, so
//! somebody has to report it as provisioned. Source of the rules:
//! <https://cluster-api.sigs.k8s.io/developer/providers/contracts/infra-cluster>.

use kamaji_api::{
    conditions::Reason,
    controlplane::Endpoint,
    labels::{capi, field_manager, ours},
    quirks::{Managed, Mode, Quirk, Requirement},
};
use kube::{ResourceExt as _, api::DynamicObject};
use serde_json::{Value, json};

use super::{contract::InfrastructureKind, paused};
use crate::k8s::{host_port::joined, problem::Problem};

/// Path of the field that is written.
const ENDPOINT: &str = "/spec/controlPlaneEndpoint";

/// The endpoint that an object is to have.
#[derive(Clone, Copy, Debug)]
pub struct Wanted<'a> {
    /// Host and port.
    pub endpoint: &'a Endpoint,
    /// What the Cluster has; Cluster API never changes it again.
    pub of_cluster: Option<&'a Endpoint>,
}

/// What to write.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Decision {
    /// The endpoint.
    pub endpoint: bool,
    /// That the object is provisioned.
    pub provisioned: bool,
    /// Who reports it as provisioned.
    pub manager: Manager,
}

/// Who reports an object as provisioned.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Manager {
    /// Its provider.
    #[default]
    Provider,
    /// Its provider, although an annotation that it does not know says otherwise.
    ProviderUnaware,
    /// The control plane provider.
    Ours,
    /// Somebody else, whom the annotation names.
    Another,
}

/// Decides what to write into `object`.
///
/// # Errors
/// Why it cannot have the endpoint, and who has to do what.
pub fn decide(
    kind: &InfrastructureKind,
    quirk: &Quirk,
    object: &DynamicObject,
    wanted: Wanted<'_>,
) -> Result<Decision, Problem> {
    let what = name(object);
    if object.metadata.deletion_timestamp.is_some() {
        return Err(Problem::unwatched(
            Reason::Deleting,
            format!("{what} is being deleted"),
        ));
    }
    if let Some(why) = paused::because(object, None) {
        let message = format!("{what} is paused ({why}); it gets the endpoint when it no longer is");
        return Err(Problem::unwatched(Reason::Paused, message));
    }
    let annotation = object.annotations().get(capi::MANAGED_BY);
    let is_managed = annotation.is_some() && quirk.managed == Managed::Allowed;
    let missing = quirk
        .require
        .iter()
        .filter(|needed| !is_managed && !holds(needed, kind, object));
    let missing: Vec<_> = missing.map(Requirement::text).collect();
    if !missing.is_empty() {
        return Err(Problem::unwatched(
            Reason::HostedModeNotConfigured,
            format!(
                "{what} is not set up for a control plane that runs elsewhere: it needs {}; set that in it or in its \
                 template. Before that its provider would take an endpoint of its own",
                missing.join(", and ")
            ),
        ));
    }
    let reports = is_managed && (quirk.any_manager || annotation.is_some_and(|by| by == ours::MANAGES_INFRA));
    if reports && !kind.reports_provisioned {
        let field = kind.contract.provisioned().join(".");
        let message = format!("{what} has no {field}, by which Cluster API learns that it is provisioned");
        return Err(Problem::unwatched(Reason::WriteHadNoEffect, message));
    }
    Ok(Decision {
        endpoint: needs_endpoint(quirk, object, wanted)?,
        provisioned: reports && !is_provisioned(kind, object),
        manager: match (annotation, quirk.managed) {
            (None, _) => Manager::Provider,
            (Some(_), Managed::Ignored) => Manager::ProviderUnaware,
            (Some(_), Managed::Allowed) if reports => Manager::Ours,
            (Some(_), Managed::Allowed) => Manager::Another,
        },
    })
}

fn holds(needed: &Requirement, kind: &InfrastructureKind, object: &DynamicObject) -> bool {
    let whole = json!({ "metadata": object.metadata, "spec": object.data["spec"] });
    needed.holds(&kind.resource.version, &whole)
}

/// Whether the endpoint has to be written. A port without a host is a default that a webhook has set.
fn needs_endpoint(quirk: &Quirk, object: &DynamicObject, wanted: Wanted<'_>) -> Result<bool, Problem> {
    let (what, want) = (name(object), text(wanted.endpoint));
    let current = endpoint(object);
    let has_port = current.port != 0;
    if current == *wanted.endpoint {
        return Ok(false);
    }
    let is_open = current.host.is_empty() || (current.host == wanted.endpoint.host && !has_port);
    if is_open && quirk.mode == Mode::Verify {
        let Endpoint { host, port } = wanted.endpoint;
        return Err(Problem::unwatched(
            Reason::EndpointMustBePreset,
            format!(
                "{what} takes its endpoint from its user alone: set its spec.controlPlaneEndpoint to host {host} and port \
                 {port}"
            ),
        ));
    }
    if is_open {
        return Ok(true);
    }
    let owners = owners(object);
    let is_ours = owners == [field_manager::ENDPOINT];
    let cluster_agrees = wanted
        .of_cluster
        .is_none_or(|of_cluster| of_cluster == wanted.endpoint);
    if is_ours && cluster_agrees && !quirk.immutable && quirk.mode == Mode::Set {
        return Ok(true);
    }
    let by = if owners.is_empty() {
        "somebody".to_owned()
    } else {
        owners.join(", ")
    };
    let change = if quirk.immutable {
        "it cannot be changed, so create it again without one"
    } else {
        "remove it there, or set it to this one"
    };
    let has = text(&current);
    let message =
        format!("{what} has the endpoint {has}, set by {by}, and the control plane has {want}; {change}");
    Err(Problem::unwatched(Reason::EndpointConflict, message))
}

/// The endpoint of an object; an empty host or port 0 where it has none.
pub fn endpoint(object: &DynamicObject) -> Endpoint {
    let at = |name: &str| object.data.pointer(&format!("{ENDPOINT}/{name}"));
    let port = at("port")
        .and_then(Value::as_i64)
        .and_then(|port| i32::try_from(port).ok());
    Endpoint {
        host: at("host").and_then(Value::as_str).unwrap_or_default().to_owned(),
        port: port.unwrap_or_default(),
    }
}

/// Field managers that own the host.
fn owners(object: &DynamicObject) -> Vec<&str> {
    let owns = |fields: &Value| {
        let endpoint = &fields["f:spec"]["f:controlPlaneEndpoint"];
        endpoint.get("f:host").is_some() || endpoint.as_object().is_some_and(serde_json::Map::is_empty)
    };
    let entries = object.managed_fields().iter();
    let of_host = entries.filter(|entry| entry.fields_v1.as_ref().is_some_and(|fields| owns(&fields.0)));
    of_host
        .map(|entry| entry.manager.as_deref().unwrap_or_default())
        .collect()
}

fn is_provisioned(kind: &InfrastructureKind, object: &DynamicObject) -> bool {
    let path = kind.contract.provisioned();
    let found = path.iter().try_fold(&object.data, |at, name| at.get(*name));
    found == Some(&Value::Bool(true))
}

/// The fields to apply: the endpoint, and what keeps them from another object or another version of this one.
pub fn with_endpoint(kind: &InfrastructureKind, object: &DynamicObject, endpoint: &Endpoint) -> Value {
    json!({
        "apiVersion": kind.resource.api_version,
        "kind": kind.resource.kind,
        "metadata": {
            "name": object.name_any(), "namespace": object.namespace(),
            "uid": object.uid(), "resourceVersion": object.resource_version(),
        },
        "spec": { "controlPlaneEndpoint": { "host": endpoint.host, "port": endpoint.port } },
    })
}

/// The fields to merge into the status.
pub fn with_provisioned(kind: &InfrastructureKind, object: &DynamicObject) -> Value {
    let path = kind.contract.provisioned().iter().rev();
    let mut body = path.fold(json!(true), |below, name| json!({ *name: below }));
    body["metadata"] = json!({ "uid": object.uid(), "resourceVersion": object.resource_version() });
    body
}

/// Checks that the API server stored the endpoint: it drops fields that it does not know, and webhooks change fields.
///
/// # Errors
/// What it stored.
pub fn took(stored: &DynamicObject, wanted: &Endpoint) -> Result<(), Problem> {
    let (what, has) = (name(stored), endpoint(stored));
    if has == *wanted {
        return Ok(());
    }
    let message = if has.host.is_empty() && has.port == 0 {
        format!(
            "the API server accepted the endpoint {} for {what} and dropped it: its schema differs",
            text(wanted)
        )
    } else {
        format!(
            "{what} was given the endpoint {} and has {}: a webhook changes it; find it among the \
             MutatingWebhookConfigurations",
            text(wanted),
            text(&has)
        )
    };
    Err(Problem::unwatched(Reason::WriteHadNoEffect, message))
}

/// Checks that the API server stored that the object is provisioned.
///
/// # Errors
/// It did not.
pub fn took_provisioned(kind: &InfrastructureKind, stored: &DynamicObject) -> Result<(), Problem> {
    if is_provisioned(kind, stored) {
        return Ok(());
    }
    let (what, field) = (name(stored), kind.contract.provisioned().join("."));
    Err(Problem::unwatched(
        Reason::WriteHadNoEffect,
        format!("the API server accepted {field} for {what} and dropped it: its schema differs"),
    ))
}

/// A refusal of RBAC, with the ClusterRole that ends it; `None` where the API server refused for another reason.
pub fn missing_right(kind: &InfrastructureKind, verb: &str, words: &str) -> Option<Problem> {
    words.contains(&format!(" cannot {verb} resource ")).then(|| {
        let (group, plural) = (&kind.resource.group, &kind.resource.plural);
        let role = json!({
            "apiVersion": "rbac.authorization.k8s.io/v1",
            "kind": "ClusterRole",
            "metadata": { "name": format!("kamaji-endpoint-{plural}"), "labels": { ours::AGGREGATE_TO_INFRA: "true" } },
            "rules": [
                { "apiGroups": [group], "resources": [plural], "verbs": ["get", "patch"] },
                { "apiGroups": [group], "resources": [format!("{plural}/status")], "verbs": ["patch"] },
            ],
        });
        Problem::unwatched(
            Reason::Forbidden,
            format!(
                "the control plane provider may not {verb} {plural} of {group}; let an administrator apply this ClusterRole, \
                 whose last rule only objects with the annotation {} need: {role}",
                capi::MANAGED_BY
            ),
        )
    })
}

/// For people: `Kind name`.
pub fn name(object: &DynamicObject) -> String {
    let kind = object
        .types
        .as_ref()
        .map_or("the infrastructure cluster", |types| types.kind.as_str());
    format!("{kind} {}", object.name_any())
}

/// For people: `host:port`.
pub fn text(endpoint: &Endpoint) -> String {
    joined(&endpoint.host, endpoint.port)
}

#[cfg(test)]
mod tests;
