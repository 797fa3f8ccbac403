//! Status of a TenantControlPlane from what a pass saw (hosting specification 1.1, 1.2). Pure.
//!
//! Steps that a pass did not reach keep their conditions; a step that never was reached is Unknown.

use k8s_openapi::api::core::v1::{LoadBalancerIngress, LoadBalancerStatus};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use k8s_openapi::jiff::Timestamp;
use kamaji_api::conditions::{Reason, TenantControlPlaneCondition as On};
use kamaji_api::datastore::Driver;
use kamaji_api::labels::kamaji;
use kamaji_api::tenantcontrolplane::{
    AddonStatus, AddonsStatus, CertificatesStatus, DeploymentStatus, KubeadmPhaseStatus, KubeconfigsStatus,
    PhaseStatus, SecretStatus, ServiceStatus, StorageConfigStatus, StorageSetupStatus, StorageStatus,
    TenantControlPlane, TenantControlPlaneStatus, VersionPhase, VersionStatus,
};
use kube::ResourceExt;

use super::desired::secrets;
use super::observed::{Observed, Rows};
use super::phase::{self, Sight};
use super::problem::Problem;
use super::rollout;
use crate::k8s::conditions::{self, Verdict};
use crate::k8s::row::Facts;
use crate::pki::spec::{self, component};

/// The status to write.
pub fn status(
    tenant: &TenantControlPlane,
    observed: &Observed,
    rows: Rows<'_>,
    now: Timestamp,
) -> TenantControlPlaneStatus {
    let mut new = tenant.status.clone().unwrap_or_default();
    let generation = tenant.metadata.generation;
    let set = |list: &mut Vec<Condition>, verdict| conditions::set(list, verdict, generation, now);
    let list = &mut new.conditions;
    set(
        list,
        flag(On::Paused, observed.paused, Reason::Paused, Reason::NotPaused, ""),
    );
    if observed.paused {
        return new;
    }
    let deleting = observed.deleting.as_ref();
    set(
        list,
        match deleting {
            Some((reason, message)) => Verdict::yes(On::Deleting.as_str(), *reason, message.clone()),
            None => Verdict::no(On::Deleting.as_str(), Reason::NotDeleting, ""),
        },
    );
    if deleting.is_none() {
        steps(list, observed, &set);
        set(list, rollout::running(tenant, observed, rows));
    }
    workload(&mut new, tenant, observed, rows);
    storage(&mut new, tenant, observed, now);
    key_material(&mut new, tenant, observed, now);
    inside(&mut new, tenant, observed, now);
    let asleep = tenant.spec.control_plane.deployment.replicas == 0;
    let list = &mut new.conditions;
    if asleep && deleting.is_none() {
        let why = "spec.controlPlane.deployment.replicas is 0; set it to wake the control plane";
        set(list, Verdict::no(On::Available.as_str(), Reason::Sleeping, why));
    }
    set(
        list,
        rollout::rolling(observed, rows, new.kubernetes_resources.as_ref()),
    );
    set(list, summary(list, asleep, deleting));
    if deleting.is_none()
        && [&observed.deployment]
            .into_iter()
            .all(|step| matches!(step, Some(Ok(()))))
    {
        new.observed_generation = generation;
    }
    new
}

/// How a step ended; `None` when it was not reached.
type Step = Option<Result<(), Problem>>;

/// Conditions of the steps that were reached.
fn steps(list: &mut Vec<Condition>, observed: &Observed, set: &impl Fn(&mut Vec<Condition>, Verdict)) {
    let inside = observed.inside.as_ref();
    let all: [(On, Step, Reason); 8] = [
        (On::SpecValid, done(observed.valid.as_ref()), Reason::Valid),
        (On::DataStoreReady, observed.store.clone(), Reason::DataStoreReady),
        (
            On::EndpointReady,
            done(observed.endpoint.as_ref()),
            Reason::EndpointReady,
        ),
        (
            On::CertificatesAvailable,
            done(observed.certificates.as_ref()),
            Reason::CertificatesAvailable,
        ),
        (
            On::KubeconfigsAvailable,
            done(observed.certificates.as_ref()),
            Reason::KubeconfigsAvailable,
        ),
        (
            On::Available,
            inside.map(|i| i.answered.clone()),
            Reason::Available,
        ),
        (
            On::TenantRBACReady,
            inside.map(|i| i.rights.clone()),
            Reason::TenantRBACReady,
        ),
        (
            On::AddonsReady,
            inside.map(|i| i.addons.clone()),
            Reason::AddonsReady,
        ),
    ];
    for (on, step, good) in all {
        match step {
            Some(Ok(())) => set(list, Verdict::yes(on.as_str(), good, "")),
            Some(Err(problem)) => set(list, Verdict::no(on.as_str(), problem.reason, problem.message)),
            None if conditions::get(list, on.as_str()).is_none() => {
                set(list, Verdict::unknown(on.as_str(), Reason::Pending, ""));
            }
            None => {}
        }
    }
    match &observed.unsupported {
        Some(message) => set(
            list,
            Verdict::yes(
                On::FieldNotSupported.as_str(),
                Reason::FieldNotSupported,
                message.clone(),
            ),
        ),
        None => conditions::remove(list, On::FieldNotSupported.as_str()),
    }
}

