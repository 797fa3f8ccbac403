//! What the bootstrap provider does in a tenant: RBAC, bootstrap tokens, certificate requests, Nodes. Watches have a
//! connection of their own. The identity is the one of [`super::bootstrap_role`], never an admin's.

use std::{fmt::Debug, sync::Arc};

use futures::{Stream, StreamExt as _, TryStreamExt as _};
use k8s_openapi::{
    ByteString,
    api::{
        authorization::v1::{ResourceAttributes, SubjectAccessReview, SubjectAccessReviewSpec},
        certificates::v1::{CertificateSigningRequest, CertificateSigningRequestCondition},
        core::v1::{Event as CoreEvent, Node, Secret},
    },
    apimachinery::pkg::apis::meta::v1::Time,
    jiff::Timestamp,
};
use kamaji_api::{
    conditions::Reason,
    labels::{field_manager, namespace::TENANT_REPORTS, ours},
};
use kube::{
    Api, ResourceExt as _,
    api::{DeleteParams, ListParams, PartialObjectMeta, Patch, PatchParams, PostParams},
    runtime::{
        WatchStreamExt as _,
        watcher::{self, Event},
    },
};
use parking_lot::Mutex;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use super::{
    bootstrap_role::CLIENT_SIGNER,
    client::{Connection, Use, within},
    error::Error,
    pages::PAGE,
    sight::Sight,
    silence::Silence,
    watch,
};
use crate::{k8s::conditions::quoted, pki::kubeconfig::Kubeconfig};

/// Namespace of the tokens.
const TOKENS: &str = "kube-system";

/// Connections to one tenant. While it does not answer, its requests fail at once.
#[derive(Clone)]
pub struct Session {
    requests: Connection,
    watches: Connection,
    silence: Arc<Mutex<Silence>>,
}

impl Session {
    /// Prepares connections from the text of a kubeconfig. `role` becomes part of the user agent. No request is sent.
    ///
    /// # Errors
    /// When the kubeconfig cannot be used.
    pub fn new(kubeconfig: &[u8], role: &str) -> Result<Self, Error> {
        let kubeconfig = Kubeconfig::parse(kubeconfig).map_err(|e| Error::Credentials(e.to_string()))?;
        let connect = |used_for| {
            Connection::new(
                &kubeconfig,
                &kubeconfig.server,
                role,
                field_manager::BOOTSTRAP,
                used_for,
            )
        };
        Ok(Self {
            requests: connect(Use::Requests)?,
            watches: connect(Use::Watches)?,
            silence: Arc::default(),
        })
    }

    /// Connections through given clients.
    #[cfg(test)]
    pub fn of(requests: kube::Client, watches: kube::Client) -> Self {
        let connection = |client| Connection::from_client(client, field_manager::BOOTSTRAP);
        Self {
            requests: connection(requests),
            watches: connection(watches),
            silence: Arc::default(),
        }
    }

    /// Sends one request, unless the tenant is known not to answer.
    async fn ask<T>(&self, request: impl Future<Output = Result<T, Error>>) -> Result<T, Error> {
        let asked = now();
        self.silence.lock().may_ask(asked)?;
        let result = request.await;
        self.silence.lock().note(&result, asked, now());
        result
    }

    /// Applies one object by forced server-side apply.
    ///
    /// # Errors
    /// When the request fails.
    pub async fn apply(&self, object: &Value) -> Result<(), Error> {
        self.ask(self.requests.apply(object)).await
    }

