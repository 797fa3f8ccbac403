//! One pass over one KamajiConfig: gates → tenant → data → token → certificate requests → node → status. The status
//! is written on every way out.

use std::sync::Arc;

use k8s_openapi::{apimachinery::pkg::apis::meta::v1::Condition, jiff::Timestamp};
use kamaji_api::{
    bootstrap::{KamajiConfig, NameSource},
    conditions::{KamajiConfigCondition, Reason},
    labels::{capi, field_manager, ours},
};
use kube::{Api, ResourceExt as _};
use semver::Version;

use super::{
    Context,
    bootstrapdata::inputs,
    data_secret::{hand_out, secret::spec_hash},
    node_join::{finished, follow},
    observe::{self, Observed},
    preconditions::{self, Gate},
    status::{self, Progress},
    stop::Stop,
    tenants::{Tenant, rbac},
    validate,
};
use crate::{
    capi::{machine::Machine, paused},
    k8s::{
        conditions,
        error::Class,
        key::RootKey,
        status::{self as object_status, Guard},
    },
    runtime::driver::{Failure, Outcome, Reconciled},
    tenant::nodes::{Session, Trouble},
};

/// What one pass is about.
pub struct Pass<'a> {
    /// The process.
    pub context: &'a Context,
    /// Key of the config.
    pub key: &'a RootKey,
    /// The config, as it was when the pass began.
    pub config: &'a KamajiConfig,
    /// What stands around it.
    pub observed: &'a Observed,
    /// Its Machine.
    pub machine: &'a Machine,
    /// Its Cluster.
    pub cluster: RootKey,
    /// The data was announced before.
    pub announced: bool,
    /// The time.
    pub now: Timestamp,
}

/// One pass over `key`.
///
/// # Errors
/// What the API server answered, where the condition does not say it better.
pub async fn reconcile(context: &Context, key: &RootKey) -> Reconciled {
    let Some(config) = context.configs.get(key) else {
        forget(context, key).await;
        return Ok(Outcome::Done);
    };
    if config.metadata.deletion_timestamp.is_some() {
        forget(context, key).await;
        return Ok(Outcome::Done);
    }
    let now = Timestamp::now();
    let owner = preconditions::machine_owner(&config);
    let observed = observe::observe(
        context,
        &config,
        owner.as_ref().ok().map(|owner| owner.name.as_str()),
    );
    let mut progress = Progress {
        paused: paused::because(&*config, observed.cluster.as_deref()),
        ..Progress::default()
    };
    if progress.paused.is_some() {
        write(context, key, &progress, now).await?;
        return Ok(Outcome::Done);
    }
    let mut problems = validate::spec(&config.spec);
    problems.extend(preconditions::approver(&config.spec));
    progress.problems = Some(problems);
    let result = match owner.map(|_| ()) {
        Ok(()) => advance(context, key, &config, &observed, &mut progress, now).await,
        Err(gate) => {
            progress.gate = Some(gate);
            Ok(Outcome::Done)
        }
    };
    let result = match result {
        Err(Stop::Closed(gate, outcome)) => {
            status::close(&config, &mut progress, gate);
            Ok(outcome)
        }
        Err(Stop::Failed(failure)) if failure.class == Class::Conflict => return Err(failure),
        Err(Stop::Failed(failure)) => {
            // Passing trouble: what was said before still holds. Where nothing was, this is what is known.
            if config.status.is_none() {
                progress.gate = Some(Gate::closed(Reason::InternalError, failure.to_string()));
            }
            Err(failure)
        }
        Ok(outcome) => Ok(outcome),
    };
    // A failed write outranks the failure of a status that could not be written either.
    let written = write(context, key, &progress, now).await;
    let outcome = result?;
    written?;
    Ok(outcome)
}

