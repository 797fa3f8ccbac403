//! The machines of this host: boots each once, finds running machines after a restart, removes machines completely.

use std::{collections::BTreeMap, net::Ipv4Addr, path::PathBuf, sync::Arc, time::Duration};

use anyhow::{Context as _, Result, anyhow};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use tokio::sync::Mutex;
use tracing::{info, warn};

use super::{
    addresses::{Network, next_address, next_range},
    cgroups, nspawn,
    record::{Record, Records},
    routes,
    seed::{Identity, machine_id, overlay, sha256_hex},
    wire::{Machine, Order},
};

/// What the host gives to machines.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Bridge that machines are attached to.
    pub bridge: String,
    /// The host's own address on it.
    pub gateway: Ipv4Addr,
    /// Prefix length of the bridge's network.
    pub prefix: u8,
    /// Addresses for machines, separate from those of the host's own pods.
    pub pool: Network,
    /// Name server of the machines.
    pub nameserver: Ipv4Addr,
    /// Registry that machines ask for every image.
    pub mirror: Option<String>,
    /// Root images by name.
    pub images: BTreeMap<String, PathBuf>,
}

/// Why an order cannot be carried out.
#[derive(Debug)]
pub enum Fault {
    /// The order is wrong; it will stay wrong.
    Refused(String),
    /// The host failed; another try may succeed.
    Failed(anyhow::Error),
}

impl<E: Into<anyhow::Error>> From<E> for Fault {
    fn from(error: E) -> Self {
        Self::Failed(error.into())
    }
}

/// The machines of one state directory.
pub struct Host {
    settings: Settings,
    records: Records,
    ledger: Mutex<Ledger>,
}

#[derive(Default)]
struct Ledger {
    machines: BTreeMap<String, Record>,
    turns: BTreeMap<String, Arc<Mutex<()>>>,
    last: Option<Ipv4Addr>,
}

impl Host {
    /// Adopts the machines that an earlier run recorded in `records`.
    pub async fn open(settings: Settings, records: Records) -> Result<Self> {
        let mut ledger = Ledger::default();
        for record in records.read_all().await? {
            let machine = record.report().await;
            info!(
                machine = record.name,
                id = record.id,
                running = machine.running,
                "found again"
            );
            if machine.running {
                routes::set(record.pod_cidr, record.address).await?;
            }
            ledger.last = ledger.last.max(Some(record.address));
            ledger.machines.insert(record.id.clone(), record);
        }
        Ok(Self {
            settings,
            records,
            ledger: Mutex::new(ledger),
        })
    }

    /// Boots the machine unless it was booted before. Returns its state.
    pub async fn ensure(&self, namespace: &str, name: &str, order: &Order) -> Result<Machine, Fault> {
        let id = machine_id(namespace, name);
        let turn = self.turn(&id).await;
        let _turn = turn.lock().await;
        let known = self.ledger.lock().await.machines.get(&id).cloned();
        if let Some(record) = known.as_ref().filter(|record| record.init.is_some()) {
            return Ok(record.report().await);
        }
        let lower = self.image(&order.image)?;
        let user_data = STANDARD
            .decode(&order.user_data)
            .map_err(|error| Fault::Refused(format!("userData is not base64: {error}")))?;
        let record = match known {
            Some(record) => {
                self.clear(&record).await?;
                record
            }
            None => self.allot(id, namespace, name, order, &user_data).await?,
        };
        self.boot(record, lower, &order.hostname, &user_data)
            .await
            .map_err(Fault::Failed)
    }

    /// What is known of a machine.
    pub async fn get(&self, namespace: &str, name: &str) -> Option<Machine> {
        let record = self
            .ledger
            .lock()
            .await
            .machines
            .get(&machine_id(namespace, name))
            .cloned()?;
        Some(record.report().await)
    }

    /// Every machine.
    pub async fn list(&self) -> Vec<(Record, Machine)> {
        let records: Vec<Record> = self.ledger.lock().await.machines.values().cloned().collect();
        let mut machines = Vec::with_capacity(records.len());
        for record in records {
            let machine = record.report().await;
            machines.push((record, machine));
        }
        machines
    }

    /// Removes a machine and whatever it left on the host; one that is not there is removed already.
    pub async fn remove(&self, namespace: &str, name: &str) -> Result<()> {
        let id = machine_id(namespace, name);
        let turn = self.turn(&id).await;
        let _turn = turn.lock().await;
        let Some(record) = self.ledger.lock().await.machines.get(&id).cloned() else {
            return Ok(());
        };
        self.clear(&record).await?;
        self.records.remove(&id).await?;
        let mut ledger = self.ledger.lock().await;
        ledger.machines.remove(&id);
        ledger.turns.remove(&id);
        info!(machine = name, namespace, id, "removed");
        Ok(())
    }

