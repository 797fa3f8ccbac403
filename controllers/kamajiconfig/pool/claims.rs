//! The Nodes of a MachinePool in `status.nodes`: names that are reserved for machines that join, and Nodes that joined.
//! Whoever has the token of a pool can ask for any number of names, so their number is bounded by the size of the pool. Pure.

use std::collections::BTreeSet;

use k8s_openapi::jiff::Timestamp;
use kamaji_api::bootstrap::{KamajiConfigSpec, MOST_POOL_NODES, PoolNode};

use crate::{capi::machine_pool::MachinePool, kamajiconfig::bootstrapdata::inputs::join_timeout};

/// Seconds beyond `joinTimeout` for which a name is reserved for a machine that does not become a Node.
const MARGIN: i64 = 5 * 60;
/// Most Nodes of a pool.
const MOST: usize = MOST_POOL_NODES as usize;

/// Most Nodes that a pool may have at the same time: a quarter more than it wants, at least one, since providers create new
/// instances before they delete old ones. A pool without replicas gets none.
pub fn budget(pool: &MachinePool) -> usize {
    match pool.wanted() {
        0 => 0,
        wanted => (wanted + wanted.div_ceil(4)).min(MOST),
    }
}

/// How long a name is reserved without a Node, in seconds: for one attempt to join, and a margin.
pub fn patience(spec: &KamajiConfigSpec) -> i64 {
    let attempt = join_timeout(spec).as_secs();
    i64::try_from(attempt).unwrap_or(i64::MAX - MARGIN) + MARGIN
}

/// The entry still counts: its Node exists, or its machine may be about to join.
fn is_held(node: &PoolNode, exists: &impl Fn(&str) -> bool, now: Timestamp, patience: i64) -> bool {
    exists(&node.name) || (!node.joined && ends_in(node, now, patience) > 0)
}

/// Seconds until the reservation of a name without a Node ends.
fn ends_in(node: &PoolNode, now: Timestamp, patience: i64) -> i64 {
    let claimed = node.claimed_at.as_ref().map_or(now, |time| time.0);
    claimed.as_second() + patience - now.as_second()
}

/// The names that count against the budget. `exists` says whether there is a Node.
pub fn held<'a>(
    list: impl Iterator<Item = &'a PoolNode>,
    exists: &impl Fn(&str) -> bool,
    now: Timestamp,
    patience: i64,
) -> BTreeSet<String> {
    list.filter(|node| is_held(node, exists, now, patience))
        .map(|node| node.name.clone())
        .collect()
}

/// Seconds until the first reservation without a Node ends; none without one.
pub fn next_end<'a>(
    list: impl Iterator<Item = &'a PoolNode>,
    exists: &impl Fn(&str) -> bool,
    now: Timestamp,
    patience: i64,
) -> Option<i64> {
    list.filter(|node| !node.joined && !exists(&node.name))
        .map(|node| ends_in(node, now, patience).max(1))
        .min()
}

/// The list as the workload cluster has it now: with Nodes that joined, also those that `core` found and nobody claimed, as
/// after `clusterctl move`; without Nodes that are gone and reservations that ended. `foreign` says which names other configs
/// have.
pub fn settled<'a>(
    before: &[PoolNode],
    core: impl Iterator<Item = &'a str>,
    (exists, foreign): (&impl Fn(&str) -> bool, &impl Fn(&str) -> bool),
    now: Timestamp,
    patience: i64,
) -> Vec<PoolNode> {
    let mut list: Vec<PoolNode> = before
        .iter()
        .filter(|node| is_held(node, exists, now, patience))
        .map(|node| {
            if exists(&node.name) {
                joined(node.clone())
            } else {
                node.clone()
            }
        })
        .collect();
    for name in core.filter(|name| exists(name)) {
        if list.len() < MOST && list.iter().all(|node| node.name != name) && !foreign(name) {
            list.push(joined(PoolNode {
                name: name.to_owned(),
                ..PoolNode::default()
            }));
        }
    }
    list.sort_by(|one, other| one.name.cmp(&other.name));
    list
}

fn joined(node: PoolNode) -> PoolNode {
    PoolNode {
        joined: true,
        recent_approvals: Vec::new(),
        ..node
    }
}

#[cfg(test)]
mod tests {
    use kamaji_api::bootstrap::Approval;
    use serde_json::json;

    use super::*;
    use crate::kamajiconfig::status::seconds;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    fn claim(name: &str, second: i64) -> PoolNode {
        PoolNode {
            name: name.to_owned(),
            claimed_at: Some(seconds(at(second))),
            recent_approvals: vec![Approval {
                uid: "u".to_owned(),
                time: seconds(at(second)),
            }],
            joined: false,
        }
    }

    fn names(list: &[PoolNode]) -> Vec<&str> {
        list.iter().map(|node| node.name.as_str()).collect()
    }

    fn of(replicas: i32) -> usize {
        let mut pool = MachinePool::default();
        pool.spec.replicas = Some(replicas);
        budget(&pool)
    }

    #[test]
    fn the_budget_has_headroom_for_a_rolling_update_and_none_at_zero() {
        assert_eq!([0, 1, 3, 4, 5, 100].map(of), [0, 2, 4, 5, 7, 125]);
        assert_eq!(of(5000), 1000, "no more than the status holds");
    }

    #[test]
    fn a_name_counts_until_its_machine_had_the_time_to_join() {
        let spec: KamajiConfigSpec = serde_json::from_value(json!({"joinTimeout": "20m"})).unwrap();
        let patience = patience(&spec);
        assert_eq!(patience, 25 * 60);
        let none = |_: &str| false;
        let list = [claim("a", 60), claim("b", 0)];
        let held = |now: i64| held(list.iter(), &none, at(now), patience).len();
        assert_eq!(held(60), 2);
        assert_eq!(
            next_end(list.iter(), &none, at(60), patience),
            Some(patience - 60)
        );
        assert_eq!(held(patience), 1);
        assert_eq!(
            names(&settled(
                &list,
                std::iter::empty(),
                (&none, &none),
                at(patience),
                patience
            )),
            ["a"]
        );
    }

    #[test]
    fn a_node_counts_while_it_exists_and_its_name_is_free_as_soon_as_it_is_gone() {
        let list = [claim("a", 0)];
        let there = |name: &str| name == "a";
        let gone = |_: &str| false;
        let list = settled(&list, std::iter::empty(), (&there, &gone), at(9000), 900);
        assert!(list[0].joined && list[0].recent_approvals.is_empty());
        assert_eq!(next_end(list.iter(), &there, at(9000), 900), None);
        assert_eq!(held(list.iter(), &gone, at(9001), 900).len(), 0);
        assert!(settled(&list, std::iter::empty(), (&gone, &gone), at(9001), 900).is_empty());
    }

    #[test]
    fn nodes_that_core_found_are_known_again_after_a_move() {
        let all = |name: &str| name != "gone";
        let foreign = |name: &str| name == "b";
        let list = settled(&[], ["a", "b", "gone"].into_iter(), (&all, &foreign), at(0), 900);
        assert!(names(&list) == ["a"] && list[0].joined);
    }
}
