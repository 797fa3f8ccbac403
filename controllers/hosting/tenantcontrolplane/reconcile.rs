//! The steps of one pass, in order. Each leaves what it found in [`Observed`]; the first that cannot be done ends it.

use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::Secret;
use k8s_openapi::api::networking::v1::NetworkPolicy;
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use k8s_openapi::jiff::Timestamp;
use kamaji_api::conditions::Reason;
use kamaji_api::labels::{kamaji, ours};
use kamaji_api::tenantcontrolplane::TenantControlPlane;
use kamaji_api::unsupported::UnsupportedFields as _;
use kube::{Api, Resource, ResourceExt};

use super::certificates::Certificates;
use super::desired::deployment::{self, Inputs, Storage};
use super::desired::{flags, networkpolicy, pdb, secrets, service};
use super::endpoint::{self, Endpoint};
use super::observed::{Observed, Placed};
use super::problem::Problem;
use super::storage::{self, Names};
use super::validate::{Valid, validate};
use super::{Controller, phase};
use crate::hosting::datastore::driver::Access;
use crate::hosting::datastore::{self, status::usable};
use crate::k8s::error::{ApiError, Class};
use crate::k8s::finalizer;
use crate::k8s::key::RootKey;
use crate::k8s::row::{Facts, Row};
use crate::pki::spec;
use crate::runtime::driver::{Outcome, Reconciled};

/// Longest time until a tenant looks at its certificates again; it costs nothing.
pub(super) const LOOK: Duration = Duration::from_hours(24);

impl Controller {
    pub(super) async fn pass(&self, key: &RootKey, observed: &mut Observed, now: Timestamp) -> Reconciled {
        match self.steps(key, observed, now).await {
            Ok(next) => Ok(Outcome::After(until(next, now))),
            Err(problem) => {
                let renew_at = observed
                    .certificates
                    .as_ref()
                    .and_then(|made| made.as_ref().ok()?.renew_at);
                problem.settle(until(renew_at, now))
            }
        }
    }

    async fn steps(
        &self,
        key: &RootKey,
        observed: &mut Observed,
        now: Timestamp,
    ) -> Result<Option<Timestamp>, Problem> {
        let engine = &self.engine;
        let gone = || Problem::wait(Reason::Deleting, "the TenantControlPlane is gone");
        let tenant = engine.tenants.get(key).ok_or_else(gone)?;
        observed.unsupported = unsupported(&tenant);
        let valid = observed
            .valid
            .insert(validate(&tenant).map_err(Problem::from))
            .clone()?;
        let names = storage::names_of(&tenant, rand::random());
        observed.names = Some(names.clone());
        storage::check_names(&tenant, &names)
            .inspect_err(|problem| observed.valid = Some(Err(problem.clone())))?;
        let chosen = storage::choose(&tenant, &engine.settings.default_datastore);
        let chosen = observed.note_store(chosen)?;
        let store = observed.note_store(storage::find(engine, &chosen))?;
        self.claim(&tenant, &names).await?;
        let tenant = engine.tenants.get(key).ok_or_else(gone)?;
        let endpoint = self.endpoint(&tenant, &valid).await;
        // The datastore is prepared while a load balancer is awaited.
        let placed = self.placed(&tenant, &store, &names, now).await;
        let placed = observed.note_store(placed)?;
        // Its place is made. Whether the datastore answers now is told, and keeps nothing from being done.
        if store.metadata.deletion_timestamp.is_none()
            && let Err(problem) = usable(&store)
        {
            observed.store = Some(Err(Problem::wait(problem.reason, problem.message)));
        }
        observed.placed = Some(placed.clone());
        let endpoint = observed.endpoint.insert(endpoint).clone()?;
        let certificates = self.key_material(&tenant, &valid, &endpoint, &placed, now).await;
        let certificates = observed.certificates.insert(certificates).clone()?;
        let workload = self
            .workload(&tenant, &valid, &endpoint, &certificates, &placed)
            .await;
        let failing = |row: &Row| phase::rejected(row).map_or(Ok(()), Err);
        observed.deployment = Some(workload.clone().and_then(|row| failing(&row)));
        let row = workload?;
        observed.rendered = Some(tenant.spec.kubernetes.version.clone());
        // Pods that do not come up keep nothing from those that serve.
        self.inside(&tenant, &valid, &endpoint, &certificates, observed, now)
            .await?;
        failing(&row)?;
        let audit = self.audit_at(key, now);
        Ok(Some(
            certificates.renew_at.map_or(audit, |renew| renew.min(audit)),
        ))
    }

