//! What the bootstrap provider does inside a tenant: rights, tokens, certificate requests, Nodes. Requests are short
//! and bounded in time; watches have a connection of their own. The identity is the one of
//! [`super::bootstrap_role`], never an administrator's.

use std::time::Duration;

use base64::Engine as _;
use futures::{Stream, StreamExt as _};
use http::{HeaderValue, header::USER_AGENT};
use k8s_openapi::{
    ByteString,
    api::{
        certificates::v1::{CertificateSigningRequest, CertificateSigningRequestCondition},
        core::v1::{Event as CoreEvent, Node, Secret},
        rbac::v1::ClusterRoleBinding,
    },
    apimachinery::pkg::apis::meta::v1::Time,
    jiff::Timestamp,
};
use kamaji_api::{
    conditions::Reason,
    labels::{field_manager, namespace::TENANT_REPORTS, ours},
};
use kube::{
    Api, Client, Config, ResourceExt as _,
    api::{
        ApiResource, DeleteParams, DynamicObject, GroupVersionKind, ListParams, PartialObjectMeta, Patch,
        PatchParams, PostParams,
    },
    config::AuthInfo,
    runtime::{
        WatchStreamExt as _,
        watcher::{self, Event},
    },
};
use serde_json::{Value, json};

use super::bootstrap_role::CLIENT_SIGNER;
use crate::{
    k8s::conditions::quoted,
    pki::{
        kubeconfig::Kubeconfig,
        material::{self, Found},
    },
};

/// Longest time one request may take.
const PATIENCE: Duration = Duration::from_secs(10);
/// Namespace of the tokens.
const TOKENS: &str = "kube-system";

/// Why a request to a tenant came to nothing.
#[derive(Debug, thiserror::Error)]
pub enum Trouble {
    /// Nobody answers.
    #[error("{0}: no answer")]
    Unreachable(String),
    /// It answered no.
    #[error("{action}: {message}")]
    Refused {
        /// What was tried.
        action: String,
        /// HTTP status.
        code: u16,
        /// What it said.
        message: String,
    },
    /// The kubeconfig cannot be used.
    #[error("the kubeconfig cannot be used: {0}")]
    Credentials(String),
}

impl Trouble {
    /// HTTP status, where there was an answer.
    pub fn code(&self) -> Option<u16> {
        match self {
            Self::Refused { code, .. } => Some(*code),
            Self::Unreachable(_) | Self::Credentials(_) => None,
        }
    }
}

/// Connections to one tenant.
#[derive(Clone)]
pub struct Session {
    client: Client,
    watching: Client,
}

impl Session {
    /// Prepares connections from the text of a kubeconfig. No request is sent.
    ///
    /// # Errors
    /// When the kubeconfig cannot be used.
    pub fn new(kubeconfig: &[u8], role: &str) -> Result<Self, Trouble> {
        let parsed = Kubeconfig::parse(kubeconfig).map_err(|e| Trouble::Credentials(e.to_string()))?;
        let of = |patience: Option<Duration>| -> Result<Client, Trouble> {
            let config = configure(&parsed, role, patience)?;
            Client::try_from(config).map_err(|e| Trouble::Credentials(e.to_string()))
        };
        Ok(Self {
            client: of(Some(PATIENCE))?,
            // A watch is quiet for as long as nothing happens; the server ends it after five minutes.
            watching: of(Some(Duration::from_mins(6)))?,
        })
    }

    /// Connections through given clients.
    #[cfg(test)]
    pub fn of(client: Client, watching: Client) -> Self {
        Self { client, watching }
    }

    /// Applies one object by forced server-side apply.
    pub async fn apply(&self, object: &Value) -> Result<(), Trouble> {
        let text = |pointer: &str| {
            object
                .pointer(pointer)
                .and_then(Value::as_str)
                .unwrap_or_default()
        };
        let (group, version) = text("/apiVersion")
            .split_once('/')
            .unwrap_or_else(|| ("", text("/apiVersion")));
        let kind = GroupVersionKind::gvk(group, version, text("/kind"));
        let resource = ApiResource::from_gvk(&kind);
        let api: Api<DynamicObject> = match text("/metadata/namespace") {
            "" => Api::all_with(self.client.clone(), &resource),
            namespace => Api::namespaced_with(self.client.clone(), namespace, &resource),
        };
        let name = text("/metadata/name");
        let params = PatchParams::apply(field_manager::BOOTSTRAP).force();
        within(
            &format!("apply {} {name}", kind.kind),
            api.patch(name, &params, &Patch::Apply(object)),
        )
        .await?;
        Ok(())
    }

