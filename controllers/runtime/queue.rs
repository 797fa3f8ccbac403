//! A keyed queue: each key at most once in the queue and never twice at work; times are absolute.

use std::{
    collections::{BTreeSet, HashMap, HashSet},
    time::Duration,
};

use parking_lot::Mutex;
use tokio::{sync::Notify, time::Instant};

use crate::k8s::key::RootKey;

/// Due keys and keys at work.
#[derive(Default)]
pub struct Queue {
    state: Mutex<State>,
    changed: Notify,
}

#[derive(Default)]
struct State {
    due: BTreeSet<(Instant, RootKey)>,
    at: HashMap<RootKey, Instant>,
    working: HashSet<RootKey>,
    /// Added while at work: due as soon as the work ends.
    again: HashSet<RootKey>,
}

impl Queue {
    /// Makes `key` due now.
    pub fn add(&self, key: RootKey) {
        self.add_at(key, Instant::now());
    }

    /// Makes `key` due after `delay`, or earlier if it is due earlier already.
    pub fn add_after(&self, key: RootKey, delay: Duration) {
        self.add_at(key, Instant::now() + delay);
    }

    fn add_at(&self, key: RootKey, when: Instant) {
        {
            let mut state = self.state.lock();
            if state.working.contains(&key) && when <= Instant::now() {
                state.again.insert(key);
                return;
            }
            match state.at.get(&key).copied() {
                Some(known) if known <= when => return,
                Some(known) => {
                    state.due.remove(&(known, key.clone()));
                }
                None => {}
            }
            state.at.insert(key.clone(), when);
            state.due.insert((when, key));
        }
        self.changed.notify_one();
    }

    /// The next due key; it is at work until [`Queue::done`]. Cancel-safe.
    pub async fn next(&self) -> RootKey {
        loop {
            let wait = {
                let mut state = self.state.lock();
                let now = Instant::now();
                let ready = state
                    .due
                    .iter()
                    .take_while(|(when, _)| *when <= now)
                    .find(|(_, key)| !state.working.contains(key))
                    .cloned();
                if let Some((when, key)) = ready {
                    state.due.remove(&(when, key.clone()));
                    state.at.remove(&key);
                    state.working.insert(key.clone());
                    return key;
                }
                state
                    .due
                    .iter()
                    .find(|(_, key)| !state.working.contains(key))
                    .map(|(when, _)| when.saturating_duration_since(now))
            };
            match wait {
                Some(wait) => {
                    tokio::select! {
                        () = tokio::time::sleep(wait) => {}
                        () = self.changed.notified() => {}
                    }
                }
                None => self.changed.notified().await,
            }
        }
    }

    /// Ends the work on `key`; `again` is when it wants to run next. An add that came meanwhile wins.
    pub fn done(&self, key: RootKey, again: Option<Duration>) {
        let added = {
            let mut state = self.state.lock();
            state.working.remove(&key);
            state.again.remove(&key)
        };
        if added {
            self.add(key);
        } else if let Some(delay) = again {
            self.add_after(key, delay);
        }
        self.changed.notify_one();
    }

    /// For how long the longest waiting key has been due; `None` while none is.
    pub fn oldest_due(&self) -> Option<Duration> {
        let state = self.state.lock();
        let (when, _) = state.due.first()?;
        Instant::now().checked_duration_since(*when)
    }

    /// Keys that wait, due or not.
    pub fn len(&self) -> usize {
        self.state.lock().due.len()
    }

    /// Nothing waits.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(name: &str) -> RootKey {
        RootKey::new("ns", name)
    }

    #[tokio::test(start_paused = true)]
    async fn a_key_added_at_work_runs_again_and_never_twice_at_once() {
        let queue = Queue::default();
        queue.add(key("a"));
        let first = queue.next().await;
        queue.add(key("a"));
        let second = tokio::time::timeout(Duration::from_mins(1), queue.next()).await;
        assert!(second.is_err(), "the key is at work");
        queue.done(first, None);
        assert_eq!(queue.next().await, key("a"));
    }

    #[tokio::test(start_paused = true)]
    async fn the_earliest_time_wins() {
        let queue = Queue::default();
        let start = Instant::now();
        queue.add_after(key("a"), Duration::from_secs(100));
        queue.add_after(key("a"), Duration::from_secs(10));
        queue.add_after(key("a"), Duration::from_secs(50));
        queue.next().await;
        assert_eq!(start.elapsed().as_secs(), 10);
        assert!(queue.is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn a_key_at_work_does_not_hold_back_others() {
        let queue = Queue::default();
        queue.add(key("a"));
        let _working = queue.next().await;
        queue.add(key("b"));
        assert_eq!(queue.next().await, key("b"));
    }

    #[tokio::test(start_paused = true)]
    async fn the_age_of_the_oldest_due_key_is_that_of_its_wait() {
        let queue = Queue::default();
        queue.add_after(key("later"), Duration::from_mins(1));
        assert_eq!(queue.oldest_due(), None);
        queue.add(key("now"));
        tokio::time::advance(Duration::from_secs(5)).await;
        assert_eq!(queue.oldest_due(), Some(Duration::from_secs(5)));
    }
}
