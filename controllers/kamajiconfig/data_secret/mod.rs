//! Creates the Secret with the bootstrap data, and keeps its token valid until the machine joins.
//!
//! The Secret decides which token a machine uses. It is created, never applied, so that of two replicas one creates it and
//! the other reads it. The token is created in the workload cluster only after that, from the Secret, and the status
//! reports the data only after the token exists, so that no machine boots with a token that does not exist. After a crash
//! the next reconcile reads the Secret, creates the token if it is missing, and reports the data. It does the same after
//! `clusterctl move` or the loss of the status: the Secret is adopted, and no second token is generated.
//!
//! [`Data`] and [`Credential`] are the two states that a reconcile finds, and [`ensure`] what it does about them. The data of
//! a MachinePool is another matter, since it changes: see [`pool`].

pub mod pool;
pub mod pool_token;
pub mod secret;

use std::sync::Arc;

use k8s_openapi::{api::core::v1::Secret, apimachinery::pkg::apis::meta::v1::Time, jiff::Timestamp};
use kamaji_api::{bootstrap::TokenStatus, conditions::Reason};
use kube::ResourceExt as _;

use super::{
    observe,
    owner::Owner,
    scope::Scope,
    status::{self, Progress, seconds},
    tenants::{NodeFacts, Tenant},
    token::{self, Lifetime, Token},
};
use crate::{
    k8s::{meta::controller_of, problem::Problem, report::Step, row::Row},
    tenant,
};
use secret::Stored;

/// The bootstrap data, before a reconcile does anything about it.
enum Data {
    /// The status reports the data, its Secret exists, and its token is valid for long enough: nothing to do.
    Current(TokenStatus),
    /// The Secret exists. Its token has to be created, extended or reported.
    Exists(Arc<Row>),
    /// There is no Secret.
    Missing,
}

impl Data {
    fn of(scope: &Scope<'_>, tenant: &Tenant, history: &History) -> Self {
        let row = observe::secret_row(scope.context, scope.config, &scope.config.name_any());
        let Some(row) = row else {
            return Self::Missing;
        };
        match &history.reported {
            Some(token)
                if scope.announced
                    && history.exists_in(tenant)
                    && !history.is_due(scope.now)
                    && !row.is_orphan_of(&controller_of(scope.config)) =>
            {
                Self::Current(token.clone())
            }
            Some(_) | None => Self::Exists(row),
        }
    }
}

/// What is to be done about the token that the data holds.
enum Credential {
    /// Nothing: its longest lifetime is over.
    Expired,
    /// Nothing: the machine joined before the config came here.
    Used,
    /// It has to be valid until then.
    Valid(Timestamp),
}

impl Credential {
    async fn of(scope: &Scope<'_>, tenant: &Tenant, history: &History) -> Result<Self, Problem> {
        if history.lifetime.is_over(history.created.0, scope.now) {
            return Ok(Self::Expired);
        }
        if has_joined_before(scope, tenant).await? {
            return Ok(Self::Used);
        }
        // One that is put back is valid for as long as it was.
        let before = history.expiration.filter(|_| !history.is_due(scope.now));
        let end = before.unwrap_or_else(|| history.lifetime.end(history.created.0, scope.now));
        Ok(Self::Valid(end))
    }
}

/// The token as the status reported it before.
struct History {
    reported: Option<TokenStatus>,
    lifetime: Lifetime,
    /// When it was created; now, for the first one.
    created: Time,
    expiration: Option<Timestamp>,
}

impl History {
    fn of(scope: &Scope<'_>) -> Self {
        let status = scope.config.status.as_ref();
        let reported = status.and_then(|status| status.token.clone());
        let created = reported.as_ref().and_then(|token| token.created.clone());
        let expiration = reported.as_ref().and_then(|token| token.expiration.as_ref());
        Self {
            lifetime: scope.lifetime(),
            created: created.unwrap_or_else(|| seconds(scope.now)),
            expiration: expiration.map(|time| time.0),
            reported,
        }
    }

    fn id(&self) -> Option<&str> {
        self.reported.as_ref()?.id.as_deref()
    }

    /// It has an ID, and the workload cluster has it, as far as is known.
    fn exists_in(&self, tenant: &Tenant) -> bool {
        self.id().is_some_and(|id| tenant.has_token(id) != Some(false))
    }

    /// It has to be extended.
    fn is_due(&self, now: Timestamp) -> bool {
        let lifetime = &self.lifetime;
        self.expiration
            .is_none_or(|end| lifetime.due_in(end, now) <= 0 && !lifetime.is_last(self.created.0, end))
    }

