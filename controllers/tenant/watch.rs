//! A watch of objects whose size is up to a tenant. kube's resumes a watch that broke where it broke; where an event of it is
//! too large, that would be in front of the same event for ever, so the watch begins again with a list.

use std::fmt::Debug;

use futures::{Stream, StreamExt as _, stream};
use kube::{
    Api, Resource,
    runtime::watcher::{self, Config, Event},
};
use serde::de::DeserializeOwned;

use super::limit::is_too_large;

/// Lists and watches, without a pause after an error.
pub fn watch<K>(api: Api<K>, config: Config) -> impl Stream<Item = watcher::Result<Event<K>>> + Send + 'static
where
    K: Resource + Clone + DeserializeOwned + Debug + Send + 'static,
{
    let begin = move || watcher::watcher(api.clone(), config.clone()).boxed();
    stream::unfold((begin, None), |(begin, current)| async move {
        let mut current = current.unwrap_or_else(&begin);
        let event = current.next().await?;
        let stuck = matches!(&event, Err(watcher::Error::WatchFailed(error)) if is_too_large(error));
        Some((event, (begin, (!stuck).then_some(current))))
    })
}

#[cfg(test)]
mod tests {
    use std::sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    };

    use http::{Request, Response};
    use k8s_openapi::api::core::v1::ConfigMap;
    use kube::{Client, client::Body};

    use super::*;
    use crate::tenant::limit::{MAX_OBJECT, bounded};

    #[tokio::test]
    async fn a_watch_with_an_event_that_is_too_large_begins_again_with_a_list() {
        let lists = Arc::new(AtomicUsize::new(0));
        let counted = lists.clone();
        let service = tower::service_fn(move |request: Request<Body>| {
            let text = if request.uri().query().unwrap_or_default().contains("watch=true") {
                let text = "x".repeat(MAX_OBJECT);
                format!(
                    r#"{{"type":"ADDED","object":{{"metadata":{{"name":"{text}","resourceVersion":"2"}}}}}}"#
                )
            } else {
                counted.fetch_add(1, Ordering::SeqCst);
                r#"{"metadata":{"resourceVersion":"1"},"items":[]}"#.to_owned()
            };
            async move { Ok::<_, std::convert::Infallible>(Response::new(Body::from(text.into_bytes()))) }
        });
        let api: Api<ConfigMap> = Api::default_namespaced(bounded(Client::new(service, "default")));
        let mut events = watch(api, Config::default().page_size(50)).boxed();
        for round in 1..=2 {
            assert!(matches!(events.next().await, Some(Ok(Event::Init))));
            assert!(matches!(events.next().await, Some(Ok(Event::InitDone))));
            assert_eq!(lists.load(Ordering::SeqCst), round);
            let Some(Err(error)) = events.next().await else {
                panic!("no error");
            };
            assert!(is_too_large(&error), "{error}");
        }
    }
}
