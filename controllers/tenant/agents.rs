//! How the konnectivity agents of a tenant fare: what to say where the tunnel does not reach a node.

use k8s_openapi::api::core::v1::Pod;
use kube::{Api, ResourceExt as _, api::ListParams};

use super::{
    client::Connection,
    error::Error,
    konnectivity::{ACCOUNT, NAMESPACE},
    list,
    pages::PAGE,
};
use crate::k8s::{conditions::quoted, host_port::HostPort, pod, ready};

/// What is wrong with the agents that reach `node`: with its own, where it has one, else with any, of which [`PAGE`] are
/// looked at. `None` where they are ready. They connect to `server`.
///
/// # Errors
/// When a request fails.
pub async fn trouble(
    connection: &Connection,
    node: &str,
    server: &HostPort,
) -> Result<Option<String>, Error> {
    let pods: Api<Pod> = Api::namespaced(connection.client(), NAMESPACE);
    let all = ListParams::default().labels(&format!("k8s-app={ACCOUNT}"));
    let own = all.clone().fields(&format!("spec.nodeName={node}"));
    let own = agents(pods.clone(), own, server).await?;
    if own.is_empty() {
        return Ok(summary(&agents(pods, all, server).await?));
    }
    Ok(of_node(node, &own))
}

/// Agents that are looked at, where a few are wanted: as many as Kubernetes supports Nodes in a cluster.
const MOST: u32 = 5_000;

/// Restarts from which an agent that is not ready does not just start.
const RESTARTS: i32 = 2;

/// Which agents do not run although the tunnel works; `None` where they do. Pages of agents are read up to one that has such
/// an agent, [`MOST`] agents at most. An agent of a node that is gone runs as far as the workload cluster knows.
///
/// # Errors
/// When a request fails.
pub async fn not_running(connection: &Connection) -> Result<Option<String>, Error> {
    let pods: Api<Pod> = Api::namespaced(connection.client(), NAMESPACE);
    let all = ListParams::default().labels(&format!("k8s-app={ACCOUNT}"));
    let action = "list the konnectivity agents";
    let keep = |pod| {
        (!is_over(&pod)).then(|| {
            let why = pod::trouble(&pod).or_else(|| restarts(&pod));
            why.map(|why| format!("{NAMESPACE}/{}: {}", quoted(&pod.name_any()), quoted(&why)))
        })
    };
    let is_enough = |_, agents: &[Option<String>]| agents.iter().any(Option::is_some);
    let listed = list::until(action, pods, all, MOST, keep, is_enough).await?;
    let bad: Vec<_> = listed.kept.iter().flatten().collect();
    let of = if listed.is_whole { "of" } else { "of the first" };
    Ok(bad.first().map(|first| {
        format!(
            "{} {of} {} konnectivity agents do not run; {first}",
            bad.len(),
            listed.kept.len()
        )
    }))
}

/// An agent that ends again and again runs in between, without being ready.
fn restarts(pod: &Pod) -> Option<String> {
    let status = pod.status.as_ref()?;
    let containers = status.container_statuses.iter().flatten();
    let ends = containers
        .filter(|container| container.restart_count >= RESTARTS)
        .map(|container| format!("container {} ends again and again", quoted(&container.name)))
        .next();
    ends.filter(|_| !ready::pod(pod))
}

/// The pod has ended or is about to.
fn is_over(pod: &Pod) -> bool {
    let phase = pod.status.as_ref().and_then(|status| status.phase.as_deref());
    pod.metadata.deletion_timestamp.is_some() || matches!(phase, Some("Failed" | "Succeeded"))
}

/// What is kept of an agent.
struct Agent {
    name: String,
    /// Why it is not ready, where it is not.
    trouble: Option<String>,
}

impl Agent {
    /// None of a pod that has ended or is about to.
    fn of(pod: &Pod, server: &HostPort) -> Option<Self> {
        if is_over(pod) {
            return None;
        }
        // Ready is an agent that is connected to a server.
        let why = || {
            pod::trouble(pod).unwrap_or_else(|| {
                format!("it is not ready; its node has to reach {server}, through firewall and load balancer")
            })
        };
        Some(Self {
            name: quoted(&pod.name_any()),
            trouble: (!ready::pod(pod)).then(|| quoted(&why())),
        })
    }

    /// Name and cause, where it is not ready.
    fn described(&self) -> Option<String> {
        let why = self.trouble.as_ref()?;
        Some(format!("{NAMESPACE}/{}: {why}", self.name))
    }
}

