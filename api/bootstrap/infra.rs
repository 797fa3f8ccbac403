//! `infraPreset` and `output`: what the infrastructure of a machine asks for, and how large its bootstrap data may be.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// What is known about the infrastructure of a machine.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[schemars(inline)]
#[expect(missing_docs, reason = "the names are those of the infrastructures")]
pub enum InfraPreset {
    /// The preset of the kind in `spec.infrastructureRef` of the Machine, without its names of Nodes; none for a kind that is
    /// not known.
    #[default]
    Auto,
    /// No preset.
    None,
    VSphere,
    Metal3,
    OpenStack,
    Proxmox,
    KubeVirt,
    HetznerCloud,
    HetznerBareMetal,
    Nutanix,
    AWS,
    AWSMachinePool,
    Azure,
    GoogleCloud,
    Tinkerbell,
    EquinixMetal,
    IonosCloud,
    MetalStack,
    CloudStack,
    Outscale,
    MAAS,
    Harvester,
    RemoteMachine,
    Docker,
}

/// Largest bootstrap data in bytes. A Secret holds 1 MiB (<https://kubernetes.io/docs/concepts/configuration/secret/>);
/// the rest is room for its other keys.
pub const LARGEST_OUTPUT: u32 = 1_000_000;

/// How the bootstrap data is written.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
#[schemars(inline)]
pub struct Output {
    /// Largest size of the bootstrap data in bytes, as it is in its Secret: a base64 that the infrastructure provider makes of
    /// it is not counted. Larger data is not given to the machine. Defaults to what `infraPreset` knows of the
    /// infrastructure, otherwise to 1000000.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = LARGEST_OUTPUT))]
    pub max_bytes: Option<u32>,
}
