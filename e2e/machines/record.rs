//! The record of a machine: one `record.json` in its own directory.
//!
//! The record is written before anything is started, so everything that a crash leaves behind can be found and
//! removed.

use std::{
    net::Ipv4Addr,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result};
use serde::{Deserialize, Serialize};
use tokio::fs;

use super::{addresses::Network, outside::Outside, wire::Machine};

/// A PID that cannot be mistaken for a later one with the same number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pid {
    /// The number.
    pub pid: u32,
    /// Start time in clock ticks since boot.
    pub start: u64,
}

impl Pid {
    /// Names the process that runs now as `pid`.
    pub async fn of(pid: u32) -> Option<Self> {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).await.ok()?;
        start_time(&stat).map(|start| Self { pid, start })
    }

    /// Whether that very process still runs; a dead one that nobody has waited for does not.
    pub async fn alive(self) -> bool {
        Self::of(self.pid).await == Some(self)
    }

    /// The process below this supervisor that is PID 1 of its own namespace: a child of the container manager, which is a
    /// child of the supervisor. After a reboot it is another one.
    pub async fn init_below(self) -> Option<Self> {
        let mut level = vec![self.pid];
        for _ in 0..2 {
            let mut below = Vec::new();
            for pid in level {
                below.extend(children(pid).await);
            }
            for &child in &below {
                let status = fs::read_to_string(format!("/proc/{child}/status")).await;
                if is_namespace_init(&status.unwrap_or_default()) {
                    return Self::of(child).await;
                }
            }
            level = below;
        }
        None
    }
}

async fn children(pid: u32) -> Vec<u32> {
    let text = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).await;
    let text = text.unwrap_or_default();
    text.split_whitespace()
        .filter_map(|pid| pid.parse().ok())
        .collect()
}

fn is_namespace_init(status: &str) -> bool {
    status
        .lines()
        .find_map(|line| line.strip_prefix("NSpid:"))
        .is_some_and(|pids| {
            pids.split_whitespace().count() > 1 && pids.split_whitespace().last() == Some("1")
        })
}

/// Start time out of `/proc/<pid>/stat`; none for a zombie.
fn start_time(stat: &str) -> Option<u64> {
    let fields: Vec<&str> = stat.rsplit_once(')')?.1.split_whitespace().collect();
    if matches!(fields.first(), Some(&"Z" | &"X")) {
        return None;
    }
    fields.get(19)?.parse().ok()
}

/// All that is known of one machine.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Record {
    /// Name on the host.
    pub id: String,
    /// Namespace of the `LocalMachine`.
    pub namespace: String,
    /// Name of the `LocalMachine`.
    pub name: String,
    /// Network outside of the lab that it is in; none is the lab's bridge.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub network: Option<Outside>,
    /// Address in its network.
    pub address: Ipv4Addr,
    /// Pod range of the machine.
    pub pod_cidr: Network,
    /// sha256 of its user-data.
    pub user_data_sha256: String,
    /// It is a virtual machine: its processes are not those of the host.
    #[serde(default)]
    pub is_virtual: bool,
    /// The container's supervisor on the host, or the emulator.
    pub supervisor: Option<Pid>,
    /// The PID, on the host, of the machine's PID 1 at its first boot; that of the emulator of a virtual machine.
    pub init: Option<Pid>,
}

impl Record {
    /// The machine's PID 1, if it runs: the recorded one, or that of a later boot.
    pub async fn running(&self) -> Option<Pid> {
        let init = self.init?;
        if init.alive().await {
            return Some(init);
        }
        let supervisor = self.supervisor?;
        if supervisor.alive().await {
            supervisor.init_below().await
        } else {
            None
        }
    }

    /// The record in the form that the provider receives.
    pub async fn report(&self) -> Machine {
        let running = self.running().await.map(|init| init.pid);
        Machine {
            id: self.id.clone(),
            address: self.address.to_string(),
            pod_cidr: self.pod_cidr.to_string(),
            user_data_sha256: self.user_data_sha256.clone(),
            running: running.is_some(),
            pid: running.unwrap_or_default(),
        }
    }
}

/// The directory with every machine's directory.
#[derive(Clone, Debug)]
pub struct Records {
    root: PathBuf,
}