async fn agents(pods: Api<Pod>, which: ListParams, server: &HostPort) -> Result<Vec<Agent>, Error> {
    let found = list::first("list the konnectivity agents", pods, which, PAGE, |pod| {
        Agent::of(&pod, server)
    });
    Ok(found.await?.into_iter().flatten().collect())
}

/// What is wrong with the agents of a node.
fn of_node(node: &str, agents: &[Agent]) -> Option<String> {
    let bad: Option<Vec<_>> = agents.iter().map(Agent::described).collect();
    Some(format!("of the agent of {node}, {}", bad?.first()?))
}

/// What is wrong with all agents.
fn summary(agents: &[Agent]) -> Option<String> {
    if agents.is_empty() {
        return Some(format!(
            "there is no pod {ACCOUNT} in {NAMESPACE} of the workload cluster; the agents are applied again"
        ));
    }
    let bad: Vec<_> = agents.iter().filter_map(Agent::described).collect();
    let (ready, whole) = (agents.len() - bad.len(), agents.len());
    Some(format!(
        "{ready} of {whole} konnectivity agents are ready; {}",
        bad.first()?
    ))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn pod(name: &str, ready: &str, waiting: Option<&str>) -> Pod {
        let state =
            waiting.map(|reason| json!({ "waiting": { "reason": reason, "message": "no such image" } }));
        serde_json::from_value(json!({
            "metadata": { "name": name },
            "status": {
                "conditions": [{ "type": "Ready", "status": ready }],
                "containerStatuses": [{
                    "name": "konnectivity-agent", "image": "", "imageID": "", "ready": ready == "True", "restartCount": 0,
                    "state": state,
                }],
            },
        }))
        .unwrap()
    }

    fn server() -> HostPort {
        HostPort::new("10.0.0.1", 8132)
    }

    fn agent(name: &str, ready: &str, waiting: Option<&str>) -> Agent {
        Agent::of(&pod(name, ready, waiting), &server()).unwrap()
    }

    #[test]
    fn an_agent_that_is_missing_or_does_not_start_is_named() {
        let none = summary(&[]).unwrap();
        assert!(none.contains("there is no pod konnectivity-agent"), "{none}");
        assert_eq!(summary(&[agent("a", "True", None)]), None);
        let found = summary(&[
            agent("a", "True", None),
            agent("b", "False", Some("ImagePullBackOff")),
        ])
        .unwrap();
        assert!(
            found.starts_with("1 of 2 konnectivity agents are ready; kube-system/b: "),
            "{found}"
        );
        assert!(found.contains("cannot be pulled"), "{found}");
    }

    #[test]
    fn an_agent_that_ends_again_and_again_is_named_while_it_runs() {
        let restarted = |ready: &str, count: i32| {
            let mut pod = pod("a", ready, None);
            let status = pod.status.as_mut().unwrap();
            status.container_statuses.as_mut().unwrap()[0].restart_count = count;
            restarts(&pod)
        };
        assert!(
            restarted("False", 2)
                .unwrap()
                .contains("konnectivity-agent ends again and again")
        );
        assert_eq!((restarted("False", 1), restarted("True", 9)), (None, None));
    }

    #[test]
    fn of_a_node_its_own_agent_is_named() {
        assert_eq!(of_node("worker-0", &[agent("a", "True", None)]), None);
        let found = of_node("worker-0", &[agent("a", "False", Some("ErrImagePull"))]).unwrap();
        let start = "of the agent of worker-0, kube-system/a: container konnectivity-agent: the image";
        assert!(found.starts_with(start), "{found}");
    }

    #[test]
    fn an_agent_that_is_not_connected_names_what_its_node_has_to_reach() {
        let found = of_node("worker-0", &[agent("a", "False", None)]).unwrap();
        assert!(found.contains("its node has to reach 10.0.0.1:8132"), "{found}");
    }

    #[test]
    fn pods_that_have_ended_are_no_agents() {
        let mut ended = pod("a", "False", None);
        assert!(Agent::of(&ended, &server()).is_some());
        ended.status.as_mut().unwrap().phase = Some("Failed".to_owned());
        assert!(Agent::of(&ended, &server()).is_none());
        let mut leaving = pod("b", "True", None);
        leaving.metadata.deletion_timestamp = serde_json::from_value(json!("2026-01-01T00:00:00Z")).unwrap();
        assert!(Agent::of(&leaving, &server()).is_none());
    }
}
