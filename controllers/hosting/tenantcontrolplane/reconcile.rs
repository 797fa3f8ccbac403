//! One reconcile of one TenantControlPlane: the steps in their order.
//!
//! A step is a function that returns `Result<T, Problem>`. The first problem ends the reconcile; what the steps
//! before it observed is reported all the same.

use std::{sync::Arc, time::Duration};

use k8s_openapi::jiff::Timestamp;
use kamaji_api::{
    conditions::Reason,
    labels::{field_manager, kamaji, ours},
    tenantcontrolplane::TenantControlPlane,
    unsupported::UnsupportedFields as _,
};
use kube::{Api, ResourceExt};

use super::{
    ca_copy,
    certificates::{self, Certificates},
    context::Context,
    deletion,
    desired::{self, flags},
    events, former, held, identity, konnectivity,
    names::Names,
    nodes, observe,
    observed::Observed,
    phase,
    plan::{self, Plan},
    powers,
    published::Published,
    scope::Scope,
    status, storage, tenant_api,
    validate::{Valid, validate},
    workload,
};
use crate::{
    hosting::datastore::space,
    k8s::{
        error::ApiError,
        finalizer,
        key::RootKey,
        problem::Problem,
        report::{self, Publisher, Step},
    },
    runtime::driver::{Outcome, Reconciled},
    settings::Settings,
};

/// Longest time until the ages of the certificates are checked again. The check sends no request.
const LONGEST: Duration = Duration::from_hours(24);
/// Shortest time until then.
const SHORTEST: Duration = Duration::from_mins(1);
/// Shortest time until the kubelets are asked again.
const SOONEST: Duration = Duration::from_secs(1);

/// Reconciles the TenantControlPlane `key` and reports its status, even when a step failed.
///
/// # Errors
/// What the driver retries with backoff.
pub async fn reconcile(context: &Context, key: &RootKey) -> Reconciled {
    if context.engine.tenants.is_undecodable(key) {
        return Ok(Outcome::Done);
    }
    let Some(tenant) = context.engine.tenants.get(key) else {
        context.forget(key);
        return Ok(Outcome::Done);
    };
    if !context.engine.settings.acts_on(&key.namespace) {
        return Ok(Outcome::Done);
    }
    let now = Timestamp::now();
    let mut observed = Observed::default();
    let result = if tenant.annotations().contains_key(kamaji::PAUSED) {
        observed.paused = true;
        Ok(Outcome::Done)
    } else if tenant.metadata.deletion_timestamp.is_some() {
        let Err(problem) = deletion::delete(context, &tenant, &mut observed, now).await else {
            return Ok(Outcome::Done);
        };
        observed.deleting = Some(problem.clone());
        problem.settle().map(|outcome| outcome.or_after(LONGEST))
    } else {
        let advanced = advance(context, key, &mut observed, now).await;
        let renewal = observed.key_material.as_ref().and_then(|made| made.renew_at);
        match advanced {
            Ok((audit, tunnel)) => {
                let seldom = until(renewal.into_iter().chain([audit]).min(), now);
                let often = tunnel.map_or(LONGEST, |at| within(at, now, SOONEST));
                Ok(Outcome::After(seldom.min(often)))
            }
            // A certificate may expire while the tenant waits for a change.
            Err(problem) => problem
                .settle()
                .map(|outcome| outcome.or_after(until(renewal, now))),
        }
    };
    let published = publish(context, key, &observed, now).await;
    // The failure of a step outranks that of the status.
    let outcome = result?;
    published?;
    Ok(outcome)
}