impl Records {
    /// Opens, and makes, the directory below `state`.
    pub async fn open(state: &Path) -> Result<Self> {
        let root = state.join("machines");
        fs::create_dir_all(&root)
            .await
            .with_context(|| format!("cannot make {}", root.display()))?;
        Ok(Self {
            root: fs::canonicalize(&root).await?,
        })
    }

    /// The machine's own directory.
    pub fn directory(&self, id: &str) -> PathBuf {
        self.root.join(id)
    }

    /// Reads every record; a directory without a readable one is named in the error.
    pub async fn read_all(&self) -> Result<Vec<Record>> {
        let mut records = Vec::new();
        let mut entries = fs::read_dir(&self.root).await?;
        while let Some(entry) = entries.next_entry().await? {
            let path = entry.path().join("record.json");
            match fs::read(&path).await {
                Ok(bytes) => records.push(
                    serde_json::from_slice(&bytes)
                        .with_context(|| format!("{} is damaged", path.display()))?,
                ),
                // Made by a run that died before it wrote the record: nothing had been started yet.
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                    fs::remove_dir_all(entry.path()).await?;
                }
                Err(error) => return Err(error).with_context(|| path.display().to_string()),
            }
        }
        Ok(records)
    }

    /// Writes one record, whole or not at all.
    pub async fn write(&self, record: &Record) -> Result<()> {
        let directory = self.directory(&record.id);
        fs::create_dir_all(&directory).await?;
        let draft = directory.join("record.json.new");
        fs::write(&draft, serde_json::to_vec_pretty(record)?).await?;
        fs::rename(&draft, directory.join("record.json")).await?;
        Ok(())
    }

    /// Removes a machine's disk and then its record.
    pub async fn remove(&self, id: &str) -> Result<()> {
        let directory = self.directory(id);
        for part in ["root", "upper", "work", "containerd", "kubelet"] {
            match fs::remove_dir_all(directory.join(part)).await {
                Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                    return Err(error).with_context(|| format!("cannot remove {part} of machine {id}"));
                }
                _ => {}
            }
        }
        match fs::remove_dir_all(&directory).await {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(error.into()),
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn start_time_survives_odd_command_names_and_skips_the_dead() {
        let tail = "S 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 4242 20";
        assert_eq!(start_time(&format!("7 (a b) c) {tail}")), Some(4242));
        assert_eq!(start_time(&format!("7 (x) {}", tail.replacen('S', "Z", 1))), None);
        assert_eq!(start_time("rubbish"), None);
    }

    #[test]
    fn the_first_process_of_a_namespace_is_told_from_the_hosts_own() {
        assert!(is_namespace_init("Name:\tsystemd\nNSpid:\t4711\t1\n"));
        assert!(!is_namespace_init("Name:\tsh\nNSpid:\t4711\t7\n"));
        assert!(!is_namespace_init("Name:\tinit\nNSpid:\t1\n"));
        assert!(!is_namespace_init(""));
    }

    #[tokio::test]
    async fn another_process_with_the_same_number_is_not_ours() {
        let own = Pid::of(std::process::id()).await.unwrap();
        assert!(own.alive().await);
        assert!(
            !Pid {
                start: own.start + 1,
                ..own
            }
            .alive()
            .await
        );
    }

    #[tokio::test]
    async fn a_reopened_directory_knows_its_machines_and_drops_half_made_ones() {
        let state = std::env::temp_dir().join(format!("lab-machines-test-{}", std::process::id()));
        let records = Records::open(&state).await.unwrap();
        let record = Record {
            id: "m1".to_owned(),
            namespace: "default".to_owned(),
            name: "a".to_owned(),
            network: None,
            address: Ipv4Addr::new(10, 88, 200, 1),
            pod_cidr: Network::parse("10.244.0.0/24").unwrap(),
            user_data_sha256: String::new(),
            is_virtual: false,
            supervisor: None,
            init: None,
        };
        records.write(&record).await.unwrap();
        fs::create_dir(records.directory("m2")).await.unwrap();
        let read = Records::open(&state).await.unwrap().read_all().await.unwrap();
        assert_eq!(read.len(), 1);
        assert_eq!(read[0].address, record.address);
        assert!(!records.directory("m2").exists());
        records.remove("m1").await.unwrap();
        assert!(records.read_all().await.unwrap().is_empty());
        fs::remove_dir_all(&state).await.unwrap();
    }
}