    /// Finalizer and drawn names in one request, before anything is made anywhere.
    async fn claim(&self, tenant: &TenantControlPlane, names: &Names) -> Result<(), Problem> {
        let namespace = tenant.namespace().unwrap_or_default();
        let api: Api<TenantControlPlane> = Api::namespaced(self.engine.client.clone(), &namespace);
        let drawn = [
            (ours::SCHEMA, names.schema.as_str()),
            (ours::USER, names.user.as_str()),
        ];
        // Names that an earlier Kamaji kept in status stay there alone: that is how a takeover is known.
        let annotations = if names.adopted { &[][..] } else { &drawn[..] };
        let roots = &self.engine.tenants;
        Ok(finalizer::claim(&api, roots, tenant, kamaji::FINALIZER, annotations).await?)
    }

    /// The Service, and the endpoint that follows from it.
    async fn endpoint(&self, tenant: &TenantControlPlane, valid: &Valid) -> Result<Endpoint, Problem> {
        let applied = self
            .engine
            .applier
            .apply(&service::render(tenant)?)
            .await
            .map_err(|error| rejected(tenant, error))?;
        let Facts::Service(facts) = &applied.row.facts else {
            return Err(Problem::wait(
                Reason::WaitingForService,
                "the Service was not read yet",
            ));
        };
        endpoint::endpoint(tenant, &valid.network, facts)
    }

    /// The tenant's place in the datastore, made where it is not recorded as made.
    async fn placed(
        &self,
        tenant: &TenantControlPlane,
        store: &kamaji_api::datastore::DataStore,
        names: &Names,
        now: Timestamp,
    ) -> Result<Placed, Problem> {
        let mut placed = storage::placed(store, names)?;
        if storage::is_made(tenant, &placed) {
            placed.access = self.engine.pool.get(store);
            return Ok(placed);
        }
        match usable(store) {
            // Its deletion waits for us.
            Err(problem) if problem.reason == Reason::DataStoreDeleting && storage::is_set_up(tenant) => {}
            // Its controller wakes us when that changes.
            fit => fit.map_err(|problem| Problem::wait(problem.reason, problem.message))?,
        }
        placed.access = Some(storage::set_up(&self.engine, tenant, store, names, now).await?);
        Ok(placed)
    }

    async fn key_material(
        &self,
        tenant: &TenantControlPlane,
        valid: &Valid,
        endpoint: &Endpoint,
        place: &Placed,
        now: Timestamp,
    ) -> Result<Certificates, Problem> {
        let name = tenant.name_any();
        let profile = &tenant.spec.network_profile;
        let mut specs = spec::tenant(&spec::Tenant {
            namespace: tenant.namespace().unwrap_or_default(),
            name: name.clone(),
            cluster_domain: profile.cluster_domain.clone(),
            service_addresses: valid.network.service_addresses(),
            hosts: endpoint.hosts.clone(),
            extra_sans: profile.cert_sans.clone(),
            port: valid.network.port,
            endpoint: endpoint.published.clone(),
            datastore_user: Some(place.names.user.clone()),
        });
        // The control plane provider copies it to `<cluster>-kamaji-bootstrap` for the bootstrap provider (DESIGN 7).
        specs.push(spec::bootstrap(&name, &format!("https://{}", endpoint.published)));
        let missing = self
            .engine
            .index
            .find::<Secret>(
                &tenant.namespace().unwrap_or_default(),
                &spec::datastore_name(&name),
            )
            .is_none();
        let mut access = place.access.clone();
        if access.is_none() && missing {
            access = Some(self.access(&place.store).await?);
        }
        let known = access.is_some();
        match self.certificates(tenant, &specs, access, now).await {
            // The certificate for the datastore comes to its end: the authority there has to be read first.
            Err(problem) if !known && problem.reason == Reason::InternalError => {
                let access = self.access(&place.store).await?;
                self.certificates(tenant, &specs, Some(access), now).await
            }
            result => result,
        }
    }

    async fn access(&self, store: &str) -> Result<Arc<Access>, Problem> {
        let store = storage::find(&self.engine, store)?;
        Ok(datastore::access(&self.engine, &store).await?)
    }