fn done<T>(step: Option<&Result<T, Problem>>) -> Step {
    step.map(|result| result.as_ref().map(|_| ()).map_err(Clone::clone))
}

fn flag(on: On, holds: bool, yes: Reason, no: Reason, message: &str) -> Verdict {
    if holds {
        Verdict::yes(on.as_str(), yes, message)
    } else {
        Verdict::no(on.as_str(), no, message)
    }
}

/// Deployment, Service, version and phase.
fn workload(
    new: &mut TenantControlPlaneStatus,
    tenant: &TenantControlPlane,
    observed: &Observed,
    rows: Rows<'_>,
) {
    let (name, namespace) = (tenant.name_any(), tenant.namespace().unwrap_or_default());
    if let Some(Ok(endpoint)) = &observed.endpoint {
        new.control_plane_endpoint = Some(endpoint.published.clone());
    }
    let answered = match &observed.inside {
        Some(inside) => inside.answered.is_ok() && inside.rights.is_ok(),
        None => {
            conditions::is_true(&new.conditions, On::Available.as_str())
                && conditions::is_true(&new.conditions, On::TenantRBACReady.as_str())
        }
    };
    let resources = new.kubernetes_resources.get_or_insert_default();
    resources.deployment = rows.deployment.and_then(|row| {
        let status = phase::facts(row)?.status.clone();
        Some(DeploymentStatus {
            name: name.clone(),
            namespace: namespace.clone(),
            selector: format!("{}={name}", kamaji::NAME),
            last_update: None,
            observed_generation: status.observed_generation,
            // A scale subresource without a number is an error for kubectl.
            replicas: Some(status.replicas.unwrap_or(0)),
            updated_replicas: Some(status.updated_replicas.unwrap_or(0)),
            ready_replicas: Some(status.ready_replicas.unwrap_or(0)),
            available_replicas: Some(status.available_replicas.unwrap_or(0)),
            unavailable_replicas: status.unavailable_replicas,
            terminating_replicas: status.terminating_replicas,
            collision_count: status.collision_count,
            conditions: status.conditions.unwrap_or_default(),
        })
    });
    resources.service = rows.service.and_then(|row| match &row.facts {
        Facts::Service(facts) => Some(ServiceStatus {
            name: name.clone(),
            namespace: namespace.clone(),
            port: tenant.spec.network_profile.port,
            load_balancer: (!facts.ingress.is_empty()).then(|| balanced(&facts.ingress)),
            conditions: Vec::new(),
        }),
        _ => None,
    });
    let installed = resources.version.as_ref().and_then(|v| v.version.clone());
    let phase = phase::phase(Sight {
        replicas: tenant.spec.control_plane.deployment.replicas,
        deployment: rows.deployment,
        installed: installed.as_deref(),
        asked: observed.rendered.as_deref().or(installed.as_deref()),
        answered,
    });
    // Asleep nothing runs: a version that is only asked for would let the next step skip a minor. The peer copies it.
    let rolled = match phase {
        VersionPhase::Ready => true,
        VersionPhase::Sleeping => installed.is_none(),
        _ => false,
    };
    resources.version = Some(VersionStatus {
        version: observed.rendered.clone().filter(|_| rolled).or(installed),
        status: phase,
    });
}

fn balanced(addresses: &[String]) -> LoadBalancerStatus {
    let ingress = addresses.iter().map(|address| {
        let is_address = address.parse::<std::net::IpAddr>().is_ok();
        LoadBalancerIngress {
            ip: is_address.then(|| address.clone()),
            hostname: (!is_address).then(|| address.clone()),
            ..LoadBalancerIngress::default()
        }
    });
    LoadBalancerStatus {
        ingress: Some(ingress.collect()),
    }
}

fn storage(
    new: &mut TenantControlPlaneStatus,
    tenant: &TenantControlPlane,
    observed: &Observed,
    now: Timestamp,
) {
    if observed.torn_down {
        // Nothing is expected there any more.
        if let Some(storage) = &mut new.storage {
            storage.setup = None;
        }
        return;
    }
    let Some(placed) = &observed.placed else {
        return;
    };
    let storage: &mut StorageStatus = new.storage.get_or_insert_default();
    storage.driver = Some(Driver::Etcd.as_str().to_owned());
    storage.data_store_name = Some(placed.store.clone());
    storage.config = Some(StorageConfigStatus {
        secret_name: Some(secrets::datastore_config_name(&tenant.name_any())),
        checksum: storage.config.take().and_then(|config| config.checksum),
    });
    let setup = storage.setup.get_or_insert_default();
    if setup.checksum.as_deref() != Some(placed.digest.as_str()) {
        *setup = StorageSetupStatus {
            schema: Some(placed.names.schema.clone()),
            user: Some(placed.names.user.clone()),
            checksum: Some(placed.digest.clone()),
            last_update: Some(whole(now)),
        };
    }
}

