//! The machines of this host: boots each once, finds running machines after a restart, removes machines completely.

use std::{
    collections::BTreeMap,
    net::Ipv4Addr,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use anyhow::{Context as _, Result, anyhow};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use k8s_openapi::jiff::SignedDuration;
use tokio::sync::Mutex;
use tracing::{info, warn};

use super::{
    addresses::Network,
    cgroups,
    images::{Image, Images},
    ledger::{Ledger, Ranges},
    nat::{self, Attachment, Namespaces},
    nspawn, qemu,
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
    /// Addresses on the bridge for the NAT of each network outside, separate from the others.
    pub uplinks: Network,
    /// Name server of the machines.
    pub nameserver: Ipv4Addr,
    /// Registry that machines ask for every image.
    pub mirror: Option<String>,
    /// Images that machines boot from.
    pub images: Images,
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
    namespaces: Namespaces,
    ledger: Mutex<Ledger>,
    turns: Mutex<BTreeMap<String, Arc<Mutex<()>>>>,
    /// Held while a network is made or removed.
    networks: Mutex<()>,
}

/// The namespace file of the network that a machine is in; none is the host's own.
async fn place(namespaces: &Namespaces, record: &Record) -> Result<Option<PathBuf>> {
    let Some(network) = &record.network else {
        return Ok(None);
    };
    let file = namespaces.living(&network.name).await;
    file.map(Some)
        .with_context(|| format!("network {} does not exist on this host", network.name))
}

impl Host {
    /// Adopts the machines that an earlier run recorded below `state`.
    pub async fn open(settings: Settings, state: &Path) -> Result<Self> {
        let (records, namespaces) = (Records::open(state).await?, Namespaces::open(state).await?);
        let mut ledger = Ledger::default();
        let mut found = records.read_all().await?;
        // Addresses go on in turn after the highest.
        found.sort_by_key(|record| record.address);
        for record in found {
            let machine = record.report().await;
            info!(
                machine = record.name,
                id = record.id,
                running = machine.running,
                "found again"
            );
            if machine.running {
                match place(&namespaces, &record).await {
                    Ok(place) => routes::set(place.as_deref(), record.pod_cidr, record.address).await?,
                    Err(error) => warn!(machine = record.name, "{error:#}"),
                }
            }
            ledger.add(record);
        }
        Ok(Self {
            settings,
            records,
            namespaces,
            ledger: Mutex::new(ledger),
            turns: Mutex::default(),
            networks: Mutex::new(()),
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
        let image = self.settings.images.of(order).map_err(Fault::Refused)?;
        if order.clock_offset_seconds != 0 && matches!(image, Image::Root(_)) {
            let message =
                "only a virtual machine has a clock of its own; select its image, or no clockOffsetSeconds";
            return Err(Fault::Refused(message.to_owned()));
        }
        let user_data = STANDARD
            .decode(&order.user_data)
            .map_err(|error| Fault::Refused(format!("userData is not base64: {error}")))?;
        let record = if let Some(record) = known {
            self.clear(&record).await?;
            record
        } else {
            let is_virtual = matches!(image, Image::Disk(_));
            self.allot(id, (namespace, name), order, &user_data, is_virtual)
                .await?
        };
        self.set_up_network(&record).await?;
        self.boot(record, &image, order, &user_data)
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
        // The record goes last: the network of the last machine is found by it.
        let _networks = self.networks.lock().await;
        self.leave_network(&record).await?;
        self.records.remove(&id).await?;
        self.ledger.lock().await.remove(&id);
        self.turns.lock().await.remove(&id);
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
        self.turns.lock().await.entry(id.to_owned()).or_default().clone()
    }

    /// Chooses address and pod range, and records them before anything is started.
    async fn allot(
        &self,
        id: String,
        (namespace, name): (&str, &str),
        order: &Order,
        user_data: &[u8],
        is_virtual: bool,
    ) -> Result<Record, Fault> {
        let ranges = Ranges {
            lab: Network::new(self.settings.gateway, self.settings.prefix),
            machines: self.settings.pool,
            uplinks: self.settings.uplinks,
        };
        let mut ledger = self.ledger.lock().await;
        let lot = ledger.allot(order, ranges).map_err(Fault::Refused)?;
        let lot = lot.ok_or_else(|| anyhow!("all addresses for machines are in use"))?;
        let record = Record {
            id,
            namespace: namespace.to_owned(),
            name: name.to_owned(),
            network: lot.network,
            address: lot.address,
            pod_cidr: lot.pod_cidr,
            user_data_sha256: sha256_hex(user_data),
            is_virtual,
            supervisor: None,
            init: None,
        };
        self.records.write(&record).await?;
        ledger.add(record.clone());
        Ok(record)
    }

    async fn set_up_network(&self, record: &Record) -> Result<()> {
        let Some(network) = &record.network else {
            return Ok(());
        };
        let _networks = self.networks.lock().await;
        let lab = Attachment {
            bridge: &self.settings.bridge,
            host: self.settings.gateway,
            prefix: self.settings.prefix,
        };
        self.namespaces.set_up(network, lab).await
    }

    /// Removes the network of a machine that was cleared, unless others are in it. One that is recorded meanwhile makes it
    /// again, as it waits for `networks`.
    async fn leave_network(&self, record: &Record) -> Result<()> {
        let Some(network) = &record.network else {
            return Ok(());
        };
        if !self.ledger.lock().await.has_neighbour(record) {
            self.namespaces.tear_down(network).await?;
            info!(network = network.name, "network removed");
        }
        Ok(())
    }

    async fn boot(
        &self,
        mut record: Record,
        image: &Image,
        order: &Order,
        user_data: &[u8],
    ) -> Result<Machine> {
        let settings = &self.settings;
        let directory = self.records.directory(&record.id);
        let place = place(&self.namespaces, &record).await?;
        let (prefix, gateway, bridge) = match &record.network {
            Some(network) => (network.range.prefix(), network.gateway(), nat::BRIDGE),
            None => (settings.prefix, settings.gateway, &*settings.bridge),
        };
        let files = overlay(
            Identity {
                id: &record.id,
                hostname: &order.hostname,
                interface: match image {
                    Image::Root(_) => nspawn::INTERFACE,
                    Image::Disk(_) => qemu::INTERFACE,
                },
                address: (record.address, prefix),
                gateway,
                nameserver: settings.nameserver,
                pod_cidr: record.pod_cidr,
                mirror: settings.mirror.as_deref(),
            },
            user_data,
        );
        match image {
            Image::Root(lower) => {
                nspawn::lay_out(&directory, &files).await?;
                let attached = (place.as_deref(), bridge);
                let supervisor =
                    nspawn::start(&directory, lower, &record.id, &order.hostname, attached).await?;
                record.supervisor = Some(supervisor);
                self.keep(&record).await?;
                record.init = Some(nspawn::init_of(supervisor, &directory).await?);
            }
            Image::Disk(image) => {
                qemu::lay_out(&directory, &files).await?;
                let machine = qemu::Start {
                    image,
                    id: &record.id,
                    namespace: place.as_deref(),
                    bridge,
                    clock_offset: SignedDuration::from_secs(order.clock_offset_seconds.into()),
                };
                let emulator = Some(qemu::start(&directory, machine).await?);
                (record.supervisor, record.init) = (emulator, emulator);
            }
        }
        self.keep(&record).await?;
        routes::set(place.as_deref(), record.pod_cidr, record.address).await?;
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
        // Routes in a network that is gone went with it.
        if let Ok(place) = place(&self.namespaces, record).await {
            routes::remove(place.as_deref(), record.pod_cidr, record.address).await?;
        }
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
