//! A bound on what an API server of a tenant may answer. The admin of a tenant decides how large its objects and lists are,
//! and the process that reads them serves all tenants.

use std::task::{Context, Poll};

use futures::future::{BoxFuture, FutureExt as _};
use http::{Request, Response};
use http_body_util::{Either, LengthLimitError, Limited};
use kube::client::Body;
use tower::Service;

/// Bytes of one answer, after decompression. Watches are not bounded as a whole, since they go on for minutes; their lists
/// come in pages of [`PAGE`].
pub const MAX_ANSWER: usize = 8 * 1024 * 1024;
/// Objects of a page. An object of etcd has 1.5 MB at most.
pub const PAGE: u32 = 50;

/// A service whose answers end with an error after [`MAX_ANSWER`].
#[derive(Clone)]
pub struct Bounded<S>(pub S);

impl<S, B> Service<Request<Body>> for Bounded<S>
where
    S: Service<Request<Body>, Response = Response<B>>,
    S::Future: Send + 'static,
{
    type Response = Response<Either<Limited<B>, B>>;
    type Error = S::Error;
    type Future = BoxFuture<'static, Result<Self::Response, S::Error>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.0.poll_ready(context)
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let query = request.uri().query().unwrap_or_default();
        let is_watch = query.split('&').any(|pair| pair == "watch=true");
        let bounded = move |body| {
            if is_watch {
                Either::Right(body)
            } else {
                Either::Left(Limited::new(body, MAX_ANSWER))
            }
        };
        let answer = self.0.call(request);
        async move { Ok(answer.await?.map(bounded)) }.boxed()
    }
}

/// The request failed because its answer is too large.
pub fn is_too_large(error: &kube::Error) -> bool {
    let mut cause: Option<&(dyn std::error::Error + 'static)> = Some(error);
    while let Some(error) = cause {
        if error.is::<LengthLimitError>() {
            return true;
        }
        cause = error.source();
    }
    false
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::core::v1::Node;
    use kube::{Api, Client, api::ListParams};

    use super::*;
    use crate::tenant::Error;

    fn client(bytes: usize) -> Client {
        let inner = tower::service_fn(move |_: Request<Body>| async move {
            let text = format!(
                r#"{{"metadata":{{"continue":"{}"}},"items":[]}}"#,
                "x".repeat(bytes)
            );
            Ok::<_, std::convert::Infallible>(Response::new(Body::from(text.into_bytes())))
        });
        Client::new(Bounded(inner), "default")
    }

    #[tokio::test]
    async fn an_answer_without_end_is_given_up_and_named() {
        let list = async |bytes| Api::<Node>::all(client(bytes)).list(&ListParams::default()).await;
        assert!(list(MAX_ANSWER / 2).await.is_ok());
        let error = list(MAX_ANSWER).await.unwrap_err();
        assert!(is_too_large(&error), "{error:?}");
        let error = Error::of("list Nodes", &error);
        assert_eq!(
            error.to_string(),
            "list Nodes: the answer has more than 8388608 bytes"
        );
    }
}
