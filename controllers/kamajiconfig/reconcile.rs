//! One pass over one KamajiConfig: gates → tenant → data → token → certificate requests → node → status. The status
//! is written on every way out.

use std::{sync::Arc, time::Duration};

use k8s_openapi::jiff::Timestamp;
use kamaji_api::{
    bootstrap::{
        ClientApproval, CloudProvider, KamajiConfig, NameSource, ProviderIdSource, TokenStatus, VersionCheck,
    },
    conditions::{KamajiConfigCondition, Reason},
    labels::{capi, field_manager},
};
use kube::{Api, ResourceExt as _};
use rand::RngCore as _;
use semver::Version;

use super::{
    Context,
    approve::{self, foreign},
    data::{self, Data, Life},
    gates::{self, Gate},
    observe::{self, Observed},
    plan, rights,
    status::{self, Node, Progress, ProviderId, seconds},
    tenants::{NodeFacts, Tenant},
    token::{Owner, Token},
    validate,
};
use crate::{
    capi::{machine::Machine, paused},
    k8s::{conditions, error::Class, key::RootKey, status as object_status},
    runtime::driver::{Failure, Outcome, Reconciled},
    tenant::nodes::{Session, Trouble},
};

/// Where a pass ended: at a closed gate, or through.
enum Step<T> {
    Through(T),
    Closed(Gate, Outcome),
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
    let owner = gates::machine_owner(&config);
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
    progress.problems = Some(validate::spec(&config.spec));
    let result = match owner.map(|_| ()) {
        Ok(()) => advance(context, key, &config, &observed, &mut progress, now).await,
        Err(gate) => {
            progress.gate = Some(gate);
            Ok(Outcome::Done)
        }
    };
    if let Err(failure) = &result
        && failure.class == Class::Conflict
    {
        return result;
    }
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
) -> Reconciled {
    let announced = config
        .status
        .as_ref()
        .and_then(|status| status.initialization.as_ref())
        .is_some_and(|done| done.data_secret_created == Some(true));
    if announced {
        tell_of_change(context, config).await;
    }
    let closed = |progress: &mut Progress, gate: Gate, outcome: Outcome| {
        if announced {
            progress.token = Some(status::Token::Unknown(gate));
        } else {
            progress.gate = Some(gate);
        }
        Ok(outcome)
    };
    let (Some(machine), Some(cluster_name)) = (&observed.machine, &observed.cluster_name) else {
        let gate = Gate::closed(Reason::WaitingForOwner, "waiting for the Machine that owns it");
        return closed(progress, gate, Outcome::Done);
    };
    let cluster_key = RootKey::new(key.namespace.clone(), cluster_name.clone());
    if machine.metadata.deletion_timestamp.is_some() {
        forget(context, key).await;
        if announced {
            progress.token = Some(status::Token::Removed("the Machine is being deleted".to_owned()));
        }
        return Ok(Outcome::Done);
    }
    if announced && finished(config, machine) {
        context.tenants.leave(&cluster_key, key);
        return Ok(Outcome::Done);
    }
    let open = if announced {
        None
    } else {
        match check(config, observed, machine, cluster_name, progress) {
            Ok(version) => Some(version),
            Err(gate) => return closed(progress, gate, Outcome::Done),
        }
    };
    let tenant = match enter(context, key, config, &cluster_key, machine, progress).await? {
        Step::Through(tenant) => tenant,
        Step::Closed(gate, outcome) => return closed(progress, gate, outcome),
    };
    let token = match hand_out(
        context,
        key,
        config,
        observed,
        (&cluster_key, machine, open.as_ref()),
        &tenant,
        progress,
        now,
    )
    .await?
    {
        Step::Through(token) => token,
        Step::Closed(gate, outcome) => return closed(progress, gate, outcome),
    };
    follow(
        context,
        key,
        observed,
        (&cluster_key, machine),
        &tenant,
        token,
        progress,
        now,
    )
    .await
}

