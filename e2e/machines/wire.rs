//! Messages between the provider and the machine host: JSON, one object for each machine.
//!
//! `PUT /v1/machines/{namespace}/{name}` with [`Order`] boots a machine once and returns a [`Machine`], `GET` returns
//! it
//! again, `DELETE` returns when nothing of the machine is left.

use serde::{Deserialize, Serialize};

/// What the host needs to boot one machine.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Order {
    /// Host name of the machine and `local-hostname` of its metadata.
    pub hostname: String,
    /// Image to boot from; the flags of the host name the available ones.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub image: Option<String>,
    /// Version of Kubernetes that the machine is to have, by which the host selects an image if the order names none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<String>,
    /// Pod range of the cluster, from which the machine gets its own /24.
    pub cluster_pod_cidr: String,
    /// Network outside of the lab that the machine is in; none is the lab's own bridge.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub network: Option<OutsideOrder>,
    /// How far the clock of a virtual machine is ahead at its first boot; behind, where it is negative.
    #[serde(default)]
    pub clock_offset_seconds: i32,
    /// User-data, base64: exactly the bytes of the bootstrap Secret.
    pub user_data: String,
}

/// A network of machines behind a NAT, which exists while machines are in it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct OutsideOrder {
    /// Its name.
    pub name: String,
    /// Addresses of its machines; all that name the network name the same.
    pub cidr: String,
}

/// State of a machine, as reported by the host.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Machine {
    /// Name of the machine, of its record and of its cgroup subtree on the host.
    pub id: String,
    /// Address of the machine in its network.
    pub address: String,
    /// Pod range of the machine.
    pub pod_cidr: String,
    /// sha256 of the user-data it was booted with, in hex.
    pub user_data_sha256: String,
    /// Whether its PID 1 runs.
    pub running: bool,
    /// Host PID of its PID 1, for `nsenter`; 0 when it does not run.
    pub pid: u32,
}

/// Why the host refused, in one sentence.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Refusal {
    /// The sentence.
    pub message: String,
}
