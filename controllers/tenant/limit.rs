//! A bound on what an API server of a tenant may answer. The admin of a tenant decides how large its objects and lists are,
//! and the process that reads them serves all tenants.

use std::{error::Error, sync::Arc};

use axum::body::{Body as Answer, Bytes};
use futures::StreamExt as _;
use http::{Request, Response};
use http_body_util::BodyExt as _;
use kube::{Client, client::Body};
use parking_lot::Mutex;
use tower::BoxError;

use super::pages::{self, MAX_PAGE, Pages};

/// Bytes of one object, in an answer or in an event of a watch, after decompression. etcd accepts 1.5 MiB unless configured
/// otherwise, and JSON has six bytes for a character that it escapes.
pub const MAX_OBJECT: usize = 10 * MIB;

/// For messages.
pub const MIB: usize = 1024 * 1024;

/// There are more bytes than are read.
#[derive(Debug, thiserror::Error)]
#[error("more than is read")]
struct TooLarge;

/// The same client, whose answers are bounded: a page of a list that is too large comes as a smaller one, anything else ends
/// with an error.
pub fn bounded(client: Client) -> Client {
    let namespace = client.default_namespace().to_owned();
    let pages = Arc::new(Mutex::new(Pages::default()));
    let service = tower::service_fn(move |request| answer(client.clone(), pages.clone(), request));
    Client::new(service, namespace)
}

async fn answer(
    client: Client,
    pages: Arc<Mutex<Pages>>,
    request: Request<Body>,
) -> Result<Response<Answer>, BoxError> {
    if pages::is_watch(request.uri()) {
        // It goes on for minutes, so each of its events is bounded.
        let events = client.send(request).await?;
        return Ok(events.map(|body| bound(body, MAX_OBJECT, after_line)));
    }
    if let Some(asked) = pages::asked(request.uri()) {
        return page(&client, &pages, request, asked).await;
    }
    let object = client.send(request).await?;
    Ok(object.map(|body| bound(body, MAX_OBJECT, after_all)))
}

/// A page of a list, with `asked` objects or fewer. Whoever asks goes on with the token in the answer, whatever its size.
async fn page(
    client: &Client,
    pages: &Mutex<Pages>,
    request: Request<Body>,
    asked: u32,
) -> Result<Response<Answer>, BoxError> {
    let (parts, _) = request.into_parts();
    let list = parts.uri.path();
    let mut size = pages.lock().size(list, asked);
    loop {
        let mut resized = parts.clone();
        resized.uri = pages::resized(&parts.uri, size)?;
        let response = client.send(Request::from_parts(resized, Body::empty())).await?;
        let most = if size > 1 { MAX_PAGE } else { MAX_OBJECT };
        let (head, body) = response.into_parts();
        let error = match bound(body, most, after_all).collect().await {
            Ok(body) => {
                let bytes = body.to_bytes();
                if head.status.is_success() {
                    pages.lock().fitted(list, size, bytes.len());
                }
                return Ok(Response::from_parts(head, Answer::from(bytes)));
            }
            Err(error) => error,
        };
        let smaller = is_too_large(&error).then(|| pages.lock().too_large(list, size));
        let Some(smaller) = smaller.flatten() else {
            return Err(error.into());
        };
        tracing::debug!(list, size, smaller, "a page is too large");
        size = smaller;
    }
}

/// The body, which ends with an error once more than `most` bytes count. `count` has the bytes that counted before a chunk,
/// and returns those that count after it.
fn bound(body: Body, most: usize, count: fn(usize, &[u8]) -> usize) -> Answer {
    let mut counted = 0;
    Answer::from_stream(
        body.into_data_stream()
            .map(move |chunk| -> Result<Bytes, BoxError> {
                let chunk = chunk?;
                counted = count(counted, &chunk);
                if counted > most {
                    return Err(TooLarge.into());
                }
                Ok(chunk)
            }),
    )
}

const fn after_all(before: usize, chunk: &[u8]) -> usize {
    before + chunk.len()
}

/// An event of a watch is a line.
fn after_line(before: usize, chunk: &[u8]) -> usize {
    match chunk.iter().rposition(|&byte| byte == b'\n') {
        Some(end) => chunk.len() - end - 1,
        None => before + chunk.len(),
    }
}

