//! How the konnectivity agents of a tenant fare: what to say where the tunnel does not reach a node.

use k8s_openapi::api::core::v1::Pod;
use kube::{Api, ResourceExt as _, api::ListParams};

use super::{
    client::{Connection, within},
    error::Error,
    konnectivity::{ACCOUNT, NAMESPACE},
    limit::PAGE,
};
use crate::k8s::{conditions::quoted, pod, ready};

/// What is wrong with the agents that reach `node`: with its own, where it has one, else with any, of which [`PAGE`] are
/// looked at. `None` where they are ready.
///
/// # Errors
/// When a request fails.
pub async fn trouble(connection: &Connection, node: &str) -> Result<Option<String>, Error> {
    let pods: Api<Pod> = Api::namespaced(connection.client(), NAMESPACE);
    let all = ListParams::default()
        .labels(&format!("k8s-app={ACCOUNT}"))
        .limit(PAGE);
    let own = all.clone().fields(&format!("spec.nodeName={node}"));
    let own = list(&pods, &own).await?;
    if own.is_empty() {
        return Ok(summary(&list(&pods, &all).await?));
    }
    Ok(of_node(node, &own))
}

/// Agents, without those that have ended or are about to.
async fn list(pods: &Api<Pod>, which: &ListParams) -> Result<Vec<Pod>, Error> {
    let mut found = within("list the konnectivity agents", pods.list(which))
        .await?
        .items;
    found.retain(runs);
    Ok(found)
}

/// What is wrong with the agents of a node.
fn of_node(node: &str, agents: &[Pod]) -> Option<String> {
    let bad = agents.first().filter(|_| !agents.iter().any(ready::pod))?;
    Some(format!("of the agent of {node}, {}", described(bad)))
}

/// What is wrong with all agents.
fn summary(agents: &[Pod]) -> Option<String> {
    if agents.is_empty() {
        return Some(format!(
            "there is no pod {ACCOUNT} in {NAMESPACE} of the workload cluster; the agents are applied again"
        ));
    }
    let ready = agents.iter().filter(|agent| ready::pod(agent)).count();
    let first = agents.iter().find(|agent| !ready::pod(agent))?;
    let whole = agents.len();
    Some(format!(
        "{ready} of {whole} konnectivity agents are ready; {}",
        described(first)
    ))
}

/// Pod and cause.
fn described(agent: &Pod) -> String {
    let why = pod::trouble(agent).unwrap_or_else(|| "it is not ready".to_owned());
    let name = quoted(&agent.name_any());
    format!("{NAMESPACE}/{name}: {}", quoted(&why))
}

/// It is no pod that has ended or is about to.
fn runs(agent: &Pod) -> bool {
    let phase = agent.status.as_ref().and_then(|status| status.phase.as_deref());
    agent.metadata.deletion_timestamp.is_none() && !matches!(phase, Some("Failed" | "Succeeded"))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn agent(name: &str, ready: &str, waiting: Option<&str>) -> Pod {
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
    fn of_a_node_its_own_agent_is_named() {
        assert_eq!(of_node("worker-0", &[agent("a", "True", None)]), None);
        let found = of_node("worker-0", &[agent("a", "False", Some("ErrImagePull"))]).unwrap();
        let start = "of the agent of worker-0, kube-system/a: container konnectivity-agent: the image";
        assert!(found.starts_with(start), "{found}");
    }

    #[test]
    fn pods_that_have_ended_are_no_agents() {
        let mut ended = agent("a", "False", None);
        assert!(runs(&ended));
        ended.status.as_mut().unwrap().phase = Some("Failed".to_owned());
        assert!(!runs(&ended));
        let mut leaving = agent("b", "True", None);
        leaving.metadata.deletion_timestamp = serde_json::from_value(json!("2026-01-01T00:00:00Z")).unwrap();
        assert!(!runs(&leaving));
    }
}
