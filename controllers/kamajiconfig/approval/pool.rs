//! Decides about a request with the token of a MachinePool, which all its machines share. Pure.
//!
//! The token leads to a pool, and not to one machine, so a request is bound by what is known of all of them: the pattern of
//! their names, the Machines that some infrastructure providers have for them, the Nodes and names that exist, and the size of
//! the pool. Who has the token can take the name of a machine that has not joined yet, and no other.

use std::collections::{BTreeSet, HashSet};

use k8s_openapi::jiff::Timestamp;
use kamaji_api::{
    bootstrap::{MOST_POOL_NODES, PoolNode},
    conditions::Reason,
};

use super::{
    count,
    csr::{self, Decision, EXISTING_FOR, Requester},
};
use crate::kamajiconfig::{
    pool::instances::{Instance, Instances, is_among},
    status::seconds,
};

/// What a decision depends on of a MachinePool. The same for all requests until one is approved.
#[derive(Debug)]
pub struct PoolFacts<'a> {
    /// It is being deleted.
    pub deleting: bool,
    /// Its Machines, if the infrastructure provider has some.
    pub instances: &'a Instances<'a>,
    /// The names in its provider IDs, where those of its Nodes are among them.
    pub listed: Option<HashSet<&'a str>>,
    /// Most Nodes that it may have.
    pub budget: usize,
    /// Nodes and reserved names that it has, by any of its configs.
    pub held: BTreeSet<String>,
    /// How many of these no Machine of `instances` has by its name.
    pub unnamed: usize,
    /// Seconds until a reserved name becomes free.
    pub free_in: i64,
}

impl<'a> PoolFacts<'a> {
    /// The facts without its provider IDs; `held` are its Nodes and reserved names.
    pub fn new(instances: &'a Instances<'a>, budget: usize, held: BTreeSet<String>) -> Self {
        let unnamed = held.iter().filter(|name| !is_known(instances, name)).count();
        Self {
            deleting: false,
            instances,
            listed: None,
            budget,
            held,
            unnamed,
            free_in: EXISTING_FOR,
        }
    }

    /// It has as many Nodes as it may have, without this one.
    fn is_full_beside(&self, node: &str) -> bool {
        self.held.len() - usize::from(self.held.contains(node)) >= self.budget
    }

    /// Nodes beside this one that a Machine without names may have.
    fn unnamed_beside(&self, node: &str) -> usize {
        let counted = self.held.contains(node) && !is_known(self.instances, node);
        self.unnamed - usize::from(counted)
    }
}

/// A Machine has this node, or may have it by its name.
fn is_known(instances: &Instances<'_>, node: &str) -> bool {
    instances.with_node(node).is_some() || instances.named(node).next().is_some()
}

/// Decides about a well-formed request for `node` that was created `age_seconds` ago.
pub fn decide(node: &str, requester: &Requester<'_>, pool: &PoolFacts<'_>, age_seconds: i64) -> Decision {
    use Decision::Deny;
    if let Some(refusal) = csr::unknown_token(requester) {
        return refusal;
    }
    if pool.deleting {
        return Deny(
            Reason::MachineNotEligible,
            "the MachinePool of the token is being deleted".to_owned(),
        );
    }
    if let Some(why) = csr::forbidden(node, requester) {
        return Deny(Reason::NameMismatch, why.to_owned());
    }
    if let Some(other) = &requester.claimed_by {
        return Deny(
            Reason::NameClaimed,
            format!("KamajiConfig {other} claimed the requested name"),
        );
    }
    // Of the pool or not: it has its certificate, and the request may be another machine's.
    if requester.node_created.is_some() {
        return csr::exists(node, age_seconds);
    }
    if let Some(refusal) = stranger(node, pool, age_seconds) {
        return refusal;
    }
    if requester.claimed != Some(node) && pool.is_full_beside(node) {
        return Decision::Wait(Reason::PoolFull, full(pool), pool.free_in);
    }
    csr::within_rate(node, requester)
}

fn full(pool: &PoolFacts<'_>) -> String {
    match pool.budget {
        0 => "a machine asks for a certificate, and the MachinePool has no replicas: raise its spec.replicas, or delete the \
              machine"
            .to_owned(),
        budget => format!(
            "a machine asks for a certificate, and the MachinePool has {} Nodes and reserved names, of {budget} at most \
             (a quarter more than its replicas, and {MOST_POOL_NODES} in all): raise its spec.replicas, or delete Nodes whose \
             machines are gone",
            pool.held.len()
        ),
    }
}