/// Everything that has to hold before a machine gets its data, but for the tenant.
fn check(
    config: &KamajiConfig,
    observed: &Observed,
    machine: &Machine,
    cluster_name: &str,
    progress: &mut Progress,
) -> Result<Version, Gate> {
    gates::worker(machine)?;
    let mut problems = progress.problems.take().unwrap_or_default();
    let version = gates::version(machine);
    if let Ok(version) = &version {
        problems.extend(validate::version(&config.spec, version));
        let running = observed
            .control_plane
            .as_ref()
            .and_then(|known| known.status.as_ref()?.version.clone())
            .and_then(|text| Version::parse(text.trim_start_matches('v')).ok());
        problems.extend(running.and_then(|running| validate::skew(version, &running)));
    }
    let refused = problems
        .first()
        .map(|first| Gate::closed(first.reason, status::messages(&problems)));
    progress.problems = Some(problems);
    if let Some(gate) = refused {
        return Err(gate);
    }
    let version = version?;
    gates::cluster(cluster_name, observed.cluster.as_deref())?;
    Ok(version)
}

/// Gate 7: the tenant answers our own identity, and nodes have their rights in it.
async fn enter(
    context: &Context,
    key: &RootKey,
    config: &KamajiConfig,
    cluster: &RootKey,
    machine: &Machine,
    progress: &mut Progress,
) -> Result<Step<Arc<Tenant>>, Failure> {
    let Some(row) = observe::kubeconfig_row(context, cluster) else {
        let gate = Gate::closed(
            Reason::WaitingForKubeconfig,
            format!(
                "waiting for the control plane provider to write Secret {}-kamaji-bootstrap",
                cluster.name
            ),
        );
        return Ok(Step::Closed(gate, Outcome::Done));
    };
    let tenant = if let Some(tenant) = context.tenants.get(cluster, &row.resource_version) {
        tenant
    } else {
        let Some(secret) = observe::secret(context, &cluster.namespace, &row.key.name).await? else {
            let gate = Gate::closed(Reason::WaitingForKubeconfig, "the kubeconfig Secret is gone");
            return Ok(Step::Closed(gate, Outcome::Done));
        };
        let kubeconfig = observe::value(&secret, capi::VALUE_KEY).unwrap_or_default();
        match Session::new(kubeconfig, context.role) {
            Ok(session) => context.tenants.open(cluster, &row.resource_version, session),
            Err(error) => {
                let gate = Gate::closed(Reason::WaitingForKubeconfig, error.to_string());
                return Ok(Step::Closed(gate, Outcome::Done));
            }
        }
    };
    let name = node_name(config, machine);
    let id = config
        .status
        .as_ref()
        .and_then(|status| status.token.as_ref()?.id.as_deref());
    tenant.wait(key, id, name.as_deref());
    match grant(&tenant, config.spec.csr_approval.client).await {
        Ok(found) => progress.automatic = Some(found),
        Err(error) => {
            let (reason, message) = match &error {
                Trouble::Unreachable(_) => (
                    Reason::TenantUnreachable,
                    format!(
                        "the API server of Cluster {} does not answer (asleep, starting, or not reachable from here)",
                        cluster.name
                    ),
                ),
                Trouble::Refused { code: 409, .. } => return Err(foreign(error)),
                other => (Reason::TenantRBACFailed, other.to_string()),
            };
            return Ok(Step::Closed(Gate::closed(reason, message), Outcome::Waiting));
        }
    }
    Ok(Step::Through(tenant))
}

/// Applies the rights of nodes once, and looks for bindings that would undo them.
async fn grant(tenant: &Tenant, client: ClientApproval) -> Result<Vec<String>, Trouble> {
    let objects = rights::objects(client == ClientApproval::ControllerManager);
    let digest = rights::digest(&objects);
    let _one = tenant.claims.lock().await;
    if let Some(found) = tenant.rights(&digest) {
        return Ok(found);
    }
    for object in &objects {
        tenant.session.apply(object).await?;
    }
    let found = rights::automatic_approvals(&tenant.session.bindings().await?);
    tenant.note_rights(digest, found.clone());
    Ok(found)
}

/// The token with its state, where the data holds one.
type Known = Option<TokenStatus>;

