//! Logs: JSON or text on standard error.

use clap::ValueEnum;
use tracing::Metadata;
use tracing_subscriber::{
    EnvFilter,
    filter::{FilterFn, LevelFilter},
    fmt,
    layer::SubscriberExt,
    util::SubscriberInitExt,
};

/// How log lines look.
#[derive(Clone, Copy, Debug, Default, ValueEnum)]
pub enum LogFormat {
    /// One JSON object a line.
    #[default]
    Json,
    /// For people at a terminal.
    Text,
}

/// The filter as it is written, when it can be used.
///
/// A bare word must be a level: as the name of a module it would silence everything else, which is never what a
/// misspelled level was meant for.
///
/// # Errors
/// What is wrong with it.
pub fn checked(filter: &str) -> Result<String, String> {
    let bare = |part: &&str| !part.contains(['=', '[', ':']);
    if let Some(word) = filter
        .split(',')
        .map(str::trim)
        .filter(bare)
        .find(|word| word.parse::<LevelFilter>().is_err())
    {
        return Err(format!(
            "{word:?} is no level (off, error, warn, info, debug, trace); for a module write MODULE=LEVEL"
        ));
    }
    match EnvFilter::try_new(filter) {
        Ok(_) => Ok(filter.to_owned()),
        Err(error) => Err(error.to_string()),
    }
}

/// Keeps bodies of objects out of the log, at every level. kube's client logs the whole answer when it cannot decode it,
/// such as a list of KamajiConfigs with their files, or a Secret. The error that it returns names the cause, so nothing
/// of that module is logged.
pub fn without_bodies() -> FilterFn {
    FilterFn::new(|line: &Metadata<'_>| !line.target().starts_with("kube_client::client"))
}

/// Installs the log subscriber. `filter` is in `tracing-subscriber`'s directive syntax, for example
/// `info,capi_kamaji=debug`.
///
/// # Errors
/// When the filter does not parse.
pub fn install(format: LogFormat, filter: &str) -> anyhow::Result<()> {
    let registry = tracing_subscriber::registry()
        .with(EnvFilter::try_new(filter)?)
        .with(without_bodies());
    match format {
        LogFormat::Json => registry
            .with(fmt::layer().json().with_writer(std::io::stderr))
            .try_init()?,
        LogFormat::Text => registry
            .with(fmt::layer().with_writer(std::io::stderr))
            .try_init()?,
    }
    Ok(())
}

/// Logs where a panic happened, and nothing of what it says: that may quote an object.
pub fn log_panics() {
    std::panic::set_hook(Box::new(|panic| {
        let location = panic.location().map(ToString::to_string).unwrap_or_default();
        tracing::error!(location, "panicked");
    }));
}

#[cfg(test)]
mod tests {
    use std::{
        convert::Infallible,
        io::Write,
        sync::{Arc, Mutex},
    };

    use http::{Request, Response};
    use k8s_openapi::api::core::v1::Secret;
    use kube::{
        Client,
        api::{Api, ListParams},
        client::Body,
    };
    use rstest::rstest;

    use super::*;

    const NEEDLE: &str = "needle-of-a-secret";

    #[derive(Clone, Default)]
    struct Log(Arc<Mutex<Vec<u8>>>);

    impl Write for Log {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0.lock().unwrap().write(bytes)
        }

        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    /// Without the filter kube's client logs the body: when this no longer holds, the filter may go.
    #[rstest]
    #[case::filtered(true)]
    #[case::unfiltered(false)]
    #[tokio::test]
    async fn an_answer_that_does_not_decode_is_kept_out_of_the_log(#[case] filtered: bool) {
        let service = tower::service_fn(|_: Request<Body>| async {
            let body =
                format!(r#"{{ "items": [{{ "stringData": {{ "key": "{NEEDLE}" }}, "immutable": "no" }}] }}"#);
            Ok::<_, Infallible>(Response::new(Body::from(body.into_bytes())))
        });
        let (log, client) = (Log::default(), Client::new(service, "demo"));
        let writer = log.clone();
        let lines = fmt::layer().with_writer(move || writer.clone());
        let subscriber = tracing_subscriber::registry()
            .with(EnvFilter::new("trace"))
            .with(filtered.then(without_bodies))
            .with(lines);
        let _installed = tracing::subscriber::set_default(subscriber);
        let listed = Api::<Secret>::all(client).list(&ListParams::default()).await;
        assert!(listed.is_err(), "{listed:?}");
        let text = String::from_utf8(log.0.lock().unwrap().clone()).unwrap();
        assert_eq!(text.contains(NEEDLE), !filtered, "{text}");
    }
}
