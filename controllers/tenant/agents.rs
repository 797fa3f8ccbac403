//! How the konnectivity agents of a tenant fare: what to say where the tunnel does not reach a node.

use k8s_openapi::api::core::v1::Pod;
use kube::{Api, ResourceExt as _, api::ListParams};

use super::{
    client::{Connection, within},
    error::Error,
    konnectivity::{ACCOUNT, NAMESPACE},
    limit::PAGE,
};
use crate::k8s::{conditions::quoted, pod};

/// What is wrong with the agents, of which [`PAGE`] are looked at; `None` where all are ready.
///
/// # Errors
/// When the request fails.
pub async fn trouble(connection: &Connection) -> Result<Option<String>, Error> {
    let pods: Api<Pod> = Api::namespaced(connection.client(), NAMESPACE);
    let agents = ListParams::default()
        .labels(&format!("k8s-app={ACCOUNT}"))
        .limit(PAGE);
    let found = within("list the konnectivity agents", pods.list(&agents)).await?;
    Ok(summary(&found.items))
}

fn summary(agents: &[Pod]) -> Option<String> {
    if agents.is_empty() {
        return Some(format!(
            "there is no pod {ACCOUNT} in {NAMESPACE} of the workload cluster; it is applied again"
        ));
    }
    let (ready, bad): (Vec<_>, Vec<_>) = agents.iter().partition(|agent| is_ready(agent));
    let first = bad.first()?;
    let why = pod::trouble(first).unwrap_or_else(|| "it is not ready".to_owned());
    Some(format!(
        "{} of {} konnectivity agents are ready; {NAMESPACE}/{}: {}",
        ready.len(),
        agents.len(),
        first.name_any(),
        quoted(&why)
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