/// Gates 5 to 9: the data Secret and the token.
#[expect(clippy::too_many_arguments, reason = "one step of one pass")]
async fn hand_out(
    context: &Context,
    key: &RootKey,
    config: &KamajiConfig,
    observed: &Observed,
    (cluster, machine, open): (&RootKey, &Machine, Option<&Version>),
    tenant: &Arc<Tenant>,
    progress: &mut Progress,
    now: Timestamp,
) -> Result<Step<Known>, Failure> {
    let known = config.status.as_ref().and_then(|status| status.token.clone());
    let id = known.as_ref().and_then(|token| token.id.clone());
    let life = Life::of(config);
    let created = known
        .as_ref()
        .and_then(|token| token.created.clone())
        .unwrap_or_else(|| seconds(now));
    let expiration = known
        .as_ref()
        .and_then(|token| token.expiration.as_ref())
        .map(|time| time.0);
    let present = id.as_deref().and_then(|id| tenant.has_token(id));
    let name = Some(config.name_any());
    let row = observe::secret_row(context, config, name.as_deref().unwrap_or_default());
    if open.is_none() && row.is_some() && id.is_some() && present != Some(false) {
        // All there; only its end may have to move.
        let due = expiration.is_none_or(|end| life.due_in(end, now) <= 0 && !life.last(created.0, end));
        if !due {
            return Ok(Step::Through(known));
        }
    }
    let mut data = match row {
        Some(row)
            if row
                .owner
                .as_ref()
                .is_none_or(|owner| Some(&owner.uid) != config.metadata.uid.as_ref()) =>
        {
            let owner = row
                .owner
                .as_ref()
                .map(|owner| (owner.kind.as_str(), owner.name.as_str()));
            return Ok(Step::Closed(data::taken(&row.key.name, owner), Outcome::Done));
        }
        Some(_) => match data::find(context, config).await? {
            Ok(found) => found,
            Err(gate) => return Ok(Step::Closed(gate, Outcome::Done)),
        },
        None => None,
    };
    if data.is_none() {
        match render(
            context,
            config,
            observed,
            (cluster, machine),
            (tenant, id.as_deref()),
            progress,
        )
        .await?
        {
            Step::Through(made) => data = Some(made),
            Step::Closed(gate, outcome) => return Ok(Step::Closed(gate, outcome)),
        }
    }
    let Some(data) = data else {
        return Err(Failure::new(Class::Transient, "no data was made"));
    };
    let Some(token) = data.token else {
        progress.data = Some(status::Data {
            name: config.name_any(),
            figures: Some(data.figures),
        });
        return Ok(Step::Through(None));
    };
    let known = TokenStatus {
        id: Some(token.id().to_owned()),
        expiration: expiration.map(seconds),
        created: Some(created.clone()),
    };
    tenant.wait(key, Some(token.id()), node_name(config, machine).as_deref());
    if life.over(created.0, now) {
        return Ok(Step::Through(Some(known)));
    }
    if open.is_some() && joined_before(config, machine, tenant).await? {
        // Adopted after the machine joined: it needs no token any more.
        announce(config, data.figures, progress);
        return Ok(Step::Through(Some(known)));
    }
    let end = life.end(created.0, now);
    let uid = config.uid().unwrap_or_default();
    let owner = Owner {
        uid: &uid,
        namespace: &key.namespace,
        machine: &machine.name_any(),
        cluster: &cluster.name,
        management: "",
    };
    keep_alive(tenant, &token, &owner, end, open.is_none()).await?;
    announce(config, data.figures, progress);
    Ok(Step::Through(Some(TokenStatus {
        expiration: Some(seconds(end)),
        ..known
    })))
}

fn announce(
    config: &KamajiConfig,
    figures: kamaji_api::bootstrap::BootstrapDataStatus,
    progress: &mut Progress,
) {
    let before = config
        .status
        .as_ref()
        .and_then(|status| status.bootstrap_data.clone());
    let same = before
        .as_ref()
        .is_some_and(|before| before.sha256 == figures.sha256);
    progress.data = Some(status::Data {
        name: config.name_any(),
        figures: if same { before } else { Some(figures) },
    });
}

/// After a move: the Node of the Machine's name is there already, and the infrastructure knows the Machine.
async fn joined_before(config: &KamajiConfig, machine: &Machine, tenant: &Tenant) -> Result<bool, Failure> {
    if machine.spec.bootstrap.data_secret_name.is_none() || machine.spec.provider_id.is_empty() {
        return Ok(false);
    }
    let Some(name) = node_name(config, machine) else {
        return Ok(false);
    };
    let node = tenant.session.node(&name).await.map_err(foreign)?;
    Ok(node.is_some_and(|node| NodeFacts::of(&node).provider_id == machine.spec.provider_id))
}

