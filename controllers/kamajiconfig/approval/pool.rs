//! Decides about a request with the token of a MachinePool, which all its machines share. Pure.
//!
//! The token leads to a pool, and not to one machine, so a request is bound by what is known of all of them: the pattern of
//! their names, the Machines that some infrastructure providers have for them, the Nodes and names that exist, and the size of
//! the pool. Who has the token can take the name of a machine that has not joined yet, and no other.

use k8s_openapi::jiff::Timestamp;
use kamaji_api::{
    bootstrap::{MOST_POOL_NODES, PoolNode},
    conditions::Reason,
};

use super::{
    count,
    csr::{self, Decision, EXISTING_FOR, Requester},
};
use crate::kamajiconfig::{pool::instances::Instance, status::seconds};

/// What a decision depends on of a MachinePool.
#[derive(Clone, Debug)]
pub struct PoolFacts<'a> {
    /// It is being deleted.
    pub deleting: bool,
    /// Its Machines, if the infrastructure provider has some.
    pub instances: Vec<Instance<'a>>,
    /// Most Nodes that it may have.
    pub budget: usize,
    /// Nodes and reserved names that it has, without the requested one.
    pub used: usize,
    /// Nodes and reserved names that no Machine of `instances` has by its name, without the requested one.
    pub unnamed: usize,
    /// Seconds until a reserved name becomes free.
    pub free_in: i64,
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
    if requester.claimed != Some(node)
        && let Some(waits) = without_room(pool)
    {
        return waits;
    }
    csr::within_rate(node, requester)
}

/// No name more, while the pool is full.
pub fn without_room(pool: &PoolFacts<'_>) -> Option<Decision> {
    let is_full = pool.used >= pool.budget && !pool.deleting;
    is_full.then(|| Decision::Wait(Reason::PoolFull, full(pool), pool.free_in))
}

fn full(pool: &PoolFacts<'_>) -> String {
    match pool.budget {
        0 => "a machine asks for a certificate, and the MachinePool has no replicas".to_owned(),
        budget => format!(
            "a machine asks for a certificate, and the MachinePool has {} Nodes and reserved names, of {budget} at most \
             (a quarter more than its replicas, and {MOST_POOL_NODES} in all)",
            pool.used
        ),
    }
}

/// Why the node is none of the Machines of the pool. They may come, or report their addresses, after they booted.
fn stranger(node: &str, pool: &PoolFacts<'_>, age_seconds: i64) -> Option<Decision> {
    let instances = &pool.instances;
    let anonymous = instances
        .iter()
        .filter(|instance| instance.is_anonymous())
        .count();
    if instances.is_empty() {
        return None;
    }
    let named: Vec<_> = instances
        .iter()
        .filter(|instance| instance.is_named(node))
        .collect();
    if named
        .iter()
        .any(|instance| !instance.deleting && instance.node_ref.is_none_or(|known| known == node))
    {
        return None;
    }
    if !named.is_empty() {
        return Some(Decision::Deny(
            Reason::MachineNotEligible,
            "the Machine of that name is being deleted or has another node".to_owned(),
        ));
    }
    if anonymous > pool.unnamed {
        return None;
    }
    let message =
        "no Machine of the MachinePool has the requested name, nor an address of that name".to_owned();
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

    fn facts() -> PoolFacts<'static> {
        PoolFacts {
            deleting: false,
            instances: Vec::new(),
            budget: 2,
            used: 0,
            unnamed: 0,
            free_in: 42,
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

    fn asked(node: &str, facts: &PoolFacts<'static>, age: i64) -> Decision {
        decide(node, &known(), facts, age)
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
        for used in [0, 1] {
            assert!(is_approved(&asked("a", &PoolFacts { used, ..facts() }, 0)));
        }
        let Decision::Wait(Reason::PoolFull, message, 42) =
            asked("a", &PoolFacts { used: 2, ..facts() }, 9000)
        else {
            panic!("it does not wait");
        };
        assert!(
            message.contains("2 Nodes and reserved names, of 2 at most"),
            "{message}"
        );
        let Decision::Wait(Reason::PoolFull, message, _) = asked("a", &PoolFacts { budget: 0, ..facts() }, 0)
        else {
            panic!("it does not wait");
        };
        assert!(message.contains("no replicas"), "{message}");
    }

    #[test]
    fn bootstrap_25_a_kubelet_of_a_pool_that_restarted_is_approved_again_in_a_full_pool_at_a_limited_rate() {
        let (mut known, pool) = (known(), PoolFacts { used: 2, ..facts() });
        known.claimed = Some("a");
        known.recent_approvals = 4;
        assert!(is_approved(&decide("a", &known, &pool, 0)));
        known.recent_approvals = 5;
        assert_eq!(reason(&decide("a", &known, &pool, 0)), Some(Reason::TooMany));
    }

    #[test]
    fn bootstrap_18_the_name_of_a_node_is_never_approved_not_even_one_of_the_pool() {
        let (mut known, pool) = (known(), facts());
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
        let (mut known, pool) = (known(), facts());
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
            ..facts()
        };
        assert_eq!(
            reason(&asked("a", &deleting, 0)),
            Some(Reason::MachineNotEligible)
        );
    }

    #[test]
    fn where_the_provider_has_machines_the_name_is_one_of_theirs() {
        let machines = || PoolFacts {
            instances: vec![instance("p-1"), instance("p-2")],
            ..facts()
        };
        assert!(is_approved(&asked("p-1", &machines(), 0)));
        assert!(
            matches!(
                asked("p-3", &machines(), 0),
                Decision::Wait(Reason::NameMismatch, _, EXISTING_FOR)
            ),
            "its Machine may be created later"
        );
        assert_eq!(
            reason(&asked("p-3", &machines(), EXISTING_FOR)),
            Some(Reason::NameMismatch)
        );
        let mut gone = machines();
        gone.instances[0].deleting = true;
        assert_eq!(reason(&asked("p-1", &gone, 0)), Some(Reason::MachineNotEligible));
        let mut bound = machines();
        bound.instances[0].node_ref = Some("p-9");
        assert_eq!(reason(&asked("p-1", &bound, 0)), Some(Reason::MachineNotEligible));
    }

    #[test]
    fn machines_without_names_take_as_many_nodes_as_there_are_of_them() {
        let machines = |unnamed| {
            let mut machine = instance("object-1");
            machine.host_names.clear();
            PoolFacts {
                instances: vec![machine],
                unnamed,
                ..facts()
            }
        };
        assert!(is_approved(&asked("host-1", &machines(0), 0)));
        assert!(!is_approved(&asked("host-2", &machines(1), 0)));
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
