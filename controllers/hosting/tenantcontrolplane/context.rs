//! The state of the controller: the engine, connections to tenants, and what it remembers between reconciles. All of
//! the memory may be lost: a new process reads again what it needs.

use std::{collections::HashMap, sync::Arc, time::Duration};

use k8s_openapi::jiff::Timestamp;
use kamaji_api::tenantcontrolplane::TenantControlPlane;
use parking_lot::Mutex;
use tokio::sync::{Semaphore, SemaphorePermit};
use tokio_util::sync::CancellationToken;

use super::{ca::ProvidedCa, tunnel::when::Asked};
use crate::{
    hosting::engine::Engine,
    k8s::{key::RootKey, row::Row},
    pki::kubeconfig::Kubeconfig,
    tenant::{self, Clients, Connection, Server, bundle::Applied},
};

/// Time between two audits of what a tenant's admin may have changed in the workload cluster.
const AUDIT: Duration = Duration::from_hours(24);

/// Number of workload clusters that are asked at the same time, at most.
const AT_ONCE: usize = 16;
/// How long a tenant waits until it may ask.
const TURN: Duration = Duration::from_millis(500);

/// Makes the client of a tenant from a kubeconfig.
pub type Connect = Box<dyn Fn(&Kubeconfig, Server<'_>) -> Result<Connection, tenant::Error> + Send + Sync>;

/// What every reconcile needs.
pub struct Context {
    /// The hosting engine.
    pub engine: Arc<Engine>,
    /// Clients of tenants that are in use.
    pub clients: Clients,
    /// See [`Connect`].
    pub connect: Connect,
    /// Workload clusters that are asked at the same time: fewer than there are workers, so that slow ones leave some free.
    turns: Semaphore,
    memory: Mutex<Memory>,
}

#[derive(Default)]
struct Memory {
    /// CAs that users provide, with the resource version at which they were read, where the Secret is watched, or else the
    /// time until they are read again.
    provided_cas: HashMap<RootKey, (Result<String, Timestamp>, ProvidedCa)>,
    /// When each tenant is next audited.
    audits: HashMap<RootKey, Timestamp>,
    /// When the kubelets of each tenant are asked first, and what they were asked last.
    tunnels: HashMap<RootKey, Result<Asked, Timestamp>>,
    /// What is applied in a workload cluster that answers slowly, with the digest of what belongs there.
    applied: HashMap<RootKey, (String, Arc<Applied>)>,
}

impl Context {
    /// The context of `engine`.
    pub fn new(engine: Arc<Engine>) -> Arc<Self> {
        Self::with(engine, Box::new(tenant::connect))
    }

    /// The same, with another way to connect to tenants.
    pub fn with(engine: Arc<Engine>, connect: Connect) -> Arc<Self> {
        let turns = Semaphore::new(at_once(engine.settings.concurrency));
        Arc::new(Self {
            engine,
            clients: Clients::default(),
            connect,
            turns,
            memory: Mutex::default(),
        })
    }

    /// Waits for a turn to ask a workload cluster, a short time: who waits holds a worker too.
    pub async fn turn(&self) -> Option<SemaphorePermit<'_>> {
        let turn = tokio::time::timeout(TURN, self.turns.acquire()).await;
        // The semaphore is never closed.
        turn.ok()?.ok()
    }

    /// Drops tenant clients that were not used for long, until the process stops.
    pub async fn sweep(self: Arc<Self>, stop: CancellationToken) {
        let mut ticks = tokio::time::interval(Duration::from_mins(1));
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                _ = ticks.tick() => self.clients.sweep(),
            }
        }
    }

    /// Forgets a tenant that no longer exists.
    pub fn forget(&self, key: &RootKey) {
        let mut memory = self.memory.lock();
        memory.provided_cas.remove(key);
        memory.audits.remove(key);
        memory.applied.remove(key);
        memory.tunnels.remove(key);
        drop(memory);
        self.clients.forget(&key.to_string());
    }

    /// The CA that the user provides for `tenant`, if it was read at this resource version, or lately where it has none.
    pub fn provided_ca(
        &self,
        tenant: &TenantControlPlane,
        version: Option<&str>,
        now: Timestamp,
    ) -> Option<ProvidedCa> {
        let memory = self.memory.lock();
        let (known, ca) = memory.provided_cas.get(&RootKey::of(tenant))?;
        let valid = match (known, version) {
            (Ok(known), Some(version)) => known == version,
            (Err(until), None) => now < *until,
            (Ok(_), None) | (Err(_), Some(_)) => false,
        };
        valid.then(|| ca.clone())
    }

    /// Remembers the CA that the user provides for `tenant`.
    pub fn remember_ca(
        &self,
        tenant: &TenantControlPlane,
        version: Option<String>,
        ca: &ProvidedCa,
        now: Timestamp,
    ) {
        // Before the daily look, so that it reads what no watch reports.
        let entry = (version.ok_or_else(|| later(now, 0.8)), ca.clone());
        self.memory.lock().provided_cas.insert(RootKey::of(tenant), entry);
    }

    /// Nobody else wrote the object since the engine wrote or read it. After a restart, what exists is believed.
    pub fn is_untouched(&self, row: &Row) -> bool {
        self.engine.index.is_untouched(row)
    }

    /// Remembers the object as the engine wrote or read it.
    pub fn remember(&self, row: &Row) {
        self.engine.index.set_untouched(row);
    }

    /// When the workload cluster of a tenant is next audited. A new process spreads the first audits over a day.
    pub fn audit_at(&self, key: &RootKey, now: Timestamp) -> Timestamp {
        let mut memory = self.memory.lock();
        let first = || later(now, rand::random::<f64>());
        *memory.audits.entry(key.clone()).or_insert_with(first)
    }

    /// What belongs into the workload cluster was applied and read back: the next audit is due in a day, give or take
    /// 10 %.
    pub fn audited(&self, key: &RootKey, now: Timestamp) {
        self.set_audit(key, next_audit(now));
    }

    /// What the tries before applied in the workload cluster of a tenant, of what has this digest.
    pub fn applied(&self, key: &RootKey, digest: &str) -> Arc<Applied> {
        let mut memory = self.memory.lock();
        let (known, applied) = memory.applied.entry(key.clone()).or_default();
        if known != digest {
            (*known, *applied) = (digest.to_owned(), Arc::default());
        }
        applied.clone()
    }

    /// The next try begins with the first object again.
    pub fn forget_applied(&self, key: &RootKey) {
        self.memory.lock().applied.remove(key);
    }

    /// What the kubelets of a tenant were asked last, by this process.
    pub fn tunnel_asked(&self, key: &RootKey) -> Option<Asked> {
        let memory = self.memory.lock();
        memory.tunnels.get(key)?.as_ref().ok().cloned()
    }

    /// The kubelets of a tenant are to be asked at this time. Returns the earliest such time, until they were asked.
    pub fn tunnel_planned(&self, key: &RootKey, at: Timestamp) -> Timestamp {
        let mut memory = self.memory.lock();
        match memory.tunnels.entry(key.clone()).or_insert(Err(at)) {
            Ok(_) => at,
            Err(planned) => {
                *planned = at.min(*planned);
                *planned
            }
        }
    }

    /// The kubelets of a tenant were asked.
    pub fn set_tunnel_asked(&self, key: &RootKey, asked: Asked) {
        self.memory.lock().tunnels.insert(key.clone(), Ok(asked));
    }

    /// Something failed that the answer of the kubelets explains: they are asked again soon.
    pub fn doubt_tunnel(&self, key: &RootKey) {
        let mut memory = self.memory.lock();
        let known = memory
            .tunnels
            .entry(key.clone())
            .or_insert_with(|| Ok(Asked::never()));
        match known {
            Ok(asked) => asked.about.clear(),
            Err(_) => *known = Ok(Asked::never()),
        }
    }

    /// Sets when a tenant is next audited.
    pub fn set_audit(&self, key: &RootKey, at: Timestamp) {
        self.memory.lock().audits.insert(key.clone(), at);
    }
}

/// How many of the workers may ask workload clusters.
fn at_once(workers: usize) -> usize {
    (workers / 4).clamp(1, AT_ONCE)
}

/// The audit after one at `now`: in a day, give or take 10 %.
pub fn next_audit(now: Timestamp) -> Timestamp {
    later(now, 0.9 + 0.2 * rand::random::<f64>())
}

/// `now` and this many days.
fn later(now: Timestamp, days: f64) -> Timestamp {
    now.checked_add(AUDIT.mul_f64(days)).unwrap_or(now)
}

#[cfg(test)]
mod tests {
    #[test]
    fn a_quarter_of_the_workers_asks_workload_clusters() {
        let table = [(1, 1), (4, 1), (8, 2), (64, 16), (1000, 16)];
        for (workers, expected) in table {
            assert_eq!(super::at_once(workers), expected, "{workers} workers");
        }
    }
}