/// Makes the token, or moves its end. One that exists with the same secret is this one, whoever wrote its labels.
async fn keep_alive(
    tenant: &Tenant,
    token: &Token,
    owner: &Owner<'_>,
    end: Timestamp,
    extend_first: bool,
) -> Result<(), Failure> {
    let secret = token.to_secret(owner, end);
    let session = &tenant.session;
    let done = (extend_first && session.extend_token(&secret).await.map_err(foreign)?)
        || session.create_token(&secret).await.map_err(foreign)?;
    if !done {
        let same = |found: k8s_openapi::api::core::v1::Secret| {
            let part = |secret: &k8s_openapi::api::core::v1::Secret| {
                secret
                    .data
                    .as_ref()
                    .and_then(|data| data.get("token-secret").cloned())
            };
            part(&found) == part(&secret)
        };
        let found = session.token(token.id()).await.map_err(foreign)?;
        if found.is_some_and(same) {
            session.extend_token(&secret).await.map_err(foreign)?;
        } else {
            return Err(Failure::new(
                Class::Foreign,
                format!(
                    "token id {} is taken in the tenant: delete the data Secret to draw another",
                    token.id()
                ),
            ));
        }
    }
    tenant.note_token(token.id(), true);
    Ok(())
}

/// Gates 5 and 6, then the data: with the token the tenant still has, else with a new one.
async fn render(
    context: &Context,
    config: &KamajiConfig,
    observed: &Observed,
    (cluster, machine): (&RootKey, &Machine),
    (tenant, id): (&Tenant, Option<&str>),
    progress: &mut Progress,
) -> Result<Step<Data>, Failure> {
    let version = match gates::version(machine) {
        Ok(version) => version,
        Err(gate) => return Ok(Step::Closed(gate, Outcome::Done)),
    };
    let authority = observe::authority(context, config, cluster).await?;
    progress.authority = Some(authority.as_ref().map(|_| ()).map_err(Clone::clone));
    let authority = match authority {
        Ok(pem) => pem,
        Err(gate) => return Ok(Step::Closed(gate, Outcome::Done)),
    };
    let seen = match gates::cluster(&cluster.name, observed.cluster.as_deref()) {
        Ok(seen) => seen,
        Err(gate) => return Ok(Step::Closed(gate, Outcome::Done)),
    };
    let target = match gates::target(config, seen, observed.control_plane.as_deref(), authority) {
        Ok(target) => target,
        Err(gate) => return Ok(Step::Closed(gate, Outcome::Done)),
    };
    let references = match observe::references(context, config).await? {
        Ok(references) => references,
        // Secrets of users carry no label that is watched.
        Err(gate) => return Ok(Step::Closed(gate, Outcome::Waiting)),
    };
    let token = draw(tenant, id).await?;
    let made = data::create(
        context,
        config,
        &cluster.name,
        (&machine.name_any(), &version),
        (&target, &references),
        &token,
    )
    .await?;
    Ok(match made {
        Ok(data) => Step::Through(data),
        // A Secret of somebody else may carry no label that is watched.
        Err(gate) if gate.reason == Reason::SecretNameTaken => Step::Closed(gate, Outcome::Waiting),
        Err(gate) => Step::Closed(gate, Outcome::Done),
    })
}

/// The token of a lost data Secret, as the tenant has it; else a new one whose id is free there.
async fn draw(tenant: &Tenant, known: Option<&str>) -> Result<Token, Failure> {
    const TRIES: usize = 5;
    if let Some(id) = known
        && let Some(secret) = tenant.session.token(id).await.map_err(foreign)?
    {
        let part = observe::value(&secret, "token-secret").unwrap_or_default();
        let text = format!("{id}.{}", String::from_utf8_lossy(part));
        if let Some(token) = Token::parse(&text) {
            return Ok(token);
        }
    }
    for _ in 0..TRIES {
        let token = Token::draw(|bytes| rand::rng().fill_bytes(bytes));
        let free = match tenant.has_token(token.id()) {
            Some(true) => false,
            Some(false) | None => tenant.session.token(token.id()).await.map_err(foreign)?.is_none(),
        };
        if free {
            return Ok(token);
        }
    }
    Err(Failure::new(Class::Foreign, "no free token id was found"))
}