/// Why the node is none of the machines of the pool, as far as the infrastructure reports them. It may report one, or its
/// addresses, after the machine booted.
fn stranger(node: &str, pool: &PoolFacts<'_>, age_seconds: i64) -> Option<Decision> {
    let instances = pool.instances;
    let message = if instances.is_empty() {
        let listed = pool.listed.as_ref()?;
        if is_among(listed, node) {
            return None;
        }
        format!(
            "no ID in spec.providerIDList of the MachinePool ends with the requested name {node}, and those of all its Nodes \
             end with theirs"
        )
    } else {
        let is_free = |instance: &Instance<'_>| {
            !instance.deleting && instance.node_ref.is_none_or(|known| known == node)
        };
        if instances.named(node).any(is_free) {
            return None;
        }
        if instances.named(node).next().is_some() {
            return Some(Decision::Deny(
                Reason::MachineNotEligible,
                "the Machine of that name is being deleted or has another node".to_owned(),
            ));
        }
        if instances.anonymous() > pool.unnamed_beside(node) {
            return None;
        }
        format!("no Machine of the MachinePool has the requested name {node}, nor an address of that name")
    };
    Some(if age_seconds < EXISTING_FOR {
        Decision::Wait(Reason::NameMismatch, message, EXISTING_FOR - age_seconds)
    } else {
        Decision::Deny(Reason::NameMismatch, message)
    })
}