    /// Asks what kube-controller-manager asks before it approves a request by itself: may a member of these groups have one
    /// approved? Returns why, in the words of the API server, if it may.
    ///
    /// # Errors
    /// When the request fails.
    pub async fn approves_automatically(&self, groups: &[&str]) -> Result<Option<String>, Error> {
        let review = SubjectAccessReview {
            spec: SubjectAccessReviewSpec {
                // No user of this name has a token; a rule for one user concerns that one alone.
                user: Some("system:bootstrap:000000".to_owned()),
                groups: Some(groups.iter().map(|&group| group.to_owned()).collect()),
                resource_attributes: Some(ResourceAttributes {
                    group: Some("certificates.k8s.io".to_owned()),
                    resource: Some("certificatesigningrequests".to_owned()),
                    subresource: Some("nodeclient".to_owned()),
                    verb: Some("create".to_owned()),
                    ..ResourceAttributes::default()
                }),
                ..SubjectAccessReviewSpec::default()
            },
            ..SubjectAccessReview::default()
        };
        let api: Api<SubjectAccessReview> = Api::all(self.requests.client());
        let params = PostParams::default();
        let answer = self.ask(within(
            "create a SubjectAccessReview",
            api.create(&params, &review),
        ));
        let status = answer.await?.status.unwrap_or_default();
        let why = || quoted(status.reason.as_deref().unwrap_or_default());
        Ok(status.allowed.then(why))
    }

    /// The Secret of a token, if it exists.
    pub async fn token(&self, id: &str) -> Result<Option<Secret>, Error> {
        let name = secret_name(id);
        let action = format!("get Secret {name}");
        self.ask(within(&action, self.secrets().get_opt(&name))).await
    }

    /// Metadata of our tokens with this label.
    pub async fn tokens_labelled(
        &self,
        label: &str,
        value: &str,
    ) -> Result<Vec<PartialObjectMeta<Secret>>, Error> {
        let labels = format!(
            "{}={},{label}={value}",
            ours::MANAGED_BY,
            field_manager::BOOTSTRAP
        );
        let params = ListParams::default().labels(&labels).limit(PAGE);
        let tokens = self.secrets();
        let list = within("list bootstrap tokens", tokens.list_metadata(&params));
        Ok(self.ask(list).await?.items)
    }

