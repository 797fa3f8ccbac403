//! The HTTP API of the host: a bearer token, three verbs, JSON.
//!
//! It listens on the bridge only. User-data never leaves this host and is never logged.

use std::sync::Arc;

use axum::{
    Json, Router,
    extract::{DefaultBodyLimit, Path, Request, State},
    http::{StatusCode, header},
    middleware::{Next, from_fn_with_state},
    response::{IntoResponse, Response},
    routing::{get, put},
};
use sha2::{Digest as _, Sha256};
use tracing::warn;

use super::{
    host::{Fault, Host},
    wire::{Machine, Order, Refusal},
};

/// A bootstrap Secret holds at most 1 MiB, a third more in base64.
const BODY_LIMIT: usize = 2 << 20;

/// Routes of the host service.
pub fn router(host: Arc<Host>, token: &str) -> Router {
    let expected: Arc<[u8]> = Sha256::digest(token.as_bytes()).as_slice().into();
    Router::new()
        .route("/v1/machines", get(list))
        .route(
            "/v1/machines/{namespace}/{name}",
            put(ensure).get(show).delete(remove),
        )
        .layer(DefaultBodyLimit::max(BODY_LIMIT))
        .layer(from_fn_with_state(expected, authorize))
        .route("/healthz", get(async || "ok"))
        .with_state(host)
}

/// Digests are compared, so that the duration does not depend on the token.
async fn authorize(State(expected): State<Arc<[u8]>>, request: Request, next: Next) -> Response {
    let given = request
        .headers()
        .get(header::AUTHORIZATION)
        .and_then(|value| value.to_str().ok())
        .and_then(|value| value.strip_prefix("Bearer "))
        .map(|token| Sha256::digest(token.as_bytes()));
    if given.is_some_and(|given| given.as_slice() == &*expected) {
        next.run(request).await
    } else {
        refusal(
            StatusCode::UNAUTHORIZED,
            "the bearer token is missing or wrong".to_owned(),
        )
    }
}

async fn list(State(host): State<Arc<Host>>) -> Json<Vec<Machine>> {
    Json(
        host.list()
            .await
            .into_iter()
            .map(|(_, machine)| machine)
            .collect(),
    )
}

async fn show(State(host): State<Arc<Host>>, Path((namespace, name)): Path<(String, String)>) -> Response {
    match host.get(&namespace, &name).await {
        Some(machine) => Json(machine).into_response(),
        None => refusal(StatusCode::NOT_FOUND, format!("no machine {namespace}/{name}")),
    }
}

async fn ensure(
    State(host): State<Arc<Host>>,
    Path((namespace, name)): Path<(String, String)>,
    Json(order): Json<Order>,
) -> Response {
    match host.ensure(&namespace, &name, &order).await {
        Ok(machine) => Json(machine).into_response(),
        Err(Fault::Refused(message)) => refusal(StatusCode::UNPROCESSABLE_ENTITY, message),
        Err(Fault::Failed(error)) => failure(&namespace, &name, &error),
    }
}

async fn remove(State(host): State<Arc<Host>>, Path((namespace, name)): Path<(String, String)>) -> Response {
    match host.remove(&namespace, &name).await {
        Ok(()) => StatusCode::NO_CONTENT.into_response(),
        Err(error) => failure(&namespace, &name, &error),
    }
}

fn failure(namespace: &str, name: &str, error: &anyhow::Error) -> Response {
    let message = format!("{error:#}");
    warn!(namespace, machine = name, error = message, "failed");
    refusal(StatusCode::INTERNAL_SERVER_ERROR, message)
}

fn refusal(status: StatusCode, message: String) -> Response {
    (status, Json(Refusal { message })).into_response()
}