/// `status.nodes` after the approval of `request`, a UID, for `name`.
pub fn claimed(before: &[PoolNode], name: &str, request: &str, now: Timestamp) -> Vec<PoolNode> {
    let mut list = before.to_vec();
    let at = list.iter().position(|node| node.name == name);
    let at = at.unwrap_or_else(|| {
        list.push(PoolNode {
            name: name.to_owned(),
            ..PoolNode::default()
        });
        list.len() - 1
    });
    let node = &mut list[at];
    node.claimed_at = Some(seconds(now));
    node.joined = false;
    count::add(&mut node.recent_approvals, request, now);
    list.sort_by(|one, other| one.name.cmp(&other.name));
    list
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kamajiconfig::approval::csr::tests::{reason, requester};

    /// A pool of one that has these names, and these Machines.
    fn facts<'a>(instances: &'a Instances<'a>, held: &[&str]) -> PoolFacts<'a> {
        let held = held.iter().map(|name| (*name).to_owned()).collect();
        PoolFacts {
            free_in: 42,
            ..PoolFacts::new(instances, 2, held)
        }
    }

    fn instance(name: &'static str) -> Instance<'static> {
        Instance {
            name,
            deleting: false,
            node_ref: None,
            host_names: vec![name],
            provisioned: true,
            provider_id: "",
        }
    }

    /// Asked for this name, with this age, of a pool that has these names and no Machines.
    fn asked(node: &str, held: &[&str], age: i64) -> Decision {
        decide(node, &known(), &facts(&Instances::default(), held), age)
    }

    /// Asked for this name, with this age, of a pool that has these Machines, and these names.
    fn asked_with(
        node: &str,
        machines: impl IntoIterator<Item = Instance<'static>>,
        held: &[&str],
        age: i64,
    ) -> Decision {
        let instances = Instances::from_iter(machines);
        decide(node, &known(), &facts(&instances, held), age)
    }

    fn known() -> Requester<'static> {
        Requester {
            machine: None,
            ..requester()
        }
    }

    fn is_approved(decision: &Decision) -> bool {
        matches!(decision, Decision::Approve(_))
    }

    #[test]
    fn as_many_nodes_as_the_budget_are_approved_and_the_next_waits() {
        for held in [&[][..], &["b"]] {
            assert!(is_approved(&asked("a", held, 0)));
        }
        let Decision::Wait(Reason::PoolFull, message, 42) = asked("a", &["b", "c"], 9000) else {
            panic!("it does not wait");
        };
        for part in [
            "2 Nodes and reserved names, of 2 at most",
            "raise its spec.replicas",
        ] {
            assert!(message.contains(part), "{message}");
        }
        let instances = Instances::default();
        let empty = PoolFacts {
            budget: 0,
            ..facts(&instances, &[])
        };
        let Decision::Wait(Reason::PoolFull, message, _) = decide("a", &known(), &empty, 0) else {
            panic!("it does not wait");
        };
        assert!(message.contains("no replicas"), "{message}");
    }

    #[test]
    fn bootstrap_25_a_kubelet_of_a_pool_that_restarted_is_approved_again_in_a_full_pool_at_a_limited_rate() {
        let (mut known, instances) = (known(), Instances::default());
        let pool = facts(&instances, &["a", "b"]);
        known.claimed = Some("a");
        known.recent_approvals = 4;
        assert!(is_approved(&decide("a", &known, &pool, 0)));
        known.recent_approvals = 5;
        assert_eq!(reason(&decide("a", &known, &pool, 0)), Some(Reason::TooMany));
    }

    #[test]
    fn bootstrap_18_the_name_of_a_node_is_never_approved_not_even_one_of_the_pool() {
        let (mut known, instances) = (known(), Instances::default());
        let pool = facts(&instances, &[]);
        known.node_created = Some(Timestamp::from_second(1001).unwrap());
        for claimed in [None, Some("a")] {
            known.claimed = claimed;
            assert!(matches!(
                decide("a", &known, &pool, 0),
                Decision::Wait(Reason::NodeExists, ..)
            ));
            assert_eq!(
                reason(&decide("a", &known, &pool, EXISTING_FOR)),
                Some(Reason::NodeExists)
            );
        }
    }

    #[test]
    fn names_outside_the_pattern_of_others_or_of_the_api_server_are_denied() {
        let (mut known, instances) = (known(), Instances::default());
        let pool = facts(&instances, &[]);
        assert_eq!(
            reason(&decide("api.example.com", &known, &pool, 0)),
            Some(Reason::NameMismatch)
        );
        known.misfits = true;
        assert_eq!(reason(&decide("a", &known, &pool, 0)), Some(Reason::NameMismatch));
        known.misfits = false;
        known.claimed_by = Some("other".to_owned());
        assert_eq!(reason(&decide("a", &known, &pool, 0)), Some(Reason::NameClaimed));
        known.claimed_by = None;
        known.token_is_ours = false;
        assert_eq!(reason(&decide("a", &known, &pool, 0)), Some(Reason::UnknownToken));
        let deleting = PoolFacts {
            deleting: true,
            ..facts(&instances, &[])
        };
        assert_eq!(
            reason(&decide("a", &self::known(), &deleting, 0)),
            Some(Reason::MachineNotEligible)
        );
    }

    #[test]
    fn where_the_provider_has_machines_the_name_is_one_of_theirs() {
        let machines = || [instance("p-1"), instance("p-2")];
        assert!(is_approved(&asked_with("p-1", machines(), &[], 0)));
        assert!(
            matches!(
                asked_with("p-3", machines(), &[], 0),
                Decision::Wait(Reason::NameMismatch, _, EXISTING_FOR)
            ),
            "its Machine may be created later"
        );
        assert_eq!(
            reason(&asked_with("p-3", machines(), &[], EXISTING_FOR)),
            Some(Reason::NameMismatch)
        );
        let mut gone = machines();
        gone[0].deleting = true;
        assert_eq!(
            reason(&asked_with("p-1", gone, &[], 0)),
            Some(Reason::MachineNotEligible)
        );
        let mut bound = machines();
        bound[0].node_ref = Some("p-9");
        assert_eq!(
            reason(&asked_with("p-1", bound, &[], 0)),
            Some(Reason::MachineNotEligible)
        );
    }

    #[test]
    fn machines_without_names_take_as_many_nodes_as_there_are_of_them() {
        let machines = || {
            let mut machine = instance("object-1");
            machine.host_names.clear();
            [machine]
        };
        assert!(is_approved(&asked_with("host-1", machines(), &[], 0)));
        assert!(is_approved(&asked_with("host-1", machines(), &["host-1"], 0)));
        assert!(!is_approved(&asked_with("host-2", machines(), &["host-1"], 0)));
    }

    #[test]
    fn where_provider_ids_tell_the_names_a_name_is_one_of_them() {
        let instances = Instances::default();
        let pool = PoolFacts {
            listed: Some(["p-1", "p-2"].into()),
            ..facts(&instances, &["p-1"])
        };
        assert!(is_approved(&decide("p-2", &known(), &pool, 0)));
        let Decision::Wait(Reason::NameMismatch, message, EXISTING_FOR) = decide("p-3", &known(), &pool, 0)
        else {
            panic!("its ID may be reported later");
        };
        assert!(message.contains("the requested name p-3"), "{message}");
        assert_eq!(
            reason(&decide("p-3", &known(), &pool, EXISTING_FOR)),
            Some(Reason::NameMismatch)
        );
    }

    #[test]
    fn an_approval_that_is_sent_again_is_counted_once() {
        let at = |second| Timestamp::from_second(second).unwrap();
        let mut list = claimed(&[], "b", "u0", at(0));
        list = claimed(&list, "b", "u0", at(1));
        assert_eq!(list[0].recent_approvals.len(), 1);
        for number in 1..9 {
            list = claimed(&list, "b", &format!("u{number}"), at(number));
        }
        assert_eq!(list[0].recent_approvals.len(), count::MOST);
        list = claimed(&list, "a", "other", at(9));
        assert_eq!(
            list.iter().map(|node| node.name.as_str()).collect::<Vec<_>>(),
            ["a", "b"]
        );
    }
}
