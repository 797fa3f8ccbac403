//! What the provider and the machine host say to each other: plain JSON, one object per machine.
//!
//! `PUT /v1/machines/{namespace}/{name}` with [`Order`] boots a machine once and answers [`Machine`], `GET`
//! answers it again, `DELETE` answers when nothing of the machine is left.

use serde::{Deserialize, Serialize};

/// What the host needs to boot one machine.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Order {
    /// Host name of the machine and `local-hostname` of its metadata.
    pub hostname: String,
    /// Root image to boot from; the host's flags say which there are.
    pub image: String,
    /// Pod range of the cluster, from which the machine gets its own /24.
    pub cluster_pod_cidr: String,
    /// User-data, base64: exactly the bytes of the bootstrap Secret.
    pub user_data: String,
}

/// What the host tells about a machine.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Machine {
    /// Name of the container, of its record and of its cgroup subtree on the host.
    pub id: String,
    /// Address of the machine on the bridge.
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
