//! One reconcile of one KamajiConfig: observe → validate → scope → open the workload cluster → data and token → join →
//! status. The status is written whatever step the reconcile ends with.

use k8s_openapi::{apimachinery::pkg::apis::meta::v1::OwnerReference, jiff::Timestamp};
use kamaji_api::{bootstrap::KamajiConfig, conditions::Reason, labels::field_manager};
use kube::{Api, ResourceExt as _};

use super::{
    Context,
    data_secret::{
        self,
        secret::{self, spec_hash},
    },
    events::RULES,
    node_join,
    observe::{self, Observed, is_failure},
    owner::Owner,
    pool_join, preconditions,
    scope::Scope,
    status::{self, Progress, Token},
    tenants, validate,
};
use crate::{
    capi::{machine::Machine, paused},
    k8s::{
        error::ApiError,
        key::RootKey,
        problem::Problem,
        report::{Publisher, publish},
    },
    runtime::driver::{Outcome, Reconciled},
};

/// Reconciles the config with this key.
///
/// # Errors
/// What the API server answered, unless a condition reports it.
pub async fn reconcile(context: &Context, key: &RootKey) -> Reconciled {
    if context.configs.is_undecodable(key) {
        return Ok(Outcome::Done);
    }
    let config = context.configs.get(key);
    let Some(config) = config.filter(|config| config.metadata.deletion_timestamp.is_none()) else {
        forget(context, key).await;
        return Ok(Outcome::Done);
    };
    let now = Timestamp::now();
    let owner = preconditions::owner(&config);
    let observed = observe::observe(context, &config, owner.as_ref().ok().copied());
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
    progress.problems = Some(problems.clone());
    let result = match owner {
        Ok(owner) => {
            let config = (key, &*config);
            advance(context, config, owner, (&observed, problems), &mut progress, now).await
        }
        Err(problem) => {
            status::stopped(&config, &mut progress, problem);
            Ok(Outcome::Done)
        }
    };
    let ended = match result {
        Ok(outcome) => Ok(outcome),
        Err(problem) if problem.is_conflict() => return problem.settle(),
        Err(problem) => {
            report(&config, &mut progress, &problem);
            problem.settle()
        }
    };
    // If both failed, the failure of the reconcile is the one that is returned.
    let written = write(context, key, &progress, now).await;
    let outcome = ended?;
    written?;
    Ok(outcome)
}

/// The steps, for a config whose owner is known.
async fn advance(
    context: &Context,
    (key, config): (&RootKey, &KamajiConfig),
    owner: Owner<&OwnerReference>,
    (observed, problems): (&Observed, Vec<Problem>),
    progress: &mut Progress,
    now: Timestamp,
) -> Result<Outcome, Problem> {
    let scope = Scope::new(context, (key, config), owner, observed, problems, now)?;
    if scope.is_owner_deleting() {
        forget(context, key).await;
        if scope.announced {
            progress.token = Some(Token::Removed(format!("{} is being deleted", scope.owner_name())));
        }
        return Ok(Outcome::Done);
    }
    match &scope.owner {
        Owner::Machine(machine) => advance_machine(&scope, machine, progress).await,
        Owner::Pool(pool) => pool_join::advance(&scope, pool, progress).await,
    }
}

/// The steps, for a config with one Machine.
async fn advance_machine(
    scope: &Scope<'_>,
    machine: &Machine,
    progress: &mut Progress,
) -> Result<Outcome, Problem> {
    let (context, key, config) = (scope.context, scope.key, scope.config);
    if status::is_announced(config) {
        note_spec_change(context, config).await;
    }
    if status::has_joined(config) {
        // The machine uses its data, whatever a precondition reported in between.
        progress.data = Some(status::Data::known(config.name_any()));
        secret::reclaim(scope).await?;
    }
    if scope.announced && node_join::is_complete(config, machine) {
        context.tenants.leave(&scope.cluster, key);
        return Ok(Outcome::Done);
    }
    if !scope.announced {
        scope.version(progress)?;
    }
    let tenant = tenants::open::open(scope, progress).await?;
    // A machine that joined gets no other token.
    let token = if status::has_joined(config) {
        None
    } else {
        data_secret::ensure(scope, &tenant, progress).await?
    };
    progress.known.clone_from(&token);
    node_join::follow(scope, machine, &tenant, token, progress).await
}

/// Reports the problem that ended the reconcile. After a failure, conditions keep what they reported; a config without a
/// status reports the failure.
fn report(config: &KamajiConfig, progress: &mut Progress, problem: &Problem) {
    if !is_failure(problem) {
        status::stopped(config, progress, problem.clone());
    } else if config.status.is_none() {
        progress.no_data = Some(problem.clone().because(Reason::InternalError));
    }
}

/// Deletes the tokens of a config that is deleted or whose owner is, as far as the workload cluster answers. Deletion does
/// not wait for it: tokens expire.
async fn forget(context: &Context, key: &RootKey) {
    context.rendered.forget(key);
    if let Some(cluster) = context.tenants.cluster_of(key) {
        if let Some(tenant) = context.tenants.any(&cluster) {
            for id in tenant.tokens_to_end(key) {
                match tenant.session.delete_token(&id).await {
                    Ok(()) => tenant.note_end(&id),
                    Err(error) => {
                        tracing::info!(config = %key, %error, "cannot delete a token, which stays valid until it expires");
                    }
                }
            }
        }
        context.tenants.leave(&cluster, key);
        return;
    }
    // It was paused, or was deleted before this process reconciled it.
    for tenant in context.tenants.within(&key.namespace) {
        tenant.sweep().await;
    }
}

/// Emits an Event if the spec of a config changed after its data was rendered: the change applies to new machines only.
async fn note_spec_change(context: &Context, config: &KamajiConfig) {
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
        let note = "the bootstrap data exists already: the change applies to new machines only";
        context
            .events
            .note(config, Reason::SpecChangedAfterRender.as_str(), note)
            .await;
    }
}

/// Writes the status of the newest config, and emits the Events of its transitions.
async fn write(
    context: &Context,
    key: &RootKey,
    progress: &Progress,
    now: Timestamp,
) -> Result<(), ApiError> {
    let to = Publisher {
        api: &Api::namespaced(context.client.clone(), &key.namespace),
        roots: &context.configs,
        events: &context.events,
        field_manager: field_manager::BOOTSTRAP,
    };
    publish(to, key, RULES, |config| status::status(config, progress, now)).await?;
    Ok(())
}
