//! The last step: what belongs into the workload cluster. Its API server is asked only when something there may have
//! changed: a digest records what was applied, and Kubernetes itself probes the pods. Once a day everything is applied
//! again, since a tenant's admin may have deleted some of it.

use std::{collections::BTreeMap, time::Duration};

use k8s_openapi::ByteString;
use kamaji_api::{
    conditions::{Reason, TenantControlPlaneCondition as On},
    tenantcontrolplane::{AddonStatus, Addons, TenantControlPlane},
};
use kube::ResourceExt;
use serde_json::json;

use super::{
    certificates::Certificates,
    endpoint::Endpoint,
    konnectivity, observe,
    observed::{Observed, TenantApi},
    phase,
    scope::Scope,
    storage::{self, Placed},
};
use crate::{
    k8s::{digest, error::Class, host_port::HostPort, key::RootKey, problem::Problem, report::Step},
    pki::{kubeconfig::Kubeconfig, spec},
    tenant::{
        self, Connection, Server,
        addons::{Agents, Inputs, Selection},
        bundle::{Applied, Bundle},
    },
};

/// Key of the break-glass kubeconfig, whose user needs no RBAC rule. It creates the first ones.
const SUPER_ADMIN: &str = "super-admin.svc";
/// Key of the kubeconfig of the admin, whose permissions those rules are.
pub const ADMIN: &str = "admin.svc";

/// How long everything in one workload cluster may take. Its admin decides how long its webhooks and aggregated APIs take,
/// and whoever waits for them holds a worker that other tenants need. The next try goes on where this one ended.
const WHOLE: Duration = Duration::from_secs(30);

/// Applies RBAC rules and add-ons in the workload cluster, when something may have changed there.
///
/// # Errors
/// No pod is ready, the API server does not answer, or it refuses what is applied.
pub async fn apply(
    scope: &Scope<'_>,
    endpoint: &Endpoint,
    certificates: &Certificates,
    placed: &Placed,
    observed: &mut Observed,
) -> Result<(), Problem> {
    let Scope {
        context, tenant, now, ..
    } = *scope;
    if tenant.spec.control_plane.deployment.replicas == 0 {
        return Ok(());
    }
    let key = scope.key();
    let row = observe::deployment(context, &key);
    let bundle = bundle(scope, endpoint);
    let digest = digest::of(&json!([bundle.digest(), endpoint.published, certificates.hashes]));
    let is_current = recorded(tenant) == Some(digest.as_str());
    if !row.as_deref().is_some_and(phase::is_serving) {
        context.forget_applied(&key);
        let rechecked = storage::recheck(scope, placed, &mut observed.data_store).await;
        let problem = Problem::on_change(Reason::WaitingForPods, "no pod of the control plane is ready yet");
        let mut tenant_api = unreached(&digest, &problem);
        // What was applied is still there when the pods are back.
        if scope.reports(On::TenantRBACReady) && is_current {
            (tenant_api.rbac, tenant_api.addons) = (Step::Done, Step::Done);
        }
        observed.tenant_api = Some(tenant_api);
        return rechecked;
    }
    let healthy =
        [On::Available, On::TenantRBACReady, On::AddonsReady].map(|on| scope.reports(on)) == [true; 3];
    // kube-proxy must not be newer than kube-apiserver, so add-ons follow a rollout. The first agents start with it: pods
    // of the new template reach no webhook until one is there.
    let first_agents =
        konnectivity::of(tenant).is_some() && !konnectivity::is_installed(tenant) && runs_version(tenant);
    let rolling = !(first_agents || row.as_deref().is_some_and(phase::complete));
    let applied = is_current && now < context.audit_at(&key, now);
    if healthy && (rolling || applied) {
        return Ok(());
    }
    let Some(_turn) = context.turn().await else {
        return Err(Problem::unwatched(
            Reason::Pending,
            "other API servers are slow to answer; this one has its turn after them",
        ));
    };
    let tried = context.applied(&key, &digest);
    let work = Box::pin(look(
        scope,
        endpoint,
        certificates,
        &bundle,
        observed,
        &digest,
        &tried,
    ));
    if let Ok(done) = tokio::time::timeout(WHOLE, work).await {
        context.forget_applied(&key);
        return done;
    }
    let problem = slow();
    // What was applied before is still there: only looking at it again takes long.
    if !(is_current && healthy) {
        let step = |on| {
            if is_current && scope.reports(on) {
                Step::Done
            } else {
                problem.clone().into()
            }
        };
        observed.tenant_api = Some(TenantApi {
            digest,
            // It may answer, and be slow at one request.
            answered: Step::NotReached,
            rbac: step(On::TenantRBACReady),
            addons: step(On::AddonsReady),
        });
    }
    Err(problem)
}