fn key_material(
    new: &mut TenantControlPlaneStatus,
    tenant: &TenantControlPlane,
    observed: &Observed,
    now: Timestamp,
) {
    let Some(Ok(made)) = &observed.certificates else {
        return;
    };
    let name = tenant.name_any();
    let entry = |old: Option<SecretStatus>, component: &str, secret: String| {
        let checksum = made.hashes.get(component).cloned();
        match old {
            Some(old) if old.checksum == checksum && old.secret_name.as_deref() == Some(secret.as_str()) => {
                Some(old)
            }
            _ => Some(SecretStatus {
                secret_name: Some(secret),
                checksum,
                last_update: Some(whole(now)),
            }),
        }
    };
    let own = |suffix: &str| format!("{name}-{suffix}");
    let old = new.certificates.take().unwrap_or_default();
    new.certificates = Some(CertificatesStatus {
        ca: entry(old.ca, component::CA, spec::ca_name(&name)),
        api_server: entry(
            old.api_server,
            component::API_SERVER,
            own("api-server-certificate"),
        ),
        api_server_kubelet_client: entry(
            old.api_server_kubelet_client,
            component::KUBELET_CLIENT,
            own("api-server-kubelet-client-certificate"),
        ),
        front_proxy_ca: entry(
            old.front_proxy_ca,
            component::FRONT_PROXY_CA,
            own("front-proxy-ca-certificate"),
        ),
        front_proxy_client: entry(
            old.front_proxy_client,
            component::FRONT_PROXY_CLIENT,
            own("front-proxy-client-certificate"),
        ),
        sa: entry(old.sa, component::SERVICE_ACCOUNT, own("sa-certificate")),
        etcd: old.etcd,
    });
    let old = new.kubeconfig.take().unwrap_or_default();
    new.kubeconfig = Some(KubeconfigsStatus {
        admin: entry(old.admin, component::ADMIN, spec::admin_name(&name)),
        controller_manager: entry(
            old.controller_manager,
            component::CONTROLLER_MANAGER,
            own("controller-manager-kubeconfig"),
        ),
        scheduler: entry(old.scheduler, component::SCHEDULER, own("scheduler-kubeconfig")),
    });
    if let Some(storage) = &mut new.storage {
        storage.certificate = entry(
            storage.certificate.take(),
            component::DATASTORE,
            spec::datastore_name(&name),
        );
    }
}

fn inside(
    new: &mut TenantControlPlaneStatus,
    tenant: &TenantControlPlane,
    observed: &Observed,
    now: Timestamp,
) {
    let Some(inside) = &observed.inside else {
        return;
    };
    if inside.rights.is_err() || inside.addons.is_err() {
        return;
    }
    let phase = new.kubeadm_phase.get_or_insert_default();
    if phase.bootstrap_token.checksum.as_deref() == Some(inside.digest.as_str()) {
        return;
    }
    *phase = KubeadmPhaseStatus {
        bootstrap_token: PhaseStatus {
            checksum: Some(inside.digest.clone()),
            last_update: Some(whole(now)),
        },
    };
    let addon = |enabled: bool| {
        Some(AddonStatus {
            enabled,
            last_update: Some(whole(now)),
        })
    };
    let konnectivity = new.addons.take().and_then(|addons| addons.konnectivity);
    new.addons = Some(AddonsStatus {
        core_dns: addon(tenant.spec.addons.core_dns.is_some()),
        kube_proxy: addon(tenant.spec.addons.kube_proxy.is_some()),
        konnectivity,
    });
}

/// Ready: every step is. A rollout with pods that serve is no fault.
fn summary(list: &[Condition], asleep: bool, deleting: Option<&(Reason, String)>) -> Verdict {
    let on = On::Ready.as_str();
    if deleting.is_some() {
        return Verdict::no(on, Reason::Deleting, "");
    }
    let parts = [
        On::SpecValid,
        On::DataStoreReady,
        On::EndpointReady,
        On::CertificatesAvailable,
        On::KubeconfigsAvailable,
        On::DeploymentReady,
        On::Available,
        On::TenantRBACReady,
        On::AddonsReady,
    ];
    let bad = parts
        .iter()
        .filter_map(|on| conditions::get(list, on.as_str()))
        .find(|c| c.status != "True" && c.reason != Reason::RollingOut.as_str());
    match bad {
        None => Verdict::yes(on, Reason::Ready, ""),
        Some(_) if asleep => Verdict::no(on, Reason::Sleeping, "the control plane sleeps: replicas are 0"),
        Some(c) if c.message.is_empty() => {
            Verdict::no(on, c.reason.clone(), format!("waiting for {}", c.type_))
        }
        Some(c) => Verdict::no(on, c.reason.clone(), format!("{}: {}", c.type_, c.message)),
    }
}

fn whole(now: Timestamp) -> Time {
    Time(Timestamp::from_second(now.as_second()).unwrap_or(now))
}
