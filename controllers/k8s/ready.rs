//! Whether a Node or a Pod is Ready, by the condition that its kubelet reports. Pure.

use k8s_openapi::api::core::v1::{Node, Pod};

/// The kubelet reports the Node Ready.
pub fn node(node: &Node) -> bool {
    let conditions = node.status.as_ref().and_then(|status| status.conditions.as_ref());
    let mut conditions = conditions.into_iter().flatten();
    conditions.any(|condition| holds(&condition.type_, &condition.status))
}

/// The kubelet reports the Pod Ready.
pub fn pod(pod: &Pod) -> bool {
    let conditions = pod.status.as_ref().and_then(|status| status.conditions.as_ref());
    let mut conditions = conditions.into_iter().flatten();
    conditions.any(|condition| holds(&condition.type_, &condition.status))
}

fn holds(type_: &str, status: &str) -> bool {
    (type_, status) == ("Ready", "True")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn only_the_condition_ready_that_is_true_counts() {
        let table = [
            ("Ready", "True", true),
            ("Ready", "Unknown", false),
            ("MemoryPressure", "True", false),
        ];
        for (type_, status, expected) in table {
            let status = json!({ "conditions": [{ "type": type_, "status": status }] });
            let body = json!({ "metadata": {}, "status": status });
            assert_eq!(node(&serde_json::from_value(body.clone()).unwrap()), expected);
            assert_eq!(pod(&serde_json::from_value(body).unwrap()), expected);
        }
        assert!(!node(&Node::default()) && !pod(&Pod::default()));
    }
}