/// The whole step took too long.
fn slow() -> Problem {
    Problem::backoff(
        Class::Foreign,
        Reason::APIServerUnhealthy,
        format!(
            "what belongs into the workload cluster could not be applied within {} s; look there for admission webhooks and \
             aggregated APIs that answer slowly",
            WHOLE.as_secs()
        ),
    )
}

/// Asks the API server whether it is ready, and applies everything there.
async fn look(
    scope: &Scope<'_>,
    endpoint: &Endpoint,
    certificates: &Certificates,
    bundle: &Bundle,
    observed: &mut Observed,
    digest: &str,
    tried: &Applied,
) -> Result<(), Problem> {
    let Scope { context, now, .. } = *scope;
    let key = scope.key();
    let reached = match clients(scope, endpoint, certificates).await {
        Ok(clients) => probe(scope, clients).await,
        Err(problem) => Err(problem),
    };
    let (super_admin, admin) = match reached {
        Ok(clients) => clients,
        Err(problem) => {
            observed.tenant_api = Some(unreached(digest, &problem));
            return Err(problem);
        }
    };
    let rbac = bundle.apply_rbac(&super_admin, tried).await;
    let addons = bundle
        .apply_addons(&super_admin, tried)
        .await
        .inspect_err(|error| {
            if error.is_about_nodes() {
                context.doubt_tunnel(&key);
            }
        })
        .map_err(|error| problem(&error, Reason::AddonsFailed));
    // Last, since each try repeats it.
    let rbac = match rbac {
        Ok(()) => tenant::rbac::read_back(&admin).await,
        Err(error) => Err(error),
    };
    let rbac = rbac.map_err(|error| problem(&error, Reason::TenantRBACFailed));
    observed.tenant_api = Some(TenantApi {
        digest: digest.to_owned(),
        answered: Step::Done,
        rbac: rbac.clone().into(),
        addons: addons.clone().into(),
    });
    rbac.and(addons).inspect(|()| context.audited(&key, now))
}

/// The API server was not reached.
fn unreached(digest: &str, problem: &Problem) -> TenantApi {
    let failed = Step::from(problem.clone());
    TenantApi {
        digest: digest.to_owned(),
        answered: failed.clone(),
        rbac: failed.clone(),
        addons: failed,
    }
}

/// Asks the API server whether it is ready.
async fn probe(
    scope: &Scope<'_>,
    clients: (Connection, Connection),
) -> Result<(Connection, Connection), Problem> {
    match clients.0.probe().await {
        Ok(()) => Ok(clients),
        Err(error) => {
            // The connection may lead to a terminating pod.
            scope.context.clients.forget(&scope.key().to_string());
            Err(problem(&error, Reason::APIServerUnreachable))
        }
    }
}

/// Clients of the super-admin and of the admin, through the Service.
///
/// # Errors
/// The kubeconfigs cannot be read.
pub async fn clients(
    scope: &Scope<'_>,
    endpoint: &Endpoint,
    certificates: &Certificates,
) -> Result<(Connection, Connection), Problem> {
    let context = scope.context;
    let key = scope.key();
    // After a rollout, open connections lead to terminating pods.
    let row = observe::deployment(context, &key);
    let version = digest::of(&json!([
        endpoint.service,
        certificates.hashes.get(spec::component::ADMIN),
        row.and_then(|row| row.generation),
    ]));
    let ids = [SUPER_ADMIN, ADMIN].map(|file| format!("{key}/{file}"));
    if let [Some(super_admin), Some(admin)] = ids.each_ref().map(|id| context.clients.get(id, &version)) {
        return Ok((super_admin, admin));
    }
    let kubeconfigs = kubeconfigs(scope, certificates).await?;
    let connect = |file| connect(scope, &kubeconfigs, file, Server::Service(&endpoint.service));
    let (super_admin, admin) = (connect(SUPER_ADMIN)?, connect(ADMIN)?);
    for (id, client) in ids.iter().zip([&super_admin, &admin]) {
        context.clients.put(id, &version, client.clone());
    }
    Ok((super_admin, admin))
}

/// The data of the Secret with the kubeconfigs of the admins.
///
/// # Errors
/// It cannot be read.
pub async fn kubeconfigs(
    scope: &Scope<'_>,
    certificates: &Certificates,
) -> Result<BTreeMap<String, ByteString>, Problem> {
    if let Some(material) = &certificates.admin {
        return Ok(material.to_data());
    }
    let key = scope.key();
    let secret = observe::secret(scope.context, &key.namespace, &spec::admin_name(&key.name)).await?;
    Ok(secret.and_then(|secret| secret.data).unwrap_or_default())
}