async fn advance(
    context: &Context,
    key: &RootKey,
    config: &KamajiConfig,
    observed: &Observed,
    progress: &mut Progress,
    now: Timestamp,
) -> Result<Outcome, Stop> {
    let announced = status::announced(config);
    if announced {
        tell_of_change(context, config).await;
    }
    let (Some(machine), Some(cluster)) = (&observed.machine, &observed.cluster_name) else {
        let owner =
            preconditions::machine_owner(config).map_or_else(|_| String::new(), |owner| owner.name.clone());
        let message = format!("waiting for Machine {owner}, which owns it");
        return Err(Gate::closed(Reason::WaitingForOwner, message).into());
    };
    let pass = Pass {
        context,
        key,
        config,
        observed,
        machine,
        cluster: RootKey::new(key.namespace.clone(), cluster.clone()),
        announced,
        now,
    };
    if machine.metadata.deletion_timestamp.is_some() {
        forget(context, key).await;
        if announced {
            progress.token = Some(status::Token::Removed("the Machine is being deleted".to_owned()));
        }
        return Ok(Outcome::Done);
    }
    if announced && finished(config, machine) {
        context.tenants.leave(&pass.cluster, key);
        return Ok(Outcome::Done);
    }
    if !announced {
        pass.check(progress)?;
    }
    let tenant = pass.enter(progress).await?;
    // The token of a machine that joined is spent: nothing makes it again.
    let token = if status::joined_once(config) {
        None
    } else {
        hand_out(&pass, &tenant, progress).await?
    };
    progress.known.clone_from(&token);
    follow(&pass, &tenant, token, progress).await
}

impl Pass<'_> {
    /// Everything that has to hold before a machine gets its data, but for the tenant.
    ///
    /// # Errors
    /// What does not hold.
    pub fn check(&self, progress: &mut Progress) -> Result<Version, Gate> {
        preconditions::worker(self.machine)?;
        let mut problems = progress.problems.take().unwrap_or_default();
        let version = preconditions::version(self.machine);
        if let Ok(version) = &version {
            let name = self.machine.name_any();
            problems.extend(validate::version(&self.config.spec, &name, version));
            let running = self
                .observed
                .control_plane
                .as_ref()
                .and_then(|known| known.status.as_ref()?.version.clone())
                .and_then(|text| Version::parse(text.trim_start_matches('v')).ok());
            problems.extend(running.and_then(|running| validate::skew(&name, version, &running)));
        }
        let refused = problems
            .first()
            .map(|first| Gate::closed(first.reason, status::messages(&problems)));
        progress.problems = Some(problems);
        if let Some(gate) = refused {
            return Err(gate);
        }
        let version = version?;
        preconditions::cluster(&self.cluster.name, self.observed.cluster.as_deref())?;
        let hosts = self.hosts();
        preconditions::node_name(&self.config.spec, &self.machine.name_any(), &hosts)?;
        Ok(version)
    }

    /// Names by which the API server is reached.
    pub fn hosts(&self) -> Vec<String> {
        let observed = self.observed;
        preconditions::hosts(
            self.config,
            observed.cluster.as_deref(),
            observed.control_plane.as_deref(),
        )
    }

    /// The name the node will have, or has.
    pub fn node_name(&self) -> Option<String> {
        node_name(self.config, self.machine)
    }

    /// Gate 7: the tenant answers our own identity, and nodes have their rights in it.
    async fn enter(&self, progress: &mut Progress) -> Result<Arc<Tenant>, Stop> {
        let (context, cluster) = (self.context, &self.cluster);
        let name = format!("{}{}", cluster.name, ours::BOOTSTRAP_KUBECONFIG_SUFFIX);
        let missing = || {
            let message = format!("waiting for the control plane provider to write Secret {name}");
            Stop::closed(Gate::closed(Reason::WaitingForKubeconfig, message))
        };
        let row = observe::kubeconfig_row(context, cluster).ok_or_else(missing)?;
        let tenant = if let Some(tenant) = context.tenants.get(cluster, &row.resource_version) {
            tenant
        } else {
            let secret = observe::secret(context, &cluster.namespace, &row.key.name).await?;
            let secret = secret.ok_or_else(missing)?;
            let kubeconfig = observe::value(&secret, capi::VALUE_KEY).unwrap_or_default();
            let session = Session::new(kubeconfig, context.role).map_err(|error| {
                let message = format!("Secret {name}, key {:?}: {error}", capi::VALUE_KEY);
                Stop::closed(Gate::closed(Reason::WaitingForKubeconfig, message))
            })?;
            let uid = self
                .observed
                .cluster
                .as_ref()
                .and_then(|cluster| cluster.uid())
                .unwrap_or_default();
            context
                .tenants
                .open(cluster, &uid, &row.resource_version, session)
        };
        let id = self
            .config
            .status
            .as_ref()
            .and_then(|status| status.token.as_ref()?.id.as_deref());
        tenant.wait(self.key, id, self.node_name().as_deref());
        let found = grant(&tenant).await.map_err(|trouble| match trouble {
            Trouble::Refused { code, .. } if (400..500).contains(&code) && ![409, 429].contains(&code) => {
                Stop::waiting(Reason::TenantRBACFailed, trouble.to_string())
            }
            other => Stop::from(other),
        })?;
        progress.automatic = Some(found);
        Ok(tenant)
    }
}

