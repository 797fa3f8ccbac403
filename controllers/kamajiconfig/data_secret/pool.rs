//! Keeps the bootstrap data of a MachinePool: one Secret whose token is replaced before it expires, and that gets another
//! name when the user wants other machines.
//!
//! A pool may get new machines at any time, from the Secret or from what the infrastructure provider made of it. So a new
//! token is created in the workload cluster before the Secret has it: after a crash between both, nobody has the token, and
//! the next reconcile deletes it. The Secret decides which token is the current one; the status may be older by one crash.
//! Secrets of former intents stay, since instances may be made from them still; the tokens in them expire. They are deleted
//! with the config.
//!
//! Contents that the spec refers to are read again with each new token. What else the data depends on is watched: while that
//! is as it was, a reconcile sends no request.

use std::collections::HashMap;

use k8s_openapi::jiff::Timestamp;
use kamaji_api::{
    bootstrap::{BootstrapDataStatus, TokenStatus},
    conditions::Reason,
    labels::capi,
};
use parking_lot::Mutex;
use semver::Version;
use serde_json::json;

use super::secret::{self, Stored};
use crate::{
    k8s::{digest, error::Class, key::RootKey, manifest::Manifest, problem::Problem, report::Step},
    kamajiconfig::{
        bootstrapdata::{inputs::Target, render::Rendered},
        observe::{self, refused},
        pool::{
            intent,
            rotation::{self, Tokens},
        },
        scope::Scope,
        status::{self, Progress, seconds},
        target,
        tenants::Tenant,
        token::Token,
    },
};
/// From what this process rendered the data of each pool last.
#[derive(Default)]
pub struct Memory(Mutex<HashMap<RootKey, Seen>>);

#[derive(Clone, PartialEq, Eq)]
struct Seen {
    /// Digest of all that is watched.
    inputs: String,
    /// Name of the Secret.
    name: String,
    /// Resource version of the Secret.
    version: String,
}

impl Memory {
    /// The pool is gone.
    pub fn forget(&self, key: &RootKey) {
        self.0.lock().remove(key);
    }

    fn get(&self, key: &RootKey) -> Option<Seen> {
        self.0.lock().get(key).cloned()
    }

    /// Remembers the Secret of this name as it is now.
    fn note(&self, scope: &Scope<'_>, inputs: String, name: &str) {
        let row = observe::secret_row(scope.context, scope.config, name);
        let Some(row) = row else {
            return;
        };
        let seen = Seen {
            inputs,
            name: name.to_owned(),
            version: row.resource_version.clone(),
        };
        self.0.lock().insert(scope.key.clone(), seen);
    }
}

/// Creates, adopts or renews the data and its token.
///
/// # Errors
/// What is missing, or could not be written. The data stays as it was.
pub async fn ensure(
    scope: &Scope<'_>,
    tenant: &Tenant,
    known: Tokens,
    progress: &mut Progress,
) -> Result<Tokens, Problem> {
    let version = scope.version(progress)?;
    let inputs = watched(scope, version)?;
    let seen = scope.context.rendered.get(scope.key);
    if let Some(seen) = seen.as_ref().filter(|seen| seen.inputs == inputs)
        && is_current(scope, tenant, seen, &known)
    {
        progress.ca = Step::Done;
        progress.data = Some(status::Data::known(seen.name.clone()));
        return Ok(known);
    }
    let target = secret::target(scope, progress).await?;
    let intent = intent::digest(&scope.config.spec, version, &target);
    let name = intent::secret_name(&scope.key.name, scope.config.spec.pool_secret_name, &intent);
    let stored = match observe::secret_row(scope.context, scope.config, &name) {
        Some(row) => secret::adopt(scope, &row).await?,
        None => None,
    };
    let found = find(scope, tenant, (&name, stored.as_ref()), known).await?;
    let sources = Sources {
        version,
        target: &target,
        intent: &intent,
        name: &name,
    };
    let ttl = rotation::ttl(&scope.config.spec.auth.token);
    let due = rotation::due_in(&found.tokens, ttl, scope.now) <= 0;
    let (tokens, figures) = match found.token {
        Some(token) if !due => {
            // What is no intent of the user changes the content alone, such as the settings of the infrastructure.
            let changed = seen.is_some_and(|seen| seen.inputs != inputs);
            let stored = stored.filter(|_| !changed);
            let figures = keep(scope, (&token, &found.tokens), stored, &sources).await?;
            (found.tokens, figures)
        }
        _ => replace(scope, tenant, found.tokens, &sources).await?,
    };
    scope.context.rendered.note(scope, inputs, &name);
    progress.data = Some(status::Data {
        name,
        figures: Some(figures),
    });
    Ok(tokens)
}

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

/// What the data is rendered from, apart from contents that the spec refers to.
struct Sources<'a> {
    version: &'a Version,
    target: &'a Target,
    intent: &'a str,
    name: &'a str,
}

/// Digest of all that the data depends on and that is watched.
fn watched(scope: &Scope<'_>, version: &Version) -> Result<String, Problem> {
    let (config, observed) = (scope.config, scope.observed);
    let given = config.spec.control_plane.ca_secret_ref.as_ref();
    let ca = given.map_or_else(
        || format!("{}{}", scope.cluster.name, capi::CA_SUFFIX),
        |given| given.name.clone(),
    );
    let ca = observe::secret_row(scope.context, config, &ca);
    let cluster = observed.cluster.as_deref().ok_or_else(|| {
        Problem::on_change(
            Reason::WaitingForCluster,
            format!("waiting for Cluster {}", scope.cluster.name),
        )
    })?;
    let target = target::target(config, cluster, observed.control_plane.as_deref(), String::new())?;
    Ok(digest::of(&json!({
        "spec": scope.settings.onto(&config.spec),
        "preset": scope.settings.preset.name,
        "version": version.to_string(),
        "host": target.host,
        "port": target.port,
        "dns": target.cluster_dns,
        "domain": target.cluster_domain,
        "ca": ca.map(|row| row.resource_version.clone()),
    })))
}

