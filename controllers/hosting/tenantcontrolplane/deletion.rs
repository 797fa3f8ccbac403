//! Deletion in the order of DESIGN 7: pods → keys, role and user → objects → finalizer.
//!
//! The Deployment is deleted in the foreground instead of being scaled to 0 first: it goes only after its pods have,
//! and its own delete event ends the wait, where pods would have to be watched or polled.

use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::jiff::Timestamp;
use kamaji_api::conditions::Reason;
use kamaji_api::labels::{capi, kamaji, ours};
use kamaji_api::tenantcontrolplane::TenantControlPlane;
use kube::{Api, ResourceExt};

use super::observed::Observed;
use super::problem::Problem;
use super::reconcile::LOOK;
use super::{Controller, storage};
use crate::k8s::apply::Deletion;
use crate::k8s::error::Class;
use crate::k8s::finalizer;
use crate::k8s::key::RootKey;
use crate::k8s::row::Row;
use crate::runtime::driver::{Outcome, Reconciled};

impl Controller {
    pub(super) async fn delete(&self, tenant: &TenantControlPlane, observed: &mut Observed) -> Reconciled {
        if !finalizer::has(tenant, kamaji::FINALIZER) && !finalizer::has(tenant, kamaji::SOOT_FINALIZER) {
            return Ok(Outcome::Done);
        }
        match self.delete_steps(tenant, observed).await {
            Ok(()) => Ok(Outcome::Done),
            Err(problem) => {
                observed.deleting = Some((problem.reason, problem.message.clone()));
                problem.settle(LOOK)
            }
        }
    }

    async fn delete_steps(
        &self,
        tenant: &TenantControlPlane,
        observed: &mut Observed,
    ) -> Result<(), Problem> {
        // At the source of a move the data lives on, and so does what the target now owns.
        if !tenant.annotations().contains_key(capi::DELETE_FOR_MOVE) {
            self.stop_pods(tenant).await?;
            self.delete_data(tenant, observed).await?;
            self.delete_objects(tenant).await?;
        }
        let api: Api<TenantControlPlane> = Api::namespaced(
            self.engine.client.clone(),
            &tenant.namespace().unwrap_or_default(),
        );
        let ours = [kamaji::FINALIZER, kamaji::SOOT_FINALIZER];
        Ok(finalizer::remove(&api, &self.engine.tenants, tenant, &ours).await?)
    }

    async fn stop_pods(&self, tenant: &TenantControlPlane) -> Result<(), Problem> {
        let rows = self.rows_of(tenant);
        let Some(row) = rows.iter().find(|row| row.is::<Deployment>()) else {
            return Ok(());
        };
        let gone = if row.deleting {
            false
        } else {
            let applier = &self.engine.applier;
            applier.delete_as(row, Deletion::Foreground).await?
        };
        if gone {
            return Ok(());
        }
        Err(Problem::wait(
            Reason::WaitingForPodsDeletion,
            format!("pods of Deployment {} still run", row.key.name),
        ))
    }

    async fn delete_data(&self, tenant: &TenantControlPlane, observed: &mut Observed) -> Result<(), Problem> {
        if !storage::is_recorded(tenant) || tenant.annotations().contains_key(ours::ABANDON_DATA) {
            return Ok(());
        }
        let names = storage::names_of(tenant, 0);
        // Where the data is, whatever the spec asks for by now.
        let chosen = || storage::choose(tenant, &self.engine.settings.default_datastore).ok();
        let Some(name) = storage::used(tenant).or_else(chosen) else {
            // Nothing was ever placed anywhere.
            return Ok(());
        };
        let waiting = |problem: &Problem| Problem {
            reason: match problem.reason {
                Reason::DataStoreUnreachable | Reason::DataStoreNotFound | Reason::SecretNotFound => {
                    Reason::WaitingForDataStore
                }
                other => other,
            },
            message: format!(
                "the data of schema {} cannot be deleted: {problem}; to leave it behind, annotate the TenantControlPlane \
                 with {}",
                names.schema,
                ours::ABANDON_DATA
            ),
            retry: problem.retry.or(Some(Class::Foreign)),
        };
        let store = match storage::find(&self.engine, &name) {
            Ok(store) => store,
            // It was never used: the names were drawn while the DataStore was awaited.
            Err(_) if storage::used(tenant).is_none() => return Ok(()),
            Err(problem) => return Err(waiting(&problem)),
        };
        // The DataStore was changed since: it may lead to another datastore, where nothing is to be deleted. What is found
        // is written down before it goes, for a pass that comes after it has gone.
        let mut placed = storage::placed(&store, &names).map_err(|problem| waiting(&problem))?;
        if storage::is_set_up(tenant) && !storage::is_made(tenant, &placed) {
            let found = storage::set_up(&self.engine, tenant, &store, &names, Timestamp::now()).await;
            placed.access = Some(found.map_err(|problem| waiting(&problem))?);
            observed.placed = Some(placed);
            let message = format!(
                "the data of schema {} was found and will be deleted",
                names.schema
            );
            return Err(Problem::retry(Class::Transient, Reason::Deleting, message));
        }
        match storage::tear_down(&self.engine, tenant, &store, &names).await {
            Ok(deleted) => {
                observed.torn_down = true;
                let (tenant, schema) = (RootKey::of(tenant), names.schema);
                tracing::info!(%tenant, schema, keys = deleted.keys, "data deleted");
                Ok(())
            }
            // It never was this tenant's: that is why nothing was made.
            Err(problem) if is_foreign(&problem) && storage::recorded_setup(tenant).is_none() => Ok(()),
            Err(problem) => Err(waiting(&problem)),
        }
    }

    /// Objects of ours; a user's authority is none of them.
    async fn delete_objects(&self, tenant: &TenantControlPlane) -> Result<(), Problem> {
        let applier = &self.engine.applier;
        let mut left = Vec::new();
        for row in self.rows_of(tenant) {
            if row.deleting || !applier.delete(&row).await? {
                left.push(row.key.to_string());
            }
        }
        if left.is_empty() {
            return Ok(());
        }
        Err(Problem::wait(
            Reason::WaitingForObjectsDeletion,
            format!("still there: {}", left.join(", ")),
        ))
    }

    fn rows_of(&self, tenant: &TenantControlPlane) -> Vec<std::sync::Arc<Row>> {
        self.engine
            .index
            .owned_by(tenant.metadata.uid.as_deref().unwrap_or_default())
    }
}

fn is_foreign(problem: &Problem) -> bool {
    matches!(
        problem.reason,
        Reason::SchemaOwnedByAnother | Reason::UserOwnedByAnother
    )
}
