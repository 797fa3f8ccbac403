//! One connection to a tenant's API server: made from a kubeconfig, every request bounded in time.

use std::{fmt, sync::Arc, time::Duration};

use base64::{Engine as _, engine::general_purpose::STANDARD as BASE64};
use http::{HeaderValue, Request, header::USER_AGENT};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::{
    Client, Config,
    api::{
        Api, ApiResource, DeleteParams, DynamicObject, GroupVersionKind, Patch, PatchParams, Preconditions,
    },
    client::ClientBuilder,
    config::AuthInfo,
};
use serde_json::Value;

use super::{error::Error, limit};
use crate::pki::{
    kubeconfig::Kubeconfig,
    material::{self, Found},
};

/// How long to wait for one answer.
pub(super) const ANSWER: Duration = Duration::from_secs(10);
/// How long to wait for a connection.
const CONNECT: Duration = Duration::from_secs(5);
/// How long a watch may be silent: the API server ends each after at most five minutes.
const WATCH: Duration = Duration::from_mins(6);

/// What a connection is used for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Use {
    /// Requests with one answer, 10 s at most.
    Requests,
    /// Watches: silent for as long as nothing happens, 6 min at most.
    Watches,
}

/// A connection with one identity. Cheap to clone.
#[derive(Clone)]
pub struct Connection {
    client: Client,
    field_manager: &'static str,
    /// How it was made; `None` where the client was given.
    config: Option<Arc<Config>>,
}

impl fmt::Debug for Connection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Connection")
            .field("field_manager", &self.field_manager)
            .finish_non_exhaustive()
    }
}

impl Connection {
    /// Prepares a connection with the identity of `kubeconfig`. No request is sent.
    ///
    /// `server` is the `https://` URL to connect to; the server's certificate must name its host. `role` becomes part of
    /// the user agent. Objects are applied as `field_manager`.
    ///
    /// # Errors
    /// When the kubeconfig cannot be used.
    pub fn new(
        kubeconfig: &Kubeconfig,
        server: &str,
        role: &str,
        field_manager: &'static str,
        used_for: Use,
    ) -> Result<Self, Error> {
        Self::named(kubeconfig, server, None, role, field_manager, used_for)
    }

    /// The same; the server's certificate must have the name `name`, if there is one, instead of the host of `server`.
    ///
    /// # Errors
    /// When the kubeconfig cannot be used.
    pub fn named(
        kubeconfig: &Kubeconfig,
        server: &str,
        name: Option<&str>,
        role: &str,
        field_manager: &'static str,
        used_for: Use,
    ) -> Result<Self, Error> {
        let mut config = configured(server, &kubeconfig.ca_pem, role)?;
        config.tls_server_name = name.map(str::to_owned);
        config.auth_info = AuthInfo {
            client_certificate_data: Some(BASE64.encode(&kubeconfig.certificate_pem)),
            client_key_data: Some(BASE64.encode(kubeconfig.key_pem.expose()).into()),
            ..AuthInfo::default()
        };
        if used_for == Use::Watches {
            config.read_timeout = Some(WATCH);
        }
        let client = built(config.clone())?;
        Ok(Self {
            config: Some(Arc::new(config)),
            ..Self::from_client(client, field_manager)
        })
    }

    /// A connection with the same identity to the same server that shares nothing else with this one: the next request
    /// goes to a pod that is ready now, where open connections may lead to one that is about to end.
    #[must_use]
    pub fn fresh(&self) -> Self {
        let config = self.config.as_deref().cloned();
        // It could be built before.
        config.and_then(|config| built(config).ok()).map_or_else(
            || self.clone(),
            |client| Self {
                client,
                ..self.clone()
            },
        )
    }

    /// A connection through a given client.
    pub fn from_client(client: Client, field_manager: &'static str) -> Self {
        Self {
            client,
            field_manager,
            config: None,
        }
    }

    /// The client, for typed APIs and watches. Requests through it belong into [`within`].
    pub fn client(&self) -> Client {
        self.client.clone()
    }

    /// Requests `/readyz` with this identity.
    ///
    /// # Errors
    /// When it does not answer, or not with success.
    pub async fn probe(&self) -> Result<(), Error> {
        let request = Request::get("/readyz")
            .body(Vec::new())
            .map_err(|error| Error::Credentials(error.to_string()))?;
        within("get /readyz", self.client.request_text(request)).await?;
        Ok(())
    }

