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

/// Nodes that are read to find one that is Ready. Kubernetes supports as many in a cluster.
const MOST_NODES: u32 = 5_000;

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

/// The kubelets to ask.
#[derive(Debug, PartialEq, Eq)]
pub struct Targets {
    /// None where no Node is Ready of those that were read.
    pub targets: Vec<Target>,
    /// Number of Nodes that were read, where there are more.
    pub of_first: Option<u32>,
}

/// Which kubelets to ask: the youngest Ready one of each zone, [`MOST`] zones, of the first [`PAGE`] Nodes, or as many as it
/// takes to find one that is Ready, [`MOST_NODES`] at most. What was added last is what may not be reachable yet. Cordoned
/// ones come last: they may be about to go.
///
/// # Errors
/// When a request fails.
pub async fn targets(connection: &Connection) -> Result<Targets, Error> {
    targets_of(Api::all(connection.client())).await
}

async fn targets_of(nodes: Api<Sight>) -> Result<Targets, Error> {
    let all = ListParams::default();
    let keep = |Sight(node)| may_be_asked(&node).then_some(node);
    let is_enough = |read, found: &[Node]| read >= PAGE && !found.is_empty();
    let listed = list::until("list Nodes", nodes, all, MOST_NODES, keep, is_enough).await?;
    Ok(Targets {
        targets: youngest(listed.kept),
        of_first: (!listed.is_whole).then_some(listed.read),
    })
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

fn may_be_asked(node: &Node) -> bool {
    // The name becomes part of a path and of a condition.
    ready::node(node) && node.metadata.deletion_timestamp.is_none() && is_dns_name(&node.name_any())
}

fn youngest(mut nodes: Vec<Node>) -> Vec<Target> {
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
    use http::Response;
    use kube::client::{Body, Client};
    use serde_json::json;

    use super::*;
    use crate::tenant::pages;

    fn node(name: &str, zone: Option<&str>, created: &str, ready: &str) -> Node {
        let labels = zone.map(|zone| json!({ ZONE: zone }));
        serde_json::from_value(json!({
            "metadata": { "name": name, "labels": labels, "creationTimestamp": created },
            "status": { "conditions": [{ "type": "Ready", "status": ready }] },
        }))
        .unwrap()
    }

    fn of(nodes: Vec<Node>) -> Vec<Target> {
        youngest(nodes.into_iter().filter(may_be_asked).collect())
    }

    /// What is asked in a workload cluster with this number of Nodes, of which one is Ready.
    async fn asked_of(count: usize, the_ready: Option<usize>) -> Targets {
        let inner = tower::service_fn(move |request: Request<Body>| {
            let uri = request.uri();
            let size = pages::asked(uri).unwrap() as usize;
            let mut pairs = uri.query().unwrap().split('&');
            let token = pairs.find_map(|pair| pair.strip_prefix("continue="));
            let from: usize = token.map_or(0, |token| token.parse().unwrap());
            let to = count.min(from + size.min(PAGE as usize));
            let ready = |at| if the_ready == Some(at) { "True" } else { "Unknown" };
            let nodes: Vec<_> = (from..to)
                .map(|at| node(&format!("n{at}"), None, "2026-01-01T00:00:00Z", ready(at)))
                .collect();
            let next = if to < count { to.to_string() } else { String::new() };
            let list = json!({ "metadata": { "continue": next }, "items": nodes }).to_string();
            async move { Ok::<_, std::convert::Infallible>(Response::new(Body::from(list.into_bytes()))) }
        });
        targets_of(Api::all(Client::new(inner, "default"))).await.unwrap()
    }

    #[tokio::test]
    async fn a_ready_node_is_found_behind_any_number_of_others() {
        let asked = |of_first, node: &str| Targets {
            targets: vec![Target {
                zone: String::new(),
                node: node.to_owned(),
            }],
            of_first,
        };
        assert_eq!(asked_of(300, Some(299)).await, asked(None, "n299"));
        assert_eq!(
            asked_of(300, Some(10)).await,
            asked(Some(PAGE), "n10"),
            "no more pages than it takes"
        );
        let none = |of_first| Targets {
            targets: Vec::new(),
            of_first,
        };
        assert_eq!(asked_of(300, None).await, none(None));
        assert_eq!(
            asked_of(MOST_NODES as usize + 1, None).await,
            none(Some(MOST_NODES))
        );
    }

    #[test]
    fn the_youngest_ready_node_of_each_zone_is_asked() {
        let (old, new) = ("2026-01-01T00:00:00Z", "2026-02-01T00:00:00Z");
        let names = |nodes| -> Vec<String> {
            let targets = of(nodes).into_iter();
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
        let asked = |nodes| of(nodes).remove(0).node;
        assert_eq!(asked(vec![node("a", None, old, "True"), cordoned.clone()]), "a");
        assert_eq!(asked(vec![cordoned]), "b");
    }

    #[test]
    fn what_no_api_server_has_as_a_name_is_asked_of_none_and_shown_to_none() {
        let time = "2026-01-01T00:00:00Z";
        assert_eq!(of(vec![node("../secrets", None, time, "True")]), []);
        let zone = format!("z\u{1b}{}", "z".repeat(100_000));
        let found = of(vec![node("a", Some(&zone), time, "True")]);
        let shown = &found[0].zone;
        assert!(
            shown.chars().count() <= LABEL && !shown.contains(char::is_control),
            "{shown}"
        );
    }
}
