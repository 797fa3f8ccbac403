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
use crate::k8s::{conditions::quoted, pod};

/// What is wrong with the agents, of which [`PAGE`] are looked at; `None` where all are ready.
///
/// # Errors
/// When the request fails.
pub async fn trouble(connection: &Connection) -> Result<Option<String>, Error> {
    let pods: Api<Pod> = Api::namespaced(connection.client(), NAMESPACE);
    let agents = ListParams::default().labels(&format!("k8s-app={ACCOUNT}"));
    let found = list::first("list the konnectivity agents", pods, agents, PAGE, |pod| {
        Agent::of(&pod)
    })
    .await?;
    Ok(summary(&found))
}

/// What is kept of an agent.
struct Agent {
    name: String,
    /// Why it is not ready, where it is not.
    trouble: Option<String>,
}

impl Agent {
    fn of(pod: &Pod) -> Self {
        let why = || pod::trouble(pod).unwrap_or_else(|| "it is not ready".to_owned());
        Self {
            name: pod.name_any(),
            trouble: (!is_ready(pod)).then(|| quoted(&why())),
        }
    }
}

fn summary(agents: &[Agent]) -> Option<String> {
    if agents.is_empty() {
        return Some(format!(
            "there is no pod {ACCOUNT} in {NAMESPACE} of the workload cluster; it is applied again"
        ));
    }
    let ready = agents.iter().filter(|agent| agent.trouble.is_none()).count();
    let (name, why) = agents
        .iter()
        .find_map(|agent| Some((&agent.name, agent.trouble.as_ref()?)))?;
    Some(format!(
        "{ready} of {} konnectivity agents are ready; {NAMESPACE}/{name}: {why}",
        agents.len(),
    ))
}

fn is_ready(agent: &Pod) -> bool {
    let conditions = agent
        .status
        .as_ref()
        .and_then(|status| status.conditions.as_ref());
    conditions
        .into_iter()
        .flatten()
        .any(|condition| condition.type_ == "Ready" && condition.status == "True")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn agent(name: &str, ready: &str, waiting: Option<&str>) -> Agent {
        let state =
            waiting.map(|reason| json!({ "waiting": { "reason": reason, "message": "no such image" } }));
        let pod = json!({
            "metadata": { "name": name },
            "status": {
                "conditions": [{ "type": "Ready", "status": ready }],
                "containerStatuses": [{
                    "name": "konnectivity-agent", "image": "", "imageID": "", "ready": ready == "True", "restartCount": 0,
                    "state": state,
                }],
            },
        });
        Agent::of(&serde_json::from_value(pod).unwrap())
    }

    #[test]
    fn an_agent_that_is_missing_or_does_not_start_is_named() {
        assert!(
            summary(&[])
                .unwrap()
                .contains("there is no pod konnectivity-agent")
        );
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
}
