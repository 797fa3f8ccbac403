//! The client of [`super::wire`] that the provider uses: a small HTTP client for the machine host.

use http::{Method, Request, StatusCode, header};
use http_body_util::{BodyExt as _, Full};
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::TokioExecutor,
};
use serde_json::Value;

use super::wire::{Machine, Order, Refusal};

type Body = Full<axum::body::Bytes>;

/// Why the host did not fulfil a request.
#[derive(Debug)]
pub enum HostError {
    /// The order itself is wrong; the sentence is the host's.
    Refused(String),
    /// The host could not be reached or failed.
    Unavailable(String),
}

impl std::fmt::Display for HostError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Refused(message) | Self::Unavailable(message) => f.write_str(message),
        }
    }
}

impl std::error::Error for HostError {}

/// A machine host at one address.
pub struct HostClient {
    client: Client<HttpConnector, Body>,
    base: String,
    token: String,
}

impl HostClient {
    /// A client for `http://host:port`.
    pub fn new(base: &str, token: &str) -> Self {
        Self {
            client: Client::builder(TokioExecutor::new()).build_http(),
            base: base.trim_end_matches('/').to_owned(),
            token: token.trim().to_owned(),
        }
    }

    /// Boots the machine unless it has been.
    pub async fn ensure(&self, namespace: &str, name: &str, order: &Order) -> Result<Machine, HostError> {
        let body = serde_json::to_vec(order).map_err(unavailable)?;
        let (status, answer) = self.call(Method::PUT, namespace, name, body).await?;
        if status.is_success() {
            parse(answer)
        } else {
            Err(refused(status, answer))
        }
    }

    /// What the host knows of the machine; none if it knows none.
    pub async fn get(&self, namespace: &str, name: &str) -> Result<Option<Machine>, HostError> {
        let (status, answer) = self.call(Method::GET, namespace, name, Vec::new()).await?;
        match status {
            StatusCode::NOT_FOUND => Ok(None),
            status if status.is_success() => parse(answer).map(Some),
            status => Err(refused(status, answer)),
        }
    }

    /// Removes the machine; done when this returns.
    pub async fn remove(&self, namespace: &str, name: &str) -> Result<(), HostError> {
        let (status, answer) = self.call(Method::DELETE, namespace, name, Vec::new()).await?;
        if status.is_success() {
            Ok(())
        } else {
            Err(refused(status, answer))
        }
    }

    async fn call(
        &self,
        method: Method,
        namespace: &str,
        name: &str,
        body: Vec<u8>,
    ) -> Result<(StatusCode, Value), HostError> {
        let request = Request::builder()
            .method(method)
            .uri(format!("{}/v1/machines/{namespace}/{name}", self.base))
            .header(header::AUTHORIZATION, format!("Bearer {}", self.token))
            .header(header::CONTENT_TYPE, "application/json")
            .body(Body::from(body))
            .map_err(unavailable)?;
        let response = self.client.request(request).await.map_err(unavailable)?;
        let status = response.status();
        let bytes = response
            .into_body()
            .collect()
            .await
            .map_err(unavailable)?
            .to_bytes();
        Ok((status, serde_json::from_slice(&bytes).unwrap_or_default()))
    }
}

fn parse(answer: Value) -> Result<Machine, HostError> {
    serde_json::from_value(answer).map_err(unavailable)
}

fn refused(status: StatusCode, answer: Value) -> HostError {
    let message = serde_json::from_value(answer).map_or_else(|_| status.to_string(), |r: Refusal| r.message);
    if status == StatusCode::UNPROCESSABLE_ENTITY {
        HostError::Refused(message)
    } else {
        HostError::Unavailable(message)
    }
}

fn unavailable(error: impl std::error::Error) -> HostError {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text = format!("{text}: {cause}");
        source = cause.source();
    }
    HostError::Unavailable(format!("machine host: {text}"))
}