    /// The status of `token`, with what is known of it from before.
    fn status_of(&self, token: &Token) -> TokenStatus {
        TokenStatus {
            id: Some(token.id().to_owned()),
            expiration: self.expiration.map(seconds),
            created: Some(self.created.clone()),
        }
    }
}

/// Creates or adopts the Secret, then creates or extends its token, then reports the data. Returns the token, if the data
/// holds one.
///
/// # Errors
/// What is missing, or could not be written.
pub async fn ensure(
    scope: &Scope<'_>,
    tenant: &Arc<Tenant>,
    progress: &mut Progress,
) -> Result<Option<TokenStatus>, Problem> {
    let history = History::of(scope);
    if status::is_abused(scope.config) {
        progress.data = Some(status::Data::known(scope.config.name_any()));
        return Ok(history.reported);
    }
    let found = match Data::of(scope, tenant, &history) {
        Data::Current(token) => {
            // A precondition that was not met for a while, or the loss of the Secret, may have been reported since.
            progress.ca = Step::Done;
            progress.data = Some(status::Data::known(scope.config.name_any()));
            return Ok(Some(token));
        }
        Data::Exists(row) => {
            progress.lost = scope.announced;
            secret::adopt(scope, &row).await?
        }
        Data::Missing => {
            progress.lost = scope.announced;
            None
        }
    };
    let stored = match found {
        Some(stored) => {
            // It holds the CA. A crash or a move may have lost that this was reported.
            progress.ca = Step::Done;
            stored
        }
        None => secret::create(scope, tenant, history.id(), progress).await?,
    };
    progress.lost = false;
    let Some(token) = stored.token.clone() else {
        progress.data = Some(status::Data {
            name: scope.config.name_any(),
            figures: Some(stored.figures),
        });
        return Ok(None);
    };
    let known = history.status_of(&token);
    if scope.announced {
        progress.known = Some(known.clone());
    }
    tenant.wait(scope, Some(token.id()), scope.node_name().as_deref());
    match Credential::of(scope, tenant, &history).await? {
        Credential::Expired => Ok(Some(known)),
        Credential::Used => {
            report(scope, stored, progress);
            Ok(Some(known))
        }
        Credential::Valid(end) => {
            keep_valid(scope, tenant, &token, end).await?;
            report(scope, stored, progress);
            Ok(Some(TokenStatus {
                expiration: Some(seconds(end)),
                ..known
            }))
        }
    }
}

/// Reports the data, with the figures of before if it is the same.
fn report(scope: &Scope<'_>, stored: Stored, progress: &mut Progress) {
    let status = scope.config.status.as_ref();
    let before = status.and_then(|status| status.bootstrap_data.clone());
    let same = before
        .as_ref()
        .is_some_and(|before| before.sha256 == stored.figures.sha256);
    progress.data = Some(status::Data {
        name: scope.config.name_any(),
        figures: if same { before } else { Some(stored.figures) },
    });
}

/// After `clusterctl move`: the infrastructure provider knows the Machine, and its Node exists already.
async fn has_joined_before(scope: &Scope<'_>, tenant: &Tenant) -> Result<bool, tenant::Error> {
    let Owner::Machine(machine) = &scope.owner else {
        return Ok(false);
    };
    if machine.spec.bootstrap.data_secret_name.is_none() || machine.spec.provider_id.is_empty() {
        return Ok(false);
    }
    let Some(name) = scope.node_name() else {
        return Ok(false);
    };
    let node = tenant.session.node(&name).await?;
    Ok(node.is_some_and(|node| NodeFacts::of(&node).provider_id == machine.spec.provider_id))
}

/// Creates the token, or moves its expiration. One that exists with the same secret part is this one, whatever its labels.
async fn keep_valid(
    scope: &Scope<'_>,
    tenant: &Tenant,
    token: &Token,
    end: Timestamp,
) -> Result<(), Problem> {
    let holder = scope.holder(tenant.cluster_uid());
    let desired = token.to_secret(&holder, end);
    let session = &tenant.session;
    let done =
        (scope.announced && session.extend_token(&desired).await?) || session.create_token(&desired).await?;
    if !done {
        let secret_part = |secret: &Secret| observe::value(secret, "token-secret").map(<[u8]>::to_vec);
        let found = session.token(token.id()).await?;
        if found.is_none_or(|found| secret_part(&found) != secret_part(&desired)) {
            return Err(Problem::unwatched(
                Reason::SecretNameTaken,
                format!(
                    "Secret {}/{} in the workload cluster holds another token: delete it there, or delete Secret {} here to \
                     have another token generated before the machine boots",
                    token::NAMESPACE,
                    token::secret_name(token.id()),
                    scope.config.name_any(),
                ),
            ));
        }
        session.extend_token(&desired).await?;
    }
    tenant.note_token(token.id(), holder.uid);
    Ok(())
}