/// A connection with the identity of the kubeconfig `file`.
///
/// # Errors
/// The kubeconfig cannot be used.
pub fn connect(
    scope: &Scope<'_>,
    kubeconfigs: &BTreeMap<String, ByteString>,
    file: &str,
    server: Server<'_>,
) -> Result<Connection, Problem> {
    let empty = ByteString::default();
    let text = kubeconfigs.get(file).unwrap_or(&empty);
    let kubeconfig = Kubeconfig::parse(&text.0).ok();
    kubeconfig
        .and_then(|kubeconfig| (scope.context.connect)(&kubeconfig, server).ok())
        .ok_or_else(|| {
            let RootKey { namespace, name } = scope.key();
            Problem::backoff(
                Class::Foreign,
                Reason::WaitingForKubeconfig,
                format!(
                    "Secret {namespace}/{} holds no usable kubeconfigs; delete it, and it is created again",
                    spec::admin_name(&name)
                ),
            )
        })
}

/// What belongs into the workload cluster.
fn bundle(scope: &Scope<'_>, endpoint: &Endpoint) -> Bundle {
    let Scope {
        context,
        tenant,
        valid,
        ..
    } = *scope;
    // An endpoint always has both parts.
    let api_server = HostPort::parse(&endpoint.nodes)
        .unwrap_or_else(|| HostPort::new(&endpoint.nodes, valid.network.port));
    let before = tenant.status.as_ref().and_then(|status| status.addons.as_ref());
    let was_on = |addon: Option<&AddonStatus>| addon.is_some_and(|addon| addon.enabled);
    let Addons {
        core_dns,
        kube_proxy,
        konnectivity,
    } = &tenant.spec.addons;
    let name = tenant.name_any();
    let minor = valid.version.minor;
    let tunnel = konnectivity.as_ref().map(|settings| {
        (
            konnectivity::published(settings, &api_server),
            settings.agent_tag(minor),
        )
    });
    let agents = konnectivity
        .as_ref()
        .zip(tunnel.as_ref())
        .map(|(settings, (server, tag))| Agents {
            tenant: &name,
            settings: &settings.agent,
            tag,
            api_server: &api_server,
            server,
            by_lease: konnectivity::counts_by_lease(settings, minor),
        });
    tenant::bundle::bundle(&Inputs {
        management_cluster: &context.engine.cluster_id,
        version: &valid.version,
        tag: &tenant.spec.kubernetes.version,
        registry: &tenant.spec.control_plane.deployment.registry_settings.registry,
        dns: &valid.network.dns,
        domain: &tenant.spec.network_profile.cluster_domain,
        server: &format!("https://{}", endpoint.nodes),
        pod_cidrs: &valid.network.pod_cidrs,
        core_dns: Selection {
            image: core_dns.as_ref(),
            installed: was_on(before.and_then(|addons| addons.core_dns.as_ref())),
        },
        kube_proxy: Selection {
            image: kube_proxy.as_ref(),
            installed: was_on(before.and_then(|addons| addons.kube_proxy.as_ref())),
        },
        konnectivity: tenant::addons::Konnectivity {
            agents,
            installed: konnectivity::is_installed(tenant),
        },
    })
}

/// The version of the spec is the one that runs.
fn runs_version(tenant: &TenantControlPlane) -> bool {
    let resources = tenant
        .status
        .as_ref()
        .and_then(|status| status.kubernetes_resources.as_ref());
    let version = resources.and_then(|resources| resources.version.as_ref()?.version.as_ref());
    version == Some(&tenant.spec.kubernetes.version)
}

/// Digest of what was applied last, as the status records it.
fn recorded(tenant: &TenantControlPlane) -> Option<&str> {
    let phase = tenant.status.as_ref()?.kubeadm_phase.as_ref()?;
    phase.bootstrap_token.checksum.as_deref()
}

fn problem(error: &tenant::Error, reason: Reason) -> Problem {
    let reason = match error {
        tenant::Error::Unreachable { .. } => Reason::APIServerUnreachable,
        tenant::Error::Unhealthy { .. } => Reason::APIServerUnhealthy,
        tenant::Error::TooLarge { .. } => Reason::ObjectTooLarge,
        tenant::Error::Refused { .. }
        | tenant::Error::Credentials(_)
        | tenant::Error::Malformed(_)
        | tenant::Error::NoSubjects(_) => reason,
    };
    Problem::backoff(Class::Foreign, reason, error.to_string())
}
