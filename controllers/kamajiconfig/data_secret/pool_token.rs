//! The tokens of a MachinePool in its workload cluster: finds, adopts, creates and ends them. [`super::pool`] says when.

use k8s_openapi::{api::core::v1::Secret, jiff::Timestamp};
use kamaji_api::{bootstrap::TokenStatus, conditions::Reason};

use super::secret::{self, Stored};
use crate::{
    k8s::{error::Class, problem::Problem},
    kamajiconfig::{
        observe,
        pool::rotation::{self, Tokens},
        scope::Scope,
        status::seconds,
        tenants::Tenant,
        token::Token,
    },
};

/// Ends the tokens whose bearers abuse them, whatever else is wrong: who has one need not have the other. Returns the rest.
///
/// # Errors
/// When the workload cluster does not delete one.
pub async fn end_abused(scope: &Scope<'_>, tenant: &Tenant, mut known: Tokens) -> Result<Tokens, Problem> {
    let ids: Vec<String> = known.ids().map(ToOwned::to_owned).collect();
    for id in ids {
        if !tenant.is_abused_by(scope.key, &id) {
            continue;
        }
        tenant.session.delete_token(&id).await?;
        tenant.note_end(&id);
        known = known.without(&id);
        tracing::info!(config = %scope.key, id, "deleted a token of a pool, which was abused");
        let note = "a token was used for many requests that were denied or for a flood of reports: it was deleted in the \
                    workload cluster, and new machines get another one; find out who had it";
        let reason = Reason::TokenAbused.as_str();
        scope.context.events.warn(scope.config, reason, note).await;
    }
    Ok(known)
}

/// The tokens of the pool, and the current one with its secret part unless it has to be replaced.
pub struct Found {
    /// The tokens.
    pub tokens: Tokens,
    /// The current one, if it goes on.
    pub token: Option<Token>,
}

/// Finds the current token: the one in the Secret that the status reports, else the one that the status has, else the one in
/// a Secret that a move or a restore from a backup brought.
///
/// # Errors
/// When the workload cluster does not answer.
pub async fn find(
    scope: &Scope<'_>,
    tenant: &Tenant,
    (name, stored): (&str, Option<&Stored>),
    known: Tokens,
) -> Result<Found, Problem> {
    let status = scope.config.status.as_ref();
    let is_reported = status.and_then(|status| status.data_secret_name.as_deref()) == Some(name);
    let known_id = known.current.as_ref().and_then(|token| token.id.clone());
    let in_secret = stored.and_then(|stored| stored.token.clone());
    let by_secret = in_secret
        .filter(|token| is_reported || known_id.is_none() || known_id.as_deref() == Some(token.id()));
    let Some(id) = by_secret
        .as_ref()
        .map(|token| token.id().to_owned())
        .or_else(|| known_id.clone())
    else {
        return Ok(Found {
            tokens: known,
            token: None,
        });
    };
    let is_known = known_id.as_deref() == Some(&id);
    if by_secret.is_some() && is_known && tenant.has_token(&id) == Some(true) {
        return Ok(Found {
            tokens: known,
            token: by_secret,
        });
    }
    let Some(found) = tenant.session.token(&id).await? else {
        // It was deleted. The one before may live.
        let tokens = Tokens {
            current: None,
            former: known.former,
        };
        return Ok(Found { tokens, token: None });
    };
    if is_known {
        return Ok(Found {
            tokens: known,
            token: secret::in_tenant(&id, &found),
        });
    }
    // It has the labels of another management cluster, or of this config before a restore.
    let end = end_of(&found, scope);
    let token = by_secret.or_else(|| secret::in_tenant(&id, &found));
    let current = own(scope, tenant, (&id, token.as_ref()), end).await?;
    let mut tokens = known.with(current);
    let former = stored.and_then(|stored| stored.former.as_deref());
    if let Some(former) = former.filter(|former| tokens.former.is_none() && *former != id) {
        tokens.former = adopt(scope, tenant, former).await?;
    }
    Ok(Found { tokens, token })
}

/// The token of this ID in the workload cluster, if it is there, as one of this config.
async fn adopt(scope: &Scope<'_>, tenant: &Tenant, id: &str) -> Result<Option<TokenStatus>, Problem> {
    let Some(found) = tenant.session.token(id).await? else {
        return Ok(None);
    };
    let token = secret::in_tenant(id, &found);
    Ok(Some(
        own(scope, tenant, (id, token.as_ref()), end_of(&found, scope)).await?,
    ))
}

/// When a token ends, by its Secret in the workload cluster.
fn end_of(secret: &Secret, scope: &Scope<'_>) -> Timestamp {
    let end = observe::value(secret, "expiration").and_then(|bytes| std::str::from_utf8(bytes).ok());
    end.and_then(|text| text.parse::<Timestamp>().ok())
        .unwrap_or(scope.now)
}

/// Gives a token in the workload cluster the labels of this config.
async fn own(
    scope: &Scope<'_>,
    tenant: &Tenant,
    (id, token): (&str, Option<&Token>),
    end: Timestamp,
) -> Result<TokenStatus, Problem> {
    if let Some(token) = token {
        let holder = scope.holder(tenant.cluster_uid());
        let secret = token.to_secret(&holder, end);
        tenant.session.extend_token(&secret).await?;
        tenant.note_token(id, holder.uid);
    }
    Ok(TokenStatus {
        id: Some(id.to_owned()),
        expiration: Some(seconds(end)),
        created: None,
    })
}

/// Creates `token` in the workload cluster, and deletes there what is neither this one nor known: nobody has it.
///
/// # Errors
/// When the workload cluster does not answer, or refuses.
pub async fn issue(
    scope: &Scope<'_>,
    tenant: &Tenant,
    known: &Tokens,
    token: &Token,
) -> Result<TokenStatus, Problem> {
    let holder = scope.holder(tenant.cluster_uid());
    let is_other = |id: &String| known.ids().all(|known| known != id);
    for id in tenant.tokens_of(holder.uid).await?.into_iter().filter(is_other) {
        tenant.session.delete_token(&id).await?;
        tenant.note_end(&id);
    }
    let end = scope.now.as_second() + rotation::ttl(&scope.config.spec.auth.token);
    let end = Timestamp::from_second(end).unwrap_or(scope.now);
    let current = TokenStatus {
        id: Some(token.id().to_owned()),
        expiration: Some(seconds(end)),
        created: Some(seconds(scope.now)),
    };
    // Its requests are this pool's from the moment at which somebody can have it.
    tenant.wait(scope, Some(token.id()), None);
    let secret = token.to_secret(&holder, end);
    if !tenant.session.create_token(&secret).await? {
        return Err(Problem::backoff(
            Class::Conflict,
            Reason::InternalError,
            "the ID of a new token is in use",
        ));
    }
    tenant.note_token(token.id(), holder.uid);
    Ok(current)
}
