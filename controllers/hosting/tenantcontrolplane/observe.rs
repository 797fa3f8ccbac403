//! Reads of the controller: rows of the index, and single Secrets from the API server.

use std::sync::Arc;

use k8s_openapi::api::{
    apps::v1::Deployment,
    core::v1::{Secret, Service},
    discovery::v1::EndpointSlice,
};
use kamaji_api::labels::kamaji;
use kube::{Api, api::ListParams};

use super::{context::Context, phase};
use crate::k8s::{
    error::ApiError,
    key::RootKey,
    problem::Problem,
    row::{Facts, Row, ServiceFacts},
};

/// Rows of the index at the end of the reconcile.
#[derive(Clone, Debug, Default)]
pub struct Rows {
    /// The Deployment.
    pub deployment: Option<Arc<Row>>,
    /// The Service.
    pub service: Option<Arc<Row>>,
    /// What keeps a pod from running, while the Deployment is not complete.
    pub trouble: Option<String>,
}

/// Reads one Secret; `None` when it does not exist.
///
/// # Errors
/// What the API server answered.
pub async fn secret(context: &Context, namespace: &str, name: &str) -> Result<Option<Secret>, Problem> {
    let api: Api<Secret> = Api::namespaced(context.engine.client.clone(), namespace);
    api.get_opt(name)
        .await
        .map_err(|error| ApiError::new(format!("get Secret {namespace}/{name}"), error).into())
}

/// Reads where the pods behind the Service of a tenant are.
///
/// # Errors
/// What the API server answered.
pub async fn endpoint_slices(context: &Context, key: &RootKey) -> Result<Vec<EndpointSlice>, Problem> {
    let RootKey { namespace, name } = key;
    let api: Api<EndpointSlice> = Api::namespaced(context.engine.client.clone(), namespace);
    let of_service = ListParams::default().labels(&format!("kubernetes.io/service-name={name}"));
    let found = api.list(&of_service).await;
    found.map(|list| list.items).map_err(|error| {
        ApiError::new(
            format!("list EndpointSlices of Service {namespace}/{name}"),
            error,
        )
        .into()
    })
}

/// Reads the Service of a tenant; `None` when it does not exist.
///
/// # Errors
/// What the API server answered.
pub async fn service(context: &Context, key: &RootKey) -> Result<Option<Service>, Problem> {
    let api: Api<Service> = Api::namespaced(context.engine.client.clone(), &key.namespace);
    api.get_opt(&key.name)
        .await
        .map_err(|error| ApiError::new(format!("get Service {key}"), error).into())
}

/// The Service of a tenant, from the index.
pub fn service_row(context: &Context, key: &RootKey) -> Option<Arc<Row>> {
    context.engine.index.find::<Service>(&key.namespace, &key.name)
}

/// What the index has of a Service.
pub fn service_facts(row: &Row) -> Option<&ServiceFacts> {
    match &row.facts {
        Facts::Service(facts) => Some(facts),
        _ => None,
    }
}

/// The Deployment of a tenant, from the index.
pub fn deployment(context: &Context, key: &RootKey) -> Option<Arc<Row>> {
    context.engine.index.find::<Deployment>(&key.namespace, &key.name)
}

/// What the status of a tenant shows of its objects, from the index.
pub fn rows(context: &Context, key: &RootKey) -> Rows {
    let index = &context.engine.index;
    let deployment = deployment(context, key);
    let rolling = deployment.as_deref().is_some_and(|row| !phase::complete(row));
    Rows {
        deployment,
        service: service_row(context, key),
        trouble: rolling
            .then(|| index.pod_trouble(&key.namespace, kamaji::NAME, &key.name))
            .flatten(),
    }
}