/// Applies the rights of nodes once, and looks for bindings that would undo them: again and again while there is one.
async fn grant(tenant: &Tenant) -> Result<Vec<String>, Trouble> {
    let objects = rbac::objects();
    let digest = rbac::digest(&objects);
    let _one = tenant.claims.lock().await;
    match tenant.rights(&digest) {
        Some(found) if found.is_empty() => return Ok(found),
        Some(_) => {}
        None => {
            for object in &objects {
                tenant.session.apply(object).await?;
            }
        }
    }
    let found = rbac::automatic_approvals(&tenant.session.bindings().await?);
    tenant.note_rights(digest, found.clone());
    Ok(found)
}

/// The name the node of `config` will have, or has.
pub fn node_name(config: &KamajiConfig, machine: &Machine) -> Option<String> {
    let claim = config
        .status
        .as_ref()
        .and_then(|status| status.node.as_ref()?.name.clone());
    claim
        .or_else(|| machine.node().map(ToOwned::to_owned))
        .or_else(|| {
            (inputs::name_source(&config.spec) == NameSource::MachineName).then(|| machine.name_any())
        })
}

/// The config is gone or needs no machine any more: its token goes too, as far as the tenant answers. Deletion never
/// waits for that; the token's end bounds the worst case.
async fn forget(context: &Context, key: &RootKey) {
    if let Some(cluster) = context.tenants.cluster_of(key) {
        if let Some(tenant) = context.tenants.any(&cluster) {
            for id in tenant.tokens_to_end(key) {
                match tenant.session.delete_token(&id).await {
                    Ok(()) => tenant.note_end(&id),
                    Err(error) => tracing::info!(config = %key, %error, "a token is left to its end"),
                }
            }
        }
        context.tenants.leave(&cluster, key);
        return;
    }
    // It was paused, or went before this process looked at it.
    for tenant in context.tenants.within(&key.namespace) {
        tenant.sweep().await;
    }
}

/// The spec of a machine that has its data changed: it applies to new machines only.
async fn tell_of_change(context: &Context, config: &KamajiConfig) {
    let Some(status) = &config.status else {
        return;
    };
    let rendered = status
        .bootstrap_data
        .as_ref()
        .and_then(|data| data.spec_hash.as_deref());
    if status.observed_generation != config.metadata.generation
        && rendered.is_some_and(|rendered| rendered != spec_hash(config))
    {
        let note = "the bootstrap data is written already; the change applies to new machines only";
        context
            .events
            .note(config, Reason::SpecChangedAfterRender.as_str(), note)
            .await;
    }
}

/// Writes the status of the newest config, and publishes what is new about it.
async fn write(context: &Context, key: &RootKey, progress: &Progress, now: Timestamp) -> Result<(), Failure> {
    let Some(config) = context.configs.get(key) else {
        return Ok(());
    };
    let new = status::status(&config, progress, now);
    let api = Api::namespaced(context.client.clone(), &key.namespace);
    let old = config.status.as_ref();
    object_status::apply(
        &api,
        &context.configs,
        &*config,
        &new,
        field_manager::BOOTSTRAP,
        Guard::None,
    )
    .await?;
    let before = old.map(|old| old.conditions.as_slice()).unwrap_or_default();
    if let Some(ready) = turned(before, &new.conditions, KamajiConfigCondition::Ready) {
        if ready.status == "True" {
            let note = "the bootstrap data is ready";
            context
                .events
                .note(&*config, Reason::DataSecretAvailable.as_str(), note)
                .await;
        } else if !ready.reason.starts_with("WaitingFor") {
            context.events.warn(&*config, &ready.reason, &ready.message).await;
        }
    }
    let token = turned(
        before,
        &new.conditions,
        KamajiConfigCondition::BootstrapTokenValid,
    );
    if let Some(token) = token.filter(|token| token.status != "True") {
        context.events.warn(&*config, &token.reason, &token.message).await;
    }
    Ok(())
}

/// The condition, when it says something else than before.
fn turned<'a>(
    before: &[Condition],
    after: &'a [Condition],
    type_: KamajiConfigCondition,
) -> Option<&'a Condition> {
    let new = conditions::get(after, type_.as_str())?;
    let old = conditions::get(before, type_.as_str());
    let same = old.is_some_and(|old| (&old.status, &old.reason) == (&new.status, &new.reason));
    (!same).then_some(new)
}