    /// All bindings of cluster roles.
    pub async fn bindings(&self) -> Result<Vec<ClusterRoleBinding>, Trouble> {
        let api: Api<ClusterRoleBinding> = Api::all(self.client.clone());
        Ok(
            within("list ClusterRoleBindings", api.list(&ListParams::default()))
                .await?
                .items,
        )
    }

    /// The Secret of a token, if it exists.
    pub async fn token(&self, id: &str) -> Result<Option<Secret>, Trouble> {
        let name = secret_name(id);
        within(&format!("get Secret {name}"), self.secrets().get_opt(&name)).await
    }

    /// Makes a token; `false` when its id is taken.
    pub async fn create_token(&self, secret: &Secret) -> Result<bool, Trouble> {
        let params = PostParams {
            field_manager: Some(field_manager::BOOTSTRAP.to_owned()),
            dry_run: false,
        };
        match within("create a token", self.secrets().create(&params, secret)).await {
            Ok(_) => Ok(true),
            Err(Trouble::Refused { code: 409, .. }) => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Moves the end of a token and takes it over; `false` when it does not exist.
    pub async fn extend_token(&self, secret: &Secret) -> Result<bool, Trouble> {
        let expiration: Option<&ByteString> = secret.data.as_ref().and_then(|data| data.get("expiration"));
        let patch = json!({
            "metadata": {"labels": secret.metadata.labels},
            "data": {"expiration": expiration},
        });
        let name = secret.name_any();
        let params = PatchParams::default();
        let patch = Patch::Merge(&patch);
        match within("extend a token", self.secrets().patch(&name, &params, &patch)).await {
            Ok(_) => Ok(true),
            Err(Trouble::Refused { code: 404, .. }) => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Ends a token. A missing one is fine.
    pub async fn delete_token(&self, id: &str) -> Result<(), Trouble> {
        let name = secret_name(id);
        match within(
            &format!("delete Secret {name}"),
            self.secrets().delete(&name, &DeleteParams::default()),
        )
        .await
        {
            Ok(_) | Err(Trouble::Refused { code: 404, .. }) => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// The Node of this name, if it exists.
    pub async fn node(&self, name: &str) -> Result<Option<Node>, Trouble> {
        let api: Api<Node> = Api::all(self.client.clone());
        within(&format!("get Node {name}"), api.get_opt(name)).await
    }

    /// Writes the provider id of a Node that has none. The API server lets nobody change one.
    pub async fn set_provider_id(&self, name: &str, id: &str) -> Result<(), Trouble> {
        let api: Api<Node> = Api::all(self.client.clone());
        let patch = json!({"spec": {"providerID": id}});
        let params = PatchParams {
            field_manager: Some(field_manager::BOOTSTRAP.to_owned()),
            ..PatchParams::default()
        };
        within(
            &format!("patch Node {name}"),
            api.patch(name, &params, &Patch::Merge(&patch)),
        )
        .await?;
        Ok(())
    }

    /// Approves or denies a request as it was read: a conflict when somebody wrote meanwhile.
    pub async fn answer(
        &self,
        request: &CertificateSigningRequest,
        approve: bool,
        reason: Reason,
        message: &str,
    ) -> Result<(), Trouble> {
        let api: Api<CertificateSigningRequest> = Api::all(self.client.clone());
        let mut request = request.clone();
        let now = Time(Timestamp::now());
        request
            .status
            .get_or_insert_default()
            .conditions
            .get_or_insert_default()
            .push(CertificateSigningRequestCondition {
                type_: if approve { "Approved" } else { "Denied" }.to_owned(),
                status: "True".to_owned(),
                reason: Some(reason.to_string()),
                message: Some(message.to_owned()),
                last_update_time: Some(now.clone()),
                last_transition_time: Some(now),
            });
        let name = request.name_any();
        let params = PostParams {
            field_manager: Some(field_manager::BOOTSTRAP.to_owned()),
            ..PostParams::default()
        };
        within(
            &format!("answer CertificateSigningRequest {name}"),
            api.replace_subresource("approval", &name, &params, &request),
        )
        .await?;
        Ok(())
    }

    /// Client certificate requests of kubelets, for as long as it is polled.
    pub fn requests(
        &self,
    ) -> impl Stream<Item = watcher::Result<Event<CertificateSigningRequest>>> + Send + 'static {
        let config = watcher::Config::default().fields(&format!("spec.signerName={CLIENT_SIGNER}"));
        watcher::watcher(Api::all(self.watching.clone()), config).default_backoff()
    }

    /// Nodes, for as long as it is polled.
    pub fn nodes(&self) -> impl Stream<Item = watcher::Result<Event<Node>>> + Send + 'static {
        watcher::watcher(Api::all(self.watching.clone()), watcher::Config::default()).default_backoff()
    }

    /// Metadata of the tokens we made, for as long as it is polled.
    pub fn tokens(
        &self,
    ) -> impl Stream<Item = watcher::Result<Event<PartialObjectMeta<Secret>>>> + Send + 'static {
        let api: Api<PartialObjectMeta<Secret>> = Api::namespaced(self.watching.clone(), TOKENS);
        let labels = format!("{}={}", ours::MANAGED_BY, field_manager::BOOTSTRAP);
        watcher::watcher(api, watcher::Config::default().labels(&labels)).default_backoff()
    }

    /// Reports of nodes, for as long as it is polled.
    pub fn reports(&self) -> impl Stream<Item = watcher::Result<Event<CoreEvent>>> + Send + 'static {
        let api: Api<CoreEvent> = Api::namespaced(self.watching.clone(), TENANT_REPORTS);
        watcher::watcher(api, watcher::Config::default())
            .default_backoff()
            .boxed()
    }

    fn secrets(&self) -> Api<Secret> {
        Api::namespaced(self.client.clone(), TOKENS)
    }
}

fn secret_name(id: &str) -> String {
    format!("bootstrap-token-{id}")
}

fn configure(kubeconfig: &Kubeconfig, role: &str, patience: Option<Duration>) -> Result<Config, Trouble> {
    let unusable = |error: &dyn std::error::Error| Trouble::Credentials(error.to_string());
    let uri: http::Uri = kubeconfig.server.parse().map_err(|e| unusable(&e))?;
    let mut config = Config::new(uri);
    let authorities = material::certificates(&Found {
        location: "certificate authority of the kubeconfig".to_owned(),
        bytes: kubeconfig.ca_pem.as_bytes(),
    })
    .map_err(|e| unusable(&e))?;
    config.root_cert = Some(authorities.iter().map(|der| der.to_vec()).collect());
    let base64 = base64::engine::general_purpose::STANDARD;
    config.auth_info = AuthInfo {
        client_certificate_data: Some(base64.encode(&kubeconfig.certificate_pem)),
        client_key_data: Some(base64.encode(kubeconfig.key_pem.expose()).into()),
        ..AuthInfo::default()
    };
    config.default_retry = false;
    config.connect_timeout = Some(Duration::from_secs(5));
    config.read_timeout = patience;
    config.write_timeout = Some(PATIENCE);
    config.proxy_url = None;
    let agent = format!("capi-kamaji/{} ({role})", env!("CARGO_PKG_VERSION"));
    config.headers.push((
        USER_AGENT,
        HeaderValue::try_from(agent).map_err(|e| unusable(&e))?,
    ));
    Ok(config)
}

async fn within<T>(
    action: &str,
    request: impl Future<Output = Result<T, kube::Error>>,
) -> Result<T, Trouble> {
    match tokio::time::timeout(PATIENCE, request).await {
        Ok(Ok(answer)) => Ok(answer),
        Ok(Err(kube::Error::Api(status))) => Err(Trouble::Refused {
            action: action.to_owned(),
            code: status.code,
            message: quoted(&status.message),
        }),
        Ok(Err(error)) => {
            tracing::debug!(action, %error, "tenant request failed");
            Err(Trouble::Unreachable(action.to_owned()))
        }
        Err(_) => Err(Trouble::Unreachable(action.to_owned())),
    }
}