/// The status reports the data, nobody changed its Secret since, and its token lives for long enough.
fn is_current(scope: &Scope<'_>, tenant: &Tenant, seen: &Seen, known: &Tokens) -> bool {
    let status = scope.config.status.as_ref();
    let announced = status.and_then(|status| status.data_secret_name.as_deref()) == Some(&seen.name);
    let row = observe::secret_row(scope.context, scope.config, &seen.name);
    let untouched = row.is_some_and(|row| row.resource_version == seen.version);
    let id = known.current.as_ref().and_then(|token| token.id.as_deref());
    let lives = id.is_some_and(|id| tenant.has_token(id) != Some(false));
    let ttl = rotation::ttl(&scope.config.spec.auth.token);
    scope.announced && announced && untouched && lives && rotation::due_in(known, ttl, scope.now) > 0
}

/// The tokens of the pool, and the current one with its secret part unless it has to be replaced.
struct Found {
    tokens: Tokens,
    token: Option<Token>,
}

/// Finds the current token: the one in the Secret that the status reports, else the one that the status has, else the one in
/// a Secret that a move or a restore from a backup brought.
async fn find(
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
    let expiration = observe::value(&found, "expiration").and_then(|bytes| std::str::from_utf8(bytes).ok());
    let end = expiration
        .and_then(|text| text.parse::<Timestamp>().ok())
        .unwrap_or(scope.now);
    let token = by_secret.or_else(|| secret::in_tenant(&id, &found));
    if let Some(token) = &token {
        let holder = scope.holder(tenant.cluster_uid());
        tenant
            .session
            .extend_token(&token.to_secret(&holder, end))
            .await?;
        tenant.note_token(&id, holder.uid);
    }
    let current = TokenStatus {
        id: Some(id),
        expiration: Some(seconds(end)),
        created: None,
    };
    Ok(Found {
        tokens: known.with(current),
        token,
    })
}

/// Leaves the token, and writes the Secret unless it is of this intent and as it was reported.
async fn keep(
    scope: &Scope<'_>,
    (token, tokens): (&Token, &Tokens),
    stored: Option<Stored>,
    sources: &Sources<'_>,
) -> Result<BootstrapDataStatus, Problem> {
    let reported = scope
        .config
        .status
        .as_ref()
        .and_then(|status| status.bootstrap_data.as_ref());
    let current = tokens.current.as_ref().and_then(|token| token.id.as_deref());
    if let Some(stored) = stored {
        let of_token = stored.token.as_ref().map(Token::id) == current;
        let of_intent = stored.figures.spec_hash.as_deref() == Some(sources.intent);
        let same_intent = reported.filter(|reported| reported.spec_hash == stored.figures.spec_hash);
        let as_reported = same_intent.is_none_or(|reported| reported.sha256 == stored.figures.sha256);
        // A newer token than the reported one is in it after a crash.
        let is_newer = scope
            .config
            .status
            .as_ref()
            .and_then(|status| status.token.as_ref()?.id.as_deref())
            != current;
        if of_token && of_intent && (as_reported || is_newer) {
            let known = same_intent.filter(|_| as_reported).cloned();
            return Ok(known.unwrap_or(stored.figures));
        }
    }
    let references = observe::references(scope.context, scope.config).await?;
    let rendered = secret::render(scope, sources.version, sources.target, &references, token)?;
    write(scope, sources, &rendered, token).await?;
    Ok(secret::figures(scope, &rendered, sources.intent))
}

/// Gives the data another token. The one before lives to its end.
async fn replace(
    scope: &Scope<'_>,
    tenant: &Tenant,
    known: Tokens,
    sources: &Sources<'_>,
) -> Result<(Tokens, BootstrapDataStatus), Problem> {
    // Everything that may fail for the spec comes first: without data, no token.
    let references = observe::references(scope.context, scope.config).await?;
    let token = secret::new_token(tenant).await?;
    let rendered = secret::render(scope, sources.version, sources.target, &references, &token)?;
    let holder = scope.holder(tenant.cluster_uid());
    let is_other = |id: &String| known.ids().all(|known| known != id);
    for id in tenant.tokens_of(holder.uid).into_iter().filter(is_other) {
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
    write(scope, sources, &rendered, &token).await?;
    let figures = secret::figures(scope, &rendered, sources.intent);
    Ok((known.with(current), figures))
}

async fn write(
    scope: &Scope<'_>,
    sources: &Sources<'_>,
    rendered: &Rendered,
    token: &Token,
) -> Result<(), Problem> {
    let text = rendered.text.as_bytes();
    let secret = secret::secret(scope, sources.name, sources.intent, (text, token));
    let manifest = Manifest::of(&secret)?;
    let applied = scope.context.applier.apply(&manifest).await.map_err(refused)?;
    // Another token is no news of its size.
    let reported = scope
        .config
        .status
        .as_ref()
        .and_then(|status| status.bootstrap_data.as_ref());
    let before = reported.and_then(|data| data.user_data_bytes);
    let is_news = applied.sent && before != i64::try_from(rendered.size.bytes).ok();
    if let Some(warning) = rendered.size.warning.as_ref().filter(|_| is_news) {
        let reason = Reason::UserDataNearLimit.as_str();
        scope.context.events.warn(scope.config, reason, warning).await;
    }
    Ok(())
}
