//! The TenantControlPlane controller: `validate` → `storage` → Service → `endpoint` → `certificates` → Deployment →
//! the tenant's own API → `status`. One pass brings everything up that can be brought up; what it waits for is a
//! condition, and a watched change or a backoff ends the wait (DESIGN 2.11, 2.12).
//!
//! Does not: read or write anything of Cluster API. The engine's objects and the status of a TenantControlPlane are
//! all that others see of it (DESIGN 1).

pub mod certificates;
pub mod deletion;
pub mod desired;
pub mod endpoint;
mod events;
pub mod observed;
pub mod phase;
pub mod problem;
mod reconcile;
mod rollout;
pub mod status;
pub mod storage;
mod tenant_api;
#[cfg(test)]
mod tests;
pub mod trust_roots;
pub mod validate;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::Service;
use k8s_openapi::jiff::Timestamp;
use kamaji_api::labels::{field_manager, kamaji};
use kamaji_api::tenantcontrolplane::TenantControlPlane;
use kube::{Api, Client, ResourceExt};
use parking_lot::Mutex;
use tokio_util::sync::CancellationToken;

use self::observed::{Observed, Rows};
use self::trust_roots::Seeded;
use super::engine::Engine;
use crate::k8s::key::{ObjectKey, RootKey};
use crate::k8s::row::Row;
use crate::k8s::status::{self as status_write, Guard};
use crate::pki::kubeconfig::Kubeconfig;
use crate::runtime::driver::{Outcome, Reconciled};
use crate::tenant::{self, Clients};

/// Name of the controller in logs and metrics.
pub const CONTROLLER: &str = "tenantcontrolplane";

/// Time between two looks at what tenants' admins may have changed inside (DESIGN 2.11).
const AUDIT: Duration = Duration::from_hours(24);

/// Makes the client of a tenant from its kubeconfig and the address of its Service.
type Connect = Box<dyn Fn(&Kubeconfig, &str) -> Result<Client, tenant::Error> + Send + Sync>;

/// The controller: the engine and what it remembers between passes. Nothing of it has to survive the process.
pub struct Controller {
    engine: Arc<Engine>,
    clients: Clients,
    connect: Connect,
    memo: Mutex<Memo>,
}

#[derive(Default)]
struct Memo {
    /// Authorities of users, with the version at which they were read where that is watched.
    seeded: HashMap<RootKey, (Option<String>, Seeded)>,
    /// Versions of key material that were ours, or read and found unchanged.
    untouched: HashMap<ObjectKey, String>,
    /// When what was put into a tenant is next compared with what is there.
    audits: HashMap<RootKey, Timestamp>,
}

impl Controller {
    /// The controller of `engine`.
    pub fn new(engine: Arc<Engine>) -> Arc<Self> {
        Self::with(engine, Box::new(tenant::connect))
    }

    fn with(engine: Arc<Engine>, connect: Connect) -> Arc<Self> {
        Arc::new(Self {
            engine,
            clients: Clients::default(),
            connect,
            memo: Mutex::default(),
        })
    }

    /// One pass for one tenant.
    pub async fn reconcile(self: Arc<Self>, key: RootKey) -> Reconciled {
        let Some(tenant) = self.engine.tenants.get(&key) else {
            self.forget(&key);
            return Ok(Outcome::Done);
        };
        if !self.engine.settings.acts_on(&key.namespace) {
            return Ok(Outcome::Done);
        }
        let mut observed = Observed::default();
        if tenant.annotations().contains_key(kamaji::PAUSED) {
            observed.paused = true;
            self.publish(&key, &observed).await?;
            return Ok(Outcome::Done);
        }
        if tenant.metadata.deletion_timestamp.is_some() {
            let result = self.delete(&tenant, &mut observed).await;
            if observed.deleting.is_some() {
                self.publish(&key, &observed).await?;
            }
            return result;
        }
        let result = self.pass(&key, &mut observed, Timestamp::now()).await;
        // Told even when the pass failed; the failure of the pass counts for the retry.
        let told = self.publish(&key, &observed).await;
        let outcome = result?;
        told?;
        Ok(outcome)
    }