    /// Applies one object by forced server-side apply.
    ///
    /// # Errors
    /// When the object has no kind or name, or the request fails.
    pub async fn apply(&self, object: &Value) -> Result<(), Error> {
        let target = self.target(object)?;
        let params = PatchParams::apply(self.field_manager).force();
        within(
            &format!("apply {} {}", target.kind, target.name),
            target.api.patch(&target.name, &params, &Patch::Apply(object)),
        )
        .await?;
        Ok(())
    }

    /// Deletes one object if `may` accepts the metadata of the object that exists. The deletion has the UID of that
    /// object as precondition. Returns `false` when `may` refused; an object that does not exist counts as deleted.
    ///
    /// # Errors
    /// When the object has no kind or name, or a request fails.
    pub async fn delete(&self, object: &Value, may: impl FnOnce(&ObjectMeta) -> bool) -> Result<bool, Error> {
        let Target { api, kind, name } = self.target(object)?;
        let action = format!("delete {kind} {name}");
        let Some(found) = within(&action, api.get_metadata_opt(&name)).await? else {
            return Ok(true);
        };
        if !may(&found.metadata) {
            return Ok(false);
        }
        let params = DeleteParams::background().preconditions(Preconditions {
            uid: found.metadata.uid,
            resource_version: None,
        });
        match within(&action, api.delete(&name, &params)).await {
            Ok(_) | Err(Error::Refused { code: 404, .. }) => Ok(true),
            Err(error) => Err(error),
        }
    }

    /// The API endpoint of an object, by its `apiVersion`, `kind` and metadata.
    fn target(&self, object: &Value) -> Result<Target, Error> {
        let text = |pointer: &str| object.pointer(pointer).and_then(Value::as_str);
        let kind = text("/kind").ok_or(Error::Malformed("kind"))?;
        let name = text("/metadata/name").ok_or(Error::Malformed("metadata.name"))?;
        let version = text("/apiVersion").ok_or(Error::Malformed("apiVersion"))?;
        let (group, version) = version.rsplit_once('/').unwrap_or(("", version));
        let resource = ApiResource::from_gvk(&GroupVersionKind::gvk(group, version, kind));
        let api = match text("/metadata/namespace") {
            Some(namespace) => Api::namespaced_with(self.client(), namespace, &resource),
            None => Api::all_with(self.client(), &resource),
        };
        Ok(Target {
            api,
            kind: kind.to_owned(),
            name: name.to_owned(),
        })
    }
}

/// A connection to `server` without an identity: whom it trusts, and how long it waits.
///
/// # Errors
/// When the URL or the CA cannot be used.
pub(super) fn configured(server: &str, ca_pem: &str, role: &str) -> Result<Config, Error> {
    let uri: http::Uri = server.parse().map_err(|e| unusable(&e))?;
    let mut config = Config::new(uri);
    let trusted = material::certificates(&Found {
        location: "certificate authority of the kubeconfig".to_owned(),
        bytes: ca_pem.as_bytes(),
    })
    .map_err(|e| unusable(&e))?;
    config.root_cert = Some(trusted.iter().map(|der| der.to_vec()).collect());
    config.default_retry = false;
    config.connect_timeout = Some(CONNECT);
    config.read_timeout = Some(ANSWER);
    config.write_timeout = Some(ANSWER);
    config.proxy_url = None;
    let agent = format!("capi-kamaji/{} ({role})", env!("CARGO_PKG_VERSION"));
    let agent = HeaderValue::try_from(agent).map_err(|e| unusable(&e))?;
    config.headers.push((USER_AGENT, agent));
    Ok(config)
}

/// The client of a connection, whose answers are bounded.
pub(super) fn built(config: Config) -> Result<Client, Error> {
    let builder = ClientBuilder::try_from(config).map_err(|e| unusable(&e))?;
    Ok(limit::bounded(builder.build()))
}

fn unusable(error: &dyn std::error::Error) -> Error {
    Error::Credentials(error.to_string())
}

struct Target {
    api: Api<DynamicObject>,
    kind: String,
    name: String,
}

/// Bounds one request in time. `action` names it in the error, for example `get Node m`.
///
/// # Errors
/// When the request fails or takes more than 10 s.
pub(super) async fn within<T>(
    action: &str,
    request: impl Future<Output = Result<T, kube::Error>>,
) -> Result<T, Error> {
    match tokio::time::timeout(ANSWER, request).await {
        Ok(answer) => answer.map_err(|error| {
            tracing::debug!(action, %error, "request to a tenant failed");
            Error::of(action, &error)
        }),
        Err(_) => Err(Error::Unreachable {
            action: action.to_owned(),
            cause: format!("no answer within {} s", ANSWER.as_secs()),
        }),
    }
}
