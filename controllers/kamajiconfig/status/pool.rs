//! The conditions and fields of a config that a MachinePool owns. Pure.

use kamaji_api::{
    bootstrap::{KamajiConfigStatus, NodeReport, PoolNode, TokenStatus},
    conditions::{KamajiConfigCondition as Condition, Reason},
};

use crate::k8s::{conditions::Verdict, problem::Problem};

/// How the count in a message ends.
const COUNTED: &str = " Nodes joined";
/// Most names in a message.
const NAMED: usize = 5;

/// The Nodes of a MachinePool.
#[derive(Clone, Debug, PartialEq)]
pub struct Pool {
    /// Nodes that joined, and reserved names.
    pub nodes: Vec<PoolNode>,
    /// How many there are to be.
    pub wanted: usize,
    /// The token that the data had before.
    pub former: Option<TokenStatus>,
    /// The last report of a machine.
    pub report: Option<NodeReport>,
    /// What a certificate request waits for, or why the last one was denied.
    pub held: Option<Problem>,
    /// The provider IDs of the Nodes; `None` keeps what was reported.
    pub ids: Option<PoolIds>,
}

/// The provider IDs of the Nodes of a pool.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PoolIds {
    /// All Nodes have one.
    Set,
    /// Another component writes them.
    NotOurs,
    /// The infrastructure reports none yet that fits these Nodes.
    Awaited(Vec<String>),
    /// One could not be written.
    Unknown(Problem),
}

impl Pool {
    /// How many Nodes joined.
    pub fn joined(&self) -> usize {
        self.nodes.iter().filter(|node| node.joined).count()
    }

    /// A problem as it was before the condition that reported it put the count in front.
    pub fn without_count(problem: Problem) -> Problem {
        let rest = problem.message.split_once(&format!("{COUNTED}; "));
        match rest.map(|(_, rest)| rest.to_owned()) {
            Some(message) => Problem { message, ..problem },
            None => problem,
        }
    }

    pub(super) fn verdicts(&self) -> impl Iterator<Item = Verdict> {
        [Some(self.nodes_joined()), self.ids.as_ref().map(ids_set)]
            .into_iter()
            .flatten()
    }

    pub(super) fn write(&self, status: &mut KamajiConfigStatus) {
        status.nodes.clone_from(&self.nodes);
        status.former_token.clone_from(&self.former);
        if self.report.is_some() {
            status.last_report.clone_from(&self.report);
        }
    }

    /// While Nodes are missing, what is known about a machine that does not join is reported, else nothing of it: with the
    /// token of a pool, anybody who has it can ask for what is denied.
    fn nodes_joined(&self) -> Verdict {
        let type_ = Condition::NodeJoined.as_str();
        let (joined, wanted) = (self.joined(), self.wanted);
        let count = format!("{joined} of {wanted}{COUNTED}");
        if joined >= wanted {
            return Verdict::yes(type_, Reason::NodeJoined, count);
        }
        if let Some(problem) = &self.held {
            return Verdict::no(type_, problem.reason, format!("{count}; {}", problem.message));
        }
        let reported = self.report.as_ref();
        let reported = reported.and_then(|report| Some((report.reason.clone()?, report.message.clone()?)));
        match reported {
            Some((reason, message)) => Verdict::no(type_, reason, format!("{count}; {message}")),
            None => Verdict::no(type_, Reason::WaitingForNode, count),
        }
    }
}

fn ids_set(ids: &PoolIds) -> Verdict {
    let type_ = Condition::ProviderIDSet.as_str();
    match ids {
        PoolIds::Set => Verdict::yes(type_, Reason::ProviderIDSet, ""),
        PoolIds::NotOurs => Verdict::yes(
            type_,
            Reason::NotApplicable,
            "spec.nodeRegistration.providerID.source leaves it to another component",
        ),
        PoolIds::Awaited(nodes) => Verdict::no(
            type_,
            Reason::WaitingForProviderID,
            format!(
                "the infrastructure provider reports no provider ID that fits {}: neither that of a Machine with that name or \
                 address, nor one of spec.providerIDList of the MachinePool that ends with the name of the Node",
                some(nodes)
            ),
        ),
        PoolIds::Unknown(problem) => Verdict::unknown(type_, problem.reason, problem.message.clone()),
    }
}

/// The first of many names, for people.
fn some(names: &[String]) -> String {
    let shown = names.iter().take(NAMED).map(|name| format!("Node {name}"));
    let shown = shown.collect::<Vec<_>>().join(", ");
    match names.len().saturating_sub(NAMED) {
        0 => shown,
        more => format!("{shown} and {more} more"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pool(joined: usize, claimed: usize, wanted: usize) -> Pool {
        let node = |at: usize| PoolNode {
            name: format!("n{at}"),
            joined: at < joined,
            ..PoolNode::default()
        };
        Pool {
            nodes: (0..joined + claimed).map(node).collect(),
            wanted,
            former: None,
            report: None,
            held: Some(Problem::on_change(
                Reason::NameMismatch,
                "the name does not match",
            )),
            ids: None,
        }
    }

    #[test]
    fn a_denied_request_is_reported_while_nodes_are_missing_and_not_afterwards() {
        let missing = pool(1, 1, 3).nodes_joined();
        assert_eq!(missing.reason, "NameMismatch");
        assert_eq!(missing.message, "1 of 3 Nodes joined; the name does not match");
        let again = Pool::without_count(Problem::on_change(Reason::NameMismatch, missing.message));
        assert_eq!(Some(again), pool(1, 1, 3).held);
        let complete = pool(3, 1, 3).nodes_joined();
        assert_eq!(
            (complete.reason.as_str(), complete.message.as_str()),
            ("NodeJoined", "3 of 3 Nodes joined")
        );
    }

    #[test]
    fn a_pool_without_replicas_waits_for_nothing() {
        let empty = Pool {
            held: None,
            ..pool(0, 0, 0)
        }
        .nodes_joined();
        assert_eq!(empty.message, "0 of 0 Nodes joined");
    }

    #[test]
    fn of_many_nodes_without_a_provider_id_a_few_are_named() {
        let names: Vec<_> = (0..7).map(|at| format!("n{at}")).collect();
        assert_eq!(
            some(&names),
            "Node n0, Node n1, Node n2, Node n3, Node n4 and 2 more"
        );
        assert_eq!(some(&names[..1]), "Node n0");
    }
}