/// The steps, as far as they go. Returns when the workload cluster is looked at next: for the audit, and for the tunnel.
async fn advance(
    context: &Context,
    key: &RootKey,
    observed: &mut Observed,
    now: Timestamp,
) -> Result<(Timestamp, Option<Timestamp>), Problem> {
    let tenant = current(context, key)?;
    observed.unsupported = unsupported(&tenant);
    let valid = check_powers(context, &tenant).and_then(|()| validate(&tenant, rand::random()));
    let valid = record(&mut observed.spec, valid)?;
    let store = record(
        &mut observed.data_store,
        storage::select(&context.engine, &tenant),
    )?;
    let row = observe::service_row(context, key);
    let facts = row.as_deref().and_then(observe::service_facts);
    let plan = plan::plan(&tenant, &valid.network, facts);
    claim(context, &tenant, &valid.names, &plan).await?;
    let tenant = current(context, key)?;
    let in_effect = in_effect(context, &tenant, valid, &plan).await;
    let (tenant, valid) = record(&mut observed.spec, in_effect)?;
    let scope = Scope {
        context,
        tenant: &tenant,
        valid: &valid,
        now,
    };

    // Schema and user are created while the Service waits for its address.
    let endpoint = workload::apply_service(&scope, &plan).await;
    let placed = record(&mut observed.data_store, storage::prepare(&scope, &store).await)?;
    observed.placed = Some(placed.clone());
    let health = storage::check_health(&scope, &store, &placed).await;
    observed.filling =
        space::filling(&store).map(|message| format!("DataStore {:?}: {message}", store.name_any()));
    observed.data_store = match &health {
        // A failed request to the management cluster says nothing about the datastore.
        Err(problem) if problem.is_transient() => Step::NotReached,
        health => health.clone().into(),
    };
    let endpoint = record(&mut observed.endpoint, endpoint)?;
    observed.addresses = Some(endpoint.clone());
    if let Some(doubt) = endpoint.doubt.clone().or_else(|| endpoint.is_moving()) {
        observed.endpoint = Step::Failed(doubt);
    }

    let certificates = certificates::ensure(&scope, &endpoint, &placed).await;
    let certificates = record(&mut observed.certificates, certificates)?;
    observed.key_material = Some(certificates.clone());
    let ca_key = certificates.ca_key.as_deref();
    if identity::is_replaced(&tenant, &certificates.hashes, ca_key) {
        record(
            &mut observed.deployment,
            deletion::stop_pods(context, &tenant).await,
        )?;
    }
    note(context, key, &endpoint.record, Some(&certificates)).await?;

    let deployment = workload::apply(&scope, &endpoint, &certificates, &placed).await;
    let deployment = record(&mut observed.deployment, deployment)?;
    if phase::complete(&deployment) {
        ca_copy::prune(&scope, &certificates.ca_secret).await?;
        if let Some(target) = &endpoint.moving {
            // Every pod serves it: the next reconcile publishes it.
            note(context, key, target, None).await?;
        }
        workload::retire_konnectivity(&scope, &plan, &placed.names).await?;
    } else {
        nodes::forget(&scope);
    }
    let pods = phase::check_pods(&deployment);
    observed.deployment = pods.clone().into();
    observed.rendered = Some(tenant.spec.kubernetes.version.clone());

    // The pods of a failing rollout do not keep the running ones from serving.
    let applied = tenant_api::apply(&scope, &endpoint, &certificates, &placed, observed).await;
    let answers = observed.tenant_api.as_ref().map(|api| api.answered.is_done());
    let mut again = None;
    // An add-on that is not admitted may be one that needs the nodes.
    if answers.unwrap_or_else(|| applied.is_ok()) {
        (observed.tunnel, again) = nodes::look(&scope, &endpoint, &certificates).await;
    }
    applied?;
    pods?;
    health?;
    Ok((context.audit_at(key, now), again))
}

/// The newest version of the TenantControlPlane.
fn current(context: &Context, key: &RootKey) -> Result<Arc<TenantControlPlane>, Problem> {
    let gone = || Problem::on_change(Reason::Deleting, "the TenantControlPlane no longer exists");
    context.engine.tenants.get(key).ok_or_else(gone)
}

/// Records how a step ended, and passes its result on.
fn record<T>(step: &mut Step, result: Result<T, Problem>) -> Result<T, Problem> {
    *step = Step::of(&result);
    result
}

/// Writes finalizer, generated names and former endpoints in one request, before anything is created anywhere.
async fn claim(
    context: &Context,
    tenant: &TenantControlPlane,
    names: &Names,
    plan: &Plan,
) -> Result<(), Problem> {
    // Names that an upstream Kamaji keeps in status stay there alone: that marks an adopted tenant.
    let generated = (!names.adopted).then_some([
        (ours::SCHEMA, Some(names.schema.as_str())),
        (ours::USER, Some(names.user.as_str())),
    ]);
    let mut annotations: Vec<_> = generated.into_iter().flatten().collect();
    let former = former::text(&plan.former);
    if plan.former != former::list(tenant) {
        let text = Some(former.as_str()).filter(|text| !text.is_empty());
        annotations.push((ours::FORMER_ENDPOINTS, text));
    }
    annotate(context, tenant, &annotations).await
}