/// After the data is out: requests are answered, the token lives until the node is there, then the rest is settled.
#[expect(clippy::too_many_arguments, reason = "one step of one pass")]
async fn follow(
    context: &Context,
    key: &RootKey,
    observed: &Observed,
    (cluster, machine): (&RootKey, &Machine),
    tenant: &Arc<Tenant>,
    token: Known,
    progress: &mut Progress,
    now: Timestamp,
) -> Reconciled {
    let Some(config) = context.configs.get(key) else {
        return Ok(Outcome::Done);
    };
    let id = token.as_ref().and_then(|token| token.id.clone());
    let mut held = None;
    if let Some(id) = &id
        && config.spec.csr_approval.client == ClientApproval::Bound
    {
        let host = observed
            .cluster
            .as_ref()
            .and_then(|cluster| cluster.endpoint())
            .map(|e| e.host.clone());
        held = approve::answer(context, tenant, key, Some(machine), id, &host.unwrap_or_default()).await?;
    }
    let Some(config) = context.configs.get(key) else {
        return Ok(Outcome::Done);
    };
    if let Some((name, node)) = joined(&config, machine, tenant) {
        if let Some(id) = &id {
            tenant.session.delete_token(id).await.map_err(foreign)?;
            tenant.note_token(id, false);
        }
        progress.token = Some(status::Token::Removed(format!("Node {name} joined")));
        let provider_id = settle_provider_id(&config, machine, tenant, &name, &node).await?;
        let settled = provider_id != ProviderId::Awaited;
        progress.node = Some(Node::Joined {
            version: version_of(&config, machine, &node.kubelet_version),
            provider_id,
            name,
        });
        if settled {
            context.tenants.leave(cluster, key);
        }
        return Ok(Outcome::Done);
    }
    progress.node = Some(Node::Waiting {
        report: id.as_deref().and_then(|id| tenant.report(id)),
        held: held.as_ref().map(|held| held.gate.clone()),
    });
    let Some(token) = token else {
        return Ok(Outcome::Done);
    };
    let life = Life::of(&config);
    let created = token.created.as_ref().map_or(now, |time| time.0);
    let end = token.expiration.as_ref().map_or(now, |time| time.0);
    if life.over(created, now) {
        progress.token = Some(status::Token::Ended(token));
        return Ok(after(held.map(|held| held.again)));
    }
    let next = if life.last(created, end) {
        end.as_second() - now.as_second()
    } else {
        life.due_in(end, now)
    };
    progress.token = Some(status::Token::Alive(token));
    let next = held.map_or(next, |held| next.min(held.again));
    Ok(after(Some(next)))
}

fn after(seconds: Option<i64>) -> Outcome {
    seconds.map_or(Outcome::Done, |seconds| {
        Outcome::After(Duration::from_secs(seconds.max(1).unsigned_abs()))
    })
}

/// The name the node will have, or has.
fn node_name(config: &KamajiConfig, machine: &Machine) -> Option<String> {
    let claim = config
        .status
        .as_ref()
        .and_then(|status| status.node.as_ref()?.name.clone());
    claim
        .or_else(|| machine.node().map(ToOwned::to_owned))
        .or_else(|| (plan::name_source(&config.spec) == NameSource::MachineName).then(|| machine.name_any()))
}

/// The node: the one this config claimed, or the one core bound the Machine to.
fn joined(config: &KamajiConfig, machine: &Machine, tenant: &Tenant) -> Option<(String, NodeFacts)> {
    let claim = config
        .status
        .as_ref()
        .and_then(|status| status.node.as_ref()?.name.clone());
    let by_id = || {
        // Adopted: the same provider id proves it as well.
        let name = node_name(config, machine)?;
        let node = tenant.node(&name)?;
        let id = &machine.spec.provider_id;
        (!id.is_empty() && node.provider_id == *id).then_some(name)
    };
    let name = claim
        .or_else(|| machine.node().map(ToOwned::to_owned))
        .or_else(by_id)?;
    let node = tenant.node(&name)?;
    Some((name, node))
}

