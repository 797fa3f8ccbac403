//! Service types and additional Service ports, the same in TenantControlPlane and KamajiControlPlane.

use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// How the API server is exposed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[schemars(inline)]
#[serde(rename_all = "PascalCase")]
pub enum ServiceType {
    /// Reachable inside the management cluster only.
    #[default]
    #[serde(rename = "ClusterIP")]
    ClusterIp,
    /// Reachable on a port of every node of the management cluster. Requires an address.
    NodePort,
    /// Reachable through a load balancer of the management cluster.
    LoadBalancer,
}

impl ServiceType {
    /// Every type.
    pub const ALL: [Self; 3] = [Self::ClusterIp, Self::NodePort, Self::LoadBalancer];

    /// How far it reaches: each type serves what those before it serve, too.
    pub const fn reach(self) -> u8 {
        match self {
            Self::ClusterIp => 0,
            Self::NodePort => 1,
            Self::LoadBalancer => 2,
        }
    }

    /// The type that reaches farther.
    #[must_use]
    pub const fn wider(self, other: Self) -> Self {
        if other.reach() > self.reach() { other } else { self }
    }

    /// The type of this name; `None` for one that a control plane has no use for.
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|known| known.as_str() == text)
    }

    /// The value as Kubernetes spells it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::ClusterIp => "ClusterIP",
            Self::NodePort => "NodePort",
            Self::LoadBalancer => "LoadBalancer",
        }
    }
}

/// Transport protocol of a port.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[schemars(inline)]
#[serde(rename_all = "UPPERCASE")]
#[expect(missing_docs, reason = "the names say it")]
pub enum Protocol {
    #[default]
    Tcp,
    Udp,
    Sctp,
}

/// A port of the Service in addition to the port of the API server.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(inline)]
pub struct AdditionalPort {
    /// Name, unique within the Service.
    pub name: String,
    /// Protocol.
    #[serde(default)]
    pub protocol: Protocol,
    /// Application protocol, as in core/v1 ServicePort.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub app_protocol: Option<String>,
    /// Port of the Service.
    pub port: i32,
    /// Port of the pod, by number or name.
    pub target_port: IntOrString,
}
