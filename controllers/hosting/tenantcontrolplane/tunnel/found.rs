//! What asking the kubelets found, and the condition `TunnelReady` that follows from it. Pure.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kamaji_api::conditions::{Reason, TenantControlPlaneCondition as On};

use crate::{k8s::conditions::Verdict, tenant::kubelets::Target};

/// What was found.
#[derive(Clone, Debug, PartialEq)]
pub enum Found {
    /// Nothing was asked, and what the condition says is about the spec as it is now.
    Still(Condition),
    /// The control plane sleeps.
    Asleep,
    /// There is no kubelet to ask.
    NoReadyNodes {
        /// Number of Nodes that were looked at, where there are more.
        of_first: Option<u32>,
    },
    /// Every API server that was asked reaches every kubelet that was asked.
    Reached {
        /// The kubelets.
        targets: Vec<Target>,
        /// Number of API servers.
        servers: usize,
        /// Konnectivity agents that do not run, where there are some.
        agents: Option<String>,
    },
    /// An API server does not reach a kubelet.
    NotReached(Unreached),
    /// It could not be found out; why.
    Unknown(String),
}

/// The first pair of API server and kubelet that do not reach each other.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unreached {
    /// Pod of the API server; `None` where there is only one.
    pub server: Option<String>,
    /// The kubelet.
    pub target: Target,
    /// What the API server says.
    pub why: String,
    /// Konnectivity is on.
    pub tunneled: bool,
    /// What is wrong with the konnectivity agents, where something is.
    pub agents: Option<String>,
}

impl Found {
    /// It may be over in a moment.
    pub fn is_bad(&self) -> bool {
        match self {
            Self::NotReached(_) | Self::Unknown(_) => true,
            Self::Reached { agents, .. } => agents.is_some(),
            Self::Still(_) | Self::Asleep | Self::NoReadyNodes { .. } => false,
        }
    }

    /// What is known before a bad answer is believed.
    pub fn until_confirmed(self) -> Option<Self> {
        match self {
            Self::Reached { targets, servers, .. } => Some(Self::Reached {
                targets,
                servers,
                agents: None,
            }),
            Self::Still(_)
            | Self::Asleep
            | Self::NoReadyNodes { .. }
            | Self::NotReached(_)
            | Self::Unknown(_) => None,
        }
    }

    /// The condition.
    pub fn verdict(&self) -> Verdict {
        let on = On::TunnelReady.as_str();
        match self {
            Self::Still(known) => Verdict::repeated(on, known),
            Self::Asleep => Verdict::unknown(on, Reason::Sleeping, "the control plane has 0 replicas"),
            Self::NoReadyNodes { of_first } => {
                let message = of_first.map_or_else(
                    || "no node is Ready, so there is no kubelet to reach".to_owned(),
                    |count| {
                        format!(
                            "none of the first {count} Nodes is Ready, and there are more: delete the Nodes of machines that \
                             are gone"
                        )
                    },
                );
                Verdict::unknown(on, Reason::NoReadyNodes, message)
            }
            Self::Reached {
                targets,
                servers,
                agents,
            } => {
                let reached = reached(targets, *servers);
                match agents {
                    None => Verdict::yes(on, Reason::NodesReachable, reached),
                    Some(agents) => {
                        Verdict::yes(on, Reason::AgentsNotRunning, format!("{reached}; {agents}"))
                    }
                }
            }
            Self::NotReached(found) => Verdict::no(on, Reason::NodesNotReachable, unreached(found)),
            Self::Unknown(why) => Verdict::unknown(on, Reason::ProbeFailed, why.clone()),
        }
    }
}

fn reached(targets: &[Target], servers: usize) -> String {
    let nodes: Vec<_> = targets.iter().map(node).collect();
    let through = match servers {
        1 => "the API server reaches".to_owned(),
        several => format!("each of {several} API servers reaches"),
    };
    format!("{through} the kubelet of {}", nodes.join(", "))
}

fn unreached(found: &Unreached) -> String {
    let Unreached {
        server,
        target,
        why,
        tunneled,
        agents,
    } = found;
    let server = server.as_ref().map_or_else(
        || "the API server".to_owned(),
        |pod| format!("the API server of pod {pod}"),
    );
    let fix = match (agents, tunneled) {
        (Some(agents), _) => agents.as_str(),
        (None, true) => {
            "see the logs of the konnectivity-agent pods in kube-system of the workload cluster, and of the container \
             konnectivity-server"
        }
        (None, false) => "give the management cluster a route to the nodes, or set spec.addons.konnectivity",
    };
    format!(
        "{server} does not reach the kubelet of {}, so logs, exec and webhooks fail: {why}; {fix}",
        node(target)
    )
}

fn node(target: &Target) -> String {
    if target.zone.is_empty() {
        return target.node.clone();
    }
    format!("{} (zone {})", target.node, target.zone)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn target(zone: &str) -> Target {
        Target {
            zone: zone.to_owned(),
            node: "worker-0".to_owned(),
        }
    }

    #[test]
    fn the_condition_names_server_node_and_fix() {
        let message = |found: Found| found.verdict().message;
        assert_eq!(
            message(Found::Reached {
                targets: vec![target("a"), target("b")],
                servers: 2,
                agents: None,
            }),
            "each of 2 API servers reaches the kubelet of worker-0 (zone a), worker-0 (zone b)"
        );
        let unreached = |tunneled, agents: Option<&str>| {
            message(Found::NotReached(Unreached {
                server: Some("alpha-0".to_owned()),
                target: target(""),
                why: "no route to host".to_owned(),
                tunneled,
                agents: agents.map(str::to_owned),
            }))
        };
        let direct = unreached(false, None);
        assert!(
            direct.starts_with(
                "the API server of pod alpha-0 does not reach the kubelet of worker-0, so logs, exec and webhooks fail: no \
                 route to host; "
            ),
            "{direct}"
        );
        assert!(direct.ends_with("or set spec.addons.konnectivity"), "{direct}");
        assert!(unreached(true, None).contains("konnectivity-agent"));
        assert!(unreached(true, Some("0 of 2 agents are ready")).ends_with("; 0 of 2 agents are ready"));
    }
}
