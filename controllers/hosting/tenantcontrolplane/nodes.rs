//! Asks the kubelets of a tenant, through its API servers, where [`due`] says that it is time to. A control plane of several
//! replicas is asked at each pod: what one of them cannot do would fail only now and then.

use std::time::Duration;

use futures::{StreamExt as _, stream};
use k8s_openapi::jiff::Timestamp;
use kamaji_api::{
    conditions::{Reason, TenantControlPlaneCondition as On},
    labels::ours,
};
use kube::ResourceExt as _;
use serde_json::json;

use super::{
    certificates::Certificates,
    component::API_SERVER_PORT,
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
    k8s::{conditions, digest, problem::Problem},
    tenant::{Connection, Error, Server, agents, kubelets},
};

/// Questions that wait for an answer at the same time: one that gets none takes 10 s.
const AT_ONCE: usize = 8;
/// API servers that are asked, at most.
const MOST: usize = 5;
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
    let status = tenant.status.as_ref();
    let condition = status.and_then(|status| conditions::get(&status.conditions, On::TunnelReady.as_str()));
    if tenant.spec.control_plane.deployment.replicas == 0 {
        return (condition.map(|_| Found::Asleep), None);
    }
    let Some(row) = observe::deployment(context, &key).filter(|row| phase::complete(row)) else {
        return (None, None);
    };
    let soon = now.checked_add(SOON).ok();
    // What the engine applies comes first, and the status that says so.
    if !scope.reports(On::Ready) {
        return (None, soon);
    }
    let workers = tenant.annotations().get(ours::READY_WORKERS).map(String::as_str);
    let about = digest::of(&json!([
        row.generation,
        workers,
        endpoint.published,
        konnectivity::of(tenant).is_some(),
    ]));
    let created = tenant.creation_timestamp().map_or(now, |time| time.0);
    let audit = context.audit_at(&key, now);
    let last = context.tunnel_asked(&key);
    let at = match due(Inputs {
        condition,
        last: last.as_ref(),
        about: &about,
        has_workers: workers.is_some_and(|count| count != "0"),
        age: Duration::try_from(now.duration_since(created)).unwrap_or_default(),
        audit,
        now,
        random: rand::random(),
    }) {
        Due::Believe => {
            context.set_tunnel_asked(&key, Asked { about, at: now });
            return (None, None);
        }
        Due::At(at) => context.tunnel_planned(&key, at),
    };
    if at > now {
        return (None, Some(at).filter(|at| *at < audit));
    }
    let Some(_turn) = context.turn().await else {
        return (None, soon);
    };
    context.set_tunnel_asked(&key, Asked { about, at: now });
    let found = match ask(scope, endpoint, certificates).await {
        Ok(found) => found,
        Err(problem) => Found::Unknown(problem.message),
    };
    tracing::debug!(tenant = %key, ?found, "kubelets were asked");
    if matches!(&found, Found::NotReached(unreached) if unreached.tunneled) {
        // An admin of the workload cluster may have deleted agents or what they may do.
        context.set_audit(&key, now);
    }
    let again = if matches!(found, Found::Reached { .. }) {
        None
    } else {
        soon
    };
    // Without a node there is nothing to report until there was one.
    let is_news = condition.is_some() || found != Found::NoReadyNodes;
    (Some(found).filter(|_| is_news), again)
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
    if targets.is_empty() {
        return Ok(Found::NoReadyNodes);
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
        },
        Some((server, target, error)) => {
            let tunneled = konnectivity::of(scope.tenant).is_some();
            let agents = if tunneled {
                match agents::trouble(&first.connection).await {
                    Ok(trouble) => trouble,
                    Err(error @ Error::TooLarge { .. }) => Some(error.to_string()),
                    Err(_) => None,
                }
            } else {
                None
            };
            Found::NotReached(Unreached {
                server: server.pod,
                target,
                why: why(&error),
                tunneled,
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
        let pod = None;
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
