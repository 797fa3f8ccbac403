//! Approved requests of one Machine. Each counts once, however often its answer has to be sent. Their rate is limited and not
//! their number: the claim binds them to one node name, and a kubelet that starts again asks again. Pure.

use k8s_openapi::jiff::Timestamp;
use kamaji_api::bootstrap::{Approval, NodeStatus};

use crate::kamajiconfig::status::seconds;

/// Most approvals within [`WINDOW`].
pub const MOST: usize = 5;
/// Seconds.
const WINDOW: i64 = 15 * 60;

/// How many other requests than `request`, a UID, were approved within the window that ends `now`.
pub fn recent(node: Option<&NodeStatus>, request: &str, now: Timestamp) -> usize {
    recent_of(node.map_or(&[][..], |node| &node.recent_approvals), request, now)
}

/// The same, of a list.
pub fn recent_of(approvals: &[Approval], request: &str, now: Timestamp) -> usize {
    approvals
        .iter()
        .filter(|approval| approval.uid != request)
        .filter(|approval| now.as_second() - approval.time.0.as_second() < WINDOW)
        .count()
}

/// The claim of `name` after the approval of `request`.
pub fn approved(before: Option<&NodeStatus>, name: &str, request: &str, now: Timestamp) -> NodeStatus {
    let mut node = before.cloned().unwrap_or_default();
    node.name = Some(name.to_owned());
    node.claimed_at.get_or_insert_with(|| seconds(now));
    if add(&mut node.recent_approvals, request, now) {
        node.approvals = Some(node.approvals.unwrap_or(0).saturating_add(1));
    }
    node
}

/// Adds the approval of `request` to a list, of which the latest are kept. `false` if it is there already.
pub fn add(list: &mut Vec<Approval>, request: &str, now: Timestamp) -> bool {
    if list.iter().any(|approval| approval.uid == request) {
        return false;
    }
    list.push(Approval {
        uid: request.to_owned(),
        time: seconds(now),
    });
    list.drain(..list.len().saturating_sub(MOST));
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    #[test]
    fn an_answer_that_is_sent_again_is_one_approval() {
        let once = approved(None, "m", "one", at(1000));
        assert_eq!(approved(Some(&once), "m", "one", at(9000)), once);
        assert_eq!(
            (once.approvals, recent(Some(&once), "one", at(1000))),
            (Some(1), 0)
        );
        let twice = approved(Some(&once), "m", "two", at(1001));
        assert_eq!(
            (twice.approvals, recent(Some(&twice), "three", at(1001))),
            (Some(2), 2)
        );
        assert_eq!(twice.claimed_at, once.claimed_at);
    }

    #[test]
    fn approvals_count_for_a_quarter_of_an_hour() {
        let mut node = None;
        for number in 0..9 {
            node = Some(approved(
                node.as_ref(),
                "m",
                &format!("r{number}"),
                at(1000 + number),
            ));
        }
        let node = node.unwrap();
        assert_eq!((node.approvals, node.recent_approvals.len()), (Some(9), MOST));
        assert_eq!(recent(Some(&node), "next", at(1008)), MOST);
        assert_eq!(recent(Some(&node), "next", at(1004 + WINDOW)), MOST - 1);
        assert_eq!(recent(Some(&node), "next", at(1008 + WINDOW)), 0);
    }
}
