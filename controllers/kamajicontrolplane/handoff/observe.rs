//! Reads what a hand-off needs: the definition of a kind, and the object.

use std::{
    collections::HashMap,
    time::{Duration, Instant},
};

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kamaji_api::conditions::Reason;
use kube::{Api, Client, api::DynamicObject};
use tokio::sync::Mutex;

use crate::{
    capi::{
        cluster::Reference,
        contract::{self, InfrastructureKind},
        infrastructure::missing_right,
    },
    k8s::{
        error::{ApiError, Class},
        problem::Problem,
    },
};

/// How long a definition is trusted with which a hand-off did not succeed: the provider may have been upgraded.
const DOUBTED: Duration = Duration::from_mins(5);
/// How long the answer is kept that there is no usable definition.
const MISSING: Duration = Duration::from_secs(10);

/// What is known about each kind, by group and name. Held while a definition is read, so that many Clusters of one kind read
/// it once.
#[derive(Default)]
pub struct Kinds(Mutex<HashMap<(String, String), Entry>>);

struct Entry {
    kind: Result<InfrastructureKind, Problem>,
    at: Instant,
}

/// The kind of an object. `is_doubted`: a hand-off with what is known failed before.
///
/// # Errors
/// There is no definition, or none that Cluster API could use.
pub async fn kind(
    client: &Client,
    kinds: &Kinds,
    reference: &Reference,
    is_doubted: bool,
) -> Result<InfrastructureKind, Problem> {
    let key = (reference.api_group.clone(), reference.kind.clone());
    let mut kinds = kinds.0.lock().await;
    if let Some(known) = kinds.get(&key) {
        let is_good = match &known.kind {
            Ok(_) => !is_doubted || known.at.elapsed() < DOUBTED,
            Err(_) => known.at.elapsed() < MISSING,
        };
        if is_good {
            return known.kind.clone();
        }
    }
    let kind = definition(client, reference).await;
    let at = Instant::now();
    kinds.insert(
        key,
        Entry {
            kind: kind.clone(),
            at,
        },
    );
    kind
}

async fn definition(client: &Client, reference: &Reference) -> Result<InfrastructureKind, Problem> {
    let name = contract::definition_name(&reference.api_group, &reference.kind);
    let found = Api::<CustomResourceDefinition>::all(client.clone())
        .get_opt(&name)
        .await
        .map_err(|error| ApiError::new(format!("get CustomResourceDefinition {name}"), error));
    match found {
        Ok(Some(definition)) => contract::read(&definition),
        Ok(None) => Err(Problem::unwatched(
            Reason::InfrastructureNotInstalled,
            format!(
                "there is no CustomResourceDefinition {name}; install the infrastructure provider of {}, or correct \
                 spec.infrastructureRef of the Cluster",
                reference.kind
            ),
        )),
        Err(error) => Err(unread(&error)),
    }
}

/// The object.
///
/// # Errors
/// It does not exist or cannot be read.
pub async fn object(
    client: &Client,
    kind: &InfrastructureKind,
    namespace: &str,
    reference: &Reference,
) -> Result<DynamicObject, Problem> {
    let what = reference.text();
    let found = Api::<DynamicObject>::namespaced_with(client.clone(), namespace, &kind.resource)
        .get_opt(&reference.name)
        .await
        .map_err(|error| ApiError::new(format!("get {what}"), error));
    match found {
        Ok(Some(object)) => Ok(object),
        Ok(None) => Err(Problem::unwatched(
            Reason::WaitingForInfrastructure,
            format!("{what} does not exist"),
        )),
        Err(error) => Err(missing_right(kind, "get", &error.to_string()).unwrap_or_else(|| unread(&error))),
    }
}

fn unread(error: &ApiError) -> Problem {
    let reason = match error.class() {
        Class::Denied => Reason::Forbidden,
        Class::Transient | Class::Conflict | Class::Invalid | Class::Foreign => Reason::InternalError,
    };
    Problem::unwatched(reason, error.to_string())
}