async fn settle_provider_id(
    config: &KamajiConfig,
    machine: &Machine,
    tenant: &Tenant,
    name: &str,
    node: &NodeFacts,
) -> Result<ProviderId, Failure> {
    let registration = &config.spec.node_registration;
    let external = registration.cloud_provider == Some(CloudProvider::External);
    let ours = match registration.provider_id.source {
        ProviderIdSource::Auto => !external,
        ProviderIdSource::Machine => true,
        ProviderIdSource::CloudProvider | ProviderIdSource::Template | ProviderIdSource::None => false,
    };
    let wanted = machine.spec.provider_id.as_str();
    if !ours {
        return Ok(ProviderId::NotOurs);
    }
    if wanted.is_empty() {
        return Ok(ProviderId::Awaited);
    }
    if node.provider_id.is_empty() {
        tenant
            .session
            .set_provider_id(name, wanted)
            .await
            .map_err(foreign)?;
        return Ok(ProviderId::Set);
    }
    Ok(if node.provider_id == wanted {
        ProviderId::Set
    } else {
        ProviderId::Mismatch(node.provider_id.clone())
    })
}

/// The node's version against the Machine's.
fn version_of(config: &KamajiConfig, machine: &Machine, found: &str) -> Result<String, String> {
    let parse = |text: &str| Version::parse(text.trim_start_matches('v')).ok();
    let (Some(have), Some(want)) = (parse(found), parse(&machine.spec.version)) else {
        return Ok(found.to_owned());
    };
    let same_minor = (have.major, have.minor) == (want.major, want.minor);
    let same = same_minor && have.patch == want.patch;
    let fits = match config.spec.version_check {
        VersionCheck::Off => true,
        VersionCheck::Minor => same_minor,
        VersionCheck::Exact => same,
    };
    if fits {
        Ok(found.to_owned())
    } else {
        Err(format!(
            "the kubelet is {found}, the Machine asks for {}",
            machine.spec.version
        ))
    }
}

/// The machine joined and nothing is left to do for it.
fn finished(config: &KamajiConfig, machine: &Machine) -> bool {
    let Some(status) = &config.status else {
        return false;
    };
    let is = |condition: KamajiConfigCondition| conditions::is_true(&status.conditions, condition.as_str());
    let id = conditions::get(&status.conditions, KamajiConfigCondition::ProviderIDSet.as_str());
    let settled =
        id.is_some_and(|id| id.status == "True" || id.reason == Reason::ProviderIDMismatch.as_str());
    let same_node = machine.node().is_none_or(|node| {
        status
            .node
            .as_ref()
            .and_then(|known| known.name.as_deref())
            .is_none_or(|known| known == node)
    });
    status.token.is_none() && is(KamajiConfigCondition::NodeJoined) && settled && same_node
}

/// The config is gone or needs no machine any more: its token goes too, as far as the tenant answers. Deletion never
/// waits for that; the token's end bounds the worst case.
async fn forget(context: &Context, key: &RootKey) {
    let Some(cluster) = context.tenants.cluster_of(key) else {
        return;
    };
    if let Some(tenant) = context.tenants.any(&cluster) {
        for id in tenant.tokens_of(key) {
            if let Err(error) = tenant.session.delete_token(&id).await {
                tracing::info!(config = %key, %error, "a token is left to its end");
            }
        }
    }
    context.tenants.leave(&cluster, key);
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
        && rendered.is_some_and(|rendered| rendered != data::spec_hash(config))
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
        old,
        &new,
        field_manager::BOOTSTRAP,
    )
    .await?;
    let reason = |list: Option<&Vec<k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition>>| {
        list.and_then(|list| conditions::get(list, KamajiConfigCondition::Ready.as_str()))
            .map(|ready| (ready.status.clone(), ready.reason.clone(), ready.message.clone()))
    };
    let (before, after) = (
        reason(old.map(|old| &old.conditions)),
        reason(Some(&new.conditions)),
    );
    if let Some((state, reason, message)) = &after
        && before.as_ref().map(|before| (&before.0, &before.1)) != Some((state, reason))
    {
        if state == "True" {
            context
                .events
                .note(
                    &*config,
                    Reason::DataSecretAvailable.as_str(),
                    "the bootstrap data is ready",
                )
                .await;
        } else if !reason.starts_with("WaitingFor") {
            context.events.warn(&*config, reason, message).await;
        }
    }
    Ok(())
}
