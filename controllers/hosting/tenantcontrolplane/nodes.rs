//! Asks the kubelets of a tenant, through its API servers, where [`due`] says that it is time to. A control plane of several
//! replicas is asked at each pod: what one of them cannot do would fail only now and then.

use std::time::Duration;

use futures::{StreamExt as _, stream};
use k8s_openapi::{apimachinery::pkg::apis::meta::v1::Condition, jiff::Timestamp};
use kamaji_api::{
    conditions::{Reason, TenantControlPlaneCondition as On},
    labels::ours,
};
use kube::ResourceExt as _;
use serde_json::json;

use super::{
    certificates::Certificates,
    component::API_SERVER_PORT,
    context::next_audit,
    endpoint::Endpoint,
    konnectivity, observe, phase,
    scope::Scope,
    tenant_api,
    tunnel::{
        found::{Found, Unreached},
        servers::addresses,
        when::{Asked, Due, Inputs, due},
    },
};
use crate::{
    k8s::{conditions, digest, host_port::HostPort, problem::Problem},
    tenant::{
        Connection, Error, Server, agents,
        kubelets::{self, Targets},
    },
};

/// Questions that wait for an answer at the same time: one that gets none takes 10 s.
const AT_ONCE: usize = 8;
/// API servers that are asked, at most.
const MOST: usize = 5;
/// When a first answer is tried again: a former pod of the control plane has ended by then, and its address is no longer
/// served; a new konnectivity agent that does not run has failed often enough.
const CONFIRM: Duration = Duration::from_mins(1);
/// Time until the next look where no event comes.
const SOON: Duration = Duration::from_secs(10);

/// Asks the kubelets where it is time to. Returns what was found, and when it is time again where no event tells.
pub async fn look(
    scope: &Scope<'_>,
    endpoint: &Endpoint,
    certificates: &Certificates,
) -> (Option<Found>, Option<Timestamp>) {
    let Scope {
        context, tenant, now, ..
    } = *scope;
    let key = scope.key();
    let condition = reported(scope);
    if tenant.spec.control_plane.deployment.replicas == 0 {
        return (condition.map(|_| Found::Asleep), None);
    }
    let Some(row) = observe::deployment(context, &key).filter(|row| phase::complete(row)) else {
        return (None, None);
    };
    let soon = now.checked_add(SOON).ok();
    // What the engine applies first comes first, and the status that says so.
    if !(scope.reports(On::Available) && scope.reports(On::TenantRBACReady)) {
        return (None, soon);
    }
    let workers = tenant.annotations().get(ours::READY_WORKERS).map(String::as_str);
    let about = digest::of(&json!([
        row.generation,
        workers,
        endpoint.published,
        endpoint.nodes,
        konnectivity::of(tenant),
    ]));
    let created = tenant.creation_timestamp().map_or(now, |time| time.0);
    let last = context.tunnel_asked(&key);
    let due = due(Inputs {
        condition,
        last: last.as_ref(),
        about: &about,
        generation: tenant.metadata.generation,
        has_workers: workers.is_some_and(|count| count != "0"),
        age: Duration::try_from(now.duration_since(created)).unwrap_or_default(),
        now,
        random: rand::random(),
    });
    let is_same = last.as_ref().is_some_and(|last| last.about == about);
    let mut asked = Asked {
        about,
        at: now,
        audit: next_audit(now),
        unconfirmed: last.map(|last| last.unconfirmed).unwrap_or_default(),
    };
    let at = match due {
        Due::Believe => {
            // Those of a new process are spread over a day.
            asked.audit = context.audit_at(&key, now);
            let audit = asked.audit;
            context.set_tunnel_asked(&key, asked);
            return (None, Some(audit));
        }
        Due::At(at) => context.tunnel_planned(&key, at),
    };
    if at > now {
        let still = condition.filter(|_| is_same);
        return (still.map(|known| Found::Still(known.clone())), Some(at));
    }
    let Some(_turn) = context.turn().await else {
        return (None, soon);
    };
    context.set_tunnel_asked(&key, asked.clone());
    let found = match ask(scope, endpoint, certificates).await {
        Ok(found) => found,
        Err(problem) => Found::Unknown(problem.message),
    };
    tracing::debug!(tenant = %key, ?found, "kubelets were asked");
    let unconfirmed = if found.is_bad() {
        asked.unconfirmed.one_more(&found.verdict().reason, condition)
    } else {
        None
    };
    // With one replica it was asked through the Service, which may have led to a former pod.
    let through_service = tenant.spec.control_plane.deployment.replicas < 2;
    // Agents that end again and again run for a while.
    let recovers = condition.is_some_and(|known| known.reason == Reason::AgentsNotRunning.as_str());
    if recovers || !is_same && (through_service || konnectivity::of(tenant).is_some()) {
        asked.audit = now.checked_add(CONFIRM).unwrap_or(asked.audit);
    }
    let audit = asked.audit;
    asked.unconfirmed = unconfirmed.unwrap_or_default();
    context.set_tunnel_asked(&key, asked);
    if unconfirmed.is_some() {
        return (found.until_confirmed(), soon);
    }
    if matches!(&found, Found::NotReached(unreached) if unreached.tunneled) {
        // An admin of the workload cluster may have deleted agents or what they may do.
        context.set_audit(&key, now);
    }
    let is_good = matches!(found, Found::Reached { .. }) && !found.is_bad();
    // Without a node there is nothing to report until there was one.
    let is_news = condition.is_some() || !matches!(found, Found::NoReadyNodes { .. });
    (
        Some(found).filter(|_| is_news),
        if is_good { Some(audit) } else { soon },
    )
}