/// A request or a watch failed because an object is too large.
pub fn is_too_large(error: &(dyn Error + 'static)) -> bool {
    let mut cause = Some(error);
    while let Some(error) = cause {
        if error.is::<TooLarge>() {
            return true;
        }
        cause = error.source();
    }
    false
}

/// The error of a request whose answer is too large.
#[cfg(test)]
pub fn too_large() -> kube::Error {
    kube::Error::Service(TooLarge.into())
}

#[cfg(test)]
mod tests {
    use futures::TryStreamExt as _;
    use http::Uri;
    use k8s_openapi::api::core::v1::ConfigMap;
    use kube::{
        Api, ResourceExt as _,
        api::{ListParams, WatchEvent, WatchParams},
    };

    use super::*;
    use crate::tenant::{Error, list};

    /// An object with so many bytes and some more.
    fn object(name: &str, bytes: usize) -> String {
        let text = "x".repeat(bytes);
        format!(r#"{{"metadata":{{"name":"{name}","resourceVersion":"1"}},"data":{{"k":"{text}"}}}}"#)
    }

    /// An API server that has ConfigMaps of these sizes. Notes the number of objects of each page that it is asked for.
    fn server(sizes: Vec<usize>) -> (Client, Arc<Mutex<Vec<u32>>>) {
        let requests = Arc::new(Mutex::new(Vec::new()));
        let (sizes, noted) = (Arc::new(sizes), requests.clone());
        let inner = tower::service_fn(move |request: Request<Body>| {
            let uri = request.uri();
            let text = match pages::asked(uri) {
                Some(limit) => {
                    noted.lock().push(limit);
                    page_of(&sizes, uri, limit)
                }
                None if pages::is_watch(uri) => {
                    let event = |&bytes| format!(r#"{{"type":"ADDED","object":{}}}"#, object("m", bytes));
                    sizes.iter().map(event).collect::<Vec<_>>().join("\n")
                }
                None => object("m", sizes.iter().sum()),
            };
            async move { Ok::<_, std::convert::Infallible>(Response::new(Body::from(text.into_bytes()))) }
        });
        (bounded(Client::new(inner, "default")), requests)
    }

    fn page_of(sizes: &[usize], uri: &Uri, limit: u32) -> String {
        let mut pairs = uri.query().unwrap_or_default().split('&');
        let token = pairs.find_map(|pair| pair.strip_prefix("continue="));
        let from: usize = token.map_or(0, |token| token.parse().unwrap());
        let to = sizes.len().min(from + limit as usize);
        let items: Vec<_> = (from..to).map(|at| object(&at.to_string(), sizes[at])).collect();
        let next = Some(to.to_string()).filter(|_| to < sizes.len());
        format!(
            r#"{{"metadata":{{"continue":"{}","resourceVersion":"1"}},"items":[{}]}}"#,
            next.unwrap_or_default(),
            items.join(",")
        )
    }

    fn names(client: Client) -> impl Future<Output = Result<Vec<String>, Error>> {
        let api: Api<ConfigMap> = Api::default_namespaced(client);
        let all = ListParams::default();
        list::first("list ConfigMaps", api, all, 100, |object: ConfigMap| {
            object.name_any()
        })
    }

    // Time stands still: what takes long here is that nothing is optimized.
    #[tokio::test(start_paused = true)]
    async fn objects_of_any_size_are_listed_each_once() {
        let honest = vec![10_000; 80];
        let (client, requests) = server(honest);
        assert_eq!(names(client).await.unwrap().len(), 80);
        assert_eq!(*requests.lock(), [10, 40, 50]);

        let mut sizes = vec![700_000; 8];
        sizes.extend([100; 70]);
        sizes[5] = MAX_OBJECT - 1000;
        let count = sizes.len();
        let (client, requests) = server(sizes);
        let expected: Vec<_> = (0..count).map(|at| at.to_string()).collect();
        assert_eq!(names(client.clone()).await.unwrap(), expected);
        let first = requests.lock().clone();
        assert!(first.len() < 40, "{first:?}");
        assert!(
            first.last().is_some_and(|last| *last > 8),
            "pages grow again: {first:?}"
        );
    }

    #[tokio::test(start_paused = true)]
    async fn an_object_that_no_page_can_have_is_named() {
        let (client, requests) = server(vec![10, MAX_OBJECT, 10]);
        let error = names(client.clone()).await.unwrap_err();
        let text = "list ConfigMaps: an object has more than 10 MiB: make it smaller, or delete it";
        assert_eq!(error.to_string(), text);
        assert!(requests.lock().len() < 10);
        let api: Api<ConfigMap> = Api::default_namespaced(client);
        assert!(is_too_large(&api.get("m").await.unwrap_err()));
    }

    #[tokio::test]
    async fn each_event_of_a_watch_is_bounded_and_not_all_together() {
        let events = async |sizes: Vec<usize>| {
            let api: Api<ConfigMap> = Api::default_namespaced(server(sizes).0);
            let stream = api.watch(&WatchParams::default(), "0").await.unwrap();
            stream.try_collect::<Vec<WatchEvent<ConfigMap>>>().await
        };
        assert_eq!(events(vec![MAX_OBJECT / 2; 3]).await.unwrap().len(), 3);
        assert!(is_too_large(&events(vec![10, MAX_OBJECT]).await.unwrap_err()));
    }
}