    /// Removes every machine; the first failure does not spare the others.
    pub async fn remove_all(&self) -> Result<()> {
        let mut outcome = Ok(());
        for (record, _) in self.list().await {
            if let Err(error) = self.remove(&record.namespace, &record.name).await {
                warn!(machine = record.name, error = format!("{error:#}"), "not removed");
                outcome = Err(error);
            }
        }
        outcome
    }

    async fn turn(&self, id: &str) -> Arc<Mutex<()>> {
        self.ledger
            .lock()
            .await
            .turns
            .entry(id.to_owned())
            .or_default()
            .clone()
    }

    fn image(&self, name: &str) -> Result<PathBuf, Fault> {
        self.settings.images.get(name).cloned().ok_or_else(|| {
            let known: Vec<&str> = self.settings.images.keys().map(String::as_str).collect();
            Fault::Refused(format!(
                "there is no image {name:?}; this host has: {}",
                known.join(", ")
            ))
        })
    }

    /// Chooses address and pod range, and records them before anything is started.
    async fn allot(
        &self,
        id: String,
        namespace: &str,
        name: &str,
        order: &Order,
        user_data: &[u8],
    ) -> Result<Record, Fault> {
        let cluster = Network::parse(&order.cluster_pod_cidr).map_err(Fault::Refused)?;
        let own = Network::new(self.settings.gateway, self.settings.prefix);
        if cluster.overlaps(&own) {
            return Err(Fault::Refused(format!(
                "pod range {cluster} overlaps the machines' network {own}"
            )));
        }
        let mut ledger = self.ledger.lock().await;
        let addresses: Vec<Ipv4Addr> = ledger.machines.values().map(|record| record.address).collect();
        let ranges: Vec<Network> = ledger.machines.values().map(|record| record.pod_cidr).collect();
        let address = next_address(self.settings.pool, ledger.last, &addresses)
            .ok_or_else(|| anyhow!("the machine pool {} is used up", self.settings.pool))?;
        let pod_cidr = next_range(cluster, &ranges).ok_or_else(|| {
            Fault::Refused(format!("pod range {cluster} has no /24 left for another machine"))
        })?;
        let record = Record {
            id,
            namespace: namespace.to_owned(),
            name: name.to_owned(),
            address,
            pod_cidr,
            user_data_sha256: sha256_hex(user_data),
            supervisor: None,
            init: None,
        };
        self.records.write(&record).await?;
        ledger.last = Some(address);
        ledger.machines.insert(record.id.clone(), record.clone());
        Ok(record)
    }

    async fn boot(
        &self,
        mut record: Record,
        lower: PathBuf,
        hostname: &str,
        user_data: &[u8],
    ) -> Result<Machine> {
        let settings = &self.settings;
        let directory = self.records.directory(&record.id);
        let files = overlay(
            Identity {
                id: &record.id,
                hostname,
                address: (record.address, settings.prefix),
                gateway: settings.gateway,
                nameserver: settings.nameserver,
                pod_cidr: record.pod_cidr,
                mirror: settings.mirror.as_deref(),
            },
            user_data,
        );
        nspawn::lay_out(&directory, &files).await?;
        let supervisor = nspawn::start(&directory, &lower, &record.id, hostname, &settings.bridge).await?;
        record.supervisor = Some(supervisor);
        self.keep(&record).await?;
        record.init = Some(nspawn::init_of(supervisor, &directory).await?);
        self.keep(&record).await?;
        routes::set(record.pod_cidr, record.address).await?;
        info!(machine = record.name, id = record.id, address = %record.address, pods = %record.pod_cidr, "booted");
        Ok(record.report().await)
    }

    async fn keep(&self, record: &Record) -> Result<()> {
        self.records.write(record).await?;
        self.ledger
            .lock()
            .await
            .machines
            .insert(record.id.clone(), record.clone());
        Ok(())
    }

    /// Ends the processes of the machine and removes its route and cgroups.
    async fn clear(&self, record: &Record) -> Result<()> {
        nspawn::stop(record.running().await, record.supervisor).await?;
        routes::remove(record.pod_cidr, record.address).await?;
        for pid in cgroups::members(&record.id) {
            nspawn::kill(pid).await?;
        }
        nspawn::forget(&record.id).await;
        let mut tries = 0;
        // The kernel may still be reaping the last processes of the subtree.
        while let Err(error) = cgroups::remove(&record.id) {
            tries += 1;
            if tries == 100 {
                return Err(error).context("the machine's cgroups stay busy");
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        Ok(())
    }
}
