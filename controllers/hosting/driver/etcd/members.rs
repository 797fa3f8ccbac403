//! The members of an etcd: the order in which they are asked, and which of them do not answer.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use etcd_client::{Client, ConnectOptions};

use super::super::Error;

/// One member.
pub struct Member {
    /// `host:port`.
    pub endpoint: String,
    /// A connection to this member alone. One connection to all of them would give each its share of the requests,
    /// whether it answers or not.
    pub client: Client,
    /// It did not answer when it was last asked.
    silent: AtomicBool,
}

impl Member {
    /// Records whether it answered.
    pub fn note(&self, answered: bool) {
        self.silent.store(!answered, Ordering::Relaxed);
    }

    /// It did not answer when it was last asked.
    pub fn is_silent(&self) -> bool {
        self.silent.load(Ordering::Relaxed)
    }
}

/// All members.
pub struct Members {
    all: Vec<Member>,
    next: AtomicUsize,
}

impl Members {
    /// Prepares a connection to each endpoint. Nothing is sent.
    pub async fn open(endpoints: &[String], options: &ConnectOptions) -> Result<Self, Error> {
        let mut all = Vec::with_capacity(endpoints.len());
        for endpoint in endpoints {
            let client = Client::connect([format!("https://{endpoint}")], Some(options.clone())).await;
            all.push(Member {
                endpoint: endpoint.clone(),
                client: client.map_err(|error| Error::Credentials(error.to_string()))?,
                silent: AtomicBool::new(false),
            });
        }
        Ok(Self {
            all,
            next: AtomicUsize::new(0),
        })
    }

    /// All members.
    pub fn all(&self) -> &[Member] {
        &self.all
    }

    /// The members in the order in which the next request asks them.
    pub fn in_turn(&self) -> impl Iterator<Item = &Member> {
        let silent: Vec<bool> = self.all.iter().map(Member::is_silent).collect();
        let first = self.next.fetch_add(1, Ordering::Relaxed);
        order(first, &silent).into_iter().map(|at| &self.all[at])
    }
}

/// Each request begins with the next member, so that one that is down is found. Those that did not answer come last.
fn order(first: usize, silent: &[bool]) -> Vec<usize> {
    let turn = (0..silent.len()).map(|at| first.wrapping_add(at) % silent.len());
    let (last, mut order): (Vec<usize>, Vec<usize>) = turn.partition(|at| silent[*at]);
    order.extend(last);
    order
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_member_has_its_turn_and_silent_ones_come_last() {
        assert_eq!(order(0, &[false, false, false]), [0, 1, 2]);
        assert_eq!(order(1, &[false, false, false]), [1, 2, 0]);
        assert_eq!(order(0, &[true, false, false]), [1, 2, 0]);
        assert_eq!(order(1, &[true, true, false]), [2, 1, 0]);
        assert_eq!(order(2, &[true, true, true]), [2, 0, 1]);
        assert_eq!(order(7, &[false]), [0]);
        assert_eq!(order(usize::MAX, &[]), Vec::<usize>::new());
    }
}
