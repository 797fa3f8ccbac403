//! Clients of the management cluster: one a role, with its own user agent. Requests are counted.

use std::{
    task::{Context, Poll},
    time::Duration,
};

use futures::future::BoxFuture;
use http::{HeaderValue, Method, Request, Response, header::USER_AGENT};
use kube::{
    Client, Config,
    client::{Body, ClientBuilder},
};
use tower::{Service, layer::layer_fn};

use super::metrics::Metrics;
use crate::settings::RoleName;

/// A client for `role` from the kubeconfig or the pod's ServiceAccount, whose requests `metrics` counts.
///
/// kube's own retry replays creates for minutes; it is off, reconciles retry by themselves.
///
/// # Errors
/// When no configuration is found or it cannot be used.
pub async fn for_role(role: RoleName, metrics: &Metrics) -> anyhow::Result<Client> {
    let mut config = Config::infer().await?;
    config.default_retry = false;
    config.connect_timeout = Some(Duration::from_secs(10));
    let agent = format!("capi-kamaji/{} ({role})", env!("CARGO_PKG_VERSION"));
    config.headers.push((USER_AGENT, HeaderValue::try_from(agent)?));
    let metrics = metrics.clone();
    let counted = layer_fn(move |inner| Counted {
        inner,
        role,
        metrics: metrics.clone(),
    });
    Ok(ClientBuilder::try_from(config)?.with_layer(&counted).build())
}

/// A service that counts what it is asked.
#[derive(Clone)]
struct Counted<S> {
    inner: S,
    role: RoleName,
    metrics: Metrics,
}

impl<S, B> Service<Request<Body>> for Counted<S>
where
    S: Service<Request<Body>, Response = Response<B>>,
    S::Future: Send + 'static,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = BoxFuture<'static, Result<S::Response, S::Error>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let (role, verb, metrics) = (self.role, verb(&request), self.metrics.clone());
        let answer = self.inner.call(request);
        Box::pin(async move {
            let answer = answer.await;
            let code = answer.as_ref().map_or(0, |answer| answer.status().as_u16());
            metrics.requested(role, verb, code);
            answer
        })
    }
}

/// Kubernetes' verb for a request; see
/// <https://kubernetes.io/docs/reference/access-authn-authz/authorization/#determine-the-request-verb>.
fn verb<B>(request: &Request<B>) -> &'static str {
    let watches = || {
        request
            .uri()
            .query()
            .is_some_and(|query| query.contains("watch=true"))
    };
    let of_one = || is_of_one_object(request.uri().path());
    match *request.method() {
        Method::GET if watches() => "watch",
        Method::GET if of_one() => "get",
        Method::GET => "list",
        Method::POST => "create",
        Method::PUT => "update",
        Method::PATCH => "patch",
        Method::DELETE if of_one() => "delete",
        Method::DELETE => "deletecollection",
        _ => "other",
    }
}

/// The path names one object, or is no path of a resource, such as `/version`.
fn is_of_one_object(path: &str) -> bool {
    let segments: Vec<_> = path.split('/').filter(|segment| !segment.is_empty()).collect();
    let (["api", _version, of_version @ ..] | ["apis", _, _version, of_version @ ..]) = segments.as_slice()
    else {
        return true;
    };
    match of_version {
        ["namespaces", _namespace, resource @ ..] if !resource.is_empty() => resource.len() > 1,
        resource => resource.len() != 1,
    }
}

#[cfg(test)]
mod tests {
    use http::StatusCode;
    use rstest::rstest;
    use tower::ServiceExt as _;

    use super::*;

    #[rstest]
    #[case(Method::GET, "/api/v1/pods", "list")]
    #[case(Method::GET, "/api/v1/pods?watch=true", "watch")]
    #[case(Method::GET, "/api/v1/namespaces", "list")]
    #[case(Method::GET, "/api/v1/namespaces/demo", "get")]
    #[case(Method::GET, "/api/v1/namespaces/demo/secrets", "list")]
    #[case(Method::GET, "/api/v1/namespaces/demo/secrets/a", "get")]
    #[case(Method::GET, "/apis/kamaji.clastix.io/v1alpha1/datastores/default", "get")]
    #[case(Method::GET, "/apis/kamaji.clastix.io/v1alpha1", "get")]
    #[case(Method::GET, "/version", "get")]
    #[case(Method::PATCH, "/apis/apps/v1/namespaces/demo/deployments/a/status", "patch")]
    #[case(Method::DELETE, "/apis/apps/v1/namespaces/demo/deployments/a", "delete")]
    #[case(
        Method::DELETE,
        "/apis/apps/v1/namespaces/demo/deployments",
        "deletecollection"
    )]
    fn a_request_has_the_verb_that_kubernetes_gives_it(
        #[case] method: Method,
        #[case] uri: &str,
        #[case] expected: &str,
    ) {
        let request = Request::builder().method(method).uri(uri).body(()).unwrap();
        assert_eq!(verb(&request), expected);
    }

    #[tokio::test]
    async fn a_request_is_counted_by_verb_and_code() {
        let metrics = Metrics::default();
        let inner = tower::service_fn(|_: Request<Body>| async {
            let mut answer = Response::new(Body::empty());
            *answer.status_mut() = StatusCode::CONFLICT;
            Ok::<_, std::convert::Infallible>(answer)
        });
        let counted = Counted {
            inner,
            role: RoleName::Hosting,
            metrics: metrics.clone(),
        };
        let request = Request::get("/api/v1/pods?watch=true&limit=1")
            .body(Body::empty())
            .unwrap();
        counted.oneshot(request).await.unwrap();
        let text = metrics.text().unwrap();
        let line = "capi_kamaji_api_requests_total{role=\"hosting\",verb=\"watch\",code=\"409\"} 1";
        assert!(text.contains(line), "{text}");
    }
}