/// Records by annotation what the tenant is published at, and what it is built with.
async fn note(
    context: &Context,
    key: &RootKey,
    published: &Published,
    made: Option<&Certificates>,
) -> Result<(), Problem> {
    let tenant = current(context, key)?;
    let published = published.text();
    let identity = made.map(|made| identity::annotation(&made.hashes, made.ca_key.as_deref()));
    let mut annotations = vec![(ours::PUBLISHED_ENDPOINT, Some(published.as_str()))];
    annotations.extend(identity.as_deref().map(|text| (ours::IDENTITY, Some(text))));
    annotate(context, &tenant, &annotations).await
}

async fn annotate(
    context: &Context,
    tenant: &TenantControlPlane,
    annotations: &[(&str, Option<&str>)],
) -> Result<(), Problem> {
    let namespace = tenant.namespace().unwrap_or_default();
    let api: Api<TenantControlPlane> = Api::namespaced(context.engine.client.clone(), &namespace);
    let tenants = &context.engine.tenants;
    Ok(finalizer::claim_anew(&api, tenants, tenant, kamaji::FINALIZER, annotations).await?)
}

/// The spec as it is rendered: without edits of the endpoint that are not in effect.
///
/// # Errors
/// The Service cannot be read, or what is in effect asks for a power that authors do not have.
async fn in_effect(
    context: &Context,
    tenant: &Arc<TenantControlPlane>,
    mut valid: Valid,
    plan: &Plan,
) -> Result<(Arc<TenantControlPlane>, Valid), Problem> {
    konnectivity::check_former(tenant, plan.former.iter().map(|former| &former.endpoint))?;
    let mut put = TenantControlPlane::clone(tenant);
    held::put(&mut put, &mut valid, plan);
    if held::keeps_load_balancer(tenant, plan) {
        let live = observe::service(context, &RootKey::of(&**tenant)).await?;
        if let Some(live) = live.filter(held::is_load_balancer) {
            held::keep_load_balancer(&mut put, live);
        } else {
            let asked = tenant.spec.control_plane.service.service_type;
            held::give_up_load_balancer(&mut put, asked, plan);
        }
    }
    if put.spec == tenant.spec {
        return Ok((tenant.clone(), valid));
    }
    check_powers(context, &put)?;
    konnectivity::check(&put)?;
    Ok((Arc::new(put), valid))
}

/// Checks what authors may ask for.
fn check_powers(context: &Context, tenant: &TenantControlPlane) -> Result<(), Problem> {
    let Settings {
        pod_overrides,
        external_ips,
        ..
    } = &*context.engine.settings;
    powers::check(tenant, *pod_overrides, external_ips)
}

/// Reports what was observed.
async fn publish(
    context: &Context,
    key: &RootKey,
    observed: &Observed,
    now: Timestamp,
) -> Result<(), ApiError> {
    let publisher = Publisher {
        api: &Api::namespaced(context.engine.client.clone(), &key.namespace),
        roots: &context.engine.tenants,
        events: &context.engine.events,
        field_manager: field_manager::HOSTING,
    };
    let rows = observe::rows(context, key);
    report::publish(publisher, key, &events::RULES, |tenant| {
        status::status(tenant, observed, &rows, now)
    })
    .await?;
    Ok(())
}

/// What the user set but has no effect.
fn unsupported(tenant: &TenantControlPlane) -> Option<String> {
    let mut ignored = flags::ignored(tenant);
    ignored.extend(desired::konnectivity::ignored(tenant));
    let fields = tenant.spec.unsupported_message();
    if ignored.is_empty() {
        return fields;
    }
    let ignored = format!("set but has no effect: {}", ignored.join(", "));
    Some(fields.map_or_else(|| ignored.clone(), |fields| format!("{fields}; {ignored}")))
}

/// Time until `next`, within bounds.
fn until(next: Option<Timestamp>, now: Timestamp) -> Duration {
    next.map_or(LONGEST, |at| within(at, now, SHORTEST))
}

/// Time until `at`, at least `shortest`.
fn within(at: Timestamp, now: Timestamp, shortest: Duration) -> Duration {
    let seconds = u64::try_from(at.as_second() - now.as_second());
    Duration::from_secs(seconds.unwrap_or(0)).clamp(shortest, LONGEST)
}
