//! The last step of a pass: the tenant's own API. It is asked when something there may have changed, never of a
//! quiet tenant: what was applied there is recorded by digest, and whether pods serve is what Kubernetes itself
//! probes and reports. Once a day all of it is applied again, since a tenant's admin may have deleted some.

use k8s_openapi::ByteString;
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::jiff::Timestamp;
use kamaji_api::conditions::{Reason, TenantControlPlaneCondition as On};
use kamaji_api::tenantcontrolplane::TenantControlPlane;
use kube::Client;
use serde_json::json;

use super::certificates::Certificates;
use super::endpoint::Endpoint;
use super::observed::{Inside, Observed};
use super::problem::Problem;
use super::validate::Valid;
use super::{Controller, phase, storage};
use crate::hosting::datastore;
use crate::k8s::error::Class;
use crate::k8s::{conditions, digest, key::RootKey};
use crate::pki::kubeconfig::Kubeconfig;
use crate::pki::spec;
use crate::tenant::{self, addons::Wanted, bundle::Bundle};

/// Key of the break-glass kubeconfig by which the first rights are made.
const MASTER: &str = "super-admin.svc";
/// Key of the kubeconfig that those rights are for.
const ADMIN: &str = "admin.svc";

impl Controller {
    pub(super) async fn inside(
        &self,
        tenant: &TenantControlPlane,
        valid: &Valid,
        endpoint: &Endpoint,
        certificates: &Certificates,
        observed: &mut Observed,
        now: Timestamp,
    ) -> Result<(), Problem> {
        if tenant.spec.control_plane.deployment.replicas == 0 {
            return Ok(());
        }
        let key = RootKey::of(tenant);
        let row = self.engine.index.find::<Deployment>(&key.namespace, &key.name);
        let ready = row
            .as_deref()
            .and_then(phase::facts)
            .is_some_and(|facts| facts.status.ready_replicas.unwrap_or(0) > 0);
        let bundle = bundle(&self.engine.cluster_id, tenant, valid, endpoint);
        let digest = digest::of(&json!([bundle.digest(), endpoint.published, certificates.hashes]));
        let unreached = |problem: Problem| Inside {
            digest: digest.clone(),
            answered: Err(problem.clone()),
            rights: Err(problem.clone()),
            addons: Err(problem),
        };
        if !ready {
            let place = self.doubt_place(tenant, observed, now).await;
            let problem = Problem::wait(Reason::WaitingForPods, "no pod of the control plane is ready yet");
            // What was applied inside is still there when the pods come back.
            let mut inside = unreached(problem.clone());
            if has(tenant, On::TenantRBACReady) && recorded(tenant) == Some(digest.as_str()) {
                (inside.rights, inside.addons) = (Ok(()), Ok(()));
            }
            observed.inside = Some(inside);
            return place;
        }
        let quiet =
            has(tenant, On::Available) && has(tenant, On::TenantRBACReady) && has(tenant, On::AddonsReady);
        // A proxy must not be newer than the API server: what is inside follows a rollout, it does not lead it.
        let rolling = !row.as_deref().is_some_and(phase::complete);
        let known = recorded(tenant) == Some(digest.as_str()) && now < self.audit_at(&key, now);
        if quiet && (rolling || known) {
            return Ok(());
        }
        let (client, admin) = match self.clients_of(tenant, endpoint, certificates).await {
            Ok(clients) => clients,
            Err(problem) => {
                observed.inside = Some(unreached(problem.clone()));
                return Err(problem);
            }
        };
        if let Err(error) = tenant::probe(&client).await {
            // Perhaps the connection leads to a pod that goes: the next one is made anew.
            self.clients.forget(&key.to_string());
            let problem = problem(&error, Reason::APIServerUnreachable);
            observed.inside = Some(unreached(problem.clone()));
            return Err(problem);
        }
        let rights = match bundle.apply_rights(&client).await {
            Ok(()) => tenant::rbac::read_back(&admin).await,
            Err(error) => Err(error),
        };
        let rights = rights.map_err(|error| problem(&error, Reason::TenantRBACFailed));
        let addons = bundle
            .apply_addons(&client)
            .await
            .map_err(|error| problem(&error, Reason::AddonsFailed));
        observed.inside = Some(Inside {
            digest,
            answered: Ok(()),
            rights: rights.clone(),
            addons: addons.clone(),
        });
        rights.and(addons).inspect(|()| self.audited(&key, now))
    }

