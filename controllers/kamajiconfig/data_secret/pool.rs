//! Keeps the bootstrap data of a MachinePool: one Secret whose token is replaced before it expires, and that gets another
//! name when the user wants other machines.
//!
//! A pool may get new machines at any time, from the Secret or from what the infrastructure provider made of it. So a new
//! token is created in the workload cluster before the Secret has it: after a crash between both, nobody has the token, and
//! the next reconcile deletes it. The Secret decides which token is the current one; the status may be older by one crash.
//! It names the one before too: `clusterctl move` keeps no status.
//! Secrets of former intents stay, since instances may be made from them still; the tokens in them expire. They are deleted
//! with the config.
//!
//! Contents that the spec refers to are read again with each new token. What else the data depends on is watched: while that
//! is as it was, a reconcile sends no request. While something keeps the data from being rendered, the data that machines boot
//! from gets new tokens all the same, and nothing else.

use std::collections::HashMap;

use kamaji_api::{bootstrap::BootstrapDataStatus, conditions::Reason, labels::capi};
use parking_lot::Mutex;
use semver::Version;
use serde_json::json;

use super::{
    pool_token::{find, issue},
    secret::{self, Stored},
};
use crate::{
    k8s::{digest, key::RootKey, manifest::Manifest, problem::Problem, report::Step},
    kamajiconfig::{
        bootstrapdata::{inputs::Target, render::Rendered},
        observe::{self, refused},
        pool::{
            intent,
            rotation::{self, Tokens},
        },
        scope::Scope,
        status::{self, Progress},
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
        // One without our label is not watched.
        None => secret::published(scope, &name).await?.map(|(_, stored)| stored),
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

/// Gives the data that the status reports another token in time, while something keeps it from being rendered. `None` if that
/// is not possible: it is deleted, or somebody else wrote it.
///
/// # Errors
/// When something could not be read or written.
pub async fn renew(
    scope: &Scope<'_>,
    tenant: &Tenant,
    known: Tokens,
    progress: &mut Progress,
) -> Result<Option<Tokens>, Problem> {
    let status = scope.config.status.as_ref();
    let Some(name) = status.and_then(|status| status.data_secret_name.clone()) else {
        return Ok(None);
    };
    let seen = scope.context.rendered.get(scope.key);
    if seen
        .as_ref()
        .is_some_and(|seen| seen.name == name && is_current(scope, tenant, seen, &known))
    {
        return Ok(Some(known));
    }
    let Some((secret, stored)) = secret::published(scope, &name).await? else {
        return Ok(None);
    };
    let found = find(scope, tenant, (&name, Some(&stored)), known).await?;
    let inputs = seen.map(|seen| seen.inputs).unwrap_or_default();
    let ttl = rotation::ttl(&scope.config.spec.auth.token);
    if found.token.is_some() && rotation::due_in(&found.tokens, ttl, scope.now) > 0 {
        scope.context.rendered.note(scope, inputs, &name);
        return Ok(Some(found.tokens));
    }
    let token = secret::new_token(tenant).await?;
    let former = found
        .tokens
        .current
        .as_ref()
        .and_then(|token| token.id.as_deref());
    let Some(renewed) = secret::with_token(scope.config, &secret, &token, former) else {
        return Ok(None);
    };
    let manifest = Manifest::of(&renewed)?;
    let current = issue(scope, tenant, &found.tokens, &token).await?;
    scope.context.applier.apply(&manifest).await.map_err(refused)?;
    // Once it can be rendered, it is compared with what was watched before.
    scope.context.rendered.note(scope, inputs, &name);
    let data = observe::value(&renewed, capi::VALUE_KEY).unwrap_or_default();
    let before = status.and_then(|status| status.bootstrap_data.clone());
    progress.data = Some(status::Data {
        name,
        figures: Some(BootstrapDataStatus {
            sha256: Some(secret::sha256(data)),
            ..before.unwrap_or(stored.figures)
        }),
    });
    Ok(Some(found.tokens.with(current)))
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
    let former = tokens.former.as_ref().and_then(|token| token.id.as_deref());
    write(scope, sources, &rendered, (token, former)).await?;
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
    let current = issue(scope, tenant, &known, &token).await?;
    let former = known.current.as_ref().and_then(|token| token.id.as_deref());
    write(scope, sources, &rendered, (&token, former)).await?;
    let figures = secret::figures(scope, &rendered, sources.intent);
    Ok((known.with(current), figures))
}

async fn write(
    scope: &Scope<'_>,
    sources: &Sources<'_>,
    rendered: &Rendered,
    (token, former): (&Token, Option<&str>),
) -> Result<(), Problem> {
    let text = rendered.text.as_bytes();
    let secret = secret::secret(scope, sources.name, sources.intent, (text, token, former));
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
    if is_news {
        secret::warn(scope, rendered).await;
    }
    Ok(())
}
