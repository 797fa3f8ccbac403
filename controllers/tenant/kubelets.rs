//! Whether the API server of a tenant reaches kubelets, as logs, exec and port-forward need it: the health of a kubelet,
//! requested through the API server's proxy. Nothing is executed on a node.

use http::Request;
use k8s_openapi::api::core::v1::Node;
use kube::{Api, ResourceExt as _, api::ListParams};

use super::{
    client::{Connection, within},
    error::Error,
    list,
    pages::PAGE,
    sight::{Sight, ZONE},
};
use crate::k8s::{
    conditions::{cut, quoted},
    names::is_dns_name,
    ready,
};

/// Kubelets that are asked, at most: one a zone.
pub const MOST: usize = 3;

/// Longest value of a label, in characters.
const LABEL: usize = 63;

/// A Ready node, and its zone if it has one.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Target {
    /// Zone; empty where the Node has no such label.
    pub zone: String,
    /// Name of the Node.
    pub node: String,
}

/// Which kubelets to ask: of the first [`PAGE`] Nodes, the youngest Ready one of each zone, [`MOST`] zones. What was added
/// last is what may not be reachable yet. Cordoned ones come last: they may be about to go.
///
/// # Errors
/// When the request fails.
pub async fn targets(connection: &Connection) -> Result<Vec<Target>, Error> {
    let nodes: Api<Sight> = Api::all(connection.client());
    let all = ListParams::default();
    let nodes = list::first("list Nodes", nodes, all, PAGE, |Sight(node)| node).await?;
    Ok(youngest(nodes))
}

/// Requests `/healthz` of the kubelet of `node`.
///
/// # Errors
/// The API server does not answer, or does not reach the kubelet: the message is its own.
pub async fn answers(connection: &Connection, node: &str) -> Result<(), Error> {
    let path = format!("/api/v1/nodes/{node}/proxy/healthz");
    let request = Request::get(&path)
        .body(Vec::new())
        .map_err(|error| Error::Credentials(error.to_string()))?;
    within(&format!("get {path}"), connection.client().request_text(request)).await?;
    Ok(())
}

fn youngest(mut nodes: Vec<Node>) -> Vec<Target> {
    nodes.retain(|node| {
        // The name becomes part of a path and of a condition.
        ready::node(node) && node.metadata.deletion_timestamp.is_none() && is_dns_name(&node.name_any())
    });
    nodes.sort_by_key(|node| {
        let is_cordoned = node.spec.as_ref().and_then(|spec| spec.unschedulable);
        (
            is_cordoned.unwrap_or(false),
            node.creation_timestamp().map(|time| std::cmp::Reverse(time.0)),
            node.name_any(),
        )
    });
    let mut targets = Vec::<Target>::new();
    for node in nodes {
        let zone = node.labels().get(ZONE).map(String::as_str).unwrap_or_default();
        let zone = cut(quoted(zone), LABEL);
        if targets.len() < MOST && targets.iter().all(|target| target.zone != zone) {
            let node = node.name_any();
            targets.push(Target { zone, node });
        }
    }
    targets.sort();
    targets
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn node(name: &str, zone: Option<&str>, created: &str, ready: &str) -> Node {
        let labels = zone.map(|zone| json!({ ZONE: zone }));
        serde_json::from_value(json!({
            "metadata": { "name": name, "labels": labels, "creationTimestamp": created },
            "status": { "conditions": [{ "type": "Ready", "status": ready }] },
        }))
        .unwrap()
    }

    #[test]
    fn the_youngest_ready_node_of_each_zone_is_asked() {
        let (old, new) = ("2026-01-01T00:00:00Z", "2026-02-01T00:00:00Z");
        let names = |nodes| -> Vec<String> {
            let targets = youngest(nodes).into_iter();
            targets.map(|t| format!("{}/{}", t.zone, t.node)).collect()
        };
        assert_eq!(names(vec![]), Vec::<String>::new());
        assert_eq!(
            names(vec![node("a", None, old, "True"), node("b", None, new, "True")]),
            ["/b"]
        );
        assert_eq!(
            names(vec![
                node("a", Some("z1"), old, "True"),
                node("b", Some("z1"), new, "Unknown"),
                node("c", Some("z2"), new, "True"),
            ]),
            ["z1/a", "z2/c"]
        );
        let many = (0..9).map(|n| node(&format!("n{n}"), Some(&format!("z{n}")), old, "True"));
        assert_eq!(names(many.collect()).len(), MOST);
    }

    #[test]
    fn a_node_that_is_about_to_go_is_asked_only_where_there_is_no_other() {
        let (old, new) = ("2026-01-01T00:00:00Z", "2026-02-01T00:00:00Z");
        let mut cordoned = node("b", None, new, "True");
        cordoned.spec = serde_json::from_value(json!({ "unschedulable": true })).unwrap();
        let asked = |nodes| youngest(nodes).remove(0).node;
        assert_eq!(asked(vec![node("a", None, old, "True"), cordoned.clone()]), "a");
        assert_eq!(asked(vec![cordoned]), "b");
    }

    #[test]
    fn what_no_api_server_has_as_a_name_is_asked_of_none_and_shown_to_none() {
        let time = "2026-01-01T00:00:00Z";
        assert_eq!(youngest(vec![node("../secrets", None, time, "True")]), []);
        let zone = format!("z\u{1b}{}", "z".repeat(100_000));
        let found = youngest(vec![node("a", Some(&zone), time, "True")]);
        let shown = &found[0].zone;
        assert!(
            shown.chars().count() <= LABEL && !shown.contains(char::is_control),
            "{shown}"
        );
    }
}
