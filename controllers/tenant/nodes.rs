//! What the bootstrap provider does in a tenant: RBAC, bootstrap tokens, certificate requests, Nodes. Watches have a
//! connection of their own. The identity is the one of [`super::bootstrap_role`], never an admin's.

use futures::{Stream, StreamExt as _};
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
    Api, ResourceExt as _,
    api::{DeleteParams, ListParams, PartialObjectMeta, Patch, PatchParams, PostParams},
    runtime::{
        WatchStreamExt as _,
        watcher::{self, Event},
    },
};
use serde_json::{Value, json};

use super::{
    bootstrap_role::CLIENT_SIGNER,
    client::{Connection, Use, within},
    error::Error,
    limit::PAGE,
};
use crate::pki::kubeconfig::Kubeconfig;

/// Namespace of the tokens.
const TOKENS: &str = "kube-system";

/// Connections to one tenant.
#[derive(Clone)]
pub struct Session {
    requests: Connection,
    watches: Connection,
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
        })
    }

    /// Connections through given clients.
    #[cfg(test)]
    pub fn of(requests: kube::Client, watches: kube::Client) -> Self {
        let connection = |client| Connection::from_client(client, field_manager::BOOTSTRAP);
        Self {
            requests: connection(requests),
            watches: connection(watches),
        }
    }

    /// Applies one object by forced server-side apply.
    ///
    /// # Errors
    /// When the request fails.
    pub async fn apply(&self, object: &Value) -> Result<(), Error> {
        self.requests.apply(object).await
    }

    /// All bindings of cluster roles.
    pub async fn bindings(&self) -> Result<Vec<ClusterRoleBinding>, Error> {
        let api: Api<ClusterRoleBinding> = Api::all(self.requests.client());
        Ok(
            within("list ClusterRoleBindings", api.list(&ListParams::default()))
                .await?
                .items,
        )
    }

    /// The Secret of a token, if it exists.
    pub async fn token(&self, id: &str) -> Result<Option<Secret>, Error> {
        let name = secret_name(id);
        within(&format!("get Secret {name}"), self.secrets().get_opt(&name)).await
    }

    /// Creates a token; `false` when its id is in use.
    pub async fn create_token(&self, secret: &Secret) -> Result<bool, Error> {
        let params = PostParams {
            field_manager: Some(field_manager::BOOTSTRAP.to_owned()),
            dry_run: false,
        };
        match within("create a bootstrap token", self.secrets().create(&params, secret)).await {
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
        match within(
            "extend a bootstrap token",
            self.secrets().patch(&name, &params, &patch),
        )
        .await
        {
            Ok(_) => Ok(true),
            Err(Error::Refused { code: 404, .. }) => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Deletes a token, if it exists.
    pub async fn delete_token(&self, id: &str) -> Result<(), Error> {
        let name = secret_name(id);
        match within(
            &format!("delete Secret {name}"),
            self.secrets().delete(&name, &DeleteParams::default()),
        )
        .await
        {
            Ok(_) | Err(Error::Refused { code: 404, .. }) => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// The Node of this name, if it exists.
    pub async fn node(&self, name: &str) -> Result<Option<Node>, Error> {
        let api: Api<Node> = Api::all(self.requests.client());
        within(&format!("get Node {name}"), api.get_opt(name)).await
    }

    /// Sets `spec.providerID` of a Node that has none. The API server refuses to change one.
    pub async fn set_provider_id(&self, name: &str, id: &str) -> Result<(), Error> {
        let api: Api<Node> = Api::all(self.requests.client());
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
        within(
            &format!("answer CertificateSigningRequest {name}"),
            api.replace_subresource("approval", &name, &params, &request),
        )
        .await?;
        Ok(())
    }

    /// Watches certificate requests of kubelets for client certificates.
    pub fn requests(
        &self,
    ) -> impl Stream<Item = watcher::Result<Event<CertificateSigningRequest>>> + Send + 'static {
        let config = paged().fields(&format!("spec.signerName={CLIENT_SIGNER}"));
        watcher::watcher(Api::all(self.watches.client()), config).default_backoff()
    }

    /// Watches Nodes.
    pub fn nodes(&self) -> impl Stream<Item = watcher::Result<Event<Node>>> + Send + 'static {
        watcher::watcher(Api::all(self.watches.client()), paged()).default_backoff()
    }

    /// Watches the metadata of our tokens.
    pub fn tokens(
        &self,
    ) -> impl Stream<Item = watcher::Result<Event<PartialObjectMeta<Secret>>>> + Send + 'static {
        let api: Api<PartialObjectMeta<Secret>> = Api::namespaced(self.watches.client(), TOKENS);
        let labels = format!("{}={}", ours::MANAGED_BY, field_manager::BOOTSTRAP);
        watcher::watcher(api, paged().labels(&labels)).default_backoff()
    }

    /// Watches the Events by which nodes report failures.
    pub fn reports(&self) -> impl Stream<Item = watcher::Result<Event<CoreEvent>>> + Send + 'static {
        let api: Api<CoreEvent> = Api::namespaced(self.watches.client(), TENANT_REPORTS);
        watcher::watcher(api, paged()).default_backoff().boxed()
    }

    fn secrets(&self) -> Api<Secret> {
        Api::namespaced(self.requests.client(), TOKENS)
    }
}

/// Lists in small pages: the tenant chooses how large its objects are.
fn paged() -> watcher::Config {
    watcher::Config::default().page_size(PAGE)
}

fn secret_name(id: &str) -> String {
    format!("bootstrap-token-{id}")
}