    /// Creates a token; `false` when its id is in use.
    pub async fn create_token(&self, secret: &Secret) -> Result<bool, Error> {
        let params = PostParams {
            field_manager: Some(field_manager::BOOTSTRAP.to_owned()),
            dry_run: false,
        };
        let tokens = self.secrets();
        let create = within("create a bootstrap token", tokens.create(&params, secret));
        match self.ask(create).await {
            Ok(_) => Ok(true),
            Err(Error::Refused { code: 409, .. }) => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Moves the expiration of a token and sets our labels on it; `false` when it does not exist.
    pub async fn extend_token(&self, secret: &Secret) -> Result<bool, Error> {
        let expiration: Option<&ByteString> = secret.data.as_ref().and_then(|data| data.get("expiration"));
        let patch = json!({
            "metadata": {"labels": secret.metadata.labels},
            "data": {"expiration": expiration},
        });
        let name = secret.name_any();
        let params = PatchParams::default();
        let patch = Patch::Merge(&patch);
        let tokens = self.secrets();
        let extend = within("extend a bootstrap token", tokens.patch(&name, &params, &patch));
        match self.ask(extend).await {
            Ok(_) => Ok(true),
            Err(Error::Refused { code: 404, .. }) => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Deletes a token, if it exists.
    pub async fn delete_token(&self, id: &str) -> Result<(), Error> {
        let name = secret_name(id);
        let (tokens, params) = (self.secrets(), DeleteParams::default());
        let action = format!("delete Secret {name}");
        match self.ask(within(&action, tokens.delete(&name, &params))).await {
            Ok(_) | Err(Error::Refused { code: 404, .. }) => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// What is read of the Node of this name, if it exists.
    pub async fn node(&self, name: &str) -> Result<Option<Node>, Error> {
        let api: Api<Sight> = Api::all(self.requests.client());
        let action = format!("get Node {name}");
        let found = self.ask(within(&action, api.get_opt(name))).await;
        Ok(found?.map(|Sight(node)| node))
    }

    /// Sets `spec.providerID` of a Node that has none. The API server refuses to change one.
    pub async fn set_provider_id(&self, name: &str, id: &str) -> Result<(), Error> {
        let api: Api<Node> = Api::all(self.requests.client());
        let patch = json!({"spec": {"providerID": id}});
        let params = PatchParams {
            field_manager: Some(field_manager::BOOTSTRAP.to_owned()),
            ..PatchParams::default()
        };
        self.ask(within(
            &format!("patch Node {name}"),
            api.patch(name, &params, &Patch::Merge(&patch)),
        ))
        .await?;
        Ok(())
    }

    /// Approves or denies a certificate request at the version that was read: a conflict if it changed since.
    pub async fn answer(
        &self,
        request: &CertificateSigningRequest,
        approve: bool,
        reason: Reason,
        message: &str,
    ) -> Result<(), Error> {
        let api: Api<CertificateSigningRequest> = Api::all(self.requests.client());
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
        self.ask(within(
            &format!("answer CertificateSigningRequest {name}"),
            api.replace_subresource("approval", &name, &params, &request),
        ))
        .await?;
        Ok(())
    }

    /// Watches certificate requests of kubelets for client certificates.
    pub fn requests(
        &self,
    ) -> impl Stream<Item = watcher::Result<Event<CertificateSigningRequest>>> + Send + 'static {
        let config = paged().fields(&format!("spec.signerName={CLIENT_SIGNER}"));
        self.watch(Api::all(self.watches.client()), config)
    }

    /// Watches what is read of Nodes.
    pub fn nodes(&self) -> impl Stream<Item = watcher::Result<Event<Node>>> + Send + 'static {
        let api: Api<Sight> = Api::all(self.watches.client());
        self.watch(api, paged()).map_ok(|event| match event {
            Event::Init => Event::Init,
            Event::InitApply(Sight(node)) => Event::InitApply(node),
            Event::InitDone => Event::InitDone,
            Event::Apply(Sight(node)) => Event::Apply(node),
            Event::Delete(Sight(node)) => Event::Delete(node),
        })
    }

    /// Watches the metadata of our tokens.
    pub fn tokens(
        &self,
    ) -> impl Stream<Item = watcher::Result<Event<PartialObjectMeta<Secret>>>> + Send + 'static {
        let api: Api<PartialObjectMeta<Secret>> = Api::namespaced(self.watches.client(), TOKENS);
        let labels = format!("{}={}", ours::MANAGED_BY, field_manager::BOOTSTRAP);
        self.watch(api, paged().labels(&labels))
    }

    /// Watches the Events by which nodes report failures.
    pub fn reports(&self) -> impl Stream<Item = watcher::Result<Event<CoreEvent>>> + Send + 'static {
        let api: Api<CoreEvent> = Api::namespaced(self.watches.client(), TENANT_REPORTS);
        self.watch(api, paged()).boxed()
    }

    /// A watch with backoff. What it brings is an answer of the tenant.
    fn watch<K>(
        &self,
        api: Api<K>,
        config: watcher::Config,
    ) -> impl Stream<Item = watcher::Result<Event<K>>> + Send + 'static
    where
        K: kube::Resource + Clone + DeserializeOwned + Debug + Send + 'static,
    {
        let silence = self.silence.clone();
        watch::watch(api, config)
            .default_backoff()
            // The first event says that a list begins, and not that it was answered.
            .inspect_ok(move |event| {
                if !matches!(event, Event::Init) {
                    silence.lock().note_answer();
                }
            })
    }

    fn secrets(&self) -> Api<Secret> {
        Api::namespaced(self.requests.client(), TOKENS)
    }
}

/// The time, which a test may stop.
fn now() -> std::time::Instant {
    tokio::time::Instant::now().into_std()
}

/// Lists in small pages: the tenant chooses how large its objects are.
fn paged() -> watcher::Config {
    watcher::Config::default().page_size(PAGE)
}

fn secret_name(id: &str) -> String {
    format!("bootstrap-token-{id}")
}