    /// Writes the status and tells what got worse.
    async fn publish(&self, key: &RootKey, observed: &Observed) -> Result<(), crate::k8s::error::ApiError> {
        // The pass may have written through a newer one.
        let Some(tenant) = self.engine.tenants.get(key) else {
            return Ok(());
        };
        let deployment = self.engine.index.find::<Deployment>(&key.namespace, &key.name);
        let service = self.engine.index.find::<Service>(&key.namespace, &key.name);
        let rolling = deployment.as_deref().is_some_and(|row| !phase::complete(row));
        let trouble = rolling
            .then(|| {
                let index = &self.engine.index;
                index.pod_trouble(&key.namespace, kamaji::NAME, &key.name)
            })
            .flatten();
        let sight = Rows {
            deployment: deployment.as_deref(),
            service: service.as_deref(),
            trouble: trouble.as_deref(),
        };
        let new = status::status(&tenant, observed, sight, Timestamp::now());
        let api: Api<TenantControlPlane> = Api::namespaced(self.engine.client.clone(), &key.namespace);
        let roots = &self.engine.tenants;
        let old = tenant.status.as_ref();
        let sent =
            status_write::apply(&api, roots, &*tenant, &new, field_manager::HOSTING, Guard::None).await?;
        if sent {
            for (reason, message) in events::worsened(old, &new) {
                self.engine.events.warn(&*tenant, &reason, &message).await;
            }
        }
        Ok(())
    }

    /// Lets go of tenant clients that nobody used for long, until the process stops.
    pub async fn sweep(self: Arc<Self>, stop: CancellationToken) {
        let mut ticks = tokio::time::interval(Duration::from_mins(1));
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                _ = ticks.tick() => self.clients.sweep(),
            }
        }
    }

    fn forget(&self, key: &RootKey) {
        let mut memo = self.memo.lock();
        memo.seeded.remove(key);
        memo.audits.remove(key);
        let prefix = format!("{}-", key.name);
        memo.untouched
            .retain(|known, _| known.namespace != key.namespace || !known.name.starts_with(&prefix));
        drop(memo);
        self.clients.forget(&key.to_string());
    }

    fn seeded(&self, tenant: &TenantControlPlane, version: Option<&str>) -> Option<Seeded> {
        let memo = self.memo.lock();
        let (known, seeded) = memo.seeded.get(&RootKey::of(tenant))?;
        (known.as_deref() == version).then(|| seeded.clone())
    }

    fn seed(&self, tenant: &TenantControlPlane, version: Option<String>, seeded: &Seeded) {
        let entry = (version, seeded.clone());
        self.memo.lock().seeded.insert(RootKey::of(tenant), entry);
    }

    /// Nobody else wrote the object since we saw it. After a restart what is there is believed.
    fn is_untouched(&self, row: &Row) -> bool {
        let mut memo = self.memo.lock();
        if let Some(version) = memo.untouched.get(&row.key) {
            return *version == row.resource_version;
        }
        memo.untouched
            .insert(row.key.clone(), row.resource_version.clone());
        true
    }

    /// When the tenant's inside is due to be looked at. A new process spreads its first looks over a day.
    fn audit_at(&self, key: &RootKey, now: Timestamp) -> Timestamp {
        let mut memo = self.memo.lock();
        let first = || later(now, rand::random::<f64>());
        *memo.audits.entry(key.clone()).or_insert_with(first)
    }

    /// The inside was applied and read back.
    fn audited(&self, key: &RootKey, now: Timestamp) {
        let next = later(now, 0.9 + 0.2 * rand::random::<f64>());
        self.memo.lock().audits.insert(key.clone(), next);
    }

    fn saw(&self, row: &Row) {
        let version = row.resource_version.clone();
        self.memo.lock().untouched.insert(row.key.clone(), version);
    }
}

/// `now` and so many days.
fn later(now: Timestamp, days: f64) -> Timestamp {
    now.checked_add(AUDIT.mul_f64(days)).unwrap_or(now)
}