/// Pods are replaced: what was answered through those before says nothing about the new ones.
pub fn forget(scope: &Scope<'_>) {
    if reported(scope).is_some() {
        scope.context.set_tunnel_asked(&scope.key(), Asked::never());
    }
}

/// The condition as it is reported.
fn reported<'a>(scope: &Scope<'a>) -> Option<&'a Condition> {
    let status = scope.tenant.status.as_ref()?;
    conditions::get(&status.conditions, On::TunnelReady.as_str())
}

/// Asks every kubelet through every API server.
///
/// # Errors
/// Why nothing could be found out.
async fn ask(scope: &Scope<'_>, endpoint: &Endpoint, certificates: &Certificates) -> Result<Found, Problem> {
    let servers = servers(scope, endpoint, certificates).await?;
    let Some(first) = servers.first() else {
        return Err(Problem::unwatched(Reason::WaitingForPods, "no pod is ready"));
    };
    let targets = kubelets::targets(&first.connection).await;
    let targets = targets.map_err(|error| Problem::unwatched(Reason::ProbeFailed, error.to_string()))?;
    let Targets { targets, of_first } = targets;
    if targets.is_empty() {
        return Ok(Found::NoReadyNodes { of_first });
    }
    let pairs: Vec<_> = servers
        .iter()
        .flat_map(|server| targets.iter().map(move |target| (server.clone(), target.clone())))
        .collect();
    let answers = stream::iter(pairs).map(|(server, target)| async move {
        let answer = kubelets::answers(&server.connection, &target.node).await;
        answer.err().map(|error| (server, target, error))
    });
    let mut failed = answers.buffered(AT_ONCE).filter_map(std::future::ready).boxed();
    let failed = failed.next().await;
    Ok(match failed {
        None => Found::Reached {
            targets,
            servers: servers.len(),
            // A change of the agents may leave the former ones at work.
            agents: match konnectivity::of(scope.tenant) {
                Some(_) => match agents::not_running(&first.connection).await {
                    Ok(agents) => agents,
                    Err(error) => Some(error.to_string()),
                },
                None => None,
            },
        },
        Some((server, target, error)) => {
            server.is_up().await?;
            let settings = konnectivity::of(scope.tenant);
            let api_server = HostPort::parse(&endpoint.nodes);
            let agents = match settings.zip(api_server) {
                Some((settings, api_server)) => {
                    let server = konnectivity::published(settings, &api_server);
                    match agents::trouble(&first.connection, &target.node, &server).await {
                        Ok(trouble) => trouble,
                        Err(error @ Error::TooLarge { .. }) => Some(error.to_string()),
                        Err(_) => None,
                    }
                }
                None => None,
            };
            Found::NotReached(Unreached {
                server: server.pod,
                target,
                why: why(&error),
                tunneled: settings.is_some(),
                agents,
            })
        }
    })
}

/// An API server.
#[derive(Clone, Debug)]
struct ApiServer {
    /// Its pod; `None` where there is only one, which is reached through the Service.
    pod: Option<String>,
    /// The admin's connection to it.
    connection: Connection,
}

impl ApiServer {
    /// It answers the engine. If it does not, it is not the way to the nodes that is broken.
    ///
    /// # Errors
    /// Why it does not.
    async fn is_up(&self) -> Result<(), Problem> {
        let answer = self.connection.probe().await;
        answer.map_err(|error| {
            let pod = self.pod.iter().map(|pod| format!("pod {pod}: "));
            let pod: String = pod.collect();
            Problem::unwatched(Reason::ProbeFailed, format!("{pod}{error}"))
        })
    }
}

/// The API servers that are ready, [`MOST`] of them.
///
/// # Errors
/// The `EndpointSlices` or the kubeconfig cannot be read.
async fn servers(
    scope: &Scope<'_>,
    endpoint: &Endpoint,
    certificates: &Certificates,
) -> Result<Vec<ApiServer>, Problem> {
    if scope.tenant.spec.control_plane.deployment.replicas < 2 {
        let (_, connection) = tenant_api::clients(scope, endpoint, certificates).await?;
        let (pod, connection) = (None, connection.fresh());
        return Ok(vec![ApiServer { pod, connection }]);
    }
    let slices = observe::endpoint_slices(scope.context, &scope.key()).await?;
    let kubeconfigs = tenant_api::kubeconfigs(scope, certificates).await?;
    let pods = addresses(&slices, API_SERVER_PORT).into_iter().take(MOST);
    pods.map(|(pod, address)| {
        let connection = tenant_api::connect(scope, &kubeconfigs, tenant_api::ADMIN, Server::Pod(&address))?;
        let pod = Some(pod);
        Ok(ApiServer { pod, connection })
    })
    .collect()
}

/// What the API server says, without the request, which the condition describes already.
fn why(error: &Error) -> String {
    match error {
        Error::Unreachable { cause, .. } => cause.clone(),
        Error::Unhealthy { message, .. } | Error::Refused { message, .. } => message.clone(),
        Error::TooLarge { .. } | Error::Credentials(_) | Error::Malformed(_) | Error::NoSubjects(_) => {
            error.to_string()
        }
    }
}