    /// For a tenant whose pods serve no more: perhaps its datastore does not answer, or lost what it held. Nobody asks
    /// that while all is well; once it is so, it is asked until it is not. What was found stands in `observed`; a problem is
    /// returned too, for the retry.
    async fn doubt_place(
        &self,
        tenant: &TenantControlPlane,
        observed: &mut Observed,
        now: Timestamp,
    ) -> Result<(), Problem> {
        let (Some(placed), Some(names)) = (observed.placed.clone(), observed.names.clone()) else {
            return Ok(());
        };
        let served = has(tenant, On::Available);
        let usable = matches!(observed.store, Some(Ok(())));
        let doubted = served || !has(tenant, On::DataStoreReady);
        let asked = usable && doubted && storage::is_made(tenant, &placed);
        let store = storage::find(&self.engine, &placed.store);
        let (true, Ok(store)) = (asked, store) else {
            // A datastore that is known to be down is left to its own controller.
            if served {
                datastore::invalidate(&self.engine, &placed.store);
            }
            return Ok(());
        };
        let found = storage::set_up(&self.engine, tenant, &store, &names, now).await;
        let Err(problem) = found else {
            return Ok(());
        };
        // A request to the management cluster that failed says nothing of the datastore.
        if !matches!(problem.retry, Some(Class::Transient | Class::Conflict)) {
            observed.store = Some(Err(problem.clone()));
        }
        if problem.reason == Reason::DataMissing {
            // It may have begun anew, without authentication.
            datastore::invalidate(&self.engine, &placed.store);
        }
        Err(problem)
    }

    /// Clients as break-glass and as administrator, through the Service.
    async fn clients_of(
        &self,
        tenant: &TenantControlPlane,
        endpoint: &Endpoint,
        certificates: &Certificates,
    ) -> Result<(Client, Client), Problem> {
        let key = RootKey::of(tenant);
        // After a rollout kept connections lead to pods that go.
        let row = self.engine.index.find::<Deployment>(&key.namespace, &key.name);
        let version = digest::of(&json!([
            endpoint.service,
            certificates.hashes.get(spec::component::ADMIN),
            row.and_then(|row| row.generation),
        ]));
        let ids = [MASTER, ADMIN].map(|file| format!("{key}/{file}"));
        if let [Some(master), Some(admin)] = ids.each_ref().map(|id| self.clients.get(id, &version)) {
            return Ok((master, admin));
        }
        let data = match &certificates.admin {
            Some(material) => material.to_data(),
            None => self
                .get(&key.namespace, &spec::admin_name(&key.name))
                .await?
                .and_then(|secret| secret.data)
                .unwrap_or_default(),
        };
        let made = [MASTER, ADMIN].map(|file| {
            let empty = ByteString::default();
            let text = data.get(file).unwrap_or(&empty);
            let kubeconfig = Kubeconfig::parse(&text.0).map_err(|error| error.to_string())?;
            (self.connect)(&kubeconfig, &endpoint.service).map_err(|error| error.to_string())
        });
        let [Ok(master), Ok(admin)] = made else {
            return Err(Problem::retry(
                Class::Foreign,
                Reason::WaitingForKubeconfig,
                format!(
                    "Secret {} holds no usable kubeconfigs; delete it",
                    spec::admin_name(&key.name)
                ),
            ));
        };
        for (id, client) in ids.iter().zip([&master, &admin]) {
            self.clients.put(id, &version, client.clone());
        }
        Ok((master, admin))
    }
}

fn bundle(cluster: &str, tenant: &TenantControlPlane, valid: &Valid, endpoint: &Endpoint) -> Bundle {
    let profile = &tenant.spec.network_profile;
    let server = endpoint.advertise.map_or_else(
        || endpoint.published.clone(),
        |address| std::net::SocketAddr::new(address, valid.network.port).to_string(),
    );
    let before = tenant.status.as_ref().and_then(|status| status.addons.as_ref());
    let was_on =
        |addon: Option<&kamaji_api::tenantcontrolplane::AddonStatus>| addon.is_some_and(|a| a.enabled);
    tenant::bundle::bundle(&Wanted {
        management_cluster: cluster,
        version: &valid.version,
        tag: &tenant.spec.kubernetes.version,
        registry: &tenant.spec.control_plane.deployment.registry_settings.registry,
        dns: &valid.network.dns,
        domain: &profile.cluster_domain,
        server: &format!("https://{server}"),
        pod_cidrs: &valid.network.pod_cidrs,
        core_dns: tenant.spec.addons.core_dns.as_ref(),
        kube_proxy: tenant.spec.addons.kube_proxy.as_ref(),
        had_core_dns: was_on(before.and_then(|addons| addons.core_dns.as_ref())),
        had_kube_proxy: was_on(before.and_then(|addons| addons.kube_proxy.as_ref())),
    })
}

fn has(tenant: &TenantControlPlane, on: On) -> bool {
    tenant
        .status
        .as_ref()
        .is_some_and(|status| conditions::is_true(&status.conditions, on.as_str()))
}

fn recorded(tenant: &TenantControlPlane) -> Option<&str> {
    let phase = tenant.status.as_ref()?.kubeadm_phase.as_ref()?;
    phase.bootstrap_token.checksum.as_deref()
}

fn problem(error: &tenant::Error, reason: Reason) -> Problem {
    let reason = match error {
        tenant::Error::Unreachable(_) => Reason::APIServerUnreachable,
        tenant::Error::Unhealthy(_) => Reason::APIServerUnhealthy,
        tenant::Error::Refused(_) | tenant::Error::Credentials(_) => reason,
    };
    Problem::retry(Class::Foreign, reason, error.to_string())
}