    /// NetworkPolicy, PodDisruptionBudget, and the Deployment last, whose row it returns.
    async fn workload(
        &self,
        tenant: &TenantControlPlane,
        valid: &Valid,
        endpoint: &Endpoint,
        certificates: &Certificates,
        placed: &Placed,
    ) -> Result<Arc<Row>, Problem> {
        let applier = &self.engine.applier;
        match networkpolicy::render(tenant)? {
            // A takeover opens and closes no port.
            Some(_) if placed.names.adopted => {}
            Some(policy) => {
                applier.apply(&policy).await?;
            }
            None => {
                if let Some(row) = self.unwanted::<NetworkPolicy>(tenant) {
                    applier.delete(&row).await?;
                }
            }
        }
        if let Some(budget) = pdb::render(tenant)? {
            applier.apply(&budget).await?;
        } else if let Some(row) = self.unwanted::<PodDisruptionBudget>(tenant) {
            applier.delete(&row).await?;
        }
        let config = applier
            .apply(&secrets::datastore_config(
                tenant,
                &placed.names.schema,
                &placed.names.user,
            )?)
            .await?;
        let config_hash = config
            .row
            .annotations
            .get(ours::CONTENT_HASH)
            .cloned()
            .unwrap_or_default();
        let inputs = Inputs {
            tenant,
            valid,
            storage: Storage {
                store: &placed.store,
                schema: &placed.names.schema,
                endpoints: &placed.endpoints,
            },
            advertise: endpoint.advertise,
            authority: certificates.files,
            hashes: &certificates.hashes,
            config_hash: &config_hash,
        };
        Ok(applier.apply(&deployment::render(&inputs)?).await?.row)
    }

    /// The object of ours of this kind, which nobody asks for any more.
    fn unwanted<K: Resource<DynamicType = ()>>(&self, tenant: &TenantControlPlane) -> Option<Arc<Row>> {
        let namespace = tenant.namespace().unwrap_or_default();
        let row = self.engine.index.find::<K>(&namespace, &tenant.name_any())?;
        let ours = row.owner.as_ref().map(|owner| &owner.uid) == tenant.metadata.uid.as_ref();
        (ours && !row.deleting).then_some(row)
    }
}

/// What is asked for in vain.
fn unsupported(tenant: &TenantControlPlane) -> Option<String> {
    let ignored = flags::ignored(tenant);
    let fields = tenant.spec.unsupported_message();
    if ignored.is_empty() {
        return fields;
    }
    let ignored = format!("without effect: {}", ignored.join(", "));
    Some(fields.map_or_else(|| ignored.clone(), |fields| format!("{fields}; {ignored}")))
}

/// A Service that the API refused: mostly a port that is no node port.
fn rejected(tenant: &TenantControlPlane, error: ApiError) -> Problem {
    if error.class() != Class::Invalid {
        return error.into();
    }
    let (reason, message) = refusal(
        &tenant.name_any(),
        tenant.spec.network_profile.port,
        &error.to_string(),
    );
    Problem::retry(Class::Invalid, reason, message)
}

/// What the API server's words about a Service mean for the TenantControlPlane it is made from.
fn refusal(name: &str, port: i32, text: &str) -> (Reason, String) {
    if text.contains("spec.ports[0].nodePort") || text.contains("provided port is") {
        return (
            Reason::PortNotAllocatable,
            format!(
                "spec.networkProfile.port: {port} cannot be had; choose a free port, with NodePort one of the range of \
                 node ports ({text})"
            ),
        );
    }
    // The first port is the API server's own.
    let additional = text
        .split_once("spec.ports[")
        .and_then(|(_, rest)| rest.split_once(']')?.0.parse::<usize>().ok())
        .and_then(|index| index.checked_sub(1));
    let field = additional.map_or_else(
        || format!("Service {name} was refused"),
        |index| format!("spec.controlPlane.service.additionalPorts[{index}]"),
    );
    (Reason::ServiceRejected, format!("{field}: {text}"))
}

fn until(next: Option<Timestamp>, now: Timestamp) -> Duration {
    next.and_then(|at| u64::try_from(at.as_second() - now.as_second()).ok())
        .map_or(LOOK, |seconds| Duration::from_secs(seconds.max(60)).min(LOOK))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refused_service_names_the_field_it_comes_from() {
        let table = [
            (
                "Service \"a\" is invalid: spec.ports[0].nodePort: Invalid value: 6443: provided port is not in the valid \
                 range. The range of valid ports is 30000-32767",
                Reason::PortNotAllocatable,
                "spec.networkProfile.port: 6443 ",
            ),
            (
                "Service \"a\" is invalid: spec.ports[2]: Duplicate value: {\"port\":6443}",
                Reason::ServiceRejected,
                "spec.controlPlane.service.additionalPorts[1]: ",
            ),
            (
                "Service \"a\" is invalid: spec.externalTrafficPolicy: Unsupported value: \"x\"",
                Reason::ServiceRejected,
                "Service a was refused: ",
            ),
        ];
        for (text, reason, start) in table {
            let (told, message) = refusal("a", 6443, text);
            assert_eq!(told, reason, "{text}");
            assert!(message.starts_with(start) && message.contains(text), "{message}");
        }
    }
}
